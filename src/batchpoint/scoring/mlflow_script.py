"""The scoring script supplied for MLflow models: ``init()`` and ``run(mini_batch)``.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. A model
of the scikit-learn flavour is unpickled directly, because importing mlflow costs more than a second; any other model is
loaded through ``mlflow.pyfunc``. The signature is enforced as mlflow does it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PRELOADED: dict[str, Any] = {}
"""Models that the fork server loaded before it forked this worker, by path: what ``load()`` returned."""


PREDICTED = "mlflow_prediction"
"""What ``run()`` notes on its result (``DataFrame.attrs``) about what the model answered with: a ``table``, ``scalars``
or ``vectors``. Azure's driver writes each in another way."""


class SignatureError(TypeError):
    """The rows do not fit the model's signature. The message names columns and types."""


class LoadedModel:
    """A model that can predict, and what its signature says."""

    def __init__(
        self, predict: Callable[[Any], Any], signature: list[dict[str, Any]] | None, *, enforces: bool
    ) -> None:
        self.predict = predict
        self.signature = signature
        self.enforces = enforces
        """Whether ``predict`` enforces the signature itself (mlflow does)."""


_model: LoadedModel | None = None


def load(model_path: str) -> LoadedModel:
    """Load the MLflow model of a folder.

    Raises:
        RuntimeError: the folder is no MLflow model, has no ``python_function`` flavour, or needs a package that the
            environment lacks.
    """
    root = Path(model_path)
    declared = _read_mlmodel(root)
    flavors = declared.get("flavors") or {}
    pyfunc = flavors.get("python_function")
    if not pyfunc:
        found = ", ".join(flavors) or "none"
        raise RuntimeError(f"{root / 'MLmodel'} has no python_function flavour (found: {found}). Log it with one.")
    inputs = (declared.get("signature") or {}).get("inputs")
    signature = json.loads(inputs) if inputs else None
    code = pyfunc.get("code") or (flavors.get("sklearn") or {}).get("code")
    if code:
        sys.path.insert(0, str(root / code))
    if pyfunc.get("loader_module") == "mlflow.sklearn" and "sklearn" in flavors:
        estimator = _unpickle(root, flavors["sklearn"])
        if estimator is not None:
            predict = _predict_of(estimator, str(pyfunc.get("predict_fn") or "predict"))
            return LoadedModel(predict, signature, enforces=False)
    try:
        loaded = importlib.import_module("mlflow.pyfunc").load_model(str(root))
    except ModuleNotFoundError as error:
        message = f"Loading this model ({pyfunc.get('loader_module')}) needs {error.name!r}. Add it to the environment."
        raise RuntimeError(message) from error
    return LoadedModel(loaded.predict, signature, enforces=True)


def init() -> None:
    """Load the model of ``MODEL_PATH``, or take the one that was loaded before this worker was forked."""
    global _model  # noqa: PLW0603 -- a scoring script keeps its model in a global; this one does too
    path = os.environ["MODEL_PATH"]
    _model = PRELOADED.get(path) or load(path)


def run(mini_batch: Any) -> Any:
    """Score rows (a DataFrame) or images (a list of paths).

    Returns:
        A DataFrame with one row for each row of the input, in order; for images one row for each file, or more where a
        model answers with several. A vector is the column ``prediction``, a matrix ``prediction_0`` and so on.

    Raises:
        SignatureError: the rows do not fit the signature.
    """
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded before the first row is read

    if _model is None:
        raise RuntimeError("init() has not been called")
    if isinstance(mini_batch, pd.DataFrame):
        predicted = _model.predict(_rows_for(mini_batch, _model))
        return _noted(as_frame(predicted, mini_batch.index), predicted)
    answers = [_model.predict(image_for(path, _model.signature)) for path in mini_batch]
    return _noted(pd.concat([as_frame(answer, None) for answer in answers], ignore_index=True), answers[0])


def _noted(frame: Any, predicted: Any) -> Any:
    """The frame, with a note of what the model answered with."""
    import pandas as pd  # noqa: PLC0415 -- the user's own

    is_table = isinstance(predicted, (pd.DataFrame, dict))
    frame.attrs[PREDICTED] = "table" if is_table else "vectors" if getattr(predicted, "ndim", 1) > 1 else "scalars"
    return frame


def predict_rows(frame: Any, model: LoadedModel) -> Any:
    """What a model predicts for the rows of a DataFrame, as ``run()`` returns it."""
    return as_frame(model.predict(_rows_for(frame, model)), frame.index)


def enforce(frame: Any, signature: Sequence[dict[str, Any]]) -> Any:
    """The columns that the signature names, in its order, converted where mlflow allows it.

    Allowed are: number to a wider number of the same kind, int32 to double, int64 holding only 0 and 1 to double,
    anything to datetime that pandas converts. Optional columns may be missing; other columns are left out.

    Raises:
        SignatureError: columns are missing or of another type. The message lists them all.
    """
    names = [column.get("name") for column in signature]
    if names == [None]:
        frame = frame.iloc[:, :1]
        names = [frame.columns[0]]
    missing = [
        f"{name} ({column['type']})"
        for name, column in zip(names, signature)
        if name not in frame and column.get("required", True)
    ]
    faults = ["missing columns " + ", ".join(missing)] if missing else []
    columns = {}
    for name, column in zip(names, signature):
        if name not in frame:
            continue
        try:
            columns[name] = _converted(frame[name], column["type"])
        except _RefusedError as hint:
            faults.append(f"column {name} should be {column['type']} and is {frame[name].dtype}{hint}")
        except (TypeError, ValueError) as error:
            faults.append(f"column {name} should be {column['type']}: {error}")
    if faults:
        raise SignatureError("The rows do not fit the model's signature: " + "; ".join(faults) + ".")
    if list(columns) == list(frame.columns) and all(columns[name] is frame[name] for name in columns):
        return frame
    return frame[list(columns)].assign(**{str(name): values for name, values in columns.items()})


def image_for(path: str, signature: Sequence[dict[str, Any]] | None) -> Any:
    """One image as Azure ML's batch endpoints hand it to a model.

    Without a signature or shape an array ``(1, height, width, channels)`` of uint8; with a tensor of shape ``(-1,)`` an
    array of one object; else the type and shape of the tensor. With a single binary column, a DataFrame of bytes.

    Raises:
        SignatureError: the signature has columns that are not one binary column.
    """
    tensor: dict[str, Any] = signature[0] if signature else {"type": "tensor", "tensor-spec": {"dtype": "uint8"}}
    if tensor.get("type") != "tensor":
        import pandas as pd  # noqa: PLC0415 -- the user's own

        if len(signature or ()) != 1 or tensor.get("type") != "binary":
            raise SignatureError("Images need a tensor signature, or one with a single column of type binary.")
        return pd.DataFrame({tensor.get("name") or 0: [Path(path).read_bytes()]})
    import numpy as np  # noqa: PLC0415 -- the user's own

    try:
        image_module = importlib.import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise RuntimeError("Scoring images needs 'pillow'. Add it to the environment.") from error
    with image_module.open(path) as image:
        pixels = np.asarray(image)
    specification = tensor.get("tensor-spec") or {}
    shape = specification.get("shape")
    if shape is not None and tuple(shape) == (-1,):
        single = np.empty(1, dtype=object)
        single[0] = pixels
        return single
    pixels = pixels.astype(specification.get("dtype", "uint8"))
    if shape is not None:
        return pixels.reshape(tuple(shape))
    return pixels.reshape(1, *pixels.shape) if pixels.ndim == 3 else pixels.reshape(1, *pixels.shape, 1)


def bools_to_numbers(estimator: Any) -> tuple[str, ...]:
    """Columns of truth values that may be turned into int8 before ``predict`` without changing any bit of the result.

    A ``ColumnTransformer`` that passes truth values through together with floats makes pandas mix them into an array of
    Python objects, which is four times slower from there on. The columns named here are those for which the cast is
    proven to be exact:

    * the first step of a ``Pipeline`` is a ``ColumnTransformer`` whose output is an array (no ``set_output``);
    * the column occurs in one group only, and that group is passed through, so nothing sees the column before it is
      stacked: the group's array holds the Python values ``True``/``False`` before, and 1/0 after;
    * the next step is the last, one of scikit-learn's trees, forests, boosted trees or linear models (no subclass, no
      estimator made of others), which take any array through ``check_array`` as
      numbers: ``float(True) == 1.0`` and ``float(False) == 0.0``;
    * the group holds a float column too (looked at for each mini-batch, in ``_cast_bools``), so that the group is
      float64 after the cast, as ``check_array`` makes it of the objects before: each object becomes the double
      nearest to it in both ways.
    """
    groups = _passed_through(estimator)
    return tuple(name for group in groups for name in group)


# ------------------------------------------------------------------------------------------------------------- loading


def _read_mlmodel(root: Path) -> dict[str, Any]:
    path = root / "MLmodel"
    if not path.is_file():
        raise RuntimeError(f"{path} does not exist: this is not an MLflow model.")
    try:
        yaml = importlib.import_module("yaml")
    except ModuleNotFoundError as error:
        raise RuntimeError("Reading MLmodel needs 'pyyaml' (mlflow brings it). Add it to the environment.") from error
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict):
        raise RuntimeError(f"{path} is not an MLmodel file.")
    return content


def _unpickle(root: Path, flavor: dict[str, Any]) -> Any:
    """The estimator; None for a format that only mlflow knows."""
    module = {"pickle": "pickle", "cloudpickle": "pickle", "joblib": "joblib"}.get(
        str(flavor.get("serialization_format", "pickle"))
    )
    if module is None or not flavor.get("pickled_model"):
        return None
    if module == "pickle":
        with (root / flavor["pickled_model"]).open("rb") as file:
            return importlib.import_module("pickle").load(file)
    return importlib.import_module(module).load(root / flavor["pickled_model"])


def _predict_of(estimator: Any, name: str) -> Callable[[Any], Any]:
    method: Callable[[Any], Any] = getattr(estimator, name)
    groups = _passed_through(estimator)
    if not groups:
        return method
    return lambda frame: method(_cast_bools(frame, groups))


# ------------------------------------------------------------------------------------------------- the exact speed-up


_NUMERIC = (
    "sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn.linear_model._base", "sklearn.linear_model._coordinate_descent", "sklearn.linear_model._logistic",
    "sklearn.linear_model._ridge", "sklearn.tree._classes",
)  # fmt: skip


def _passed_through(estimator: Any) -> list[list[str]]:
    """Groups of columns that a pipeline hands straight on to an estimator which takes numbers: see bools_to_numbers."""
    steps = getattr(estimator, "steps", None)
    if type(estimator).__module__ != "sklearn.pipeline" or not steps or len(steps) != 2:
        return []
    (_, transformer), (_, last) = steps
    kind = type(transformer)
    if (kind.__module__, kind.__name__) != ("sklearn.compose._column_transformer", "ColumnTransformer"):
        return []
    if not type(last).__module__.startswith(_NUMERIC) or _outputs_frames(transformer):
        return []
    uses: dict[object, int] = {}
    groups = []
    for _, inner, columns in getattr(transformer, "transformers_", ()):
        if isinstance(columns, (str, slice)) or callable(columns) or not hasattr(columns, "__iter__"):
            return []
        names = list(columns)
        if any(not isinstance(name, str) for name in names):
            return []
        for name in names:
            uses[name] = uses.get(name, 0) + (not (isinstance(inner, str) and inner == "drop"))
        if _passes(inner):
            groups.append(names)
    return [names for names in groups if all(uses[name] == 1 for name in names)]


def _passes(inner: Any) -> bool:
    if isinstance(inner, str):
        return inner == "passthrough"
    kind = type(inner)
    return (
        (kind.__module__, kind.__name__) == ("sklearn.preprocessing._function_transformer", "FunctionTransformer")
        and inner.func is None
        and not inner.validate
    )


def _outputs_frames(transformer: Any) -> bool:
    own = getattr(transformer, "_sklearn_output_config", {}).get("transform")
    wanted = own or importlib.import_module("sklearn").get_config().get("transform_output", "default")
    return bool(wanted != "default")


def _cast_bools(frame: Any, groups: list[list[str]]) -> Any:
    casts: dict[str, str] = {}
    for names in groups:
        kinds = {name: str(frame[name].dtype) for name in names if name in frame}
        plain = {"bool", "float64", "int64", "int32", "int16", "int8"}
        if "bool" in kinds.values() and "float64" in kinds.values() and set(kinds.values()) <= plain:
            casts.update({name: "int8" for name, kind in kinds.items() if kind == "bool"})
    return frame.astype(casts) if casts else frame


# ----------------------------------------------------------------------------------------------------------- signature


def _rows_for(frame: Any, model: LoadedModel) -> Any:
    if model.enforces or not model.signature:
        return frame
    if model.signature[0].get("type") == "tensor":
        return _tensor(frame, model.signature)
    return enforce(frame, model.signature)


def _tensor(frame: Any, signature: Sequence[dict[str, Any]]) -> Any:
    if signature[0].get("name") is not None:
        return {item["name"]: frame[item["name"]].to_numpy(item["tensor-spec"]["dtype"]) for item in signature}
    specification = signature[0].get("tensor-spec") or {}
    values = frame.to_numpy(dtype=specification.get("dtype"))
    shape = specification.get("shape")
    return values.reshape(tuple(shape)) if shape and len(shape) > 1 else values


_NUMPY = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64",
    "datetime": "datetime64[ns]",
}  # fmt: skip


class _RefusedError(Exception):
    """A column's type is not one that may be converted; perhaps with a hint."""


def _converted(values: Any, wanted: str) -> Any:
    """One column as the signature has it. Raises when mlflow would refuse it."""
    import numpy as np  # noqa: PLC0415 -- the user's own

    if values.dtype == object and wanted not in {"binary", "string"}:
        values = values.infer_objects()
    is_text = values.dtype == object or str(values.dtype) in {"str", "string"}
    if wanted in {"string", "binary"} and is_text:
        return values
    if wanted not in _NUMPY:
        if wanted in {"string", "binary"}:
            raise _RefusedError
        return values
    target = np.dtype(_NUMPY[wanted])
    if values.dtype == target or (wanted == "boolean" and values.dtype == object):
        return values
    if wanted == "double" and values.dtype == object:  # decimals, and truth values with gaps
        return importlib.import_module("pandas").to_numeric(values)
    kind = getattr(values.dtype, "kind", "O")
    if wanted == "datetime" and (kind == "M" or values.dtype == object):
        return values.astype(target)
    size = getattr(values.dtype, "itemsize", 99)
    wider = kind == target.kind and size <= target.itemsize
    wider = wider or (kind == "u" and target.kind == "i" and size < target.itemsize)
    wider = wider or (kind in "iu" and wanted == "double" and size <= 6)
    if wider or (values.dtype == np.int64 and target.kind == "f" and values.isin([0, 1]).all()):
        return values.astype(target)
    if kind == "f" and target.kind in "iu" and values.isna().any():
        raise _RefusedError(", because a value is missing: whole numbers cannot be; declare the column as double")
    raise _RefusedError


# ------------------------------------------------------------------------------------------------------------- results


def as_frame(result: Any, index: Any) -> Any:
    """What ``predict`` returned as a DataFrame whose rows are those of the input."""
    import numpy as np  # noqa: PLC0415 -- the user's own
    import pandas as pd  # noqa: PLC0415 -- the same

    if isinstance(result, pd.DataFrame):
        return result.reset_index(drop=True) if index is None or len(result) == len(index) else result
    if isinstance(result, dict):
        return pd.DataFrame({str(name): _column(values) for name, values in result.items()})
    if isinstance(result, pd.Series):
        return pd.DataFrame({"prediction": result.to_numpy()})
    if hasattr(result, "toarray"):
        result = result.toarray()
    if hasattr(result, "numpy") and not isinstance(result, np.ndarray):
        result = result.numpy()
    if isinstance(result, np.ndarray) and result.ndim > 1:
        flat = result.reshape(len(result), -1)
        if flat.shape[1] == 1:
            return pd.DataFrame({"prediction": flat[:, 0]})
        return pd.DataFrame(flat, columns=[f"prediction_{i}" for i in range(flat.shape[1])])
    return pd.DataFrame({"prediction": _column(result)})


def _column(values: Any) -> Any:
    import numpy as np  # noqa: PLC0415 -- the user's own

    if isinstance(values, np.ndarray) and values.ndim == 0:
        return values.reshape(1)
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return values.reshape(len(values), -1)[:, 0] if values.reshape(len(values), -1).shape[1] == 1 else list(values)
    if isinstance(values, (str, bytes, int, float)):
        return [values]
    return values
