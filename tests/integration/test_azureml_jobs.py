"""Jobs, run history, logs and outputs as the official client reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.background.service import Background
from batchpoint.entities.jobs import Input, InvokeRequest, Job, Output
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.entities.pipelines import CommandStep, Component, OutputBinding, OutputPort, Pipeline
from batchpoint.server.context import Context
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, eventually, make_input, served

WS = "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/default"
HISTORY = f"/history/v1.0{WS}"
RESOLVED = f"/data/v1.0{WS}/dataversion/batchGetResolvedUris"


pytestmark = pytest.mark.usefixtures("churn")


@pytest.fixture
def background(workspace: Workspace) -> Background:
    """Loops that stand still unless a test starts them: jobs stay in the queue."""
    return Background(workspace, runner_parent=FAKE_RUNNER)


@pytest.fixture
def client(workspace: Workspace, background: Background) -> Iterator[httpx.Client]:
    context = Context(workspace, background, server_id="s1", shares_files=True)
    secret, _ = workspace.tokens.create("admin-token", "admin")
    with served(context, secret) as found:
        yield found


@pytest.fixture
def running(background: Background) -> Iterator[None]:
    """The loops run, with runners that score nothing."""
    background.start()
    yield
    background.stop()


def invoke(workspace: Workspace, folder: Path, behaviour: str = "complete", **request: Any) -> Job:
    inputs = {"data": Input(path=str(make_input(folder, behaviour)))}
    return workspace.endpoints.invoke("churn", InvokeRequest(inputs=inputs, **request))


def finished(workspace: Workspace, job: Job) -> Job:
    eventually(lambda: workspace.jobs.get(job.name).status.is_finished)
    return workspace.jobs.get(job.name)


def got(client: httpx.Client, path: str, **params: str) -> Any:
    answered = client.get(path, params=params or None)
    assert answered.status_code == 200, answered.text
    return answered.json()


def test_the_job_of_a_model_deployment_is_a_pipeline_job_with_one_child(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, tmp_path / "in", experiment_name="nightly", tags={"a": "b"})
    shown = got(client, f"{WS}/jobs/{job.name}")
    assert (shown["id"], shown["name"]) == (f"{WS}/jobs/{job.name}", job.name)
    assert shown["type"] == "Microsoft.MachineLearningServices/workspaces/jobs"
    properties = shown["properties"]
    assert (properties["jobType"], properties["status"]) == ("Pipeline", "Queued")
    assert (properties["displayName"], properties["experimentName"]) == (job.name, "nightly")
    assert properties["tags"] == {"a": "b", "azureml.batchrun": "true"}
    assert f"/studio/jobs/{job.name}?workspace=" in properties["services"]["Studio"]["endpoint"]
    assert (properties["jobs"], properties["outputs"], properties["isArchived"]) == ({}, {}, False)
    assert properties["inputs"]["data"]["jobInputType"] == "uri_file"
    child = f"{job.name}-score"
    assert got(client, f"{WS}/jobs/{child}") == {"id": f"{WS}/jobs/{child}", "name": child}
    (run,) = got(client, f"{HISTORY}/runs/{job.name}/children")["value"]
    assert (run["runId"], run["parentRunId"], run["displayName"]) == (child, job.name, "batchscoring")
    assert run["properties"]["azureml.moduleName"] == "batchscoring"
    assert run == got(client, f"{HISTORY}/runs/{child}")
    assert client.get(f"{WS}/jobs/nobody-score").status_code == 404
    assert client.get(f"{WS}/jobs/{child}-score").status_code == 404


@pytest.mark.usefixtures("running")
def test_a_finished_job_tells_its_times_and_where_its_predictions_lie(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = finished(workspace, invoke(workspace, tmp_path / "in"))
    run = got(client, f"{HISTORY}/runs/{job.name}-score")
    assert run["status"] == "Completed"
    assert run["createdUtc"] <= run["startTimeUtc"] <= run["endTimeUtc"] == run["lastModifiedUtc"]
    assert run["lastModifiedUtc"].endswith("Z")
    data = client.post(f"{HISTORY}/rundata", json={"runId": run["runId"], "selectRunMetadata": True}).json()
    assert data == {"runMetadata": run}
    asset = run["outputs"]["score"]
    assert asset["type"] == "uri_folder"
    values = client.post(RESOLVED, json={"values": [asset["assetId"], "azureml://elsewhere"]}).json()["values"]
    long = "azureml://subscriptions/s1/resourcegroups/rg/workspaces/default/datastores/workspaceblobstore"
    assert values == {asset["assetId"]: {"uri": f"{long}/paths/azureml/{job.name}/score"}}
    shown = got(client, f"{WS}/jobs/{job.name}")["properties"]
    place = f"azureml://datastores/workspaceblobstore/paths/azureml/{job.name}/score"
    assert shown["outputs"] == {"score": {"jobOutputType": "uri_folder", "uri": place, "mode": "ReadWriteMount"}}


@pytest.mark.usefixtures("running")
def test_a_file_at_a_place_of_the_callers_own_is_downloaded_alone(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    """Beside it lie files that are none of the job's."""
    place = "azureml://datastores/workspaceblobstore/paths/shared/predictions.csv"
    job = finished(workspace, invoke(workspace, tmp_path / "in", outputs={"score": Output(path=place)}))
    asset = got(client, f"{HISTORY}/runs/{job.name}-score")["outputs"]["score"]
    assert asset["type"] == "uri_file"


@pytest.mark.usefixtures("running")
def test_the_log_that_is_streamed_only_grows_and_ends_with_the_receipt(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, tmp_path / "in", "wait")
    eventually(lambda: workspace.jobs.get(job.name).progress)
    details = got(client, f"{HISTORY}/runs/{job.name}/details")
    assert details["status"] == "Running"
    address = details["logFiles"]["logs/azureml/executionlogs.txt"]
    early = httpx.get(address).text  # without a token
    assert httpx.get(address.partition("?")[0]).status_code == 401
    assert early.startswith(f"Job {job.name}: churn/blue scores ")
    (Path(workspace.jobs.get(job.name).folder or "") / "go").touch()
    finished(workspace, job)
    details = got(client, f"{HISTORY}/runs/{job.name}/details")
    assert (details["status"], "error" in details) == ("Completed", False)
    assert details["warnings"] == [{"message": "from the runner"}]
    late = client.get(details["logFiles"]["logs/azureml/executionlogs.txt"]).text
    assert late.startswith(early)
    assert "Receipt: 1 files = 1 ok + 0 failed + 0 skipped; 1 rows written." in late.splitlines()
    assert late.splitlines()[-1].startswith("Output score: azureml://datastores/workspaceblobstore/paths/azureml/")


def test_the_address_of_a_log_ends_with_the_token_that_asked_for_it(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, tmp_path / "in")
    address = got(client, f"{HISTORY}/runs/{job.name}/details")["logFiles"]["logs/azureml/executionlogs.txt"]
    assert httpx.get(address).text.startswith(f"Job {job.name}: ")
    workspace.tokens.revoke("admin-token")
    refused = httpx.get(address)
    assert refused.status_code == 401
    assert "admin-token was revoked" in refused.json()["error"]["message"]


@pytest.mark.usefixtures("running")
def test_the_logs_of_a_job_are_blobs_that_are_only_read(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = finished(workspace, invoke(workspace, tmp_path / "in"))
    container = "/default.blob.core.windows.net/azureml"
    for run in (job.name, f"{job.name}-score"):
        prefix = f"ExperimentRun/dcid.{run}/"
        listed = client.get(container, params={"restype": "container", "comp": "list", "prefix": prefix}).text
        name = f"{prefix}logs/user/job_progress_overview.1.txt"
        assert f"<Name>{name}</Name>" in listed
        assert "spec.json" not in listed
        assert client.get(f"{container}/{name}").text == "half of it\n"
        assert client.get(f"{container}/{prefix}spec.json").status_code == 404
        assert client.get(f"{container}/{prefix}logs/../spec.json").status_code == 404
        assert client.put(f"{container}/{name}", content=b"x").status_code == 403
        assert client.put(f"{container}/{prefix}logs/new", content=b"x").status_code == 404


@pytest.mark.usefixtures("running")
def test_older_clients_find_outputs_where_they_look_for_them(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    """They do not know the types of outputs that newer ones know, and look below the name of the child."""
    place = "azureml://datastores/workspaceblobstore/paths/shared/predictions.csv"
    for outputs in ({}, {"score": Output(path=place)}):
        job = finished(workspace, invoke(workspace, tmp_path / "in", outputs=outputs))
        container = "/default.blob.core.windows.net/azureml-blobstore"
        prefix = f"azureml/{job.name}-score/score/"
        listed = client.get(container, params={"restype": "container", "comp": "list", "prefix": prefix}).text
        assert listed.count("<Name>") == 1
        assert f"<Name>{prefix}predictions.csv</Name>" in listed
        assert client.get(f"{container}/{prefix}predictions.csv").text == "prediction\n1\n"
        assert client.put(f"{container}/{prefix}predictions.csv", content=b"x").status_code == 403
        assert client.get(f"{container}/{prefix}../x").status_code == 404


@pytest.mark.usefixtures("running")
def test_a_failed_job_says_why_in_our_words(client: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    job = finished(workspace, invoke(workspace, tmp_path / "in", "die"))
    details = got(client, f"{HISTORY}/runs/{job.name}/details")
    assert job.error is not None
    assert details["status"] == "Failed"
    assert details["error"]["error"]["message"].startswith(job.error.message)
    assert details["error"]["error"]["code"].isalpha()
    text = client.get(details["logFiles"]["logs/azureml/executionlogs.txt"]).text
    assert f"Error: {job.error.message}" in text


@pytest.mark.usefixtures("running")
def test_where_the_predictions_of_a_failed_job_would_be_lie_its_logs(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    """The client looks there, and would end with nothing, and without a word."""
    job = finished(workspace, invoke(workspace, tmp_path / "in", "die"))
    log = Path(job.folder or "") / "logs" / "user" / "error.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("the traceback")
    container = "/default.blob.core.windows.net/azureml-blobstore"
    prefix = f"azureml/{job.name}-score/score/"
    listed = client.get(container, params={"restype": "container", "comp": "list", "prefix": prefix}).text
    assert f"<Name>{prefix}logs/user/error.txt</Name>" in listed
    assert client.get(f"{container}/{prefix}logs/user/error.txt").text == "the traceback"
    assert client.head(f"{container}/{prefix}").status_code == 404
    assert client.get(f"{container}/{prefix}spec.json").status_code == 404
    assert client.put(f"{container}/{prefix}logs/user/error.txt", content=b"x").status_code == 403
    assert got(client, f"{HISTORY}/runs/{job.name}-score").get("outputs", {}) == {}
    waiting = invoke(workspace, tmp_path / "in", "wait")
    assert client.put(f"{container}/azureml/{waiting.name}-score/score/x", content=b"x").status_code == 201
    workspace.jobs.cancel(waiting.name)


def test_jobs_are_listed_by_view_and_page_by_page(client: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    names = [invoke(workspace, tmp_path / "in").name for _ in range(102)]
    archived = client.patch(f"{HISTORY}/experiments/churn/runs/{names[0]}", json={"hidden": True})
    assert archived.json()["hidden"] is True
    first = got(client, f"{WS}/jobs", listViewType="ActiveOnly")
    second = got(client, first["nextLink"])
    assert [job["name"] for job in [*first["value"], *second["value"]]] == names[:0:-1]
    assert "nextLink" not in second
    assert [job["name"] for job in got(client, f"{WS}/jobs", listViewType="ArchivedOnly")["value"]] == names[:1]
    assert len(got(client, f"{WS}/jobs", listViewType="All")["value"]) == 100
    client.patch(f"{HISTORY}/experiments/churn/runs/{names[0]}", json={"hidden": False})
    assert got(client, f"{WS}/jobs", listViewType="ArchivedOnly")["value"] == []


def test_what_is_said_of_a_job_may_change(client: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    job = invoke(workspace, tmp_path / "in", tags={"a": "b"})
    change = {
        "tags": {"c": "d", "azureml.batchrun": "true"},
        "displayName": "Hearts",
        "description": "of today",
        "properties": {"p": "q"},
    }
    changed = client.patch(f"{HISTORY}/experiments/churn/runs/{job.name}", json=change).json()
    assert changed["tags"] == {"a": "b", "c": "d", "azureml.batchrun": "true"}
    kept = workspace.jobs.get(job.name)
    assert (kept.tags, kept.display_name, kept.description) == ({"a": "b", "c": "d"}, "Hearts", "of today")
    assert kept.properties["p"] == "q"


@pytest.mark.parametrize("change", [{"displayName": {"": ""}}, {"description": 5}, {"hidden": "yes"}])
def test_what_is_said_of_a_job_has_to_be_a_text_and_whether_it_is_hidden_a_yes_or_no(
    client: httpx.Client, workspace: Workspace, tmp_path: Path, change: dict[str, Any]
) -> None:
    job = invoke(workspace, tmp_path / "in")
    refused = client.patch(f"{HISTORY}/experiments/churn/runs/{job.name}", json=change)
    assert refused.status_code == 422, refused.text
    assert f"{next(iter(change))} is " in refused.json()["error"]["message"]
    assert workspace.jobs.get(job.name) == job


@pytest.mark.usefixtures("running")
def test_a_job_is_canceled_and_waited_for(client: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    job = invoke(workspace, tmp_path / "in", "wait")
    eventually(lambda: workspace.jobs.get(job.name).progress)
    asked = client.post(f"{WS}/jobs/{job.name}/cancel")
    assert asked.status_code in (200, 202)
    if asked.status_code == 202:
        assert asked.headers["Retry-After"] == "1"
        eventually(lambda: client.get(asked.headers["Location"]).status_code == 200)
    assert got(client, f"{WS}/jobs/{job.name}")["properties"]["status"] == "Canceled"
    assert client.post(f"{WS}/jobs/{job.name}/cancel").status_code == 200
    assert client.post(f"{WS}/jobs/nobody/cancel").status_code == 404


def test_a_job_that_is_to_be_canceled_says_so_but_goes_on_being_streamed(
    client: httpx.Client, workspace: Workspace, background: Background, tmp_path: Path
) -> None:
    background.start()
    job = invoke(workspace, tmp_path / "in", "wait")
    eventually(lambda: workspace.jobs.get(job.name).progress)
    background.stop()  # nobody is left to carry the wish out
    assert client.post(f"{WS}/jobs/{job.name}/cancel").status_code == 202
    assert got(client, f"{WS}/jobs/{job.name}")["properties"]["status"] == "CancelRequested"
    assert got(client, f"{HISTORY}/runs/{job.name}/details")["status"] == "Running"
    (Path(workspace.jobs.get(job.name).folder or "") / "go").touch()


def test_a_pipeline_behind_an_endpoint_has_its_steps_as_children(
    client: httpx.Client, workspace: Workspace, background: Background
) -> None:
    prepare = Component(
        name="prepare", type="command", command="echo 1 > ${{outputs.out}}/a", outputs={"out": OutputPort()}
    )
    workspace.assets.create_or_update("component", prepare)
    steps = {"first": CommandStep(component="azureml:prepare:1", outputs={"out": OutputBinding()})}
    whole = Component(name="whole", type="pipeline", jobs=steps)
    workspace.assets.create_or_update("component", whole)
    workspace.endpoints.create_or_update_deployment(
        PipelineDeployment(name="pipe", endpoint_name="churn", component="azureml:whole:1")
    )
    job = workspace.endpoints.invoke("churn", InvokeRequest(deployment_name="pipe"))
    tags = got(client, f"{WS}/jobs/{job.name}")["properties"]["tags"]
    assert tags == {"azureml.batchrun": "true", "azureml.jobtype": "azureml.pipelinejob"}
    assert got(client, f"{HISTORY}/runs/{job.name}/children")["value"] == []
    background.pipeline_driver.drive()
    (run,) = got(client, f"{HISTORY}/runs/{job.name}/children")["value"]
    assert (run["parentRunId"], run["displayName"]) == (job.name, "first")
    assert run["properties"]["azureml.moduleName"] == "prepare"
    assert got(client, f"{WS}/jobs/{run['runId']}") == {"id": f"{WS}/jobs/{run['runId']}", "name": run["runId"]}


def test_a_pipeline_by_itself_is_no_job_of_an_endpoint(client: httpx.Client, workspace: Workspace) -> None:
    job = workspace.pipelines.submit(Pipeline(jobs={"say": CommandStep(command="echo hello")}))
    shown = got(client, f"{WS}/jobs/{job.name}")["properties"]
    assert (shown["tags"], shown["experimentName"], shown["jobType"]) == ({}, "Default", "Pipeline")
    assert client.get(f"{WS}/jobs/{job.name}-score").status_code == 404
