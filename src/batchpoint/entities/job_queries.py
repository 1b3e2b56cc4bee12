"""Which jobs are looked for, in which order, and from where on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from batchpoint.entities.jobs import Job, JobStatus

JobSort = Literal["queued", "started", "finished", "name", "endpoint", "status"]


@dataclass(frozen=True, slots=True)
class JobQuery:
    """One page of the jobs that are no steps. What is None or empty leaves all."""

    status: JobStatus | None = None
    endpoint: str | None = None
    words: Sequence[str] = ()
    """Each stands in the job's name, its display name or the endpoint's name, in capitals or not."""
    queued_since: datetime | None = None
    queued_until: datetime | None = None
    ended_since: datetime | None = None
    went_wrong: bool = False
    """Only those that ended and failed, or in which items did, and that no retry has put right."""
    archived: bool = False
    sort: JobSort = "queued"
    descending: bool = True
    after: str | None = None
    """The page begins after this job."""
    before: str | None = None
    """The page ends before this job."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class JobListing:
    """A page of jobs."""

    jobs: Sequence[Job]
    found: int
    """How many jobs there are on all pages."""
    has_earlier: bool
    has_later: bool
    """Whether there are pages before and after, in the order of the query."""
