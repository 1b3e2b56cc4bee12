"""What the columns of a job's input and predictions hold, and how far that is from what they held before."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from batchpoint.entities.base import Part

Side = Literal["input", "output"]


class ValueRange(Part):
    """What numbers may be."""

    least: float | None = None
    most: float | None = None


class QualityOptions(Part):
    """Whether a deployment's jobs look at what their columns hold, and what has to be true before output appears."""

    sketches: bool | None = None
    """Whether each mini-batch is sketched while it is scored. None: where ``run()`` is given rows, not paths, in
    mini-batches that are not small (split by ``partition_keys``, or into fewer than 5,000 rows each); and where a check
    needs it."""
    reference: str | None = None
    """The job that others are compared with. None: the first that saw columns, completed with the same model, and was
    not withdrawn."""
    max_drift: float | None = Field(default=None, ge=0)
    """The drift of a column, more than chance, above which nothing is published. 0.25 is much."""
    max_missing_change: float | None = Field(default=None, ge=0, le=1)
    """By how much, more than chance, the share of missing values of a column may differ from the reference's."""
    ignored_columns: list[str] = Field(default_factory=list)
    """Columns that change all the time, as numbers of orders and times do: neither check looks at them."""
    max_failure_rate: float | None = Field(default=None, ge=0, le=1)
    """The share of the items that may fail."""
    output_ranges: dict[str, ValueRange] = Field(default_factory=dict)
    """What the numbers of columns of the predictions may be: ``{price: {least: 0, most: 500}}``."""
    canary_percent: float | None = Field(default=None, gt=0, lt=100)
    """Percent of the mini-batches, spread evenly, that are scored and checked before the others are scored."""

    @property
    def checks_changes(self) -> bool:
        """Whether a check needs a reference."""
        return self.max_drift is not None or self.max_missing_change is not None

    @property
    def checks_columns(self) -> bool:
        """Whether a check needs the sketches of columns."""
        return bool(self.output_ranges) or self.checks_changes

    @property
    def has_checks(self) -> bool:
        """Whether there is anything that has to be true."""
        return self.checks_columns or self.max_failure_rate is not None

    @model_validator(mode="after")
    def _checks_have_sketches(self) -> QualityOptions:
        if self.sketches is False and self.checks_columns:
            raise ValueError("checks of columns need sketches: leave sketches: false out")
        return self


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
    unseen: int = 0
    """Rows beside these whose values could not be looked at, or whose mini-batch has no such column."""
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
    bucket_count: int = 0
    """Of texts: how many buckets their hashes sort them into."""
    buckets: list[int] = Field(default_factory=list)
    """Of texts: the buckets that any of them fell into."""
    shares: list[float] = Field(default_factory=list)
    """Of numbers: the share in each of the intervals that end at ``cuts``, and in the one behind; of texts: the share
    in each of ``buckets``."""

    @property
    def missing_share(self) -> float:
        """Missing values among all."""
        return self.missing / self.rows if self.rows else 0.0


class ColumnQuality(ColumnProfile):
    """One column, and how far it is from what the reference held."""

    drift: float | None = None
    """Population stability index: 0 is no change; under 0.1 is little, over 0.25 much. None: nothing to compare."""
    chance: float | None = None
    """What the drift of so few rows stays below by chance alone, in 999 of 1,000 columns that did not change."""
    missing_before: float | None = None
    """Share of missing values in the reference."""
    missing_change: float | None = None
    """By how much the share of missing values differs from it, whichever way."""
    missing_chance: float | None = None
    """What that difference of so few rows stays below by chance alone, in 998 of 1,000 columns that did not change."""
    note: str | None = None
    """What keeps the column from being compared: it is new, gone, of another kind, or its reference is an old one."""

    @property
    def drifted(self) -> float:
        """The drift that is more than chance."""
        return self.drift if self.drift is not None and self.drift > (self.chance or 0.0) else 0.0

    @property
    def missing_changed(self) -> float:
        """The change of the share of missing values that is more than chance."""
        change = self.missing_change or 0.0
        return change if change > (self.missing_chance or 0.0) else 0.0


class FailedCheck(Part):
    """A check that did not pass."""

    check: str
    """Its key in the deployment's ``quality``."""
    side: Side | None = None
    column: str | None = None
    found: float | None = None
    """The figure; None where there is none to be compared."""
    limit: float | None = None
    message: str


class Quality(Part):
    """What the columns of a job hold, and how far they are from those of the deployment's reference."""

    job: str
    reference: str | None = None
    """The job that it is compared with; None: there is none, and this one may become it."""
    items: int
    """Items whose columns were looked at: those that succeeded."""
    columns: list[ColumnQuality]
    """Of the input first, then of the predictions; at the end what the reference had, and this job has not."""
    left_out: int = 0
    """Columns that were not looked at: those beyond the first 256 of a table that no check names."""
    canary_percent: float | None = None
    """The share of the mini-batches that this is about, where the others were not scored any more."""
    failed_checks: list[FailedCheck] = Field(default_factory=list)
    """What kept the output from being published."""


class QualitySummary(Part):
    """The greatest changes among a job's columns."""

    columns: int = 0
    """How many columns had rows that were looked at: without any the job is no reference."""
    reference: str | None = None
    drift: float | None = None
    """The greatest drift that is more than chance; None when nothing was compared."""
    drift_column: str | None = None
    missing_change: float | None = None
    """The greatest change of a share of missing values that is more than chance."""
    missing_column: str | None = None


def summary(quality: Quality) -> QualitySummary:
    """What a job's record keeps of its quality."""
    seen = sum(column.rows > 0 for column in quality.columns)
    if quality.reference is None:
        return QualitySummary(columns=seen)
    drifts = [column for column in quality.columns if column.drift is not None]
    gaps = [column for column in quality.columns if column.missing_change is not None]
    most = max(drifts, key=lambda column: column.drifted, default=None)
    gap = max(gaps, key=lambda column: column.missing_changed, default=None)
    return QualitySummary(
        columns=seen,
        reference=quality.reference,
        drift=most.drifted if most else None,
        drift_column=f"{most.side} {most.name}" if most else None,
        missing_change=gap.missing_changed if gap else None,
        missing_column=f"{gap.side} {gap.name}" if gap else None,
    )
