"""``apply`` and ``delete -f`` as they are shipped: killed in the middle, run again, and taken back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchpoint import Client
from shipped import Shipped

SOLUTION = """\
type: amlcompute
name: cpu
max_instances: 2
---
type: local
$schema: https://azuremlschemas.azureedge.net/latest/datastore.schema.json
name: incoming
path: incoming
---
type: uri_folder
name: sales
path: data
---
type: custom_model
name: churn
path: model
---
$schema: https://azuremlschemas.azureedge.net/latest/batchEndpoint.schema.json
name: shop
defaults: {deployment_name: green}
"""

DEPLOYMENT = """\
name: {name}
endpoint_name: shop
model: azureml:churn
compute: azureml:cpu
code_configuration: {{code: code, scoring_script: score.py}}
mini_batch_size: 10
"""


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


def make_solution(folder: Path) -> Path:
    files = {
        "solution.yml": SOLUTION,
        "blue.yml": DEPLOYMENT.format(name="blue"),
        "green.yml": DEPLOYMENT.format(name="green"),
        "code/score.py": "def run(mini_batch):\n    return mini_batch\n",
        "data/a.csv": "x\n1\n",
        "model/weights": "1",
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def apply_and_kill(shipped: Shipped, folder: Path, *, after: int) -> None:
    """Run ``apply`` and kill it once it has told of so many steps that it did."""
    command = [sys.executable, "-m", "batchpoint", "apply", "-f", str(folder)]
    environment = shipped.environment()
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as applying:
        assert applying.stdout is not None
        told = 0
        for line in applying.stdout:
            told += line.startswith((b"create", b"update"))
            if told == after:
                applying.send_signal(signal.SIGKILL)
                break
        else:
            raise AssertionError("it ended before it was killed")


def everything(shipped: Shipped) -> list[dict[str, Any]]:
    """All that is stored; asked in this process, which is quicker than ten commands."""
    server = shipped.server()
    with Client(server["url"], server["token"], workspace=shipped.variables["BATCHPOINT_WORKSPACE"]) as client:
        doors = (client.computes, client.datastores, client.endpoints)
        found = [entity for door in doors for entity in door.list()]
        found += [one for endpoint in client.endpoints.list() for one in client.deployments.list(endpoint.name)]
        found += [
            asset for door in (client.models, client.data, client.codes) for asset in door.list(archived="include")
        ]
        return [entity.body() for entity in found]


def test_apply_that_is_killed_twice_is_completed_by_the_third_run(shipped: Shipped, tmp_path: Path) -> None:
    folder = make_solution(tmp_path / "solution")
    apply_and_kill(shipped, folder, after=2)
    apply_and_kill(shipped, folder, after=2)

    completed = shipped.ok("apply", "-f", folder)
    assert "unchanged    compute cpu" in completed
    assert "update       endpoint shop\n               defaults.deployment_name: (none) → green" in completed

    made = everything(shipped)
    assert [each["version"] for each in made if each["name"] in ("churn", "sales")] == ["1", "1"]
    assert shipped.ok("apply", "-f", folder).endswith("\n0 changes; 7 unchanged.\n")
    assert everything(shipped) == made, "ids, versions and times of change are the same"

    (folder / "blue.yml").write_text(DEPLOYMENT.format(name="blue").replace("size: 10", "size: 20"))
    planned = shipped.run("apply", "-f", folder, "--dry-run", "--exit-code")
    assert planned.returncode == 7
    changed = [line for line in planned.stdout.splitlines() if not line.startswith("unchanged")]
    assert changed == [
        "update       deployment shop/blue",
        "               settings.mini_batch_size: 10 → 20",
        "Nothing was changed: 1 to update, 6 unchanged.",
    ]
    assert everything(shipped) == made

    shipped.ok("compute", "update", "-n", "cpu", "--max-instances", "3")
    drifted = shipped.ok("apply", "-f", folder)
    assert "update       compute cpu\n               max_instances: 3 → 2\n" in drifted
    assert drifted.endswith("2 updated, 5 unchanged.\n")

    removed = shipped.json("delete", "-f", folder, "--yes")
    assert [each["name"] for each in removed["steps"]][-1] == "incoming"
    left = [each for each in everything(shipped) if not each.get("archived") and not each.get("content_hash")]
    assert [each["name"] for each in left] == ["local", "workspaceblobstore"]
    assert "0 changes; 7 unchanged." in shipped.ok("delete", "-f", folder, "--yes")


def test_a_failed_step_is_told_with_what_was_not_reached_and_the_next_run_continues(
    shipped: Shipped, tmp_path: Path
) -> None:
    folder = make_solution(tmp_path / "solution")
    (folder / "code" / "score.py").write_text("def run(mini_batch:\n")

    failed = shipped.run("apply", "-f", folder)

    assert failed.returncode == 2
    assert "failed       deployment shop/blue\n               score.py, line 1" in failed.stdout
    assert "not reached  deployment shop/green" in failed.stdout
    assert "5 created, 1 failed, 2 not reached." in failed.stdout
    (folder / "code" / "score.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    table = shipped.ok("apply", "-f", folder, "--dry-run", "-o", "table").splitlines()
    assert table[0].split() == ["action", "kind", "name", "state"]
    assert table[-1].split() == ["update", "endpoint", "shop", "planned"]
    shown = json.loads(shipped.ok("apply", "-f", folder, "-o", "json"))
    assert shown["changes"] == 3
