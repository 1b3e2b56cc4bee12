"""Workers, runner and server are killed at random moments; nothing is lost, doubled or changed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from shipped import Shipped

SCRIPT = """
import time

def init():
    pass

def run(rows):
    time.sleep(0.001)
    if (rows["value"] < 0).any():
        raise ValueError("value is negative")
    return rows["value"] * 2
"""

DEPLOYMENT = """
name: blue
endpoint_name: torture
code_configuration:
  code: ./code
  scoring_script: score.py
model:
  path: ./model.txt
resources:
  instance_count: 1
settings:
  max_concurrency_per_instance: 2
  mini_batch_size: 10
  retry_settings: {max_retries: 1, timeout: 30}
batchpoint:
  mini_batch_type: dataframe
  split: rows
"""

MINI_BATCHES = 2_000
ROWS = MINI_BATCHES * 10


@pytest.mark.timeout(280)
def test_a_job_killed_again_and_again_ends_in_the_same_bytes(shipped: Shipped, tmp_path: Path) -> None:
    torture(shipped, tmp_path, kills=8)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_job_killed_fifty_times_over_ends_in_the_same_bytes(shipped: Shipped, tmp_path: Path) -> None:
    torture(shipped, tmp_path, kills=50)


def torture(shipped: Shipped, tmp_path: Path, *, kills: int) -> None:
    """Kill processes of running jobs until ``kills`` have been killed; compare each job with an undisturbed one."""
    declare(shipped, tmp_path)
    expected = contents(shipped, finished(shipped, start(shipped, tmp_path, "calm")))
    chance = random.Random(20_240_501)  # which process dies when is no secret
    killed: list[str] = []
    round_number = 0
    while len(killed) < kills:
        round_number += 1
        job = start(shipped, tmp_path, f"storm-{round_number}")
        disturb(shipped, job, chance, killed, kills)
        assert contents(shipped, finished(shipped, job)) == expected, f"after {killed}"
    assert {"worker", "runner"} <= set(killed)


def declare(shipped: Shipped, tmp_path: Path) -> None:
    """Register the model, the endpoint and the deployment, and write the input with 1 % bad rows."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "model.txt").write_text("a model")
    (tmp_path / "deployment.yml").write_text(DEPLOYMENT)
    bad = set(random.Random(7).sample(range(ROWS), ROWS // 100))  # test data
    lines = "".join(f"{row},{-1 if row in bad else row}\n" for row in range(ROWS))
    (tmp_path / "input.csv").write_text("id,value\n" + lines)
    shipped.ok("endpoint", "create", "-n", "torture")
    shipped.ok("deployment", "create", "-f", tmp_path / "deployment.yml", "--set-default")


def start(shipped: Shipped, tmp_path: Path, name: str) -> str:
    shipped.ok("endpoint", "invoke", "-n", "torture", "--input", tmp_path / "input.csv", "--job-name", name)
    return name


def disturb(shipped: Shipped, job: str, chance: random.Random, killed: list[str], kills: int) -> None:
    """While the job runs, kill a random one of its processes at random moments."""
    folder = shipped.home / "jobs" / job
    while len(killed) < kills and not (folder / "outcome.json").exists():
        time.sleep(chance.uniform(0.1, 0.8))
        kind = chance.choice(["worker", "worker", "runner", "server"])
        if kind == "server":
            pids = [shipped.server()["pid"]]
        else:
            pids = shipped.workers() if kind == "worker" else shipped.runners()
        if not pids or (folder / "outcome.json").exists():
            continue
        try:
            os.kill(chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed.append(kind)
        if kind == "server":
            shipped.ok("up")


def finished(shipped: Shipped, job: str) -> str:
    shown = shipped.wait(job)
    assert shown["status"].lower() == "completed", shown
    return job


def contents(shipped: Shipped, job: str) -> dict[str, bytes]:
    """The published files; the receipt without the job's own name, and adding up."""
    folder = shipped.output(job)
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    receipt = json.loads(found.pop("receipt.json"))
    assert receipt["balanced"]
    assert receipt["items"] == ROWS == receipt["ok"] + receipt["failed"] + receipt["skipped"]
    assert receipt["failed"] == ROWS // 100 == len(found["errors.jsonl"].splitlines())
    return found
