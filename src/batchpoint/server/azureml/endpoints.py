"""Batch endpoints and deployments."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from batchpoint.entities.documents import read_body
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, ScoringOptions, as_properties
from batchpoint.entities.pipeline_deployments import AnyDeployment, PipelineDeployment
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.azureml.mapping import (
    ANSWERED,
    DURATION,
    NUMBER,
    TEXTS,
    Field,
    Form,
    from_wire,
    holds,
    to_wire,
    words,
)
from batchpoint.server.azureml.wire import (
    WORKSPACE,
    Scope,
    Scoped,
    ScopedWork,
    WireBody,
    asset_form,
    deleted,
    name_form,
    operation_address,
    page,
    resource,
    stored_at_once,
)
from batchpoint.server.context import Shared
from batchpoint.server.given_paths import check_local_paths

router = APIRouter(tags=["azureml"], include_in_schema=False)

ENDPOINTS = f"{WORKSPACE}/batchEndpoints"
ENDPOINT = f"{ENDPOINTS}/{{endpoint}}"
DEPLOYMENT = f"{ENDPOINT}/deployments/{{deployment}}"

OPERATION_PROPERTY = "AzureAsyncOperationUri"
"""Among the properties: where programs without the client ask whether what they stored is there by now."""
_PROPERTIES = Form(
    read=lambda given: {key: text for key, text in TEXTS.read(given).items() if key != OPERATION_PROPERTY}
)
"""Callers send it back with the rest, and it is none of theirs."""

ENDPOINT_FIELDS = (
    Field("description", "properties.description"),
    Field("tags", "tags", TEXTS),
    Field("properties", "properties.properties", _PROPERTIES),
    Field("auth_mode", "properties.authMode", words(aad_token="aadToken", aml_token="amlToken")),  # noqa: S106 -- words
    Field("defaults.deployment_name", "properties.defaults.deploymentName"),
    Field("identity", "identity"),
    Field("location", "location"),
    Field("scoring_uri", "properties.scoringUri", ANSWERED),
    Field("openapi_uri", "properties.swaggerUri", ANSWERED),
    Field("provisioning_state", "properties.provisioningState", ANSWERED),
)

OUTPUT_FORMAT = "batchpoint.output_format"
"""The property that says how predictions are written. Nothing of it means Azure's bytes, which readers here expect."""


def model_deployment_fields(scope: Scope) -> tuple[Field, ...]:
    """The fields of a deployment of a model."""
    return (
        Field("description", "properties.description"),
        Field("tags", "tags", TEXTS),
        Field("properties", "properties.properties", _PROPERTIES),
        Field("model", "properties.model.assetId", asset_form(scope, "models")),
        Field("environment", "properties.environmentId", asset_form(scope, "environments")),
        Field("code_configuration.code", "properties.codeConfiguration.codeId", asset_form(scope, "codes")),
        Field("code_configuration.scoring_script", "properties.codeConfiguration.scoringScript"),
        Field("environment_variables", "properties.environmentVariables"),
        Field("compute", "properties.compute", name_form(scope, "computes")),
        Field("resources.instance_count", "properties.resources.instanceCount", NUMBER),
        Field("resources.instance_type", "properties.resources.instanceType"),
        Field("resources.properties", "properties.resources.properties"),
        Field("resources.shm_size", "properties.resources.shmSize"),
        Field("resources.docker_args", "properties.resources.dockerArgs"),
        Field("resources.locations", "properties.resources.locations"),
        Field("resources.max_instance_count", "properties.resources.maxInstanceCount", NUMBER),
        Field("settings.max_concurrency_per_instance", "properties.maxConcurrencyPerInstance", NUMBER),
        Field("settings.mini_batch_size", "properties.miniBatchSize", NUMBER),
        Field("settings.error_threshold", "properties.errorThreshold", NUMBER),
        Field(
            "settings.output_action",
            "properties.outputAction",
            words(append_row="AppendRow", summary_only="SummaryOnly"),
        ),
        Field("settings.output_file_name", "properties.outputFileName"),
        Field("settings.retry_settings.max_retries", "properties.retrySettings.maxRetries", NUMBER),
        Field("settings.retry_settings.timeout", "properties.retrySettings.timeout", DURATION),
        Field("settings.logging_level", "properties.loggingLevel"),
        Field("provisioning_state", "properties.provisioningState", ANSWERED),
    )


ELSEWHERE = {
    "name": "in the address",
    "endpoint_name": "in the address",
    "type": "told by deploymentConfiguration",
    "schema_address": "never kept",
    "parallel_run_config": "never kept",
    "batchpoint": "each option is a property batchpoint.<key>",
    "settings.environment_variables": "among environment_variables",
    "settings.instance_count": "moved to resources.instance_count when a deployment is read",
    "created_at": "in systemData",
    "modified_at": "in systemData",
    "created_by": "in systemData",
}
"""Fields of a deployment that no line of the table carries, and where they are instead."""


def pipeline_deployment_fields(scope: Scope) -> tuple[Field, ...]:
    """The fields of a deployment of a pipeline component."""
    pipeline = "properties.deploymentConfiguration"
    return (
        Field("description", "properties.description"),
        Field("tags", "tags", TEXTS),
        Field("properties", "properties.properties", _PROPERTIES),
        Field("component", f"{pipeline}.componentId.assetId", asset_form(scope, "components")),
        Field("settings.default_compute", f"{pipeline}.settings.default_compute"),
        Field("settings.default_datastore", f"{pipeline}.settings.default_datastore"),
        Field("settings.continue_on_step_failure", f"{pipeline}.settings.continue_on_step_failure"),
        Field("settings.force_rerun", f"{pipeline}.settings.force_rerun"),
        Field("provisioning_state", "properties.provisioningState", ANSWERED),
    )


@router.get(ENDPOINTS, name="azureml.endpoints.list")
def list_endpoints(scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """All endpoints."""
    return page(endpoint_resource(scope, endpoint) for endpoint in work.endpoints.list())


@router.get(ENDPOINT, name="azureml.endpoints.get")
def get_endpoint(endpoint: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """One endpoint."""
    return JSONResponse(endpoint_resource(scope, work.endpoints.get(endpoint)))


@router.put(ENDPOINT, name="azureml.endpoints.create_or_update")
def put_endpoint(endpoint: str, body: WireBody, scope: Scoped, work: ScopedWork, caller: Operator) -> JSONResponse:
    """Create an endpoint, or replace what is said of it: what the body leaves out is gone.

    The default deployment alone stays unless the body has ``defaults``: a notebook that creates its endpoint anew each
    time it is run means to have the endpoint, not to make it answer nobody.
    """
    whole: dict[str, Any] = {"name": endpoint, "description": None, "tags": {}, "properties": {}, "identity": None}
    if holds(body, "properties.defaults"):
        whole["defaults"] = {}
    read = read_body(BatchEndpoint, {**whole, "location": None, **from_wire(ENDPOINT_FIELDS, body)}, name="endpoint")
    return JSONResponse(endpoint_resource(scope, work.endpoints.create_or_update(read, by=caller.name)))


@router.delete(ENDPOINT, name="azureml.endpoints.delete")
def delete_endpoint(endpoint: str, work: ScopedWork, _: Operator) -> Response:
    """Delete an endpoint and its deployments."""
    return deleted(lambda: work.endpoints.delete(endpoint))


@router.get(f"{ENDPOINT}/deployments", name="azureml.deployments.list")
def list_deployments(endpoint: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """The deployments of an endpoint."""
    return page(deployment_resource(scope, deployment) for deployment in work.endpoints.list_deployments(endpoint))


@router.get(DEPLOYMENT, name="azureml.deployments.get")
def get_deployment(endpoint: str, deployment: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """One deployment."""
    return JSONResponse(deployment_resource(scope, work.endpoints.get_deployment(endpoint, deployment)))


@router.put(DEPLOYMENT, name="azureml.deployments.create_or_update")
def put_deployment(
    endpoint: str, deployment: str, body: WireBody, scope: Scoped, work: ScopedWork, shared: Shared, caller: Operator
) -> JSONResponse:
    """Create a deployment, or replace the one of that name."""
    given: dict[str, Any] = {"name": deployment, "endpoint_name": endpoint}
    read: AnyDeployment
    if holds(body, "properties.deploymentConfiguration"):
        given |= from_wire(pipeline_deployment_fields(scope), body)
        read = read_body(PipelineDeployment, {**given, "type": "pipeline"}, name="deployment")
    else:
        given |= from_wire(model_deployment_fields(scope), body)
        given["properties"] = {OUTPUT_FORMAT: "azureml", **given.get("properties", {})}
        read = read_body(BatchDeployment, given, name="deployment")
    check_local_paths(shared, "deployment", read)
    stored = work.endpoints.create_or_update_deployment(read, by=caller.name)
    return stored_at_once(scope, deployment_resource(scope, stored))


@router.delete(DEPLOYMENT, name="azureml.deployments.delete")
def delete_deployment(endpoint: str, deployment: str, work: ScopedWork, _: Operator) -> Response:
    """Delete a deployment."""
    return deleted(lambda: work.endpoints.delete_deployment(endpoint, deployment))


def scoring_path(scope: Scope, endpoint: str) -> str:
    """The path that an invoke of the endpoint is posted to; its jobs are found below."""
    return scope.id_of("batchEndpoints", endpoint, "jobs")


def endpoint_resource(scope: Scope, endpoint: BatchEndpoint) -> dict[str, Any]:
    """An endpoint as the dialect shows it."""
    addresses = {
        "scoring_uri": f"{scope.base}{scoring_path(scope, endpoint.name)}",
        "openapi_uri": f"{scope.base}/openapi.json",
    }
    found = to_wire(ENDPOINT_FIELDS, endpoint.model_copy(update=addresses).body())
    found["properties"].setdefault("defaults", {})  # notebooks set its deployment_name, which they cannot on nothing
    found["properties"]["properties"][OPERATION_PROPERTY] = operation_address(scope)
    return found | resource(scope, "batchEndpoints", [endpoint.name], found["properties"], entity=endpoint)


def deployment_resource(scope: Scope, deployment: AnyDeployment) -> dict[str, Any]:
    """A deployment as the dialect shows it."""
    body = deployment.body()
    if isinstance(deployment, PipelineDeployment):
        found = to_wire(pipeline_deployment_fields(scope), body)
        pipeline = found["properties"]["deploymentConfiguration"]
        pipeline["deploymentConfigurationType"] = "PipelineComponent"
        pipeline["componentId"]["referenceType"] = "Id"
    else:
        body["properties"] = {**body["properties"], **_options_as_properties(deployment.batchpoint)}
        body["environment_variables"] |= body["settings"].get("environment_variables", {})
        found = to_wire(model_deployment_fields(scope), body)
        if "model" in found["properties"]:
            found["properties"]["model"]["referenceType"] = "Id"
        if deployment.settings.output_action == "summary_only":
            # There is no such file, and the client refuses to update a deployment that names one.
            del found["properties"]["outputFileName"]
    found["properties"]["properties"][OPERATION_PROPERTY] = operation_address(scope)
    names = [deployment.endpoint_name, "deployments", deployment.name]
    return found | resource(scope, "batchEndpoints", names, found["properties"], entity=deployment)


def _options_as_properties(options: ScoringOptions) -> dict[str, str]:
    """Our own options as they are given through the client: those that were chosen, and how predictions are written.

    A client that reads a deployment, changes something and stores it again loses none of them.
    """
    return as_properties(
        options.model_dump(mode="json", exclude_defaults=True) | {"output_format": options.output_format}
    )
