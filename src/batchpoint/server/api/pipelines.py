"""Published pipelines: an address to which a POST starts a run. Bodies of runs are those of Azure ML's first SDK."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from batchpoint.entities.base import Part
from batchpoint.entities.documents import read_body
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.entities.pipeline_deployments import PublishedPipeline, PublishRequest, RunRequest
from batchpoint.server.api.wire import Paged, answer, described, whole_address
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Shared, Work
from batchpoint.server.given_paths import check_local_paths, check_paths

router = APIRouter(prefix="/pipelines", tags=["pipelines"])

STATUS_CODES: dict[JobStatus, str] = {
    JobStatus.QUEUED: "NotStarted",
    JobStatus.PREPARING: "Running",
    JobStatus.RUNNING: "Running",
    JobStatus.FINALIZING: "Running",
    JobStatus.COMPLETED: "Finished",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELED: "Canceled",
}
"""Words of Azure ML's pipeline runs."""


class PipelineChange(Part):
    """What may change on a published pipeline."""

    status: Literal["Active", "Disabled"]


@router.get("", name="pipelines.list")
def list_pipelines(request: Request, _: Reader, work: Work, page: Paged) -> JSONResponse:
    """All published pipelines, by name."""
    found = work.published_pipelines.list(limit=page.reach, offset=page.offset)
    return page.answer([_addressed(request, published) for published in found])


@router.post("", name="pipelines.publish", status_code=201, **described(body=PublishRequest, result=PublishedPipeline))
def publish(body: JsonBody, request: Request, caller: Operator, shared: Shared) -> JSONResponse:
    """Publish a pipeline component, a pipeline, or what a job ran."""
    asked = read_body(PublishRequest, body)
    for part in (asked.pipeline, asked.component):
        if part is not None and not isinstance(part, str):
            check_local_paths(shared, "job", part)
    published = shared.workspace.published_pipelines.publish(asked, by=caller.name)
    return answer(_addressed(request, published), status=201)


@router.get("/{name}", name="pipelines.get", **described(result=PublishedPipeline))
def get_pipeline(name: str, request: Request, _: Reader, work: Work) -> JSONResponse:
    """One published pipeline, with its address and whether it is Active or Disabled."""
    return answer(_addressed(request, work.published_pipelines.get(name)))


@router.patch("/{name}", name="pipelines.update", **described(body=PipelineChange, result=PublishedPipeline))
def update(name: str, body: JsonBody, request: Request, caller: Operator, work: Work) -> JSONResponse:
    """Let it be started, or not."""
    active = read_body(PipelineChange, body).status == "Active"
    return answer(_addressed(request, work.published_pipelines.set_active(name, active=active, by=caller.name)))


@router.delete("/{name}", name="pipelines.delete", status_code=204)
def delete(name: str, _: Operator, work: Work) -> Response:
    """Take its address away. Its component and its jobs stay."""
    work.published_pipelines.delete(name)
    return Response(status_code=204)


@router.post("/{name}", name="pipelines.run", **described(body=RunRequest))
def run(name: str, body: JsonBody, caller: Operator, shared: Shared) -> JSONResponse:
    """Start a run; ``Id`` of the answer is the name of its job."""
    asked = read_body(RunRequest, body)
    check_paths(shared, [path for path in asked.data_path_assignments.values() if isinstance(path, str)])
    job = shared.workspace.published_pipelines.run(name, asked, by=caller.name)
    return answer({"Id": job.name}, headers={"Location": f"/api/v1/jobs/{job.name}"})


@router.get("/{name}/runs", name="pipelines.runs")
def list_runs(name: str, _: Reader, work: Work, page: Paged) -> JSONResponse:
    """Its runs, the newest first."""
    found = work.published_pipelines.runs(name, limit=page.reach, offset=page.offset)
    return page.answer([_as_run(job) for job in found])


@router.get("/{name}/runs/{run}", name="pipelines.get_run")
def get_run(name: str, run: str, _: Reader, work: Work) -> JSONResponse:
    """One of them."""
    return answer(_as_run(work.published_pipelines.get_run(name, run)))


def _addressed(request: Request, published: PublishedPipeline) -> PublishedPipeline:
    address = whole_address(request, "pipelines.run", published.name)
    return published.model_copy(update={"endpoint": address})


def _as_run(job: Job) -> dict[str, Any]:
    steps = job.progress.steps_planned if job.progress else None
    return {
        "Id": job.name,
        "ExperimentName": job.experiment_name,
        "Description": job.description,
        "Tags": job.tags,
        "Status": {
            "StatusCode": STATUS_CODES[job.status],
            "StatusDetail": job.error.message if job.error else None,
            "CreationTime": _time(job.queued_at),
            "EndTime": _time(job.finished_at),
        },
        "HasErrors": job.status is JobStatus.FAILED,
        "TotalRunSteps": steps if steps is not None else len((job.pipeline or {}).get("jobs", {})),
        "ScheduleId": job.schedule_name,
    }


def _time(moment: Any) -> str | None:
    return moment.isoformat() if moment is not None else None
