"""The scoring address: invoke, and the jobs of an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse

from batchpoint.entities.documents import read_body
from batchpoint.entities.endpoints import as_properties, options_of
from batchpoint.entities.jobs import InvokeRequest, Job
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.azureml.containers import place_of
from batchpoint.server.azureml.endpoints import DEPLOYMENT, ENDPOINT
from batchpoint.server.azureml.jobs import services, status_of
from batchpoint.server.azureml.mapping import DURATION, NUMBER, TEXTS, Field, Form, from_wire, to_wire, words
from batchpoint.server.azureml.wire import Listed, Scope, Scoped, ScopedWork, WireBody, name_in, resource
from batchpoint.server.context import Shared
from batchpoint.server.given_paths import check_invoke_paths
from batchpoint.workspace import Workspace

router = APIRouter(tags=["azureml"], include_in_schema=False)

FRONTEND = "/mferp/managementfrontend"
"""Where the client asks for the jobs of endpoints."""

INPUT_TYPES = words(
    uri_file="UriFile",
    uri_folder="UriFolder",
    mltable="MLTable",
    custom_model="CustomModel",
    mlflow_model="MLFlowModel",
    triton_model="TritonModel",
)

INPUT_FIELDS = (Field("type", "jobInputType", INPUT_TYPES), Field("path", "uri"))
OUTPUT_FIELDS = (Field("type", "jobOutputType", INPUT_TYPES), Field("path", "uri"))


def _read_input(given: Any) -> Any:
    """Data, or the bare value of a literal."""
    if str(from_wire([Field("type", "jobInputType")], given).get("type")).lower() == "literal":
        return from_wire([Field("value", "value")], given).get("value")
    return from_wire(INPUT_FIELDS, given)


def _read_dataset(given: Any) -> dict[str, Any]:
    """The one input of the first preview: an address, or a data asset by id or by name and version."""
    known = from_wire([Field(key, key) for key in ("path", "datasetId", "datasetName", "datasetVersion")], given)
    if "datasetName" in known:
        return {"dataset": {"path": f"azureml:{known['datasetName']}:{known['datasetVersion']}"}}
    return {"dataset": {"path": known.get("path") or known["datasetId"]}}


def _read_place(given: Any) -> dict[str, Any]:
    """The output of the first preview: a datastore and a folder in it."""
    known = from_wire([Field("datastore", "datastoreId"), Field("path", "path")], given)
    path = str(known.get("path", "")).strip("/")
    return {"score": {"type": "uri_folder", "path": f"azureml://datastores/{name_in(known['datastore'])}/paths/{path}"}}


INPUTS = Form(
    lambda inputs: {name: to_wire(INPUT_FIELDS, given) for name, given in inputs.items()},
    lambda wire: {name: _read_input(given) for name, given in wire.items()},
)
OUTPUTS = Form(
    lambda outputs: {name: to_wire(OUTPUT_FIELDS, given) for name, given in outputs.items()},
    lambda wire: {name: from_wire(OUTPUT_FIELDS, given) for name, given in wire.items()},
)

_INVOKED = (
    Field("job_name", "name"),
    Field("description", "description"),
    Field("tags", "tags", TEXTS),
    Field("experiment_name", "properties.experimentName"),
    Field("inputs", "inputData", INPUTS),
    Field("outputs", "outputData", OUTPUTS),
    Field("overrides.instance_count", "compute.instanceCount", NUMBER),
    Field("overrides.mini_batch_size", "miniBatchSize", NUMBER),
    Field("overrides.error_threshold", "errorThreshold", NUMBER),
    Field("overrides.max_concurrency_per_instance", "maxConcurrencyPerInstance", NUMBER),
    Field("overrides.retry_settings.max_retries", "retrySettings.maxRetries", NUMBER),
    Field("overrides.retry_settings.timeout", "retrySettings.timeout", DURATION),
    Field("overrides.logging_level", "loggingLevel"),
    Field("overrides.output_file_name", "outputFileName"),
    Field("overrides.partition_keys", "partitionKeys", Form(read=lambda keys: keys or None)),
)
INVOKE_FIELDS = (
    Field("inputs", "inputDatasetId", Form(read=lambda asset: {"dataset": {"path": asset}})),
    Field("inputs", "dataset", Form(read=_read_dataset)),
    Field("outputs", "outputDataset", Form(read=_read_place)),
    *_INVOKED,
)
"""What may stand in the ``properties`` of an invoke. ``compute.isLocal`` is written by the client and means nothing."""
_SAID_OF_OVERRIDES = {field.ours.split(".")[1] for field in _INVOKED if field.ours.startswith("overrides.")}


CLIENT = "azure-ai-ml/"
"""Stands in the header ``User-Agent`` of the client, before its version."""


@router.post(f"{ENDPOINT}/jobs", name="azureml.invoke")
def invoke(
    endpoint: str,
    body: WireBody,
    scope: Scoped,
    work: ScopedWork,
    shared: Shared,
    caller: Operator,
    deployment: Annotated[str | None, Header(alias="azureml-model-deployment")] = None,
    request_id: Annotated[
        str | None, Header(alias="repeatability_request-id", convert_underscores=False, max_length=255)
    ] = None,
    user_agent: Annotated[str, Header()] = "",
    traceparent: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """Score data, or run a pipeline. A request that comes again with the same id is answered with the same job."""
    request = read_invoke(scope, body)
    chosen = deployment_asked_for(work, endpoint, deployment, from_client=CLIENT in user_agent)
    request = request.model_copy(update={"deployment_name": chosen})
    check_invoke_paths(shared, request)
    with shared.background.traces.invoked(endpoint, traceparent) as place:
        job = work.endpoints.invoke(endpoint, request, idempotency_key=request_id, traceparent=place, by=caller.name)
    return JSONResponse(scoring_job(scope, job), status_code=201)


@router.get(f"{FRONTEND}{ENDPOINT}/jobs", name="azureml.endpoints.client_jobs")
@router.get(f"{ENDPOINT}/jobs", name="azureml.endpoints.jobs")
def list_jobs(endpoint: str, scope: Scoped, work: ScopedWork, listed: Listed, _: Reader) -> JSONResponse:
    """The jobs of an endpoint, the newest first."""
    found = work.jobs.list(endpoint=endpoint, limit=listed.reach, offset=listed.offset)
    return listed.answer(found, lambda job: scoring_job(scope, job))


@router.get(f"{FRONTEND}{DEPLOYMENT}/jobs", name="azureml.deployments.client_jobs")
@router.get(f"{DEPLOYMENT}/jobs", name="azureml.deployments.jobs")
def list_deployment_jobs(
    endpoint: str, deployment: str, scope: Scoped, work: ScopedWork, listed: Listed, _: Reader
) -> JSONResponse:
    """The jobs of a deployment, the newest first."""
    found = work.jobs.list(endpoint=endpoint, deployment=deployment, limit=listed.reach, offset=listed.offset)
    return listed.answer(found, lambda job: scoring_job(scope, job))


@router.get(f"{ENDPOINT}/jobs/{{job}}", name="azureml.endpoints.job")
def get_job(endpoint: str, job: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """One job of an endpoint. Programs without the client ask here until it is over."""
    found = work.jobs.get(job)
    if found.endpoint_name != endpoint:
        raise NotFoundError(f"Job {job} is none of endpoint {endpoint}.", kind="job", name=job, endpoint=endpoint)
    return JSONResponse(scoring_job(scope, found))


def read_invoke(scope: Scope, body: Mapping[str, Any]) -> InvokeRequest:
    """What an invoke asks for.

    Raises:
        InvalidEntityError: the body is not one of an invoke; the message says where.
    """
    properties = from_wire([Field("properties", "properties")], body).get("properties")
    if not isinstance(properties, Mapping):
        raise InvalidEntityError('An invoke is {"properties": {"InputData": …}}, and the body has no "properties".')
    given = from_wire(INVOKE_FIELDS, properties)
    own = from_wire([Field("own", "properties", Form(read=dict))], properties).get("own", {})
    options = options_of(given.get("overrides", {}), own)
    request = read_body(InvokeRequest, {**given, "overrides": options}, name="invoke")
    inputs = {
        name: given.model_copy(update={"path": place_of(scope, given.path)}) for name, given in request.inputs.items()
    }
    return request.model_copy(update={"inputs": inputs})


def write_invoke(request: InvokeRequest) -> dict[str, Any]:
    """What an invoke asks for, as ``read_invoke`` reads it. A challenger and queries have no words there."""
    body = request.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    properties = to_wire(_INVOKED, body)
    if literals := body.get("literals"):
        said = {name: {"jobInputType": "literal", "value": value} for name, value in literals.items()}
        properties["inputData"] = {**properties.get("inputData", {}), **said}
    own = {key: value for key, value in body.get("overrides", {}).items() if key not in _SAID_OF_OVERRIDES}
    return {"properties": {**properties, "properties": as_properties(own)}}


def deployment_asked_for(work: Workspace, endpoint: str, named: str | None, *, from_client: bool) -> str | None:
    """The deployment that an invoke means; None for the default one.

    The client keeps the header of its last invoke that named a deployment, and sends it with every later one of the
    process, to other endpoints too. A name that its user does give it looks up itself before it sends anything. So a
    name that the endpoint does not have was meant for another, and who sent it wants the default deployment. All other
    programs mean what they say: they are told that there is no such deployment.
    """
    if named is None or not from_client:
        return named
    known = [deployment.name for deployment in work.endpoints.list_deployments(endpoint)]
    return named if named in known else None


JOB_FIELDS = (
    Field("description", "description"),
    Field("tags", "tags"),
    Field("experiment_name", "properties.experimentName"),
    Field("inputs", "inputData", INPUTS),
    Field("outputs", "outputData", OUTPUTS),
    Field("deployment.settings.mini_batch_size", "miniBatchSize"),
    Field("deployment.settings.error_threshold", "errorThreshold"),
    Field("deployment.settings.max_concurrency_per_instance", "maxConcurrencyPerInstance"),
    Field("deployment.settings.retry_settings.max_retries", "retrySettings.maxRetries"),
    Field("deployment.settings.retry_settings.timeout", "retrySettings.timeout", DURATION),
    Field("deployment.settings.output_file_name", "outputFileName"),
    Field("deployment.settings.logging_level", "loggingLevel"),
    Field("deployment.resources.instance_count", "compute.instanceCount"),
)
"""What the scoring address tells of a job: as it is carried out, overrides applied."""

_PROVISIONED = {"Completed": "Succeeded", "Failed": "Failed", "Canceled": "Canceled"}


def scoring_job(scope: Scope, job: Job) -> dict[str, Any]:
    """A job as the scoring address shows it."""
    status = status_of(job)
    properties = {
        **to_wire(JOB_FIELDS, job.body()),
        "name": job.name,
        "status": status,
        "provisioningState": _PROVISIONED.get(status, "InProgress"),
        "interactionEndpoints": services(scope, job),
    }
    names = [job.endpoint_name or "", "jobs", job.name]
    return resource(scope, "batchEndpoints", names, properties, entity=job)
