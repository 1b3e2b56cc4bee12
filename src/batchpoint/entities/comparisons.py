"""The comparison of a challenger with the champion, item by item, over the data of one job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchpoint.entities.base import Part

Value = bool | int | float | str | None


class Spread(Part):
    """How large differences are."""

    mean: float
    median: float
    """To a tenth of a percent."""
    largest: float


class Mover(Part):
    """One item whose two values differ."""

    file: str | None = None
    row: int | None = None
    champion: Value = None
    challenger: Value = None
    difference: float | None = None
    """Challenger minus champion, where both are numbers."""


class Confusion(Part):
    """How many rows have this pair of values."""

    champion: Value = None
    challenger: Value = None
    rows: int


class ColumnComparison(Part):
    """One column of the result, as both have it."""

    name: str
    challenger_name: str | None = None
    """Where the challenger calls it differently."""
    kind: Literal["numbers", "classes", "text"]
    agreement: float | None = None
    """Share of the compared rows that are equal; numbers to six digits. None when no row was compared."""
    missing_champion: int = 0
    """Rows in which only the challenger has a value."""
    missing_challenger: int = 0
    """Rows in which only the champion has one."""
    absolute: Spread | None = None
    """Of numbers: |challenger - champion|."""
    relative: Spread | None = None
    """Of numbers: the same divided by |champion|, where that is not zero."""
    correlation: float | None = None
    """Pearson's, of numbers that vary."""
    psi: float | None = None
    """Population stability index of the two distributions, by the champion's deciles or by class. By custom, under 0.1
    they are alike, and over 0.25 they are not."""
    confusion: list[Confusion] | None = None
    """Of few classes: how often each pair occurs, the most frequent first."""
    movers: list[Mover] = Field(default_factory=list)
    """The 20 rows that differ most; of classes and texts the first 20 that differ."""


class ChallengerFailure(Part):
    """Items of which the challenger made nothing."""

    file: str | None = None
    row: int | None = None
    """The first of them."""
    items: int
    exception: str
    message: str


class Comparison(Part):
    """What ``comparison.json`` holds."""

    job: str
    endpoint: str | None = None
    champion: str | None = None
    """Name of the deployment whose predictions are the job's output."""
    challenger: str
    """Name of the deployment that was compared with it."""
    unit: Literal["rows", "files"]
    """What items are."""
    items: int
    """Items for which the champion has a result."""
    items_asked: int
    """Items that the challenger was given: those of parts that the champion scored, as long as it was not off."""
    champion_failed: int
    """Items that failed; the challenger is not asked for them."""
    challenger_failed: int
    """Items that it was given and raised for, took too long for, crashed over, or returned nothing for."""
    rows_compared: int
    """Result rows of both that stand for the same item."""
    agreement: float | None = None
    """Share of the compared rows that agree in every column."""
    agreement_of_all: float
    """The same as a share of all results of the champion: what could not be compared does not agree."""
    champion_seconds_per_1000: float | None = None
    """Seconds that ``run()`` took for 1,000 items."""
    challenger_seconds_per_1000: float | None = None
    columns: list[ColumnComparison] = Field(default_factory=list)
    failures: list[ChallengerFailure] = Field(default_factory=list)
    """The challenger's first 20."""
    notices: list[str] = Field(default_factory=list)
    """Such as why the challenger was switched off."""
