"""The log of a provisioning, and a pipeline over devices and sensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchpoint import Client
from batchpoint.background.service import Background
from batchpoint.client.provisioning import STEPS, CreationLog, Item, Provisioner
from batchpoint.entities.provisioning import Provisioning, read_configuration
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
    folder = tmp_path / "solution"
    folder.mkdir()
    (folder / "batch.py").write_text("import sys\n")
    (folder / "data.txt").write_text("1\n")
    given = {
        "sched_frequency": "Day", "sched_interval": 2, "device_ids": [1, 2], "sensors": [5],
        "data_folder": str(folder), "batch_script_folder": str(folder),
    }  # fmt: skip
    context = Context(workspace, Background(workspace, runner_parent=FAKE_RUNNER), "s1", shares_files=shares_files)
    secret, _ = workspace.tokens.create("admin-token", "admin")
    with served(context, secret) as http, Client(str(http.base_url), secret) as client:

        def provision(configuration: Provisioning) -> list[Item]:
            items: list[Item] = []
            provisioner = Provisioner(client, configuration, tmp_path / "home", items.append)
            provisioner.provision(CreationLog(folder / "Logs", {}))
            return items

        if not shares_files:
            with pytest.raises(InvalidEntityError, match="Give container_root"):
                provision(read_configuration(given, name="pipeline_config.json"))
            given["container_root"] = str(tmp_path / "containers")
        configuration = read_configuration(given, name="pipeline_config.json")
        provision(configuration)
        assert {item.state for item in provision(configuration)} == {"exists"}

        (component,) = client.components.list()
        commands = [step.command for step in component.jobs.values()]
        assert sorted(component.jobs) == ["device_1_sensor_5", "device_2_sensor_5"]
        assert [str(command).split()[-2:] for command in commands] == [['"1"', '"5"'], ['"2"', '"5"']]
        (folder / "data.txt").write_text("2\n")
        client.computes.update("dummybatch", changes={"max_instances": 3})
        again = {item.kind: item for item in provision(configuration)}
        assert (again["file"].state, again["pipeline"].state) == ("updated", "exists")
        assert again["compute"].note == (
            "Standard_D2 with 2 to 3 instances, not Standard_D2 with 2 to 2 instances: these count at creation only"
        )
