"""What a queued job waits for."""

from __future__ import annotations

from batchpoint.background.compute_pool import place_in_queue
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.workspace import Workspace


def with_place(work: Workspace, job: Job) -> Job:
    """A queued job with its place in the queue."""
    if job.status is not JobStatus.QUEUED or job.waiting_for is not None:
        return job
    return job.model_copy(update={"waiting_for": place_in_queue(job, work.registry.jobs.queue(job.compute_name))})
