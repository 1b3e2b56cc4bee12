"""Which job's output is an endpoint's latest, and what a rollback changes: pure.

A retry writes into the output of the job that it retries, in place: they are one output. It stands where the first of
them stands among the endpoint's jobs, and is withdrawn with any of them; so a retry neither takes readers back to older
data nor undoes a rollback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batchpoint.entities.jobs import WITHDRAWN, Job, JobStatus
from batchpoint.errors import ConflictError, NotFoundError


@dataclass(frozen=True)
class WrittenOutput:
    """What a job and its retries wrote."""

    jobs: tuple[Job, ...]
    """The job that retried none, and all that retried it, or one of these."""

    @property
    def completed(self) -> list[Job]:
        """Those that published something, the one that did so last at the end: its bytes are there."""
        found = [job for job in self.jobs if job.status == JobStatus.COMPLETED and job.sample is None]
        return sorted(found, key=lambda job: job.finished_at.timestamp() if job.finished_at else 0.0)

    @property
    def is_withdrawn(self) -> bool:
        """Whether it does not count."""
        return any(job.properties.get(WITHDRAWN) for job in self.jobs)


@dataclass(frozen=True)
class Rollback:
    """What is to be changed."""

    latest: WrittenOutput
    """The output that is the latest afterwards."""
    withdrawn: tuple[WrittenOutput, ...]
    """The newer ones, which count no more."""


def latest_of(
    endpoint: str, outputs: Iterable[WrittenOutput], written_over: Callable[[WrittenOutput], Job | None]
) -> Job:
    """The job that speaks for the newest output that counts, and that no other job has written over.

    Raises:
        NotFoundError: there is none.
    """
    for output in outputs:
        if output.completed and not output.is_withdrawn and written_over(output) is None:
            return output.completed[-1]
    raise NotFoundError(
        f"Endpoint {endpoint} has no output: no job of it has completed, or all were withdrawn or written over.",
        kind="output",
        name=endpoint,
    )


def rollback_of(endpoint: str, outputs: Iterable[WrittenOutput], wanted: str | None) -> Rollback:
    """What makes an earlier output the latest: the named job's, or that of the one before the present.

    Args:
        endpoint: its name.
        outputs: of the endpoint, the newest first.
        wanted: the job.

    Raises:
        ConflictError: there is none.
    """
    newer: list[WrittenOutput] = []
    for output in outputs:
        names = [job.name for job in output.completed]
        if wanted in names[:-1]:
            raise ConflictError(
                f"The output of job {wanted} was written anew by job {names[-1]}, which retried it: they are one "
                f"output, and what it was before is no more. Name job {names[-1]}, or an earlier one."
            )
        counts = bool(names) and not output.is_withdrawn
        if (names and names[-1] == wanted) or (wanted is None and counts and newer):
            return Rollback(output, tuple(newer))
        if counts:
            newer.append(output)
    if wanted is not None:
        raise ConflictError(
            f"Job {wanted} is no completed job of endpoint {endpoint}: there is no output to go back to."
        )
    latest = newer[0].completed[-1] if newer else None
    now = f"its latest is that of job {latest.name}, the first" if latest else "it has none at all"
    if latest is not None and latest.retry_of is not None:
        now += f" together with job {latest.retry_of}, which it retried"
    raise ConflictError(f"Endpoint {endpoint} has no earlier output to go back to: {now}.")


def written_files(job: Job) -> set[str]:
    """Addresses of the files that a job has published; of the place, where their names are not known."""
    published = [output for output in job.outputs.values() if output.folder]
    return {address(output.folder or "", file) for output in published for file in output.files or [""]}


def address(folder: str, file: str) -> str:
    """Of a file in a folder, however the folder's is written."""
    return f"{folder.rstrip('/')}/{file}"
