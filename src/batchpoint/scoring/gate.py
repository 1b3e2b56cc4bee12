"""What has to be true of a run before its output appears. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from batchpoint.entities.quality import ColumnQuality, FailedCheck, QualityOptions


def failed_checks(
    options: QualityOptions,
    columns: Sequence[ColumnQuality],
    *,
    items: int,
    failed: int,
    bears_unseen: bool = False,
) -> list[FailedCheck]:
    """The checks that do not pass, each with its column, figure and limit.

    Args:
        options: What has to be true.
        columns: What the columns hold.
        items: Of the run.
        failed: Those of them that failed.
        bears_unseen: Whether rows may be there that nobody looked at.
    """
    seen = [column.model_copy(update={"unseen": 0}) for column in columns] if bears_unseen else columns
    return [*_of_failures(options, items, failed), *_of_columns(options, seen), *_of_ranges(options, seen)]


def _of_failures(options: QualityOptions, items: int, failed: int) -> Iterator[FailedCheck]:
    limit = options.max_failure_rate
    if limit is not None and items and failed / items > limit:
        message = f"{failed / items:.2%} of the items failed ({failed:,} of {items:,}); the limit is {limit:.2%}"
        yield FailedCheck(check="max_failure_rate", found=failed / items, limit=limit, message=message)


def _of_columns(options: QualityOptions, columns: Sequence[ColumnQuality]) -> Iterator[FailedCheck]:
    drift, missing = options.max_drift, options.max_missing_change
    for column in columns:
        if column.name in options.ignored_columns:
            continue
        name = f"{column.side} column {column.name}"
        facts: dict[str, Any] = {"column": column.name, "side": column.side}
        if column.unseen and (drift is not None or missing is not None):
            check = "max_drift" if drift is not None else "max_missing_change"
            yield FailedCheck(check=check, message=_not_seen(column), **facts)
        if drift is not None and column.drifted > drift:
            message = f"{name} has drifted by {column.drifted:.4g}; the limit is {drift:g}"
            yield FailedCheck(check="max_drift", found=column.drifted, limit=drift, message=message, **facts)
        elif drift is not None and column.note is not None and column.note != "is new":
            message = f"{name} {column.note}, and cannot be compared; the limit of drift is {drift:g}"
            yield FailedCheck(check="max_drift", limit=drift, message=message, **facts)
        if missing is not None and column.note == "is gone":
            message = f"{name} is gone: nothing of it is there; the limit of a change of missing values is {missing:g}"
            yield FailedCheck(check="max_missing_change", limit=missing, message=message, **facts)
        change = column.missing_changed
        if missing is not None and change > missing:
            shares = f"{column.missing_share:.2%} of it is missing, before {column.missing_before or 0:.2%}"
            message = f"{name}: {shares}, a change of {change:.4g}; the limit is {missing:g}"
            yield FailedCheck(check="max_missing_change", found=change, limit=missing, message=message, **facts)


def _not_seen(column: ColumnQuality) -> str:
    of = f"{column.unseen:,} of its {column.rows + column.unseen:,} rows"
    return f"{column.side} column {column.name} could not be looked at in {of}"


def _of_ranges(options: QualityOptions, columns: Sequence[ColumnQuality]) -> Iterator[FailedCheck]:
    outputs = {column.name: column for column in columns if column.side == "output"}
    for name, allowed in options.output_ranges.items():
        column = outputs.get(name)
        facts: dict[str, Any] = {"check": "output_ranges", "column": name, "side": "output"}
        if column is None or not column.rows + column.unseen:
            message = f"output column {name} should be numbers within a range, and there is none"
            yield FailedCheck(**facts, message=message)
            continue
        if column.unseen:
            yield FailedCheck(**facts, message=_not_seen(column))
        if column.missing:
            message = f"output column {name}: {column.missing:,} of its {column.rows:,} values are missing"
            yield FailedCheck(**facts, message=message)
        if column.infinite:
            message = f"output column {name} holds {column.infinite:,} infinite numbers"
            yield FailedCheck(**facts, message=message)
        if column.least is None or column.most is None:
            if column.missing + column.infinite < column.rows:
                message = f"output column {name} should be numbers within a range, and it holds {column.kind}"
                yield FailedCheck(**facts, message=message)
            continue
        if allowed.least is not None and column.least < allowed.least:
            message = f"output column {name} goes down to {column.least:g}; the limit is {allowed.least:g}"
            yield FailedCheck(**facts, found=column.least, limit=allowed.least, message=message)
        if allowed.most is not None and column.most > allowed.most:
            message = f"output column {name} goes up to {column.most:g}; the limit is {allowed.most:g}"
            yield FailedCheck(**facts, found=column.most, limit=allowed.most, message=message)
