"""The reports of runs, read as they grow: each line of ``processed_mini-batches.csv`` once, then only what is new."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batchpoint.entities.jobs import Job
from batchpoint.entities.run_reports import RunReport
from batchpoint.operations.arrow_numbers import floats, numbers
from batchpoint.operations.run_timeline import Attempts, Timeline
from batchpoint.scoring.job_logs import END_OF_PART

REPORT = Path("logs", "sys", "job_report", "processed_mini-batches.csv")
KEPT = 64
"""Runs whose timelines are held."""
AGAIN_SECONDS = 5.0
"""How often the report of a run that goes on is looked at."""
MOST_AT_ONCE = 256 << 20
"""Bytes that are read for one look; the next goes on from there."""
PIECE = 16 << 20
_TYPES = {
    "Process": pa.dictionary(pa.int32(), pa.string()),
    "Process Start Time": pa.timestamp("us"),
    **dict.fromkeys(("Total", "Succeeded"), pa.int64()),
    **dict.fromkeys(("Elapsed Seconds", "Process Seconds", "Run Method Seconds"), pa.float64()),
    **dict.fromkeys(("Status", "Mini-batch Detail"), pa.string()),
}


@dataclass(slots=True)
class _Read:
    """How far the report of one run was read."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    header: bytes = b""
    offset: int = 0
    timeline: Timeline = field(default_factory=Timeline)
    looked_at: float = float("-inf")
    report: RunReport | None = None


class RunReports:
    """The timelines of the runs that were looked at last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: OrderedDict[tuple[str, str], _Read] = OrderedDict()

    def of(self, job: Job) -> RunReport | None:
        """What the run of a job has reported by now; None when there is nothing, as of a command."""
        path = Path(job.folder) / REPORT if job.folder else None
        if path is None or not path.is_file():
            return None
        key = (str(path), str(job.queued_at))
        with self._lock:
            read = self._read.setdefault(key, _Read())
            self._read.move_to_end(key)
            if len(self._read) > KEPT:
                self._read.popitem(last=False)
        with read.lock:
            if job.status.is_finished or time.monotonic() - read.looked_at >= AGAIN_SECONDS:
                is_whole = _read_on(path, read)
                read.report = read.timeline.report(started_at=job.started_at, is_whole=is_whole)
                read.looked_at = time.monotonic()
            return read.report


def _read_on(path: Path, read: _Read) -> bool:
    """Add what the report holds beyond what was read; whether that is all by now."""
    left = MOST_AT_ONCE
    with path.open("rb") as file:
        if not read.header:
            header = file.readline()
            if not header.endswith(b"\n"):
                return True
            read.header, read.offset = header, len(header)
        file.seek(read.offset)
        rest = b""
        while left > 0 and (piece := file.read(PIECE)):
            left -= len(piece)
            whole, found, rest = (rest + piece).rpartition(END_OF_PART)
            if found:
                for attempts in _legible(read.header, whole + found):
                    read.timeline.add(attempts)
                read.offset += len(whole) + len(found)
        return left > 0


def _legible(header: bytes, lines: bytes) -> Iterator[Attempts]:
    """What the lines tell, without those that no reader understands: a run that was killed may have left one torn."""
    try:
        yield attempts_of(header + lines)
    except pa.ArrowInvalid:
        # Halved until the torn one is alone: an odd quote in it would hide the lines after it.
        middle = lines.find(END_OF_PART, len(lines) // 2) + len(END_OF_PART)
        if middle == len(lines):
            middle = lines.rfind(END_OF_PART, 0, len(lines) - 1) + len(END_OF_PART)
        if len(END_OF_PART) <= middle < len(lines):
            yield from _legible(header, lines[:middle])
            yield from _legible(header, lines[middle:])


def attempts_of(text: bytes) -> Attempts:
    """What the lines of a report tell of the tries of mini-batches, its header among them.

    Raises:
        pyarrow.ArrowInvalid: a line is torn.
    """
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(block_size=len(text) + 1),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=_TYPES, include_columns=list(_TYPES)),
    ).combine_chunks()
    process = table["Process"].combine_chunks()
    process = process.chunk(0) if isinstance(process, pa.ChunkedArray) else process
    spent, run, elapsed = (
        numbers(table[name]) for name in ("Process Seconds", "Run Method Seconds", "Elapsed Seconds")
    )
    reading = pc.struct_field(pc.extract_regex(table["Mini-batch Detail"], r'"read":(?P<read>[0-9.]+)'), "read")
    is_failed = numbers(pc.match_substring_regex(table["Status"], "^RUN_DONE$")) == 0
    # What became of a worker that was killed or died was not told by itself.
    is_unknown = is_failed & (spent == 0)
    ok = numbers(table["Succeeded"])
    return Attempts(
        workers=process.dictionary.to_pylist(),
        worker=numbers(process.indices).astype(np.int64),
        end=numbers(table["Process Start Time"].cast(pa.int64())) / 1e6 + elapsed,
        spent=np.where(is_unknown, elapsed, spent),
        run=np.where(is_unknown, elapsed, run),
        read=floats(reading, missing=0.0),
        ok=ok,
        failed=np.where(is_failed, numbers(table["Total"]) - ok, 0),
        is_failed=is_failed,
    )
