"""Invoke in the Azure ML dialect: the bodies of its client and of its REST documents, and requests that come again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.entities.assets import Data
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import Job
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.entities.pipelines import CommandStep, Component, InputPort
from batchpoint.workspace import Workspace
from integration.azure_wire import azure_client
from integration.served import open_workspace

WS = "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/default"
JOBS = f"{WS}/batchEndpoints/churn/jobs"
DATA = "azureml://datastores/workspaceblobstore/paths/in/"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        folder = tmp_path / "home" / "datastores" / "workspaceblobstore" / "in"
        folder.mkdir()
        (folder / "data.csv").write_text("a\n1\n")
        opened.assets.create_or_update("data", Data(name="customers", path=DATA, type="uri_folder"))
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    """A server that queues jobs and runs none."""
    with azure_client(workspace) as found:
        yield found


def folder_input(**properties: Any) -> dict[str, Any]:
    return {"properties": {"inputData": {"UriFolder": {"jobInputType": "UriFolder", "uri": DATA}}, **properties}}


def invoked(client: httpx.Client, body: Any, **headers: str) -> str:
    answered = client.post(JOBS, json=body, headers=headers)
    assert answered.status_code == 201, answered.text
    name: str = answered.json()["name"]
    return name


def refused(client: httpx.Client, body: Any, **headers: str) -> str:
    answered = client.post(JOBS, json=body, headers=headers)
    assert 400 <= answered.status_code < 500, answered.text
    message: str = answered.json()["error"]["message"]
    return message


def job_of(workspace: Workspace, name: str) -> Job:
    job = workspace.jobs.get(name)
    assert job.deployment is not None
    return job


def test_an_invoke_is_answered_with_the_job_and_where_to_ask_for_it(client: httpx.Client) -> None:
    answered = client.post(JOBS, json=folder_input())
    assert answered.status_code == 201
    job = answered.json()
    assert job["id"] == f"{JOBS}/{job['name']}"
    assert job["type"] == "Microsoft.MachineLearningServices/workspaces/batchEndpoints/jobs"
    assert (job["properties"]["status"], job["properties"]["provisioningState"]) == ("Queued", "InProgress")
    assert job["properties"]["inputData"] == {"UriFolder": {"jobInputType": "UriFolder", "uri": DATA}}
    assert client.get(job["id"]).json() == job
    assert client.get(f"{JOBS}/{job['name']}").json() == job
    assert client.get(f"{WS}/batchEndpoints/other/jobs/{job['name']}").status_code == 404


def test_the_body_of_the_rest_documents_is_understood(client: httpx.Client, workspace: Workspace) -> None:
    body = {
        "properties": {
            "InputData": {"heart": {"JobInputType": "UriFile", "Uri": f"{DATA}data.csv"}},
            "OutputData": {
                "score": {
                    "JobOutputType": "UriFile",
                    "Uri": "azureml://datastores/workspaceblobstore/paths/out/hearts.csv",
                }
            },
            "properties": {"experimentName": "nightly"},
            "errorThreshold": "-1",
            "miniBatchSize": "20",
            "loggingLevel": "info",
            "maxConcurrencyPerInstance": "2",
            "retrySettings": {"maxRetries": "1", "timeout": "PT30S"},
            "compute": {"instanceCount": "1"},
            "name": "my-job",
            "partitionKeys": [],
            "tags": {"a": "b"},
            "description": "of hearts",
        }
    }
    job = job_of(workspace, invoked(client, body))
    assert job.name == "my-job"
    assert (job.experiment_name, job.tags, job.description) == ("nightly", {"a": "b"}, "of hearts")
    assert job.inputs["heart"].path == f"{DATA}data.csv"
    assert job.outputs["score"].path == "azureml://datastores/workspaceblobstore/paths/out/"
    assert job.deployment is not None
    settings = job.deployment.settings
    assert (settings.output_file_name, settings.mini_batch_size, settings.error_threshold) == ("hearts.csv", 20, -1)
    assert (settings.retry_settings.max_retries, settings.retry_settings.timeout) == (1, 30)
    assert settings.max_concurrency_per_instance == 2


def test_what_the_client_may_override_is_overridden(client: httpx.Client, workspace: Workspace) -> None:
    body = folder_input(
        miniBatchSize=20,
        compute={"isLocal": True, "instanceCount": 1},
        errorThreshold=0,
        retrySettings={"maxRetries": 2, "timeout": "PT1M"},
        outputFileName="x.csv",
        outputDataset={"datastoreId": f"{WS}/datastores/workspaceblobstore", "path": "/p/"},
    )
    job = job_of(workspace, invoked(client, body))
    assert job.deployment is not None
    settings = job.deployment.settings
    assert (settings.mini_batch_size, settings.error_threshold, settings.output_file_name) == (20, 0, "x.csv")
    assert (settings.retry_settings.max_retries, settings.retry_settings.timeout) == (2, 60)
    assert job.outputs["score"].path == "azureml://datastores/workspaceblobstore/paths/p/"


def test_options_of_our_own_are_given_as_properties(client: httpx.Client, workspace: Workspace) -> None:
    own = {"batchpoint.output_format": "jsonl", "batchpoint.passthrough": '["a"]', "experimentName": "e"}
    job = job_of(workspace, invoked(client, folder_input(properties=own)))
    assert job.deployment is not None
    assert (job.deployment.batchpoint.output_format, job.deployment.batchpoint.passthrough) == ("jsonl", ["a"])
    assert "batchpoint.colour" not in refused(client, folder_input(properties={"batchpoint.colour": "red"}))


@pytest.mark.parametrize(
    ("given", "type_"),
    [
        ({"jobInputType": "UriFile", "uri": f"{DATA}data.csv"}, "uri_file"),
        ({"jobInputType": "UriFolder", "uri": DATA, "mode": "ReadOnlyMount"}, "uri_folder"),
        ({"jobInputType": "CustomModel", "uri": DATA}, "custom_model"),
        ({"jobInputType": "MLFlowModel", "uri": DATA}, "mlflow_model"),
        ({"jobInputType": "TritonModel", "uri": DATA}, "triton_model"),
        ({"jobInputType": "uriFolder", "uri": f"{WS}/data/customers/versions/1"}, "uri_folder"),
        ({"jobInputType": "UriFolder", "uri": f"{WS}/data/customers/labels/latest"}, "uri_folder"),
        ({"jobInputType": "UriFolder", "uri": "azureml:customers:1"}, "uri_folder"),
        ({"jobInputType": "UriFolder", "uri": f"{WS}/datastores/workspaceblobstore/paths/in"}, "uri_folder"),
    ],
)
def test_an_input_may_be_of_each_kind(
    client: httpx.Client, workspace: Workspace, given: dict[str, Any], type_: str
) -> None:
    job = job_of(workspace, invoked(client, {"properties": {"inputData": {"it": given}}}))
    assert job.inputs["it"].type == type_
    assert job.inputs["it"].path.startswith("azureml://datastores/workspaceblobstore/paths/in")


def test_the_address_of_a_blob_of_this_server_is_its_place_in_the_datastore(
    client: httpx.Client, workspace: Workspace
) -> None:
    address = f"{str(client.base_url).rstrip('/')}/default.blob.core.windows.net/azureml-blobstore/in/data.csv"
    given = {"it": {"jobInputType": "UriFile", "uri": address}}
    job = job_of(workspace, invoked(client, {"properties": {"inputData": given}}))
    assert job.inputs["it"].path == f"{DATA}data.csv"


@pytest.mark.parametrize(
    "given",
    [
        {"dataset": {"dataInputType": "DataUrl", "Path": f"{DATA}data.csv"}},
        {"dataset": {"dataInputType": "DatasetId", "datasetId": f"{WS}/data/customers/versions/1"}},
        {"dataset": {"dataInputType": "DatasetVersion", "datasetName": "customers", "datasetVersion": "1"}},
        {"inputDatasetId": f"{WS}/data/customers/versions/1"},
    ],
)
def test_inputs_of_the_first_preview_are_understood(
    client: httpx.Client, workspace: Workspace, given: dict[str, Any]
) -> None:
    job = job_of(workspace, invoked(client, {"properties": given}))
    assert next(each.path for each in job.inputs.values()).startswith(DATA.rstrip("/"))


def test_a_model_deployment_takes_exactly_one_data_input(client: httpx.Client) -> None:
    one = {"jobInputType": "UriFolder", "uri": DATA}
    literal = {"jobInputType": "Literal", "value": "append"}
    assert "exactly one input, and 2 were given" in refused(client, {"properties": {"inputData": {"a": one, "b": one}}})
    assert "Input 'mode' is the plain value 'append'" in refused(
        client, {"properties": {"inputData": {"a": one, "mode": literal}}}
    )
    assert "none was given" in refused(client, {"properties": {}})
    assert "the body has no" in refused(client, {"input": "x"})


def test_literals_reach_a_pipeline_with_their_own_types(client: httpx.Client, workspace: Workspace) -> None:
    component = Component(
        name="pipe",
        type="pipeline",
        inputs={"mode": InputPort(type="string", default="append"), "count": InputPort(type="integer")},
        jobs={
            "say": CommandStep(
                command="echo ${{inputs.mode}} ${{inputs.count}}",
                inputs={"mode": "${{parent.inputs.mode}}", "count": "${{parent.inputs.count}}"},
            )
        },
    )
    workspace.assets.create_or_update("component", component)
    workspace.endpoints.create_or_update_deployment(
        PipelineDeployment(name="pipe", endpoint_name="churn", component="azureml:pipe:1")
    )
    inputs = {"count": {"JobInputType": "Literal", "Value": "3"}, "mode": {"jobInputType": "Literal", "value": "x"}}
    name = invoked(client, {"properties": {"inputData": inputs}}, **{"azureml-model-deployment": "pipe"})
    job = workspace.jobs.get(name)
    assert job.type == "pipeline"
    assert job.literals == {"count": 3, "mode": "x"}
    unknown = {"properties": {"inputData": {**inputs, "colour": {"jobInputType": "Literal", "value": "red"}}}}
    assert "has no input 'colour'" in refused(client, unknown, **{"azureml-model-deployment": "pipe"})


def test_the_header_names_the_deployment(client: httpx.Client, workspace: Workspace) -> None:
    declared = workspace.endpoints.get_deployment("churn", "blue")
    assert isinstance(declared, BatchDeployment)
    workspace.endpoints.create_or_update_deployment(declared.model_copy(update={"name": "green"}))
    name = invoked(client, folder_input(), **{"azureml-model-deployment": "green"})
    assert workspace.jobs.get(name).deployment_name == "green"
    assert workspace.jobs.get(invoked(client, folder_input())).deployment_name == "blue"


def test_a_name_that_the_client_kept_from_another_endpoint_means_the_default(
    client: httpx.Client, workspace: Workspace
) -> None:
    stale = {"azureml-model-deployment": "of-another-endpoint"}
    name = invoked(client, folder_input(), **stale, **{"User-Agent": "azure-ai-ml/1.35.2 azsdk-python-core/1.41.0"})
    assert workspace.jobs.get(name).deployment_name == "blue"
    for asked in ({}, {"repeatability_request-id": "r1"}):  # any other program means what it says
        assert "of-another-endpoint" in refused(client, folder_input(), **stale, **asked)


def test_an_endpoint_without_a_default_says_that_it_has_none(client: httpx.Client, workspace: Workspace) -> None:
    workspace.endpoints.create_or_update(BatchEndpoint(name="empty"))
    answered = client.post(f"{WS}/batchEndpoints/empty/jobs", json=folder_input())
    assert answered.status_code == 404
    assert "No valid deployments to route to" in answered.json()["error"]["message"]


def test_a_request_that_comes_again_is_answered_with_the_same_job(client: httpx.Client) -> None:
    again = [invoked(client, folder_input(), **{"repeatability_request-id": "once"}) for _ in range(3)]
    assert len(set(again)) == 1
    other = invoked(client, folder_input(), **{"repeatability_request-id": "another"})
    assert other not in again


def test_fifty_clients_that_all_try_again_make_fifty_jobs(client: httpx.Client, workspace: Workspace) -> None:
    """Each sends its request three times, at the same time as all the others."""
    names: dict[int, set[str]] = {number: set() for number in range(50)}
    gate = threading.Barrier(25)

    def insist(numbers: range) -> None:
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60, verify=False) as own:
            gate.wait()
            for number in numbers:
                names[number].add(invoked(own, folder_input(), **{"repeatability_request-id": f"request-{number}"}))

    lines = [range(0, 50, 8), *(range(start, 50, 8) for start in range(1, 8))]
    threads = [threading.Thread(target=insist, args=(line,)) for line in [*lines, *lines, *lines]]
    threads.append(threading.Thread(target=insist, args=(range(50),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(found) == 1 for found in names.values())
    assert len({name for found in names.values() for name in found}) == 50
    assert len(workspace.jobs.list(endpoint="churn", limit=1000)) == 50


def test_the_jobs_of_an_endpoint_and_of_a_deployment_are_listed_page_by_page(client: httpx.Client) -> None:
    names = [invoked(client, folder_input()) for _ in range(101)]
    for address in (JOBS, f"/mferp/managementfrontend{JOBS}", f"{WS}/batchEndpoints/churn/deployments/blue/jobs"):
        first = client.get(address, params={"api-version": "2020-09-01-dataplanepreview"}).json()
        second = client.get(first["nextLink"]).json()
        assert "nextLink" not in second
        assert [job["name"] for job in [*first["value"], *second["value"]]] == names[::-1]


def test_who_has_no_token_or_only_reads_may_not_invoke(client: httpx.Client, workspace: Workspace) -> None:
    stranger = httpx.post(f"{client.base_url}{JOBS}".replace("//subs", "/subs"), json=folder_input())
    assert stranger.status_code == 401
    secret, _ = workspace.tokens.create("reader", "reader")
    reader = client.post(JOBS, json=folder_input(), headers={"Authorization": f"Bearer {secret}"})
    assert reader.status_code == 403
    assert reader.json()["error"]["code"] == "PermissionDenied"
