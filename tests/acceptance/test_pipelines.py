"""Pipelines by the shipped command, the Python client and curl: started, retried, canceled, deployed, published."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shipped import Shipped

PREPARE = """
import csv, pathlib, sys, time

raw, times, out = sys.argv[1:4]
if times == "0":
    sys.exit("nothing to do: times is 0")
if times == "60":
    time.sleep(60)
for file in sorted(pathlib.Path(raw).glob("*.csv")):
    rows = list(csv.reader(file.open()))
    with (pathlib.Path(out) / file.name).open("w") as prepared:
        csv.writer(prepared).writerows([rows[0], *rows[1:] * int(times)])
print(f"prepared {times} times")
"""

SCORE = """
def init():
    pass

def run(mini_batch):
    return [sum(1 for _ in open(path)) - 1 for path in mini_batch]
"""

COMPONENT = """
$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponent.schema.json
type: pipeline
name: prepare_and_count
inputs:
  raw:
    type: uri_folder
  times:
    type: integer
    default: 2
outputs:
  counts:
    type: uri_folder
jobs:
  prepare:
    component: components/prepare.yml
    inputs:
      raw: ${{parent.inputs.raw}}
      times: ${{parent.inputs.times}}
  count:
    type: parallel
    inputs:
      data: ${{parent.jobs.prepare.outputs.prepared}}
    outputs:
      counts: ${{parent.outputs.counts}}
    input_data: ${{inputs.data}}
    mini_batch_size: "1"
    max_concurrency_per_instance: 1
    task:
      type: run_function
      code: code
      entry_script: count.py
      append_row_to: ${{outputs.counts}}
"""

PREPARE_COMPONENT = """
$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json
type: command
name: prepare
inputs:
  raw:
    type: uri_folder
  times:
    type: integer
outputs:
  prepared:
    type: uri_folder
command: python prepare.py ${{inputs.raw}} ${{inputs.times}} ${{outputs.prepared}}
code: ../code
"""

PIPELINE = """
$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json
type: pipeline
component: component.yml
inputs:
  raw:
    type: uri_folder
    path: raw
  times: 3
outputs:
  counts:
    type: uri_folder
"""

DEPLOYMENT = """
$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponentBatchDeployment.schema.json
type: pipeline
name: counting
endpoint_name: counts
component: component.yml
"""

COUNTS = "file,prediction\none.csv,6\ntwo.csv,3\n"
"""What ``PIPELINE`` puts out: two rows and one row, three times."""

PYTHON = """
import sys
from batchpoint import Client, Pipeline, load

with Client() as client:
    pipeline = Pipeline(
        component=load("component.yml"), inputs={"raw": {"type": "uri_folder", "path": "raw"}, "times": 3},
        outputs={"counts": {"type": "uri_folder"}},
    )
    job = client.jobs.create_or_update(pipeline).wait()
    assert list(job.steps()) == ["prepare", "count"]
    print((job.download("by-python") / "counts.csv").read_text(), end="")
"""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    """One home for all stories of this module: starting a server takes longer than most of them."""
    product = Shipped(tmp_path_factory.mktemp("home"))
    yield product
    product.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the scripts, the files above and two csv files of three rows in all."""
    for name, text in {
        "code/prepare.py": PREPARE, "code/count.py": SCORE, "component.yml": COMPONENT, "pipeline.yml": PIPELINE,
        "components/prepare.yml": PREPARE_COMPONENT, "deployment.yml": DEPLOYMENT, "raw/one.csv": "a\n1\n2\n",
        "raw/two.csv": "a\n3\n", "by_python.py": PYTHON,
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def curl(shipped: Shipped, method: str, path: str, body: Any = None) -> Any:
    """What the server of this home answers to curl."""
    server = shipped.server()
    address = path if path.startswith("http") else f"{server['url']}/api/v1{path}"
    command = ["curl", "-sS", "-X", method, address, "-H", f"Authorization: Bearer {server['token']}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def curl_text(shipped: Shipped, path: str) -> str:
    """The bytes that the server of this home answers to curl, as text."""
    server = shipped.server()
    command = ["curl", "-sS", f"{server['url']}/api/v1{path}", "-H", f"Authorization: Bearer {server['token']}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def counts_of(shipped: Shipped, job: str, folder: Path) -> str:
    shipped.ok("job", "download", "-n", job, "-p", folder / job, "--output-name", "counts")
    return (folder / job / "counts.csv").read_text()


def test_command_python_and_curl_start_the_same_pipeline(shipped: Shipped, folder: Path) -> None:
    said = shipped.run("job", "create", "-f", "pipeline.yml", "-n", "by-command", "--stream", cwd=folder)
    assert said.returncode == 0, said.stderr
    assert "prepare: prepared 3 times" in said.stdout
    assert said.stdout.index("Step prepare: completed") < said.stdout.index("Step count: completed")

    by_python = subprocess.run(
        [sys.executable, "by_python.py"], env=shipped.environment(), cwd=folder, capture_output=True, text=True,
        check=True, timeout=120,
    ).stdout  # fmt: skip

    shipped.ok("component", "create", "-f", "component.yml", cwd=folder)
    started = curl(shipped, "POST", "/jobs", {
        "component": "azureml:prepare_and_count@default",
        "inputs": {"raw": {"type": "uri_folder", "path": str(folder / "raw")}, "times": 3},
        "outputs": {"counts": {"type": "uri_folder"}},
    })  # fmt: skip
    shipped.wait(started["name"])

    found = [counts_of(shipped, "by-command", folder), by_python, counts_of(shipped, started["name"], folder)]
    assert found == [COUNTS] * 3
    steps = shipped.json("job", "show", "-n", started["name"])["steps"]
    assert [(step["step"], step["reused_from"]) for step in steps] == [
        ("prepare", "by-command-prepare"),
        ("count", "by-command-count"),
    ]


def test_every_fault_of_a_file_is_told_with_its_line_and_nothing_is_started(shipped: Shipped, folder: Path) -> None:
    component = folder / "component.yml"
    component.write_text(COMPONENT.replace("outputs.prepared}}", "outputs.prepard}}").replace("count.py", "cuont.py"))

    said = shipped.run("job", "create", "-f", "pipeline.yml", "-n", "never", cwd=folder)

    assert said.returncode == 2
    lines = component.read_text().splitlines()
    binding, script = (
        1 + next(i for i, line in enumerate(lines) if word in line) for word in ("prepard", "code: code")
    )
    assert f"component.yml:{binding}: " in said.stderr
    assert "Did you mean 'prepared'?" in said.stderr
    assert f"component.yml:{script}: " in said.stderr
    assert shipped.run("job", "validate", "-f", "pipeline.yml", cwd=folder).stderr == said.stderr
    assert shipped.run("job", "show", "-n", "never").returncode == 3


def test_a_pipeline_that_failed_goes_on_from_the_failed_step(shipped: Shipped, folder: Path) -> None:
    script = folder / "code" / "count.py"
    script.write_text(
        SCORE.replace("    return", "    import pathlib\n    pathlib.Path('MARK').read_text()\n    return")
    )
    mark = folder / "mark"
    script.write_text(script.read_text().replace("MARK", str(mark)))
    (folder / "component.yml").write_text(COMPONENT.replace("    task:", "    error_threshold: 0\n    task:"))

    failed = shipped.run("job", "create", "-f", "pipeline.yml", "-n", "fails", "--stream", cwd=folder)
    assert failed.returncode == 1
    assert "Step count: failed" in failed.stdout
    assert str(mark) in failed.stderr

    mark.write_text("")
    again = shipped.run("job", "retry", "-n", "fails", "--stream", "-o", "json", cwd=folder)
    assert again.returncode == 0, again.stderr
    body = shipped.json("job", "list", "--query", "[?retry_of=='fails'] | [0]")
    steps = {step["step"]: step for step in shipped.json("job", "show", "-n", body["name"])["steps"]}
    assert steps["prepare"]["reused_from"] == "fails-prepare"
    assert json.loads(again.stdout)["name"] == body["name"], "the log does not stand among what was asked for"
    assert "Step count: completed" in again.stderr
    quiet = shipped.run("job", "stream", "-n", body["name"], "--only-show-errors", cwd=folder)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert counts_of(shipped, body["name"], folder) == COUNTS


def test_canceling_a_pipeline_cancels_its_running_step(shipped: Shipped, folder: Path) -> None:
    job = shipped.json("job", "create", "-f", "pipeline.yml", "--set", "inputs.times=60", cwd=folder)["name"]
    stream = subprocess.Popen(
        [sys.executable, "-m", "batchpoint", "job", "stream", "-n", job],
        env=shipped.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert stream.stdout is not None
    next(line for line in stream.stdout if line == "Step prepare: running\n")

    shipped.ok("job", "cancel", "-n", job)

    assert "was canceled" in stream.communicate(timeout=60)[1]
    assert stream.returncode == 1
    assert [step["status"] for step in shipped.json("job", "show", "-n", job)["steps"]] == ["Canceled"]


def test_a_pipeline_deployment_is_invoked_with_data_and_a_literal(shipped: Shipped, folder: Path) -> None:
    shipped.ok("endpoint", "create", "-n", "counts")
    shipped.ok("deployment", "create", "-f", "deployment.yml", "--set-default", cwd=folder)

    (folder / "invoke.yml").write_text(
        "inputs:\n  raw: {type: uri_folder, path: raw}\n  times: {type: integer, default: 3}\n"
    )
    by_file = shipped.json("endpoint", "invoke", "-n", "counts", "--input-file", folder / "invoke.yml")
    by_curl = curl(shipped, "POST", "/endpoints/counts/invoke", {
        "inputs": {"raw": {"path": str(folder / "raw")}, "times": "3"}, "deployment_name": "counting",
    })  # fmt: skip
    asked = [
        "endpoint",
        "invoke",
        "-n",
        "counts",
        "--inputs",
        "raw=raw",
        "--inputs",
        "times=3",
        "--job-name",
        "by-options",
    ]
    assert "Step count: completed" in shipped.ok(*asked, "--stream", cwd=folder)

    for job in (by_file["name"], by_curl["name"], "by-options"):
        done = curl(shipped, "GET", f"/jobs/{job}/wait?seconds=60")
        assert (done["status"], done["deployment_name"], done["type"]) == ("completed", "counting", "pipeline")
        assert curl_text(shipped, f"/jobs/{job}/outputs/counts.csv") == COUNTS
    refused = shipped.run(
        "endpoint", "invoke", "-n", "counts", "--inputs", "raw=raw", "--inputs", "tines=3", cwd=folder
    )
    assert refused.returncode == 2
    assert "has no input 'tines'. Did you mean 'times'?" in refused.stderr


def test_a_published_pipeline_is_run_and_watched_with_curl(shipped: Shipped, folder: Path) -> None:
    shipped.ok("pipeline", "publish", "-n", "simple_pipeline", "-f", "pipeline.yml", cwd=folder)
    published = curl(shipped, "GET", "/pipelines/simple_pipeline")
    assert published["status"] == "Active"

    run = curl(shipped, "POST", published["endpoint"], {
        "ExperimentName": "nightly", "ParameterAssignments": {"times": "3"}, "Tags": {"by": "curl"},
    })  # fmt: skip
    shipped.wait(run["Id"])

    shown = curl(shipped, "GET", f"/pipelines/simple_pipeline/runs/{run['Id']}")
    assert (shown["Status"]["StatusCode"], shown["HasErrors"], shown["TotalRunSteps"]) == ("Finished", False, 2)
    assert (shown["Id"], shown["ExperimentName"], shown["ScheduleId"]) == (run["Id"], "nightly", None)
    assert shown["Status"]["CreationTime"] <= shown["Status"]["EndTime"]
    assert [each["Id"] for each in curl(shipped, "GET", "/pipelines/simple_pipeline/runs")["value"]] == [run["Id"]]
    assert counts_of(shipped, run["Id"], folder) == COUNTS

    shipped.ok("pipeline", "disable", "-n", "simple_pipeline")
    assert curl(shipped, "POST", published["endpoint"], {})["error"]["code"] == "conflict"
    assert "add --yes" in shipped.run("pipeline", "delete", "-n", "simple_pipeline").stderr
    shipped.ok("pipeline", "delete", "-n", "simple_pipeline", "--yes")
    assert shipped.json("pipeline", "list") == []
