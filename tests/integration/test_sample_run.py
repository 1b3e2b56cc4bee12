"""A run of a sample with real workers: what it counts is exact, and nothing is published."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from batchpoint.entities.forecasts import Forecast
from batchpoint.entities.jobs import Reason
from batchpoint.scoring import runner
from batchpoint.scoring.estimate import wilson
from batchpoint.scoring.ledger import Ledger
from batchpoint.scoring.spec import (
    InputSpec,
    Location,
    OutputSpec,
    RetrySpec,
    SampleSpec,
    ScoringSpec,
    ScriptSpec,
    SplitSpec,
    ThresholdSpec,
)


def sampled(folder: Path, script: str, **changes: Any) -> tuple[Reason, Path]:
    """Run a sample over 3 files of 40 numbered rows."""
    (folder / "score.py").write_text(script)
    (folder / "data").mkdir()
    for part in range(3):
        lines = "".join(f"{number}\n" for number in range(part * 40, part * 40 + 40))
        (folder / "data" / f"{part}.csv").write_text(f"n\n{lines}")
    run = folder / "run"
    run.mkdir()
    given = {
        "sample": SampleSpec(rows=48),
        "split": SplitSpec(by="rows", rows=20),
        "retry": RetrySpec(max_retries=0),
        "output": OutputSpec(folder=Location(url=str(folder / "out"))),
        **changes,
    }
    spec = ScoringSpec(
        job="plan-1",
        python=sys.executable,
        script=ScriptSpec(
            kind="script", path=str(folder / "score.py"), code_dir=str(folder), takes=changes.pop("takes", "dataframe")
        ),
        input=InputSpec(locations=[Location(url=f"{folder / 'data'}/")]),
        **{key: value for key, value in given.items() if key != "takes"},
    )
    spec.write(run)
    return runner.run(run), run


def forecast(run: Path) -> Forecast:
    return Forecast.model_validate_json((run / "forecast.json").read_bytes())


def test_a_sample_counts_the_whole_input_and_publishes_nothing(tmp_path: Path) -> None:
    script = "def run(rows):\n    return rows.assign(half=rows['n'] / 2, big=rows['n'] > 60)"
    reason, run = sampled(tmp_path, script)
    assert reason is Reason.COMPLETED, (run / "outcome.json").read_text()
    found = forecast(run)
    assert (found.items, found.items_are_exact, found.mini_batches, found.unit) == (120, True, 6, "rows")
    assert (found.sampled_items, found.sampled_files, found.failed_items) == (48, 3, 0)
    assert {column.name: column.type for column in found.output_columns} == {
        "file": "string", "row": "int64", "n": "int64", "half": "double", "big": "bool",
    }  # fmt: skip
    assert found.peak_memory_per_worker
    assert not (tmp_path / "out").exists()
    assert "receipt" not in {key for key, value in json.loads((run / "outcome.json").read_text()).items() if value}


def test_failures_of_the_sample_become_a_rate_with_its_errors_and_thresholds_are_foretold(tmp_path: Path) -> None:
    script = "def run(rows):\n    if (rows['n'] % 2).any():\n        raise ValueError('odd')\n    return rows['n']"
    reason, run = sampled(tmp_path, script, thresholds=ThresholdSpec(items=3), sample=SampleSpec(rows=120))
    assert reason is Reason.COMPLETED
    found = forecast(run)
    assert found.sampled_items > 80, "it goes on, threshold or not"
    failed = sum(record.failed for record in Ledger.read(run).values())
    assert found.failed_items == failed == pytest.approx(found.sampled_items / 2, rel=0.2)
    assert found.failure_rate == wilson(failed, found.sampled_items)
    assert {error.message for error in found.errors} == {"odd"}
    assert len(found.errors) == 5
    (warning,) = found.thresholds
    assert warning.startswith("error_threshold 3 would be exceeded: about ")


def test_that_every_item_fails_is_a_forecast_too(tmp_path: Path) -> None:
    reason, run = sampled(tmp_path, "def run(rows):\n    raise ValueError('always')")
    assert reason is Reason.COMPLETED
    assert forecast(run).failure_rate.estimate == 1.0
    assert forecast(run).output_columns == []


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_predictions_with_long_texts_line_feeds_and_two_kinds_of_values_have_columns_too(
    tmp_path: Path, form: str
) -> None:
    script = (
        "def run(rows):\n    texts = ['a\\n\"b\"' * 100_000 for _ in rows['n']]\n"
        "    return rows.assign(text=texts, mixed=[1 if n % 2 else 'one' for n in rows['n']])"
    )
    output = OutputSpec(folder=Location(url=str(tmp_path / "out")), format=form, file_name=f"predictions.{form}")
    reason, run = sampled(tmp_path, script, output=output, sample=SampleSpec(rows=16))
    assert reason is Reason.COMPLETED, (run / "outcome.json").read_text()
    assert [column.name for column in forecast(run).output_columns] == ["file", "row", "n", "text", "mixed"]


def test_a_script_that_cannot_start_leaves_nothing_to_forecast(tmp_path: Path) -> None:
    reason, run = sampled(tmp_path, "raise OSError('no licence')")
    assert reason is Reason.SCORING_SCRIPT_FAILED
    assert "no licence" in (run / "outcome.json").read_text()
    assert not (run / "forecast.json").exists()


def test_files_are_sampled_as_items_of_their_own(tmp_path: Path) -> None:
    script = "def run(paths):\n    return [len(path) for path in paths]"
    split = SplitSpec(by="files", files=2)
    reason, run = sampled(tmp_path, script, takes="paths", split=split, sample=SampleSpec(rows=2))
    assert reason is Reason.COMPLETED
    found = forecast(run)
    assert (found.unit, found.items, found.mini_batches, found.sampled_items) == ("files", 3, 2, 2)
