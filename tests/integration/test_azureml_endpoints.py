"""Batch endpoints and deployments in the Azure ML dialect, with the bodies that the official client sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import httpx
import pytest
from pydantic import BaseModel

from batchpoint.background.service import Background
from batchpoint.entities.assets import Code, Environment, Model
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.pipelines import CommandStep, Component
from batchpoint.server.azureml.endpoints import ELSEWHERE, ENDPOINT_FIELDS, model_deployment_fields
from batchpoint.server.azureml.wire import Scope
from batchpoint.server.context import Context
from batchpoint.workspace import Workspace
from integration.azure_wire import azure_client
from integration.served import FAKE_RUNNER, open_workspace, served

WS = "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/default"
ENDPOINT = f"{WS}/batchEndpoints/heart"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        model = tmp_path / "model.pkl"
        model.write_bytes(b"a model")
        opened.assets.create_or_update("model", Model(name="heart-model", path=str(model), type="custom_model"))
        opened.assets.create_or_update("environment", Environment(name="sklearn", image="python:3.11"))
        opened.assets.create_or_update("code", Code(name="scripts", path=str(tmp_path / "code")))
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with azure_client(workspace) as found:
        yield found


def endpoint_body(**properties: Any) -> dict[str, Any]:
    return {"location": "local", "tags": {}, "properties": {"authMode": "aadToken", "properties": {}, **properties}}


def deployment_body(**properties: Any) -> dict[str, Any]:
    """What ``ModelBatchDeployment`` becomes on the wire."""
    return {
        "location": "local",
        "tags": {"a": "b"},
        "properties": {
            "description": "scores hearts",
            "model": {"referenceType": "Id", "assetId": f"{WS}/models/heart-model/versions/1"},
            "environmentId": f"{WS}/environments/sklearn/versions/1",
            "codeConfiguration": {"codeId": f"{WS}/codes/scripts/versions/1", "scoringScript": "score.py"},
            "compute": f"{WS}/computes/azureml:local",
            "resources": {"instanceCount": 1, "properties": {}},
            "maxConcurrencyPerInstance": 2,
            "miniBatchSize": 3,
            "outputAction": "AppendRow",
            "outputFileName": "hearts.csv",
            "errorThreshold": 7,
            "retrySettings": {"maxRetries": 1, "timeout": "PT5M"},
            "loggingLevel": "debug",
            "environmentVariables": {"X": "1"},
            "properties": {},
            **properties,
        },
    }


def polled(client: httpx.Client) -> dict[str, str]:
    """The one property that the server adds to those of an endpoint or a deployment."""
    return {"AzureAsyncOperationUri": f"{client.base_url}".rstrip("/") + f"{WS}/operations/done"}


def put(client: httpx.Client, path: str, body: Any) -> dict[str, Any]:
    answered = client.put(path, json=body)
    assert answered.status_code in (200, 201), answered.text
    found: dict[str, Any] = answered.json()
    assert client.get(path).json() == found
    return found


def test_an_endpoint_is_created_read_listed_and_deleted(client: httpx.Client) -> None:
    stored = put(client, ENDPOINT, {**endpoint_body(description="hearts"), "tags": {"team": "cardio"}})
    assert stored["id"] == ENDPOINT
    assert stored["name"] == "heart"
    assert stored["type"] == "Microsoft.MachineLearningServices/workspaces/batchEndpoints"
    assert stored["tags"] == {"team": "cardio"}
    assert stored["location"] == "local"
    assert stored["systemData"]["createdBy"] == "admin-token"
    properties = stored["properties"]
    base = str(client.base_url).rstrip("/")
    assert properties == {
        "description": "hearts",
        "authMode": "aadToken",
        "properties": polled(client),
        "defaults": {},
        "scoringUri": f"{base}{ENDPOINT}/jobs",
        "swaggerUri": f"{base}/openapi.json",
        "provisioningState": "Succeeded",
    }
    assert [found["name"] for found in client.get(f"{WS}/batchEndpoints").json()["value"]] == ["churn", "heart"]
    assert client.delete(ENDPOINT).status_code == 200
    assert client.delete(ENDPOINT).status_code == 204
    missing = client.get(ENDPOINT)
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "NotFound"
    assert "heart" in missing.json()["error"]["message"]


def test_storing_an_endpoint_again_replaces_all_that_is_said_of_it(client: httpx.Client) -> None:
    put(client, ENDPOINT, {**endpoint_body(description="hearts", properties={"p": "q"}), "tags": {"a": "b"}})
    again = put(client, ENDPOINT, endpoint_body())
    assert again["tags"] == {}
    assert "description" not in again["properties"]
    assert again["properties"]["properties"] == polled(client)


def test_programs_without_the_client_ask_where_the_answer_says_and_it_is_stored_for_nobody(
    client: httpx.Client, workspace: Workspace
) -> None:
    deployment = f"{ENDPOINT}/deployments/blue"
    for path, body in ((ENDPOINT, endpoint_body()), (deployment, deployment_body())):
        shown = put(client, path, body)
        address = shown["properties"]["properties"]["AzureAsyncOperationUri"]
        assert client.get(address).json() == {"status": "Succeeded"}
        shown["properties"]["properties"] |= {"AzureAsyncOperationUri": "https://elsewhere/operation", "mine": "1"}
        put(client, path, shown)
    stored = [workspace.endpoints.get("heart"), workspace.endpoints.get_deployment("heart", "blue")]
    assert [set(entity.properties) for entity in stored] == [{"mine"}, {"mine", "batchpoint.output_format"}]


def test_a_comma_after_the_last_item_is_read_over(client: httpx.Client) -> None:
    body = '{"properties": {"authMode": "aadToken", "description": "a, } and \\", ]", "defaults": {},},}'
    answered = client.put(ENDPOINT, content=body)
    assert answered.status_code == 200, answered.text
    assert answered.json()["properties"]["description"] == 'a, } and ", ]'
    for broken in ('{"properties": {,,}}', '{"properties": {"a" "b",}}', '{"properties": [1,,]}', "{,"):
        refused = client.put(ENDPOINT, content=broken)
        assert refused.status_code == 422
        assert "not JSON" in refused.json()["error"]["message"]


def test_the_default_deployment_goes_when_the_body_says_so_and_stays_when_it_says_nothing(client: httpx.Client) -> None:
    churn = f"{WS}/batchEndpoints/churn"
    shown = client.get(churn).json()
    assert shown["properties"]["defaults"] == {"deploymentName": "blue"}
    assert put(client, churn, endpoint_body())["properties"]["defaults"] == {"deploymentName": "blue"}
    assert put(client, churn, endpoint_body(defaults={}))["properties"]["defaults"] == {}
    named = put(client, churn, endpoint_body(defaults={"deploymentName": "blue"}))
    assert named["properties"]["defaults"] == {"deploymentName": "blue"}
    unknown = client.put(churn, json=endpoint_body(defaults={"deploymentName": "green"}))
    assert unknown.status_code == 404
    assert "green" in unknown.json()["error"]["message"]


def test_a_model_deployment_comes_back_as_it_was_sent(client: httpx.Client, workspace: Workspace) -> None:
    put(client, ENDPOINT, endpoint_body())
    sent = deployment_body()
    stored = put(client, f"{ENDPOINT}/deployments/blue", sent)
    assert stored["id"] == f"{ENDPOINT}/deployments/blue"
    assert stored["type"] == "Microsoft.MachineLearningServices/workspaces/batchEndpoints/deployments"
    assert stored["tags"] == {"a": "b"}
    expected = {
        **sent["properties"],
        "compute": f"{WS}/computes/local",
        "retrySettings": {"maxRetries": 1, "timeout": "PT300S"},
        "provisioningState": "Succeeded",
        "properties": {"batchpoint.output_format": "azureml", **polled(client)},
    }
    assert stored["properties"] == expected
    kept = workspace.endpoints.get_deployment("heart", "blue")
    assert isinstance(kept, BatchDeployment)
    assert (kept.model, kept.compute) == ("azureml:heart-model:1", "azureml:local")
    assert kept.settings.mini_batch_size == 3
    assert [each["name"] for each in client.get(f"{ENDPOINT}/deployments").json()["value"]] == ["blue"]
    assert client.delete(f"{ENDPOINT}/deployments/blue").status_code == 200
    assert client.delete(f"{ENDPOINT}/deployments/blue").status_code == 204


def test_numbers_may_come_as_text_and_keys_in_any_case(client: httpx.Client, workspace: Workspace) -> None:
    put(client, ENDPOINT, endpoint_body())
    sent = deployment_body(miniBatchSize="4", maxConcurrencyPerInstance="2", errorThreshold="-1")
    sent["Properties"] = {key[0].upper() + key[1:]: value for key, value in sent.pop("properties").items()}
    put(client, f"{ENDPOINT}/deployments/blue", sent)
    kept = workspace.endpoints.get_deployment("heart", "blue")
    assert isinstance(kept, BatchDeployment)
    assert (kept.settings.mini_batch_size, kept.settings.error_threshold) == (4, -1)


def test_what_is_left_out_of_a_deployment_has_azures_defaults(client: httpx.Client) -> None:
    put(client, ENDPOINT, endpoint_body())
    sent = deployment_body()
    kept = ("model", "codeConfiguration")
    sent["properties"] = {key: value for key, value in sent["properties"].items() if key in kept}
    found = put(client, f"{ENDPOINT}/deployments/blue", sent)["properties"]
    assert (found["miniBatchSize"], found["errorThreshold"], found["outputFileName"]) == (10, -1, "predictions.csv")
    assert found["retrySettings"] == {"maxRetries": 3, "timeout": "PT30S"}
    assert found["resources"] == {"instanceCount": 1}
    assert found["loggingLevel"] == "info"


def test_a_deployment_without_rows_names_no_file(client: httpx.Client) -> None:
    put(client, ENDPOINT, endpoint_body())
    sent = deployment_body(outputAction="SummaryOnly")
    del sent["properties"]["outputFileName"]
    found = put(client, f"{ENDPOINT}/deployments/blue", sent)["properties"]
    assert found["outputAction"] == "SummaryOnly"
    assert "outputFileName" not in found


def test_options_of_our_own_come_and_go_as_properties(client: httpx.Client, workspace: Workspace) -> None:
    put(client, ENDPOINT, endpoint_body())
    own = {"batchpoint.output_format": "csv", "batchpoint.passthrough": '["age"]', "mine": "1"}
    address = f"{ENDPOINT}/deployments/blue"
    found = put(client, address, deployment_body(properties=own))
    assert found["properties"]["properties"] == own | polled(client)
    kept = workspace.endpoints.get_deployment("heart", "blue")
    assert isinstance(kept, BatchDeployment)
    assert (kept.batchpoint.output_format, kept.batchpoint.passthrough) == ("csv", ["age"])
    put(client, address, found)  # what a client reads and stores again is the same deployment
    assert workspace.endpoints.get_deployment("heart", "blue").model_dump(exclude={"modified_at"}) == kept.model_dump(
        exclude={"modified_at"}
    )
    native = workspace.endpoints.get_deployment("churn", "blue")
    shown = client.get(f"{WS}/batchEndpoints/churn/deployments/blue").json()
    put(client, f"{WS}/batchEndpoints/churn/deployments/blue", shown)
    again = workspace.endpoints.get_deployment("churn", "blue")
    assert isinstance(native, BatchDeployment)
    assert isinstance(again, BatchDeployment)
    assert again.batchpoint == native.batchpoint


def test_a_deployment_that_cannot_be_says_why(client: httpx.Client) -> None:
    put(client, ENDPOINT, endpoint_body())
    address = f"{ENDPOINT}/deployments/blue"
    nowhere = client.put(f"{WS}/batchEndpoints/nowhere/deployments/blue", json=deployment_body())
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "NotFound")
    missing = client.put(address, json=deployment_body(model={"assetId": f"{WS}/models/gone/versions/1"}))
    assert missing.status_code == 404
    assert "gone" in missing.json()["error"]["message"]
    wrong = client.put(address, json=deployment_body(retrySettings={"timeout": "five minutes"}))
    assert wrong.status_code == 422
    assert wrong.json()["error"]["message"] == (
        "properties.retrySettings.timeout is 'five minutes', which is not understood."
    )
    assert client.put(address, json=[1]).status_code == 422


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("table", {"url": "sqlite:////srv/secret.db", "name": "predictions"}),
        ("model_map", {"folder": "/srv/secret", "file_pattern": "{Device}.pkl"}),
    ],
)
def test_options_name_paths_of_the_server_for_callers_who_are_on_it_alone(
    workspace: Workspace, option: str, value: dict[str, str]
) -> None:
    secret, _ = workspace.tokens.create("far", "operator")
    background = Background(workspace, runner_parent=FAKE_RUNNER)
    with served(Context(workspace, background, server_id="s1", shares_files=False), secret) as client:
        client.put(ENDPOINT, json=endpoint_body())
        keys = {"batchpoint.partition_keys": '["Device"]'}
        body = deployment_body(properties={**keys, f"batchpoint.{option}": json.dumps(value)})
        if option == "model_map":
            del body["properties"]["model"], body["properties"]["codeConfiguration"]
        refused = client.put(f"{ENDPOINT}/deployments/blue", json=body)
    assert refused.status_code == 422, refused.text
    assert "is a path of some machine" in refused.json()["error"]["message"]


def test_a_pipeline_component_stands_behind_an_endpoint(client: httpx.Client, workspace: Workspace) -> None:
    steps = {"say": CommandStep(command="echo hello")}
    workspace.assets.create_or_update("component", Component(name="prep-and-score", type="pipeline", jobs=steps))
    put(client, ENDPOINT, endpoint_body())
    sent = {
        "location": "local",
        "tags": {},
        "properties": {
            "description": "d",
            "errorThreshold": -1,
            "maxConcurrencyPerInstance": 1,
            "miniBatchSize": 10,
            "outputFileName": "predictions.csv",
            "deploymentConfiguration": {
                "deploymentConfigurationType": "PipelineComponent",
                "componentId": {"referenceType": "Id", "assetId": f"{WS}/components/prep-and-score/versions/1"},
                "settings": {"continue_on_step_failure": False, "default_compute": "local"},
            },
        },
    }
    found = put(client, f"{ENDPOINT}/deployments/pipe", sent)["properties"]["deploymentConfiguration"]
    assert found["deploymentConfigurationType"] == "PipelineComponent"
    assert found["componentId"] == sent["properties"]["deploymentConfiguration"]["componentId"]  # type: ignore[index]  # a body of a test is of no type
    assert found["settings"] == {
        "continue_on_step_failure": False,
        "default_compute": "local",
        "force_rerun": False,
    }


def test_every_field_of_a_deployment_travels_or_says_why_not() -> None:
    """A field more of the entity is one line of the table; this tells who forgets it."""
    fields = model_deployment_fields(Scope("s1", "rg", "w1", "https://here"))
    carried = {field.ours for field in fields}
    missing = [
        path
        for path in _paths(BatchDeployment)
        if path not in carried and path not in ELSEWHERE and path.partition(".")[0] not in ELSEWHERE
    ]
    assert missing == []
    assert carried - set(_paths(BatchDeployment)) == set()
    assert {field.ours for field in ENDPOINT_FIELDS} - set(_paths(BatchEndpoint)) == set()


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields; those of parts are the fields of the part."""
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        part = next((kind for kind in kinds if issubclass(kind, BaseModel) and f"{prefix}{name}" not in _WHOLE), None)
        if part is None:
            yield f"{prefix}{name}"
        else:
            yield from _paths(part, f"{prefix}{name}.")


_WHOLE = {"model", "environment", "batchpoint", "parallel_run_config"}
"""Fields that travel in one piece."""


@pytest.mark.parametrize("name", ["w\r\nX-Sent: by somebody else", "Büro ☃", "a b"])
def test_a_workspace_of_a_name_that_none_can_have_is_refused_and_stands_in_no_header(
    client: httpx.Client, name: str
) -> None:
    workspace = f"{WS.rpartition('/')[0]}/{quote(name)}"
    answered = client.put(f"{workspace}/batchEndpoints/churn/deployments/green", json=deployment_body())
    assert (answered.status_code, answered.json()["error"]["code"]) == (422, "InvalidEntity")
    assert not any("X-Sent" in key or "X-Sent" in value for key, value in answered.headers.items())
