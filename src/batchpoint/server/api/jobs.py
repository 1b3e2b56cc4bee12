"""Jobs: show, wait, watch, cancel, logs, outputs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from batchpoint.background.compute_pool import place_in_queue
from batchpoint.entities.base import Part
from batchpoint.entities.comparisons import Comparison
from batchpoint.entities.documents import read_body
from batchpoint.entities.forecasts import Forecast
from batchpoint.entities.jobs import Job, JobStatus, Receipt
from batchpoint.errors import NotFoundError
from batchpoint.server.api.assets import streamed
from batchpoint.server.api.wire import LARGEST_OFFSET, JsonBody, Paged, answer, described, files_json, merged
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.context import Context, Shared, Work
from batchpoint.workspace import Workspace

router = APIRouter(prefix="/jobs", tags=["jobs"])

LONGEST_WAIT_SECONDS = 300.0
"""A long poll answers by then whatever has happened; the caller asks again."""
LOOK_SECONDS = 1.0
"""Changes of this server's own runs wake a waiting request at once; those of another server are looked for so often."""
STREAMED_LOGS = ("logs/user/job_progress_overview", "logs/user/std_log", "logs/user/error")
"""Logs whose new lines an event stream carries."""

Archived = Literal["exclude", "only", "include"]


class JobChange(Part):
    """What may change on a job."""

    description: str | None = None
    tags: dict[str, str | None] = Field(default_factory=dict)
    """Merged into those before; null takes one away."""


@router.get("", name="jobs.list")
def list_jobs(
    _: Reader,
    work: Work,
    page: Paged,
    status: JobStatus | None = None,
    endpoint: str | None = None,
    schedule: str | None = None,
    archived: Archived = "exclude",
) -> JSONResponse:
    """Jobs, the newest first."""
    found = work.jobs.list(
        status=status,
        endpoint=endpoint,
        schedule=schedule,
        archived=archived,
        limit=page.reach,
        offset=page.offset,
    )
    return page.answer(found)


@router.get("/{name}", name="jobs.get", **described(result=Job))
def get_job(name: str, _: Reader, work: Work) -> JSONResponse:
    """One job, with its progress; a queued one says what it waits for."""
    return answer(_with_place(work, work.jobs.get(name)))


@router.patch("/{name}", name="jobs.update", **described(body=JobChange, result=Job))
def update(name: str, body: JsonBody, _: Operator, work: Work) -> JSONResponse:
    """Change description or tags."""
    change = read_body(JobChange, body)
    tags = merged(work.jobs.get(name).tags, change.tags)
    return answer(work.jobs.update(name, description=change.description, tags=tags))


@router.post("/{name}/cancel", name="jobs.cancel", **described(result=Job))
def cancel(name: str, _: Operator, shared: Shared) -> JSONResponse:
    """Ask for a job to be canceled. What it has committed stays."""
    job = shared.workspace.jobs.cancel(name)
    shared.background.dispatcher.hurry(name)
    shared.background.changes.notify()
    return answer(job)


@router.post("/{name}/retry-failed", name="jobs.retry_failed", status_code=202, **described(result=Job))
def retry_failed(name: str, caller: Operator, work: Work, *, current_deployment: bool = False) -> JSONResponse:
    """Score the failed items again, and merge them into the same output."""
    job = work.jobs.retry_failed(name, current_deployment=current_deployment, by=caller.name)
    return answer(job, status=202, headers={"Location": f"/api/v1/jobs/{job.name}"})


@router.post("/{name}/archive", name="jobs.archive", **described(result=Job))
def archive(name: str, _: Operator, work: Work) -> JSONResponse:
    """Hide a job from lists."""
    return answer(work.jobs.archive(name))


@router.post("/{name}/restore", name="jobs.restore", **described(result=Job))
def restore(name: str, _: Operator, work: Work) -> JSONResponse:
    """Undo ``archive``."""
    return answer(work.jobs.restore(name))


@router.get("/{name}/wait", name="jobs.wait", **described(result=Job))
def wait(
    name: str, _: Reader, shared: Shared, seconds: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS)] = 30
) -> JSONResponse:
    """The job, as soon as it has finished or the time is over."""
    give_back = shared.take_waiting_place()
    try:
        deadline = time.monotonic() + seconds
        changes = shared.background.changes
        while True:
            seen = changes.count
            job = shared.workspace.jobs.get(name)
            left = deadline - time.monotonic()
            if job.status.is_finished or left <= 0 or shared.closing.is_set():
                return answer(_with_place(shared.workspace, job))
            changes.wait(seen, min(left, LOOK_SECONDS))
    finally:
        give_back()


@router.get("/{name}/events", name="jobs.events")
def events(name: str, _: Reader, shared: Shared) -> StreamingResponse:
    """Server-sent events: ``status``, ``progress``, ``log``, and ``end`` with the finished job."""
    shared.workspace.jobs.get(name)  # an unknown job is an error, not an empty stream
    stream = _Stream(shared, name, shared.take_waiting_place())
    return StreamingResponse(stream.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/{name}/logs", name="jobs.logs")
def logs(name: str, _: Reader, work: Work) -> JSONResponse:
    """The job's log files: path and size."""
    return answer({"value": files_json(work.jobs.logs(name)), "next": None})


@router.get("/{name}/logs/{path:path}", name="jobs.read_log")
def read_log(
    name: str, path: str, _: Reader, work: Work, offset: Annotated[int, Query(le=LARGEST_OFFSET)] = 0
) -> StreamingResponse:
    """A log file from ``offset``; a negative one counts from the end."""
    first = work.jobs.read_log(name, path, offset=offset)
    start = offset if offset >= 0 else None

    def pieces() -> Iterator[bytes]:
        piece, at = first, start
        while piece:
            yield piece
            if at is None:  # counted from the end: what was there is sent
                return
            at += len(piece)
            piece = work.jobs.read_log(name, path, offset=at)

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8")


@router.get("/{name}/outputs", name="jobs.outputs")
def outputs(name: str, _: Reader, work: Work) -> JSONResponse:
    """The files of the output ``score``: path and size."""
    return answer({"value": files_json(work.jobs.outputs(name)), "next": None})


@router.get("/{name}/outputs/{path:path}", name="jobs.open_output")
def open_output(name: str, path: str, _: Reader, work: Work) -> StreamingResponse:
    """One of them."""
    size = dict(work.jobs.outputs(name)).get(path)
    return streamed(work.jobs.open_output(name, path), path, size)


@router.get("/{name}/errors", name="jobs.errors")
def errors(name: str, _: Reader, work: Work, limit: Annotated[int, Query(ge=1, le=100_000)] = 1000) -> JSONResponse:
    """The items that failed."""
    return answer({"value": list(work.jobs.errors(name, limit)), "next": None})


@router.get("/{name}/forecast", name="jobs.forecast", **described(result=Forecast))
def forecast(name: str, _: Reader, work: Work) -> JSONResponse:
    """What the sample that a job scored says about the whole."""
    return answer(work.jobs.forecast(name))


@router.get("/{name}/comparison", name="jobs.comparison", **described(result=Comparison))
def comparison(name: str, _: Reader, work: Work) -> JSONResponse:
    """How the challenger compares with the champion, item by item."""
    return answer(work.jobs.comparison(name))


@router.get("/{name}/receipt", name="jobs.receipt", **described(result=Receipt))
def receipt(name: str, _: Reader, work: Work) -> JSONResponse:
    """The reconciliation: items = ok + failed + skipped."""
    return answer(work.jobs.receipt(name))


class _Stream:
    """The events of one job, for one caller."""

    def __init__(self, shared: Context, name: str, give_back: Callable[[], None]) -> None:
        self._shared = shared
        self._jobs = shared.workspace.jobs
        self._name = name
        self._give_back = give_back
        self._offsets: dict[str, int] = {}
        self._status: str | None = None
        self._progress: dict[str, Any] | None = None

    def events(self) -> Iterator[str]:
        """What happens, until the job has finished or the server ends."""
        changes = self._shared.background.changes
        try:
            while not self._shared.closing.is_set():
                seen = changes.count
                job = _with_place(self._shared.workspace, self._jobs.get(self._name))
                yield from self._news(job)
                if job.status.is_finished:
                    yield _event("end", job.body())
                    return
                if changes.wait(seen, LOOK_SECONDS) == seen:
                    yield ": still here\n\n"  # notices a caller who is gone
        finally:
            self._give_back()

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
        for path, size in self._jobs.logs(self._name):
            if path.startswith(STREAMED_LOGS) and size > self._offsets.get(path, 0):
                yield from self._new_lines(path)

    def _new_lines(self, path: str) -> Iterator[str]:
        offset = self._offsets.get(path, 0)
        try:
            new = self._jobs.read_log(self._name, path, offset=offset)
        except NotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1] or (new if len(new) >= 1 << 20 else b"")
        self._offsets[path] = offset + len(whole)
        for line in whole.decode(errors="replace").splitlines():
            yield _event("log", {"path": path, "line": line})


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, default=str)}\n\n"


def _with_place(work: Workspace, job: Job) -> Job:
    if job.status is not JobStatus.QUEUED or job.waiting_for is not None:
        return job
    queued = work.registry.jobs.list(status=JobStatus.QUEUED, archived="include", limit=1000)[::-1]
    if not queued or queued[0].name == job.name:
        return job
    return job.model_copy(update={"waiting_for": place_in_queue(job, queued)})
