"""The predictions of some scikit-learn models, bit for bit, without what scikit-learn checks around each call.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. Scoring a
few hundred rows with a small model takes scikit-learn longer to check than to compute. Here the same arithmetic is done
by the same native code on the same numbers: for a ``OneClassSVM``, alone or behind a ``StandardScaler`` in a
``Pipeline``, of exactly these classes. Whoever uses this compares the first answers of each structure with the model's
own (see ``model_map``), because it leans on what scikit-learn does inside.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any, NamedTuple

_PIPELINE = ("sklearn.pipeline", "Pipeline")
_SCALER = ("sklearn.preprocessing._data", "StandardScaler")
_SVM = ("sklearn.svm._classes", "OneClassSVM")


class Lean(NamedTuple):
    """A way to predict for a two-dimensional float64 array in C order."""

    structure: tuple[Any, ...]
    """What the model is made of: models of one structure take the same way through the code."""
    columns: int
    predict: Any
    """Array → array; None where the model itself has to be asked, because a number is missing or infinite."""


def lean(model: Any) -> Lean | None:
    """The lean way of a model; None where there is none."""
    steps = [step for _, step in model.steps] if _kind(model) == _PIPELINE else [model]
    kinds = [_kind(step) for step in steps]
    if kinds not in ([_SVM], [_SCALER, _SVM]):
        return None
    svm = steps[-1]
    if svm._sparse or svm.kernel not in {"linear", "poly", "rbf", "sigmoid"}:  # noqa: SLF001 -- see the module's words
        return None
    if int(svm._n_support[0]) != len(svm.support_vectors_):  # noqa: SLF001 -- the same
        return None  # scikit-learn refuses it as altered
    scaler = steps[0] if len(steps) == 2 else None
    if scaler is not None and "_sklearn_output_config" in vars(scaler):
        return None
    mean = scaler.mean_ if scaler is not None and scaler.with_mean else None
    scale = scaler.scale_ if scaler is not None and scaler.with_std else None
    structure = (*kinds, svm.kernel, mean is None, scale is None)
    return Lean(structure, int(svm.n_features_in_), _predictor(svm, mean, scale))


@lru_cache(maxsize=None)
def _native() -> tuple[Any, Any]:
    """numpy, and the function of libsvm: looked up once, and not for each of thousands of models."""
    return importlib.import_module("numpy"), importlib.import_module("sklearn.svm._libsvm").predict


def _predictor(svm: Any, mean: Any, scale: Any) -> Any:
    numpy, native = _native()
    fitted = (
        *(svm.support_, svm.support_vectors_, svm._n_support, svm._dual_coef_),  # noqa: SLF001 -- see the module's words
        *(svm._intercept_, svm._probA, svm._probB),  # noqa: SLF001 -- the same
    )
    options = {
        "svm_type": 2,
        "kernel": svm.kernel,
        "degree": svm.degree,
        "coef0": svm.coef0,
        "gamma": svm._gamma,  # noqa: SLF001 -- the same
        "cache_size": svm.cache_size,
    }

    def predict(rows: Any) -> Any:
        if mean is not None:
            rows = rows - mean
        if scale is not None:
            rows = rows / scale
        if not numpy.isfinite(rows.sum()):
            return None
        return numpy.asarray(native(rows, *fitted, **options), dtype=numpy.intp)

    return predict


def _kind(value: Any) -> tuple[str, str]:
    return type(value).__module__, type(value).__name__
