"""A comparison of champion and challenger, for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchpoint.entities.comparisons import ColumnComparison, Comparison

SHOWN_PAIRS = 10
"""Pairs of classes that are shown; all of them are in the json."""


def comparison_lines(comparison: Comparison) -> list[str]:
    """What was compared, how far both agree, then each column, then what failed."""
    unit = comparison.unit
    agreement = f"{_percent(comparison.agreement)} of those compared, {_percent(comparison.agreement_of_all)} of all"
    failed = f"champion {comparison.champion_failed:,}, challenger {comparison.challenger_failed:,}"
    champion, challenger = comparison.champion_seconds_per_1000, comparison.challenger_seconds_per_1000
    lines = [
        f"Champion {comparison.champion}, challenger {comparison.challenger}",
        f"  compared     {comparison.rows_compared:,} rows of {comparison.items:,} {unit} that the champion scored",
        f"  agreement    {agreement}",
        f"  failed       {failed} of {comparison.items_asked:,} that it was asked for",
        f"  s per 1,000  champion {_number(champion)}, challenger {_number(challenger)}",
    ]
    for column in comparison.columns:
        lines += _column_lines(column)
    for failure in comparison.failures:
        place = failure.file or "?"
        row = "" if failure.row is None else f", row {failure.row}"
        lines.append(f"  failed: {place}{row} ({failure.items} {unit}): {failure.exception}: {failure.message}")
    return lines + [f"Notice: {notice}" for notice in comparison.notices]


def _column_lines(column: ColumnComparison) -> Iterator[str]:
    other = f" (challenger: {column.challenger_name})" if column.challenger_name else ""
    yield f"Column {column.name}{other}, {column.kind}"
    yield f"  agreement    {_percent(column.agreement)}"
    for name, spread in (("absolute", column.absolute), ("relative", column.relative)):
        if spread is not None:
            numbers = ", ".join(f"{key} {_number(value)}" for key, value in spread.model_dump().items())
            yield f"  {name:<12} {numbers}"
    if column.correlation is not None:
        yield f"  correlation  {column.correlation:.6f}"
    if column.psi is not None:
        yield f"  psi          {column.psi:.4f}"
    if column.missing_champion or column.missing_challenger:
        yield f"  missing      champion {column.missing_champion:,}, challenger {column.missing_challenger:,}"
    for pair in (column.confusion or [])[:SHOWN_PAIRS]:
        yield f"  {_value(pair.champion)} -> {_value(pair.challenger)}: {pair.rows:,}"
    if column.movers:
        yield "  biggest movers"
    for mover in column.movers:
        row = "" if mover.row is None else f", row {mover.row}"
        by = "" if mover.difference is None else f"  ({mover.difference:+.6g})"
        yield f"    {mover.file}{row}: {_value(mover.champion)} -> {_value(mover.challenger)}{by}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _value(value: Any) -> str:
    return "missing" if value is None else str(value)
