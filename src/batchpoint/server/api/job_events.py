"""What happens to a job, as server-sent events; of a pipeline, what happens to its steps too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.errors import NotFoundError
from batchpoint.registry.jobs import StepJob
from batchpoint.server.context import Context
from batchpoint.server.waiting import with_place

LOOK_SECONDS = 1.0
"""Changes of this server's own runs wake a waiting request at once; those of another server are looked for so often."""
STREAMED_LOGS = ("logs/user/job_progress_overview", "logs/user/error", "logs/user/std_log")
"""Logs whose new lines an event stream carries."""


class JobEvents:
    """The events of one job, for one caller."""

    def __init__(self, shared: Context, name: str) -> None:
        self._shared = shared
        self._jobs = shared.workspace.jobs
        self._name = name
        self._offsets: dict[tuple[str, str], int] = {}
        self._status: str | None = None
        self._progress: dict[str, Any] | None = None
        self._steps: dict[str, tuple[JobStatus, str | None]] = {}

    def events(self) -> Iterator[str]:
        """What happens, until the job has finished or the server ends."""
        changes = self._shared.background.changes
        while not self._shared.closing.is_set():
            seen = changes.count
            job = with_place(self._shared.workspace, self._jobs.get(self._name))
            yield from self._news(job)
            if job.status.is_finished:
                yield _event("end", job.body())
                return
            if changes.wait(seen, LOOK_SECONDS) == seen:
                yield ": still here\n\n"  # notices a caller who is gone

    def _news(self, job: Job) -> Iterator[str]:
        told = f"{job.status} {job.waiting_for} {job.cancel_requested}"
        if told != self._status:
            self._status = told
            yield _event(
                "status",
                {"status": job.status, "waiting_for": job.waiting_for, "cancel_requested": job.cancel_requested},
            )
        progress = job.progress.model_dump(mode="json", exclude_none=True) if job.progress else None
        if progress != self._progress:
            self._progress = progress
            yield _event("progress", progress)
        if job.type == "pipeline":
            yield from self._news_of_steps([job.name], "")
        else:
            yield from self._new_logs(job.name, {})

    def _news_of_steps(self, parents: list[str], prefix: str) -> Iterator[str]:
        """What is new about the steps of these pipelines, and of the pipelines among them."""
        for step in self._shared.workspace.registry.jobs.steps(parents):
            path = f"{prefix}{step.step_name}"
            before = self._steps.get(step.name)
            if before is not None and before[0].is_finished:
                continue
            if step.status.is_finished:  # its last lines come before its end
                yield from self._news_inside(step, path)
            if before != (step.status, step.waiting_for):
                self._steps[step.name] = step.status, step.waiting_for
                told = {"step": path, "job": step.name, "status": step.status, "waiting_for": step.waiting_for}
                yield _event("step", {**told, "reused_from": step.reused_job_name})
            if not step.status.is_finished:
                yield from self._news_inside(step, path)

    def _news_inside(self, step: StepJob, path: str) -> Iterator[str]:
        if step.type == "pipeline":
            yield from self._news_of_steps([step.name], f"{path}.")
        elif step.reused_job_name is None:
            yield from self._new_logs(step.name, {"step": path})

    def _new_logs(self, job_name: str, said: dict[str, str]) -> Iterator[str]:
        for path, size in self._jobs.logs(job_name):
            if path.startswith(STREAMED_LOGS) and size > self._offsets.get((job_name, path), 0):
                for line in self._new_lines(job_name, path):
                    yield _event("log", {**said, "path": path, "line": line})

    def _new_lines(self, job_name: str, path: str) -> list[str]:
        offset = self._offsets.get((job_name, path), 0)
        try:
            new = self._jobs.read_log(job_name, path, offset=offset)
        except NotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1] or (new if len(new) >= 1 << 20 else b"")
        self._offsets[job_name, path] = offset + len(whole)
        return whole.decode(errors="replace").splitlines()


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, default=str)}\n\n"
