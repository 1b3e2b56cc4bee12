"""Ledger and segments → what the columns of a run hold, as ``quality.json`` in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from batchpoint.entities.quality import Quality
from batchpoint.scoring.drift import compared
from batchpoint.scoring.gate import failed_checks
from batchpoint.scoring.ledger import Record
from batchpoint.scoring.profile import Looked, Profiles
from batchpoint.scoring.publication import write_synced
from batchpoint.scoring.spec import ScoringSpec

NAME, REFERENCE = "quality.json", "reference.json"
"""Files of the run's folder: what its columns hold, and what those of the reference held."""


class QualityLook:
    """Adds up what a run's mini-batches hold while it goes on, in a thread of its own: little is left for its end.

    They are added in the order of the input, each as soon as those before it are there, so that the sums do not depend
    on which of them was done first.
    """

    def __init__(self, spec: ScoringSpec, folder: Path) -> None:
        """Nothing was looked at yet."""
        self._spec, self._folder = spec, folder
        self._profiles = Profiles(folder / "segments")
        self._waiting: dict[int, Record] = {}
        self._next = 0
        self._error: Exception | None = None
        self._is_closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quality")

    def note(self, record: Record) -> None:
        """Take in a committed mini-batch when its turn comes."""
        self._thread.submit(self._take, record)

    def finish(self, records: Sequence[Record]) -> Future[Quality]:
        """Take in what is left of all committed mini-batches, in order; what ``write_quality`` answers, in a moment."""
        promised = self._thread.submit(self._finish, records)
        self._thread.shutdown(wait=False)
        return promised

    def close(self) -> None:
        """End it early: what was not looked at by now is not, and nothing is written."""
        self._is_closed = True
        self._thread.shutdown(cancel_futures=True)
        self._profiles.close()

    def _take(self, record: Record) -> None:
        self._waiting[record.mini_batch] = record
        try:
            while self._error is None and not self._is_closed and self._next in self._waiting:
                self._profiles.add(self._waiting.pop(self._next))
                self._next += 1
        except Exception as error:  # noqa: BLE001 -- whatever it is, the end of the run has to hear it
            self._error = error

    def _finish(self, records: Sequence[Record]) -> Quality:
        if self._error is not None:
            raise self._error
        with closing(self._profiles):
            for record in records:
                if self._is_closed:
                    raise CancelledError(f"What the columns of job {self._spec.job} hold is not wanted any more.")
                if record.mini_batch >= self._next:
                    self._profiles.add(record)
        return _write(self._spec, self._folder, records, self._profiles.looked(), canary_percent=None)


def write_quality(spec: ScoringSpec, folder: Path, records: Sequence[Record], *, canary_percent: float) -> Quality:
    """Add the sketches of the mini-batches up that went first, which are ``canary_percent`` of all; write and answer.

    Raises:
        OutputError: a segment is shorter than the ledger says.
        OSError: a file cannot be read or written.
        ValueError: the reference is none.
    """
    with closing(Profiles(folder / "segments")) as profiles:
        for record in sorted(records, key=lambda record: record.mini_batch):
            profiles.add(record)
        return _write(spec, folder, records, profiles.looked(), canary_percent=canary_percent)


def _write(
    spec: ScoringSpec, folder: Path, records: Sequence[Record], looked: Looked, *, canary_percent: float | None
) -> Quality:
    """Compare columns with those of the reference, and check them."""
    before = folder / REFERENCE
    reference = Quality.model_validate_json(before.read_bytes()) if before.exists() else None
    columns = compared(looked.columns, reference.columns if reference else None)
    scored, failed = (sum(getattr(record, name) for record in records) for name in ("items", "failed"))
    found = Quality(
        job=spec.job,
        reference=reference.job if reference else None,
        items=looked.items,
        columns=columns,
        left_out=looked.left_out,
        canary_percent=canary_percent,
        failed_checks=failed_checks(
            spec.quality, columns, items=scored, failed=failed, bears_unseen=spec.keeps_checked
        ),
    )
    write_synced(folder / NAME, f"{found.model_dump_json(indent=1)}\n".encode())
    return found
