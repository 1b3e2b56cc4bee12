"""Segments → one predictions file in input order: csv, jsonl, parquet or Azure's bytes.

Rows are copied as bytes, never parsed, as long as the columns of all parts are equal. Memory stays flat: one block, or
one row group, is held at a time.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchpoint.errors import OutputError
from batchpoint.scoring.cells import csv_line, json_ready_text
from batchpoint.scoring.csv_records import record_bounds
from batchpoint.scoring.ledger import Part, Record

Format = Literal["csv", "jsonl", "parquet", "azureml"]
Layout = Any
"""The columns of a file: a parquet file's schema, the names of a csv file's, None for others. (Arrow has no types.)"""

GROUP_BYTES = 64 * 2**20
"""Estimated size of a row group of parquet, which bounds the memory of writing it."""
GROUP_ROWS = 131_072
COPY_BYTES = 2**30
OPEN_SEGMENTS = 64
_CANNOT_COPY = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY}


def parts_in_order(records: Iterable[Record]) -> list[Part]:
    """The parts that have rows, in input order."""
    ordered = sorted(records, key=lambda record: record.mini_batch)
    return [
        part
        for record in ordered
        for part in sorted(record.parts, key=lambda part: part.start)
        if part.rows or part.columns
    ]


def layout_of(parts: Sequence[Part], segments: Path, format: Format) -> Layout:  # noqa: A002 - the field's own word
    """The columns that a file of these parts has; for files that hold some of them each and are to look alike.

    Raises:
        OutputError, OSError: as ``write_predictions``.
    """
    if format == "parquet":
        return read_schema(parts, segments)
    return united_columns(_lists_of_columns(parts)) if format == "csv" else None


def write_predictions(
    parts: Sequence[Part],
    segments: Path,
    target: Path,
    format: Format,  # noqa: A002 - the field's own word
    *,
    layout: Layout = None,
    dataframe_header: bool = False,
) -> int:
    """Write the rows of the parts into ``target`` and return how many there are.

    Args:
        parts: In the order of the output.
        segments: Folder that relative segment paths start from.
        target: The file to write. It is synced to disk.
        format: csv (with a header), jsonl, parquet or azureml.
        layout: The columns; found out from the parts when not given.
        dataframe_header: Whether, with azureml, the columns of the first DataFrame are named in the first line.

    Raises:
        OutputError: a segment holds less than the ledger says, or another encoding than the format needs.
        OSError: the disk is full, or a segment is gone.
    """
    if format == "parquet":
        schema = read_schema(parts, segments) if layout is None else layout
        return _write_parquet(parts, segments, target, schema)
    _check_encodings(parts, format)
    with target.open("wb", buffering=0) as file, OpenSegments(segments) as opened:
        if format == "csv":
            _write_csv(parts, opened, file, layout)
        else:
            if dataframe_header and format == "azureml":
                _write_all(file, _azureml_header(parts).encode())
            _copy(parts, opened, file)
        os.fsync(file.fileno())
    return sum(part.rows for part in parts)


def united_columns(lists: Iterable[Sequence[str]]) -> list[str]:
    """All names once. A name that only later lists have stands behind the one that it follows there."""
    united: list[str] = []
    for names in lists:
        at = 0
        for name in names:
            if name in united:
                at = united.index(name) + 1
            else:
                united.insert(at, name)
                at += 1
    return united


def read_schema(parts: Sequence[Part], segments: Path) -> pa.Schema:
    """The one schema that the rows of all parts fit: numbers widen, missing columns are null, what clashes is text."""
    schemas: dict[bytes, pa.Schema] = {}
    with OpenSegments(segments) as opened:
        for part in parts:
            if not part.length:
                continue
            if part.encoding == "arrow":
                head = _first_message(part, opened)
                if head not in schemas:
                    schemas[head] = pa.ipc.open_stream(head).schema
            else:
                schema = _table(part, opened).schema
                schemas[schema.serialize().to_pybytes()] = schema
    types: dict[str, pa.DataType] = {}
    for schema in schemas.values():
        for field in schema:
            kind = pa.string() if _is_hollow(field.type) else field.type
            types[field.name] = _common_type(types.get(field.name, kind), kind)
    return pa.schema([(name, types[name]) for name in united_columns([schema.names for schema in schemas.values()])])


def read_tables(parts: Sequence[Part], segments: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in order as tables of equal size, whatever the sizes of the parts; the last one is smaller."""
    size = _group_rows(schema)
    waiting: list[pa.Table] = []
    rows = 0
    with OpenSegments(segments) as opened:
        for part in parts:
            if not part.length:
                continue
            table = _fitted(_table(part, opened), schema)
            if table.num_rows != part.rows:
                message = (
                    f"Segment {part.segment} holds {table.num_rows} rows at {part.offset}; the ledger says {part.rows}."
                )
                raise OutputError(message)
            waiting.append(table)
            rows += table.num_rows
            while rows >= size:
                whole = pa.concat_tables(waiting)
                yield whole.slice(0, size).combine_chunks()
                waiting, rows = [whole.slice(size)], rows - size
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


class RowCutter:
    """Cuts parts into smaller ones by rows. Rows of text stay where they are; tables are written again, to a file that
    is gone at the end unless it is to be kept.
    """

    def __init__(self, segments: Path, scratch: Path, *, keep: bool = False) -> None:
        self._opened = OpenSegments(segments)
        self._scratch = scratch
        self._keep = keep
        self._file: io.BufferedWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__()
        if self._file is not None:
            self._file.close()
            if not self._keep:
                self._scratch.unlink()

    def cut(self, part: Part, rows: Sequence[int]) -> list[Part]:
        """Parts of so many rows each, in order.

        Raises:
            OutputError: the part does not hold as many rows.
        """
        if sum(rows) != part.rows:
            message = f"Segment {part.segment} holds {part.rows} rows at {part.offset}, and its keys {sum(rows)}."
            raise OutputError(message)
        if part.encoding == "arrow":
            return self._cut_table(part, rows)
        data = self._opened.read(part.segment, part.offset, part.length)
        ends = [end for _, end in record_bounds(data, ",")] if part.encoding == "csv" else _line_ends(data)
        if len(ends) != part.rows:
            message = f"Segment {part.segment} holds {len(ends)} rows at {part.offset}; the ledger says {part.rows}."
            raise OutputError(message)
        pieces, begin, row = [], 0, 0
        for number in rows:
            row += number
            end = ends[row - 1] if row else 0
            pieces.append(replace(part, offset=part.offset + begin, length=end - begin, rows=number, sketched=0))
            begin = end
        return pieces

    def _cut_table(self, part: Part, rows: Sequence[int]) -> list[Part]:
        table = _table(part, self._opened)
        if self._file is None:
            self._file = self._scratch.open("wb")
        pieces, row = [], 0
        for number in rows:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.slice(row, number))
            data = sink.getvalue()
            offset = self._file.tell()
            pieces.append(
                replace(part, segment=str(self._scratch), offset=offset, length=data.size, rows=number, sketched=0)
            )
            self._file.write(data)
            row += number
        self._file.flush()
        return pieces


def _line_ends(data: bytes) -> list[int]:
    return [match.end() for match in re.finditer(rb"\n", data)]


class OpenSegments:
    """Segment files by name, of which a bounded number is open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def descriptor(self, segment: str) -> int:
        if segment not in self._open:
            if len(self._open) >= OPEN_SEGMENTS:
                os.close(self._open.popitem(last=False)[1])
            self._open[segment] = os.open(self._folder / segment, os.O_RDONLY | os.O_CLOEXEC)
        self._open.move_to_end(segment)
        return self._open[segment]

    def read(self, segment: str, offset: int, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = os.pread(self.descriptor(segment), length - len(data), offset + len(data))
            if not piece:
                raise _too_short(segment)
            data += piece
        return bytes(data)


def _too_short(segment: str) -> OutputError:
    return OutputError(
        f"Segment {segment} ends before the rows that the ledger says it holds: it was damaged or cut off."
    )


def _check_encodings(parts: Sequence[Part], expected: str) -> None:
    for part in parts:
        if part.length and part.encoding != expected:
            message = (
                f"Segment {part.segment} holds {part.encoding} rows, which cannot be joined into a {expected} file."
            )
            raise OutputError(message)


def _azureml_header(parts: Sequence[Part]) -> str:
    """The names of the first table's columns as Azure's driver writes them; nothing where no table was returned."""
    names = next((part.columns for part in parts if part.columns), ())
    line = io.StringIO()
    if names:
        csv.writer(line, delimiter=" ", lineterminator="\n").writerow(names)
    return line.getvalue()


def _lists_of_columns(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(part.columns for part in parts if part.rows)) or [part.columns for part in parts[:1]]


def _write_csv(parts: Sequence[Part], opened: OpenSegments, file: io.FileIO, names: list[str] | None) -> None:
    lists = _lists_of_columns(parts)
    names = names or united_columns(lists)
    if not names:
        return
    _write_all(file, csv_line(names).encode())
    if lists == [tuple(names)]:
        _copy(parts, opened, file)
        return
    equal: list[Part] = []
    for part in parts:
        if list(part.columns) == names:
            equal.append(part)
            continue
        _copy(equal, opened, file)
        equal = []
        _write_all(file, _rearranged(opened.read(part.segment, part.offset, part.length), part.columns, names))
    _copy(equal, opened, file)


def _rearranged(data: bytes, columns: Sequence[str], names: Sequence[str]) -> bytes:
    """Lines of csv with their cells moved to where ``names`` has them."""
    csv.field_size_limit(sys.maxsize)
    places = [columns.index(name) if name in columns else None for name in names]
    lines = csv.reader(io.StringIO(data.decode(), newline=""))
    return "".join([csv_line(["" if at is None else cells[at] for at in places]) for cells in lines]).encode()


def _copy(parts: Iterable[Part], opened: OpenSegments, file: io.FileIO) -> None:
    for segment, offset, length in _ranges(parts):
        _copy_range(opened.descriptor(segment), offset, length, file, segment)


def _ranges(parts: Iterable[Part]) -> Iterator[tuple[str, int, int]]:
    """Places of the parts; neighbours in one segment are one place."""
    segment, offset, length = "", 0, 0
    for part in parts:
        if part.segment == segment and part.offset == offset + length:
            length += part.length
            continue
        if length:
            yield segment, offset, length
        segment, offset, length = part.segment, part.offset, part.length
    if length:
        yield segment, offset, length


def _copy_range(source: int, offset: int, length: int, file: io.FileIO, segment: str) -> None:
    """Copy inside the kernel where it can; some file systems cannot, and pairs of them cannot."""
    copy_in_kernel = hasattr(os, "copy_file_range")
    while length:
        if copy_in_kernel:
            try:
                copied = os.copy_file_range(source, file.fileno(), min(length, COPY_BYTES), offset)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                copy_in_kernel = False
                continue
        else:
            piece = os.pread(source, min(length, 2**20), offset)
            _write_all(file, piece)
            copied = len(piece)
        if copied == 0:
            raise _too_short(segment)
        offset += copied
        length -= copied


def _write_all(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _write_parquet(parts: Sequence[Part], segments: Path, target: Path, schema: pa.Schema) -> int:
    rows = 0
    with target.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", version="2.6") as writer:
            for table in read_tables(parts, segments, schema):
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                rows += table.num_rows
        file.flush()
        os.fsync(file.fileno())
    return rows


def _first_message(part: Part, opened: OpenSegments) -> bytes:
    """The message that an Arrow stream begins with: its schema. Equal bytes are equal schemas, without parsing them."""
    length = int.from_bytes(opened.read(part.segment, part.offset + 4, 4), "little")
    return opened.read(part.segment, part.offset, 8 + length)


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    pair = [pa.schema([("value", one)]), pa.schema([("value", other)])]
    try:
        return pa.unify_schemas(pair, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()


def _is_hollow(kind: pa.DataType) -> bool:
    """Whether a type holds a structure without fields, which parquet cannot write: empty dictionaries in a list."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return True
    return pa.types.is_nested(kind) and any(_is_hollow(kind.field(at).type) for at in range(kind.num_fields))


def _group_rows(schema: pa.Schema) -> int:
    """Rows of a row group: by the types alone, so that the bytes do not depend on how rows were cut into parts."""
    width = sum(_width(field.type) for field in schema) or 1
    return max(1024, min(GROUP_ROWS, GROUP_BYTES // width))


def _width(kind: pa.DataType) -> int:
    if pa.types.is_nested(kind):
        return 4096
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 64


def _table(part: Part, opened: OpenSegments) -> pa.Table:
    data = opened.read(part.segment, part.offset, part.length)
    if part.encoding == "arrow":
        return pa.ipc.open_stream(data).read_all()
    if part.encoding != "jsonl":
        message = f"Segment {part.segment} holds {part.encoding} rows, which cannot be read as a table."
        raise OutputError(message)
    objects = [json.loads(line) for line in data.splitlines()]
    return pa.table({name: _inferred([values.get(name) for values in objects]) for name in part.columns})


def _inferred(values: list[Any]) -> pa.Array:
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([json_ready_text(value) for value in values], pa.string())
    if pa.types.is_struct(array.type):
        return pa.array([json_ready_text(value) for value in values], pa.string())
    return array


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException:
            columns.append(pa.array([json_ready_text(value) for value in column.to_pylist()], pa.string()))
    return pa.table(columns, schema=schema)
