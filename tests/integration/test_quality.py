"""What the columns of a run hold: the same however many workers scored it, and whatever was killed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchpoint.entities.jobs import Reason
from batchpoint.entities.quality import Quality, QualityOptions
from batchpoint.scoring import runner
from batchpoint.scoring.ledger import Ledger, Record
from batchpoint.scoring.profile import Profiles
from batchpoint.scoring.quality import QualityLook
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
        gap = "" if number % 4 == 0 else str(number * 7919 % ROWS)
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


def test_mini_batches_are_added_up_in_their_order_whichever_was_done_first(make: Make) -> None:
    folder = make("run")
    assert runner.run(folder) is Reason.COMPLETED
    told, records = (folder / "quality.json").read_bytes(), [*Ledger.read(folder).values()]
    spec = ScoringSpec.read(folder)
    for mixed in (records[::-1], records[1::2] + records[::2], records[5:]):
        (folder / "quality.json").unlink()
        look = QualityLook(spec, folder)
        for record in mixed:
            look.note(record)
        look.finish(sorted(records, key=lambda record: record.mini_batch)).result()
        assert (folder / "quality.json").read_bytes() == told


def damage_a_sketch(folder: Path) -> None:
    """Leave a run as if it had been killed before it published, and one of its sketches unreadable."""
    part = Ledger.read(folder)[7].parts[0]
    with (folder / "segments" / part.segment).open("r+b") as segment:
        segment.seek(part.offset + part.length)
        segment.write(b"?" * part.sketched)
    for name in ("outcome.json", "quality.json"):
        (folder / name).unlink()


def test_a_sketch_that_cannot_be_read_costs_no_prediction_and_a_notice_tells_of_it(make: Make) -> None:
    folder = make("run")
    runner.run(folder)
    damage_a_sketch(folder)
    assert runner.run(folder) is Reason.COMPLETED
    outcome = json.loads((folder / "outcome.json").read_bytes())
    assert any("could not be told" in notice for notice in outcome["notices"]), outcome
    assert outcome["receipt"]["ok"] == ROWS - 1
    assert not (folder / "quality.json").exists()


def test_a_sketch_that_cannot_be_read_is_no_check_that_passes(make: Make) -> None:
    folder = make("run", quality=QualityOptions.model_validate({"output_ranges": {"doubled": {"most": 1e6}}}))
    assert runner.run(folder) is Reason.COMPLETED
    damage_a_sketch(folder)
    reason = runner.run(folder)
    assert reason is not Reason.COMPLETED
    assert "cannot be read" in json.loads((folder / "outcome.json").read_bytes())["error"]["message"]


def test_columns_of_the_output_are_known_by_the_names_that_they_are_published_under(make: Make) -> None:
    folder = make("run", quality=QualityOptions.model_validate({"output_ranges": {"price": {"least": 0}}}))
    spec = ScoringSpec.read(folder)
    output = spec.output.model_copy(update={"rename": {"doubled": "price", "colour": "tint"}})
    spec.model_copy(update={"output": output}).write(folder)
    assert runner.run(folder) is Reason.COMPLETED
    found = [(column.side, column.name) for column in quality_of(folder).columns]
    assert found == [("input", "x"), ("input", "colour"), ("input", "gaps"), ("output", "price")]
    assert (folder.parent / "run-out" / "predictions.csv").read_text().splitlines()[0] == "file,row,price"


@pytest.mark.parametrize("is_finishing", [False, True])
def test_a_look_that_is_closed_stops_after_the_mini_batch_at_hand(
    make: Make, monkeypatch: pytest.MonkeyPatch, is_finishing: bool
) -> None:
    folder = make("run")
    assert runner.run(folder) is Reason.COMPLETED
    (folder / "quality.json").unlink()
    first, *others = sorted(Ledger.read(folder).values(), key=lambda record: record.mini_batch)
    started, taken = threading.Event(), []

    def add(_: Profiles, record: Record) -> None:
        taken.append(record.mini_batch)
        started.set()
        time.sleep(0.05)

    monkeypatch.setattr(Profiles, "add", add)
    look = QualityLook(ScoringSpec.read(folder), folder)
    for record in () if is_finishing else (*others, first):
        look.note(record)
    promised = look.finish([first, *others]) if is_finishing else None
    assert started.wait(10)
    look.close()
    assert len(taken) < 10, "the others waited for the first"
    assert not (folder / "quality.json").exists()
    if promised is not None:
        assert promised.cancelled() or isinstance(promised.exception(), CancelledError)


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


def outcome(folder: Path) -> dict[str, Any]:
    """How a run ended."""
    found: dict[str, Any] = json.loads((folder / "outcome.json").read_bytes())
    return found


def checked(make: Make, name: str, reference: Path, **options: Any) -> Path:
    """A run that is compared with another one."""
    folder = make(name, quality=QualityOptions.model_validate(options))
    (folder / "reference.json").write_bytes((reference / "quality.json").read_bytes())
    return folder


def shift(folder: Path, by: float) -> None:
    """Move every x of the input."""
    data = folder / "data.csv"
    head, *lines = data.read_text().splitlines()
    cells = (line.split(",") for line in lines)
    moved = [f"{float(x) + by:.6f},{colour},{gap}" for x, colour, gap in cells]
    data.write_text("\n".join([head, *moved]) + "\n")


def test_the_same_data_pass_and_shifted_ones_are_withheld(make: Make, tmp_path: Path) -> None:
    before = make("before")
    assert runner.run(before) is Reason.COMPLETED
    clean = checked(make, "clean", before, max_drift=0.25, max_missing_change=0.1)
    assert runner.run(clean) is Reason.COMPLETED
    shift(tmp_path, 20)
    shifted = checked(make, "shifted", before, max_drift=0.25, max_missing_change=0.1)
    assert runner.run(shifted) is Reason.QUALITY_CHECK_FAILED
    told = outcome(shifted)
    assert told["error"]["code"] == "quality_check_failed"
    assert "Nothing was published: input column x has drifted by" in told["error"]["message"]
    assert "; the limit is 0.25; output column doubled has drifted by" in told["error"]["message"]
    assert told["outputs"] == {}
    assert told["quality"]["reference"] == "job"
    assert not (tmp_path / "shifted-out").exists()
    withheld = shifted / "withheld"
    assert str(withheld) in told["error"]["message"]
    assert (withheld / "predictions.csv").read_text().count("\n") == ROWS
    assert json.loads((withheld / "receipt.json").read_bytes())["balanced"]
    assert told["receipt"]["ok"] == ROWS - 1
    found = quality_of(shifted)
    assert [(check.check, check.column) for check in found.failed_checks] == [
        ("max_drift", "x"),
        ("max_drift", "doubled"),
    ]
    assert {column.name: column.drifted > 0.25 for column in found.columns} == {
        "x": True, "colour": False, "gaps": False, "doubled": True,
    }  # fmt: skip


def test_a_canary_share_is_scored_and_checked_before_the_rest(make: Make, tmp_path: Path) -> None:
    before = make("before")
    assert runner.run(before) is Reason.COMPLETED
    clean = checked(make, "clean", before, max_drift=0.25, canary_percent=10)
    assert runner.run(clean) is Reason.COMPLETED
    outputs = [(tmp_path / f"{name}-out" / "predictions.csv").read_bytes() for name in ("before", "clean")]
    assert outputs[0] == outputs[1], "in the order of the input all the same"
    shift(tmp_path, 20)
    shifted = checked(make, "shifted", before, max_drift=0.25, canary_percent=10)
    assert runner.run(shifted) is Reason.QUALITY_CHECK_FAILED
    assert sorted(Ledger.read(shifted)) == [0, 10, 20, 30], "a tenth, spread over the input; nothing else was scored"
    assert "Only 10 % of the mini-batches were scored." in outcome(shifted)["error"]["message"]
    assert not (tmp_path / "shifted-out").exists()
    assert (shifted / "withheld" / "predictions.csv").read_text().count("\n") == 401
    assert quality_of(shifted).canary_percent == 10


def test_a_run_that_is_killed_while_its_canary_is_scored_goes_on_to_the_same_end(make: Make, tmp_path: Path) -> None:
    before = make("before")
    assert runner.run(before) is Reason.COMPLETED
    folder = checked(make, "canary", before, max_drift=0.25, canary_percent=30)
    for wanted in (2, 20):
        process = start(folder)
        deadline = time.monotonic() + 60
        while len(Ledger.read(folder)) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert start(folder).wait(120) == 0
    assert outcome(folder)["reason"] == "completed"
    outputs = [(tmp_path / f"{name}-out" / "predictions.csv").read_bytes() for name in ("before", "canary")]
    assert outputs[0] == outputs[1]


def test_failures_and_ranges_are_checked_without_a_reference(make: Make) -> None:
    options = {"max_failure_rate": 0.0001, "output_ranges": {"doubled": {"most": 200}}, "max_drift": 0.1}
    folder = make("run", quality=QualityOptions.model_validate(options))
    assert runner.run(folder) is Reason.QUALITY_CHECK_FAILED
    told = outcome(folder)
    assert "0.03% of the items failed (1 of 4,000); the limit is 0.01%" in told["error"]["message"]
    assert "output column doubled goes up to" in told["error"]["message"]
    assert told["notices"] == ["Drift and missing values were not checked: there is no reference yet to compare with."]


@pytest.mark.parametrize(
    ("returned", "unseen"),
    [
        ("{'score': [0.5] * 600 + [1e9, 'oops']}", 602),
        ("{'score': [10**400, 1]}", 2),
        ("{'other': [1]}", 1),
    ],
    ids=["a text behind the sample", "a number too large", "another column"],
)
def test_what_could_not_be_looked_at_is_not_published(make: Make, tmp_path: Path, returned: str, unseen: int) -> None:
    (tmp_path / "data.csv").write_text("x\n" + "1\n" * 100 + "1000\n" * 100)
    options = {"output_ranges": {"score": {"least": 0, "most": 1}}}
    folder = make("run", quality=QualityOptions.model_validate(options))
    (tmp_path / "code" / "score.py").write_text(
        "import pandas as pd\n"
        "def run(rows):\n"
        f"    found = {{'score': [0.5] * len(rows)}} if rows['x'].iloc[0] < 999 else {returned}\n"
        "    return pd.DataFrame(found)\n"
    )
    assert runner.run(folder) is Reason.QUALITY_CHECK_FAILED
    message = outcome(folder)["error"]["message"]
    assert f"output column score could not be looked at in {unseen} of its {100 + unseen} rows" in message
    assert not (tmp_path / "run-out").exists()


def test_a_checked_column_of_a_wide_table_is_looked_at_and_a_notice_counts_those_that_are_not(
    make: Make, tmp_path: Path
) -> None:
    options = {"output_ranges": {"c299": {"least": 0, "most": 1}}}
    (tmp_path / "data.csv").write_text("x\n" + "1\n" * 200)
    good, bad = (make(name, quality=QualityOptions.model_validate(options)) for name in ("good", "bad"))
    for folder, value in ((good, 1), (bad, 5)):
        (tmp_path / "code" / "score.py").write_text(
            "import pandas as pd\n"
            "def run(rows):\n"
            f"    return pd.DataFrame({{f'c{{at}}': [{value}] * len(rows) for at in range(300)}})\n"
        )
        runner.run(folder)
    told = outcome(good)
    assert told["reason"] == "completed"
    assert told["notices"] == [
        "43 columns were not looked at, nor checked: a table's first 256 are, and those that output_ranges names."
    ]
    assert quality_of(good).left_out == 43
    assert "output column c299 goes up to 5; the limit is 1" in outcome(bad)["error"]["message"]
