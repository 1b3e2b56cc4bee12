"""The mini-batches of a run → a timeline of bounded size, however many they are and however long it takes.

Time is cut into equal stretches. When it outgrows them, each two become one of twice the length, so that what was added
up before is never looked at again. Pure: reading the run's report is ``run_reports.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from batchpoint.entities.run_reports import RunReport, TimeSpent, WorkerTime

STRETCHES = 96
SHORTEST = 0.05
"""Seconds of a stretch at the beginning."""
MOST_WORKERS = 24
"""Workers that have a line of their own."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Attempts:
    """Some goes at mini-batches, column by column."""

    workers: list[str]
    """Names; ``worker`` points into them."""
    worker: Integers
    end: Floats
    """Unix time."""
    spent: Floats
    """Seconds of the worker's own: reading, running and writing."""
    run: Floats
    read: Floats
    ok: Integers
    failed: Integers
    """Items."""
    is_failed: npt.NDArray[np.bool_]


@dataclass(slots=True)
class Timeline:
    """All attempts so far, added up."""

    begin: float = 0.0
    stretch: float = SHORTEST
    last_end: float = 0.0
    attempts: int = 0
    failed_attempts: int = 0
    read: float = 0.0
    run: float = 0.0
    write: float = 0.0
    busy: dict[str, Floats] = field(default_factory=dict)
    """Seconds in each stretch, by worker."""
    others: Floats = field(default_factory=lambda: np.zeros(STRETCHES))
    first_start: dict[str, float] = field(default_factory=dict)
    items: Integers = field(default_factory=lambda: np.zeros(STRETCHES, np.int64))
    failed: Integers = field(default_factory=lambda: np.zeros(STRETCHES, np.int64))

    def add(self, given: Attempts) -> None:
        """Add some attempts, which may have ended in any order."""
        if not len(given.end):
            return
        starts = given.end - given.spent
        if not self.attempts:
            self.begin = float(starts.min())
        self.attempts += len(given.end)
        self.failed_attempts += int(given.is_failed.sum())
        self.last_end = max(self.last_end, float(given.end.max()))
        while self.last_end >= self.begin + STRETCHES * self.stretch:
            self._widen()
        self.read += float(given.read.sum())
        self.run += float(given.run.sum())
        self.write += float(np.maximum(given.spent - given.run - given.read, 0).sum())
        at = np.clip(((given.end - self.begin) / self.stretch).astype(np.int64), 0, STRETCHES - 1)
        np.add.at(self.items, at, given.ok)
        np.add.at(self.failed, at, given.failed)
        for index, name in enumerate(given.workers):
            own = given.worker == index
            if not own.any():
                continue
            self.first_start[name] = min(self.first_start.get(name, np.inf), float(starts[own].min()))
            seconds = self._seconds(starts[own], given.spent[own])
            if name in self.busy or len(self.busy) < MOST_WORKERS:
                self.busy[name] = self.busy.get(name, np.zeros(STRETCHES)) + seconds
            else:
                self.others += seconds

    def report(self, *, started_at: datetime | None, is_whole: bool) -> RunReport | None:
        """What is shown of it; None when nothing has happened yet. ``started_at`` is when the job did."""
        if not self.attempts:
            return None
        shown = min(STRETCHES, int((self.last_end - self.begin) / self.stretch) + 1)
        began = started_at.timestamp() if started_at is not None else self.begin
        busy = self.read + self.run + self.write
        spans = sum(self.last_end - first for first in self.first_start.values())
        beyond = len(self.first_start) - len(self.busy)
        spent = TimeSpent(
            start_up=sum(max(0.0, first - began) for first in self.first_start.values()),
            read=self.read,
            run=self.run,
            write=self.write,
            wait=max(0.0, spans - busy),
        )
        return RunReport(
            began_at=datetime.fromtimestamp(self.begin, UTC),
            stretch=self.stretch,
            workers=[self._line(name, self.busy[name][:shown]) for name in sorted(self.busy, key=_by_number)],
            others=self._line(f"{beyond} more", self.others[:shown] / beyond) if beyond else None,
            workers_seen=len(self.first_start),
            items=self.items[:shown].tolist(),
            failed=self.failed[:shown].tolist(),
            attempts=self.attempts,
            failed_attempts=self.failed_attempts,
            spent=spent,
            is_whole=is_whole,
        )

    def _line(self, name: str, seconds: Floats) -> WorkerTime:
        return WorkerTime(worker=name, busy=np.clip(np.round(seconds / self.stretch, 3), 0, 1).tolist())

    def _seconds(self, starts: Floats, spent: Floats) -> Floats:
        """Busy seconds of one worker in each stretch. It does one thing after the other, so that of all that began
        before an edge the last alone can reach beyond it."""
        order = np.argsort(starts, kind="stable")
        starts, spent = starts[order], spent[order]
        edges = self.begin + self.stretch * np.arange(STRETCHES + 1)
        begun = np.searchsorted(starts, edges)
        last = np.maximum(begun - 1, 0)
        beyond = np.where(begun > 0, np.clip(starts[last] + spent[last] - edges, 0, spent[last]), 0.0)
        until = np.concatenate([[0.0], np.cumsum(spent)])[begun] - beyond
        until[0], until[-1] = 0.0, float(spent.sum())  # what came late, or lies on the rim, is counted all the same
        return np.maximum(np.diff(until), 0)

    def _widen(self) -> None:
        self.stretch *= 2
        self.busy = {name: _halved(seconds) for name, seconds in self.busy.items()}
        self.others, self.items, self.failed = _halved(self.others), _halved(self.items), _halved(self.failed)


def _halved(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each two added into one; the second half is empty."""
    return np.concatenate([values.reshape(-1, 2).sum(axis=1), np.zeros(len(values) // 2, values.dtype)])


def _by_number(name: str) -> list[tuple[int, str]]:
    """``process002`` before ``process010``, and ``node-2`` before ``node-10``."""
    words = "".join(letter if letter.isdigit() else f" {letter} " for letter in name).split()
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]
