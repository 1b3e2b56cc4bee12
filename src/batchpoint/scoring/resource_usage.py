"""How busy the machine is: a line of ``node_resource_usage.csv``, read from ``/proc``. Other systems have no lines.

Columns as in the logs of Azure ML's parallel runs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

HEADER = (
    "Utc Time,Cpu Percent,Memory Total (MB),Memory Available (MB),Memory Used (MB),Memory Used Percent,"
    "Disk Io Read Count,Disk Io Write Count,Disk Io Read (MB),Disk Io Write (MB),Network Sent (MB),Network Recv (MB),"
    "# TCP Connections,# UDP Connections\n"
)

_SECTOR = 512
"""Bytes of a sector in ``/proc/diskstats``, whatever the disk's own are."""
_MB = 1 << 20


class ResourceUsage:
    """Samples the machine. The processor's share is that of the time since the sample before."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """Begin to count."""
        self._proc = proc
        self._cpu = self._cpu_times()

    def line(self) -> str | None:
        """One line of the csv; None where the system does not tell."""
        before, now, memory = self._cpu, self._cpu_times(), self._memory()
        self._cpu = now
        if before is None or now is None or memory is None:
            return None
        busy, total = now[0] - before[0], now[1] - before[1]
        all_of_it, available = memory
        used = all_of_it - available
        values: list[float | int] = [
            100 * busy / total if total else 0.0,
            all_of_it / _MB,
            available / _MB,
            used / _MB,
            100 * used / all_of_it,
            *self._disk(),
            *self._network(),
        ]
        counts = [self._connections("tcp"), self._connections("udp")]
        texts = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
        return ",".join([f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}", *texts, *map(str, counts)]) + "\n"

    def _cpu_times(self) -> tuple[int, int] | None:
        """Busy and all time of all processors, in ticks."""
        lines = self._read("stat")
        if not lines:
            return None
        ticks = [int(text) for text in lines[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    def _memory(self) -> tuple[int, int] | None:
        found = {line.split(":")[0]: line.split()[1] for line in self._read("meminfo")}
        if "MemTotal" not in found or "MemAvailable" not in found:
            return None
        return int(found["MemTotal"]) * 1024, int(found["MemAvailable"]) * 1024

    def _disk(self) -> tuple[int, int, float, float]:
        """Reads, writes, and MB of both, of whole disks."""
        disks = [line.split() for line in self._read("diskstats")]
        whole = [disk for disk in disks if (Path("/sys/block") / disk[2]).exists()]
        reads, read, writes, written = (sum(int(disk[at]) for disk in whole) for at in (3, 5, 7, 9))
        return reads, writes, read * _SECTOR / _MB, written * _SECTOR / _MB

    def _network(self) -> tuple[float, float]:
        """MB sent and received, on all interfaces but the loopback."""
        lines = [line.split(":") for line in self._read("net/dev") if ":" in line]
        counts = [rest.split() for name, rest in lines if name.strip() != "lo"]
        return sum(int(c[8]) for c in counts) / _MB, sum(int(c[0]) for c in counts) / _MB

    def _connections(self, kind: str) -> int:
        return sum(max(len(self._read(f"net/{name}")) - 1, 0) for name in (kind, f"{kind}6"))

    def _read(self, name: str) -> list[str]:
        try:
            return (self._proc / name).read_text().splitlines()
        except OSError:
            return []
