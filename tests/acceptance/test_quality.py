"""A bad night: inputs that shifted are stopped before anyone reads their predictions, and a mistake is taken back."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

from sklearn.dummy import DummyRegressor

from shipped import Shipped

SCRIPT = 'def run(rows):\n    return (rows["area"] * 4000).rename("price")\n'
DEPLOYMENT = """
name: blue
endpoint_name: houses
code_configuration: {code: ./code, scoring_script: score.py}
settings: {max_concurrency_per_instance: 2}
batchpoint:
  mini_batch_type: dataframe
  split: rows
  quality: {max_drift: 0.25, max_missing_change: 0.1}
"""


def houses(path: Path, *, seed: int, mean: float = 80, empty: float = 0.0) -> Path:
    """Two thousand houses of about this area, a share of them without."""
    chance = random.Random(seed)
    lines = ["area,town"]
    for _ in range(2_000):
        area = "" if chance.random() < empty else f"{chance.gauss(mean, 12):.2f}"
        lines.append(f"{area},{chance.choice(['Ulm', 'Ulm', 'Bonn'])}")
    path.write_text("\n".join(lines) + "\n")
    return path


def declare(shipped: Shipped, folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "score.py").write_text(SCRIPT)
    (folder / "blue.yml").write_text(DEPLOYMENT)
    shipped.ok("endpoint", "create", "-n", "houses")
    shipped.ok(
        "deployment", "create", "-f", folder / "blue.yml", "--set-default", "--set", "settings.mini_batch_size=100"
    )


def test_a_shifted_input_is_stopped_a_clean_one_passes_and_a_bad_output_is_rolled_back(
    shipped: Shipped, tmp_path: Path
) -> None:
    declare(shipped, tmp_path)
    invoke = ("endpoint", "invoke", "-n", "houses", "--stream", "--input")
    shipped.ok(*invoke, houses(tmp_path / "monday.csv", seed=1), "--job-name", "monday")
    monday = shipped.json("job", "show", "-n", "monday")
    assert monday["quality"] == {"columns": 3}, "there was nothing to compare it with"
    assert any("no reference yet" in notice for notice in monday["notices"])

    shipped.ok(*invoke, houses(tmp_path / "tuesday.csv", seed=2), "--job-name", "tuesday")
    tuesday = shipped.json("job", "show", "-n", "tuesday")
    assert tuesday["quality"]["reference"] == "monday"
    assert tuesday["quality"]["drift"] < 0.1

    shifted = houses(tmp_path / "wednesday.csv", seed=3, mean=110)
    stopped = shipped.run(*invoke, shifted, "--job-name", "wednesday", "--set", "quality.canary_percent=10")
    assert stopped.returncode == 1
    assert "input column area has drifted by" in stopped.stderr
    assert "the limit is 0.25" in stopped.stderr
    wednesday = shipped.json("job", "show", "-n", "wednesday")
    assert (wednesday["status"], wednesday["reason"]) == ("Failed", "quality_check_failed")
    assert wednesday["quality"]["drift_column"] in ("input area", "output price")
    assert wednesday["progress"]["ok"] == 200, "two of twenty mini-batches"
    withheld = Path(wednesday["folder"]) / "withheld"
    assert str(withheld) in wednesday["error"]["message"]
    assert len((withheld / "predictions.csv").read_text().splitlines()) == 201
    score = shipped.home / "datastores"
    assert {path.parent.parent.name for path in score.rglob("predictions.csv")} == {"monday", "tuesday"}

    found = shipped.json("job", "quality", "-n", "wednesday")
    assert {check["column"] for check in found["failed_checks"]} == {"area", "price"}
    table = shipped.ok("job", "quality", "-n", "tuesday", "-o", "table")
    assert table.startswith("Job tuesday: 2,000 items, compared with job monday")
    gaps = houses(tmp_path / "thursday.csv", seed=4, empty=0.4)
    stopped = shipped.run(*invoke, gaps, "--job-name", "thursday")
    assert "input column area: " in stopped.stderr
    assert "of it is missing, before 0.00%" in stopped.stderr

    assert shipped.json("endpoint", "latest", "-n", "houses")["name"] == "tuesday", "what failed is no output"
    assert shipped.json("endpoint", "rollback", "-n", "houses")["name"] == "monday"
    assert shipped.json("endpoint", "latest", "-n", "houses")["name"] == "monday"
    assert shipped.json("job", "show", "-n", "tuesday")["properties"]["withdrawn"]
    nothing = shipped.run("endpoint", "rollback", "-n", "houses")
    assert nothing.returncode == 4
    assert "no earlier output" in nothing.stderr
    shipped.ok("endpoint", "rollback", "-n", "houses", "--job", "tuesday")
    assert json.loads(shipped.ok("endpoint", "latest", "-n", "houses", "-o", "json"))["name"] == "tuesday"


BY_STORE = """
name: bystore
endpoint_name: sales
batchpoint:
  partition_keys: [store]
  model_map: {folder: models, file_pattern: "sales_{store}.pkl", prediction_column: sales}
  quality: {max_drift: 0.25, max_missing_change: 0.1, output_ranges: {sales: {most: 100}}}
"""


def make_model(folder: Path, store: str, sales: float) -> None:
    folder.mkdir(exist_ok=True)
    model = DummyRegressor(strategy="constant", constant=sales).fit([[0]], [0])
    (folder / f"sales_{store}.pkl").write_bytes(pickle.dumps(model))


def test_a_store_whose_model_was_missing_is_scored_later_and_what_it_predicts_is_checked(
    shipped: Shipped, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for store, sales in {"east": 10.0, "west": 20.0}.items():
        make_model(models, store, sales)
    (tmp_path / "bystore.yml").write_text(BY_STORE)
    rows = [f"{store},{day}" for day in range(50) for store in ("east", "west", "north")]
    (tmp_path / "days.csv").write_text("\n".join(["store,day", *rows]) + "\n")
    shipped.ok("endpoint", "create", "-n", "sales")
    shipped.ok("deployment", "create", "-f", tmp_path / "bystore.yml", "--set-default")
    invoke = ("endpoint", "invoke", "-n", "sales", "--stream", "--input", tmp_path / "days.csv", "--job-name")
    shipped.ok(*invoke, "monday")
    shipped.ok(*invoke, "tuesday")

    make_model(models, "north", 1_000.0)
    shipped.ok("deployment", "create", "-f", tmp_path / "bystore.yml")
    retry = ("job", "retry-failed", "--current-deployment", "--stream", "-n")
    stopped = shipped.run(*retry, "monday")
    assert stopped.returncode == 1
    assert "output column sales goes up to 1000; the limit is 100" in stopped.stderr

    make_model(models, "north", 15.0)
    shipped.ok("deployment", "create", "-f", tmp_path / "bystore.yml")
    mended = shipped.json(*retry, "tuesday")
    assert mended["receipt"]["ok"] == 150
    assert any("most rows are kept of job tuesday, which had passed" in notice for notice in mended["notices"])
