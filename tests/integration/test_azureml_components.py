"""Components in the Azure ML dialect, with bodies as its client sends them; the same ones as ``/api/v1`` shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.entities.assets import Environment
from batchpoint.entities.components import declared_name
from batchpoint.entities.pipelines import CommandStep, Component, InputPort, Limits, Pipeline
from batchpoint.workspace import Workspace
from integration.azure_wire import WS, azure_client, register_scripts
from integration.served import open_workspace

ANONYMOUS = f"{WS}/components/azureml_anonymous/versions"
GUID = "429b856c-1dcf-e1c9-3a49-d3cfce6f6e19"

PREP: dict[str, Any] = {
    "name": "prep", "version": "1", "type": "command", "display_name": "Prepare", "is_deterministic": False,
    "_source": "YAML.COMPONENT",
    "inputs": {
        "raw": {"type": "uri_file", "description": "what came"},
        "n": {"type": "integer", "optional": False, "default": "3", "min": "1", "max": "5"},
        "m": {"type": "number", "optional": True},
        "how": {"type": "string", "default": "a", "enum": ["a", "b"]},
        "loud": {"type": "boolean", "default": "True"},
    },
    "outputs": {"out": {"type": "uri_folder", "mode": "rw_mount"}},
    "command": "python prep.py ${{inputs.raw}} $[[--m ${{inputs.m}}]] ${{inputs.n}} > ${{outputs.out}}/x",
    "environment": f"azureml:{WS}/environments/env/versions/1",
    "resources": {"instance_count": 1}, "limits": {"timeout": 60},
}  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        opened.assets.create_or_update("environment", Environment(name="env", pip_requirements=["pandas"]))
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with azure_client(workspace) as made:
        yield made


@pytest.fixture
def code(workspace: Workspace, tmp_path: Path) -> str:
    """The id of code with ``prep.py`` and ``score.py``."""
    return f"azureml:{register_scripts(workspace, tmp_path)}"


def put(client: httpx.Client, spec: dict[str, Any], address: str | None = None, **properties: Any) -> dict[str, Any]:
    body = {"properties": {"componentSpec": spec, "isAnonymous": False, "properties": {}, "tags": {}, **properties}}
    answered = client.put(address or f"{WS}/components/{spec['name']}/versions/{spec['version']}", json=body)
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    return found


def stored(workspace: Workspace, name: str, version: str | None = None) -> Component:
    found = workspace.assets.get("component", name, version)
    assert isinstance(found, Component)
    return found


def parallel(code: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "scoring", "version": "1", "type": "parallel", "is_deterministic": True,
        "inputs": {"files": {"type": "uri_folder", "mode": "ro_mount"}}, "outputs": {"rows": {"type": "uri_file"}},
        "resources": {"instance_count": 1}, "logging_level": "DEBUG", "input_data": "${{inputs.files}}",
        "mini_batch_size": "2", "max_concurrency_per_instance": 2, "error_threshold": 5,
        "mini_batch_error_threshold": 3, "retry_settings": {"timeout": 60, "max_retries": 2},
        "task": {
            "type": "run_function", "code": code, "entry_script": "score.py",
            "program_arguments": "--files ${{inputs.files}}", "append_row_to": "${{outputs.rows}}",
            "environment": f"azureml:{WS}/environments/env/versions/1",
        },
        **changes,
    }  # fmt: skip


def test_a_command_component_is_registered_and_answered_whole(
    client: httpx.Client, workspace: Workspace, code: str
) -> None:
    spec = {**PREP, "code": code}
    shown = put(client, spec, tags={"t": "u"}, description="words", properties={"client_component_hash": "h"})
    assert (shown["id"], shown["name"]) == (f"{WS}/components/prep/versions/1", "1")
    properties = shown["properties"]
    assert {key: properties["componentSpec"].get(key) for key in spec if key != "_source"} == {
        key: value for key, value in spec.items() if key != "_source"
    }
    for place in (properties, properties["componentSpec"]):  # the client reads the second
        assert (place["tags"], place["description"]) == ({"t": "u"}, "words")
    assert properties["properties"] == {"client_component_hash": "h"}
    assert (properties["isAnonymous"], properties["isArchived"]) == (False, False)
    component = stored(workspace, "prep", "1")
    assert component.inputs["n"] == InputPort(type="integer", default=3, min=1, max=5)
    assert component.inputs["loud"].default is True
    assert component.limits == Limits(timeout=60)
    assert component.environment == "azureml:env:1"
    assert client.get(f"{WS}/components/prep/versions/1").json() == shown


def test_a_parallel_component_says_how_it_is_cut(client: httpx.Client, workspace: Workspace, code: str) -> None:
    spec = parallel(code, partition_keys='["a", "b"]')
    shown = put(client, spec, properties={"batchpoint.output_format": "jsonl"})["properties"]["componentSpec"]
    assert {key: shown[key] for key in spec} == spec
    component = stored(workspace, "scoring")
    assert (component.partition_keys, component.mini_batch_size) == (["a", "b"], "2")
    assert component.batchpoint.output_format == "jsonl"
    assert component.task is not None
    assert component.task.environment == "azureml:env:1"


def test_a_mini_batch_size_of_zero_is_none_for_so_the_client_says_that_there_is_none(
    client: httpx.Client, workspace: Workspace, code: str
) -> None:
    shown = put(client, parallel(code, partition_keys='["a"]', mini_batch_size="0"))["properties"]["componentSpec"]
    assert "mini_batch_size" not in shown
    assert stored(workspace, "scoring").mini_batch_size is None


def test_a_pipeline_component_joins_registered_ones(client: httpx.Client, workspace: Workspace, code: str) -> None:
    put(client, {**PREP, "code": code})
    node = {
        "name": "a", "type": "command", "componentId": f"{WS}/components/prep/versions/1",
        "inputs": {
            "raw": {"job_input_type": "literal", "value": "${{parent.inputs.data}}"},
            "n": {"job_input_type": "literal", "value": "4"},
        },
        "outputs": {"out": {"type": "literal", "value": "${{parent.outputs.res}}"}},
        "computeId": f"{WS}/computes/local", "environment_variables": {"A": "b"},
    }  # fmt: skip
    spec = {
        "name": "both", "version": "2", "type": "pipeline", "sourceJobId": None,
        "inputs": {"data": {"type": "uri_file"}}, "outputs": {"res": {"type": "uri_folder"}}, "jobs": {"a": node},
    }  # fmt: skip
    shown = put(client, spec)["properties"]["componentSpec"]["jobs"]["a"]
    assert {key: shown[key] for key in ("componentId", "computeId", "outputs", "environment_variables", "type")} == {
        key: node[key] for key in ("componentId", "computeId", "outputs", "environment_variables", "type")
    }
    assert shown["inputs"]["n"] == {"job_input_type": "literal", "value": "4"}
    assert stored(workspace, "both").jobs["a"].inputs["n"] == 4


def test_what_is_declared_in_place_is_registered_once_and_keeps_its_name(
    client: httpx.Client, workspace: Workspace, code: str
) -> None:
    spec = {key: value for key, value in {**PREP, "code": code}.items() if key != "version"}
    first = put(client, spec, f"{ANONYMOUS}/{GUID}", isAnonymous=True)
    again = put(client, {**spec, "code": code}, f"{ANONYMOUS}/{GUID}", isAnonymous=True)
    assert first["id"] == again["id"] == f"{ANONYMOUS}/{GUID}"
    assert first["properties"]["componentSpec"]["name"] == "prep"
    assert first["properties"]["isAnonymous"] is True
    assert first["properties"]["properties"] == {}
    assert declared_name(stored(workspace, "azureml_anonymous", GUID)) == "prep"
    assert client.get(f"{WS}/components").json()["value"] == []


def test_a_component_made_of_a_job_has_a_version_of_its_own(client: httpx.Client, workspace: Workspace) -> None:
    for name, said in (("one", "hi"), ("two", "ho")):
        workspace.pipelines.submit(Pipeline(name=name, jobs={"say": CommandStep(command=f"echo {said}")}))
    ids = []
    for job in ("one", f"{WS}/jobs/two", "one"):
        spec = {"type": "pipeline", "sourceJobId": job, "source_job_id": job, "jobs": {}}
        ids.append(put(client, spec, f"{ANONYMOUS}/1", isAnonymous=True)["id"])
    assert ids == [f"{ANONYMOUS}/1", f"{ANONYMOUS}/2", f"{ANONYMOUS}/1"]
    shown = client.get(ids[1]).json()["properties"]["componentSpec"]
    assert (shown["type"], list(shown["jobs"])) == ("pipeline", ["say"])


def test_versions_are_listed_the_newest_first_and_archived(client: httpx.Client) -> None:
    for version in ("1", "2"):
        shown = put(client, {**PREP, "version": version, "display_name": version})
    newest = client.get(f"{WS}/components/prep/versions", params={"$orderBy": "createdtime desc", "$top": "1"})
    assert [each["name"] for each in newest.json()["value"]] == ["2"]
    container = client.get(f"{WS}/components/prep").json()["properties"]
    assert (container["latestVersion"], container["nextVersion"]) == ("2", "3")
    shown["properties"]["isArchived"] = True
    assert client.put(shown["id"], json=shown).json()["properties"]["isArchived"] is True
    assert [each["name"] for each in client.get(f"{WS}/components/prep/versions").json()["value"]] == ["1"]
    assert [each["name"] for each in client.get(f"{WS}/components").json()["value"]] == ["prep"]


def test_what_the_client_was_shown_and_sends_back_is_the_same_component(
    client: httpx.Client, workspace: Workspace
) -> None:
    put(client, PREP)
    node = {
        "name": "a", "type": "command", "componentId": f"{WS}/components/prep/versions/1",
        "inputs": {
            "raw": {"job_input_type": "literal", "value": "${{parent.inputs.data}}"},
            "n": {"job_input_type": "literal", "value": "4"},
        },
        "computeId": f"{WS}/computes/local",
    }  # fmt: skip
    inputs = {"data": {"type": "uri_file"}, "share": {"type": "number", "default": "1"}}
    spec = {"name": "both", "version": "1", "type": "pipeline", "inputs": inputs, "jobs": {"a": node}}
    put(client, spec)
    before = stored(workspace, "both", "1")
    shown = client.get(f"{WS}/components/both/versions/1").json()
    sent = shown["properties"]["componentSpec"]  # with the defaults that were shown, and in the client's own words
    sent["inputs"]["share"]["default"] = "1.0"
    sent["jobs"]["a"] |= {"componentId": "prep:1", "computeId": "local", "_source": "REMOTE.WORKSPACE.COMPONENT"}
    sent |= {"id": f"azureml:{shown['id']}", "creation_context": {"created_by": "local"}, "sourceJobId": None}
    put(client, sent, isArchived=True)
    assert stored(workspace, "both", "1") == before.model_copy(update={"archived": True})
    sent["jobs"]["a"]["inputs"]["n"]["value"] = "5"
    refused = client.put(shown["id"], json={"properties": {"componentSpec": sent}})
    assert refused.status_code == 409


def test_a_command_registered_elsewhere_without_an_environment_is_the_same_when_it_comes_back(
    client: httpx.Client, workspace: Workspace
) -> None:
    component = Component.model_validate(
        {
            "name": "plain",
            "version": "1",
            "type": "command",
            "command": "true",
            "inputs": {"x": {"type": "number", "default": 1}},
        }
    )
    before = workspace.assets.create_or_update("component", component)
    shown = client.get(f"{WS}/components/plain/versions/1").json()
    shown["properties"]["isArchived"] = True
    assert client.put(shown["id"], json=shown).status_code == 200
    assert stored(workspace, "plain", "1") == before.model_copy(update={"archived": True})


def test_other_content_under_a_version_that_exists_is_refused(client: httpx.Client) -> None:
    put(client, PREP)
    put(client, PREP, description="said later")
    body = {"properties": {"componentSpec": {**PREP, "command": "true"}}}
    refused = client.put(f"{WS}/components/prep/versions/1", json=body)
    assert refused.status_code == 409
    assert "exists already with other content" in refused.json()["error"]["message"]


def test_every_fault_of_a_component_is_named(client: httpx.Client, code: str) -> None:
    node = {"name": "a", "type": "command", "componentId": f"{WS}/components/none/versions/1"}
    spec = {**parallel(code), "type": "pipeline", "jobs": {"a": node, "b": {**node, "computeId": "nowhere"}}}
    refused = client.put(f"{WS}/components/scoring/versions/1", json={"properties": {"componentSpec": spec}})
    assert refused.status_code == 422
    message = refused.json()["error"]["message"]
    assert "jobs.a.component" in message
    assert "jobs.b.component" in message
    assert "jobs.b.compute" in message


def test_a_command_without_an_environment_is_shown_with_some(client: httpx.Client, workspace: Workspace) -> None:
    workspace.assets.create_or_update("component", Component(name="plain", type="command", command="true"))
    shown = client.get(f"{WS}/components/plain/versions/1").json()["properties"]["componentSpec"]
    assert shown["environment"]


def test_an_environment_of_azures_registries_is_kept_under_its_name(client: httpx.Client, workspace: Workspace) -> None:
    curated = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"
    answered = client.put(
        f"{WS}/components/prep/versions/1", json={"properties": {"componentSpec": PREP | {"environment": curated}}}
    )

    assert answered.status_code < 300, answered.text
    kept = workspace.assets.get("component", "prep")
    assert isinstance(kept, Component)
    assert kept.environment == "azureml:sklearn-1.5:1"
