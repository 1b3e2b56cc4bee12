"""What one invoke may change, in every spelling that Azure ML's tools and documents use, brought into one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchpoint.entities.documents import read_body, suggestion
from batchpoint.entities.jobs import Output, Overrides
from batchpoint.errors import InvalidEntityError

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "compute.instance_count": ("instance_count",),
    "resources.instance_count": ("instance_count",),
    "max_retries": ("retry_settings", "max_retries"),
    "timeout": ("retry_settings", "timeout"),
    "mini_batch_timeout": ("retry_settings", "timeout"),
}
"""Keys that mean another one: the SDK's dotted form and the short form of Azure ML's documents."""

_ELSEWHERE = ("output_dataset", "job_name", "experiment_name", "description", "tags")
"""Keys that belong to the invoke itself, not to its overrides."""


@dataclass
class InvokeChanges:
    """What a list of overrides says: settings, and what belongs to the invoke beside them."""

    overrides: Overrides = field(default_factory=Overrides)
    outputs: dict[str, Output] = field(default_factory=dict)
    job_name: str | None = None
    experiment_name: str | None = None
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


def read_overrides(given: Iterable[Mapping[str, Any]]) -> InvokeChanges:
    """Read ``params_override=[{"compute.instance_count": 4}, {"retry_settings": {"timeout": 60}}]``; the last one wins.

    Keys may be dotted or nested, short (``max_retries``) or full (``retry_settings.max_retries``), and may stand under
    ``settings`` or ``batchpoint``.

    Raises:
        InvalidEntityError: a key may not be changed at invoke, or its value is not allowed.
    """
    settings: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    mappings: list[Any] = list(given)
    if odd := [each for each in mappings if not isinstance(each, Mapping)]:
        raise InvalidEntityError(f"Overrides are mappings of keys to values, which {odd[0]!r} is not.")
    for key, value in (pair for mapping in mappings for pair in _flat(mapping)):
        name = key.removeprefix("settings.").removeprefix("batchpoint.")
        root, *rest = _SPELLINGS.get(name, tuple(name.split(".")))
        if root in _ELSEWHERE:
            _put(beside, (root, *rest), value)
        elif root in Overrides.model_fields:
            _put(settings, (root, *rest), value)
        else:
            known = {*Overrides.model_fields, *_ELSEWHERE, *_SPELLINGS}
            message = f"'{key}' cannot be changed at invoke. {suggestion(name, known)}"
            raise InvalidEntityError(message)
    changes = InvokeChanges(overrides=read_body(Overrides, settings, name="overrides"))
    if dataset := beside.pop("output_dataset", None):
        changes.outputs["score"] = _output(dataset)
    for name, value in beside.items():
        if isinstance(value, Mapping) != (name == "tags"):
            wanted = "a mapping of keys to values" if name == "tags" else "text"
            raise InvalidEntityError(f"'{name}' of an invoke is {wanted}, not {value!r}.")
        setattr(changes, name, {key: str(item) for key, item in value.items()} if name == "tags" else str(value))
    return changes


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _put(target: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    for step in key[:-1]:
        if not isinstance(target.get(step), dict):
            target[step] = {}
        target = target[step]
    target[key[-1]] = value


def _output(dataset: Any) -> Output:
    """``output_dataset.datastore_id`` and ``output_dataset.path`` → one place."""
    known = {"datastore_id", "path"}
    if not isinstance(dataset, Mapping) or not {"datastore_id"} <= set(dataset) <= known:
        message = "output_dataset takes 'datastore_id' (azureml:<datastore>) and 'path'."
        raise InvalidEntityError(message)
    datastore = str(dataset["datastore_id"]).rsplit("/", 1)[-1].removeprefix("azureml:")
    path = str(dataset.get("path", "")).strip("/")
    return Output(path=f"azureml://datastores/{datastore}/paths/{path}")
