"""What the columns of a run hold: the same however many workers scored it, and whatever was killed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchpoint.entities.jobs import Reason
from batchpoint.entities.quality import Quality
from batchpoint.scoring import runner
from batchpoint.scoring.ledger import Ledger
from batchpoint.scoring.spec import (
    InputSpec,
    Location,
    OutputSpec,
    RetrySpec,
    ScoringSpec,
    ScriptSpec,
    SplitSpec,
)

Make = Callable[..., Path]
ROWS = 4_000
SCRIPT = """
    import time
    def run(rows):
        time.sleep(0.02)
        if (rows["x"] > 999).any():
            raise ValueError("too large")
        rows["x"] *= 2
        return rows[["x"]].rename(columns={"x": "doubled"})
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the folder of a run over a csv file of a number, a text and a column with gaps."""
    random = np.random.default_rng(5)
    lines = ["x,colour,gaps"]
    for number, x in enumerate(random.normal(100, 15, ROWS)):
        gap = "" if number % 4 == 0 else str(number)
        lines.append(f"{1000 if number == 1234 else x:.6f},{'red' if number % 10 else 'blue'},{gap}")
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")

    def folder(name: str, **settings: Any) -> Path:
        source = tmp_path / "code" / "score.py"
        source.parent.mkdir(exist_ok=True)
        source.write_text(textwrap.dedent(SCRIPT))
        run = tmp_path / name
        run.mkdir()
        given: dict[str, Any] = {"retry": RetrySpec(max_retries=0), "sketches": True, **settings}
        ScoringSpec(
            job="job",
            python=sys.executable,
            script=ScriptSpec(kind="script", path=str(source), code_dir=str(source.parent), takes="dataframe"),
            input=InputSpec(locations=[Location(url=str(tmp_path / "data.csv"))]),
            split=SplitSpec(by="rows", rows=100),
            output=OutputSpec(folder=Location(url=str(tmp_path / f"{name}-out"))),
            **given,
        ).write(run)
        return run

    return folder


def quality_of(folder: Path) -> Quality:
    """What a run tells of its columns."""
    return Quality.model_validate_json((folder / "quality.json").read_bytes())


def test_a_run_tells_what_its_columns_held_and_what_failed_is_not_among_it(make: Make) -> None:
    folder = make("run")
    assert runner.run(folder) is Reason.COMPLETED
    found = quality_of(folder)
    assert found.items == ROWS - 1, "the row that failed is not counted"
    columns = {(column.side, column.name): column for column in found.columns}
    assert list(columns) == [("input", "x"), ("input", "colour"), ("input", "gaps"), ("output", "doubled")]
    x, doubled = columns["input", "x"], columns["output", "doubled"]
    assert x.mean == pytest.approx(100, abs=1), "as it was before the script changed it"
    assert doubled.mean == pytest.approx(2 * (x.mean or 0))
    assert columns["input", "gaps"].missing == ROWS // 4
    assert {one.value: one.rows for one in columns["input", "colour"].top} == {"red": 3599, "blue": 400}
    assert (folder.parent / "run-out" / "predictions.csv").read_text().count("\n") == ROWS


def test_one_worker_and_four_tell_the_same_to_the_last_byte(make: Make) -> None:
    one, four = make("one"), make("four", processes_per_instance=4)
    assert runner.run(one) is runner.run(four) is Reason.COMPLETED
    assert (one / "quality.json").read_bytes() == (four / "quality.json").read_bytes()
    outputs = [(folder.parent / f"{folder.name}-out" / "predictions.csv").read_bytes() for folder in (one, four)]
    assert outputs[0] == outputs[1]


def test_a_run_that_was_killed_and_resumed_counts_each_mini_batch_once(make: Make) -> None:
    calm, stormy = make("calm"), make("stormy", processes_per_instance=2)
    assert runner.run(calm) is Reason.COMPLETED
    for wanted in (1, 12):
        process = start(stormy)
        deadline = time.monotonic() + 60
        while len(Ledger.read(stormy)) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert not (stormy / "outcome.json").exists(), "it was killed before its end"
    assert start(stormy).wait(120) == 0
    assert (calm / "quality.json").read_bytes() == (stormy / "quality.json").read_bytes()


def test_without_sketches_nothing_is_told_and_the_predictions_are_the_same(make: Make) -> None:
    with_, without = make("with"), make("without", sketches=False)
    assert runner.run(with_) is runner.run(without) is Reason.COMPLETED
    assert not (without / "quality.json").exists()
    outputs = [(folder.parent / f"{folder.name}-out" / "predictions.csv").read_bytes() for folder in (with_, without)]
    assert outputs[0] == outputs[1]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A runner for this folder, as a process of its own."""
    command = [sys.executable, "-m", "batchpoint.scoring.runner"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"folder": str(folder)}).encode() + b"\n")
    process.stdin.close()
    return process
