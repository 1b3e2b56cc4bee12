"""What became of the keys of a part, where each key has a model of its own: as a worker tells it, and as it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from batchpoint.scoring.mini_batches import ErrorInfo


class Use(NamedTuple):
    """One model, used for the items ``start`` to ``stop`` of a mini-batch."""

    start: int
    stop: int
    model: str | None
    """Name of the model; None where there was none."""
    seconds: float
    """Reading and predicting."""
    loads: int


class Skipped(NamedTuple):
    """Items left out on purpose, and why."""

    start: int
    stop: int
    reason: str


class FailedItems(NamedTuple):
    """Items that failed for good because of their model."""

    start: int
    stop: int
    error: ErrorInfo
    key: dict[str, object]


@dataclass(frozen=True, slots=True)
class ModelOutcomes:
    """What became of the keys of a part. Positions are those of the whole mini-batch."""

    uses: tuple[Use, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    failed: tuple[FailedItems, ...] = ()
    """Empty once they are failed items of the ledger."""

    @property
    def skipped_items(self) -> int:
        """How many items were left out."""
        return sum(span.stop - span.start for span in self.skipped)

    def kept(self) -> dict[str, Any]:
        """What the ledger keeps, as JSON."""
        return {"uses": self.uses, "skipped": self.skipped}


def read_outcomes(told: Mapping[str, Any] | None) -> ModelOutcomes | None:
    """What a worker told, or the ledger kept."""
    if told is None:
        return None
    failed = [
        FailedItems(start, stop, ErrorInfo(**error), dict(key)) for start, stop, error, key in told.get("failed", ())
    ]
    return ModelOutcomes(
        tuple(Use(*use) for use in told["uses"]), tuple(Skipped(*span) for span in told["skipped"]), tuple(failed)
    )
