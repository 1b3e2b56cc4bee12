"""What became of each model of a model map: in one job, and over all jobs of a deployment."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from batchpoint.entities.base import Part


class ModelReport(Part):
    """What one key's model did in one job: a line of ``models_report.jsonl``."""

    model_config = ConfigDict(extra="ignore")

    key: dict[str, str | None]
    """The values of the partition keys as text."""
    model: str | None = None
    """``name:version``, or the model's file; None when the key has none."""
    rows: int = Field(default=0, ge=0)
    """Rows that were predicted."""
    failed: int = Field(default=0, ge=0)
    skipped: int = Field(default=0, ge=0)
    """Rows that were left out because the key has no model (``on_missing: skip``)."""
    seconds: float = 0.0
    """Time spent in loading and predicting."""
    loads: int = 0
    """How often a worker loaded the model."""
    message: str | None = None
    """Why rows failed or were skipped."""


class ScoredModel(Part):
    """One key's line on the board of a deployment."""

    key: dict[str, str | None]
    model: str | None = None
    """The model that scored the key last."""
    rows: int
    """Rows that were predicted, of all jobs."""
    failed: int
    """Of all jobs."""
    seconds: float
    """Of all jobs."""
    last_seen_at: datetime
    last_job_name: str
    message: str | None = None
    """Why rows failed or were skipped the last time; None when all went well."""
