"""MLflow models scored without a script."""

from __future__ import annotations

import itertools
import json
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, VotingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from batchpoint.scoring import mlflow_script


class Doubler:
    """Stands for any model that is not scikit-learn's own."""

    def predict(self, frame: Any) -> Any:
        return frame.sum(axis=1).to_numpy() * 2 if hasattr(frame, "columns") else np.array([frame.sum()])

    def predict_proba(self, frame: Any) -> Any:
        return np.column_stack([np.zeros(len(frame)), np.ones(len(frame))])


@pytest.fixture(autouse=True)
def _fresh_model() -> Iterator[None]:
    yield
    mlflow_script._model = None
    mlflow_script.PRELOADED.clear()


def saved(folder: Path, estimator: Any, inputs: list[dict[str, Any]] | None = None, predict_fn: str = "predict") -> str:
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(estimator))
    flavors = {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl", "predict_fn": predict_fn},
        "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "code": None},
    }
    signature = {"inputs": json.dumps(inputs)} if inputs else None
    (folder / "MLmodel").write_text(json.dumps({"flavors": flavors, "signature": signature}))
    return str(folder)


def started(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_PATH", path)
    mlflow_script.init()


def test_rows_are_scored_without_importing_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    inputs = [{"name": "a", "type": "double"}, {"name": "b", "type": "double"}]
    started(saved(tmp_path / "m", Doubler(), inputs), monkeypatch)
    frame = pd.DataFrame({"b": [1.0, 2.0], "x": ["u", "v"], "a": [3.0, 4.0]})
    assert mlflow_script.run(frame).to_dict("list") == {"prediction": [8.0, 12.0]}


def test_the_function_that_the_model_names_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(saved(tmp_path / "m", Doubler(), predict_fn="predict_proba"), monkeypatch)
    result = mlflow_script.run(pd.DataFrame({"a": [1.0, 2.0]}))
    assert result.to_dict("list") == {"prediction_0": [0.0, 0.0], "prediction_1": [1.0, 1.0]}


def test_a_model_loaded_by_the_fork_server_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow_script.PRELOADED["/there"] = mlflow_script.LoadedModel(lambda frame: [7] * len(frame), None, enforces=False)
    started("/there", monkeypatch)
    assert mlflow_script.run(pd.DataFrame({"a": [1]}))["prediction"].tolist() == [7]


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="this is not an MLflow model"):
        mlflow_script.load(str(tmp_path))
    (tmp_path / "MLmodel").write_text("flavors: {spark: {}}")
    with pytest.raises(RuntimeError, match=r"no python_function flavour \(found: spark\)"):
        mlflow_script.load(str(tmp_path))
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.torch}}")
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc", None)
    with pytest.raises(RuntimeError, match=r"needs 'mlflow.pyfunc'"):
        mlflow_script.load(str(tmp_path))


def test_rows_that_do_not_fit_the_signature_are_refused_with_all_faults() -> None:
    signature = [{"name": "a", "type": "double"}, {"name": "b", "type": "long"}, {"name": "c", "type": "long"}]
    frame = pd.DataFrame({"a": ["x"], "c": [np.nan]})
    with pytest.raises(mlflow_script.SignatureError) as caught:
        mlflow_script.enforce(frame, signature)
    assert "missing columns b (long)" in str(caught.value)
    assert "column a should be double" in str(caught.value)
    assert "column c should be long and is float64, because a value is missing" in str(caught.value)


COLUMNS = {
    "bool": pd.Series([True, False]),
    "int8": pd.Series([1, 2], dtype="int8"), "int32": pd.Series([1, 2], dtype="int32"),
    "int64": pd.Series([1, 2]), "bits": pd.Series([0, 1]), "uint8": pd.Series([1, 2], dtype="uint8"),
    "float32": pd.Series([1, 2], dtype="float32"), "float64": pd.Series([1.0, 2.0]), "gap": pd.Series([1.0, None]),
    "text": pd.Series(["x", "y"]), "object": pd.Series(["x", None], dtype=object),
    "flags": pd.Series([True, None], dtype=object), "time": pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])),
}  # fmt: skip
TYPES = ("boolean", "integer", "long", "float", "double", "string", "datetime")


@pytest.mark.parametrize(("column", "wanted"), list(itertools.product(COLUMNS, TYPES)))
def test_the_signature_is_enforced_as_mlflow_does(column: str, wanted: str) -> None:
    from mlflow.models.utils import _enforce_schema  # noqa: PLC0415 -- slow to import; the judge of this test alone
    from mlflow.types import ColSpec, DataType, Schema  # noqa: PLC0415 -- the same

    frame = pd.DataFrame({"v": COLUMNS[column]})
    try:
        expected = _enforce_schema(frame.copy(), Schema([ColSpec(DataType[wanted], "v")]))
    except Exception:  # noqa: BLE001 -- whatever mlflow refuses, however it says so
        with pytest.raises(mlflow_script.SignatureError):
            mlflow_script.enforce(frame, [{"name": "v", "type": wanted}])
        return
    pd.testing.assert_frame_equal(mlflow_script.enforce(frame, [{"name": "v", "type": wanted}]), expected)


def taxi(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame({
        "distance": rng.gamma(2, 3, rows), "hour": rng.integers(0, 24, rows), "weekend": rng.random(rows) < 0.3,
        "holiday": rng.choice(["None", "Xmas"], rows),
    })  # fmt: skip


def pipeline(last: Any, groups: list[Any] | None = None, **options: Any) -> Pipeline:
    groups = groups or [("h", OneHotEncoder(), ["holiday"]), ("n", "passthrough", ["distance", "hour", "weekend"])]
    return Pipeline([("columns", ColumnTransformer(groups, **options)), ("last", last)])


REMAINDER = [("h", OneHotEncoder(), ["holiday"])]


@pytest.mark.parametrize(
    "model",
    [
        pipeline(GradientBoostingRegressor(n_estimators=20)),
        pipeline(LinearRegression()),
        pipeline(GradientBoostingRegressor(n_estimators=5), REMAINDER, remainder="passthrough"),
    ],
)
def test_truth_values_among_numbers_are_cast_without_changing_a_bit(model: Pipeline) -> None:
    frame = taxi(2000)
    model.fit(frame, frame["distance"] * 3 + frame["weekend"])
    assert set(mlflow_script.bools_to_numbers(model)) >= {"weekend"}
    seen: list[Any] = []
    fast = mlflow_script._cast_bools(frame, mlflow_script._passed_through(model))
    seen.append(str(fast["weekend"].dtype))
    assert seen == ["int8"]
    assert str(frame["weekend"].dtype) == "bool"
    assert model.predict(fast).tobytes() == model.predict(frame).tobytes()


@pytest.mark.parametrize(
    "model",
    [
        pipeline(VotingRegressor([("l", LinearRegression())])),
        pipeline(
            LinearRegression(),
            [("w", OneHotEncoder(), ["weekend"]), ("n", "passthrough", ["distance", "weekend"])],
        ),
        pipeline(LinearRegression(), [("s", StandardScaler(), ["distance", "weekend"])]),
        Pipeline([
            ("columns", ColumnTransformer([("n", "passthrough", ["distance", "weekend"])])),
            ("scale", StandardScaler()),
            ("last", LinearRegression()),
        ]),
    ],
)  # fmt: skip
def test_what_is_not_proven_is_left_alone(model: Pipeline) -> None:
    frame = taxi(200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frame, frame["distance"])
    assert mlflow_script.bools_to_numbers(model) == ()


def test_frames_without_a_float_beside_the_truth_values_are_left_alone() -> None:
    frame = taxi(10)
    assert mlflow_script._cast_bools(frame, [["hour", "weekend"]]) is frame


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (np.array([1, 2]), {"prediction": [1, 2]}),
        ([1, 2], {"prediction": [1, 2]}),
        (pd.Series([1, 2], index=[5, 6]), {"prediction": [1, 2]}),
        (np.array([[1], [2]]), {"prediction": [1, 2]}),
        (np.array([[1, 3], [2, 4]]), {"prediction_0": [1, 2], "prediction_1": [3, 4]}),
        ({"a": np.array([1, 2]), "b": ["x", "y"]}, {"a": [1, 2], "b": ["x", "y"]}),
        (pd.DataFrame({"a": [1, 2]}, index=[9, 8]), {"a": [1, 2]}),
    ],
)
def test_every_kind_of_result_becomes_rows(result: Any, expected: dict[str, Any]) -> None:
    frame = mlflow_script.as_frame(result, pd.RangeIndex(2))
    assert frame.to_dict("list") == expected


def test_images_are_given_as_the_signature_says(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(12, dtype="uint8").reshape(2, 2, 3)).save(path)

    def tensor(dtype: str, shape: list[int]) -> list[dict[str, Any]]:
        return [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}]

    plain = mlflow_script.image_for(str(path), None)
    assert (plain.shape, plain.dtype) == ((1, 2, 2, 3), np.uint8)
    flat = mlflow_script.image_for(str(path), tensor("float32", [-1, 12]))
    assert (flat.shape, flat.dtype) == ((1, 12), np.float32)
    single = mlflow_script.image_for(str(path), tensor("object", [-1]))
    assert (single.shape, single[0].shape) == ((1,), (2, 2, 3))
    raw = mlflow_script.image_for(str(path), [{"type": "binary", "name": "image"}])
    assert raw["image"][0] == path.read_bytes()
    with pytest.raises(mlflow_script.SignatureError, match="single column of type binary"):
        mlflow_script.image_for(str(path), [{"type": "double", "name": "x"}])


def test_each_image_is_one_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("a.png", 1), ("b.png", 2)):
        Image.fromarray(np.full((2, 2, 3), value, dtype="uint8")).save(tmp_path / name)
    started(saved(tmp_path / "m", Doubler()), monkeypatch)
    result = mlflow_script.run([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    assert result["prediction"].tolist() == [12, 24]


@pytest.mark.filterwarnings("ignore")  # mlflow warns of its own settings while it saves and loads
def test_models_that_mlflow_saved_predict_what_mlflow_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pyfunc  # noqa: PLC0415 -- slow to import; the judge of this test alone
    import mlflow.sklearn  # noqa: PLC0415 -- the same
    from mlflow.models import infer_signature  # noqa: PLC0415 -- the same

    frame = taxi(300)
    model = pipeline(GradientBoostingRegressor(n_estimators=5)).fit(frame, frame["distance"])
    saved_at = str(tmp_path / "m")
    mlflow.sklearn.save_model(
        model, saved_at, signature=infer_signature(frame, model.predict(frame)), serialization_format="cloudpickle"
    )
    expected = mlflow.pyfunc.load_model(saved_at).predict(frame)
    started(saved_at, monkeypatch)
    assert mlflow_script._model is not None
    assert not mlflow_script._model.enforces
    assert mlflow_script.run(frame)["prediction"].to_numpy().tobytes() == expected.tobytes()

    monkeypatch.setattr(mlflow_script, "_unpickle", lambda *_: None)  # as for a format that only mlflow knows
    through_mlflow = mlflow_script.load(saved_at)
    assert through_mlflow.enforces
    assert through_mlflow.predict(frame).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("answer", "noted"),
    [
        (np.array([1.0, 2.0]), "scalars"),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), "vectors"),
        (pd.DataFrame({"a": [1, 2]}), "table"),
        ({"a": [1, 2]}, "table"),
    ],
)
def test_it_notes_what_the_model_answered_with(answer: Any, noted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlflow_script.LoadedModel(lambda _: answer, None, enforces=True)
    monkeypatch.setattr(mlflow_script, "_model", model)
    assert mlflow_script.run(pd.DataFrame({"x": [1, 2]})).attrs == {mlflow_script.PREDICTED: noted}
