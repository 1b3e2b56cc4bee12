"""Files or row slices → MiniBatch, lazily, in a stable order that depends on the input and the settings alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
