"""Jobs: show, wait, watch, cancel, logs, outputs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from batchpoint.entities.base import Part
from batchpoint.entities.comparisons import Comparison
from batchpoint.entities.documents import model_of, read_body
from batchpoint.entities.forecasts import Forecast
from batchpoint.entities.jobs import Job, JobStatus, Receipt
from batchpoint.entities.pipeline_deployments import CommandJob
from batchpoint.entities.pipelines import Pipeline
from batchpoint.entities.quality import Quality
from batchpoint.errors import InvalidEntityError
from batchpoint.server.api.job_events import LOOK_SECONDS, JobEvents
from batchpoint.server.api.wire import LARGEST_OFFSET, Paged, answer, described, files_json
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Context, Shared, Work
from batchpoint.server.given_paths import check_local_paths
from batchpoint.server.streams import HoldingResponse, sent_file
from batchpoint.server.waiting import with_place

router = APIRouter(prefix="/jobs", tags=["jobs"])

LONGEST_WAIT_SECONDS = 300.0
"""A long poll answers by then whatever has happened; the caller asks again."""

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
    parent: str | None = None,
    schedule: str | None = None,
    archived: Archived = "exclude",
) -> JSONResponse:
    """Jobs, the newest first; with ``parent`` the steps of that pipeline job, which are left out otherwise."""
    found = work.jobs.list(
        status=status,
        endpoint=endpoint,
        parent=parent,
        schedule=schedule,
        archived=archived,
        limit=page.reach,
        offset=page.offset,
    )
    return page.answer(found)


@router.post("", name="jobs.create", status_code=202, **described(body=Pipeline, result=Job))
def create(
    body: JsonBody,
    caller: Operator,
    shared: Shared,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> JSONResponse:
    """Start a pipeline; or, with ``type: command``, a command by itself. Its address is in ``Location``.

    The same ``Idempotency-Key`` with the same body answers with the job that was made then.
    """
    pipeline = _pipeline(shared, body)
    job = shared.workspace.pipelines.submit(pipeline, by=caller.name, idempotency_key=idempotency_key)
    return answer(job, status=202, headers={"Location": f"/api/v1/jobs/{job.name}"})


@router.post("/validate", name="jobs.validate", **described(body=Pipeline))
def validate(body: JsonBody, _: Operator, shared: Shared) -> JSONResponse:
    """Look for every fault of a pipeline, or of a command; nothing is stored or started."""
    try:
        shared.workspace.pipelines.validate(_pipeline(shared, body))
    except InvalidEntityError as error:
        problems = error.details.get("problems") or [{"place": "body", "key": "", "message": error.message}]
        return answer({"valid": False, "message": error.message, "problems": problems})
    return answer({"valid": True, "message": None, "problems": []})


@router.get("/{name}", name="jobs.get", **described(result=Job))
def get_job(name: str, _: Reader, work: Work) -> JSONResponse:
    """One job, with its progress; a queued one says what it waits for."""
    return answer(with_place(work, work.jobs.get(name)))


@router.patch("/{name}", name="jobs.update", **described(body=JobChange, result=Job))
def update(name: str, body: JsonBody, _: Operator, work: Work) -> JSONResponse:
    """Change description or tags."""
    change = read_body(JobChange, body)
    return answer(work.jobs.update(name, description=change.description, tags=change.tags))


@router.post("/{name}/cancel", name="jobs.cancel", **described(result=Job))
def cancel(name: str, _: Operator, shared: Shared) -> JSONResponse:
    """Ask for a job to be canceled. What it has committed stays."""
    return answer(shared.background.cancel(shared.workspace, name))


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
                return answer(with_place(shared.workspace, job))
            changes.wait(seen, min(left, LOOK_SECONDS))
    finally:
        give_back()


@router.get("/{name}/events", name="jobs.events")
def events(name: str, _: Reader, shared: Shared) -> StreamingResponse:
    """Server-sent events: ``status``, ``progress``, ``log``, and ``end`` with the finished job."""
    shared.workspace.jobs.get(name)  # an unknown job is an error, not an empty stream
    told, give_back = JobEvents(shared, name).events(), shared.take_waiting_place()
    return HoldingResponse(told, give_back, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


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
def outputs(name: str, _: Reader, work: Work, output: str | None = None) -> JSONResponse:
    """The files of one output, by default the only one or the one with the predictions: path and size."""
    return answer({"value": files_json(work.jobs.outputs(name, output)), "next": None})


@router.get("/{name}/outputs/{path:path}", name="jobs.open_output")
def open_output(name: str, path: str, _: Reader, work: Work, output: str | None = None) -> StreamingResponse:
    """One of them."""
    size = work.jobs.output_size(name, path, output)
    return sent_file(work.jobs.open_output(name, path, output), path, size or None)


@router.get("/{name}/errors", name="jobs.errors")
def errors(name: str, _: Reader, work: Work, limit: Annotated[int, Query(ge=1, le=100_000)] = 1000) -> JSONResponse:
    """The items that failed; of a pipeline the steps."""
    return answer({"value": list(work.jobs.errors(name, limit)), "next": None})


@router.get("/{name}/models", name="jobs.models")
def models(name: str, _: Reader, work: Work, page: Paged, *, failing: bool = False) -> JSONResponse:
    """What the model of each key did in a job with a model map."""
    found = work.jobs.models(name, failing=failing)
    return page.answer(found[page.offset : page.offset + page.reach])


@router.get("/{name}/forecast", name="jobs.forecast", **described(result=Forecast))
def forecast(name: str, _: Reader, work: Work) -> JSONResponse:
    """What the sample that a job scored says about the whole."""
    return answer(work.jobs.forecast(name))


@router.get("/{name}/comparison", name="jobs.comparison", **described(result=Comparison))
def comparison(name: str, _: Reader, work: Work) -> JSONResponse:
    """How the challenger compares with the champion, item by item."""
    return answer(work.jobs.comparison(name))


@router.get("/{name}/quality", name="jobs.quality", **described(result=Quality))
def quality(name: str, _: Reader, work: Work) -> JSONResponse:
    """What the job's columns hold, and how far they are from those of the reference."""
    return answer(work.jobs.quality(name))


@router.get("/{name}/receipt", name="jobs.receipt", **described(result=Receipt))
def receipt(name: str, _: Reader, work: Work) -> JSONResponse:
    """The reconciliation: items = ok + failed + skipped."""
    return answer(work.jobs.receipt(name))


def _pipeline(shared: Context, body: Any) -> Pipeline:
    """The pipeline that a body declares. Raises ``InvalidEntityError``."""
    job = read_body(model_of("job", body), body)
    check_local_paths(shared, "job", job)
    pipeline = job.as_pipeline() if isinstance(job, CommandJob) else job
    assert isinstance(pipeline, Pipeline)
    return pipeline
