"""What a sample of the input tells about a job before it is run."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from batchpoint.entities.base import Part
from batchpoint.entities.jobs import InvokeRequest


class PlanRequest(InvokeRequest):
    """An invoke that is only to be told about."""

    sample_rows: int | None = Field(default=None, ge=1)
    """Items to score at most; none scores for about three seconds."""
    finish_by: datetime | None = None
    """Until when the job should be over. Without a time zone it is UTC."""


class Range(Part):
    """A number that is estimated, and within what it should lie."""

    estimate: float
    low: float
    high: float


class SampledError(Part):
    """One of the items of the sample that failed."""

    file: str | None = None
    row: int | None = None
    exception: str
    message: str


class OutputColumn(Part):
    """One column of the predictions file."""

    name: str
    type: str
    """As Arrow calls it; of csv and jsonl as they read back."""


class Deadline(Part):
    """Whether the job would be over in time."""

    finish_by: datetime
    expected_at: datetime
    """When the job should be over if it were started as soon as the sample was."""
    latest_at: datetime
    """The same by the upper estimate."""
    is_late: bool
    """Whether the upper estimate is later than asked for."""
    workers_needed: int | None = None
    """The fewest workers whose upper estimate would be in time; none when no number would do."""


class Forecast(Part):
    """What would become of a job. Nothing was published for it."""

    job: str
    """The archived job that scored the sample."""
    unit: Literal["rows", "files"]
    items: int
    """Rows, or files, of the input."""
    items_are_exact: bool
    items_how: str
    """How they were counted or estimated."""
    bytes: int
    """Of the input as it is stored; 0 where the store does not tell."""
    mini_batches: int
    sampled_items: int
    sampled_files: int
    failed_items: int
    """Of the sample."""
    failure_rate: Range
    """With its 95 % interval (Wilson's)."""
    errors: list[SampledError] = Field(default_factory=list)
    """The first of the sample."""
    thresholds: list[str] = Field(default_factory=list)
    """Which thresholds the job would exceed, or might."""
    workers: int
    startup_seconds: float
    """Until the first worker was ready and had what its first call alone pays for; the next start may be warmer."""
    seconds: Range
    """For the whole job, start included."""
    items_per_second: float | None = None
    """Of one worker, beside as many others as the job would have."""
    peak_memory_per_worker: int | None = None
    """Bytes; what it shares with others counts for each. None where the system does not tell."""
    peak_memory: int | None = None
    """Bytes of all workers, at most."""
    output_columns: list[OutputColumn] = Field(default_factory=list)
    output_bytes: int | None = None
    deadline: Deadline | None = None
    notices: list[str] = Field(default_factory=list)
