"""Slices → runs of rows that share the values of the partition keys: what a mini-batch for each key is made of.

Where the rows of a key lie together, a mini-batch names the runs of rows that hold it, and nothing is copied. Where
keys take turns, the rows are gathered first: see ``gathering``. Every row keeps its file and number in both ways.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.scoring import csv_records, json_rows, parquet_rows, slice_bytes

if TYPE_CHECKING:
    from batchpoint.scoring.gathering import GatheredFile
    from batchpoint.scoring.mini_batches import InputFile, Slice

Values = tuple[Any, ...]
"""The values of the partition keys, in the order of the keys."""

BLOCK = 1 << 26
"""Bytes that are looked at, and if need be sorted, at a time: a quarter of a gigabyte of memory for a second. A key has
a run of rows for each block at most, and each run of a small key costs a worker as much as a key."""
SHORT_RUNS = 32
"""Rows are gathered where fewer of them than this lie together, on average."""


@dataclass
class Partitioner:
    """Groups the slices of one file after another by the values of some columns."""

    keys: Sequence[str]
    types: Mapping[str, str]
    """Arrow type names of the keys that are columns: a csv's texts become what ``run()`` finds in its frame."""
    csv: CsvOptions
    folder: Path
    """The run's folder."""
    longest: int | None = None
    """Bytes from which on runs that follow each other are left apart; None joins them always."""
    groups: dict[object, tuple[Values, list[Slice]]] = field(default_factory=dict)
    """For each combination of keys its values and the runs of rows that have it, in order; combinations as they first
    appear."""
    _whole: tuple[str, tuple[Any, list[Values]]] = ("", (None, []))
    """Path, and the keys of all rows, of the parquet or json file that was read last."""
    _copy: tuple[InputFile, GatheredFile] | None = None

    def add(self, piece: Slice, columns: Sequence[str], made: Mapping[str, str], header: int = 0) -> None:
        """Add the rows of a slice.

        Args:
            piece: the slice.
            columns: the columns of its file.
            made: keys that are no columns: their values come from the file's name.
            header: bytes before the first row of its file.
        """
        if all(key in made for key in self.keys):
            self._join(tuple(made[key] for key in self.keys), piece)
        elif piece.format in {"csv", "jsonl"}:
            self._add_text(piece, columns, made, header)
        else:
            codes, values = self._keys_of_file(piece, made)
            codes = codes[piece.first_row : piece.first_row + piece.rows]
            if piece.format == "parquet" and _takes_turns(codes):
                self._gather_table(piece, codes, values)
            else:
                for code, first, last in _runs(codes):
                    run = replace(piece, first_row=piece.first_row + first, rows=last - first)
                    self._join(values[code], run)

    def close(self) -> None:
        """All is added: what was gathered can be read from now on."""
        if self._copy is not None:
            self._copy[1].close()
            self._copy = None

    # ── text ──

    def _add_text(self, piece: Slice, columns: Sequence[str], made: Mapping[str, str], header: int) -> None:
        from batchpoint.scoring import key_columns  # noqa: PLC0415 -- imports Arrow, which few runs need here

        with Path(piece.file.path).open("rb") as file:
            file.seek(piece.offset)
            data = file.read(piece.length)
        if piece.format == "csv":
            delimiter = csv_records.delimiter_of(piece.file.name, self.csv.model_dump())
            records = key_columns.csv_records_of(data, delimiter)
            named = [key for key in self.keys if key not in made]
            found = dict(zip(named, key_columns.csv_keys(records, columns, named, delimiter), strict=True))
            given = {key: key_columns.constant(value, piece.rows) for key, value in made.items()}
            typed = [(lambda value: value) if key in made else partial(self._typed, key) for key in self.keys]
            codes, values = key_columns.combined([(given | found)[key] for key in self.keys], typed)
        else:
            bounds = slice_bytes.line_bounds(data)
            records = key_columns.lines_at(data, [begin for begin, _ in bounds])
            codes, values = _coded([self._of_json(data[a:b], made) for a, b in bounds])
        if _takes_turns(codes):
            self._gather_text(piece, records, codes, values, header)
            return
        starts = records.starts
        for code, first, last in _runs(codes):
            begin = int(starts[first])
            end = int(starts[last]) if last < len(starts) else piece.length
            run = replace(piece, first_row=piece.first_row + first, rows=last - first)
            self._join(values[code], replace(run, offset=piece.offset + begin, length=end - begin))

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

    # ── parquet and json ──

    def _keys_of_file(self, piece: Slice, made: Mapping[str, str]) -> tuple[Any, list[Values]]:
        path = piece.file.path
        if self._whole[0] != path:
            if piece.format == "parquet":
                keys = self._keys_of_parquet(path, made)
            else:
                keys = _coded([self._of_row(row, made) for row in json_rows.read_json_array(path)])
            self._whole = (path, keys)
        return self._whole[1]

    def _keys_of_parquet(self, path: str, made: Mapping[str, str]) -> tuple[Any, list[Values]]:
        import pyarrow as pa  # noqa: PLC0415 -- costs 0.1 s, and csv does not need it
        from pyarrow import parquet  # noqa: PLC0415 -- the same

        from batchpoint.scoring import key_columns  # noqa: PLC0415 -- the same

        table = parquet.read_table(path, columns=[key for key in self.keys if key not in made])
        if any(pa.types.is_nested(kind) for kind in table.schema.types):
            return _coded([self._of_row(row, made) for row in table.to_pylist()])
        columns = [
            key_columns.constant(made[key], table.num_rows) if key in made else key_columns.coded(table.column(key))
            for key in self.keys
        ]
        return key_columns.combined(columns, [_plain] * len(columns))

    # ── gathering ──

    def _gather_text(self, piece: Slice, records: Any, codes: Any, values: list[Values], header: int) -> None:
        copy = self._copy_of(piece, header)
        order, runs = _sorted(codes)
        position, bounds = copy.add_text(records.data, records.starts, order, piece.first_row)
        for code, first, last in runs:
            begin, length = int(bounds[first]), int(bounds[last] - bounds[first])
            self._join(values[code], copy.slice(piece.format, position + first, last - first, length, begin))

    def _gather_table(self, piece: Slice, codes: Any, values: list[Values]) -> None:
        table = parquet_rows.arrow_rows(piece.file.path, piece.first_row, piece.first_row + piece.rows)
        copy = self._copy_of(piece, 0)
        order, runs = _sorted(codes)
        position = copy.add_table(table, order, piece.first_row)
        for code, first, last in runs:
            length = piece.length * (last - first) // piece.rows
            self._join(values[code], copy.slice(piece.format, position + first, last - first, length))

    def _copy_of(self, piece: Slice, header: int) -> GatheredFile:
        from batchpoint.scoring.gathering import GatheredFile  # noqa: PLC0415 -- imports Arrow, see above

        if self._copy is None or self._copy[0] != piece.file:
            self.close()
            with Path(piece.file.path).open("rb") as file:
                self._copy = (piece.file, GatheredFile(piece.file, self.folder, file.read(header)))
        return self._copy[1]

    def _join(self, values: Values, piece: Slice) -> None:
        """Add a run to those of its key; one that follows the last directly makes it longer."""
        _, runs = self.groups.setdefault(_told_apart(values), (values, []))
        last = runs[-1] if runs else None
        if last is None or not _follows(last, piece) or last.length + piece.length > (self.longest or math.inf):
            runs.append(piece)
        else:
            runs[-1] = replace(last, rows=last.rows + piece.rows, length=last.length + piece.length)


def _follows(last: Slice, piece: Slice) -> bool:
    if last.numbers or piece.numbers or last.file != piece.file or last.first_row + last.rows != piece.first_row:
        return False
    return piece.format not in {"csv", "jsonl"} or last.offset + last.length == piece.offset


def _coded(keys: list[Values]) -> tuple[Any, list[Values]]:
    import numpy as np  # noqa: PLC0415 -- costs 0.1 s, which most runs do without

    known: dict[object, tuple[int, Values]] = {}
    found = (known.setdefault(_told_apart(key), (len(known), key)) for key in keys)
    codes = np.fromiter((code for code, _ in found), np.int64, len(keys))
    return codes, [key for _, key in known.values()]


def _told_apart(values: Values) -> object:
    """What two combinations are equal by: Python takes True for 1, which are two keys."""
    return values, tuple(type(value) is bool for value in values)


def _takes_turns(codes: Any) -> bool:
    """Whether the rows of each key lie in short runs, so that there would be too many."""
    changes = int((codes[1:] != codes[:-1]).sum())
    return changes >= len(codes) // SHORT_RUNS and len(codes) > SHORT_RUNS


def _runs(codes: Any) -> Iterator[tuple[int, int, int]]:
    """Code, first row and end of each run of equal codes."""
    import numpy as np  # noqa: PLC0415 -- see above

    ends = [*(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
    first = 0
    for last in ends if len(codes) else ():
        yield int(codes[first]), first, last
        first = last


def _sorted(codes: Any) -> tuple[Any, Iterator[tuple[int, int, int]]]:
    """The rows by their codes, each code's in their order; and where the rows of each code are then."""
    import numpy as np  # noqa: PLC0415 -- see above

    small = codes.astype(np.uint16) if len(codes) and int(codes.max()) < 1 << 16 else codes  # sorted by radix then
    order = np.argsort(small, kind="stable")
    return order, _runs(codes[order])


def _plain(value: Any) -> Any:
    """A value that JSON can carry and that is equal to itself."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
