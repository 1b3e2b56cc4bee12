"""Small slices of csv that follow each other closely → frames, cut out of blocks that are parsed whole.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top. With a
mini-batch for each key a worker reads few rows, thousands of times, and setting up a parser costs more than parsing.
Values convert one by one, so a block that converts as planned gives each slice what it would have given alone. Whatever
speaks against that, in any row of a block, has its slices read by themselves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

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

    def frame(self, pieces: Sequence[Mapping[str, Any]], way: Hashable, parse: Callable[[bytes], Any]) -> Any:
        """The rows of small slices as one DataFrame of its own; None where they have to be read by themselves.

        Args:
            pieces: the slices, as ``slices.read_rows`` takes them.
            way: what tells one way to parse from another.
            parse: makes an Arrow table of whole records without quotes. Raises ValueError for those that do not
                convert.
        """
        found = [self._find(piece, way, parse) for piece in pieces]
        places = [place for place in found if place is not None]
        if len(places) < len(found):
            return None
        if len(places) == 1:
            block, first = places[0]
            return block.frame(first, pieces[0]["rows"])
        tables = [block.table.slice(first, piece["rows"]) for (block, first), piece in zip(places, pieces)]
        import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there

        return pa.concat_tables(tables).to_pandas(use_threads=False)

    def _find(
        self, piece: Mapping[str, Any], way: Hashable, parse: Callable[[bytes], Any]
    ) -> tuple[_Block, int] | None:
        """The block that holds a slice, parsed now if need be, and the first of its rows there."""
        path, offset, length = piece["path"], piece["offset"], piece["length"]
        is_near = any(ended == path and 0 <= offset - end <= NEAR for ended, end in self._ends)
        if not self._ends or self._ends[-1] != (path, offset + length):
            self._ends.append((path, offset + length))
        if length > NEAR:
            return None
        key = (path, way)
        for block in self._blocks:
            if block.key == key and block.first <= offset and offset + length <= block.last:
                return block.place(offset, length, piece["rows"])
        if not is_near:
            return None
        block = _Block(key, path, offset, parse)
        self._blocks.append(block)
        return block.place(offset, length, piece["rows"])


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
        self.table: Any = None
        self._whole: Any = None
        if data and b'"' not in data and data.count(b"\r") == data.count(b"\r\n"):
            try:
                table = parse(data)
            except ValueError:  # ArrowInvalid is one
                return
            self.table = table if table.num_rows == data.count(b"\n") else None  # blank lines are no rows

    def place(self, offset: int, length: int, rows: int) -> tuple[_Block, int] | None:
        """This block, and the number of its row that begins there; None when these bytes are not so many records."""
        begin, end = offset - self.first, offset - self.first + length
        if self.table is None or end > len(self._data) or not self._begins(begin) or not self._begins(end):
            return None
        if begin < self._seen:
            self._seen, self._passed = 0, 0
        first = self._passed + self._data.count(b"\n", self._seen, begin)
        self._seen, self._passed = begin, first
        return (self, first) if self._data.count(b"\n", begin, end) == rows else None

    def frame(self, first: int, rows: int) -> Any:
        """Rows of the table as a DataFrame of its own, with a fresh index.

        They are cut out of one frame of the whole block, unless a missing value in it gives a column another type than
        some of its rows alone would have.
        """
        if self._whole is None:
            from pyarrow import types  # noqa: PLC0415 -- as above

            is_alike = all(
                not column.null_count or types.is_floating(column.type) or types.is_string(column.type)
                for column in self.table.columns
            )
            self._whole = self.table.to_pandas(use_threads=False) if is_alike else False
        if self._whole is False:
            return self.table.slice(first, rows).to_pandas(use_threads=False)
        import pandas as pd  # noqa: PLC0415 -- as above

        frame = self._whole.iloc[first : first + rows].copy()
        frame.index = pd.RangeIndex(rows)
        if type(frame.columns.dtype).__name__ != "StringDtype":  # before pandas 3: scripts can write into their names
            frame.columns = frame.columns.copy(deep=True)
        return frame

    def _begins(self, at: int) -> bool:
        """Whether a record begins there, or the block ends."""
        return at == 0 or self._data[at - 1] == ord("\n")
