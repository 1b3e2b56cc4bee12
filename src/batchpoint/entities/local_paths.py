"""Which values of a document are paths of the machine that it was written on. Paths are listed, never looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from batchpoint.entities.documents import Key, Kind, value_at
from batchpoint.entities.parallel_run_config import KEY as PARALLEL_RUN_CONFIG


@dataclass(frozen=True)
class LocalPath:
    """A value of a document that is a path of the machine it was written on."""

    key: Key
    path: str
    holds: Literal[
        "path", "output", "conda_file", "pip_requirements", "parallel_run_config", "component", "document"
    ] = "path"
    """An output is written to. The last five are files whose content is put in their place."""


def is_local(text: str) -> bool:
    """Whether a path means this machine: neither an ``azureml:`` reference nor an address of another scheme."""
    return text.startswith("file:") or not re.match(r"^[a-zA-Z][a-zA-Z0-9+.\-]+:", text)


def local_paths(kind: Kind, value: Mapping[str, Any]) -> list[LocalPath]:
    """The local paths in a document of this kind; Azure's files mean them relative to the file they stand in."""
    if kind in ("model", "data", "code"):
        return list(_paths(value, ("path",)))
    if kind == "datastore":
        return list(_paths(value, ("path",))) if value.get("type", "local") == "local" else []
    if kind == "environment":
        return list(_environment_paths(value, ()))
    if kind == "deployment":
        return list(_deployment_paths(value))
    if kind in ("component", "job"):
        return list(_pipeline_paths(value, ()))
    if kind == "schedule":
        return list(_schedule_paths(value))
    return []


def looks_like_a_path(text: str) -> bool:
    """Whether the value of ``model:`` is a local path and not a reference such as ``churn:3`` or ``churn@latest``."""
    return text.startswith("file:") or (is_local(text) and (text.startswith(("~", ".")) or "/" in text))


def _paths(value: Mapping[str, Any], *keys: Key) -> Iterator[LocalPath]:
    for key in keys:
        found = value_at(value, key)
        if isinstance(found, str) and is_local(found) and "${{" not in found:
            yield LocalPath(key, found)


def _model_map_paths(value: Mapping[str, Any]) -> Iterator[LocalPath]:
    for name in ("folder", "mapping"):
        key = ("batchpoint", "model_map", name)
        found = value_at(value, key)
        if isinstance(found, str) and is_local(found) and ("/" in found or "@" not in found):
            yield LocalPath(key, found)
    default = value_at(value, ("batchpoint", "model_map", "default_model"))
    if isinstance(default, str) and looks_like_a_path(default):
        yield LocalPath(("batchpoint", "model_map", "default_model"), default)
    yield from _paths(value, ("batchpoint", "model_map", "default_model", "path"))


def _environment_paths(value: Mapping[str, Any], prefix: Key) -> Iterator[LocalPath]:
    names: tuple[Literal["conda_file"], Literal["pip_requirements"]] = ("conda_file", "pip_requirements")
    for name in names:
        found = value_at(value, (*prefix, name))
        if isinstance(found, str) and is_local(found):
            yield LocalPath((*prefix, name), found, name)
    yield from _paths(value, (*prefix, "build", "path"))


def _deployment_paths(value: Mapping[str, Any]) -> Iterator[LocalPath]:
    model = value.get("model")
    if isinstance(model, str) and looks_like_a_path(model):
        yield LocalPath(("model",), model)
    yield from _paths(value, ("model", "path"), ("code_configuration", "code"))
    yield from _model_map_paths(value)
    yield from _environment_paths(value, ("environment",))
    yield from _component_paths(value, ("component",))
    yield from parallel_run_paths(value, ())
    if isinstance(value.get("job_definition"), Mapping):
        yield from _pipeline_paths(value, ("job_definition",))


def _pipeline_paths(value: Mapping[str, Any], at: Key) -> Iterator[LocalPath]:
    """Those of a step, a component, or a pipeline with all that is in it."""
    for part in (at, (*at, "task")):
        yield from _paths(value, (*part, "code"), (*part, "model", "path"))
        yield from _environment_paths(value, (*part, "environment"))
    model = value_at(value, (*at, "task", "model"))
    if isinstance(model, str) and looks_like_a_path(model):
        yield LocalPath((*at, "task", "model"), model)
    for name in _names_in(value, (*at, "inputs")):
        yield from _paths(value, (*at, "inputs", name, "path"))
    for name in _names_in(value, (*at, "outputs")):
        for found in _paths(value, (*at, "outputs", name, "path")):
            yield replace(found, holds="output")
    yield from _component_paths(value, (*at, "component"))
    yield from parallel_run_paths(value, at)
    for name in _names_in(value, (*at, "jobs")):
        yield from _pipeline_paths(value, (*at, "jobs", name))


def _component_paths(value: Mapping[str, Any], at: Key) -> Iterator[LocalPath]:
    component = value_at(value, at)
    if isinstance(component, Mapping):
        yield from _pipeline_paths(value, at)
    elif isinstance(component, str) and (looks_like_a_path(component) or _is_yaml(component)):
        yield LocalPath(at, component, "component")


def _is_yaml(text: str) -> bool:
    return is_local(text) and text.endswith((".yml", ".yaml"))


def _names_in(value: Mapping[str, Any], at: Key) -> list[str]:
    found = value_at(value, at)
    return list(found) if isinstance(found, Mapping) else []


def parallel_run_paths(value: Mapping[str, Any], at: Key) -> Iterator[LocalPath]:
    """Those of ``parallel_run_config`` at a place: the file itself, or what stands in it."""
    key = (*at, PARALLEL_RUN_CONFIG)
    config = value_at(value, key)
    if isinstance(config, str):
        yield LocalPath(key, config, "parallel_run_config")
    elif isinstance(config, Mapping):
        if config.get("source_directory") is None:
            yield LocalPath((*key, "source_directory"), ".")
        yield from _paths(value, (*key, "source_directory"))
        yield from _environment_paths(value, (*key, "environment"))


def _schedule_paths(value: Mapping[str, Any]) -> Iterator[LocalPath]:
    for key in (("create_job",), ("create_job", "job")):
        found = value_at(value, key)
        if isinstance(found, str) and is_local(found):
            yield LocalPath(key, found, "document")
        elif isinstance(found, Mapping) and {"jobs", "component"} & found.keys():
            yield from (each for each in _pipeline_paths(value, key) if "{{" not in each.path)
    yield from _paths(value, ("trigger", "path"))
    if {"jobs", "component"} & set(_names_in(value, ("create_job",))):
        return  # a pipeline in place, whose inputs and outputs were its own
    for name in ("inputs", "outputs"):
        for port in _names_in(value, ("create_job", name)):
            for place in _paths(value, ("create_job", name, port, "path")):
                if not place.path.startswith("{{") and ("@" not in place.path or "/" in place.path):
                    yield place
