"""Slices → runs of rows that share the values of the partition keys: what a mini-batch for each key is made of.

Nothing is copied or moved: a mini-batch of one key names the runs of rows that hold it, wherever they lie, so every row
keeps its file and number. Input that is sorted by its keys has few runs; rows of many keys in turn have one run each.
"""

from __future__ import annotations

import csv as csv_module
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.scoring import csv_records, slices

if TYPE_CHECKING:
    from batchpoint.scoring.mini_batches import Slice

Values = tuple[Any, ...]
"""The values of the partition keys, in the order of the keys."""

Run = tuple[Values, "Slice"]


@dataclass
class Partitioner:
    """Cuts the slices of one file after another by the values of some columns."""

    keys: Sequence[str]
    types: Mapping[str, str]
    """Arrow type names of the keys that are columns: a csv's texts become what ``run()`` finds in its frame."""
    csv: CsvOptions
    _whole: tuple[str, list[Values]] = field(default=("", []))
    """Path, and the keys of all rows, of the parquet or json file that was read last."""

    def runs(self, piece: Slice, columns: Sequence[str], made: Mapping[str, str]) -> Iterator[Run]:
        """The rows of a slice in order, in runs of equal keys.

        Args:
            piece: the slice.
            columns: the columns of its file.
            made: keys that are no columns: their values come from the file's name.
        """
        if all(key in made for key in self.keys):
            yield tuple(made[key] for key in self.keys), piece
            return
        if piece.format in {"csv", "jsonl"}:
            yield from self._runs_of_text(piece, columns, made)
            return
        values = self._values_of_file(piece, made)[piece.first_row : piece.first_row + piece.rows]
        first = 0
        for key, group in itertools.groupby(values):
            rows = len(list(group))
            yield key, _part(piece, piece.first_row + first, rows, piece.offset, piece.length)
            first += rows

    def _runs_of_text(self, piece: Slice, columns: Sequence[str], made: Mapping[str, str]) -> Iterator[Run]:
        with Path(piece.file.path).open("rb") as file:
            file.seek(piece.offset)
            data = file.read(piece.length)
        if piece.format == "csv":
            delimiter = csv_records.delimiter_of(piece.file.name, self.csv.model_dump())
            bounds = csv_records.record_bounds(data, delimiter)
            found = (self._of_csv(data[a:b], columns, delimiter, made) for a, b in bounds)
        else:
            bounds = slices.line_bounds(data)
            found = (self._of_json(data[a:b], made) for a, b in bounds)
        first = 0
        for key, group in itertools.groupby(found):
            rows = len(list(group))
            begin, end = bounds[first][0], bounds[first + rows - 1][1]
            yield key, _part(piece, piece.first_row + first, rows, piece.offset + begin, end - begin)
            first += rows

    def _of_csv(self, record: bytes, columns: Sequence[str], delimiter: str, made: Mapping[str, str]) -> Values:
        try:
            found = dict(zip(columns, csv_records.fields_of(record, delimiter), strict=False))
        except (UnicodeDecodeError, csv_module.Error):
            found = {}  # the row fails when it is read, which says why
        return tuple(made[key] if key in made else self._typed(key, found.get(key)) for key in self.keys)

    def _of_json(self, line: bytes, made: Mapping[str, str]) -> Values:
        try:
            row = json.loads(line)
        except ValueError:
            row = None  # the row fails when it is read, which says why
        return self._of_row(row, made)

    def _of_row(self, row: object, made: Mapping[str, str]) -> Values:
        found = row if isinstance(row, dict) else {}
        return tuple(made[key] if key in made else _plain(found.get(key)) for key in self.keys)

    def _typed(self, key: str, text: str | None) -> Any:
        kind = self.types.get(key, "string")
        if text is None or text in self.csv.null_values or (kind != "string" and text in csv_records.NUMBER_NULLS):
            return None
        try:
            if kind.startswith("int"):
                return int(text)
            if kind in {"double", "float"}:
                return _plain(float(text))
        except ValueError:
            return text
        return text.lower() in {"true", "1"} if kind == "bool" else text

    def _values_of_file(self, piece: Slice, made: Mapping[str, str]) -> list[Values]:
        path = piece.file.path
        if self._whole[0] != path:
            if piece.format == "parquet":
                from pyarrow import parquet  # noqa: PLC0415 -- costs 0.1 s, and csv does not need it

                rows = parquet.read_table(path, columns=[key for key in self.keys if key not in made]).to_pylist()
            else:
                rows = slices.read_json_array(path)
            self._whole = (path, [self._of_row(row, made) for row in rows])
        return self._whole[1]


def joined(runs: list[Slice], piece: Slice) -> None:
    """Add a run to those of its key; one that follows the last directly makes it longer."""
    last = runs[-1] if runs else None
    follows = last is not None and last.file == piece.file and last.first_row + last.rows == piece.first_row
    if last is None or not follows or (piece.format in {"csv", "jsonl"} and last.offset + last.length != piece.offset):
        runs.append(piece)
        return
    length = last.length + piece.length if piece.format in {"csv", "jsonl"} else last.length
    runs[-1] = _part(last, last.first_row, last.rows + piece.rows, last.offset, length)


def _part(piece: Slice, first_row: int, rows: int, offset: int, length: int) -> Slice:
    return type(piece)(piece.file, piece.format, offset, length, first_row, rows)


def _plain(value: Any) -> Any:
    """A value that JSON can carry and that is equal to itself."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
