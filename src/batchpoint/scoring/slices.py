"""Slices → rows: what a worker reads of tabular files.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. pandas is
needed to read rows; pyarrow is used when it is there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

from . import csv_records, csv_rows, json_rows, parquet_rows
from .csv_rows import Reading

if TYPE_CHECKING:
    from .csv_rows import Piece

MOST_COLUMNS = 64
"""Column indexes that are remembered."""


def read_rows(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
) -> Any:
    """The rows ``start`` to ``stop`` of a mini-batch as a ``pandas.DataFrame`` with a fresh index.

    Args:
        slices: the mini-batch's slices as the driver sends them: name, path, format, offset, length, first_row, rows,
            and numbers where rows were gathered.
        start: first row, counted over all slices.
        stop: one past the last row.
        csv: the fields of ``CsvOptions``. ``encoding`` was dealt with when the file was planned.
        schema: ``columns`` and ``types`` (Arrow names) pinned by planning; ``strict`` names the columns whose types the
            model's signature demands. A column that is not in it is typed by the head of its file. ``keep``, ``drop``,
            ``path_column``, ``partition_pattern`` and ``partition_columns`` are what an MLTable makes of the columns.

    Only the wanted rows are parsed, so a bad row fails the ranges that hold it and no other.

    Raises:
        csv_records.UnreadableRowsError: a row is ragged, not UTF-8, not JSON, or a value does not fit the signature.
    """
    return _rows(slices, start, stop, Reading(csv, schema))


def read_texts(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    names: Sequence[str],
) -> Any:
    """Some columns of csv slices as the texts that stand in the files: ``007`` and twenty digits stay what they are.

    Arguments and errors are those of ``read_rows``.
    """
    known = dict(zip(schema["columns"], schema["types"])) if schema else {}
    types = {**known, **dict.fromkeys(names, "string")}
    strict = [name for name in (schema or {}).get("strict") or () if name not in names]
    as_text = {**(schema or {}), "columns": list(types), "types": list(types.values()), "strict": strict}
    return _rows(slices, start, stop, Reading(csv, as_text, names))[list(names)]


def read_rows_and_texts(
    slices: Sequence[Mapping[str, Any]],
    start: int,
    stop: int,
    csv: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    names: Sequence[str] | None,
) -> tuple[Any, Any]:
    """The rows of csv slices, and of some columns, or all, the texts, as ``read_rows`` and ``read_texts`` give them.

    Arguments and errors are theirs. Large slices of plain values are parsed once for both. The texts are None where
    two columns have one name; names that are no columns are left out.
    """
    reading = Reading(csv, schema, names)
    groups = list(_alike(_wanted(slices, start, stop), reading))
    found = csv_rows.read_with_texts(groups[0], reading) if len(groups) == 1 else None
    if found is not None:
        return _with_known_columns(found[0]), _with_known_columns(found[1])
    frame = read_rows(slices, start, stop, csv, schema)
    if not frame.columns.is_unique:
        return frame, None
    known = list(frame.columns) if names is None else [name for name in names if name in frame.columns]
    return frame, read_texts(slices, start, stop, csv, schema, known) if known else frame[known]


def _rows(slices: Sequence[Mapping[str, Any]], start: int, stop: int, reading: Reading) -> Any:
    """See ``read_rows``."""
    import pandas as pd  # noqa: PLC0415 -- the user's own; loaded by the first read

    frames = []
    for group in _alike(_wanted(slices, start, stop), reading):
        if group[0][0]["format"] == "csv":
            try:
                frames.append(csv_rows.read(group, reading))
            except csv_records.UnreadableRowsError as error:
                if error.item is not None:
                    error.item += start + sum(map(len, frames))
                raise
        elif group[0][0]["format"] == "parquet":
            frames.extend(parquet_rows.read(*piece) for piece in group)
        else:
            frames.extend(json_rows.read(*piece, reading.schema) for piece in group)
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return _with_known_columns(
        _shaped(frame, _wanted(slices, start, stop), reading.schema) if reading.schema else frame
    )


def _wanted(slices: Sequence[Mapping[str, Any]], start: int, stop: int) -> Iterator[Piece]:
    passed = 0
    for piece in slices:
        first, last = max(start - passed, 0), min(stop - passed, piece["rows"])
        if first < last:
            yield piece, first, last
        passed += piece["rows"]


def _alike(pieces: Iterator[Piece], reading: Reading) -> Iterator[list[Piece]]:
    """Neighbours that can be parsed in one go: csv files with the same columns."""
    group: list[Piece] = []
    group_key: object = None
    for piece in pieces:
        is_csv = piece[0]["format"] == "csv"
        key = (reading.header(piece[0]), reading.delimiter(piece[0])) if is_csv else piece[0]["format"]
        if group and key != group_key:
            yield group
            group = []
        group.append(piece)
        group_key = key
    if group:
        yield group


def _shaped(frame: Any, pieces: Iterator[Piece], schema: Mapping[str, Any]) -> Any:
    """The frame with the columns that an MLTable makes of file names, and without those that it leaves out."""
    path_column, pattern = schema.get("path_column"), schema.get("partition_pattern")
    if path_column or pattern:
        names = [piece["name"] for piece, first, last in pieces for _ in range(first, last)]
        made = {path_column: names} if path_column else {}
        if pattern:
            found = {name: re.fullmatch(pattern, name) for name in dict.fromkeys(names)}
            for at, column in enumerate(schema["partition_columns"], 1):
                matches = [found[name] for name in names]
                made[column] = [match[at] if match else None for match in matches]
        frame = frame.assign(**made)
    keep, drop = schema.get("keep"), schema.get("drop") or ()
    if keep is None and not drop:
        return frame
    columns = [name for name in (frame.columns if keep is None else keep) if name not in drop]
    missing = [name for name in columns if name not in frame]
    if missing:
        raise csv_records.UnreadableRowsError(
            f"The columns {', '.join(missing)}, which the MLTable keeps, are missing."
        )
    return frame[columns]


class _Memory:
    """The column indexes of the frames before."""

    columns: dict[object, Any] = {}  # noqa: RUF012 -- one per process, on purpose


def _with_known_columns(frame: Any) -> Any:
    """The frame with the column index of those before it, which pandas has learnt to search.

    With a mini-batch for each key that is a tenth of a script's time. Older versions of pandas have indexes that a
    script can write into: there each frame keeps its own.
    """
    index = frame.columns
    if type(index.dtype).__name__ == "StringDtype":
        names = tuple(index)
        if names not in _Memory.columns:
            if len(_Memory.columns) >= MOST_COLUMNS:
                _Memory.columns.clear()
            _Memory.columns[names] = index.view()  # a view has a name of its own, and shares what is learnt
        frame.columns = _Memory.columns[names].view()
    return frame
