"""The beginning of a file as a table: csv, jsonl and parquet; how its numbers are distributed; which images are shown.

Whatever a file claims to be, reading it fails softly: a preview is a help, not a check.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from batchpoint.entities.run_reports import Histogram, Preview

ROWS = 20
BINS = 24
MOST_BYTES = 4 << 20
"""Read of the beginning of a text file."""
MOST_ROWS = 100_000
"""Read of the beginning of a parquet file."""
MOST_COLUMNS = 100
MOST_HISTOGRAMS = 3
LONGEST_CELL = 500
"""Characters."""
IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
"""Pictures that hold no program. Drawings do: SVG is never shown."""
_BEGINNINGS = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
_NOTHING = Preview(kind="none")


def preview(file: IO[bytes], name: str, *, keys: Collection[str] | None = None) -> Preview:
    """The first rows of a table, and histograms of its first columns of numbers; for an image, that it is one.

    Args:
        file: open at its beginning; a parquet file must be seekable.
        name: its name, whose ending says what it is.
        keys: columns whose numbers are names, of which no histogram is made; None when none is wanted at all.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in IMAGES:
        return Preview(kind="image") if image_type(file.read(12), name) else _NOTHING
    try:
        if suffix == ".parquet":
            return _of_parquet(file, keys)
        if suffix in (".csv", ".tsv", ".jsonl"):
            return _of_text(file, suffix, keys)
    except (pa.ArrowException, OSError, ValueError):  # it is not what its name says
        return _NOTHING
    return _NOTHING


def image_type(beginning: bytes, name: str) -> str | None:
    """The type of a picture that is what its name says; None for anything else."""
    claimed = IMAGES.get(PurePosixPath(name).suffix.lower())
    return claimed if claimed and beginning.startswith(_BEGINNINGS[claimed]) else None


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


def _of_text(file: IO[bytes], suffix: str, keys: Collection[str] | None) -> Preview:
    data = file.read(MOST_BYTES + 1)
    is_whole = len(data) <= MOST_BYTES
    data = data if is_whole else data[: data.rfind(b"\n") + 1]
    if suffix == ".jsonl":
        lines = [line for line in data.split(b"\n", ROWS + 1)[: ROWS + 1] if line.strip()][:ROWS]
        found = [json.loads(line) for line in lines]
        records = [record if isinstance(record, dict) else {"value": record} for record in found]
        columns = list(dict.fromkeys(key for record in records for key in record))[:MOST_COLUMNS]
        rows = [[_text(record.get(key)) for key in columns] for record in records]
    else:
        delimiter = "\t" if suffix == ".tsv" else ","
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig", errors="replace"), newline=""), delimiter=delimiter)
        head, *body = [row[:MOST_COLUMNS] for row in islice(reader, ROWS + 1)] or [[]]
        columns, rows = [_text(cell) for cell in head], [[_text(cell) for cell in row] for row in body]
    if keys is None:
        return Preview(kind="table", columns=columns, rows=rows, is_whole=is_whole and data.count(b"\n") <= ROWS + 1)
    table = _arrow_of(data, suffix)
    return Preview(
        kind="table",
        columns=columns,
        rows=rows,
        histograms=_histograms(table, keys),
        rows_counted=table.num_rows if table is not None else 0,
        is_whole=is_whole,
    )


def _of_parquet(file: IO[bytes], keys: Collection[str] | None) -> Preview:
    opened = pyarrow.parquet.ParquetFile(file)
    names = opened.schema_arrow.names[:MOST_COLUMNS]
    wanted = MOST_ROWS if keys is not None else ROWS
    batches, rows = [], 0
    for batch in opened.iter_batches(batch_size=min(wanted, 16_384), columns=names):
        batches.append(batch)
        rows += batch.num_rows
        if rows >= wanted:
            break
    table = pa.Table.from_batches(batches, batches[0].schema if batches else opened.schema_arrow)
    return Preview(
        kind="table",
        columns=names,
        rows=[[_text(row[name]) for name in names] for row in table.slice(0, ROWS).to_pylist()],
        histograms=_histograms(table, keys),
        rows_counted=table.num_rows,
        is_whole=table.num_rows == opened.metadata.num_rows,
    )


def _arrow_of(data: bytes, suffix: str) -> pa.Table | None:
    """The rows by Arrow, which finds out which columns are numbers; None when it makes nothing of them."""
    try:
        if suffix == ".jsonl":
            return pyarrow.json.read_json(pa.BufferReader(data))
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if suffix == ".tsv" else ",",
                newlines_in_values=True,
                invalid_row_handler=lambda _: "skip",
            ),
        )
    except (pa.ArrowException, ValueError):
        return None


def _histograms(table: pa.Table | None, keys: Collection[str] | None) -> list[Histogram]:
    if table is None or keys is None:
        return []
    made: list[Histogram] = []
    for at, column in enumerate(table.schema):
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if len(made) == MOST_HISTOGRAMS or not is_number or column.name in keys:
            continue
        values = pc.fill_null(table.column(at).cast(pa.float64(), safe=False), float("nan")).to_numpy()
        if (shown := histogram(column.name, values)) is not None:
            made.append(shown)
    return made


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:LONGEST_CELL]
