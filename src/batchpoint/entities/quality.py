"""What the columns of a job's input and predictions hold, and how far that is from what they held before."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchpoint.entities.base import Part

Side = Literal["input", "output"]


class QualityOptions(Part):
    """Whether a deployment's jobs look at what their columns hold."""

    sketches: bool | None = None
    """Whether each mini-batch is sketched while it is scored. None: where ``run()`` is given rows, not paths."""


class TextCount(Part):
    """How often one text occurs, about."""

    value: str
    rows: int


class ColumnProfile(Part):
    """One column, over all rows that were scored."""

    side: Side
    name: str
    kind: Literal["numbers", "texts", "truths", "others"]
    """``others``: times, nested values, or different kinds in different mini-batches; only counted."""
    rows: int
    missing: int
    looked_at: int = 0
    """Rows of the sample that quantiles, shares and texts are told from."""
    infinite: int = 0
    least: float | None = None
    most: float | None = None
    mean: float | None = None
    deviation: float | None = None
    """Standard deviation of the finite numbers."""
    quantiles: dict[str, float] = Field(default_factory=dict)
    """Of numbers: ``p05``, ``p25``, ``p50``, ``p75`` and ``p95``, from a sample, to a tenth of a percent."""
    distinct: int | None = None
    """Of texts: about how many different ones there are among the rows that were looked at."""
    top: list[TextCount] = Field(default_factory=list)
    """Of texts: the most frequent."""
    cuts: list[int] = Field(default_factory=list)
    """Of numbers: the bins at which tenths of them end, by the leading bits of a double."""
    shares: list[float] = Field(default_factory=list)
    """Of numbers: the share in each of the intervals that end at ``cuts``, and in the one behind."""

    @property
    def missing_share(self) -> float:
        """Missing values among all."""
        return self.missing / self.rows if self.rows else 0.0


class Quality(Part):
    """What the columns of a job hold."""

    job: str
    items: int
    """Items whose columns were looked at: those that succeeded."""
    columns: list[ColumnProfile]
    """Of the input first, then of the predictions."""
