"""How the numbers of an output are distributed, as far as its beginning tells: csv, jsonl and parquet.

Whatever a file claims to be, reading it fails softly: a histogram is a help, not a check.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from batchpoint.entities.run_reports import Histogram, Histograms
from batchpoint.operations.arrow_numbers import floats

BINS = 24
MOST_BYTES = 4 << 20
"""Read of the beginning of a text file."""
MOST_ROWS = 100_000
"""Read of the beginning of a parquet file."""
PIECE = 1 << 16
"""Bytes of a column of parquet that are read at once."""
MOST_HISTOGRAMS = 3


def histograms_of(file: IO[bytes], name: str, keys: Collection[str], beside: Collection[str] = ()) -> Histograms | None:
    """Histograms of a few columns of numbers; None for what is no table, or holds no numbers.

    Args:
        file: open at its beginning; a parquet file must be seekable.
        name: its name, whose ending says what it is.
        keys: columns whose numbers are names.
        beside: columns that other ones go before, as those of the input that are repeated beside the predictions; with
            ``*`` any may be such a one, and the last go before.
    """
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".parquet":
            table, is_whole = _of_parquet(file, keys, beside)
        elif suffix in (".csv", ".tsv", ".jsonl"):
            table, is_whole = _of_text(file, suffix)
        else:
            return None
    except (pa.ArrowException, OSError, ValueError):  # it is not what its name says
        return None
    found = _histograms(table, chosen(table.schema, keys, beside))
    return Histograms(columns=found, rows=table.num_rows, is_whole=is_whole) if found else None


def chosen(schema: pa.Schema, keys: Collection[str], beside: Collection[str]) -> list[int]:
    """Which columns are shown, those that go before first. Pure."""
    numbers = [
        at
        for at, column in enumerate(schema)
        if (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and column.name not in keys
    ]
    if "*" in beside:  # predictions stand behind what is repeated beside them
        return numbers[-MOST_HISTOGRAMS:]
    return sorted(numbers, key=lambda at: schema.field(at).name in beside)[:MOST_HISTOGRAMS]


def histogram(column: str, values: npt.NDArray[np.float64]) -> Histogram | None:
    """How values are distributed; None when there is none that could be."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    if not np.isfinite(high - low):  # further apart than a number can tell
        return None
    counts, _ = np.histogram(finite, bins=BINS if high > low else 1, range=(low, high) if high > low else None)
    return Histogram(column=column, low=low, high=high, counts=counts.tolist(), missing=len(values) - len(finite))


def _of_text(file: IO[bytes], suffix: str) -> tuple[pa.Table, bool]:
    data = file.read(MOST_BYTES + 1)
    is_whole = len(data) <= MOST_BYTES
    data = pa.BufferReader(data if is_whole else data[: data.rfind(b"\n") + 1])
    if suffix == ".jsonl":
        return pyarrow.json.read_json(data), is_whole
    parsing = pyarrow.csv.ParseOptions(
        delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True, invalid_row_handler=lambda _: "skip"
    )
    return pyarrow.csv.read_csv(data, parse_options=parsing), is_whole


def _of_parquet(file: IO[bytes], keys: Collection[str], beside: Collection[str]) -> tuple[pa.Table, bool]:
    """Of the columns that are shown, and of no other."""
    opened = pyarrow.parquet.ParquetFile(file, buffer_size=PIECE, pre_buffer=False)
    names = [opened.schema_arrow.field(at).name for at in chosen(opened.schema_arrow, keys, beside)]
    batches, rows = [], 0
    for batch in opened.iter_batches(batch_size=16_384, columns=names) if names else ():
        batches.append(batch)
        rows += batch.num_rows
        if rows >= MOST_ROWS:
            break
    table = pa.Table.from_batches(batches, batches[0].schema if batches else pa.schema([]))
    return table, rows == opened.metadata.num_rows


def _histograms(table: pa.Table, columns: Collection[int]) -> list[Histogram]:
    made = (histogram(table.schema.field(at).name, floats(table.column(at), missing=float("nan"))) for at in columns)
    return [shown for shown in made if shown is not None]
