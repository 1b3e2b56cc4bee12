"""Components, pipeline jobs, pipelines behind endpoints and published ones, over HTTP; nothing is run here."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from batchpoint import Client
from batchpoint.background.service import Background
from batchpoint.entities.assets import Environment
from batchpoint.entities.jobs import Command, Job
from batchpoint.entities.pipelines import CommandStep, Pipeline
from batchpoint.errors import ConflictError, InvalidEntityError, NotFoundError
from batchpoint.server.context import Context
from batchpoint.workspace import Workspace
from integration.served import open_workspace, served

STEPS = {
    "count": {
        "command": "wc ${{inputs.data}} | head -${{inputs.n}} > ${{outputs.counts}}/out",
        "inputs": {"data": "${{parent.inputs.data}}", "n": "${{parent.inputs.n}}"},
        "outputs": {"counts": "${{parent.outputs.counts}}"},
    }
}
COMPONENT: dict[str, Any] = {
    "name": "counting",
    "type": "pipeline",
    "inputs": {"data": {"type": "uri_file"}, "n": {"type": "integer", "default": 1}},
    "outputs": {"counts": {"type": "uri_folder"}},
    "jobs": STEPS,
}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "in.csv").write_text("a\n1\n")
    with open_workspace(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def http(workspace: Workspace) -> Iterator[httpx.Client]:
    secret, _ = workspace.tokens.create("t", "operator")
    background = Background(workspace)  # never started: jobs stay queued
    with served(Context(workspace, background, server_id="s", shares_files=True), secret) as client:
        yield client
    background.dispatcher.stop()


@pytest.fixture
def client(http: httpx.Client) -> Iterator[Client]:
    token = http.headers["Authorization"].removeprefix("Bearer ")
    with Client(str(http.base_url), token) as made:
        yield made


@pytest.fixture
def deployed(http: httpx.Client) -> httpx.Client:
    """``counting`` behind the endpoint ``churn``, beside its model deployment ``blue``."""
    assert http.post("/api/v1/components", json=COMPONENT).status_code == 201
    body = {"type": "pipeline", "component": "azureml:counting@default", "settings": {"force_rerun": True}}
    answered = http.put("/api/v1/endpoints/churn/deployments/counts", json=body)
    assert answered.status_code == 200, answered.text
    return http


def pipeline_body(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    inputs = {"data": {"type": "uri_file", "path": str(tmp_path / "in.csv")}, "n": 1}
    return {"inputs": inputs, "outputs": {"counts": {"type": "uri_folder"}}, "jobs": STEPS, **changes}


def test_components_are_registered_found_by_label_and_archived(http: httpx.Client) -> None:
    first = http.post("/api/v1/components", json=COMPONENT).json()
    changed = {**COMPONENT, "description": "counts", "inputs": {**COMPONENT["inputs"], "m": {"type": "string"}}}
    second = http.post("/api/v1/components", json=changed).json()
    assert (first["version"], second["version"]) == ("1", "2")
    assert http.get("/api/v1/components/counting?label=default").json()["version"] == "2"
    assert http.get("/api/v1/components/counting/files").json()["value"] == []
    assert http.post("/api/v1/components/counting/archive?version=2").status_code == 200
    assert [each["version"] for each in http.get("/api/v1/components").json()["value"]] == ["1"]
    assert http.get("/api/v1/components/counting").json()["version"] == "1"


def test_steps_say_as_little_as_in_azures_examples(http: httpx.Client, tmp_path: Path) -> None:
    folder = tmp_path / "greeting"
    folder.mkdir()
    (folder / "hello.py").write_text("print('hello')")
    curated = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"
    greeting = {"code": str(folder), "environment": curated, "command": "python hello.py"}
    counting = {"command": "wc > ${{outputs.counts}}/out", "outputs": {"counts": {"type": "uri_folder"}}}
    body = {
        "name": "hello_batch",
        "type": "pipeline",
        "jobs": {
            "greet": {"type": "command", "component": greeting},
            "count": {"type": "command", "component": counting, "outputs": {"counts": None}},
        },
    }
    checked = http.post("/api/v1/jobs/validate", json={"jobs": body["jobs"]})
    assert checked.json()["valid"], checked.text
    assert http.get("/api/v1/environments").json()["value"] == []

    answered = http.post("/api/v1/components", json=body)

    assert answered.status_code == 201, answered.text
    greet, count = (answered.json()["jobs"][name] for name in ("greet", "count"))
    assert greet["component"]["type"] == "command"
    assert greet["component"]["environment"] == "azureml:sklearn-1.5:1"
    assert count["outputs"] == {"counts": {}}
    assert http.get("/api/v1/environments/sklearn-1.5").json()["image"] == curated


def test_an_environment_of_ones_own_stands_for_azures_of_that_name(workspace: Workspace) -> None:
    own = workspace.assets.create_or_update("environment", Environment(name="sklearn-1.5", pip_requirements=["pandas"]))
    curated = "azureml://registries/azureml/environments/sklearn-1.5/versions/7"

    assert workspace.assets.declared_environment(curated).reference == own.reference


def test_an_unsound_component_is_refused_with_every_fault(http: httpx.Client) -> None:
    step = {**STEPS["count"], "inputs": {"data": "${{parent.inputs.dta}}"}, "environment": "azureml:none:1"}
    answered = http.post("/api/v1/components", json={**COMPONENT, "jobs": {"count": step}})
    assert answered.status_code == 422
    keys = {problem["key"] for problem in answered.json()["error"]["details"]["problems"]}
    assert {"jobs.count.inputs.data", "jobs.count.environment"} <= keys


def test_the_server_reads_no_component_files(http: httpx.Client, tmp_path: Path) -> None:
    body = pipeline_body(tmp_path, jobs={"count": {"component": "./count.yml"}})
    answered = http.post("/api/v1/jobs", json=body)
    assert answered.status_code == 422
    assert "the path of a component file" in answered.json()["error"]["message"]


def test_validating_tells_every_fault_and_stores_nothing(http: httpx.Client, tmp_path: Path) -> None:
    step = {**STEPS["count"], "compute": "azureml:nowhere", "code": str(tmp_path / "none")}
    answered = http.post("/api/v1/jobs/validate", json=pipeline_body(tmp_path, jobs={"count": step})).json()
    assert answered["valid"] is False
    assert {problem["key"] for problem in answered["problems"]} == {"jobs.count.compute", "jobs.count.code"}
    slip = http.post("/api/v1/jobs/validate", json={"job": {}}).json()
    assert "Did you mean 'jobs'?" in slip["message"]
    assert http.post("/api/v1/jobs/validate", json=pipeline_body(tmp_path)).json()["valid"] is True
    assert http.get("/api/v1/jobs").json()["value"] == []


def test_the_same_idempotency_key_starts_one_pipeline(http: httpx.Client, tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "once"}
    made = [http.post("/api/v1/jobs", json=pipeline_body(tmp_path), headers=headers) for _ in range(2)]
    assert [each.status_code for each in made] == [202, 202]
    assert made[0].json()["name"] == made[1].json()["name"]
    assert made[0].headers["Location"] == f"/api/v1/jobs/{made[0].json()['name']}"


def test_a_command_by_itself_is_a_job(http: httpx.Client) -> None:
    job = http.post("/api/v1/jobs", json={"type": "command", "command": "true", "name": "one"}).json()
    assert (job["name"], job["type"], list(job["pipeline"]["jobs"])) == ("one", "pipeline", ["command"])


def test_a_pipeline_deployment_stands_beside_a_model_deployment(deployed: httpx.Client) -> None:
    both = deployed.get("/api/v1/endpoints/churn/deployments").json()["value"]
    assert [(each["name"], each["type"]) for each in both] == [("blue", "model"), ("counts", "pipeline")]
    address = "/api/v1/endpoints/churn/deployments/counts"
    changed = deployed.patch(address, json={"settings": {"force_rerun": False}}).json()
    assert changed["component"] == "azureml:counting:1"
    assert changed["settings"]["force_rerun"] is False
    assert (
        deployed.patch("/api/v1/endpoints/churn", json={"defaults": {"deployment_name": "counts"}}).status_code == 200
    )
    assert deployed.delete(address).status_code == 409
    assert deployed.delete("/api/v1/endpoints/churn/deployments/blue").status_code == 204


def test_a_pipeline_deployment_is_invoked_by_the_names_of_its_component(deployed: httpx.Client, tmp_path: Path) -> None:
    data = {"path": str(tmp_path / "in.csv")}

    def invoke(inputs: dict[str, Any], **more: Any) -> httpx.Response:
        body = {"deployment_name": "counts", "inputs": inputs, **more}
        return deployed.post("/api/v1/endpoints/churn/invoke", json=body)

    job = invoke({"data": data, "n": {"type": "integer", "default": "5"}}).json()
    assert (job["endpoint_name"], job["deployment_name"], job["literals"]) == ("churn", "counts", {"n": 5})
    assert invoke({"data": data}).json()["literals"] == {"n": 1}
    for inputs, said in (
        ({"dta": data}, "Did you mean 'data'?"),
        ({"data": "text"}, "the input takes data of type uri_file"),
        ({"data": data, "n": "many"}, "which 'many' is not"),
        ({"data": data, "n": data}, "the input takes a value of type integer, and data was given"),
        ({"n": 2}, "the input is required"),
    ):
        refused = invoke(inputs)
        assert refused.status_code == 422, said
        assert said in refused.json()["error"]["message"]
    overridden = invoke({"data": data}, overrides={"mini_batch_size": 3})
    assert "no setting 'mini_batch_size' to change" in overridden.json()["error"]["message"]


def test_the_same_key_invokes_a_pipeline_deployment_once(deployed: httpx.Client, tmp_path: Path) -> None:
    body = {"deployment_name": "counts", "inputs": {"data": {"path": str(tmp_path / "in.csv")}}}
    headers = {"Idempotency-Key": "once"}
    made = [deployed.post("/api/v1/endpoints/churn/invoke", json=body, headers=headers).json() for _ in range(2)]
    assert made[0]["name"] == made[1]["name"]


def test_a_model_deployment_takes_no_plain_value(http: httpx.Client, tmp_path: Path) -> None:
    inputs = {"data": {"path": str(tmp_path / "in.csv")}, "n": 3}
    answered = http.post("/api/v1/endpoints/churn/invoke", json={"inputs": inputs})
    assert answered.status_code == 422
    assert "Input 'n' is the plain value 3" in answered.json()["error"]["message"]


def test_what_a_job_ran_is_deployed_with_its_inputs_as_defaults(http: httpx.Client, tmp_path: Path) -> None:
    settings = {"continue_on_step_failure": False}
    job = http.post("/api/v1/jobs", json=pipeline_body(tmp_path, name="first", settings=settings)).json()
    body = {"type": "pipeline", "job_definition": f"azureml:{job['name']}"}
    deployment = http.put("/api/v1/endpoints/churn/deployments/again", json=body).json()
    assert deployment["component"] == "azureml:churn-again:1"
    assert deployment["settings"]["continue_on_step_failure"] is False
    again = http.post("/api/v1/endpoints/churn/invoke", json={"deployment_name": "again"}).json()
    assert again["literals"] == {"n": 1}
    both = {"type": "pipeline", "component": "azureml:churn-again:1", "job_definition": "azureml:first"}
    assert "give either" in http.put("/api/v1/endpoints/churn/deployments/again", json=both).text
    step = {"type": "command", "name": "step", "command": "true"}
    http.post("/api/v1/components", json=step)
    refused = http.put(
        "/api/v1/endpoints/churn/deployments/step", json={"type": "pipeline", "component": "azureml:step:1"}
    )
    assert "a pipeline is wanted" in refused.text


@pytest.mark.usefixtures("deployed")
def test_the_client_tells_data_from_plain_values_by_the_component(client: Client, tmp_path: Path) -> None:
    data = str(tmp_path / "in.csv")
    job = client.endpoints.invoke("churn", deployment_name="counts", inputs={"data": data, "n": "20"})
    assert job.entity.literals == {"n": 20}
    assert job.entity.inputs["data"].path == data
    with pytest.raises(InvalidEntityError, match="Did you mean 'data'"):
        client.endpoints.invoke("churn", deployment_name="counts", inputs={"dta": data})


def test_a_pipeline_is_published_run_disabled_and_replaced(client: Client, http: httpx.Client, tmp_path: Path) -> None:
    steps = {"count": CommandStep.model_validate(STEPS["count"])}
    pipeline = Pipeline.model_validate(pipeline_body(tmp_path)).model_copy(update={"jobs": steps})
    published = client.pipelines.publish("counting", pipeline, version="1.0", experiment_name="nightly")
    assert published.endpoint == f"{str(http.base_url).rstrip('/')}/api/v1/pipelines/counting"
    job = client.pipelines.run("counting", {"n": 7}, data={"data": tmp_path / "in.csv"}, tags={"by": "test"})
    assert (job.entity.literals, job.entity.experiment_name) == ({"n": 7}, "nightly")
    (run,) = client.pipelines.runs("counting")
    assert (run["Id"], run["Status"]["StatusCode"], run["TotalRunSteps"]) == (job.name, "NotStarted", 1)
    assert client.pipelines.get_run("counting", job.name) == run
    assert "is no run of" in http.get("/api/v1/pipelines/other/runs/" + job.name).text
    slip = http.post("/api/v1/pipelines/counting", json={"ParameterAssignment": {}})
    assert "Did you mean 'ParameterAssignments'?" in slip.text
    place = {"DataStoreName": "workspaceblobstore", "RelativePath": "none.csv"}
    missing = http.post("/api/v1/pipelines/counting", json={"DataPathAssignments": {"data": place}})
    assert missing.status_code == 422
    client.pipelines.publish("counting", job, version="1.1")
    assert [each.version for each in client.pipelines.list()] == ["1.1"]
    assert client.pipelines.disable("counting").status == "Disabled"
    with pytest.raises(ConflictError, match="is disabled"):
        client.pipelines.run("counting")
    assert client.pipelines.enable("counting").status == "Active"
    client.pipelines.delete("counting")
    assert [*client.pipelines.list()] == []
    assert client.jobs.get(job.name).name == job.name, "its jobs stay"
    with pytest.raises(NotFoundError, match="There is no published_pipeline named counting"):
        client.pipelines.delete("counting")


def test_a_number_that_json_does_not_know_is_refused_and_the_lists_can_still_be_shown(
    client: Client, http: httpx.Client
) -> None:
    inputs = {"x": {"type": "number", "default": 1}}
    step = {"command": "echo ${{inputs.x}}", "inputs": {"x": "${{parent.inputs.x}}"}}
    client.pipelines.publish("numbers", Pipeline.model_validate({"inputs": inputs, "jobs": {"a": step}}))
    for given in ('"nan"', '"inf"', "1e400", "-1e400", "NaN"):
        body = f'{{"ParameterAssignments": {{"x": {given}}}}}'
        answered = http.post("/api/v1/pipelines/numbers", content=body, headers={"Content-Type": "application/json"})
        assert answered.status_code == 422, given
    assert http.get("/api/v1/jobs").json()["value"] == []
    with pytest.raises(ValidationError, match=r"finite number"):
        Pipeline.model_validate({"inputs": {"x": float("nan")}, "jobs": {"a": step}})


def test_the_command_of_a_step_is_not_retried_by_itself(workspace: Workspace, http: httpx.Client) -> None:
    step = Job(name="p-a", type="command", parent_job_name="p", step_name="a", command=Command(command="false"))
    workspace.registry.jobs.enqueue(step)
    workspace.jobs.cancel("p-a")
    refused = http.post("/api/v1/jobs/p-a/retry-failed")
    assert refused.status_code == 409
    assert "Resume its pipeline instead: retry job p." in refused.json()["error"]["message"]
    assert refused.json()["error"]["details"] == {"on_command_line": "batchpoint job retry -n p"}


def test_what_two_change_at_once_is_all_there(http: httpx.Client) -> None:
    http.put("/api/v1/endpoints/churn", json={})
    with ThreadPoolExecutor(8) as pool:
        changes = [{"tags": {f"t{number}": "x"}} for number in range(16)]
        answers = list(pool.map(lambda change: http.patch("/api/v1/endpoints/churn", json=change), changes))
    assert {answered.status_code for answered in answers} == {200}
    assert len(http.get("/api/v1/endpoints/churn").json()["tags"]) == 16


def test_a_server_that_listens_to_others_takes_no_paths_of_its_machine(workspace: Workspace, tmp_path: Path) -> None:
    secret, _ = workspace.tokens.create("t", "operator")
    background = Background(workspace)
    with served(Context(workspace, background, server_id="s", shares_files=False), secret) as http:
        http.post("/api/v1/pipelines", json={"name": "p", "component": COMPONENT})
        paths = {"data": str(tmp_path / "in.csv")}
        for answered in (
            http.post("/api/v1/jobs", json=pipeline_body(tmp_path)),
            http.post("/api/v1/pipelines/p", json={"DataPathAssignments": paths}),
            http.post("/api/v1/components", json={"name": "c", "type": "command", "command": "ls", "code": "/etc"}),
        ):
            assert "is a path of some machine" in answered.json()["error"]["message"]
    background.dispatcher.stop()


def test_what_lies_on_the_machine_of_the_client_is_uploaded(workspace: Workspace, tmp_path: Path) -> None:
    secret, _ = workspace.tokens.create("t", "operator")
    background = Background(workspace)
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "count.py").write_text("print(1)\n")
    (tmp_path / "count.yml").write_text("command: python count.py\ncode: code\ninputs: {a: {path: in.csv}}\n")
    context = Context(workspace, background, server_id="s", shares_files=False)
    with served(context, secret) as http, Client(str(http.base_url), secret) as client:
        client.jobs.validate(tmp_path / "count.yml")
        job = client.jobs.create_or_update(tmp_path / "count.yml").entity
    background.dispatcher.stop()
    assert job.inputs["a"].path.startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")
    assert job.pipeline is not None
    assert job.pipeline["jobs"]["command"]["code"].startswith("azureml:")


def test_a_step_whose_job_was_archived_is_still_a_step_of_its_pipeline(client: Client, workspace: Workspace) -> None:
    workspace.registry.jobs.enqueue(Job(name="p", type="pipeline"))
    workspace.registry.jobs.enqueue(Job(name="p-a", type="command", parent_job_name="p", step_name="a"))
    workspace.jobs.archive("p-a")
    assert [job.name for job in client.jobs.get("p").steps().values()] == ["p-a"]
