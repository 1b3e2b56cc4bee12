"""Small slices of csv that follow each other closely → tables, cut out of blocks that are parsed whole.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. With a
mini-batch for each key a worker reads few rows, thousands of times, and setting up a parser costs more than parsing.
Values convert one by one, so a block that converts as planned gives each slice what it would have given alone. Whatever
speaks against that, in any row of a block, has its slices read by themselves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Mapping  # noqa: UP035 -- the environment's interpreter may be old

if TYPE_CHECKING:
    from collections.abc import Hashable

BLOCK = 1 << 18
"""Bytes that are parsed at once."""
NEAR = 1 << 15
"""A slice is small up to so many bytes, and near another that ended so many before it. So a block serves four at least:
where many workers share the keys, those of one of them lie far apart, and are not worth it."""
MOST = 8
"""Blocks that are held. A key has a run of rows in each block that was gathered, and each is read in two ways."""


class ReadAhead:
    """The blocks that were parsed last."""

    def __init__(self) -> None:
        """Nothing is parsed yet."""
        self._blocks: deque[_Block] = deque(maxlen=MOST)
        self._ends: deque[tuple[str, int]] = deque(maxlen=2 * MOST)

    def table(self, piece: Mapping[str, Any], way: Hashable, parse: Callable[[bytes], Any]) -> Any:
        """The rows of a slice as an Arrow table; None where it has to be read by itself.

        Args:
            piece: the slice, as ``slices.read_rows`` takes it.
            way: what tells one way to parse from another.
            parse: makes a table of whole records without quotes. Raises ValueError for those that do not convert.
        """
        path, offset, length = piece["path"], piece["offset"], piece["length"]
        is_near = any(ended == path and 0 <= offset - end <= NEAR for ended, end in self._ends)
        if not self._ends or self._ends[-1] != (path, offset + length):
            self._ends.append((path, offset + length))
        if length > NEAR:
            return None
        key = (path, way)
        for block in self._blocks:
            if block.key == key and block.first <= offset and offset + length <= block.last:
                return block.rows(offset, length, piece["rows"])
        if not is_near:
            return None
        block = _Block(key, path, offset, parse)
        self._blocks.append(block)
        return block.rows(offset, length, piece["rows"])


class _Block:
    """Whole records of a file, from a byte on, and the table that they make; None when they are not plain."""

    def __init__(self, key: object, path: str, first: int, parse: Callable[[bytes], Any]) -> None:
        with open(path, "rb") as file:  # noqa: PTH123 -- a string, thousands of times
            file.seek(first)
            data = file.read(BLOCK)
        self.key, self.first = key, first
        self._data = data = data[: data.rfind(b"\n") + 1]
        self.last = first + len(data)
        self._seen, self._passed = 0, 0
        self._table = None
        if data and b'"' not in data and data.count(b"\r") == data.count(b"\r\n"):
            try:
                table = parse(data)
            except ValueError:  # ArrowInvalid is one
                return
            self._table = table if table.num_rows == data.count(b"\n") else None  # blank lines are no rows

    def rows(self, offset: int, length: int, rows: int) -> Any:
        """The table of the records at these bytes; None when they are not so many."""
        begin, end = offset - self.first, offset - self.first + length
        if self._table is None or end > len(self._data) or not self._begins(begin) or not self._begins(end):
            return None
        if begin < self._seen:
            self._seen, self._passed = 0, 0
        first = self._passed + self._data.count(b"\n", self._seen, begin)
        self._seen, self._passed = begin, first
        return self._table.slice(first, rows) if self._data.count(b"\n", begin, end) == rows else None

    def _begins(self, at: int) -> bool:
        """Whether a record begins there, or the block ends."""
        return at == 0 or self._data[at - 1] == ord("\n")
