"""Which job's output is an endpoint's latest, and what a rollback changes: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from batchpoint.entities.jobs import Job
from batchpoint.errors import ConflictError, NotFoundError

WITHDRAWN = "withdrawn"
"""Property of a job whose output is not the latest any more: when, and on whose word. Empty when it counts again."""


@dataclass(frozen=True)
class Rollback:
    """What is to be changed."""

    latest: Job
    """The job whose output is the latest afterwards."""
    withdrawn: tuple[Job, ...]
    """The newer ones that count no more."""


def latest_of(endpoint: str, completed: Iterable[Job]) -> Job:
    """The newest of an endpoint's completed jobs whose output counts.

    Raises:
        NotFoundError: there is none.
    """
    for job in _with_output(completed):
        if not job.properties.get(WITHDRAWN):
            return job
    message = f"Endpoint {endpoint} has no output: no job of it has completed, or all of them were withdrawn."
    raise NotFoundError(message, kind="output", name=endpoint)


def rollback_of(endpoint: str, completed: Iterable[Job], wanted: str | None) -> Rollback:
    """What makes an earlier output the latest: the named job's, or that of the one before the present.

    Raises:
        ConflictError: there is none.
    """
    newer: list[Job] = []
    for job in _with_output(completed):
        counts = not job.properties.get(WITHDRAWN)
        if job.name == wanted or (wanted is None and counts and newer):
            return Rollback(job, tuple(newer))
        if counts:
            newer.append(job)
    if wanted is not None:
        raise ConflictError(
            f"Job {wanted} is no completed job of endpoint {endpoint}: there is no output to go back to."
        )
    now = f"its latest is that of job {newer[0].name}, the first" if newer else "it has none at all"
    raise ConflictError(f"Endpoint {endpoint} has no earlier output to go back to: {now}.")


def _with_output(completed: Iterable[Job]) -> Iterator[Job]:
    return (job for job in completed if job.sample is None)
