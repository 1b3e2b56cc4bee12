"""Rows of many keys in turn → a copy of the file in which the rows of a key lie together.

The copy lies in the run's folder. Beside it lies the number that each of its rows has in the file as the user knows it,
eight bytes each, so that every row keeps its file and number. A block is sorted at a time, so memory stays flat; a key
has one run of rows for each block. Written anew by a resumed run, byte by byte the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from batchpoint.scoring.mini_batches import InputFile, Slice
from batchpoint.scoring.tabular import Format

ROW_GROUP = 1 << 16
"""Rows of a row group of a parquet copy: a worker reads whole ones."""


class GatheredFile:
    """The copy of one file, while it is written."""

    def __init__(self, file: InputFile, folder: Path, header: bytes) -> None:
        """Begin the copy of ``file`` below the run's ``folder`` with the bytes before its first row."""
        self.path = folder / "inputs" / "grouped" / file.name
        self.numbers = self.path.with_name(f"{self.path.name}.rows")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._named = replace(file, path=str(self.path)), str(self.numbers)
        self._copy = self.path.open("wb")
        self._numbers = self.numbers.open("wb")
        self._copy.write(header)
        self._end = len(header)
        self._rows = 0
        self._parquet: Any = None

    def add_text(self, data: bytes, starts: Any, order: Any, first_row: int) -> tuple[int, Any]:
        """Append the rows of a block in a new order.

        Args:
            data: the block, which ends with its last row.
            starts: where each row begins in it.
            order: positions of the rows, as they are to follow each other.
            first_row: number of the block's first row in the file.

        Returns:
            The position of the first of them in the copy, and where each begins there, with the end of the last.
        """
        if not data.endswith((b"\n", b"\r")):
            data += b"\n"
        offsets = np.append(starts, len(data)).astype(np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        taken = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(starts), buffers).take(pa.array(order))
        bounds = np.frombuffer(taken.buffers()[1], np.int64)[: len(order) + 1]
        self._copy.write(memoryview(taken.buffers()[2])[bounds[0] : bounds[-1]])
        bounds = bounds - bounds[0] + self._end
        self._end = int(bounds[-1])
        return self._count(order, first_row), bounds

    def add_table(self, table: Any, order: Any, first_row: int) -> int:
        """Append the rows of a piece of a parquet file in a new order; the position of the first in the copy."""
        if self._parquet is None:
            self._parquet = parquet.ParquetWriter(self._copy, table.schema, compression="zstd")
        self._parquet.write_table(table.take(pa.array(order)), row_group_size=ROW_GROUP)
        return self._count(order, first_row)

    def slice(self, kind: Format, position: int, rows: int, length: int, offset: int = 0) -> Slice:
        """Rows of the copy, from a position in it; ``offset`` and ``length`` are their bytes, where they are text."""
        return Slice(self._file, kind, offset, length, position, rows, self._named)

    def close(self) -> None:
        """Let others read it."""
        if self._parquet is not None:
            self._parquet.close()
        self._copy.close()
        self._numbers.close()

    def _count(self, order: Any, first_row: int) -> int:
        self._numbers.write((np.asarray(order, np.int64) + first_row).tobytes())
        position, self._rows = self._rows, self._rows + len(order)
        return position
