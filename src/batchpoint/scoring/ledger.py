"""Which mini-batch is committed, where its rows lie (segment, offset, length), how many items were ok and failed.

The ledger is ``ledger.jsonl`` in the run's folder: one line for each group of records, with a checksum. The segments
that a group points into are synced to disk before the group is written, so what the ledger says is always there; a
torn last line is cut off when the run is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from batchpoint.scoring.mini_batches import ErrorInfo


@dataclass(frozen=True, slots=True)
class Part:
    """The result rows of the items ``start`` to ``stop`` of a mini-batch, as they lie in a segment."""

    start: int
    stop: int
    segment: str
    """Path of the segment file, relative to ``segments/`` of the run's folder."""
    offset: int
    length: int
    """Bytes."""
    rows: int
    """Result rows."""
    ok: int
    """Items that succeeded."""
    encoding: str
    """csv, jsonl, azureml or arrow."""
    columns: tuple[str, ...] = ()
    """Names of the columns of the rows, keys first; equal for all parts of a well-behaved script."""
    missing: tuple[int, ...] | None = ()
    """Positions within the mini-batch of the items without a result; None when only their number is known."""


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One item that failed, as it is written to the errors file."""

    item: int
    """Position within the mini-batch; -1 when only the number of failed items is known."""
    file: str | None
    row: int | None
    """Index of the data row within the file, counted from 0; None for files."""
    attempt: int
    """How many ``run()`` calls with this item raised, timed out or lost their worker."""
    error: ErrorInfo
    key: dict[str, object] | None = None
    """Values of the key columns, when there are any and the row could be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One committed mini-batch."""

    mini_batch: int
    items: int
    ok: int
    failed: int
    parts: tuple[Part, ...] = ()
    failures: tuple[FailedItem, ...] = ()
    files: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """For each input file that it touches: items, ok, failed."""
