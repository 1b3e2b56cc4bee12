"""What a mini-batch is made of: files, slices of tables, keys. Words alone; ``planning`` finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from batchpoint.errors import BatchpointError
from batchpoint.scoring.model_index import KeyModel
from batchpoint.scoring.slice_bytes import row_numbers

Unit = Literal["rows", "files"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to score, already on this machine."""

    name: str
    """Path relative to the input's root, with forward slashes: what users see in keys, errors and receipt."""
    path: str
    """Absolute local path."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A contiguous run of data rows of one tabular file."""

    file: InputFile
    format: Literal["csv", "jsonl", "json", "parquet"]
    offset: int
    """First byte of the slice (csv, jsonl); the first row within the file's row groups counts by ``first_row``."""
    length: int
    """Bytes of the slice (csv, jsonl)."""
    first_row: int
    """Index, within the file's data rows, of the first row of the slice; counted from 0."""
    rows: int
    numbers: str | None = None
    """Path of the numbers that gathered rows have in the file, eight bytes each; ``first_row`` counts in it then."""

    def row_numbers(self, first: int, last: int) -> Sequence[int]:
        """The numbers in the file of the slice's rows ``first`` to ``last``, counted from 0."""
        return row_numbers({"first_row": self.first_row, "numbers": self.numbers}, first, last)


@dataclass(frozen=True, slots=True)
class KeySpan:
    """The rows of one key within a mini-batch of a model map, and the model that scores them."""

    key: tuple[tuple[str, str], ...]
    """Names and values, as text."""
    model: KeyModel | None
    """None where the map has no model for the key."""
    rows: int


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as data: what crosses process borders instead of a pickled exception."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """The part of the input given to one ``run()`` call. Its items are files, or rows."""

    index: int
    unit: Unit
    files: tuple[InputFile, ...] = ()
    """Its items when the unit is files."""
    slices: tuple[Slice, ...] = ()
    """Its items, in order, when the unit is rows."""
    spans: tuple[KeySpan, ...] = ()
    """The keys of its rows, in order, when each has a model of its own."""
    partition: tuple[tuple[str, Any], ...] = ()
    """The partition keys and their values, which all its items share."""
    unreadable: ErrorInfo | None = None
    """Set when the file (the only one in ``files``) could not be planned at all: it counts as one failed item."""

    @property
    def items(self) -> int:
        """How many items it holds."""
        if self.unreadable is not None or self.unit == "files":
            return len(self.files)
        return sum(piece.rows for piece in self.slices)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """What planning learnt about the columns, pinned so that every slice is read alike."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    """Arrow type names as ``str(pyarrow.DataType)`` gives them."""
    strict: tuple[str, ...] = ()
    """Columns whose types come from the model's signature: a value that does not convert fails its row. The types of
    the others are guessed from the head of the first file, and widened where a slice holds something else."""
    keep: tuple[str, ...] | None = None
    """The columns that ``run()`` receives, in their order; None means all that are read."""
    drop: tuple[str, ...] = ()
    """Columns that ``run()`` does not receive."""
    path_column: str | None = None
    partition_pattern: str | None = None
    partition_columns: tuple[str, ...] = ()
    """Columns made of file names: see ``spec.TableShape``."""


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as data, without its traceback."""
    return ErrorInfo(type(error).__name__, error.message if isinstance(error, BatchpointError) else str(error))
