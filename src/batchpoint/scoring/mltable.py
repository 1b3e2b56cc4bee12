"""MLTable → an ordinary input: its paths become locations, its reader's settings the csv options.

Read are the forms that batch scoring needs: ``paths`` of files, folders and patterns, and one of the readers
``read_delimited``, ``read_parquet`` and ``read_json_lines`` as the first transformation. What cannot be honoured is
refused, never ignored. Source of the keys: Azure ML's MLTable schema.
"""

from __future__ import annotations

from typing import Any

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.errors import InputError
from batchpoint.scoring.spec import InputSpec, Location, ScoringSpec

ENCODINGS = {
    "utf8": "utf-8", "utf8bom": "utf-8", "iso88591": "latin-1", "latin1": "latin-1", "ascii": "ascii",
    "utf16": "utf-16", "windows1252": "windows-1252",
}  # fmt: skip

READERS: dict[str, frozenset[str]] = {
    "read_delimited": frozenset(
        {"delimiter", "header", "encoding", "support_multi_line", "empty_as_string", "infer_column_types"}
    ),
    "read_parquet": frozenset(),
    "read_json_lines": frozenset({"encoding"}),
}
"""The readers, and those of their settings that are honoured (``partition_size`` is: mini-batches are cut anyway)."""

_HARMLESS: dict[str, tuple[object, ...]] = {
    "include_path_column": (False,), "path_column": (None,), "infer_column_types": (True,), "invalid_lines": ("error",),
}  # fmt: skip


def resolved(spec: ScoringSpec) -> ScoringSpec:
    """The run with its MLTable turned into locations and csv options; a run without one is returned as it is.

    Raises:
        InputError: the MLTable uses what is not supported, or names no path.
    """
    table = spec.mltable
    if table is None:
        return spec
    base = spec.input.locations[0]
    locations: list[Location] = []
    include = list(spec.input.include)
    recursive = spec.input.recursive
    for entry in table.get("paths") or ():
        kind, path = next(iter(entry.items()))
        if kind not in {"file", "folder", "pattern"}:
            raise InputError(f"The MLTable names a path by {kind!r}. Use file, folder or pattern.")
        if kind == "pattern" and "://" in base.url:
            locations.append(base)
            include.append(str(path).removeprefix("./"))
            recursive = True
        else:
            locations.append(Location(url=_joined(base.url, str(path)), datastore=base.datastore))
    if not locations:
        raise InputError(f"The MLTable of {base.url} names no paths. Add 'paths' with a file, folder or pattern.")
    source = InputSpec(type=None, locations=locations, include=include, exclude=spec.input.exclude, recursive=recursive)
    csv = _csv_options(table.get("transformations") or [], spec.csv)
    return spec.model_copy(update={"input": source, "csv": csv, "mltable": None})


def _joined(base: str, path: str) -> str:
    if "://" in path or path.startswith("/"):
        return path
    folder = base.removesuffix("MLTable").rstrip("/")
    return f"{folder}/{path.removeprefix('./')}"


def _csv_options(transformations: list[Any], csv: CsvOptions) -> CsvOptions:
    for position, step in enumerate(transformations):
        name, settings = (step, {}) if isinstance(step, str) else next(iter(step.items()))
        if name not in READERS or position > 0:
            message = (
                f"The MLTable's transformation {name!r} is not supported. Supported is one of {', '.join(READERS)}."
            )
            raise InputError(message)
        csv = _with_reader(str(name), dict(settings or {}), csv)
    return csv


def _with_reader(name: str, settings: dict[str, Any], csv: CsvOptions) -> CsvOptions:
    for key, value in settings.items():
        harmless = key == "partition_size" or value in _HARMLESS.get(key, ())
        if not harmless and (key not in READERS[name] or key == "infer_column_types"):
            raise InputError(f"The MLTable's {name} sets {key} to {value!r}, which is not supported. Leave it out.")
    changes: dict[str, Any] = {}
    if "encoding" in settings:
        spelled = str(settings["encoding"]).lower().replace("-", "").replace("_", "").replace(" ", "")
        if spelled not in ENCODINGS:
            raise InputError(
                f"The MLTable's encoding {settings['encoding']!r} is not known. Use {', '.join(ENCODINGS)}."
            )
        changes["encoding"] = ENCODINGS[spelled]
    if "delimiter" in settings:
        changes["delimiter"] = settings["delimiter"]
    if "header" in settings:
        changes["header"] = settings["header"] != "no_header"
    if settings.get("empty_as_string"):
        changes["null_values"] = []
    return CsvOptions.model_validate({**csv.model_dump(), **changes})
