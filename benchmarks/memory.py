"""How much memory a tree of processes takes, from /proc: proportional sizes, so that shared pages count once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Self

MARK = "BENCHMARK_MARK"
"""Environment variable that a measured process passes on to its children, however far they are detached. Workers are
not told what begins with ``BATCHPOINT_``, so its name must not."""


class PeakMemory:
    """Samples, in a thread, all processes that carry a mark, and what they start.

    ``total`` is the peak of the sum of proportional set sizes in bytes; ``worker`` the peak of one worker process.
    """

    def __init__(self, mark: str, *, interval: float = 0.25) -> None:
        self.total = 0
        self.worker = 0
        self._mark = f"{MARK}={mark}".encode()
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample_until_stopped(self) -> None:
        while not self._stop.is_set():
            sizes = {pid: proportional_size(pid) for pid in marked(self._mark)}
            self.total = max(self.total, sum(sizes.values()))
            workers = [size for pid, size in sizes.items() if is_worker(pid)]
            self.worker = max(self.worker, *workers, 0)
            self._stop.wait(self._interval)


def marked(mark: bytes) -> set[int]:
    """Processes with the mark in their environment, and their descendants."""
    parents, found = {}, set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            pid = int(folder.name)
            parents[pid] = parent_of(pid)
            if mark in read(pid, "environ").split(b"\0"):
                found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def is_worker(pid: int) -> bool:
    """Whether the process runs ``run()``: a worker, or a fork of the fork server."""
    command = read(pid, "cmdline")
    return b"worker.py" in command or b"fork_server" in command


def parent_of(pid: int) -> int:
    """Process id of the parent; 0 when the process is gone."""
    status = read(pid, "stat").rpartition(b")")[2].split()
    return int(status[1]) if len(status) > 1 else 0


def proportional_size(pid: int) -> int:
    """Proportional set size in bytes; 0 when the process is gone."""
    for line in read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def read(pid: int, name: str) -> bytes:
    """A file of /proc; nothing when the process is gone or belongs to somebody else."""
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""
