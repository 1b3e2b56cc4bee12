"""What a run tells about itself beyond its progress: where its time went, what failed, what its outputs hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from batchpoint.entities.base import Part


class WorkerTime(Part):
    """How busy one worker was."""

    worker: str
    """``node/process``."""
    busy: list[float]
    """For each stretch of the timeline: the share of it, 0 to 1, in which the worker scored."""


class TimeSpent(Part):
    """Seconds of all workers together. What is no reading, running or writing is start-up or waiting."""

    start_up: float
    """From the start of the job to each worker's first mini-batch."""
    read: float
    run: float
    write: float
    wait: float


class RunReport(Part):
    """The mini-batches of a run, added up over stretches of time of the same length."""

    began_at: datetime
    """Where the timeline begins: the first mini-batch."""
    stretch: float
    """Seconds of each stretch."""
    workers: list[WorkerTime]
    """The first ones, by name."""
    others: WorkerTime | None = None
    """The mean of the workers beyond those."""
    workers_seen: int
    items: list[int]
    """Items that were scored well in each stretch."""
    failed: list[int]
    """Items of attempts that failed in each stretch; what is tried again counts again."""
    attempts: int
    """Goes at mini-batches, or parts of them, that ended."""
    failed_attempts: int
    spent: TimeSpent
    is_whole: bool
    """Whether all that the run has reported was read."""


class ErrorGroup(Part):
    """Failed items of the same exception, whose messages differ in numbers and quoted names alone."""

    exception: str
    pattern: str
    """The message, with ``N`` for numbers and ``'…'`` for what was quoted."""
    count: int
    items: Sequence[Mapping[str, Any]]
    """The first of them: ``file``, ``row``, ``key``, ``message``, ``traceback``; of a pipeline ``step`` and ``job``."""


class ErrorGroups(Part):
    """What failed in a job, the most frequent first."""

    groups: list[ErrorGroup]
    items: int
    """Failed items that were looked at."""
    is_whole: bool
    """Whether these are all."""


class ErrorPage(Part):
    """Failed items, in input order."""

    items: list[dict[str, Any]]
    following: int | None
    """Where the next page begins; None at the end."""


class LogPiece(Part):
    """Whole lines of a log file."""

    text: str
    start: int
    end: int
    """Bytes of the file."""
    size: int
    """Of the whole file."""


class LogHit(Part):
    """A line that holds what was looked for."""

    start: int
    """Where the line begins in the file, in bytes."""
    text: str


class LogSearch(Part):
    """Lines of a log file that hold a text."""

    hits: list[LogHit]
    following: int | None
    """Where to go on searching; None when the end was reached."""


class Histogram(Part):
    """How the values of a column are distributed."""

    column: str
    low: float
    high: float
    counts: list[int]
    """For each of as many equal stretches between ``low`` and ``high``."""
    missing: int
    """Values that are null or no finite number."""


class Histograms(Part):
    """How the values of some columns of a file are distributed."""

    columns: list[Histogram]
    rows: int
    """Rows that were counted: those at the beginning of a large file."""
    is_whole: bool
    """Whether these are all rows of the file."""
