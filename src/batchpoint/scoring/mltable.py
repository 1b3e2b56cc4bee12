"""MLTable → an ordinary input: its paths become locations, its reader's settings the csv options, the rest a shape.

Read are the forms that batch scoring needs: ``paths`` of files, folders and patterns; one of the readers
``read_delimited``, ``read_parquet`` and ``read_json_lines`` as the first transformation; then ``skip``, ``take``,
``keep_columns``, ``drop_columns``, ``convert_column_types`` (csv alone) and ``extract_columns_from_partition_format``.
What cannot be honoured is refused, never ignored. Source of the keys: Azure ML's MLTable schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.errors import InputError
from batchpoint.scoring.spec import InputSpec, Location, ScoringSpec, TableShape

ENCODINGS = {
    "utf8": "utf-8", "utf8bom": "utf-8", "iso88591": "latin-1", "latin1": "latin-1", "ascii": "ascii",
    "utf16": "utf-16", "windows1252": "windows-1252",
}  # fmt: skip

READERS: dict[str, frozenset[str]] = {
    "read_delimited": frozenset({"delimiter", "header", "encoding", "support_multi_line", "empty_as_string"}),
    "read_parquet": frozenset(),
    "read_json_lines": frozenset({"encoding"}),
}
"""The readers, and their own settings that are honoured. All take ``include_path_column`` and ``path_column``;
``partition_size`` is honoured by the way mini-batches are cut."""

STEPS = (
    "skip", "take", "keep_columns", "drop_columns", "convert_column_types", "extract_columns_from_partition_format",
)  # fmt: skip
"""The transformations that may follow the reader."""

_TYPES = {"int": "int64", "float": "double", "string": "string", "boolean": "bool", "datetime": "timestamp[ns]"}
_DATE_FORMATS = frozenset({"%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"})
"""The forms of ISO 8601, which are what is read."""

_HARMLESS: dict[str, tuple[object, ...]] = {"invalid_lines": ("error",), "path_column": (None,)}


def resolved(spec: ScoringSpec) -> ScoringSpec:
    """The run with its MLTable turned into locations, csv options and shape; one without is returned as it is.

    Raises:
        InputError: the MLTable uses what is not supported, or names no path.
    """
    table = spec.mltable
    if table is None:
        return _with_partition_format(spec)
    base = spec.input.locations[0]
    locations: list[Location] = []
    include = list(spec.input.include)
    recursive = spec.input.recursive
    for entry in table.get("paths") or ():
        kind, path = next(iter(entry.items()))
        if kind == "pattern" and "://" in base.url:
            locations.append(base)
            include.append(str(path).removeprefix("./"))
            recursive = True
        else:
            locations.append(location_of_path(entry, base))
    if not locations:
        raise InputError(f"The MLTable of {base.url} names no paths. Add 'paths' with a file, folder or pattern.")
    source = InputSpec(type=None, locations=locations, include=include, exclude=spec.input.exclude, recursive=recursive)
    csv, shape = _transformed(table.get("transformations") or [], spec.csv)
    if shape != TableShape() and spec.script.takes == "paths":
        message = "The MLTable transforms rows, but the script takes paths. Set batchpoint.mini_batch_type: dataframe."
        raise InputError(message)
    changes = {"input": source, "csv": csv, "table": None if shape == TableShape() else shape, "mltable": None}
    return _with_partition_format(spec.model_copy(update=changes))


def reads_rows(table: Mapping[str, Any]) -> bool:
    """Whether an MLTable says how rows are read. One that does not is a list of files."""
    return bool(table.get("transformations"))


def location_of_path(entry: Mapping[str, Any], base: Location) -> Location:
    """Where one of the ``paths`` of the MLTable that lies at ``base`` is.

    Raises:
        InputError: it is none of file, folder and pattern, or is outside the datastore's folder.
    """
    kind, path = next(iter(entry.items()))
    if kind not in {"file", "folder", "pattern"}:
        raise InputError(f"The MLTable names a path by {kind!r}. Use file, folder or pattern.")
    url = _joined(base, str(path), given="datastore" in entry)
    return Location(url=url, datastore=entry.get("datastore", base.datastore))


def _with_partition_format(spec: ScoringSpec) -> ScoringSpec:
    """The deployment's own ``partition_format`` does what the transformation of an MLTable does."""
    shape = spec.table or TableShape()
    if spec.split.partition_format is None or shape.partition_pattern is not None:
        return spec
    pattern, columns = _partition(spec.split.partition_format)
    shape = shape.model_copy(update={"partition_pattern": pattern, "partition_columns": columns})
    return spec.model_copy(update={"table": shape})


def _joined(base: Location, path: str, *, given: bool) -> str:
    """Where a path of the MLTable lies; ``given`` ones were looked up already."""
    if "://" in path or given:
        return path
    if base.datastore is not None and (path.startswith("/") or ".." in PurePosixPath(path).parts):
        # Whoever may write into a datastore may not thereby read the server's machine.
        raise InputError(f"The MLTable names {path}, which is outside its folder. Use a datastore's address or a URL.")
    if path.startswith("/"):
        return path
    folder = base.url.removesuffix("MLTable").rstrip("/")
    return f"{folder}/{path.removeprefix('./')}"


def _transformed(transformations: list[Any], csv: CsvOptions) -> tuple[CsvOptions, TableShape]:
    shape: dict[str, Any] = TableShape().model_dump()
    for position, step in enumerate(transformations):
        name, settings = (step, None) if isinstance(step, str) else next(iter(step.items()))
        if position == 0 and name in READERS:
            csv = _with_reader(str(name), dict(settings or {}), csv, shape)
        elif position > 0 and name in STEPS:
            _add_step(str(name), settings, shape)
        else:
            supported = READERS if position == 0 else STEPS
            message = (
                f"The MLTable's transformation {name!r} is not supported as number {position + 1}. "
                f"Supported there: {', '.join(supported)}."
            )
            raise InputError(message)
        if name == "convert_column_types" and "read_delimited" not in transformations[0]:
            raise InputError("The MLTable converts columns that have types already: convert_column_types is for csv.")
    return csv, TableShape.model_validate(shape)


def _with_reader(name: str, settings: dict[str, Any], csv: CsvOptions, shape: dict[str, Any]) -> CsvOptions:
    if settings.pop("include_path_column", False):
        shape["path_column"] = settings.pop("path_column", None) or "Path"
    if name == "read_delimited":
        _infer(settings.pop("infer_column_types", True), shape)
    for key, value in settings.items():
        harmless = key == "partition_size" or value in _HARMLESS.get(key, ())
        if not harmless and key not in READERS[name]:
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
        changes["header"] = _has_header(settings["header"])
    if settings.get("empty_as_string"):
        changes["null_values"] = []
    return CsvOptions.model_validate({**csv.model_dump(), **changes})


def _has_header(header: object) -> bool:
    if header == "from_first_file":  # the other files' first rows would be taken for names
        message = "The MLTable's header from_first_file is not supported. Give each file its header, or none of them."
        raise InputError(message)
    if header not in {"no_header", "all_files_same_headers", "all_files_different_headers"}:
        raise InputError(f"The MLTable's header {header!r} is not known. Use all_files_same_headers or no_header.")
    return header != "no_header"


def _infer(how: object, shape: dict[str, Any]) -> None:
    """``infer_column_types``: true, false, or a mapping with types for some columns."""
    if isinstance(how, Mapping):
        for column, kind in (how.get("column_type_overrides") or {}).items():
            shape["types"][str(column)] = _arrow_type(kind)
    else:
        shape["only_text"] = how is False


def _add_step(name: str, settings: Any, shape: dict[str, Any]) -> None:
    if name in {"skip", "take"}:
        count = settings.get("count") if isinstance(settings, Mapping) else settings
        if not isinstance(count, int) or count < 0:
            raise InputError(f"The MLTable's {name} takes a number of rows, not {settings!r}.")
        _narrow(name, count, shape)
    elif name == "keep_columns":
        names = _names(name, settings)
        shape["keep"] = [column for column in names if shape["keep"] is None or column in shape["keep"]]
    elif name == "drop_columns":
        shape["drop"] = [*shape["drop"], *_names(name, settings)]
    elif name == "convert_column_types":
        for change in settings if isinstance(settings, list) else [settings]:
            for column in _names(name, change.get("columns")):
                shape["types"][column] = _arrow_type(change.get("column_type"))
    else:
        given = settings.get("partition_format") if isinstance(settings, Mapping) else settings
        shape["partition_pattern"], columns = _partition(str(given))
        shape["partition_columns"] = columns
        if shape["keep"] is not None:  # columns made after others were left out are there
            shape["keep"] = [*shape["keep"], *columns]


def _narrow(name: str, count: int, shape: dict[str, Any]) -> None:
    """One more ``skip`` or ``take``, of the rows that those before it leave."""
    if name == "take":
        shape["take"] = count if shape["take"] is None else min(count, shape["take"])
    else:
        shape["skip"] += count
        if shape["take"] is not None:
            shape["take"] = max(shape["take"] - count, 0)


def _names(step: str, given: object) -> list[str]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"The MLTable's {step} takes names of columns, not {given!r}.")
    return names


def _arrow_type(kind: object) -> str:
    name, details = next(iter(kind.items())) if isinstance(kind, Mapping) and kind else (kind, None)
    formats = set((details or {}).get("formats") or ()) if isinstance(details, Mapping) else set()
    others = set(details or ()) - {"formats"} if isinstance(details, Mapping) else set()
    if name not in _TYPES or others or not formats <= _DATE_FORMATS:
        message = (
            f"The MLTable converts a column to {kind!r}, which is not supported. Use {', '.join(_TYPES)}; "
            "dates are read in the forms of ISO 8601."
        )
        raise InputError(message)
    return _TYPES[str(name)]


def _partition(text: str) -> tuple[str, list[str]]:
    """``{Store}/{Brand}/{file_name}.csv`` → a pattern for the end of file names, and the columns that it fills."""
    pieces = re.split(r"\{([^{}]*)\}", text.removeprefix("/"))
    columns = pieces[1::2]
    if not columns or any(":" in column or not column for column in columns):
        message = f"The partition_format {text!r} is not supported. Write it as {{store}}/{{day}}.csv."
        raise InputError(message)
    pattern = "".join("([^/]+?)" if at % 2 else re.escape(piece) for at, piece in enumerate(pieces))
    return rf"(?:^|.*/){pattern}", columns
