"""A model for each key, with real workers: each row by the model of its key, and each fault on its own key alone."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from batchpoint.entities.jobs import Reason
from batchpoint.scoring import fork_server_access, lean_predict, model_map, planning, preloading, runner
from batchpoint.scoring.ledger import Ledger
from batchpoint.scoring.spec import (
    InputSpec,
    Location,
    ModelMapSpec,
    OutputSpec,
    RetrySpec,
    ScoringSpec,
    ScriptSpec,
    SplitSpec,
)
from batchpoint.storage.datastores import Stores

KEYS = [(device, sensor) for device in (1, 2, 3) for sensor in (1, 2, 3, 4, 5)]

Make = Callable[..., Path]


def readings(rows: int = 300) -> pd.DataFrame:
    """Readings of fifteen sensors that take turns."""
    random = np.random.default_rng(7)
    keys = [KEYS[n % len(KEYS)] for n in range(rows)]
    return pd.DataFrame(
        {
            "TS": [f"2026-01-01T00:{n // 60:02}:{n % 60:02}" for n in range(rows)],
            "Device": [key[0] for key in keys],
            "Sensor": [key[1] for key in keys],
            "Val": random.normal(size=rows).round(4) * 3,
        }
    )


def trained(key: tuple[int, int]) -> Any:
    values = pd.DataFrame({"Val": np.random.default_rng(key[0] * 10 + key[1]).normal(size=200)})
    return make_pipeline(StandardScaler(), OneClassSVM(nu=0.1, kernel="rbf", gamma=0.01 * key[1])).fit(values)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a fork server that serves all runs: their workers have pandas and scikit-learn at once."""
    folder = tmp_path_factory.mktemp("warm")
    yield folder
    fork_server_access.retire(folder)


@pytest.fixture
def make(tmp_path: Path, warm: Path) -> Make:
    """Makes a run's folder: the readings, a pickle for each key, and settings."""
    models = tmp_path / "models"
    models.mkdir()
    for key in KEYS:
        (models / f"{key[0]}_{key[1]}.pkl").write_bytes(pickle.dumps(trained(key)))

    def folder(
        name: str = "run",
        frame: pd.DataFrame | None = None,
        workers: int = 1,
        kind: str = "csv",
        listed: Any = None,
        **options: Any,
    ) -> Path:
        data, run = tmp_path / f"readings.{kind}", tmp_path / name
        table = readings() if frame is None else frame
        table.to_csv(data, index=False) if kind == "csv" else table.to_parquet(data, index=False, row_group_size=64)
        run.mkdir()
        lines = {
            key: {"key": {"Device": str(key[0]), "Sensor": str(key[1])}, "model": f"model_{key[0]}_{key[1]}:1",
                  "path": str(models / f"{key[0]}_{key[1]}.pkl"), "type": "custom_model"}
            for key in KEYS
        }  # fmt: skip
        wanted = (listed or (lambda known: known))(lines)
        (run / "models.jsonl").write_text("".join(json.dumps(line) + "\n" for line in wanted.values()))
        ScoringSpec(
            job=name,
            python=sys.executable,
            script=ScriptSpec(kind="model_map", takes="dataframe"),
            model_map=ModelMapSpec(**options),
            input=InputSpec(locations=[Location(url=str(data))]),
            split=SplitSpec(by="bytes", partition_keys=["Device", "Sensor"]),
            output=OutputSpec(folder=Location(url=str(tmp_path / f"{name}-out")), passthrough=["Device", "Sensor"]),
            processes_per_instance=workers,
            fork_server=str(warm),
            fork_server_idle_seconds=30,
        ).write(run)
        return run

    return folder


def as_output(run: Path, **changes: Any) -> None:
    spec = ScoringSpec.read(run)
    spec.model_copy(update={"output": spec.output.model_copy(update=changes)}).write(run)


def read_predictions(run: Path, form: str) -> pd.DataFrame:
    path = run.with_name(f"{run.name}-out") / f"predictions.{form}"
    if form == "csv":
        return pd.read_csv(path)
    return pd.read_json(path, lines=True) if form == "jsonl" else pd.read_parquet(path)


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_csv(run.with_name(f"{run.name}-out") / "predictions.csv")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def errors(run: Path) -> list[dict[str, Any]]:
    return lines_of(run.with_name(f"{run.name}-out") / "errors.jsonl")


def report(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    assert outcome(run)["models_report"] == "models_report.jsonl"
    return {(line["key"]["Device"], line["key"]["Sensor"]): line for line in lines_of(run / "models_report.jsonl")}


def outcome(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "outcome.json").read_bytes())
    return found


def expected(frame: pd.DataFrame) -> dict[int, int]:
    """The prediction for each row, by the plain models."""
    answers: dict[int, int] = {}
    for key, group in frame.groupby(["Device", "Sensor"]):
        answers |= dict(zip(group.index, trained(key).predict(group[["Val"]]).tolist(), strict=True))
    return answers


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_each_row_is_scored_by_the_model_of_its_key(make: Make, kind: str) -> None:
    run = make(kind=kind)
    assert runner.run(run) is Reason.COMPLETED
    found = predictions(run)
    assert dict(zip(found["row"], found["prediction"], strict=True)) == expected(readings())
    assert [tuple(key) for key in found[["Device", "Sensor"]].drop_duplicates().to_numpy().tolist()] == KEYS
    assert all(rows["row"].is_monotonic_increasing for _, rows in found.groupby(["Device", "Sensor"]))
    said = report(run)
    assert {(line["rows"], line["failed"], line["skipped"], line["loads"]) for line in said.values()} == {(20, 0, 0, 1)}
    assert said["2", "3"]["model"] == "model_2_3:1"
    assert outcome(run)["receipt"]["balanced"]


def test_the_output_is_the_same_with_one_worker_and_with_four(make: Make) -> None:
    one, four = make("one"), make("four", workers=4)
    assert runner.run(one) is runner.run(four) is Reason.COMPLETED
    files = [run.with_name(f"{run.name}-out") / "predictions.csv" for run in (one, four)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_gathered_rows_of_many_keys_are_one_slice_of_a_mini_batch(make: Make) -> None:
    run = make()
    (batch,) = planning.plan(ScoringSpec.read(run), Stores({}), run)
    (piece,) = batch.slices
    assert (piece.rows, len(batch.spans)) == (300, len(KEYS))
    numbers = list(piece.row_numbers(0, piece.rows))
    assert numbers == sorted(numbers, key=lambda number: (number % len(KEYS), number))


def test_a_fork_server_is_started_while_its_run_is_prepared_once_it_is_known_what_it_imports(
    make: Make, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    given = ScoringSpec.read(make())
    spec = given.model_copy(update={"fork_server": str(shared), "fork_server_idle_seconds": 30})
    fork_server_access.warm_up(spec)
    assert not shared.exists(), "nothing is known yet"
    shared.mkdir()
    preloading.remember(shared, ["yaml", "no_such_module"])
    fork_server_access.warm_up(spec)
    deadline = time.monotonic() + 20
    while (server := fork_server_access.connected(shared)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server is not None
    server.close()
    log = shared / "fork_server.log"
    while "no_such_module was not preloaded" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "no_such_module was not preloaded" in log.read_text()
    fork_server_access.retire(shared)


def broken(known: dict[tuple[int, int], dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    """One key is not listed, one file is gone, one is no pickle, and one model wants other columns."""
    folder = Path(known[1, 1]["path"]).parent
    Path(known[1, 2]["path"]).unlink()
    Path(known[1, 3]["path"]).write_bytes(b"\x80\x04 no pickle")
    wide = LinearRegression().fit(np.ones((3, 4)), np.ones(3))
    (folder / "1_4.pkl").write_bytes(pickle.dumps(wide))
    return {key: line for key, line in known.items() if key != (1, 1)}


def test_a_missing_or_broken_model_fails_only_the_rows_of_its_key(make: Make) -> None:
    run = make(listed=broken)
    assert runner.run(run) is Reason.COMPLETED
    faulty = [("1", "1"), ("1", "2"), ("1", "3"), ("1", "4")]
    failed = errors(run)
    assert len(failed) == 80
    assert {(line["key"]["Device"], line["key"]["Sensor"]) for line in failed} == set(faulty)
    frame = readings()
    assert all(
        (frame["Device"][line["row"]], frame["Sensor"][line["row"]])
        == (int(line["key"]["Device"]), int(line["key"]["Sensor"]))
        for line in failed
    )
    words = {line["key"]["Sensor"]: line["message"] for line in failed}
    assert "Device=1, Sensor=1: the model map has no model" in words["1"]
    assert "Device=1, Sensor=2: the model model_1_2:1 cannot be loaded" in words["2"]
    assert "UnpicklingError" in words["3"]
    assert "the model model_1_4:1 failed: ValueError" in words["4"]
    said = report(run)
    assert [said[key]["failed"] for key in faulty] == [20] * 4
    assert said["1", "4"]["message"] == words["4"]
    assert {line["rows"] for key, line in said.items() if key not in faulty} == {20}
    assert len(predictions(run)) == 220


class Deadly:
    """A pickle that ends the process that reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)


def with_endings(known: dict[tuple[int, int], dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    """One model leaves by ``sys.exit``, and one ends its process."""
    folder = Path(known[1, 1]["path"]).parent
    (folder / "1_1.pkl").write_bytes(pickle.dumps(Namespace(predict=sys.exit)))
    (folder / "1_2.pkl").write_bytes(pickle.dumps(Deadly()))
    return known


def test_a_model_that_ends_its_process_costs_its_own_key(make: Make) -> None:
    run = make(listed=with_endings)
    spec = ScoringSpec.read(run)
    spec.model_copy(update={"retry": RetrySpec(max_worker_losses=0)}).write(run)
    assert runner.run(run) is Reason.COMPLETED
    failed = errors(run)
    assert sorted((line["key"]["Sensor"], line["exception"]) for line in failed) == [
        *[("1", "SystemExit")] * 20,
        *[("2", "WorkerLost")] * 20,
    ]
    assert "Device=1, Sensor=1: the model model_1_1:1 failed: SystemExit" in failed[0]["message"]
    assert len(predictions(run)) == 260


def test_rows_without_a_usable_model_can_be_left_out_and_are_counted(make: Make) -> None:
    run = make(listed=broken, on_missing="skip")
    assert runner.run(run) is Reason.COMPLETED
    receipt = outcome(run)["receipt"]
    assert (receipt["ok"], receipt["failed"], receipt["skipped"], receipt["balanced"]) == (220, 20, 60, True)
    assert "no model for this key" in receipt["files"][0]["reason"]
    said = report(run)
    assert [said["1", sensor]["skipped"] for sensor in "1234"] == [20, 20, 20, 0]


def test_a_default_model_takes_the_place_of_those_that_cannot_be_used(make: Make, tmp_path: Path) -> None:
    joblib.dump(trained((3, 5)), tmp_path / "default.joblib")
    default = {"path": str(tmp_path / "default.joblib"), "type": "custom_model", "name": "any:2"}
    run = make(listed=broken, on_missing="default", default=default)
    assert runner.run(run) is Reason.COMPLETED
    said = report(run)
    assert [said["1", sensor]["model"] for sensor in "1235"] == ["any:2", "any:2", "any:2", "model_1_5:1"]
    rows = predictions(run).query("Device == 1 and Sensor == 1")
    frame = readings().loc[rows["row"].tolist()]
    assert rows["prediction"].tolist() == trained((3, 5)).predict(frame[["Val"]]).tolist()


def test_a_bad_row_costs_that_row_alone(make: Make) -> None:
    frame = readings().astype({"Val": object})
    frame.loc[17, "Val"] = "oops"
    run = make(frame=frame)
    assert runner.run(run) is Reason.COMPLETED
    [failed] = errors(run)
    assert (failed["row"], failed["key"]) == (17, {"Device": "1", "Sensor": "3"})
    assert len(predictions(run)) == 299


def test_labels_column_and_features_are_as_the_map_says(make: Make) -> None:
    run = make(labels={"-1": 1, "1": 0}, features=["Val"], prediction_column="Prediction")
    assert runner.run(run) is Reason.COMPLETED
    found = predictions(run)
    wanted = {row: int(answer < 0) for row, answer in expected(readings()).items()}
    assert dict(zip(found["row"], found["Prediction"], strict=True)) == wanted


def test_no_more_models_are_held_than_the_setting_says(make: Make) -> None:
    same = "1_1.pkl"

    def turns(known: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
        shared = {key: {**line, "path": str(Path(line["path"]).with_name(same))} for key, line in known.items()}
        return {key: shared[key] if key[1] % 2 else line for key, line in known.items()}

    few, many = make("few", listed=turns, cached_models=1), make("many", listed=turns, cached_models=64)
    assert runner.run(few) is runner.run(many) is Reason.COMPLETED
    assert sum(line["loads"] for line in report(many).values()) == 1 + 6
    assert sum(line["loads"] for line in report(few).values()) == 13


def siblings(name: str) -> Any:
    return import_module(f"batchpoint.scoring.{name}")


def test_files_of_the_next_models_are_read_while_others_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.pkl" for number in range(12)]
    for path in paths:
        path.touch()
    seen: list[str] = []

    def advised(descriptor: int, *_: int) -> None:
        seen.append(f"read {Path(f'/proc/self/fd/{descriptor}').readlink().stem}")

    monkeypatch.setattr(os, "posix_fadvise", advised)
    settings = {
        "cached_models": 2,
        "on_missing": "fail",
        "default": None,
        "features": None,
        "labels": {},
        "keys": ["k"],
    }
    scorer = model_map.ModelMap(settings | {"prediction_column": "prediction"}, siblings)

    def load(path: str) -> Any:
        seen.append(f"load {Path(path).stem}")
        return LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])

    monkeypatch.setattr(model_map, "unpickled", load)
    spans = [
        {"key": {"k": str(number)}, "model": path.stem, "path": str(path), "type": "custom_model", "rows": 1}
        for number, path in enumerate(paths)
    ]
    scored = scorer.score(pd.DataFrame({"k": range(12), "x": range(12)}), spans, 0, 12)
    assert scored.told["failed"] == []
    assert seen[: model_map.AHEAD + 2] == [*(f"read {number}" for number in range(model_map.AHEAD + 1)), "load 0"]
    assert [event for event in seen if event.startswith("load")] == [f"load {number}" for number in range(12)]
    assert len(seen) == 24


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_retry_scores_the_rows_that_failed_alone_and_leaves_the_others_as_they_are(make: Make, form: str) -> None:
    frame = readings()
    frame["Val"] = frame["Val"].astype(object)
    frame.loc[frame.index % 45 == 2, "Val"] = "broken"  # of (1, 3) every third row
    first = make("first", frame=frame, listed=broken, features=["Val"])
    as_output(first, format=form, file_name=f"predictions.{form}")
    assert runner.run(first) is Reason.COMPLETED
    newest = pickle.dumps(DummyRegressor(strategy="constant", constant=77).fit([[0]], [0]))

    def newer(known: dict[tuple[int, int], dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
        for line in known.values():
            Path(line["path"]).write_bytes(newest)
        return known

    again = make("again", frame=frame, listed=newer, features=["Val"])
    as_output(again, format=form, file_name=f"predictions.{form}")
    spec = ScoringSpec.read(again)
    spec.model_copy(update={"retry_of": str(first)}).write(again)
    assert runner.run(again) is Reason.COMPLETED
    before, after = (read_predictions(run, form) for run in (first, again))
    assert len(after) == 300
    merged = after.merge(before, on=["file", "row"], how="left")
    was_there = merged["prediction_y"].notna()
    assert (merged.loc[was_there, "prediction_x"] == merged.loc[was_there, "prediction_y"]).all()
    assert (merged.loc[~was_there, "prediction_x"] == 77).all()
    assert after["row"].tolist() == [row for key in KEYS for row in range(300) if KEYS[row % len(KEYS)] == key]
    assert {line["rows"] for line in report(again).values()} == {20}
    assert json.loads((again / "progress.json").read_bytes())["kept"] == len(before)


def test_a_run_whose_folder_is_named_relative_to_the_runners_own_finds_its_gathered_rows(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make()
    monkeypatch.chdir(run.parent)
    assert runner.run(Path(run.name)) is Reason.COMPLETED
    assert (run / "inputs" / "grouped").is_dir()
    assert len(predictions(run)) == 300


def test_a_resumed_run_counts_each_row_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = readings(30_000)
    run = make(frame=frame)
    monkeypatch.setattr("batchpoint.scoring.packing.LARGEST", 1 << 16)
    monkeypatch.setattr("batchpoint.scoring.packing.SMALLEST", 1 << 16)
    child = os.fork()
    if child == 0:
        handler = Ledger.flush_if_due

        def die_early(self: Ledger) -> None:
            self.flush()
            if self.records:
                os.kill(os.getpid(), signal.SIGKILL)
            handler(self)

        Ledger.flush_if_due = die_early  # type: ignore[method-assign]  # in a process of its own, which it kills
        runner.run(run)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert 0 < len(Ledger.read(run)) < 15
    assert runner.run(run) is Reason.COMPLETED
    assert {(line["rows"], line["loads"]) for line in report(run).values()} == {(2000, 1)}
    assert len(predictions(run)) == 30_000


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
@pytest.mark.parametrize("scaler", [None, StandardScaler(), StandardScaler(with_mean=False)])
def test_the_lean_way_gives_the_bits_of_the_model(kernel: Any, scaler: Any, columns: int) -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(500, columns)) * 4
    svm = OneClassSVM(nu=0.05, kernel=kernel, gamma=0.1)
    model = (svm if scaler is None else make_pipeline(scaler, svm)).fit(rows[:200])
    way = lean_predict.lean(model)
    assert way is not None
    answer, own = way.predict(rows), model.predict(rows)
    assert answer.dtype == own.dtype
    assert answer.tolist() == own.tolist()
    rows[3, 0] = np.nan
    assert way.predict(rows) is None


def test_models_of_other_structures_have_no_lean_way() -> None:
    class Other(OneClassSVM):
        pass

    rows = np.random.default_rng(1).normal(size=(50, 2))
    assert lean_predict.lean(Other().fit(rows)) is None
    assert lean_predict.lean(LinearRegression().fit(rows, rows[:, 0])) is None
    assert lean_predict.lean(OneClassSVM(kernel="precomputed").fit(rows @ rows.T)) is None
