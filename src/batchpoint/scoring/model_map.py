"""A model for each key, without a script: each row is scored by the model of its key.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. The rows
of a key lie together, so nothing here is done row by row. A model that is missing, cannot be loaded or raises costs the
rows of its own keys; a row for which a model raises costs itself.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    _Within = tuple[Mapping[str, Any], int, int]
    """A span of one key: what is known of it, and which items are its."""

AHEAD = 8
"""Models whose files are read while others score."""
PICKLES = (".pkl", ".pickle", ".joblib")
PROBES = 8
"""Rows, spread evenly, that are scored alone when a model raises. If each of them fails, the model is at fault."""
PROOFS = 2
"""Models of one structure whose lean answers are compared with their own, before the lean way is trusted."""
MAX_TEXT = 20_000
"""Characters of a message or a traceback that are kept, counted from the end."""


class ModelUnusableError(Exception):
    """A key has no model, or one that cannot be loaded."""


class KeyModel(NamedTuple):
    """A loaded model."""

    predict: Callable[[Any], Any]
    features: tuple[str, ...] | None
    """The columns that it takes; None takes those that are no keys."""
    takes_names: bool
    """Whether it is given a DataFrame rather than an array."""
    lean: Any = None


class Scored(NamedTuple):
    """What became of a part."""

    result: Any
    positions: list[int] | None
    """The items of the part that have a row in the result; None when all have."""
    told: dict[str, Any]
    """For the driver: see ``model_outcomes``."""


class ModelMap:
    """Scores parts whose rows are grouped by key."""

    def __init__(self, settings: Mapping[str, Any], load_sibling: Callable[[str], Any]) -> None:
        """Take the fields of ``ModelMapSpec`` and ``keys``; ``load_sibling`` gives modules beside this one."""
        self._settings = settings
        self._models = Models(settings["cached_models"], load_sibling)
        self._as_frame = load_sibling("mlflow_script").as_frame
        self._trusted: dict[Any, int] = {}
        importlib.import_module("pandas")

    def score(self, frame: Any, spans: Sequence[Mapping[str, Any]], start: int, stop: int) -> Scored:
        """Score the items ``start`` to ``stop`` of a mini-batch, which are the rows of ``frame``."""
        rows = _Rows(frame, self._settings)
        told: dict[str, Any] = {"uses": [], "skipped": [], "failed": []}
        outputs: list[tuple[int, int, Any]] = []
        for span, first, last in self._read_ahead(_within(spans, start, stop)):
            began, before, name = time.perf_counter(), self._models.loads, None
            try:
                model, name = self._model_for(span)
            except ModelUnusableError as error:
                self._note_unusable(error, span, first, last, told)
            else:
                for begin, end, answer in self._answers(model, rows, first - start, last - start):
                    if isinstance(answer, BaseException):
                        said = f"{_words(span)}: the model {name} failed: {type(answer).__name__}: {answer}"
                        told["failed"].append((begin + start, end + start, _described(answer, said), span["key"]))
                    else:
                        outputs.append((begin, end, answer))
            seconds = round(time.perf_counter() - began, 6)
            told["uses"].append((first, last, name, seconds, self._models.loads - before))
        done = sum(end - begin for begin, end, _ in outputs)
        positions = None if done == stop - start else [at for begin, end, _ in outputs for at in range(begin, end)]
        return Scored(self._joined([answer for _, _, answer in outputs]), positions, told)

    def _read_ahead(self, spans: Iterable[_Within]) -> Iterator[_Within]:
        """The same, while the system reads the models of those that follow: disks answer many questions at once."""
        ahead: deque[_Within] = deque()
        for found in spans:
            if found[0]["model"] is not None:
                self._models.read_ahead(found[0]["path"], found[0]["type"])
            ahead.append(found)
            if len(ahead) > AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _model_for(self, span: Mapping[str, Any]) -> tuple[KeyModel, str]:
        """The model of a key or, where the policy says so, the default one; and its name."""
        default = self._settings["default"] if self._settings["on_missing"] == "default" else None
        if span["model"] is not None:
            try:
                return self._models.get(span["path"], span["type"]), span["model"]
            except (Exception, SystemExit) as error:
                if default is None:
                    said = f"the model {span['model']} cannot be loaded from {span['path']}"
                    message = f"{_words(span)}: {said}: {type(error).__name__}: {error}"
                    raise ModelUnusableError(message) from error
        if default is None:
            raise ModelUnusableError(f"{_words(span)}: the model map has no model for this key.")
        try:
            return self._models.get(default["path"], default["type"]), default["name"]
        except Exception as error:
            said = f"the default model {default['name']} cannot be loaded from {default['path']}"
            raise ModelUnusableError(f"{_words(span)}: {said}: {type(error).__name__}: {error}") from error

    def _note_unusable(
        self, error: ModelUnusableError, span: Mapping[str, Any], first: int, last: int, told: dict[str, Any]
    ) -> None:
        if self._settings["on_missing"] == "skip":
            told["skipped"].append((first, last, str(error)))
        else:
            told["failed"].append((first, last, _described(error.__cause__ or error, str(error)), span["key"]))

    # ── predictions ──

    def _answers(self, model: KeyModel, rows: _Rows, first: int, last: int) -> Iterator[tuple[int, int, Any]]:
        """Answers for ranges of rows, or the exception that a range fails with: all of a faulty model's, a bad row."""
        try:
            yield first, last, self._predict(model, rows, first, last)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever a model raises fails rows of its key alone
            if last - first == 1 or self._is_at_fault(model, rows, first, last):
                yield first, last, error
            else:
                yield from self._halves(model, rows, first, last)

    def _halves(self, model: KeyModel, rows: _Rows, first: int, last: int) -> Iterator[tuple[int, int, Any]]:
        middle = (first + last) // 2
        for begin, end in ((first, middle), (middle, last)):
            try:
                yield begin, end, self._predict(model, rows, begin, end)
            except (Exception, SystemExit) as error:  # noqa: BLE001 -- the same
                if end - begin == 1:
                    yield begin, end, error
                else:
                    yield from self._halves(model, rows, begin, end)

    def _is_at_fault(self, model: KeyModel, rows: _Rows, first: int, last: int) -> bool:
        """Whether a model raises for each of some rows, taken alone: halving would cost two calls for each row."""
        step = max(1, (last - first) // PROBES)
        for at in range(first, last, step):
            try:
                self._predict(model, rows, at, at + 1)
            except (Exception, SystemExit):  # noqa: BLE001, S112 -- the same
                continue
            return False
        return True

    def _predict(self, model: KeyModel, rows: _Rows, first: int, last: int) -> Any:
        """What the model answers: one-dimensional arrays as they are, everything else as a DataFrame."""
        answer = self._lean_answer(model, rows, first, last)
        if answer is None:
            given = rows.frame(model.features) if model.takes_names else rows.array(model.features)
            answer = model.predict(given.iloc[first:last] if model.takes_names else given[first:last])
        if getattr(answer, "ndim", 0) != 1 or not hasattr(answer, "dtype") or hasattr(answer, "index"):
            answer = self._as_frame(answer, None)
        if len(answer) != last - first:
            raise ValueError(f"it answered with {len(answer)} predictions for {last - first} rows")
        return answer

    def _lean_answer(self, model: KeyModel, rows: _Rows, first: int, last: int) -> Any:
        """The answer by the lean way; None when there is none. The first of each structure are proven."""
        lean = model.lean
        if lean is None or self._trusted.get(lean.structure, 0) < 0:
            return None
        numbers = rows.numbers(model.features)
        if numbers is None or numbers.shape[1] != lean.columns:
            return None
        answer = lean.predict(numbers[first:last])
        proofs = self._trusted.get(lean.structure, 0)
        if answer is not None and proofs < PROOFS:
            given = rows.frame(model.features) if model.takes_names else rows.array(model.features)
            own = model.predict(given.iloc[first:last] if model.takes_names else given[first:last])
            is_equal = own.dtype == answer.dtype and own.shape == answer.shape and bool((own == answer).all())
            self._trusted[lean.structure] = proofs + 1 if is_equal else -1
            return own
        return answer

    def _joined(self, answers: list[Any]) -> Any:
        """The answers for all keys as one result, with the labels put in place."""
        pandas, numpy = importlib.import_module("pandas"), importlib.import_module("numpy")
        column = self._settings["prediction_column"]
        if not answers:
            return []
        if all(hasattr(answer, "columns") for answer in answers):
            frame = pandas.concat([self._named(answer) for answer in answers], ignore_index=True)
        elif any(hasattr(answer, "columns") for answer in answers):
            frames = [self._named(self._as_frame(answer, None)) for answer in answers]
            frame = pandas.concat(frames, ignore_index=True)
        elif len({answer.dtype for answer in answers}) == 1:
            frame = pandas.DataFrame({column: numpy.concatenate(answers)})
        else:  # whole numbers of one model stay whole beside another's fractions
            mixed = [value for answer in answers for value in answer.tolist()]
            frame = pandas.DataFrame({column: pandas.Series(mixed, dtype=object)})
        if self._settings["labels"] and column in frame.columns:
            frame[column] = _labelled(frame[column], self._settings["labels"])
        return frame

    def _named(self, frame: Any) -> Any:
        return frame.rename(columns={"prediction": self._settings["prediction_column"]})


class Models:
    """The models that a worker holds, the last used ones of them."""

    def __init__(self, most: int, load_sibling: Callable[[str], Any]) -> None:
        """Hold at most so many."""
        self._most = max(1, most)
        self._sibling = load_sibling
        self._lean = load_sibling("lean_predict").lean
        self._held: OrderedDict[tuple[str, str], KeyModel] = OrderedDict()
        self.loads = 0
        """How many were loaded so far."""

    def get(self, path: str, kind: str) -> KeyModel:
        """A model, loaded unless it is held. Raises what loading raises."""
        model = self._held.get((path, kind))
        if model is None:
            while len(self._held) >= self._most:
                self._held.popitem(last=False)
            self.loads += 1
            model = self._held[path, kind] = self._mlflow(path) if kind == "mlflow_model" else self._pickled(path)
        self._held.move_to_end((path, kind))
        return model

    def read_ahead(self, path: str, kind: str) -> None:
        """Have the system read the files of a model that is wanted soon, unless it is held."""
        if (path, kind) not in self._held and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # loading it will say what is wrong
                is_file = path.endswith(PICKLES) or not os.path.isdir(path)  # noqa: PTH112 -- a string
                for file in [path] if is_file else Path(path).iterdir():
                    descriptor = os.open(file, os.O_RDONLY)
                    try:
                        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
                    finally:
                        os.close(descriptor)

    def _mlflow(self, path: str) -> KeyModel:
        script = self._sibling("mlflow_script")
        model = script.load(path)
        return KeyModel(lambda frame: script.predict_rows(frame.reset_index(drop=True), model), None, takes_names=True)

    def _pickled(self, path: str) -> KeyModel:
        model = unpickled(path)
        predict = getattr(model, "predict", None)
        if not callable(predict):
            raise TypeError(f"a {type(model).__name__} has no method predict")
        names = getattr(model, "feature_names_in_", None)
        features = None if names is None else tuple(str(name) for name in names)
        return KeyModel(predict, features, takes_names=names is not None, lean=self._lean(model))


def unpickled(path: str) -> Any:
    """The object in a pickle, or in a file that joblib wrote, whatever its ending; or in the only one of a folder.

    Raises:
        FileNotFoundError: there is none, or more than one.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 -- with small models a Path costs as much as reading
            data = file.read()
    except IsADirectoryError:
        return unpickled(_pickle_in(path))
    if data.startswith(b"\x80") and b"joblib.numpy_pickle" not in data:
        return pickle.loads(data)  # noqa: S301 -- a model is code; whoever registers one may run it
    return importlib.import_module("joblib").load(io.BytesIO(data))


def _pickle_in(folder: str) -> str:
    """The pickle of a model in its folder."""
    found = [entry for entry in sorted(Path(folder).iterdir()) if entry.suffix in PICKLES]
    if len(found) != 1:
        kinds = ", ".join(PICKLES)
        raise FileNotFoundError(f"{folder} holds {len(found)} files of the kinds {kinds}; one is needed")
    return str(found[0])


class _Rows:
    """The rows of a part, as models want them; each form is made once."""

    def __init__(self, frame: Any, settings: Mapping[str, Any]) -> None:
        self._frame = frame
        self._given = tuple(settings["features"]) if settings["features"] is not None else None
        self._keys = frozenset(settings["keys"])
        self._frames: dict[Any, Any] = {}
        self._arrays: dict[Any, Any] = {}

    def frame(self, features: tuple[str, ...] | None) -> Any:
        wanted = self._given or features
        if wanted not in self._frames:
            names = [name for name in self._frame.columns if name not in self._keys] if wanted is None else list(wanted)
            missing = [name for name in names if name not in self._frame.columns]
            if missing:
                raise KeyError(f"the input has no column {', '.join(missing)}, which the model takes")
            self._frames[wanted] = self._frame[names]
        return self._frames[wanted]

    def array(self, features: tuple[str, ...] | None) -> Any:
        wanted = self._given or features
        if wanted not in self._arrays:
            self._arrays[wanted] = self.frame(features).to_numpy()
        return self._arrays[wanted]

    def numbers(self, features: tuple[str, ...] | None) -> Any:
        """A float64 array in C order; None where scikit-learn would not make just that of the columns."""
        key = (self._given or features, "numbers")
        if key not in self._arrays:
            frame = self.frame(features)
            fit = all(str(kind) in {"float64", "int64", "int32", "bool"} for kind in frame.dtypes)
            self._arrays[key] = frame.to_numpy("float64", copy=True).copy(order="C") if fit else None
        return self._arrays[key]


def _within(spans: Sequence[Mapping[str, Any]], start: int, stop: int) -> Iterator[_Within]:
    """The keys of a part, with the items that they have in it."""
    begin = 0
    for span in spans:
        first, last = max(start, begin), min(stop, begin + span["rows"])
        if first < last:
            yield span, first, last
        begin += span["rows"]


def _labelled(values: Any, labels: Mapping[str, Any]) -> Any:
    """Predictions with what stands for them; those without a label stay."""
    pandas = importlib.import_module("pandas")
    codes, found = pandas.factorize(values, use_na_sentinel=False)
    plain = [value.item() if hasattr(value, "item") else value for value in found]
    wanted = [labels.get(str(value), value) for value in plain]
    kinds = set(map(type, wanted))
    return pandas.Series(wanted, dtype=None if len(kinds) == 1 else object).take(codes).reset_index(drop=True)


def _words(span: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in span["key"].items())


def _described(error: BaseException, message: str) -> dict[str, str]:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"type": type(error).__name__, "message": message[-MAX_TEXT:], "traceback": text[-MAX_TEXT:]}
