"""Every folder of ``examples/``, run as its README says, in a copy."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchpoint import Client
from shipped import Shipped

CHECKOUT = Path(__file__).resolve().parents[2]


def copy_of(name: str, folder: Path) -> Path:
    """The example, without what running it has left there."""
    target = folder / "examples" / name
    shutil.copytree(CHECKOUT / "examples" / name, target, ignore=shutil.ignore_patterns("made", "__pycache__"))
    return target


def make_data(example: Path) -> None:
    subprocess.run([sys.executable, "make_data.py", "made"], cwd=example, check=True, timeout=120)


def invoke(shipped: Shipped, example: Path, endpoint: str, *options: str) -> Path:
    """Deploy the example, score its data to the end, and download the output."""
    shipped.ok("endpoint", "create", "--file", "endpoint.yml", cwd=example)
    shipped.ok("deployment", "create", "--file", "deployment.yml", "--set-default", cwd=example)
    applied = shipped.ok("apply", "--file", ".", "--dry-run", cwd=example)
    assert "0 changes" in applied, "what the commands made is what the files declare"
    asked = ["--name", endpoint, "--input", "made/data", "--job-name", "job", "--stream", *options]
    shipped.ok("endpoint", "invoke", *asked, cwd=example)
    shipped.ok("job", "download", "--name", "job", "--download-path", "output", cwd=example)
    return example / "output"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def counts(output: Path) -> tuple[int, int, int]:
    receipt = json.loads((output / "receipt.json").read_text())
    assert receipt["balanced"]
    return receipt["items"], receipt["ok"], receipt["failed"]


def test_the_heart_classifier_scores_every_patient_of_four_files(shared: Shipped, tmp_path: Path) -> None:
    example = copy_of("heart-classifier-script", tmp_path)
    make_data(example)
    output = invoke(shared, example, "heart-classifier")
    rows = rows_of(output / "predictions.csv")
    assert counts(output) == (4, 4, 0)
    assert [int(row["patient"]) for row in rows] == [*range(100), *range(100), *range(100), *range(3)]
    assert all((float(row["probability"]) > 0.5) == (row["ill"].lower() == "true") for row in rows)


def test_the_digits_are_read_right_but_for_a_few(shared: Shipped, tmp_path: Path) -> None:
    example = copy_of("digits-images", tmp_path)
    make_data(example)
    output = invoke(shared, example, "digits")
    rows = rows_of(output / "digits.csv")
    assert counts(output) == (360, 360, 0)
    assert [row["image"] for row in rows] == sorted(path.name for path in (example / "made" / "data").iterdir())
    right = sum(f"-is-{row['digit']}." in row["image"] for row in rows)
    assert right > 340


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_the_network_reads_rows_as_data_frames(shared: Shipped, tmp_path: Path) -> None:
    example = copy_of("torch-mlp", tmp_path)
    make_data(example)
    output = invoke(shared, example, "digits-torch")
    table = pq.read_table(output / "digits.parquet")
    assert counts(output) == (360, 360, 0)
    assert table.num_rows == 360
    assert set(table["digit"].to_pylist()) == set(range(10))


def test_a_script_writes_its_own_parquet_files(shared: Shipped, tmp_path: Path) -> None:
    example = copy_of("custom-outputs-parquet", tmp_path)
    make_data(example)
    output = invoke(shared, example, "sensor-outliers")
    assert counts(output) == (8, 8, 0)
    written = sorted(output.rglob("device-*.parquet"))
    assert [path.name for path in written] == [f"device-{device}.parquet" for device in range(1, 9)]
    assert [pq.read_metadata(path).num_rows for path in written] == [500] * 8


def run_python(shipped: Shipped, example: Path, *arguments: str) -> str:
    """A script of the example, which speaks to the server of this home."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=example, env=shipped.environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(240)
def test_a_model_for_each_sensor_finds_every_outlier_and_a_missing_one_fails_its_own_rows(
    shared: Shipped, tmp_path: Path
) -> None:
    example = copy_of("iot-anomaly", tmp_path)
    run_python(shared, example, "simulate_readings.py", "made")
    assert "15 models" in run_python(shared, example, "train.py", "made")
    output = invoke(shared, example, "iot-anomaly", "--set", "max_concurrency_per_instance=1")
    assert counts(output) == (17768, 17768, 0)
    said = run_python(shared, example, "check_predictions.py", "made", "output")
    assert "17,768 predictions in one file and in 15: all 30 outliers flagged" in said
    receipt = json.loads((output / "receipt.json").read_text())
    assert sorted(receipt["key_files"]) == sorted(path.name for path in output.glob("preds_*.csv"))
    assert sum(receipt["key_files"].values()) == 17768

    asked = ["--name", "iot-anomaly", "--input", "made/data", "--set", "max_concurrency_per_instance=4"]
    shared.ok("endpoint", "invoke", *asked, "--job-name", "four", "--stream", cwd=example)
    assert (shared.output("four") / "predictions.csv").read_bytes() == (output / "predictions.csv").read_bytes()

    shared.ok("model", "archive", "--name", "model_2_3")
    shared.ok("endpoint", "invoke", *asked, "--job-name", "lacking", "--stream", cwd=example)
    ours = [row for row in rows_of(output / "predictions.csv") if (row["Device"], row["Sensor"]) != ("2", "3")]
    assert rows_of(shared.output("lacking") / "predictions.csv") == ours
    assert len(list(shared.output("lacking").glob("preds_*.csv"))) == 14
    board = ["--endpoint-name", "iot-anomaly", "--name", "one-class-svm"]
    (failing,) = shared.json("deployment", "models", *board, "--failed")
    assert failing["key"] == {"Device": "2", "Sensor": "3"}
    assert failing["failed"] == 17768 - len(ours)
    assert failing["last_job_name"] == "lacking"
    assert len(shared.json("deployment", "models", *board, "--sort", "rows")) == 15
    (report,) = shared.json("job", "models", "--name", "lacking", "--failed")
    assert report["failed"] == failing["failed"]


def test_one_command_provisions_a_scheduled_script_and_a_second_one_creates_nothing(
    shipped: Shipped, tmp_path: Path
) -> None:
    example = copy_of("provisioning", tmp_path)
    command = ("provision", "--config", "batchconfiguration.json")

    made = shipped.json(*command, cwd=example)
    assert {item["state"] for item in made["items"] if item["kind"] != "workspace"} == {"created"}
    kinds = [item["kind"] for item in made["items"]]
    assert kinds == ["workspace", *["datastore"] * 2, "file", "compute", *["data"] * 2, "pipeline", "schedule"]
    with Client(shipped.server()["url"], shipped.server()["token"]) as client:
        before = provisioned(client)
        found = shipped.ok(*command, cwd=example).splitlines()
        assert {line.split()[0] for line in found[:-2]} == {"exists"}
        assert found[-2:] == [f"REST endpoint: {made['endpoint']}", "Schedule: simple_pipeline_sched, every 1 hour(s)"]
        assert provisioned(client) == before, "ids, versions and times of change are the same"

        (scheduled,) = client.jobs.list(schedule="simple_pipeline_sched")
        scheduled.wait(60)
        (result,) = (shipped.home / "containers" / "result").rglob("Results.txt")
        assert [line.split(": ")[0] for line in result.read_text().splitlines()] == ["Read", "Written"]

        (example / "code" / "batch.py").rename(example / "code" / "other.py")
        failed = shipped.run(*command, cwd=example)
        assert (failed.returncode, "batch.py does not exist" in failed.stderr) == (2, True)

        shipped.ok(*command, "--delete", "--yes", cwd=example)
        assert [*client.schedules.list(), *client.data.list(), *client.pipelines.list()] == []
        assert [each.name for each in (*client.computes.list(), *client.datastores.list())] == [
            "local",
            "workspaceblobstore",
        ]
    logs = [json.loads(path.read_text()) for path in sorted((example / "Logs" / "BatchScoringLogs").iterdir())]
    assert [set(map(type, log["steps"].values())) for log in logs] == [{float}, {float}, {str}]
    assert set(logs[2]["steps"].values()) == {"Incomplete"}
    overview = rows_of(example / "Logs" / "Overview.csv")
    assert [row["type"] for row in overview] == ["BatchScoring"] * 3
    assert all((example / row["path"]).is_file() and float(row["seconds"]) >= 0 for row in overview)


def test_many_sensors_are_provisioned_from_their_own_file_and_each_pair_gets_its_predictions(
    shipped: Shipped, tmp_path: Path
) -> None:
    example = copy_of("provisioning", tmp_path)
    subprocess.run([sys.executable, "make_sensors.py", "made"], cwd=example, check=True, timeout=60)
    config = example / "pipeline_config.json"
    given = json.loads(config.read_text())
    assert len(given["device_ids"]) * len(given["sensors"]) == 15
    config.write_text(json.dumps(given | {"device_ids": [2], "sensors": [1, 5]}))
    command = ("provision", "--config", config.name)

    made = shipped.json(*command, cwd=example)
    kinds = [item["kind"] for item in made["items"]]
    parts = ["compute", *["data"] * 3, "environment", "pipeline", "schedule"]
    assert kinds == ["workspace", *["datastore"] * 3, *["file"] * 16, *parts]
    with Client(shipped.server()["url"], shipped.server()["token"]) as client:
        before = provisioned(client)
        again = shipped.run(*command, cwd=example)
        assert {line.split()[0] for line in again.stdout.splitlines()[:-2]} == {"exists"}
        assert "blob_account, blob_key: not used, and written down nowhere." in again.stderr
        assert provisioned(client) == before

        (first,) = client.jobs.list(schedule="many_sensors_sched")
        first.wait(60)
        (run,) = client.pipelines.runs("many_sensors_pipeline")
        assert (run["Id"], run["ScheduleId"], run["TotalRunSteps"]) == (first.name, "many_sensors_sched", 2)
    for sensor in (1, 5):
        (file,) = (shipped.home / "containers" / "preds").rglob(f"preds_2_{sensor}_*.csv")
        rows = rows_of(file)
        assert list(rows[0]) == ["TS", "Device", "Sensor", "Val", "Prediction"]
        assert (len(rows), sum(int(row["Prediction"]) for row in rows)) == (200, 1)
    shipped.ok(*command, "--delete", "--yes", cwd=example)


def provisioned(client: Client) -> list[dict[str, Any]]:
    doors = (
        client.computes, client.datastores, client.data, client.components, client.codes, client.pipelines,
        client.environments,
    )  # fmt: skip
    found = [entity.body() for door in doors for entity in door.list()]
    (schedule,) = client.schedules.list()
    return [*found, {**schedule.body(), "next_run_at": None}]


def on_the_path(folder: Path, shipped: Shipped) -> dict[str, str]:
    """The environment of somebody whose PATH finds ``batchpoint`` and ``python``, with the home that demos use."""
    commands = folder / "bin"
    commands.mkdir()
    for name, module in (("batchpoint", "-m batchpoint"), ("python", "")):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        script.chmod(0o755)
    # A demo keeps its home beside the examples; the fixture ends what was started for it.
    shipped.home = folder / ".demo" / "home"
    return {**shipped.environment(), "PATH": f"{commands}:{os.environ['PATH']}"}


def demo(example: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["sh", "demo.sh", *arguments], cwd=example, env=environment, capture_output=True, text=True, timeout=140,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_taxi_fares_end_well_and_a_second_run_reuses_what_exists(shipped: Shipped, tmp_path: Path) -> None:
    example = copy_of("nyc-taxi-fares", tmp_path)
    environment = on_the_path(tmp_path, shipped)
    first = demo(example, environment)
    assert "python train.py" in first
    assert "250,000 predictions for 250,000 trips, in input order" in first
    second = demo(example, environment)
    assert "python train.py" not in second
    assert "python simulate_trips.py" not in second
    assert "250,000 predictions for 250,000 trips, in input order" in second
    assert len(shipped.json("model", "list", "--name", "taxi-fares")) == 1


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_the_lab_loses_no_row_reuses_its_steps_and_gives_the_same_bytes_when_forced(
    shipped: Shipped, tmp_path: Path
) -> None:
    copy_of("nyc-taxi-fares", tmp_path)
    example = copy_of("nyc-taxi-lab", tmp_path)
    environment = on_the_path(tmp_path, shipped)

    def run(*arguments: str) -> tuple[str, dict[str, str | None], bytes]:
        """What the demo prints, which job each step was reused from, and the fares."""
        before = set((tmp_path / ".demo" / "taxi-lab").glob("*/**/nyc-taxi-fares.csv"))
        printed = demo(example, environment, *arguments)
        (fares,) = set((tmp_path / ".demo" / "taxi-lab").glob("*/**/nyc-taxi-fares.csv")) - before
        newest = shipped.json("job", "list")[0]["name"]
        steps = shipped.json("job", "list", "--parent-job-name", newest)
        return printed, {step["step_name"]: step.get("reused_job_name") for step in steps}, fares.read_bytes()

    printed, reused, fares = run()
    assert "11,734 trips x 21 = 246,414 predictions, each with a customer id of its own" in printed
    assert "together 246,414 rows: the logs add up" in printed
    logs = [line.split(":")[0].strip() for line in printed.splitlines() if "mini-batches," in line]
    assert logs == [f"node-{node}/process00{process}.log.txt" for node in (0, 1) for process in (0, 1)]
    assert reused == {"process_data": None, "inference": None}

    printed, reused, again = run()
    assert "python train.py" not in printed
    assert None not in reused.values()
    assert again == fares

    printed, reused, forced = run("--force")
    assert "together 246,414 rows: the logs add up" in printed
    assert reused == {"process_data": None, "inference": None}
    assert forced == fares
