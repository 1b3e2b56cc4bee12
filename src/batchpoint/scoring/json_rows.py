"""Slices of json and jsonl → DataFrame.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

from . import csv_records, slice_bytes
from .csv_parsing import PANDAS_TYPES


def read(piece: Mapping[str, Any], first: int, last: int, schema: Mapping[str, Any] | None) -> Any:
    """The rows ``first`` to ``last`` of a slice.

    Raises:
        csv_records.UnreadableRowsError: one of them is not JSON, or no object.
    """
    if piece["format"] == "json":
        if _Memory.path != piece["path"]:
            _Memory.path, _Memory.rows = piece["path"], read_json_array(piece["path"])
        rows = [_own(row) for row in _Memory.rows[piece["first_row"] + first : piece["first_row"] + last]]
    else:
        rows = _json_lines(piece, first, last)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            place = f"{piece['name']}, row {slice_bytes.row_number(piece, first + number)}"
            raise csv_records.UnreadableRowsError(f"{place}: expected an object, found {row!r}.")
    return _frame(rows, schema)


def read_json_array(path: str) -> list[Any]:
    """The rows of a json file: an array of objects, an object with ``columns`` and ``data``, or either of them under
    ``dataframe_records`` or ``dataframe_split``, as MLflow's scoring server takes them.

    Raises:
        csv_records.UnreadableRowsError: the file is not json, or is neither of these.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise csv_records.UnreadableRowsError(f"{Path(path).name} is not valid JSON: {error}.") from None
    if isinstance(value, dict) and len(value) == 1:
        value = next((value[name] for name in ("dataframe_records", "dataframe_split") if name in value), value)
    if isinstance(value, dict) and isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        if any(not isinstance(row, list) or len(row) != len(value["columns"]) for row in value["data"]):
            raise csv_records.UnreadableRowsError(f"{Path(path).name} has rows of more or fewer values than columns.")
        return [dict(zip(value["columns"], row)) for row in value["data"]]
    if not isinstance(value, list):
        message = f"{Path(path).name} holds a JSON {type(value).__name__}; an array of objects is needed."
        raise csv_records.UnreadableRowsError(message)
    return value


class _Memory:
    """The json file that was read last."""

    path: str | None = None
    rows: list[Any] = []  # noqa: RUF012 -- one per process, on purpose


def _own(value: Any) -> Any:
    """A JSON value whose parts a script may change: the file's rows are kept for the next ones."""
    if isinstance(value, dict):
        return {key: _own(inner) for key, inner in value.items()}
    return [_own(inner) for inner in value] if isinstance(value, list) else value


def _json_lines(piece: Mapping[str, Any], first: int, last: int) -> list[Any]:
    data = slice_bytes.cut(piece, first, last, None)
    lines = [data[begin:end] for begin, end in slice_bytes.line_bounds(data)]
    try:
        rows: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
    except ValueError:
        rows = []
    if len(rows) == len(lines):
        return rows
    for number, line in zip(slice_bytes.row_numbers(piece, first, last), lines):
        try:
            json.loads(line)
        except ValueError as error:
            raise csv_records.UnreadableRowsError(f"{piece['name']}, row {number}: not valid JSON: {error}.") from None
    return [json.loads(line) for line in lines]


def _frame(rows: list[Any], schema: Mapping[str, Any] | None) -> Any:
    """Numbers take the pinned type where that loses nothing, so that every slice has the same types."""
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded by the first read

    frame = pd.DataFrame(rows)
    for name, kind in zip(schema["columns"], schema["types"]) if schema else ():
        if name in frame and kind in PANDAS_TYPES and frame[name].dtype.kind in "iuf":
            whole = kind.startswith("int")
            if kind in {"double", "float"} or (whole and frame[name].dtype.kind in "iu"):
                frame[name] = frame[name].astype(PANDAS_TYPES[kind])
    return frame
