"""Workspaces, computes and datastores over the wire of Azure ML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from batchpoint.entities.resources import Compute, Datastore, DatastoreCredentials
from batchpoint.workspace import Workspace
from integration.azure_wire import WS, azure_client


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with azure_client(workspace) as opened:
        yield opened


def compute_body(**properties: Any) -> dict[str, Any]:
    scale = {"maxNodeCount": 3, "minNodeCount": 0, "nodeIdleTimeBeforeScaleDown": "PT2M"}
    inner = {"vmSize": "Standard_DS3_v2", "vmPriority": "LowPriority", "scaleSettings": scale, "osType": "Linux"}
    inner |= {"remoteLoginPortPublicAccess": "NotSpecified", "enableNodePublicIp": True, **properties}
    about = {"description": "small", "computeType": "AmlCompute", "disableLocalAuth": True, "properties": inner}
    return {"location": "local", "tags": {"team": "a"}, "properties": about}


def blob_body(**properties: Any) -> dict[str, Any]:
    store = {"datastoreType": "AzureBlob", "accountName": "acct", "containerName": "c", "endpoint": "core.windows.net"}
    return {"properties": {**store, "protocol": "https", "tags": {"a": "b"}, **properties}}


def test_a_workspace_of_any_name_is_there_and_leads_to_this_server(client: httpx.Client) -> None:
    found = client.get(WS, params={"api-version": "2024-10-01-preview"}).json()
    assert found["id"] == WS
    assert found["name"] == "default"
    assert found["location"] == "local"
    assert "mlFlowTrackingUri" not in found["properties"]
    discovered = httpx.get(found["properties"]["discoveryUrl"])
    assert discovered.json() == {"api": str(client.base_url).rstrip("/")}


def test_the_workspaces_of_a_group_and_of_a_subscription_are_listed(client: httpx.Client) -> None:
    in_group = client.get(WS.rpartition("/")[0]).json()["value"]
    assert [workspace["name"] for workspace in in_group] == ["default"]
    everywhere = client.get("/subscriptions/s/providers/Microsoft.MachineLearningServices/workspaces").json()["value"]
    assert client.get(everywhere[0]["id"]).status_code == 200


def test_a_compute_is_created_shown_changed_listed_and_deleted(client: httpx.Client, workspace: Workspace) -> None:
    made = client.put(f"{WS}/computes/cpu", json=compute_body())
    assert made.status_code == 201, made.text
    assert client.get(made.headers["Azure-AsyncOperation"]).json() == {"status": "Succeeded"}
    compute = workspace.resources.get("compute", "cpu")
    assert isinstance(compute, Compute)
    assert (compute.size, compute.tier, compute.max_instances) == ("Standard_DS3_v2", "low_priority", 3)
    assert (compute.idle_time_before_scale_down, compute.tags) == (120, {"team": "a"})

    found = client.get(f"{WS}/computes/cpu").json()
    assert found["id"] == f"{WS}/computes/cpu"
    assert found["tags"] == {"team": "a"}
    assert found["properties"]["provisioningState"] == "Succeeded"
    inner = found["properties"]["properties"]
    assert inner["vmPriority"] == "LowPriority"
    assert inner["scaleSettings"] == {"maxNodeCount": 3, "minNodeCount": 0, "nodeIdleTimeBeforeScaleDown": "PT120S"}
    assert "enableNodePublicIp" not in inner

    found["properties"]["properties"]["scaleSettings"]["maxNodeCount"] = 5
    assert client.put(f"{WS}/computes/cpu", json=found).status_code == 201
    assert client.get("/api/v1/computes/cpu").json()["max_instances"] == 5
    assert {item["name"] for item in client.get(f"{WS}/computes").json()["value"]} == {"cpu", "local"}
    assert client.delete(f"{WS}/computes/cpu?underlyingResourceAction=Delete").status_code == 204
    assert client.delete(f"{WS}/computes/cpu").status_code == 204
    assert client.get(f"{WS}/computes/cpu").status_code == 404


def test_a_compute_may_carry_the_prefix_that_the_client_leaves_in_ids(client: httpx.Client) -> None:
    assert client.get(f"{WS}/computes/azureml:local").json()["name"] == "local"


def test_the_nodes_of_a_compute_are_listed_with_what_they_do(client: httpx.Client) -> None:
    client.put("/api/v1/computes/warm", json={"min_instances": 1})
    found = client.post(f"{WS}/computes/warm/listNodes").json()
    assert found == {"nodes": [{"nodeId": "warm-0", "nodeState": "idle"}]}


def test_a_compute_declared_without_a_size_can_be_put_by_the_client_which_always_says_one(
    client: httpx.Client,
) -> None:
    assert client.put("/api/v1/computes/cpu", json={"max_instances": 2}).status_code == 200
    body = compute_body(vmPriority="Dedicated")
    assert client.put(f"{WS}/computes/cpu", json=body).status_code == 201
    assert client.get("/api/v1/computes/cpu").json()["size"] == "Standard_DS3_v2"
    refused = client.put(f"{WS}/computes/cpu", json=compute_body(vmPriority="Dedicated", vmSize="Standard_NC6"))
    assert refused.status_code == 409
    assert "size" in refused.json()["error"]["message"]


def test_the_built_in_compute_takes_changes_from_the_client_and_stays_what_it_is(client: httpx.Client) -> None:
    found = client.get(f"{WS}/computes/local").json()
    assert found["properties"]["computeType"] == "AmlCompute"
    found["properties"]["properties"]["scaleSettings"]["maxNodeCount"] = 7
    assert client.put(f"{WS}/computes/local", json=found).status_code == 201
    stored = client.get("/api/v1/computes/local").json()
    assert (stored["type"], stored["max_instances"]) == ("local", 7)
    refused = client.delete(f"{WS}/computes/local")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "Conflict"


def test_identity_and_network_of_a_compute_are_kept(client: httpx.Client) -> None:
    access = {"subnet": {"id": "/subnets/a"}, "remoteLoginPortPublicAccess": "Disabled"}
    identity = {"type": "UserAssigned", "userAssignedIdentities": {"/identities/me": {}}}
    assert client.put(f"{WS}/computes/cpu", json={**compute_body(**access), "identity": identity}).status_code == 201
    shown = client.get(f"{WS}/computes/cpu").json()
    assert shown["identity"] == identity
    assert access.items() <= shown["properties"]["properties"].items()
    stored = client.get("/api/v1/computes/cpu").json()
    assert stored["identity"]["user_assigned_identities"] == [{"resource_id": "/identities/me"}]
    assert client.put(f"{WS}/computes/cpu", json=shown).status_code == 201


def test_another_kind_of_compute_and_a_bad_name_are_refused_with_a_reason(client: httpx.Client) -> None:
    body = compute_body()
    body["properties"]["computeType"] = "ComputeInstance"
    refused = client.put(f"{WS}/computes/cpu", json=body)
    assert refused.status_code == 422
    assert "AmlCompute" in refused.json()["error"]["message"]
    refused = client.put(f"{WS}/computes/1-cpu", json=compute_body())
    assert refused.status_code == 422
    assert "name" in refused.json()["error"]["message"]


def test_a_reader_may_look_at_computes_and_not_change_them(workspace: Workspace) -> None:
    with azure_client(workspace, "reader") as reader:
        assert reader.get(f"{WS}/computes/local").status_code == 200
        refused = reader.put(f"{WS}/computes/cpu", json=compute_body())
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "PermissionDenied"


def test_the_default_datastore_looks_like_a_container_at_this_server(client: httpx.Client) -> None:
    listed = client.get(f"{WS}/datastores?count=30&isDefault=true&orderByAsc=false").json()["value"]
    assert [store["name"] for store in listed] == ["workspaceblobstore"]
    shown = listed[0]["properties"]
    assert shown["datastoreType"] == "AzureBlob"
    assert shown["accountName"] == f"{client.base_url.host}:{client.base_url.port}/default"
    assert shown["containerName"] == "azureml-blobstore"
    assert shown["credentials"] == {"credentialsType": "None"}
    assert client.get(f"{WS}/datastores/workspaceartifactstore").json()["properties"]["datastoreType"] == "AzureBlob"
    assert client.post(f"{WS}/datastores/workspaceblobstore/listSecrets", json={}).status_code == 400
    assert client.post(f"{WS}/datastores/nowhere/listSecrets", json={}).status_code == 404


def test_a_datastore_of_azure_is_created_with_credentials_that_are_never_shown(
    client: httpx.Client, workspace: Workspace
) -> None:
    secrets = {"credentialsType": "AccountKey", "secrets": {"secretsType": "AccountKey", "key": "c2VjcmV0"}}
    made = client.put(f"{WS}/datastores/mine?skipValidation=true", json=blob_body(credentials=secrets))
    assert made.status_code == 200, made.text
    assert "c2VjcmV0" not in made.text
    assert made.json()["properties"]["accountName"] == "acct"
    assert client.get("/api/v1/datastores/mine").json()["has_credentials"] is True

    back = client.get(f"{WS}/datastores/mine").json()
    assert back["properties"]["credentials"] == {"credentialsType": "AccountKey"}
    back["properties"]["description"] = "new words"
    assert client.put(f"{WS}/datastores/mine", json=back).status_code == 200
    given = DatastoreCredentials.model_validate({"account_key": "c2VjcmV0"})
    assert workspace.resources.holds_credentials("mine", given)
    assert client.get("/api/v1/datastores/mine").json()["description"] == "new words"
    assert client.delete(f"{WS}/datastores/mine").status_code == 204
    assert client.delete(f"{WS}/datastores/mine").status_code == 204
    assert client.get(f"{WS}/datastores/mine").status_code == 404


def test_datastores_of_the_other_azure_types_keep_what_is_said_of_them(client: httpx.Client) -> None:
    lake = {"datastoreType": "AzureDataLakeGen2", "accountName": "acct", "filesystem": "fs", "endpoint": "e"}
    files = {"datastoreType": "AzureFile", "accountName": "acct", "fileShareName": "share", "protocol": "https"}
    for name, properties in {"lake": lake, "files": files}.items():
        assert client.put(f"{WS}/datastores/{name}", json={"properties": properties}).status_code == 200
        shown = client.get(f"{WS}/datastores/{name}").json()["properties"]
        assert properties.items() <= shown.items()


def test_a_folder_of_this_machine_looks_like_a_container_and_comes_back_as_the_folder(
    client: httpx.Client, workspace: Workspace
) -> None:
    workspace.resources.create_or_update("datastore", Datastore(name="shared", path="/data/shared"))
    shown = client.get(f"{WS}/datastores/shared").json()
    assert shown["properties"]["containerName"] == "shared"
    shown["properties"]["tags"] = {"of": "us"}
    shown["properties"]["accountName"] = "another-name-of-this-host:1/default"
    assert client.put(f"{WS}/datastores/shared", json=shown).status_code == 200
    stored = workspace.resources.get("datastore", "shared")
    assert isinstance(stored, Datastore)
    assert (stored.type, stored.path, stored.tags) == ("local", "/data/shared", {"of": "us"})


def test_datastores_are_listed_page_by_page_without_those_that_the_wire_has_no_word_for(
    client: httpx.Client, workspace: Workspace
) -> None:
    for name in ("a", "b", "c"):
        workspace.resources.create_or_update("datastore", Datastore(name=name, path=f"/data/{name}"))
    workspace.resources.create_or_update("datastore", Datastore(name="d", type="sql", url="sqlite:////data/d.db"))
    names: list[str] = []
    following: str | None = f"{WS}/datastores?count=2&orderByAsc=false"
    while following is not None:
        answered = client.get(following).json()
        names += [store["name"] for store in answered["value"]]
        following = answered.get("nextLink")
    assert names == ["a", "b", "c", "workspaceblobstore", "workspaceartifactstore"]
    refused = client.get(f"{WS}/datastores/d")
    assert refused.status_code == 400
    assert "/api/v1/datastores/d" in refused.json()["error"]["message"]


def test_the_built_in_datastores_cannot_be_replaced_or_deleted(client: httpx.Client) -> None:
    for name in ("workspaceblobstore", "workspaceartifactstore"):
        assert client.put(f"{WS}/datastores/{name}", json=blob_body()).status_code == 409
        assert client.delete(f"{WS}/datastores/{name}").status_code == 409
