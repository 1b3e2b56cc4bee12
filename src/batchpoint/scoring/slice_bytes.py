"""Bytes of slices, and the numbers of their rows. The last ones read, and their files, are kept.

Runs under the interpreter of the deployment's environment: only the standard library is imported.
"""

from __future__ import annotations

import array
import re
from typing import Any, Iterator, Mapping, Sequence

from . import csv_records

OPEN_FILES = 4
"""Files that stay open between reads: the input, and the numbers of gathered rows."""


def row_numbers(piece: Mapping[str, Any], first: int, last: int) -> Sequence[int]:
    """The numbers that rows of a slice have in their file as the user knows it, counted from 0.

    Those of a slice with ``numbers`` stand in that file, because its rows were gathered from several places.
    """
    begin, count = piece["first_row"] + first, last - first
    if not piece.get("numbers"):
        return range(begin, begin + count)
    found = array.array("q")
    found.frombytes(_bytes_at(piece["numbers"], begin * found.itemsize, count * found.itemsize))
    return found


def row_number(piece: Mapping[str, Any], position: int) -> int:
    """The number of one row of a slice."""
    return row_numbers(piece, position, position + 1)[0]


def cut(piece: Mapping[str, Any], first: int, last: int, delimiter: str | None) -> bytes:
    """The bytes of the wanted rows, ending in a line ending. A delimiter of None means lines of JSON."""
    data = _bytes_of(piece)
    if first > 0 or last < piece["rows"]:
        if _Memory.bounds is None:
            _Memory.bounds = line_bounds(data) if delimiter is None else csv_records.record_bounds(data, delimiter)
        data = data[_Memory.bounds[first][0] : _Memory.bounds[last - 1][1]]
    return data if data.endswith((b"\n", b"\r")) else data + b"\n"


def line_bounds(data: bytes) -> list[tuple[int, int]]:
    """Start and end of each line of ``data`` (jsonl) that is not blank."""
    return list(_lines(data))


class _Memory:
    """What was read last. Halving a failing part reads the same slice again and again."""

    slice_key: tuple[str, int, int] | None = None
    data: bytes = b""
    bounds: list[tuple[int, int]] | None = None
    files: dict[str, Any] = {}  # noqa: RUF012 -- one per process, on purpose


def _bytes_of(piece: Mapping[str, Any]) -> bytes:
    key = (piece["path"], piece["offset"], piece["length"])
    if _Memory.slice_key != key:
        data = _bytes_at(piece["path"], piece["offset"], piece["length"])
        if len(data) != piece["length"]:
            raise csv_records.UnreadableRowsError(f"{piece['name']} has become shorter since it was planned.")
        _Memory.slice_key, _Memory.data, _Memory.bounds = key, data, None
    return _Memory.data


def _bytes_at(path: str, offset: int, length: int) -> bytes:
    """Bytes of a file, which stays open for the next ones: a mini-batch of a model map has slices by the hundred."""
    file = _Memory.files.get(path)
    if file is None:
        if len(_Memory.files) >= OPEN_FILES:
            for old in _Memory.files.values():
                old.close()
            _Memory.files.clear()
        file = _Memory.files[path] = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 -- stays open; a string
    try:
        file.seek(offset)
        data = file.read(length)
        while len(data) < length:
            more = file.read(length - len(data))
            if not more:
                break
            data += more
    except OSError:
        _Memory.files.pop(path).close()  # opened anew by the next try: a file system that was away knows it no more
        raise
    return data


def _lines(data: bytes) -> Iterator[tuple[int, int]]:
    begin = 0
    for match in re.finditer(rb"\n|\Z", data):
        if data[begin : match.end()].strip():
            yield begin, match.end()
        begin = match.end()
