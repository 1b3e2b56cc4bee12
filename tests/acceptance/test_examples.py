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

import pyarrow.parquet as pq
import pytest

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


def test_the_heart_classifier_scores_every_patient_of_four_files(shipped: Shipped, tmp_path: Path) -> None:
    example = copy_of("heart-classifier-script", tmp_path)
    make_data(example)
    output = invoke(shipped, example, "heart-classifier")
    rows = rows_of(output / "predictions.csv")
    assert counts(output) == (4, 4, 0)
    assert [int(row["patient"]) for row in rows] == [*range(100), *range(100), *range(100), *range(3)]
    assert all((float(row["probability"]) > 0.5) == (row["ill"].lower() == "true") for row in rows)


def test_the_digits_are_read_right_but_for_a_few(shipped: Shipped, tmp_path: Path) -> None:
    example = copy_of("digits-images", tmp_path)
    make_data(example)
    output = invoke(shipped, example, "digits")
    rows = rows_of(output / "digits.csv")
    assert counts(output) == (360, 360, 0)
    assert [row["image"] for row in rows] == sorted(path.name for path in (example / "made" / "data").iterdir())
    right = sum(f"-is-{row['digit']}." in row["image"] for row in rows)
    assert right > 340


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_the_network_reads_rows_as_data_frames(shipped: Shipped, tmp_path: Path) -> None:
    example = copy_of("torch-mlp", tmp_path)
    make_data(example)
    output = invoke(shipped, example, "digits-torch")
    table = pq.read_table(output / "digits.parquet")
    assert counts(output) == (360, 360, 0)
    assert table.num_rows == 360
    assert set(table["digit"].to_pylist()) == set(range(10))


def test_a_script_writes_its_own_parquet_files(shipped: Shipped, tmp_path: Path) -> None:
    example = copy_of("custom-outputs-parquet", tmp_path)
    make_data(example)
    output = invoke(shipped, example, "sensor-outliers")
    assert counts(output) == (8, 8, 0)
    written = sorted(output.rglob("device-*.parquet"))
    assert [path.name for path in written] == [f"device-{device}.parquet" for device in range(1, 9)]
    assert [pq.read_metadata(path).num_rows for path in written] == [500] * 8


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_the_demo_ends_well_and_a_second_one_reuses_what_exists(shipped: Shipped, tmp_path: Path) -> None:
    example = copy_of("nyc-taxi-fares", tmp_path)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in (("batchpoint", "-m batchpoint"), ("python", "")):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        script.chmod(0o755)
    # The demo keeps its home beside the examples; the fixture ends what was started for it.
    shipped.home = tmp_path / ".demo" / "home"
    environment = {**shipped.environment(), "PATH": f"{commands}:{os.environ['PATH']}"}

    def demo() -> str:
        done = subprocess.run(
            ["sh", "demo.sh"], cwd=example, env=environment, capture_output=True, text=True, timeout=140, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = demo()
    assert "python train.py" in first
    assert "250,000 predictions for 250,000 trips, in input order" in first
    second = demo()
    assert "python train.py" not in second
    assert "python simulate_trips.py" not in second
    assert "250,000 predictions for 250,000 trips, in input order" in second
    assert len(shipped.json("model", "list", "--name", "taxi-fares")) == 1
