"""Which mini-batch is committed, where its rows lie (segment, offset, length), how many items were ok and failed.

The ledger is ``ledger.jsonl`` in the run's folder: one line for each group of records, with a checksum. The segments
that a group points into are synced to disk before the group is written, so what the ledger says is always there; a
torn last line is cut off when the run is resumed. A thread writes and syncs, so that scoring never waits for the disk.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from batchpoint.scoring.challenge import Challenge, read_challenge
from batchpoint.scoring.mini_batches import ErrorInfo
from batchpoint.scoring.model_outcomes import ModelOutcomes, read_outcomes


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
    models: ModelOutcomes | None = None
    """Which models scored it, where each key has its own."""
    challenge: Challenge | None = None
    """What the challenger made of the same items."""
    sketched: int = 0
    """Bytes of the sketch of its items and rows, which lies behind these; 0 when there is none."""


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
    """For each input file that it touches: items, ok, failed. The others were skipped."""

    @property
    def skipped(self) -> int:
        """Items left out on purpose, neither ok nor failed."""
        return sum(part.models.skipped_items for part in self.parts if part.models is not None)


def as_seen_from_elsewhere(record: Record, folder: str) -> Record:
    """The record as seen from another run's folder: the segments of ``folder`` by their full path."""
    parts = tuple(
        replace(
            part,
            segment=part.segment if part.segment.startswith("/") else f"{folder}/segments/{part.segment}",
            challenge=part.challenge.located(folder) if part.challenge else None,
        )
        for part in record.parts
    )
    return replace(record, parts=parts)


class Ledger:
    """The ledger of one run, open for writing. Only the holder of ``runner.lock`` may open it."""

    GROUP = 256
    """Records that are written together at the latest."""
    INTERVAL = 0.05
    """Seconds after which the records at hand are written, however few."""
    MOST_WAITING = 4096
    """Records that may wait while a slow disk syncs the group before; then the run waits for it."""

    def __init__(self, folder: Path, records: dict[int, Record], length: int) -> None:
        """Use ``Ledger.open``."""
        self.records = records
        self._segments = folder / "segments"
        self._waiting: list[Record] = []
        self._written_at = monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._writing: Future[None] | None = None
        self._length = length
        self._synced: dict[str, int] = {}
        self._file = os.open(folder / "ledger.jsonl", os.O_WRONLY | os.O_CREAT, 0o600)
        os.ftruncate(self._file, length)
        os.lseek(self._file, length, os.SEEK_SET)
        _sync_folder(folder)

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Open the ledger of a run's folder, new or old; a torn or damaged tail is cut off."""
        (folder / "segments").mkdir(exist_ok=True)
        return cls(folder, *_read(folder / "ledger.jsonl"))

    @staticmethod
    def read(folder: Path) -> dict[int, Record]:
        """The committed mini-batches of a run's folder by their index. Touches nothing."""
        return _read(folder / "ledger.jsonl")[0]

    def append(self, record: Record) -> None:
        """Commit a mini-batch. It is on disk after the next ``flush``, or when a group that holds it was written."""
        self.records[record.mini_batch] = record
        self._waiting.append(record)
        if len(self._waiting) >= self.MOST_WAITING:
            self.flush()
        elif len(self._waiting) >= self.GROUP:
            self._begin_to_write()

    def flush_if_due(self) -> None:
        """Begin to write the records at hand when the last write began ``INTERVAL`` seconds ago.

        Raises:
            OSError: a write that was begun earlier has failed.
        """
        if self._waiting and monotonic() - self._written_at >= self.INTERVAL:
            self._begin_to_write()

    def flush(self) -> None:
        """Write the records at hand, the segments that they point into first, and wait until all is on disk.

        Raises:
            OSError: the disk is full, or failed.
        """
        self._finish_writing()
        if self._waiting:
            self._begin_to_write()
            self._finish_writing()

    def in_order(self) -> Iterator[Record]:
        """The committed mini-batches in the order of the input."""
        return (self.records[index] for index in sorted(self.records))

    def close(self) -> None:
        """Write what is at hand and let go of the files."""
        try:
            self.flush()
        finally:
            self._writer.shutdown()
            for file in (self._file, *self._synced.values()):
                os.close(file)
            self._synced.clear()

    def _begin_to_write(self) -> None:
        """Hand the records at hand to the writing thread, unless it is busy: scoring must not wait for the disk."""
        if self._writing is not None and not self._writing.done():
            return
        self._finish_writing()
        group, self._waiting = self._waiting, []
        self._written_at = monotonic()
        self._writing = self._writer.submit(self._write, group)

    def _finish_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, group: list[Record]) -> None:
        """In the writing thread. What could not be written whole is cut off again, so that later groups can be read."""
        line = _encode(group)
        try:
            self._sync_segments({name for record in group for part in record.parts for name in _segments_of(part)})
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._length)
            os.lseek(self._file, self._length, os.SEEK_SET)
            raise
        self._length += len(line)

    def _sync_segments(self, names: Iterable[str]) -> None:
        is_new = False
        for name in names:
            file = self._synced.get(name)
            if file is None:
                file = self._synced[name] = os.open(self._segments / name, os.O_RDONLY)
                is_new = True
            os.fdatasync(file)
        if is_new:
            _sync_folder(self._segments)


def _segments_of(part: Part) -> Iterator[str]:
    yield part.segment
    if part.challenge is not None:
        yield from (rows.segment for rows in part.challenge.all_rows())


def _sync_folder(folder: Path) -> None:
    """Make the names of new files in a folder last."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


# One group is one line of JSON: {"crc":"<crc32 of the records' text>","records":[...]}. Each record is a list, and
# errors stand once in each record, however many items share them: a failing part may hold thousands.

_HEAD, _MIDDLE, _TAIL = b'{"crc":"', b'","records":', b"}\n"
_START = len(_HEAD) + 8 + len(_MIDDLE)


def _encode(records: list[Record]) -> bytes:
    body = json.dumps([_to_list(record) for record in records], separators=(",", ":")).encode()
    return b"".join((_HEAD, b"%08x" % zlib.crc32(body), _MIDDLE, body, _TAIL))


def _read(path: Path) -> tuple[dict[int, Record], int]:
    """The records of a ledger file, and the length of its sound beginning."""
    records: dict[int, Record] = {}
    length = 0
    if not path.exists():
        return records, length
    with path.open("rb") as lines:
        for line in lines:
            body = line[_START : -len(_TAIL)]
            if not line.endswith(_TAIL) or line[:_START] != b"".join((_HEAD, b"%08x" % zlib.crc32(body), _MIDDLE)):
                break
            for values in json.loads(body):
                record = _from_list(values)
                records[record.mini_batch] = record
            length += len(line)
    return records, length


def _to_list(record: Record) -> list[Any]:
    errors: dict[ErrorInfo, int] = {}
    failures = [
        [f.item, f.file, f.row, f.attempt, errors.setdefault(f.error, len(errors)), f.key] for f in record.failures
    ]
    parts = [
        [
            *(p.start, p.stop, p.segment, p.offset, p.length, p.rows, p.ok, p.encoding, p.columns, p.missing),
            *(_more_of(p) if p.models or p.challenge or p.sketched else ()),
        ]
        for p in record.parts
    ]
    texts = [[error.type, error.message, error.traceback] for error in errors]
    counts = (record.mini_batch, record.items, record.ok, record.failed)
    return [*counts, parts, failures, texts, record.files]


def _more_of(part: Part) -> list[Any]:
    """What few parts have."""
    told = [part.models and part.models.kept(), part.challenge and part.challenge.as_json()]
    return [*told, part.sketched] if part.sketched else told


def _from_list(values: list[Any]) -> Record:
    index, items, ok, failed, parts, failures, texts, files = values
    errors = [ErrorInfo(*text) for text in texts]
    return Record(
        mini_batch=index,
        items=items,
        ok=ok,
        failed=failed,
        parts=tuple(_part(*part) for part in parts),
        failures=tuple(
            FailedItem(item, file, row, attempt, errors[error], key)
            for item, file, row, attempt, error, key in failures
        ),
        files={name: (numbers[0], numbers[1], numbers[2]) for name, numbers in files.items()},
    )


def _part(*values: Any) -> Part:
    columns, missing = values[8:10]
    models, challenge, sketched = (*values[10:], None, None, None)[:3]
    return replace(
        Part(*values[:8]),
        columns=tuple(columns),
        missing=None if missing is None else tuple(missing),
        models=read_outcomes(models),
        challenge=read_challenge(challenge) if challenge else None,
        sketched=sketched or 0,
    )
