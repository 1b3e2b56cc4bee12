"""The shortest way of all, and the same verbs from Python, with the shipped runner and server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchpoint import BatchDeployment, BatchEndpoint, Client, CodeConfiguration, Settings
from shipped import Shipped

SCRIPT = """\
def init():
    pass


def run(mini_batch):
    texts = [open(path).read() for path in mini_batch]
    if "bad" in texts:
        raise ValueError("a bad file")
    return [len(text) for text in texts]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "score.py").write_text(SCRIPT)
    (tmp_path / "data").mkdir()
    for name, text in (("a.txt", "x"), ("b.txt", "bad"), ("c.txt", "xxx")):
        (tmp_path / "data" / name).write_text(text)
    return tmp_path


def test_a_folder_is_scored_with_no_server_and_nothing_registered(shipped: Shipped, folder: Path) -> None:
    score = ("score", "--model", "score.py", "--data", "data", "-o", "out/lengths.jsonl", "--workers", "2")

    said = shipped.ok(*score, cwd=folder)
    again = shipped.run(*score, cwd=folder)

    assert "Receipt: 3 files = 2 ok + 1 failed + 0 skipped" in said
    rows = [json.loads(line) for line in (folder / "out" / "lengths.jsonl").read_text().splitlines()]
    assert [(row["file"], row["prediction"]) for row in rows] == [("a.txt", 1), ("c.txt", 3)]
    (failed,) = (json.loads(line) for line in (folder / "out" / "lengths.errors.jsonl").read_text().splitlines())
    assert (failed["file"], failed["message"]) == ("b.txt", "a bad file")
    assert json.loads((folder / "out" / "lengths.receipt.json").read_text())["balanced"]
    assert again.returncode == 4
    assert "--overwrite" in again.stderr
    assert not (shipped.home / "server.json").exists()


def test_a_script_scores_a_data_frame_of_rows_when_it_is_asked_for(shipped: Shipped, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def run(rows):\n    return rows['n'] * 2\n")
    (tmp_path / "data.csv").write_text("n\n1\n2\n")

    score = ("score", "--model", "score.py", "--data", "data.csv", "--dataframe", "-o", "out.csv")
    shipped.ok(*score, cwd=tmp_path)

    assert (tmp_path / "out.csv").read_text() == "file,row,n\ndata.csv,0,2\ndata.csv,1,4\n"


def test_the_python_client_starts_the_server_and_holds_the_predictions(
    shipped: Shipped, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", shipped.environment()["PYTHONPATH"])
    code = CodeConfiguration(code=str(folder), scoring_script="score.py")
    with Client(settings=Settings(home=shipped.home)) as client:
        client.endpoints.create_or_update(BatchEndpoint(name="lengths"))
        deployment = BatchDeployment(name="blue", endpoint_name="lengths", code_configuration=code)
        client.deployments.create_or_update(deployment, set_default=True)

        job = client.endpoints.invoke("lengths", input=folder / "data", idempotency_key="once")
        same = client.endpoints.invoke("lengths", input=folder / "data", idempotency_key="once")
        job.wait(60)

        assert same.name == job.name
        assert job.receipt is not None
        assert (job.receipt.ok, job.receipt.failed) == (2, 1)
        assert job.predictions()["prediction"].tolist() == [1, 3]
        assert "lengths" in [endpoint.name for endpoint in client.endpoints.list()]
