"""Apply and remove by the client, over HTTP; the server shares this machine's files, or does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchpoint import Client
from batchpoint.background.service import Background
from batchpoint.client.connection import Connection
from batchpoint.errors import InvalidEntityError
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, invoke, make_input, open_workspace, served

SOLUTION = """\
$schema: https://azuremlschemas.azureedge.net/latest/batchEndpoint.schema.json
name: shop
description: What sells.
---
# nothing in between
---
type: amlcompute
name: cpu
max_instances: 2
---
type: uri_folder
name: sales
path: data
---
type: custom_model
name: shop-model
path: model
tags: {team: risk}
"""

DEPLOYMENT = """\
name: blue
endpoint_name: shop
model: azureml:shop-model
compute: azureml:cpu
code_configuration: {code: code, scoring_script: score.py}
environment: {name: plain, conda_file: conda.yml}
mini_batch_size: 10
"""


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    folder = tmp_path / "solution"
    for path, text in {
        "a-deployment.yml": DEPLOYMENT,
        "more/solution.yaml": SOLUTION.replace("path: data", "path: ../data").replace("path: model", "path: ../model"),
        "conda.yml": "name: conda\ndependencies: [python]\n",
        "code/score.py": "def run(mini_batch):\n    return mini_batch\n",
        "code/settings.yml": "type: amlcompute\nname: not-ours\n",
        "data/a.csv": "x\n1\n",
        "model/weights": "1",
        ".hidden/x.yml": "type: nonsense\n",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


EITHER = pytest.mark.parametrize("client", [True, False], ids=["shares files", "uploads"], indirect=True)


@pytest.fixture
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    with Workspace.open(Settings(home=tmp_path / "home", max_request_bytes=100_000)) as workspace:
        context = Context(
            workspace, Background(workspace, runner_parent=FAKE_RUNNER), "s1", getattr(request, "param", True)
        )
        secret, _ = workspace.tokens.create("admin-token", "admin")
        with served(context, secret) as http, Client(str(http.base_url), secret) as found:
            yield found


def said(outcomes: list[Any]) -> list[tuple[str, str, list[str]]]:
    """State, name and the keys that change, of all that did not stay as it was."""
    return [
        (each.state, f"{each.step.kind} {each.step.name}", [field.key for field in each.step.fields])
        for each in outcomes
        if each.state != "unchanged"
    ]


def everything(client: Client) -> list[Any]:
    found = [*client.computes.list(), *client.endpoints.list(), *client.deployments.list("shop")]
    assets = (client.models, client.data, client.environments, client.codes)
    return [entity.body() for entity in [*found, *(one for door in assets for one in door.list(archived="include"))]]


@EITHER
def test_a_second_apply_changes_nothing_and_sends_no_file_again(
    client: Client, solution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.apply(solution)
    assert [(each.step.kind, each.state) for each in made] == [
        ("compute", "done"),
        ("environment", "done"),
        ("data", "done"),
        ("model", "done"),
        ("endpoint", "done"),
        ("deployment", "done"),
        ("endpoint", "done"),
    ]
    before = everything(client)
    monkeypatch.setattr(Connection, "upload", lambda *_, **__: pytest.fail("a file was uploaded again"))

    assert said(client.apply(solution)) == []
    assert everything(client) == before
    assert client.endpoints.get("shop").defaults.deployment_name == "blue"
    assert client.deployments.get("blue", "shop").model == "azureml:shop-model:1"


def test_one_changed_field_is_all_that_is_shown_and_drift_is_brought_back(client: Client, solution: Path) -> None:
    client.apply(solution)
    (solution / "a-deployment.yml").write_text(DEPLOYMENT.replace("mini_batch_size: 10", "mini_batch_size: 20"))
    planned = client.apply(solution, dry_run=True)
    assert said(planned) == [("planned", "deployment shop/blue", ["settings.mini_batch_size"])]
    assert client.deployments.get("blue", "shop").settings.mini_batch_size == 10
    assert said(client.apply(solution)) == [("done", "deployment shop/blue", ["settings.mini_batch_size"])]

    client.computes.update("cpu", changes={"min_instances": 1})
    client.models.update("shop-model", changes={"tags": {"team": "sales", "extra": "1"}, "description": "by hand"})
    client.deployments.update("blue", "shop", changes={"batchpoint": {"passthrough": ["*"]}})
    assert said(client.apply(solution)) == [
        ("done", "compute cpu", ["min_instances"]),
        ("done", "model shop-model:1", ["description", "tags.extra", "tags.team"]),
        ("done", "deployment shop/blue", ["batchpoint.passthrough"]),
    ]
    assert said(client.apply(solution)) == []


@EITHER
def test_changed_files_make_new_versions_and_the_deployment_follows(client: Client, solution: Path) -> None:
    client.apply(solution)
    (solution / "model" / "weights").write_text("2")
    (solution / "code" / "score.py").write_text("def run(mini_batch):\n    return []\n")

    changed = client.apply(solution)

    assert said(changed) == [
        ("done", "model shop-model:2", ["path"]),
        ("done", "deployment shop/blue", ["code_configuration.code", "model"]),
    ]
    assert client.deployments.get("blue", "shop").model == "azureml:shop-model:2"
    assert said(client.apply(solution)) == []


def test_after_a_failure_the_rest_is_not_reached_and_the_next_run_continues(client: Client, solution: Path) -> None:
    (solution / "code" / "score.py").write_text("def run(mini_batch:\n")
    outcomes = client.apply(solution)
    assert [each.state for each in outcomes] == ["done"] * 5 + ["failed", "not reached"]
    assert "score.py, line 1" in str(outcomes[5].error)

    (solution / "code" / "score.py").write_text("def run(mini_batch):\n    return []\n")
    assert [name for state, name, _ in said(client.apply(solution)) if state == "done"] == [
        "deployment shop/blue",
        "endpoint shop",
    ]


def test_remove_takes_all_away_twice_and_apply_brings_it_back(client: Client, solution: Path) -> None:
    client.apply(solution)
    assert {each.state for each in client.remove(solution)} == {"done"}
    assert {each.state for each in client.remove(solution)} == {"unchanged"}
    assert [compute.name for compute in client.computes.list()] == ["local"]
    assert list(client.models.list()) == []

    again = client.apply(solution)

    assert [each.step.action for each in again if each.step.kind == "model"] == ["restore"]
    assert [model.version for model in client.models.list()] == ["1"]


def test_what_files_point_to_may_be_gone_when_all_is_removed(client: Client, solution: Path) -> None:
    client.apply(solution)
    for gone in ("code", "data", "model"):
        shutil.rmtree(solution / gone)
    assert {each.state for each in client.remove(solution)} == {"done"}
    assert list(client.models.list()) == []


def test_assignments_name_what_they_are_for(client: Client, solution: Path) -> None:
    client.apply(solution, set=["deployment/shop/blue:mini_batch_size=30", "compute/cpu:max_instances=3"])
    assert client.deployments.get("blue", "shop").settings.mini_batch_size == 30
    assert client.computes.get("cpu").max_instances == 3
    with pytest.raises(InvalidEntityError, match="fits 0 of the declarations"):
        client.apply(solution, set=["compute/gpu:max_instances=3"])


def test_every_fault_of_every_file_is_told_and_nothing_is_changed(client: Client, solution: Path) -> None:
    (solution / "a-deployment.yml").write_text(DEPLOYMENT.replace("mini_batch_size", "mini_bach_size"))
    (solution / "more" / "gpu.yml").write_text("type: amlcompute\nname: gpu\nmax_instances: many\n")
    with pytest.raises(InvalidEntityError) as refused:
        client.apply(solution)
    assert "mini_bach_size' is not known here. Did you mean 'mini_batch_size'?" in str(refused.value)
    assert "'max_instances' is 'many'; a whole number is wanted" in str(refused.value)
    assert list(client.models.list()) == []


def test_a_sweep_cancels_only_what_has_been_active_for_too_long(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "home") as workspace:
        background = Background(workspace, runner_parent=FAKE_RUNNER)
        secret, _ = workspace.tokens.create("admin-token", "admin")
        with served(Context(workspace, background, "s1", shares_files=True), secret) as http:
            job = invoke(workspace, make_input(tmp_path / "in", "complete"))
            with Client(str(http.base_url), secret) as client:
                assert client.jobs.sweep(timedelta(hours=4)) == []
                assert [one.name for one in client.jobs.sweep(timedelta(0), dry_run=True)] == [job.name]
                assert not client.jobs.get(job.name).is_finished
                client.jobs.sweep(timedelta(0))
                swept = client.jobs.get(job.name)
                assert swept.status.value == "canceled"
                assert swept.entity.tags["batchpoint.swept"].endswith("over 0:00:00")


PIPELINE = """\
$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponent.schema.json
type: pipeline
name: daily
jobs:
  first:
    type: command
    command: python score.py
    code: code
    environment: azureml:plain
  second:
    component: ./more/second.yml
"""

COMPONENT = "type: command\nversion: '1'\nname: second\ncommand: echo 2\n"

ON_ENDPOINT = """\
name: nightly
endpoint_name: shop
type: pipeline
component: azureml:daily
settings: {default_compute: cpu}
"""


@EITHER
def test_components_and_pipelines_behind_endpoints_follow_what_they_are_made_of(client: Client, solution: Path) -> None:
    (solution / "pipeline.yml").write_text(PIPELINE)
    (solution / "more" / "second.yml").write_text(COMPONENT)
    (solution / "on-endpoint.yml").write_text(ON_ENDPOINT)
    (solution / "a-job.yml").write_text("type: pipeline\njobs: {one: {type: command, command: echo}}\n")
    made = client.apply(solution)
    assert [str(each.error) for each in made if each.state == "failed"] == []
    assert {f"{each.step.kind} {each.step.name}" for each in made} >= {
        "component daily:1",
        "deployment shop/nightly",
    }
    assert said(client.apply(solution)) == []

    (solution / "code" / "score.py").write_text("def run(mini_batch):\n    return []\n")
    assert said(client.apply(solution)) == [
        ("done", "component daily:2", ["content"]),
        ("done", "deployment shop/blue", ["code_configuration.code"]),
        ("done", "deployment shop/nightly", ["component"]),
    ]
    assert said(client.apply(solution)) == []


@EITHER
def test_a_pipeline_in_a_schedule_changes_when_its_files_do_or_its_place(client: Client, solution: Path) -> None:
    (solution / "a-schedule.yml").write_text(
        "name: weekly\ntrigger: {type: cron, expression: 0 3 * * 1}\n"
        "create_job:\n  type: pipeline\n  job:\n    type: pipeline\n    inputs: {a: {type: uri_folder, path: data}}\n"
        "    jobs: {one: {type: command, code: code, command: ls, inputs: {a: '${{parent.inputs.a}}'}}}\n"
    )
    assert {each.state for each in client.apply(solution)} == {"done"}
    assert said(client.apply(solution)) == []
    shutil.copytree(solution / "data", solution / "other")
    text = (solution / "a-schedule.yml").read_text()
    (solution / "a-schedule.yml").write_text(text.replace("path: data", "path: other"))
    assert said(client.apply(solution)) == [("done", "schedule weekly", ["create_job.job.inputs.a.path"])]
    assert {each.state for each in client.remove(solution)} == {"done"}


def test_a_schedule_comes_after_what_it_starts_and_is_shown_when_it_differs(client: Client, solution: Path) -> None:
    schedule = (
        "name: nightly\ntrigger: {type: cron, expression: 0 3 * * *}\n"
        "create_job: {endpoint_name: shop, inputs: {a: {path: data}}}\n"
    )
    (solution / "a-schedule.yml").write_text(schedule)
    made = client.apply(solution)
    assert [(each.step.kind, each.state) for each in made][-1] == ("schedule", "done")
    assert said(client.apply(solution)) == []
    (solution / "a-schedule.yml").write_text(schedule.replace("0 3", "0 4"))
    assert said(client.apply(solution)) == [("done", "schedule nightly", ["trigger.expression"])]
    assert {each.state for each in client.remove(solution)} == {"done"}


def test_credentials_are_compared_by_the_server_and_never_shown(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "store.yml"
    text = "type: s3\nname: bucket\nbucket: b\ncredentials: {access_key_id: me, secret_access_key: one}\n"
    file.write_text(text)
    client.apply(file)
    assert said(client.apply(file)) == []
    file.write_text(text.replace("one", "two"))
    assert said(client.apply(file)) == [("done", "datastore bucket", ["credentials"])]
    assert said(client.apply(file)) == []
    assert "two" not in str(client.datastores.get("bucket").body())


MODEL_MAPS = """\
type: model
name: by-file
endpoint_name: shops
batchpoint:
  partition_keys: [store]
  model_map: {folder: models, file_pattern: "{store}.pkl", on_missing: default, default_model: models/east.pkl}
---
type: model
name: by-mapping
endpoint_name: shops
batchpoint:
  partition_keys: [store]
  model_map: {mapping: map.csv}
---
$schema: https://azuremlschemas.azureedge.net/latest/batchEndpoint.schema.json
name: shops
"""


@EITHER
def test_a_model_map_is_applied_with_its_files_and_changes_when_they_do(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "shops"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "east.pkl").write_text("east")
    (folder / "map.csv").write_text("store,model\neast,shops-by-file-default\n")
    (folder / "shops.yml").write_text(
        MODEL_MAPS.replace(
            "type: model", "$schema: https://azuremlschemas.azureedge.net/latest/modelBatchDeployment.schema.json"
        )
    )
    assert {each.state for each in client.apply(folder)} == {"done"}
    assert said(client.apply(folder)) == []
    stored = client.deployments.get("by-file", "shops").batchpoint.model_map
    assert stored is not None
    assert (stored.folder, stored.models_found) == ("azureml:shops-by-file-models:1", 1)
    (folder / "models" / "west.pkl").write_text("west")
    assert [each[1:] for each in said(client.apply(folder))] == [
        ("model shops-by-file-models:2", ["path"]),
        ("deployment shops/by-file", ["batchpoint.model_map.folder"]),
    ]
    changed = client.deployments.get("by-file", "shops").batchpoint.model_map
    assert changed is not None
    assert changed.models_found == 2
