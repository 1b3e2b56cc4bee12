"""The same data gives the same bytes, whichever door was used, however many workers scored it, wherever it was kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres_server import running_postgres
from shipped import Shipped

TRAIN = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd, mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

chance = np.random.default_rng(3)
rows = 2000
frame = pd.DataFrame({
    "distance": chance.gamma(2, 2, rows).round(2),
    "passengers": chance.integers(1, 6, rows),
    "holiday": chance.choice(["None", "Christmas, first day", 'The "long" weekend'], rows),
})
target = 3 + frame.distance * 2.5 + frame.passengers * 0.1 + (frame.holiday != "None") * 2
model = make_pipeline(
    ColumnTransformer([("holiday", OneHotEncoder(handle_unknown="ignore"), ["holiday"])], remainder="passthrough"),
    LinearRegression(),
).fit(frame, target)
signature = infer_signature(frame, model.predict(frame))
mlflow.sklearn.save_model(model, sys.argv[1], signature=signature, serialization_format="cloudpickle")
score = frame.sample(20_000, replace=True, random_state=5, ignore_index=True)
score.insert(0, "trip", [f"T{n:06d}" for n in range(len(score))])
score.to_csv(sys.argv[2], index=False)
"""

DEPLOYMENT = """
name: blue
endpoint_name: fares
model:
  path: ./model
  type: mlflow_model
settings:
  max_concurrency_per_instance: {workers}
batchpoint:
  mini_batch_bytes: 20000
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MLflow model and 20,000 rows to score."""
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-c", TRAIN, str(folder / "model"), str(folder / "trips.csv")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(params=["sqlite", "postgres"])
def registry_of_either_kind(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    if request.param == "sqlite":
        yield {}
        return
    with running_postgres() as url:
        yield {"BATCHPOINT_DATABASE_URL": url}


def deploy(shipped: Shipped, trained: Path, *, workers: int) -> None:
    file = trained / f"deployment-{workers}.yml"
    file.write_text(DEPLOYMENT.format(workers=workers))
    shipped.ok("endpoint", "create", "-n", "fares")
    shipped.ok("deployment", "create", "-f", file, "--set-default")


def by_cli(shipped: Shipped, name: str, data: Path) -> bytes:
    shipped.ok("endpoint", "invoke", "-n", "fares", "--input", data, "--job-name", name, "--stream")
    return predictions(shipped, name)


def predictions(shipped: Shipped, job: str) -> bytes:
    return (shipped.output(job) / "predictions.csv").read_bytes()


def test_cli_python_and_curl_give_equal_bytes(shipped: Shipped, trained: Path) -> None:
    deploy(shipped, trained, workers=2)
    data = trained / "trips.csv"
    first = by_cli(shipped, "by-cli", data)

    program = (
        "from batchpoint import Client\n"
        f"job = Client().endpoints.invoke(endpoint_name='fares', input={str(data)!r}, job_name='by-python')\n"
        "job.wait()\n"
        "print(len(job.predictions()), job.receipt.ok)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shipped.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["20000", "20000"], done.stderr

    server = shipped.server()
    body = json.dumps({"inputs": {"trips": {"path": str(data)}}, "job_name": "by-curl"})
    address = f"{server['url']}/api/v1/endpoints/fares/invoke"
    headers = ["-H", f"Authorization: Bearer {server['token']}", "-H", "Content-Type: application/json"]
    answer = subprocess.run(
        ["curl", "-sS", "--fail-with-body", "-X", "POST", *headers, "-d", body, address],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(answer.stdout)["name"] == "by-curl", answer.stderr
    shipped.wait("by-curl")

    assert first.count(b"\n") == 20_001
    assert predictions(shipped, "by-python") == first
    assert predictions(shipped, "by-curl") == first


def test_one_two_and_four_workers_give_equal_bytes_on_either_database(
    shipped: Shipped, trained: Path, registry_of_either_kind: dict[str, str]
) -> None:
    shipped.variables.update(registry_of_either_kind)
    results = []
    for workers in (1, 2, 4):
        deploy(shipped, trained, workers=workers)
        results.append(by_cli(shipped, f"with-{workers}", trained / "trips.csv"))
    assert results[0] == results[1] == results[2]
    fares = [line.rsplit(b",", 1)[1] for line in results[0].splitlines()[1:]]
    assert len(fares) == 20_000
    assert all(float(fare) > 3 for fare in fares)


def test_one_file_or_64_give_equal_bytes(shipped: Shipped, trained: Path, tmp_path: Path) -> None:
    deploy(shipped, trained, workers=2)
    header, *rows = (trained / "trips.csv").read_text().splitlines(keepends=True)
    folder = tmp_path / "pieces"
    folder.mkdir()
    size = -(-len(rows) // 64)
    for number in range(64):
        (folder / f"trips-{number:02d}.csv").write_text(header + "".join(rows[number * size : (number + 1) * size]))
    whole = scored_by_key(shipped, "whole", trained / "trips.csv")
    pieces = scored_by_key(shipped, "pieces", folder)
    assert whole == pieces
    assert whole.startswith(b"trip,prediction\nT000000,")
    assert whole.count(b"\n") == 20_001


def scored_by_key(shipped: Shipped, name: str, data: Path) -> bytes:
    shipped.ok(
        "endpoint", "invoke", "-n", "fares", "--input", data, "--job-name", name, "--stream",
        "--set", "key_columns=[trip]",
    )  # fmt: skip
    return predictions(shipped, name)
