"""Batch endpoints, their deployments, and invoke."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from batchpoint.entities.documents import model_of, read_body
from batchpoint.entities.endpoints import (
    BatchDeployment,
    BatchEndpoint,
    PromoteRequest,
    RollbackRequest,
    deployment_change,
)
from batchpoint.entities.forecasts import PlanRequest
from batchpoint.entities.jobs import InvokeRequest, Job
from batchpoint.entities.pipeline_deployments import AnyDeployment, PipelineDeployment
from batchpoint.errors import InvalidEntityError
from batchpoint.registry.scored_models import Order
from batchpoint.server.api.resources import named
from batchpoint.server.api.wire import Paged, answer, described, merged, whole_address
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Context, Shared, Work
from batchpoint.server.given_paths import check_invoke_paths, check_local_paths
from batchpoint.server.streams import sent_file

router = APIRouter(prefix="/endpoints", tags=["endpoints"])


@router.get("", name="endpoints.list")
def list_endpoints(request: Request, _: Reader, work: Work, page: Paged) -> JSONResponse:
    """All endpoints, by name."""
    found = work.endpoints.list(limit=page.reach, offset=page.offset)
    return page.answer([addressed(request, endpoint) for endpoint in found])


@router.get("/{name}", name="endpoints.get", **described(result=BatchEndpoint))
def get_endpoint(name: str, request: Request, _: Reader, work: Work) -> JSONResponse:
    """One endpoint."""
    return answer(addressed(request, work.endpoints.get(name)))


@router.put("/{name}", name="endpoints.create_or_update", **described(body=BatchEndpoint, result=BatchEndpoint))
def create_or_update(name: str, body: JsonBody, request: Request, caller: Operator, work: Work) -> JSONResponse:
    """Create an endpoint, or change the one of that name."""
    endpoint = named(BatchEndpoint, body, name)
    return answer(addressed(request, work.endpoints.create_or_update(endpoint, by=caller.name)))


@router.patch("/{name}", name="endpoints.update", **described(body=BatchEndpoint, result=BatchEndpoint))
def update(name: str, body: JsonBody, request: Request, caller: Operator, work: Work) -> JSONResponse:
    """Change the keys that are given; null takes one away."""

    def change(before: BatchEndpoint) -> BatchEndpoint:
        return named(BatchEndpoint, merged(before.body(), body), name)

    return answer(addressed(request, work.endpoints.update(name, change, by=caller.name)))


@router.delete("/{name}", name="endpoints.delete", status_code=204)
def delete(name: str, _: Operator, work: Work) -> Response:
    """Delete an endpoint with its deployments. Its jobs stay."""
    work.endpoints.delete(name)
    return Response(status_code=204)


@router.post("/{name}/invoke", name="endpoints.invoke", status_code=202, **described(body=InvokeRequest, result=Job))
def invoke(
    name: str,
    body: JsonBody,
    caller: Operator,
    shared: Shared,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    traceparent: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """Score data. The job is queued when this answers; its address is in ``Location``.

    The same ``Idempotency-Key`` with the same request answers with the job that was made then.
    """
    request = read_body(InvokeRequest, body)
    check_invoke_paths(shared, request)
    with shared.background.traces.invoked(name, traceparent) as place:
        job = shared.workspace.endpoints.invoke(
            name, request, idempotency_key=idempotency_key, traceparent=place, by=caller.name
        )
    return answer(job, status=202, headers={"Location": f"/api/v1/jobs/{job.name}"})


@router.post("/{name}/plan", name="endpoints.plan", status_code=202, **described(body=PlanRequest, result=Job))
def plan(name: str, body: JsonBody, caller: Operator, shared: Shared) -> JSONResponse:
    """Score a sample of what an invoke would score. When the job is completed, its ``forecast`` tells of the whole."""
    request = read_body(PlanRequest, body)
    check_invoke_paths(shared, request)
    job = shared.workspace.endpoints.plan(name, request, by=caller.name)
    return answer(job, status=202, headers={"Location": f"/api/v1/jobs/{job.name}"})


@router.post("/{name}/promote", name="endpoints.promote", **described(body=PromoteRequest, result=BatchEndpoint))
def promote(name: str, body: JsonBody, request: Request, caller: Operator, work: Work) -> JSONResponse:
    """Let a deployment answer by default, if the comparison of a job speaks for it."""
    asked = read_body(PromoteRequest, body)
    return answer(addressed(request, work.endpoints.promote(name, asked, by=caller.name)))


@router.get("/{name}/latest", name="endpoints.latest", **described(result=Job))
def latest(name: str, _: Reader, work: Work) -> JSONResponse:
    """The job whose output is the endpoint's latest: the newest that completed and was not withdrawn."""
    return answer(work.endpoints.latest(name))


@router.get("/{name}/latest/outputs/{path:path}", name="endpoints.open_latest")
def open_latest(name: str, path: str, _: Reader, work: Work) -> StreamingResponse:
    """A file of that output, at an address that stays."""
    job = work.endpoints.latest(name).name
    size = work.jobs.output_size(job, path)
    return sent_file(work.jobs.open_output(job, path), path, size or None)


@router.post("/{name}/rollback", name="endpoints.rollback", **described(body=RollbackRequest, result=Job))
def rollback(name: str, body: JsonBody, caller: Operator, work: Work) -> JSONResponse:
    """Make an earlier output the latest again; answers with its job."""
    return answer(work.endpoints.rollback(name, read_body(RollbackRequest, body), by=caller.name))


@router.get("/{name}/jobs", name="endpoints.jobs")
def list_jobs(name: str, _: Reader, work: Work, page: Paged) -> JSONResponse:
    """The endpoint's jobs, the newest first. They outlive the endpoint."""
    return page.answer(work.jobs.list(endpoint=name, limit=page.reach, offset=page.offset))


@router.get("/{name}/deployments", name="deployments.list")
def list_deployments(name: str, _: Reader, work: Work) -> JSONResponse:
    """The endpoint's deployments, by name."""
    found = [deployment.body() for deployment in work.endpoints.list_deployments(name)]
    return answer({"value": found, "next": None})


@router.get("/{name}/deployments/{deployment}", name="deployments.get", **described(result=BatchDeployment))
def get_deployment(name: str, deployment: str, _: Reader, work: Work) -> JSONResponse:
    """One deployment."""
    return answer(work.endpoints.get_deployment(name, deployment))


@router.put(
    "/{name}/deployments/{deployment}",
    name="deployments.create_or_update",
    **described(body=BatchDeployment, result=BatchDeployment),
)
def create_or_update_deployment(
    name: str,
    deployment: str,
    body: JsonBody,
    caller: Operator,
    shared: Shared,
    *,
    set_default: bool = False,
    skip_script_validation: bool = False,
) -> JSONResponse:
    """Create a deployment, or change the one of that name; with ``set_default=true`` it answers from now on."""
    stored = shared.workspace.endpoints.create_or_update_deployment(
        _declared(name, deployment, body, shared),
        set_default=set_default,
        skip_script_validation=skip_script_validation,
        by=caller.name,
    )
    return answer(stored)


@router.patch(
    "/{name}/deployments/{deployment}",
    name="deployments.update",
    **described(body=BatchDeployment, result=BatchDeployment),
)
def update_deployment(
    name: str,
    deployment: str,
    body: JsonBody,
    caller: Operator,
    shared: Shared,
    *,
    set_default: bool = False,
    skip_script_validation: bool = False,
) -> JSONResponse:
    """Change the keys that are given; null takes one away."""

    def change(before: AnyDeployment) -> AnyDeployment:
        is_model = isinstance(body, dict) and isinstance(before, BatchDeployment)
        changes = deployment_change(body) if is_model else body
        return _declared(name, deployment, merged(before.body(), changes), shared)

    stored = shared.workspace.endpoints.update_deployment(
        name,
        deployment,
        change,
        set_default=set_default,
        skip_script_validation=skip_script_validation,
        by=caller.name,
    )
    return answer(stored)


@router.delete("/{name}/deployments/{deployment}", name="deployments.delete", status_code=204)
def delete_deployment(name: str, deployment: str, _: Operator, work: Work) -> Response:
    """Delete a deployment. The default one only when another was made the default."""
    work.endpoints.delete_deployment(name, deployment)
    return Response(status_code=204)


@router.get("/{name}/deployments/{deployment}/models", name="deployments.models")
def list_models(
    name: str,
    deployment: str,
    _: Reader,
    work: Work,
    page: Paged,
    *,
    failing: bool = False,
    order: Order = "key",
) -> JSONResponse:
    """What the model of each key did, over all jobs of a deployment with a model map."""
    found = work.endpoints.models(name, deployment, failing=failing, order=order, limit=page.reach, offset=page.offset)
    return page.answer(found)


@router.get("/{name}/deployments/{deployment}/jobs", name="deployments.jobs")
def list_deployment_jobs(name: str, deployment: str, _: Reader, work: Work, page: Paged) -> JSONResponse:
    """The deployment's jobs, the newest first."""
    found = work.jobs.list(endpoint=name, deployment=deployment, limit=page.reach, offset=page.offset)
    return page.answer(found)


def addressed(request: Request, endpoint: BatchEndpoint) -> BatchEndpoint:
    """An endpoint with the address that invokes are posted to, as the caller reaches this server."""
    return endpoint.model_copy(update={"scoring_uri": whole_address(request, "endpoints.invoke", endpoint.name)})


def _declared(endpoint_name: str, name: str, body: object, shared: Context) -> AnyDeployment:
    """The deployment of a body whose names stand in the address.

    Raises:
        InvalidEntityError: the body is not valid, names another, or paths that the caller cannot mean.
    """
    if isinstance(body, dict):
        body = {"endpoint_name": endpoint_name, **body}
    deployment = named(model_of("deployment", body), body, name)
    assert isinstance(deployment, BatchDeployment | PipelineDeployment)
    if deployment.endpoint_name != endpoint_name:
        message = f"The body names endpoint {deployment.endpoint_name!r}, the address {endpoint_name!r}."
        raise InvalidEntityError(message)
    check_local_paths(shared, "deployment", deployment)
    return deployment
