"""Files of pipelines, components and pipeline deployments: what they declare, and how their faults are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchpoint.client.files import declared_document, kind_of, load
from batchpoint.entities.components import as_component, definition, typed
from batchpoint.entities.documents import read_document
from batchpoint.entities.jobs import InvokeRequest, literal_in
from batchpoint.entities.local_paths import local_paths
from batchpoint.entities.pipeline_deployments import CommandJob, PipelineDeployment
from batchpoint.entities.pipelines import Component, InputPort, ParallelStep, Pipeline
from batchpoint.errors import InvalidEntityError

SCHEMA = "$schema: https://azuremlschemas.azureedge.net/latest/{}.schema.json\n"

PIPELINE = """\
type: pipeline
jobs:
  prepare:
    command: python prepare.py
    code: ./code
    environment:
      conda_file: conda.yml
  score:
    type: parallel
    mini_batch_sise: 3
    retry_settings: {max_retry: 1}
    task: {code: ./code, entry_script: score.py}
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SCHEMA.format("pipelineJob"), "job"),
        (SCHEMA.format("commandJob"), "job"),
        (SCHEMA.format("commandComponent"), "component"),
        (SCHEMA.format("pipelineComponentBatchDeployment"), "deployment"),
        ("type: pipeline", "job"),
        ("type: pipeline\nversion: 1", "component"),
        ("type: pipeline\nendpoint_name: churn", "deployment"),
        ("type: parallel", "component"),
        ("command: ls", "job"),
        ("jobs: {}", "job"),
    ],
)
def test_what_a_file_declares_is_told_by_its_schema_its_type_or_its_keys(text: str, kind: str) -> None:
    assert read_document(f"{text}\ndescription: x").kind() == kind


def test_slips_in_steps_are_told_with_the_keys_of_their_own_type() -> None:
    with pytest.raises(InvalidEntityError) as refused:
        read_document(PIPELINE, name="p.yml").entity("job")

    said = str(refused.value)
    assert "p.yml:10: key 'jobs.score.mini_batch_sise' is not known here. Did you mean 'mini_batch_size'?" in said
    assert "p.yml:11: key 'jobs.score.retry_settings.max_retry' is not known here. Did you mean 'max_retries'?" in said


def test_a_step_of_a_type_that_is_not_run_here_is_refused_with_the_types_that_are() -> None:
    with pytest.raises(InvalidEntityError, match="steps of type 'sweep' are not run here; known: command, parallel"):
        read_document("jobs: {a: {type: sweep}}").entity("job")


def test_names_of_steps_are_told_in_words() -> None:
    with pytest.raises(InvalidEntityError, match=r"'jobs.Score' is 'Score'; a name of lower letters"):
        read_document("jobs: {Score: {command: ls}}").entity("job")


def test_all_local_paths_of_a_pipeline_are_found() -> None:
    found = {".".join(map(str, each.key)): each.holds for each in local_paths("job", read_document(PIPELINE).value)}

    assert found == {
        "jobs.prepare.code": "path",
        "jobs.prepare.environment.conda_file": "conda_file",
        "jobs.score.task.code": "path",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "conda.yml").write_text("dependencies: [python]\n")
    (tmp_path / "parts" / "count.yml").write_text(
        "type: command\ncommand: wc ${{inputs.data}}\ncode: code\nenvironment: {conda_file: conda.yml}\n"
        "inputs: {data: {type: uri_file}}\n"
    )
    (tmp_path / "pipeline.yml").write_text(
        "inputs: {data: {type: uri_file, path: in.csv}}\n"
        "jobs:\n  count:\n    component: parts/count.yml\n    inputs: {data: '${{parent.inputs.data}}'}\n"
    )
    return tmp_path


def test_a_component_file_is_read_in_place_and_its_paths_are_relative_to_it(folder: Path) -> None:
    pipeline = load(folder / "pipeline.yml")

    assert isinstance(pipeline, Pipeline)
    component = pipeline.jobs["count"].component
    assert isinstance(component, Component)
    assert (component.name, component.code) == ("count", str(folder / "parts" / "code"))
    assert component.environment.conda_file == {"dependencies": ["python"]}  # type: ignore[union-attr]  # declared in place
    assert pipeline.inputs["data"].path == str(folder / "in.csv")  # type: ignore[union-attr]  # data, not a literal


def test_a_fault_in_a_component_file_is_told_with_its_own_line(folder: Path) -> None:
    (folder / "parts" / "count.yml").write_text("type: command\ncommand: wc\ninputs:\n  data: {typ: uri_file}\n")

    with pytest.raises(InvalidEntityError, match=r"count.yml:4: key 'jobs.count.component.inputs.data.typ'"):
        load(folder / "pipeline.yml")


def test_a_component_that_holds_itself_is_refused(folder: Path) -> None:
    (folder / "parts" / "count.yml").write_text("type: pipeline\njobs: {again: {component: ./count.yml}}\n")

    with pytest.raises(InvalidEntityError, match="A component holds itself"):
        load(folder / "pipeline.yml")


def test_what_the_server_says_of_a_pipeline_is_told_with_the_lines_of_its_files(folder: Path) -> None:
    document, _ = declared_document("job", path=folder / "pipeline.yml")
    said = InvalidEntityError(
        "no",
        problems=[
            {"key": "jobs.count.code", "place": "jobs.count.code", "message": "there is none."},
            {"key": "inputs.data", "place": "inputs.data", "message": "it is empty."},
        ],
    )

    assert str(document.located(said)).splitlines()[1:] == [
        f"  {folder}/pipeline.yml:1: inputs.data: it is empty.",
        f"  {folder}/parts/count.yml:3: jobs.count.component.code: there is none.",
    ]


def test_a_command_by_itself_is_a_pipeline_of_one_step_that_always_runs() -> None:
    job = CommandJob.model_validate({
        "name": "one", "command": "wc ${{inputs.data}} > ${{outputs.counts}}/n", "compute": "local",
        "inputs": {"data": {"type": "uri_file", "path": "/in"}, "n": 3}, "outputs": {"counts": {"type": "uri_folder"}},
    })  # fmt: skip

    pipeline = job.as_pipeline()

    step = pipeline.jobs["command"]
    assert (pipeline.name, step.compute, step.is_deterministic) == ("one", "local", False)
    assert step.inputs == {"data": "${{parent.inputs.data}}", "n": "${{parent.inputs.n}}"}
    assert step.outputs == {"counts": "${{parent.outputs.counts}}"}
    assert pipeline.inputs["n"] == 3
    assert kind_of(job) == "job"


@pytest.mark.parametrize(
    ("given", "literal"),
    [
        (20, 20),
        (False, False),
        ("append", "append"),
        ({"type": "string", "default": "append"}, "append"),
        ({"type": "integer", "value": 3}, 3),
        ({"type": "boolean", "default": False}, False),
        ({"type": "uri_file", "path": "/in"}, None),
        ({"type": "string", "path": "/in"}, None),
        ({"type": "string"}, None),
    ],
)
def test_literals_among_inputs_are_known_in_each_of_their_forms(given: Any, literal: Any) -> None:
    assert literal_in(given) == literal


def test_an_invoke_keeps_data_and_literals_apart() -> None:
    request = InvokeRequest.model_validate({"inputs": {"data": {"path": "/in"}, "n": 20}, "literals": {"m": 1}})

    assert (list(request.inputs), request.literals) == (["data"], {"n": 20, "m": 1})


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("integer", "20", 20),
        ("number", "2.5", 2.5),
        ("boolean", "True", True),
        ("boolean", "no", False),
        ("string", 20, "20"),
        ("string", True, "true"),
        ("integer", 20, 20),
    ],
)
def test_text_is_taken_for_what_the_input_declares(kind: Any, given: Any, taken: Any) -> None:
    assert typed(given, InputPort(type=kind)) == taken


@pytest.mark.parametrize(("kind", "given"), [("integer", "2.5"), ("boolean", "maybe"), ("uri_file", "in.csv")])
def test_text_that_does_not_fit_is_refused(kind: Any, given: str) -> None:
    with pytest.raises(ValueError, match=kind):
        typed(given, InputPort(type=kind))


def test_a_pipeline_deployment_refuses_what_it_would_have_to_drop() -> None:
    body = {"name": "one", "endpoint_name": "end", "type": "pipeline", "component": "azureml:c:1"}

    with pytest.raises(ValueError, match="give either 'component' or 'job_definition'"):
        PipelineDeployment.model_validate({**body, "job_definition": "azureml:job"})
    with pytest.raises(ValueError, match="has no environment variables of its own"):
        PipelineDeployment.model_validate({**body, "environment_variables": {"A": "b"}})
    assert PipelineDeployment(name="one", endpoint_name="end", component="azureml:c:1").given()["type"] == "pipeline"


def test_a_pipeline_becomes_a_component_whose_defaults_are_what_it_was_given() -> None:
    steps = {"score": ParallelStep(task={"entry_script": "score.py"})}
    pipeline = Pipeline(inputs={"data": {"type": "uri_file", "path": "/in"}, "n": 3}, jobs=steps)

    component = as_component(pipeline, "scoring")

    assert component.inputs["n"] == InputPort(type="integer", default=3)
    assert component.inputs["data"].path == "/in"
    assert Component.model_validate(component.body()).jobs["score"].type == "parallel"


def test_what_is_said_about_a_component_does_not_change_what_it_does() -> None:
    component = Component(name="a", type="command", command="ls")
    outer = Component(name="b", type="pipeline", jobs={"a": {"component": component}})
    renamed = component.model_copy(update={"name": "c", "version": "7", "description": "x"})

    assert definition(component) == definition(renamed)
    assert definition(outer) == definition(Component(name="d", type="pipeline", jobs={"a": {"component": renamed}}))
