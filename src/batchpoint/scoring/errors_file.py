"""The errors file: one line for each failed item, in input order, every field always there, always of the same type."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batchpoint.scoring.ledger import Record

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("mini_batch", pa.int64()),
        ("attempt", pa.int64()),
        ("exception", pa.string()),
        ("message", pa.string()),
        ("traceback", pa.string()),
    ]
)
"""Columns of the errors file in parquet; ``key`` is JSON text there."""

GROUP_ROWS = 16_384


def write_errors(records: Iterable[Record], target: Path, format: Literal["jsonl", "parquet"]) -> int:  # noqa: A002 - the field's own word
    """Write the failed items of records, which are in input order, and return how many there are.

    The file is written also when nothing failed, and synced to disk. In jsonl ``key`` is an object or null.
    """
    lines = _lines(records)
    count = 0
    with target.open("wb") as file:
        if format == "jsonl":
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False, default=str).encode(errors="replace") + b"\n")
                count += 1
        else:
            with pq.ParquetWriter(file, SCHEMA, compression="zstd", version="2.6") as writer:
                while group := [_typed(line) for line in islice(lines, GROUP_ROWS)]:
                    writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
                    count += len(group)
        file.flush()
        os.fsync(file.fileno())
    return count


def _lines(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        for failure in sorted(record.failures, key=lambda failure: failure.item):
            yield {
                "key": failure.key,
                "file": failure.file,
                "row": failure.row,
                "mini_batch": record.mini_batch,
                "attempt": failure.attempt,
                "exception": failure.error.type,
                "message": failure.error.message,
                "traceback": failure.error.traceback,
            }


def _typed(line: dict[str, Any]) -> dict[str, Any]:
    texts = {name: _valid(line[name]) for name in ("file", "exception", "message", "traceback")}
    key = None if line["key"] is None else _valid(json.dumps(line["key"], ensure_ascii=False, default=str))
    return {**line, **texts, "key": key}


def _valid(text: str | None) -> str | None:
    """The text with what UTF-8 cannot hold replaced: messages may quote broken input."""
    return None if text is None else text.encode(errors="replace").decode()
