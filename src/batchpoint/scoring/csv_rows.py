"""Slices of csv → DataFrame.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top.
"""

from __future__ import annotations

import csv as csv_module
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Sequence

from . import csv_parsing, csv_records, read_ahead, slice_bytes

if TYPE_CHECKING:
    Piece = tuple[Mapping[str, Any], int, int]
    """A slice, and the rows of it that are wanted."""


class Reading(NamedTuple):
    """How csv is read: see the arguments of ``slices.read_rows``."""

    csv: Mapping[str, Any]
    schema: Mapping[str, Any] | None
    names: Sequence[str] | None = None
    """The columns that are wanted; None for all."""

    def delimiter(self, piece: Mapping[str, Any]) -> str:
        """The delimiter of the file of a slice."""
        return csv_records.delimiter_of(piece["name"], self.csv)

    def header(self, piece: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the columns of the file of a slice."""
        delimiter = self.delimiter(piece)
        key = (piece["path"], delimiter, self.csv.get("header", True), tuple(self.csv.get("column_names") or ()))
        if key not in _Memory.headers:
            if len(_Memory.headers) > MOST_HEADERS:
                _Memory.headers.clear()
            _Memory.headers[key] = csv_records.header_of(piece["path"], delimiter, self.csv)[0]
        return _Memory.headers[key]

    def layout(self, piece: Mapping[str, Any]) -> csv_parsing.Layout:
        """What the records of a slice hold: as planning pinned it, the rest by the head of its file."""
        columns, delimiter = self.header(piece), self.delimiter(piece)
        schema = self.schema or {}
        nulls = list(self.csv.get("null_values", [""]))
        pinned = dict(zip(schema["columns"], schema["types"])) if schema else {}
        if any(name not in pinned for name in columns):
            offset = csv_records.header_of(piece["path"], delimiter, self.csv)[1]
            with Path(piece["path"]).open("rb") as file:
                file.seek(offset)
                head = file.read(csv_records.HEAD_BYTES)
                is_whole = not file.read(1)
            guessed, _ = csv_records.sample_types(head, columns, delimiter, nulls, is_whole=is_whole)
            pinned = {**dict(zip(columns, guessed)), **pinned}
        types = {name: pinned[name] for name in columns}
        return csv_parsing.Layout(columns, types, frozenset(schema.get("strict") or ()), delimiter, nulls)


def read(group: list[Piece], reading: Reading) -> Any:
    """The wanted rows of files with the same columns as one DataFrame.

    Raises:
        csv_records.UnreadableRowsError: a row is ragged, not UTF-8, or a value does not fit the signature; its
            ``item`` is the position in the group, where it is known.
    """
    first = group[0][0]
    layout = reading.layout(first)
    ahead = _read_ahead(group, layout, reading.names)
    if ahead is not None:
        return ahead
    data = _joined(group, layout)
    if data.count(b'"') % 2:  # perhaps a quote that is never closed, which readers let swallow the rows after it
        _explain(group, layout)
    try:
        frame = csv_parsing.parse(data, layout, reading.names)
    except csv_parsing.BadValueError as error:
        name, row = _place(group, error.row)
        message = f"{name}, row {row}: column {error.column!r} holds {error.value!r}, which is not {error.type}."
        raise csv_records.UnreadableRowsError(message, item=error.row) from None
    except ValueError as error:  # ArrowInvalid and pandas' ParserError are both ValueErrors
        _explain(group, layout)
        message = f"{first['name']}, from row {slice_bytes.row_number(first, group[0][1])}: {error}"
        raise csv_records.UnreadableRowsError(message) from None
    rows = _rows(group)
    if len(frame) != rows:
        _explain(group, layout)
        message = f"{first['name']}: {rows} rows were planned and {len(frame)} read. Did the file change?"
        raise csv_records.UnreadableRowsError(message)
    return frame


def read_with_texts(group: list[Piece], reading: Reading) -> tuple[Any, Any] | None:
    """The wanted rows, and of the columns ``reading.names`` the texts, as two DataFrames made by one parsing.

    None where anything speaks against making one of the other.
    """
    if _is_read_ahead(group):
        return None
    try:
        import pyarrow as pa  # noqa: F401, PLC0415 -- the user's own, and may be absent
    except ImportError:
        return None
    layout = reading.layout(group[0][0])
    columns, names = layout.columns, reading.names
    kept = list(columns) if names is None else [name for name in names if name in columns]
    if not csv_parsing.can_be_cast(layout, kept):
        return None
    data = _joined(group, layout)
    try:
        table, texts = csv_parsing.parse_with_texts(data, layout, kept)
    except ValueError:  # ArrowInvalid is one; the long way explains, or widens
        return None
    if table.num_rows != _rows(group) or data.count(b'"') % 2:
        return None
    return table.to_pandas(use_threads=False), texts.to_pandas(use_threads=False)


MOST_HEADERS = 4096
"""Headers that are remembered."""


class _Memory:
    """What serves the next slices too."""

    headers: dict[object, tuple[str, ...]] = {}  # noqa: RUF012 -- one per process, on purpose
    ahead = read_ahead.ReadAhead()


def _is_read_ahead(group: list[Piece]) -> bool:
    """Whether these are small, whole slices, which may lie close to those read before."""
    return len(group) <= read_ahead.MOST // 2 and all(
        last - first == piece["rows"] and piece["length"] <= read_ahead.NEAR for piece, first, last in group
    )


def _read_ahead(group: list[Piece], layout: csv_parsing.Layout, names: Sequence[str] | None) -> Any:
    """The rows of small, whole slices that lie close to those read before; None where they are to be parsed alone."""
    if not _is_read_ahead(group):
        return None
    try:
        import pyarrow as pa  # noqa: F401, PLC0415 -- the user's own, and may be absent
    except ImportError:
        return None
    way = (layout.columns, tuple(layout.types.values()), layout.delimiter, tuple(layout.nulls), tuple(names or ()))

    def parse(data: bytes) -> Any:
        return csv_parsing.arrow_table(data, layout, names)

    return _Memory.ahead.frame([piece for piece, _, _ in group], way, parse)


def _joined(group: list[Piece], layout: csv_parsing.Layout) -> bytes:
    return b"".join([slice_bytes.cut(*piece, layout.delimiter) for piece in group])


def _rows(group: list[Piece]) -> int:
    return sum([last - first for _, first, last in group])


def _place(group: list[Piece], row: int) -> tuple[str, int]:
    """File and row, counted from 0, of a row of what was parsed."""
    for piece, first, last in group:
        if row < last - first:
            return piece["name"], slice_bytes.row_number(piece, first + row)
        row -= last - first
    return group[-1][0]["name"], slice_bytes.row_number(group[-1][0], group[-1][2] - 1)


def _explain(group: list[Piece], layout: csv_parsing.Layout) -> None:
    """Raise for the first row that is ragged, not UTF-8, or has a quote that never ends."""
    columns, delimiter = layout.columns, layout.delimiter
    for piece, first, last in group:
        data = slice_bytes.cut(piece, first, last, delimiter)
        numbers = slice_bytes.row_numbers(piece, first, last)
        for row, (begin, end) in zip(numbers, csv_records.record_bounds(data, delimiter)):
            try:
                fields = csv_records.fields_of(data[begin:end], delimiter)
            except UnicodeDecodeError as error:
                message = f"{piece['name']}, row {row}: not UTF-8 ({error.reason}). Set csv.encoding."
                raise csv_records.UnreadableRowsError(message) from None
            except csv_module.Error as error:
                raise csv_records.UnreadableRowsError(f"{piece['name']}, row {row}: {error}.") from None
            if data[begin:end].count(b'"') % 2 and _is_open(data[begin:end], delimiter):
                message = f"{piece['name']}, row {row}: a quote is never closed."
                raise csv_records.UnreadableRowsError(message)
            if len(fields) != len(columns):
                message = f"{piece['name']}, row {row}: expected {len(columns)} fields, found {len(fields)}."
                raise csv_records.UnreadableRowsError(message)


def _is_open(record: bytes, delimiter: str) -> bool:
    """Whether a record's last field is a quoted one without its closing quote."""
    try:
        next(csv_module.reader(io.StringIO(record.decode(), newline=""), delimiter=delimiter, strict=True), None)
    except csv_module.Error as error:
        return "unexpected end of data" in str(error)
    return False
