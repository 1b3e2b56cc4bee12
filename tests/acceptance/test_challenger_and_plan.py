"""Look before the leap: a sample tells what a job would take, and a challenger is tried beside the champion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shipped import Shipped

SCRIPT = """
def run(rows):
    if (rows["amount"] == BAD).any():
        raise ValueError("a bad amount")
    return rows["amount"].mul(RATE).rename("tax")
"""

DEPLOYMENT = """
name: {name}
endpoint_name: taxes
code_configuration: {{code: ./{name}, scoring_script: score.py}}
settings: {{max_concurrency_per_instance: 2, error_threshold: 10}}
batchpoint: {{mini_batch_type: dataframe}}
"""

ROWS = 20_000


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


def declare(shipped: Shipped, folder: Path) -> None:
    shipped.ok("endpoint", "create", "-n", "taxes")
    for name, rate, bad in (("blue", 0.2, -1), ("green", "rows['amount'].gt(100) * 0.05 + 0.2", 7777)):
        (folder / name).mkdir()
        script = SCRIPT.replace("RATE", str(rate)).replace("BAD", str(bad))
        (folder / name / "score.py").write_text(script)
        (folder / f"{name}.yml").write_text(DEPLOYMENT.format(name=name))
        shipped.ok("deployment", "create", "-f", folder / f"{name}.yml", *(["--set-default"] * (name == "blue")))
    (folder / "data").mkdir()
    for part in range(4):
        lines = "".join(f"{row % 10_000}\n" for row in range(part * 5000, part * 5000 + 5000))
        (folder / "data" / f"{part}.csv").write_text(f"amount\n{lines}")


def test_a_challenger_is_tried_on_the_same_data_and_promoted_on_the_word_of_the_comparison(
    shipped: Shipped, tmp_path: Path
) -> None:
    declare(shipped, tmp_path)
    invoke = ("endpoint", "invoke", "-n", "taxes", "--input", tmp_path / "data", "--stream")
    shipped.ok(*invoke, "--challenger", "green", "--job-name", "both")
    shipped.ok(*invoke, "--job-name", "alone")

    shipped.ok("job", "download", "-n", "both", "-p", tmp_path / "both")
    shipped.ok("job", "download", "-n", "alone", "-p", tmp_path / "alone")
    predictions = (tmp_path / "both" / "predictions.csv").read_bytes()
    assert predictions == (tmp_path / "alone" / "predictions.csv").read_bytes()
    challenger = (tmp_path / "both" / "challenger.csv").read_text().splitlines()
    assert challenger[0] == "file,row,tax"
    assert len(challenger) == 1 + ROWS - 2, "the two rows that it fails for"

    found = shipped.json("job", "compare", "-n", "both")
    assert (found["rows_compared"], found["challenger_failed"]) == (ROWS - 2, 2)
    assert [(one["file"], one["row"]) for one in found["failures"]] == [("1.csv", 2777), ("3.csv", 2777)]
    assert found["agreement_of_all"] == 202 / ROWS, "amounts up to 100, twice"
    table = shipped.ok("job", "compare", "-n", "both", "-o", "table")
    assert "biggest movers" in table
    assert shipped.run("job", "compare", "-n", "alone").returncode == 3

    promote = ("endpoint", "promote", "-n", "taxes", "--deployment", "green")
    refused = shipped.run(*promote, "--if-agreement", "0.98")
    assert refused.returncode == 4
    assert "agrees with blue in 1.01%" in refused.stderr
    promoted = shipped.json(*promote, "--job", "both", "--if-agreement", "0.01")
    assert promoted["defaults"] == {"deployment_name": "green"}
    (note,) = json.loads(promoted["properties"]["promotions"])
    assert (note["before"], note["deployment"], note["job"]) == ("blue", "green", "both")
    again = shipped.json(*promote, "--job", "both", "--if-agreement", "0.01")
    assert again["properties"] == promoted["properties"], "nothing happens twice"
    back = shipped.json("endpoint", "promote", "-n", "taxes", "--deployment-name", "blue")
    assert back["defaults"] == {"deployment_name": "blue"}
    assert len(json.loads(back["properties"]["promotions"])) == 2


def test_a_plan_tells_what_a_job_would_take_and_leaves_nothing_behind(shipped: Shipped, tmp_path: Path) -> None:
    declare(shipped, tmp_path)
    plan = ("plan", "-n", "taxes", "-d", "green", "--input", tmp_path / "data", "--sample-rows", "800")
    found = shipped.json(*plan)
    assert (found["items"], found["items_are_exact"], found["unit"]) == (ROWS, True, "rows")
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "data").iterdir())
    assert found["sampled_files"] == 4
    assert found["output_columns"] == [
        {"name": "file", "type": "string"},
        {"name": "row", "type": "int64"},
        {"name": "tax", "type": "double"},
    ]
    assert found["failed_items"] == len(found["errors"])
    assert found["failure_rate"]["estimate"] == found["failed_items"] / found["sampled_items"]
    assert found["seconds"]["low"] < found["seconds"]["estimate"] < found["seconds"]["high"]
    assert found["peak_memory"] == found["peak_memory_per_worker"] * 2 > 0

    late = shipped.run(*plan, "--finish-by", "2020-01-01T06:00", "-o", "table")
    assert late.returncode == 8, late.stderr
    assert "Too late" in late.stderr
    assert f"{ROWS:,} rows" in late.stdout
    assert shipped.json("job", "list") == []
    published = [path for path in (shipped.place / "datastores").rglob("*") if path.name.startswith("predictions")]
    assert published == []

    (tmp_path / "green" / "score.py").write_text(
        "def init():\n    raise OSError('no model')\ndef run(rows):\n    pass\n"
    )
    shipped.ok("deployment", "create", "-f", tmp_path / "green.yml")
    broken = shipped.run(*plan)
    assert broken.returncode == 1
    assert "no model" in broken.stderr
