"""What a queued job waits for."""

from __future__ import annotations

from collections.abc import Sequence

from batchpoint.background.compute_pool import place_in_queue
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.workspace import Workspace


def with_place(work: Workspace, job: Job) -> Job:
    """A queued job with its place in the queue; a pipeline waits for no instance."""
    if job.status is not JobStatus.QUEUED or job.waiting_for is not None or job.type == "pipeline":
        return job
    return job.model_copy(update={"waiting_for": place_in_queue(job, work.registry.jobs.queue(job.compute_name))})


def next_of(work: Workspace, compute: str, limit: int) -> tuple[Sequence[Job], int]:
    """The jobs of a workspace that come next on a compute, with what each waits for; and how many wait in all."""
    queue = work.registry.jobs.queue(compute)
    names = [queued.name for queued in queue if queued.name is not None]
    found = work.registry.jobs.named(names[:limit])
    there = [found[name] for name in names[:limit] if name in found]
    placed = [job.model_copy(update={"waiting_for": job.waiting_for or place_in_queue(job, queue)}) for job in there]
    return placed, len(names)
