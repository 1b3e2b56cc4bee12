"""What a file looks like inside, of a bounded part of it: rows of csv, jsonl and parquet, an image, or text. Pure.

What a file is said to be follows from its first bytes; its name decides only between forms of text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

HEAD = 1 << 16
"""Bytes of a file that a preview of text is made of."""
ROWS, COLUMNS, CELL = 50, 100, 300
"""Rows and columns that are shown, and characters of a cell."""
LARGEST_IMAGE = 10 << 20
LARGEST_GROUP = 128 << 20
"""Bytes of a row group of parquet, unpacked, whose rows are shown."""

Kind = Literal["table", "image", "text", "binary"]

_UNSHOWABLE = (ArithmeticError, LookupError, RecursionError, ValueError)
"""Raised for values that are none in Python, or too deep to be written."""
_NO_VALUE = "cannot be shown"

_IMAGES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
"""Pictures alone: an SVG is a document that may hold scripts, so that it is text here."""


@dataclass(frozen=True)
class Preview:
    """A part of a file, for people."""

    kind: Kind
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """Of a table."""
    text: str = ""
    note: str | None = None
    """How much there is, or why there is no more to be seen."""
    media_type: str | None = None
    """Of an image."""


def image_type(head: bytes) -> str | None:
    """The media type of an image that browsers show, by its first bytes; None for all else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for begin, kind in _IMAGES if head.startswith(begin)), None)


def preview_of(name: str, file: IO[bytes], size: int) -> Preview:
    """What a file looks like inside. Whatever it holds, no more than a part of it is read.

    Args:
        name: of the file, for its ending.
        file: opened at its beginning; one that can be sought in, where it is parquet.
        size: its bytes; 0 where the store does not tell.
    """
    head = file.read(HEAD)
    if (media_type := image_type(head)) is not None:
        if size > LARGEST_IMAGE:
            return Preview("binary", note="The image is too large to be shown here; download it.")
        return Preview("image", media_type=media_type)
    if head[:4] == b"PAR1":
        return _parquet(file)
    if b"\0" in head:
        return Preview("binary", note="It holds no text, and is of no kind that is shown here; download it.")
    is_whole = len(head) < HEAD
    text = head.decode("utf-8-sig", errors="replace")
    lines = text if is_whole else text[: text.rfind("\n") + 1] or text
    note = None if is_whole else f"The first {len(head):,} bytes."
    ending = PurePosixPath(name.lower()).suffix
    table = None
    if ending in (".csv", ".tsv"):
        table = _csv(lines, "\t" if ending == ".tsv" else ",")
    elif ending in (".jsonl", ".ndjson"):
        table = _jsonl(lines)
    if table is None:
        return Preview("text", text=text, note=note)
    columns, rows, is_cut = table
    return Preview("table", columns, rows, note=f"The first {len(rows):,} rows." if is_cut or not is_whole else None)


_Table = tuple[list[str], list[list[str]], bool]
"""Columns, rows, and whether there are more rows."""


def _csv(text: str, delimiter: str) -> _Table | None:
    """None where it is no csv."""
    try:
        lines = list(islice(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), ROWS + 2))
    except csv.Error:
        return None
    if not lines:
        return None
    rows = [[_cell(value) for value in line[:COLUMNS]] for line in lines[: ROWS + 1]]
    return rows[0], rows[1:], len(lines) > ROWS + 1


def _jsonl(text: str) -> _Table | None:
    """None where a line is no object."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found: list[Any] = [json.loads(line) for line in lines[:ROWS]]
        if not found or not all(isinstance(one, dict) for one in found):
            return None
        columns = list(dict.fromkeys(name for one in found for name in one))[:COLUMNS]
        rows = [[_cell(one[name]) if name in one else "" for name in columns] for one in found]
    except _UNSHOWABLE:
        return None
    return [_cell(name) for name in columns], rows, len(lines) > ROWS


def _parquet(file: IO[bytes]) -> Preview:
    try:
        opened = pq.ParquetFile(file, buffer_size=HEAD, pre_buffer=False)
        schema, about = opened.schema_arrow, opened.metadata
        names = schema.names[:COLUMNS]
        columns = [f"{name} ({schema.field(at).type})"[:CELL] for at, name in enumerate(names)]
        told = f"{about.num_rows:,} rows, {len(schema.names):,} columns."
        if not about.num_row_groups:
            return Preview("table", columns, note=told)
        if about.row_group(0).total_byte_size > LARGEST_GROUP:
            return Preview("table", columns, note=f"{told} They lie in groups too large to be shown here.")
        batch = next(opened.iter_batches(ROWS, row_groups=[0], columns=names), None)
        cells = [_cells(column) for column in batch.columns] if batch is not None else []
    except (pa.ArrowException, OSError, ValueError) as fault:
        return Preview("binary", note=_written(f"It begins like parquet, and cannot be read: {fault}"[:CELL]))
    return Preview("table", columns, [list(row) for row in zip(*cells, strict=True)], note=told)


def _cells(column: pa.Array) -> list[str]:
    """A column may hold what Python has no value for, as a year after 9999 or a zone that does not exist: it hides no
    other."""
    try:
        return [_cell(value) for value in column.to_pylist()]
    except (pa.ArrowException, *_UNSHOWABLE):
        return [_NO_VALUE] * len(column)


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else str(value)
    return _written(text if len(text) <= CELL else f"{text[:CELL]}…")


def _written(text: str) -> str:
    """The text as it can be sent: JSON may hold halves of pairs, which no encoding has."""
    return text.encode(errors="backslashreplace").decode()
