"""The log of a provisioning, and a pipeline over devices and sensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchpoint import Client
from batchpoint.background.service import Background
from batchpoint.client.provisioning import STEPS, CreationLog, Item, Provisioner
from batchpoint.entities.pipelines import CommandStep, dependencies
from batchpoint.entities.provisioning import read_configuration
from batchpoint.errors import InvalidEntityError
from batchpoint.server.context import Context
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, served


def test_the_log_is_true_at_any_time_and_the_overview_has_a_line_for_each_run(tmp_path: Path) -> None:
    log = CreationLog(tmp_path, {"pipeline_name": "p"})
    assert set(json.loads(log.path.read_text())["steps"].values()) == {"Incomplete"}
    with log.step("Context"):
        pass
    with pytest.raises(ZeroDivisionError), log.step("Workspace"):
        1 / 0  # noqa: B018 - it is to fail
    before_the_end = json.loads(log.path.read_text())
    assert isinstance(before_the_end["steps"].pop("Context"), float)
    assert before_the_end["steps"] == dict.fromkeys(STEPS[1:], "Incomplete")
    assert (before_the_end["type"], before_the_end["info"]) == ("BatchScoring", {"pipeline_name": "p"})
    log.end()
    CreationLog(tmp_path, {}).end()
    kind, path, seconds = (tmp_path / "Overview.csv").read_text().splitlines()[1].split(",")
    assert (kind, Path(path), float(seconds) >= 0) == ("BatchScoring", log.path, True)
    assert len((tmp_path / "Overview.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("shares_files", [True, False])
def test_a_script_is_run_for_each_pair_of_device_and_sensor(
    workspace: Workspace, tmp_path: Path, *, shares_files: bool
) -> None:
    given = many_sensors(tmp_path)
    context = Context(workspace, Background(workspace, runner_parent=FAKE_RUNNER), "s1", shares_files=shares_files)
    secret, _ = workspace.tokens.create("admin-token", "admin")
    with served(context, secret) as http, Client(str(http.base_url), secret) as client:

        def provision() -> list[Item]:
            items: list[Item] = []
            solution = read_configuration(given, name="pipeline_config.json").solution()
            Provisioner(client, solution, tmp_path / "home", items.append).provision(CreationLog(tmp_path / "Logs", {}))
            return items

        if not shares_files:
            with pytest.raises(InvalidEntityError, match="Give container_root"):
                provision()
            given["container_root"] = str(tmp_path / "containers")
        made = {item.name: item for item in provision()}
        assert made["rg_pipeline_environment:1"].note.startswith("steps run under Python 3.")
        assert {item.state for item in provision()} == {"exists"}

        (component,) = client.components.list()
        steps = [step for step in component.jobs.values() if isinstance(step, CommandStep)]
        assert list(component.jobs) == [f"device_{pair[0]}_sensor_{pair[1]}" for pair in PAIRS]
        assert [str(step.command).split()[2:4] for step in steps] == [[f'"{each}"' for each in pair] for pair in PAIRS]
        assert {step.environment for step in steps} == {"azureml:rg_pipeline_environment:1"}
        assert not any(dependencies(step) for step in steps), "they run in parallel"
        models, data = ({step.inputs[name].path for step in steps} for name in ("models", "data"))
        assert (models, data) == ({"azureml:modelsref:1"}, {"azureml:dataref:1"})
        (tmp_path / "data" / "sensor_data.csv").write_text("2\n")
        client.computes.update("cluster", changes={"max_instances": 3})
        again = {item.kind: item for item in provision() if item.state == "updated" or item.kind == "compute"}
        assert (sorted(again), again["file"].name) == (["compute", "file"], "sensor_data.csv")
        assert again["compute"].note == (
            "Standard_D2 with 0 to 3 instances, not Standard_D2 with 0 to 2 instances: counts at creation only"
        )


def test_what_the_schedule_starts_is_a_run_of_the_pipeline_and_all_of_it_is_taken_away(
    workspace: Workspace, tmp_path: Path
) -> None:
    context = Context(workspace, Background(workspace, runner_parent=FAKE_RUNNER), "s1", shares_files=True)
    secret, _ = workspace.tokens.create("admin-token", "admin")
    with served(context, secret) as http, Client(str(http.base_url), secret) as client:
        items: list[Item] = []
        solution = read_configuration(many_sensors(tmp_path), name="pipeline_config.json").solution()
        provisioner = Provisioner(client, solution, tmp_path / "home", items.append)
        provisioner.provision(CreationLog(tmp_path / "Logs", {}))
        started = client.schedules.trigger("rg_sched")
        (run,) = client.pipelines.runs("rg_pipeline")
        assert (run["Id"], run["ScheduleId"], run["TotalRunSteps"]) == (started.name, "rg_sched", len(PAIRS))
        assert run["ExperimentName"] == "rg", "that of the published pipeline"
        items.clear()
        provisioner.remove()
        assert {item.state for item in items} == {"deleted"}
        assert [item.kind for item in items][:3] == ["run", "schedule", "pipeline"]
        items.clear()
        provisioner.remove()
        assert {item.state for item in items} == {"gone"}


PAIRS = [(device, sensor) for device in (1, 2, 3) for sensor in (1, 2, 3, 4, 5)]


def many_sensors(folder: Path) -> dict[str, object]:
    """The configuration of a solution whose files lie in ``folder``."""
    for name in ("models", "data", "scripts"):
        (folder / name).mkdir()
    for device, sensor in PAIRS:
        (folder / "models" / f"model_{device}_{sensor}.json").write_text("{}")
    (folder / "data" / "sensor_data.csv").write_text("1\n")
    (folder / "scripts" / "predict.py").write_text("import sys\n")
    return {
        "resource_group_name": "rg", "cluster_name": "cluster", "data_blob": "sensor_data.csv",
        "python_script_name": "predict.py", "python_script_directory": str(folder / "scripts"),
        "models_folder": str(folder / "models"), "data_folder": str(folder / "data"), "pip_packages": ["numpy"],
        "python_version": "2.7", "device_ids": [1, 2, 3], "sensors": [1, 2, 3, 4, 5],
    }  # fmt: skip
