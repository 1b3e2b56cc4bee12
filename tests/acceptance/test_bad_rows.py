"""One bad row never costs more than that row, is named, and can be scored again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shipped import Shipped

SCRIPT = """
import os

def run(rows):
    if os.path.exists(FIXED):
        return rows["amount"].abs()
    if (rows["amount"] < 0).any():
        raise ValueError("amount is below zero")
    return rows["amount"]
"""

DEPLOYMENT = """
name: blue
endpoint_name: amounts
code_configuration: {code: ./code, scoring_script: score.py}
model: {path: ./model.txt}
settings: {max_concurrency_per_instance: 2}
batchpoint: {mini_batch_type: dataframe}
"""

ROWS = 250_000
BAD = 123_456


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


def declare(shipped: Shipped, folder: Path) -> Path:
    fixed = folder / "fixed"
    (folder / "code").mkdir()
    (folder / "code" / "score.py").write_text(f"FIXED = {str(fixed)!r}\n" + SCRIPT)
    (folder / "model.txt").write_text("a model")
    (folder / "deployment.yml").write_text(DEPLOYMENT)
    lines = "".join(f"{row},{-5 if row == BAD else row}\n" for row in range(ROWS))
    (folder / "amounts.csv").write_text("id,amount\n" + lines)
    shipped.ok("endpoint", "create", "-n", "amounts")
    shipped.ok("deployment", "create", "-f", folder / "deployment.yml", "--set-default")
    return fixed


def test_one_bad_row_in_250_000_costs_one_row_and_is_named(shipped: Shipped, tmp_path: Path) -> None:
    fixed = declare(shipped, tmp_path)
    done = shipped.run(
        "endpoint", "invoke", "-n", "amounts", "--input", tmp_path / "amounts.csv", "--job-name", "nightly", "--stream"
    )
    assert done.returncode == 0, done.stderr
    assert "250,000 rows = 249,999 ok + 1 failed + 0 skipped" in done.stderr
    folder = shipped.output("nightly")
    lines = (folder / "predictions.csv").read_text().splitlines()
    assert len(lines) == ROWS  # 249,999 rows and the header
    assert [line.split(",")[1] for line in lines[1:]] == [str(row) for row in range(ROWS) if row != BAD]

    (error,) = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert (error["file"], error["row"]) == ("amounts.csv", BAD)
    assert error["exception"] == "ValueError"
    assert "amount is below zero" in error["message"]
    assert "score.py" in error["traceback"]
    receipt = json.loads((folder / "receipt.json").read_text())
    assert (receipt["items"], receipt["ok"], receipt["failed"]) == (ROWS, ROWS - 1, 1)

    fixed.touch()
    again = shipped.json("job", "retry-failed", "-n", "nightly")
    done = shipped.wait(again["name"])
    assert done["status"].lower() == "completed"
    merged = (folder / "predictions.csv").read_text().splitlines()
    assert len(merged) == ROWS + 1
    assert merged[BAD + 1] == f"amounts.csv,{BAD},5"
    assert (folder / "errors.jsonl").read_text() == ""

    shown = shipped.run("job", "show", "-n", "nightly")
    assert f"Repaired by {again['name']}: 250,000 rows" in shown.stderr
    assert json.loads(shown.stdout)["repaired_by"] == again["name"]
    refused = shipped.run("job", "retry-failed", "-n", "nightly")
    assert refused.returncode == 4
    assert f"repaired by job {again['name']}: there is nothing to retry" in refused.stderr


def test_a_job_whose_every_row_failed_is_failed_and_shows_the_first_traceback(shipped: Shipped, tmp_path: Path) -> None:
    declare(shipped, tmp_path)
    (tmp_path / "all-bad.csv").write_text("id,amount\n" + "".join(f"{row},-1\n" for row in range(20)))
    done = shipped.run("endpoint", "invoke", "-n", "amounts", "--input", tmp_path / "all-bad.csv", "--stream")
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "amount is below zero" in told
    assert "all-bad.csv" in told
    assert "exit code" not in told.lower()


def test_a_mended_script_scores_what_failed_when_the_retry_asks_for_the_deployment_as_it_is_now(
    shipped: Shipped, tmp_path: Path
) -> None:
    declare(shipped, tmp_path)
    (tmp_path / "few.csv").write_text("id,amount\n1,10\n2,-3\n3,30\n")
    shipped.ok("endpoint", "invoke", "-n", "amounts", "--input", tmp_path / "few.csv", "--job-name", "few", "--stream")
    (tmp_path / "code" / "score.py").write_text("def run(rows):\n    return rows['amount'].abs()\n")
    shipped.ok("deployment", "create", "-f", tmp_path / "deployment.yml")

    as_it_was = shipped.run("job", "retry-failed", "-n", "few", "--stream")
    assert "3 rows = 2 ok + 1 failed" in as_it_was.stderr
    assert "has changed since job few" in as_it_was.stderr

    as_it_is = shipped.run("job", "retry-failed", "-n", "few", "--stream", "--current-deployment")
    assert "3 rows = 3 ok + 0 failed" in as_it_is.stderr
    rows = (shipped.output("few") / "predictions.csv").read_text()
    assert rows == "file,row,amount\nfew.csv,0,10\nfew.csv,1,3\nfew.csv,2,30\n"


def test_a_script_with_a_typing_slip_ends_the_job_in_seconds(shipped: Shipped, tmp_path: Path) -> None:
    declare(shipped, tmp_path)
    (tmp_path / "code" / "score.py").write_text("def run(rows):\n    return rows.amont\n")
    shipped.ok("deployment", "create", "-f", tmp_path / "deployment.yml")
    done = shipped.run(
        "endpoint", "invoke", "-n", "amounts", "--input", tmp_path / "amounts.csv", "--stream", timeout=60
    )
    assert done.returncode == 1
    assert "Stopped early" in done.stderr
    assert "'DataFrame' object has no attribute 'amont'" in done.stderr
