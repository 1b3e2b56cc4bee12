"""Pieces and lines of a large file, wherever they lie in it: as much is read as is shown."""

from __future__ import annotations

from typing import IO

from batchpoint.entities.run_reports import LogHit, LogPiece, LogSearch

BLOCK = 1 << 20
MOST_SEARCHED = 256 << 20
"""Bytes that one search looks through; the next goes on from there."""
MOST_HITS = 200
LONGEST_HIT = 500
"""Bytes of a line that a search shows."""


def piece_from(file: IO[bytes], start: int, size: int, limit: int) -> LogPiece:
    """About ``limit`` bytes from ``start`` on, up to the end of a line; of a longer line as much as that.

    A negative start counts from the end, and means the next line that begins there.
    """
    if start < 0:
        return piece_until(file, size, size, min(-start, limit))
    begin = min(start, size)
    file.seek(begin)
    data = file.read(limit)
    if begin + len(data) < size and (last := data.rfind(b"\n")) >= 0:
        data = data[: last + 1]
    return _piece(data, begin, size)


def piece_until(file: IO[bytes], end: int, size: int, limit: int) -> LogPiece:
    """The lines that end at ``end``, about ``limit`` bytes of them; of a longer line as much as that."""
    end = min(max(end, 0), size)
    begin = max(end - limit, 0)
    if begin == 0:
        file.seek(0)
        return _piece(file.read(end), 0, size)
    file.seek(begin - 1)
    data = file.read(end - begin + 1)
    first = data.find(b"\n", 0, len(data) - 1) + 1
    cut = first or 1
    return _piece(data[cut:], begin - 1 + cut, size)


def search(file: IO[bytes], wanted: str, start: int, size: int) -> LogSearch:
    """The first lines from ``start`` on that hold a text. Bytes know the capitals of ASCII alone: other letters are
    looked for as they stand."""
    needle = wanted.encode(errors="replace").lower()
    hits: list[LogHit] = []
    at, rest = min(max(start, 0), size), b""
    file.seek(at)
    stop = min(at + MOST_SEARCHED, size)
    while at < stop and (block := file.read(BLOCK)):
        text = rest + block
        # A line that goes on beyond the block is looked at with the next one, unless it is longer than all that.
        whole = len(text) if at + len(text) >= size else (text.rfind(b"\n") + 1 or len(text))
        lower, found = text[:whole].lower(), 0
        while (found := lower.find(needle, found)) >= 0:
            begin = text.rfind(b"\n", 0, found) + 1
            end = text.find(b"\n", found, whole)
            end = whole if end < 0 else end
            if len(hits) == MOST_HITS:
                return LogSearch(hits=hits, following=at + begin)
            hits.append(LogHit(start=at + begin, text=text[begin:end][:LONGEST_HIT].decode(errors="replace")))
            found = end
        rest, at = text[whole:], at + whole
    return LogSearch(hits=hits, following=at if at < size else None)


def _piece(data: bytes, begin: int, size: int) -> LogPiece:
    return LogPiece(text=data.decode(errors="replace"), start=begin, end=begin + len(data), size=size)
