"""A line about how busy the machine is."""

from __future__ import annotations

from pathlib import Path

from batchpoint.scoring.resource_usage import HEADER, ResourceUsage


def test_a_line_has_the_share_of_the_processor_since_the_line_before(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "stat").write_text("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 ...\n")
    (tmp_path / "meminfo").write_text("MemTotal:  4096 kB\nMemFree: 1 kB\nMemAvailable:  1024 kB\n")
    (tmp_path / "diskstats").write_text("")
    header = "Inter-|   Receive |  Transmit\n face |bytes\n"
    (tmp_path / "net" / "dev").write_text(
        header + f"  lo: {9 << 20} 0 0 0 0 0 0 0 5 0\n eth0: {2 << 20} 0 0 0 0 0 0 0 {1 << 20} 0\n"
    )
    (tmp_path / "net" / "tcp").write_text("header\na\nb\n")
    usage = ResourceUsage(tmp_path)
    (tmp_path / "stat").write_text("cpu  40 0 10 130 20 0 0 0 0 0\n")
    line = usage.line()
    assert line is not None
    cells = dict(zip(HEADER.strip().split(","), line.strip().split(","), strict=True))
    assert cells["Cpu Percent"] == "30.0"
    assert (cells["Memory Total (MB)"], cells["Memory Used (MB)"], cells["Memory Used Percent"]) == (
        "4.0",
        "3.0",
        "75.0",
    )
    assert (cells["Network Sent (MB)"], cells["Network Recv (MB)"]) == ("1.0", "2.0")
    assert (cells["# TCP Connections"], cells["# UDP Connections"]) == ("2", "0")


def test_a_system_without_proc_has_no_lines(tmp_path: Path) -> None:
    assert ResourceUsage(tmp_path / "none").line() is None
