"""Ledger and segments → what the columns of a run hold, as ``quality.json`` in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchpoint.entities.quality import Quality
from batchpoint.scoring.drift import compared
from batchpoint.scoring.gate import failed_checks
from batchpoint.scoring.ledger import Record
from batchpoint.scoring.profile import columns_of
from batchpoint.scoring.publication import write_synced
from batchpoint.scoring.spec import ScoringSpec

NAME, REFERENCE = "quality.json", "reference.json"
"""Files of the run's folder: what its columns hold, and what those of the reference held."""


def write_quality(
    spec: ScoringSpec, folder: Path, records: Sequence[Record], *, canary_percent: float | None = None
) -> Quality:
    """Add the sketches of all parts up, compare them with the reference, check them, write and answer what they tell.

    ``canary_percent`` is the share of the mini-batches that these records are, where it is not all.

    Raises:
        OutputError: a segment is shorter than the ledger says.
        OSError: a file cannot be read or written.
        ValueError: the reference is none.
    """
    before = folder / REFERENCE
    reference = Quality.model_validate_json(before.read_bytes()) if before.exists() else None
    looked = columns_of(records, folder / "segments")
    columns = compared(looked.columns, reference.columns if reference else None)
    scored, failed = (sum(getattr(record, name) for record in records) for name in ("items", "failed"))
    found = Quality(
        job=spec.job,
        reference=reference.job if reference else None,
        items=looked.items,
        columns=columns,
        left_out=looked.left_out,
        canary_percent=canary_percent,
        failed_checks=failed_checks(spec.quality, columns, items=scored, failed=failed),
    )
    write_synced(folder / NAME, f"{found.model_dump_json(indent=1)}\n".encode())
    return found
