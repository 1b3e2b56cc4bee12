"""Which job's output is an endpoint's latest, and what a rollback changes: pure.

A retry writes into the output of the first job, in place: they are one output, which the newest that completed speaks
for. ``first_of`` names the first job of a job's retries: the job itself, where it retried none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from batchpoint.entities.jobs import WITHDRAWN, Job
from batchpoint.errors import ConflictError, NotFoundError


@dataclass(frozen=True)
class Rollback:
    """What is to be changed."""

    latest: Job
    """The job whose output is the latest afterwards."""
    withdrawn: tuple[Job, ...]
    """The newer ones that count no more, each with the jobs that it retried."""


def latest_of(endpoint: str, completed: Iterable[Job], first_of: Callable[[Job], str]) -> Job:
    """The newest of an endpoint's completed jobs whose output counts.

    Raises:
        NotFoundError: there is none.
    """
    for job, newest in _with_output(completed, first_of):
        if job is newest and not job.properties.get(WITHDRAWN):
            return job
    message = f"Endpoint {endpoint} has no output: no job of it has completed, or all of them were withdrawn."
    raise NotFoundError(message, kind="output", name=endpoint)


def rollback_of(
    endpoint: str, completed: Iterable[Job], wanted: str | None, first_of: Callable[[Job], str]
) -> Rollback:
    """What makes an earlier output the latest: the named job's, or that of the one before the present.

    Raises:
        ConflictError: there is none.
    """
    newer: list[Job] = []
    for job, newest in _with_output(completed, first_of):
        if job is not newest:
            if job.name == wanted:
                raise ConflictError(
                    f"The output of job {wanted} was written anew by job {newest.name}, which retried it: they are one "
                    f"output, and what it was before is no more. Name job {newest.name}, or an earlier one."
                )
            continue
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
    if newer and newer[0].retry_of is not None:
        now += f" together with job {newer[0].retry_of}, which it retried"
    raise ConflictError(f"Endpoint {endpoint} has no earlier output to go back to: {now}.")


def _with_output(completed: Iterable[Job], first_of: Callable[[Job], str]) -> Iterator[tuple[Job, Job]]:
    """The jobs that scored all, the newest first, each with the one that speaks for its output."""
    speaking: dict[str, Job] = {}
    for job in completed:
        if job.sample is None:
            yield job, speaking.setdefault(first_of(job), job)
