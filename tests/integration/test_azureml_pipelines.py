"""Pipeline and command jobs in the Azure ML dialect, with bodies as its client sends them; nothing is run here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.entities.assets import Data, Environment
from batchpoint.entities.components import declared_name
from batchpoint.entities.jobs import Job
from batchpoint.entities.pipelines import CommandStep, Component, DataBinding, ParallelStep, Pipeline
from batchpoint.entities.resources import Compute
from batchpoint.workspace import Workspace
from integration.azure_wire import SHORT, WS, azure_client, register_scripts, upload
from integration.served import open_workspace

GUID = "429b856c-1dcf-e1c9-3a49-d3cfce6f6e19"
ENVIRONMENT = f"{WS}/environments/env/versions/1"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        opened.assets.create_or_update("environment", Environment(name="env", pip_requirements=["pandas"]))
        opened.resources.create_or_update("compute", Compute(name="cpu", max_instances=2))
        upload(opened, "in.csv")
        upload(opened, "more/in.csv")
        opened.assets.create_or_update("data", Data(name="more", type="uri_folder", path=f"{SHORT}/more"))
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with azure_client(workspace) as made:
        yield made


@pytest.fixture
def code(workspace: Workspace, tmp_path: Path) -> str:
    """The id of code with ``prep.py`` and ``score.py``."""
    return register_scripts(workspace, tmp_path)


@pytest.fixture
def components(client: httpx.Client, code: str) -> dict[str, str]:
    """Ids of a command and of a parallel component, as the client registers steps that are declared in place."""
    prep = {
        "name": "prep", "type": "command", "is_deterministic": True,
        "command": "python prep.py ${{inputs.raw}} ${{inputs.n}} ${{inputs.word}} > ${{outputs.out}}/x",
        "code": f"azureml:{code}", "environment": f"azureml:{ENVIRONMENT}",
        "inputs": {
            "raw": {"type": "uri_file"}, "more": {"type": "uri_folder", "optional": True},
            "n": {"type": "integer", "default": "2"}, "word": {"type": "string"},
        },
        "outputs": {"out": {"type": "uri_folder"}},
    }  # fmt: skip
    score = {
        "name": "azureml_anonymous", "type": "parallel", "inputs": {"files": {"type": "uri_folder"}},
        "outputs": {"rows": {"type": "uri_file"}}, "input_data": "${{inputs.files}}", "mini_batch_size": "1",
        "task": task(code),
    }  # fmt: skip
    found = {}
    for at, spec in enumerate((prep, score)):
        address = f"{WS}/components/azureml_anonymous/versions/{at}{GUID}"
        answered = client.put(address, json={"properties": {"componentSpec": spec, "isAnonymous": True}})
        assert answered.status_code == 200, answered.text
        found[spec["type"]] = answered.json()["id"]
    return found


def task(code: str) -> dict[str, str]:
    return {
        "type": "run_function", "code": f"azureml:{code}", "entry_script": "score.py",
        "append_row_to": "${{outputs.rows}}", "environment": f"azureml:{ENVIRONMENT}",
    }  # fmt: skip


def literal(value: str, **more: str) -> dict[str, str]:
    return {"job_input_type": "literal", "value": value, **more}


def pipeline_body(components: dict[str, str], code: str, **changes: Any) -> dict[str, Any]:
    prep = {
        "name": "prep", "type": "command", "componentId": components["command"], "display_name": "Prepare",
        "resources": {"instance_count": 1}, "limits": {"timeout": "PT1M", "job_limits_type": "Command"},
        "environment_variables": {"A": "b"}, "_source": "YAML.JOB",
        "inputs": {
            "raw": literal("${{parent.inputs.raw}}"), "n": literal("${{parent.inputs.n}}"), "word": literal("7"),
            "more": {"job_input_type": "uri_folder", "uri": f"{WS}/data/more/versions/1", "mode": "Download"},
        },
        "outputs": {"out": {"job_output_type": "uri_folder", "mode": "Upload"}},
    }  # fmt: skip
    score = {
        "name": "score", "type": "parallel", "componentId": components["parallel"], "computeId": f"{WS}/computes/cpu",
        "inputs": {"files": literal("${{parent.jobs.prep.outputs.out}}", mode="ReadOnlyMount")},
        "outputs": {"rows": {"type": "literal", "value": "${{parent.outputs.scored}}", "mode": "ReadWriteMount"}},
        "resources": {"instance_count": 2}, "mini_batch_size": 3, "error_threshold": 5, "logging_level": "DEBUG",
        "mini_batch_error_threshold": 4, "max_concurrency_per_instance": 2, "input_data": "${{inputs.files}}",
        "retry_settings": {"timeout": 30, "max_retries": 1}, "environment_variables": {"C": "d"}, "task": task(code),
        "properties": {"batchpoint.output_format": "jsonl"},
    }  # fmt: skip
    properties = {
        "jobType": "Pipeline", "displayName": "two steps", "experimentName": "exp", "tags": {"a": "b"},
        "properties": {}, "isArchived": False, "computeId": f"{WS}/computes/local",
        "settings": {
            "default_datastore": f"{WS}/datastores/workspaceblobstore", "continue_on_step_failure": False,
            "force_rerun": True, "_source": "YAML.JOB",
        },
        "inputs": {
            "raw": {"jobInputType": "uri_file", "uri": f"{SHORT}/in.csv", "mode": "ReadOnlyMount"},
            "n": {"jobInputType": "literal", "value": "3"},
        },
        "outputs": {
            "scored": {
                "jobOutputType": "uri_file", "mode": "ReadWriteMount", "uri": f"{SHORT}/x/${{{{name}}}}/rows.csv",
                "assetName": "scored", "assetVersion": "1",
            },
        },
        "jobs": {"prep": prep, "score": score},
    }  # fmt: skip
    return {"properties": {**properties, **changes}}


def put(client: httpx.Client, name: str, body: dict[str, Any]) -> dict[str, Any]:
    answered = client.put(f"{WS}/jobs/{name}", json=body, headers={"x-azureml-token": "t"})
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    return found


def pipeline_in(job: Job) -> Pipeline:
    return Pipeline.model_validate(job.pipeline)


def test_a_pipeline_job_is_started_and_answered_as_it_was_sent(
    client: httpx.Client, workspace: Workspace, components: dict[str, str], code: str
) -> None:
    sent = pipeline_body(components, code)["properties"]
    shown = put(client, "busy_bee", {"properties": sent})
    assert (shown["id"], shown["name"]) == (f"{WS}/jobs/busy_bee", "busy_bee")
    answered = shown["properties"]
    assert answered == client.get(f"{WS}/jobs/busy_bee").json()["properties"]
    for key in ("jobType", "displayName", "experimentName", "tags", "inputs", "outputs", "computeId", "isArchived"):
        assert answered[key] == sent[key], key
    for name, step in sent["jobs"].items():
        for key in step.keys() - {"_source", "limits"}:
            assert answered["jobs"][name][key] == step[key], (name, key)
    assert answered["jobs"]["prep"]["limits"] == {"timeout": "PT60S"}
    assert answered["settings"] == {key: value for key, value in sent["settings"].items() if key != "_source"}


def test_the_job_is_one_like_any_other(
    client: httpx.Client, workspace: Workspace, components: dict[str, str], code: str
) -> None:
    put(client, "busy_bee", pipeline_body(components, code))
    job = workspace.jobs.get("busy_bee")
    assert (job.type, job.display_name, job.experiment_name, job.tags) == ("pipeline", "two steps", "exp", {"a": "b"})
    assert job.inputs["raw"].path == f"{SHORT}/in.csv"
    assert job.outputs["scored"].path == f"{SHORT}/x/busy_bee/rows.csv"
    assert (job.outputs["scored"].asset_name, job.outputs["scored"].asset_version) == ("scored", "1")
    pipeline = pipeline_in(job)
    prep, score = pipeline.jobs["prep"], pipeline.jobs["score"]
    assert isinstance(prep, CommandStep)
    assert isinstance(prep.component, Component)
    assert declared_name(prep.component) == "prep"
    assert (prep.limits.timeout, prep.environment_variables) == (60, {"A": "b"})
    assert prep.inputs["more"] == DataBinding(type="uri_folder", path="azureml:more:1", mode="download")
    assert isinstance(score, ParallelStep)
    assert (score.compute, score.resources.instance_count, score.mini_batch_size) == ("azureml:cpu", 2, 3)
    assert (score.retry_settings.max_retries, score.retry_settings.timeout) == (1, 30)
    assert (score.error_threshold, score.mini_batch_error_threshold, score.logging_level) == (5, 4, "debug")
    assert score.batchpoint.output_format == "jsonl"
    assert (pipeline.settings.force_rerun, pipeline.settings.continue_on_step_failure) == (True, False)


def test_a_step_that_is_cut_by_keys_has_the_mini_batch_size_zero_there_and_none_here(
    client: httpx.Client, workspace: Workspace, components: dict[str, str], code: str
) -> None:
    body = pipeline_body(components, code)
    score = body["properties"]["jobs"]["score"]
    score |= {"mini_batch_size": 0, "partition_keys": '["store"]', "error_threshold": -1}
    put(client, "busy_bee", body)
    step = pipeline_in(workspace.jobs.get("busy_bee")).jobs["score"]
    assert isinstance(step, ParallelStep)
    assert (step.partition_keys, step.mini_batch_size) == (["store"], None)


def test_texts_become_what_the_components_take(
    client: httpx.Client, workspace: Workspace, components: dict[str, str], code: str
) -> None:
    put(client, "busy_bee", pipeline_body(components, code))
    job = workspace.jobs.get("busy_bee")
    assert job.literals == {"n": 3}
    assert pipeline_in(job).jobs["prep"].inputs["word"] == "7"


def test_the_same_once_more_is_the_same_job(
    client: httpx.Client, workspace: Workspace, components: dict[str, str], code: str
) -> None:
    body = pipeline_body(components, code)
    assert put(client, "busy_bee", body)["systemData"] == put(client, "busy_bee", body)["systemData"]
    other = client.put(f"{WS}/jobs/busy_bee", json=pipeline_body(components, code, displayName="other"))
    assert other.status_code == 409
    assert "busy_bee" in other.json()["error"]["message"]
    assert len(workspace.jobs.list()) == 1


def test_a_job_sent_back_as_archived_is_hidden(client: httpx.Client, components: dict[str, str], code: str) -> None:
    shown = put(client, "busy_bee", pipeline_body(components, code))
    shown["properties"]["isArchived"] = True
    assert put(client, "busy_bee", shown)["properties"]["isArchived"] is True
    assert client.get(f"{WS}/jobs").json()["value"] == []
    shown["properties"]["isArchived"] = False
    put(client, "busy_bee", shown)
    assert [each["name"] for each in client.get(f"{WS}/jobs").json()["value"]] == ["busy_bee"]


def test_every_fault_is_named(
    client: httpx.Client, workspace: Workspace, components: dict[str, str], code: str
) -> None:
    body = pipeline_body(components, code)
    steps = body["properties"]["jobs"]
    steps["prep"]["inputs"]["n"] = literal("many")
    steps["prep"]["inputs"]["rae"] = steps["prep"]["inputs"].pop("raw")
    steps["score"]["computeId"] = f"{WS}/computes/nowhere"
    body["properties"]["outputs"]["other"] = {"jobOutputType": "uri_folder"}
    refused = client.put(f"{WS}/jobs/busy_bee", json=body)
    assert refused.status_code == 422
    message = refused.json()["error"]["message"]
    for place in (
        "jobs.prep.inputs.n", "jobs.prep.inputs.rae", "jobs.prep.inputs.raw", "jobs.score.compute", "outputs.other"
    ):  # fmt: skip
        assert place in message, message
    assert not workspace.jobs.list()


def test_a_component_runs_as_a_whole_job(client: httpx.Client, workspace: Workspace) -> None:
    steps = {"say": CommandStep(command="echo ${{inputs.n}}", inputs={"n": "${{parent.inputs.n}}"})}
    ports: dict[str, Any] = {"n": {"type": "integer"}}
    workspace.assets.create_or_update(
        "component", Component.model_validate({"name": "saying", "type": "pipeline", "inputs": ports, "jobs": steps})
    )
    body = {
        "jobType": "Pipeline", "componentId": "saying:1", "jobs": {}, "outputs": {},
        "inputs": {"n": {"jobInputType": "literal", "value": "5"}},
    }  # fmt: skip
    shown = put(client, "busy_bee", {"properties": body})["properties"]
    assert workspace.jobs.get("busy_bee").literals == {"n": 5}
    assert list(shown["jobs"]) == ["say"]
    assert shown["inputs"] == body["inputs"]


def test_a_command_job_is_started_and_answered_as_one(client: httpx.Client, workspace: Workspace, code: str) -> None:
    sent = {
        "jobType": "Command", "displayName": "cj", "experimentName": "exp", "codeId": code,
        "command": "python prep.py ${{inputs.raw}} ${{inputs.n}} > ${{outputs.o}}/x", "environmentId": ENVIRONMENT,
        "computeId": f"{WS}/computes/cpu", "environmentVariables": {"A": "b"}, "tags": {}, "properties": {},
        "isArchived": False, "resources": {"instanceCount": 1}, "limits": {"timeout": "PT60S"},
        "inputs": {
            "raw": {"jobInputType": "uri_file", "uri": f"{WS}/data/more/versions/1"},
            "n": {"jobInputType": "literal", "value": "3"},
        },
        "outputs": {"o": {"jobOutputType": "uri_folder"}},
    }  # fmt: skip
    sent["inputs"]["raw"]["jobInputType"] = "uri_folder"
    shown = put(client, "commanding", {"properties": sent})["properties"]
    assert {key: shown.get(key) for key in sent} == sent
    job = workspace.jobs.get("commanding")
    assert list(pipeline_in(job).jobs) == ["command"]
    assert job.literals == {"n": "3"}


def test_a_pipeline_of_steps_written_here_is_shown_there(client: httpx.Client, workspace: Workspace) -> None:
    steps = {"one": CommandStep(command="true"), "two": CommandStep(command="true")}
    workspace.pipelines.submit(Pipeline(name="native", jobs=steps))
    shown = client.get(f"{WS}/jobs/native").json()["properties"]
    assert [step["type"] for step in shown["jobs"].values()] == ["command", "command"]
    assert all(step["componentId"].startswith(f"{WS}/components/azureml_anonymous/") for step in shown["jobs"].values())


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"jobType": "Sweep"}, "jobType is 'Sweep'"),
        ({}, "jobType"),
        ({"jobType": "Pipeline", "jobs": {}}, "give either 'jobs' or 'component'"),
        ({"jobType": "Pipeline", "jobs": {"a": {"type": "spark"}}}, "'spark' are not run here"),
        ({"jobType": "Pipeline", "jobs": {"a": 1}}, "jobs.a"),
        ({"jobType": "Command"}, "give either 'command' or 'component'"),
    ],
)
def test_what_is_no_job_of_ours_is_refused(client: httpx.Client, properties: dict[str, Any], said: str) -> None:
    refused = client.put(f"{WS}/jobs/wrong", json={"properties": properties})
    assert refused.status_code == 422
    assert said in refused.json()["error"]["message"]
