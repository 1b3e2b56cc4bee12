"""Workspaces, computes and datastores."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from batchpoint.entities.base import Entity
from batchpoint.entities.documents import read_body
from batchpoint.entities.resources import RESOURCE_KINDS, Compute, Datastore, ResourceKind
from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.errors import ConflictError, InvalidEntityError, NotFoundError, RequestError
from batchpoint.server.auth import Admin, Operator, Reader
from batchpoint.server.azureml.containers import ARTIFACT_DATASTORE, account_of, container_of
from batchpoint.server.azureml.mapping import DESCRIBED, DURATION, NUMBER, TEXTS, Field, Form, from_wire, to_wire, words
from batchpoint.server.azureml.wire import (
    LOCATION,
    OPERATION,
    PROVIDER,
    WORKSPACE,
    WORKSPACES,
    Listed,
    Scope,
    Scoped,
    ScopedWork,
    WireBody,
    base_of,
    deleted,
    name_in,
    page,
    resource,
    stored_at_once,
)
from batchpoint.server.context import Context, Server, Shared
from batchpoint.workspace import Workspace

router = APIRouter(tags=["azureml"], include_in_schema=False)

DEFAULT_GROUP = "batchpoint"
"""The resource group that lists show. Any other may be named: a workspace is known by its own name alone."""


@router.get("/discovery", name="azureml.discovery")
def discovery(request: Request) -> JSONResponse:
    """Where the other interfaces are: here. The client asks without a token."""
    return JSONResponse({"api": base_of(request)})


@router.get(WORKSPACE, name="azureml.workspaces.get")
def get_workspace(scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """A workspace."""
    return JSONResponse(_workspace(scope, work.workspaces.get(scope.workspace)))


@router.put(WORKSPACE, name="azureml.workspaces.create_or_update")
def put_workspace(body: WireBody, scope: Scoped, shared: Server, caller: Operator) -> JSONResponse:
    """Create a workspace, or replace what is said of it. What else Azure makes one of does not count here."""
    whole: dict[str, Any] = {"display_name": None, "description": None, "tags": {}}
    return _store_workspace(scope, shared, {**whole, **from_wire(_WORKSPACE, body)}, caller.name)


@router.patch(WORKSPACE, name="azureml.workspaces.update")
def patch_workspace(body: WireBody, scope: Scoped, shared: Server, caller: Operator) -> JSONResponse:
    """Change a workspace; what is left out stays.

    The client creates one so, too: it looks for it first, and then it is there.
    """
    return _store_workspace(scope, shared, from_wire(_WORKSPACE, body), caller.name)


@router.delete(WORKSPACE, name="azureml.workspaces.delete")
def delete_workspace(
    scope: Scoped, shared: Server, _: Admin, permanently: Annotated[bool, Query(alias="forceToPurge")] = False
) -> Response:
    """Delete a workspace; one that holds something only permanently."""
    return deleted(lambda: shared.workspace.delete(scope.workspace, permanently=permanently))


@router.get(WORKSPACES, name="azureml.workspaces.list")
def list_workspaces(
    subscription: str, resource_group: str, request: Request, shared: Server, _: Reader
) -> JSONResponse:
    """The workspaces, whatever the resource group."""
    found = shared.workspace.workspaces.list()
    return page([_workspace(Scope(subscription, resource_group, each.name, base_of(request)), each) for each in found])


@router.get(f"/subscriptions/{{subscription}}/providers/{PROVIDER}/workspaces", name="azureml.workspaces.list_all")
def list_all_workspaces(subscription: str, request: Request, shared: Server, caller: Reader) -> JSONResponse:
    """The workspaces, whatever the subscription."""
    return list_workspaces(subscription, DEFAULT_GROUP, request, shared, caller)


@router.get(OPERATION, name="azureml.operations.done")
def operation(_: Reader) -> JSONResponse:
    """Whatever is stored at once has succeeded."""
    return JSONResponse({"status": "Succeeded"})


@router.get(f"{WORKSPACE}/computes", name="azureml.computes.list")
def list_computes(scope: Scoped, work: ScopedWork, _: Reader, listing: Listed) -> JSONResponse:
    """All computes."""
    found = work.resources.list("compute", limit=listing.reach, offset=listing.offset)
    return listing.answer(found, lambda compute: _compute(scope, compute))


@router.get(f"{WORKSPACE}/computes/{{name}}", name="azureml.computes.get")
def get_compute(name: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """One of them."""
    return JSONResponse(_compute(scope, work.resources.get("compute", name_in(name))))


@router.put(f"{WORKSPACE}/computes/{{name}}", name="azureml.computes.create_or_update")
def put_compute(name: str, body: WireBody, scope: Scoped, work: ScopedWork, caller: Admin) -> JSONResponse:
    """Create one, or change the one of that name."""
    kind = from_wire((Field("type", "properties.computeType"),), body).get("type")
    if str(kind).lower() != "amlcompute":
        raise InvalidEntityError(f"computeType is {kind!r}; the one kind of compute here is AmlCompute.")
    compute = _read("compute", name_in(name), from_wire(_COMPUTE, body))
    stored = work.resources.create_or_update("compute", compute, by=caller.name)
    return stored_at_once(scope, _compute(scope, stored))


@router.delete(f"{WORKSPACE}/computes/{{name}}", name="azureml.computes.delete")
def delete_compute(name: str, work: ScopedWork, _: Admin) -> Response:
    """Delete one."""
    return _delete(work, "compute", name_in(name))


@router.post(f"{WORKSPACE}/computes/{{name}}/listNodes", name="azureml.computes.nodes")
def list_nodes(name: str, work: ScopedWork, shared: Shared, _: Reader) -> JSONResponse:
    """The instances of a compute, and what each does."""
    compute = cast("Compute", work.resources.get("compute", name_in(name)))
    found = shared.background.nodes(compute, work.name)
    return JSONResponse({"nodes": [to_wire(_NODE, vars(node)) for node in found]})


@router.get(f"{WORKSPACE}/datastores", name="azureml.datastores.list")
def list_datastores(
    scope: Scoped,
    work: ScopedWork,
    _: Reader,
    listing: Listed,
    isDefault: bool = False,  # noqa: N803 -- as the wire spells it
) -> JSONResponse:
    """All datastores that the wire has words for."""
    known = [cast("Datastore", found) for found in work.resources.list("datastore")]
    shown = [store for store in known if store.type not in _UNKNOWN_TO_THE_WIRE and store.name != ARTIFACT_DATASTORE]
    if isDefault:
        shown = [store for store in shown if store.is_default]
    else:
        shown.append(_ARTIFACTS)
    return listing.answer(
        shown[listing.offset : listing.offset + listing.reach], lambda store: _datastore(scope, work, store)
    )


@router.get(f"{WORKSPACE}/datastores/{{name}}", name="azureml.datastores.get")
def get_datastore(name: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """One of them, without its credentials."""
    return JSONResponse(_datastore(scope, work, _stored(work, name)))


@router.put(f"{WORKSPACE}/datastores/{{name}}", name="azureml.datastores.create_or_update")
def put_datastore(name: str, body: WireBody, scope: Scoped, work: ScopedWork, caller: Admin) -> JSONResponse:
    """Create one, or change the one of that name. Credentials that are not given stay."""
    _check_not_artifacts(name)
    given = from_wire(_DATASTORE, body)
    if "/" in str(given.get("account_name", "")):
        # As no account of Azure: a datastore of this server is sent back. What may change is what describes it.
        known = _stored(work, name)
        given = {**known.body(), **{key: given[key] for key in ("description", "tags", "properties") if key in given}}
    elif secrets := from_wire(_SECRETS, body):
        given["credentials"] = {**from_wire(_IDENTITIES, body), **secrets}
    datastore = cast("Datastore", _read("datastore", name, given))
    return JSONResponse(
        _datastore(scope, work, work.resources.create_or_update("datastore", datastore, by=caller.name))
    )


@router.delete(f"{WORKSPACE}/datastores/{{name}}", name="azureml.datastores.delete")
def delete_datastore(name: str, work: ScopedWork, _: Admin) -> Response:
    """Forget one. What lies in it stays there."""
    _check_not_artifacts(name)
    return _delete(work, "datastore", name)


@router.post(f"{WORKSPACE}/datastores/{{name}}/listSecrets", name="azureml.datastores.secrets")
def list_secrets(name: str, work: ScopedWork, _: Reader) -> JSONResponse:
    """Refused always; the client then uses its token, which is what opens the datastores of this server."""
    _stored(work, name)
    raise RequestError(f"The credentials of datastore {name} are never shown. Requests to this server need your token.")


def _store_workspace(scope: Scope, shared: Context, body: Mapping[str, Any], by: str) -> JSONResponse:
    declared = read_body(NamedWorkspace, {**body, "name": scope.workspace}, name="workspace")
    return JSONResponse(_workspace(scope, shared.workspace.workspaces.create_or_update(declared, by=by)))


def _workspace(scope: Scope, named: NamedWorkspace) -> dict[str, Any]:
    return {
        "id": scope.path,
        "name": scope.workspace,
        "type": f"{PROVIDER}/workspaces",
        "location": LOCATION,
        "kind": "Default",
        "tags": named.tags,
        "properties": {
            "description": named.description,
            "workspaceId": str(uuid.uuid5(uuid.NAMESPACE_URL, scope.path)),
            "friendlyName": named.display_name or scope.workspace,
            "discoveryUrl": f"{scope.base}/discovery",
            "provisioningState": "Succeeded",
        },
    }


def _compute(scope: Scope, compute: Entity) -> dict[str, Any]:
    assert isinstance(compute, Compute)
    told = to_wire(_COMPUTE, compute.body())
    known = {
        **told.pop("properties"),
        "computeType": "AmlCompute",
        "computeLocation": compute.location or LOCATION,
        "isAttachedCompute": False,
        "provisioningState": "Succeeded",
    }
    found = resource(scope, "computes", (compute.name,), known, entity=compute)
    return {**found, "location": compute.location or LOCATION, **told}


def _stored(work: Workspace, name: str) -> Datastore:
    if name == ARTIFACT_DATASTORE:
        return _ARTIFACTS
    found = cast("Datastore", work.resources.get("datastore", name))
    if found.type in _UNKNOWN_TO_THE_WIRE:
        message = f"Datastore {name} is of type {found.type}, which this interface has no word for."
        raise RequestError(f"{message} Ask for it at /api/v1/datastores/{name}.")
    return found


def _datastore(scope: Scope, work: Workspace, datastore: Datastore) -> dict[str, Any]:
    known: dict[str, Any] = to_wire(_DATASTORE, datastore.body())["properties"]
    if datastore.type not in _AZURE:
        known |= {
            "datastoreType": "AzureBlob",
            "accountName": account_of(scope),
            "containerName": container_of(datastore.name),
            "endpoint": "core.windows.net",
            "protocol": "https",
        }
    keys = work.resources.credential_keys(datastore.name) if datastore.has_credentials else frozenset[str]()
    kind = next((kind for key, kind in _CREDENTIALS.items() if key in keys), "None")
    known |= {"credentials": {"credentialsType": kind}, "isDefault": datastore.is_default}
    return resource(scope, "datastores", (datastore.name,), known, entity=datastore)


def _check_not_artifacts(name: str) -> None:
    if name == ARTIFACT_DATASTORE:
        raise ConflictError(f"The datastore {name} is built in; it can be neither changed nor deleted.")


def _delete(work: Workspace, kind: ResourceKind, name: str) -> Response:
    with suppress(NotFoundError):  # gone is gone: the client is told the same as when it was there
        work.resources.delete(kind, name)
    return Response(status_code=204)


def _read(kind: ResourceKind, name: str, body: Mapping[str, Any]) -> Entity:
    return read_body(RESOURCE_KINDS[kind], {**body, "name": name})


_WORKSPACE = (
    Field("display_name", "properties.friendlyName"),
    Field("description", "properties.description"),
    Field("tags", "tags", TEXTS),
)
_ACCESS = Form(
    lambda enabled: "Enabled" if enabled else "Disabled",
    lambda given: {"enabled": True, "disabled": False}.get(given.lower()),
)
_USER_IDENTITIES = Form(
    lambda given: {each["resource_id"]: {} for each in given},
    lambda given: [{"resource_id": name} for name in given],
)
_COMPUTE = (
    Field("description", "properties.description"),
    Field("tags", "tags", TEXTS),
    Field("location", "location"),
    Field("identity.type", "identity.type", words(system_assigned="SystemAssigned", user_assigned="UserAssigned")),
    Field("identity.user_assigned_identities", "identity.userAssignedIdentities", _USER_IDENTITIES),
    Field("size", "properties.properties.vmSize"),
    Field("tier", "properties.properties.vmPriority", words(dedicated="Dedicated", low_priority="LowPriority")),
    Field("min_instances", "properties.properties.scaleSettings.minNodeCount", NUMBER),
    Field("max_instances", "properties.properties.scaleSettings.maxNodeCount", NUMBER),
    Field("idle_time_before_scale_down", "properties.properties.scaleSettings.nodeIdleTimeBeforeScaleDown", DURATION),
    Field("ssh_public_access_enabled", "properties.properties.remoteLoginPortPublicAccess", _ACCESS),
    Field("network_settings.subnet", "properties.properties.subnet.id"),
)
"""Without enableNodePublicIp: a client that is told of it fails when it sends the compute back."""

_NODE = (Field("node_id", "nodeId"), Field("node_state", "nodeState"), Field("current_job_name", "runId"))

_AZURE = {
    "azure_blob": "AzureBlob",
    "azure_file": "AzureFile",
    "azure_data_lake_gen1": "AzureDataLakeGen1",
    "azure_data_lake_gen2": "AzureDataLakeGen2",
    "one_lake": "OneLake",
}
_UNKNOWN_TO_THE_WIRE = frozenset({"sql", "hdfs"})
"""All types beside these and Azure's own look like a container of an account that is this server."""
_DATASTORE = (
    *DESCRIBED,
    Field("type", "properties.datastoreType", words(**_AZURE)),
    Field("account_name", "properties.accountName"),
    Field("container_name", "properties.containerName"),
    Field("file_share_name", "properties.fileShareName"),
    Field("filesystem", "properties.filesystem"),
    Field("store_name", "properties.storeName"),
    Field("one_lake_workspace_name", "properties.oneLakeWorkspaceName"),
    Field("artifact.name", "properties.artifact.artifactName"),
    Field("artifact.type", "properties.artifact.artifactType", words(lake_house="LakeHouse")),
    Field("endpoint", "properties.endpoint"),
    Field("protocol", "properties.protocol"),
)
_CREDENTIALS = {"account_key": "AccountKey", "sas_token": "Sas", "client_secret": "ServicePrincipal"}
"""Without certificates: older clients fail when they are told of one."""
_SECRETS = (
    Field("account_key", "properties.credentials.secrets.key"),
    Field("sas_token", "properties.credentials.secrets.sasToken"),
    Field("client_secret", "properties.credentials.secrets.clientSecret"),
    Field("certificate", "properties.credentials.secrets.certificate"),
)
_IDENTITIES = (
    Field("tenant_id", "properties.credentials.tenantId"),
    Field("client_id", "properties.credentials.clientId"),
    Field("thumbprint", "properties.credentials.thumbprint"),
    Field("authority_url", "properties.credentials.authorityUrl"),
    Field("resource_url", "properties.credentials.resourceUrl"),
)
"""Credentials are taken and never shown. Who they are for counts only with the secret beside it: what was shown is sent
back without."""
_ARTIFACTS = Datastore(name=ARTIFACT_DATASTORE, type="memory", description="The logs of the jobs.")
