"""The values of some columns of a piece of a file, for all its rows at once: each as a number into a list of values.

Reading is by columns (pyarrow). Only rows that no reader takes are looked at one by one: they are found by halving.
"""

from __future__ import annotations

import csv as csv_module
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from batchpoint.scoring import csv_records

Coded = tuple[Any, list[Any]]
"""For each row a position (numpy, int64) in the list of values."""

FEW = 64
"""So few rows are read one by one rather than halved again."""


@dataclass(frozen=True)
class Records:
    """The records of a block of text and where they begin (numpy, int64)."""

    data: bytes
    starts: Any

    def part(self, first: int, last: int) -> Records:
        """The records ``first`` to ``last``."""
        end = int(self.starts[last]) if last < len(self.starts) else len(self.data)
        begin = int(self.starts[first])
        return Records(self.data[begin:end], self.starts[first:last] - begin)


def csv_records_of(data: bytes, delimiter: str) -> Records:
    """The records of a block that begins and ends with whole ones: by their line feeds where nothing speaks against."""
    array = np.frombuffer(data, np.uint8)
    if b'"' not in data and (b"\r" not in data or data.count(b"\r") == data.count(b"\r\n")):
        ends = np.flatnonzero(array == 10) + 1
        starts = np.concatenate(([0], ends[ends < len(data)]))
        if not np.isin(array[starts], (10, 13)).any():
            return Records(data, starts)
    bounds = csv_records.record_bounds(data, delimiter)
    return Records(data, np.array([begin for begin, _ in bounds], np.int64))


def lines_at(data: bytes, starts: list[int]) -> Records:
    """Lines of a block, from where they begin."""
    return Records(data, np.array(starts, np.int64))


def csv_keys(records: Records, columns: Sequence[str], keys: Sequence[str], delimiter: str) -> list[Coded]:
    """The texts of ``keys``; None where a row is too short to have it, or is not UTF-8."""
    texts = _read(records, columns, keys, delimiter)
    return [coded(pa.chunked_array([part[at] for part in texts], pa.string())) for at in range(len(keys))]


def coded(column: Any) -> Coded:
    """An Arrow column as positions in the list of its values."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode(null_encoding="encode")
    if encoded.indices.null_count:
        encoded = encoded.cast(encoded.type.value_type).dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def constant(value: Any, rows: int) -> Coded:
    """One value for all rows."""
    return np.zeros(rows, np.int64), [value]


def combined(columns: Sequence[Coded], typed: Sequence[Callable[[Any], Any]]) -> Coded:
    """Several columns as one of tuples, whose values ``typed`` makes of those of each column.

    Several texts may be the same value: each tuple stands in the list once.
    """
    codes, tuples = columns[0][0], [(typed[0](value),) for value in columns[0][1]]
    for (found, values), make in zip(columns[1:], typed[1:], strict=True):
        made = [make(value) for value in values]
        encoded = pa.array(codes * len(values) + found).dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        tuples = [(*tuples[at // len(values)], made[at % len(values)]) for at in encoded.dictionary.to_pylist()]
    known: dict[tuple[Any, ...], int] = {}
    kept = [known.setdefault(values, len(known)) for values in tuples]
    return (codes if len(known) == len(tuples) else np.array(kept)[codes]), list(known)


def _read(records: Records, columns: Sequence[str], keys: Sequence[str], delimiter: str) -> list[list[Any]]:
    rows = len(records.starts)
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(records.data),
            read_options=arrow_csv.ReadOptions(column_names=list(columns), block_size=max(len(records.data) + 1, 4096)),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in records.data),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(keys), column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=False
            ),
        )
        if table.num_rows == rows:
            return [[table.column(key).combine_chunks() for key in keys]]
    except pa.ArrowInvalid:
        pass
    if rows <= FEW:
        return [_read_one_by_one(records, columns, keys, delimiter)]
    half = rows // 2
    halves = (records.part(0, half), records.part(half, rows))
    return [part for one in halves for part in _read(one, columns, keys, delimiter)]


def _read_one_by_one(records: Records, columns: Sequence[str], keys: Sequence[str], delimiter: str) -> list[Any]:
    found: list[list[str | None]] = []
    for at in range(len(records.starts)):
        try:
            fields = csv_records.fields_of(records.part(at, at + 1).data, delimiter)
        except (UnicodeDecodeError, csv_module.Error):
            fields = []  # the row fails when it is read, which says why
        row = dict(zip(columns, fields, strict=False))
        found.append([row.get(key) for key in keys])
    return [pa.array(column, pa.string()) for column in zip(*found, strict=True)]
