"""What the columns of a job hold, for a person to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchpoint.entities.quality import ColumnQuality, Quality


def quality_lines(quality: Quality) -> list[str]:
    """A line for each column: what it holds, what is missing, how far it drifted."""
    against = f"compared with job {quality.reference}" if quality.reference else "no reference to compare with"
    rows = [("", "Column", "Holds", "Missing", "Drift", ""), *(_cells(column) for column in quality.columns)]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    return [f"Job {quality.job}: {quality.items:,} items, {against}", *(line.rstrip() for line in lines)]


def _cells(column: ColumnQuality) -> tuple[str, ...]:
    missing = f"{column.missing_share:.2%}"
    if column.missing_before is not None:
        missing += f" (before {column.missing_before:.2%})"
    drift = "-" if column.drift is None else f"{column.drift:.3f}"
    if column.drift and not column.drifted:
        drift += " (chance)"
    return column.side, column.name, _held(column), missing, drift, _note(column)


def _note(column: ColumnQuality) -> str:
    unseen = f"{column.unseen:,} rows not looked at" if column.unseen else ""
    return ", ".join(filter(None, (column.note, unseen)))


def _held(column: ColumnQuality) -> str:
    if column.mean is not None and column.deviation is not None:
        return f"{column.least:.6g} to {column.most:.6g}, mean {column.mean:.6g} ± {column.deviation:.3g}"
    if column.top:
        shown = ", ".join(f"{one.value} {one.rows:,}" for one in column.top[:3])
        return f"{column.distinct:,} different: {shown}"
    return column.kind if column.rows > column.missing else "nothing"
