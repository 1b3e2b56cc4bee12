"""The grid of a schedule: what became of each key at each of its times, and which of them a backfill starts. Pure.

Where the scheduled jobs know no keys (no model map), the grid has one line, for all that a time is about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

CellState = Literal["done", "failed", "running", "missing"]
"""``missing``: no job has dealt with it, or the data of that time had no row of this key."""

Key = str
"""The values of the partition keys, as JSON."""
WHOLE: Key = "{}"
"""In place of a key: all that a time is about."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One job that was for a time."""

    job: str
    is_finished: bool
    went_well: bool
    """The whole job."""
    keys: Mapping[Key, bool]
    """Of the keys that it had rows of: whether none of these failed or was left out. Empty until it is finished."""
    asked_for: frozenset[Key] | None = None
    """The keys that it was to score; None asks for all."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of a key at a time, and the job that says so."""

    state: CellState
    job: str | None = None


MISSING = Cell("missing")

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


@dataclass(frozen=True)
class Grid:
    """The lines and columns of a schedule's grid."""

    times: Sequence[datetime]
    """Of the schedule's own calendar, the oldest first."""
    keys: Sequence[Key]
    """In their order; the one of ``WHOLE`` where the jobs know no keys."""
    attempts: Mapping[datetime, Sequence[Attempt]]
    """The jobs of each time, in the order in which they were started."""

    def cell(self, key: Key, time: datetime) -> Cell:
        """What became of a key at a time.

        What is done stays done, whatever a later job made of it: its predictions are published. What a job scores now
        is running. Otherwise the last job that dealt with the key decides.
        """
        found = MISSING
        for attempt in self.attempts.get(time, ()):
            if key != WHOLE and attempt.asked_for is not None and key not in attempt.asked_for:
                continue
            told = _told(attempt, key)
            if told is not None and (found.state != "done" or told == "running"):
                found = Cell(told, attempt.job)
        return found

    def gaps(self, times: Iterable[datetime], keys: Collection[Key]) -> dict[datetime, list[Key]]:
        """What is failed or missing of a rectangle: the keys of each time that has any."""
        wanted = set(keys)
        ordered = [key for key in self.keys if key in wanted]
        found = {
            time: [key for key in ordered if self.cell(key, time).state in ("failed", "missing")] for time in times
        }
        return {time: some for time, some in found.items() if some}

    def rectangle(self, times: Iterable[datetime], keys: Collection[Key], *, only_gaps: bool) -> dict[datetime, Asked]:
        """What a backfill of a rectangle starts: for each time that needs a job the keys, or None for all of them.

        Args:
            times: the columns.
            keys: the lines; none of them means all.
            only_gaps: leave out what is done, or being done.
        """
        wanted = set(keys or self.keys)
        chosen = [key for key in self.keys if key in wanted]
        asked = self.gaps(times, chosen) if only_gaps else dict.fromkeys(times, chosen)
        return {time: None if some == list(self.keys) else some for time, some in asked.items() if some}


Asked = list[Key] | None
"""Keys to score; None asks for all."""


def key_of(values: Mapping[str, str | None]) -> Key:
    """The values of the partition keys as a key of the grid."""
    return sys.intern(_encode(dict(values)))  # a grid names each key many times


def values_of(key: Key) -> dict[str, str | None]:
    """The other way round."""
    values: dict[str, str | None] = json.loads(key)
    return values


def _told(attempt: Attempt, key: Key) -> CellState | None:
    """What a job says of a key; None when it has nothing to say, because it had no row of it."""
    if not attempt.is_finished:
        return "running"
    if key in attempt.keys:
        return "done" if attempt.keys[key] else "failed"
    if key == WHOLE:
        return "done" if attempt.went_well else "failed"
    return None if attempt.keys or attempt.went_well else "failed"
