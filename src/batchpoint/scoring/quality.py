"""Ledger and segments → what the columns of a run hold, as ``quality.json`` in its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from batchpoint.entities.quality import Quality
from batchpoint.scoring.ledger import Record
from batchpoint.scoring.profile import columns_of
from batchpoint.scoring.publication import write_synced
from batchpoint.scoring.spec import ScoringSpec

NAME = "quality.json"
"""File of the run's folder."""


def write_quality(spec: ScoringSpec, folder: Path, records: Iterable[Record]) -> Quality:
    """Add the sketches of all parts up, write what they tell, and answer with it.

    Raises:
        OutputError: a segment is shorter than the ledger says.
        OSError: the file cannot be written.
    """
    items, columns = columns_of(records, folder / "segments")
    found = Quality(job=spec.job, items=items, columns=[column.result() for column in columns])
    write_synced(folder / NAME, f"{found.model_dump_json(indent=1)}\n".encode())
    return found
