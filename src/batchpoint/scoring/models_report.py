"""One line for each key of a model map: what became of its rows. Made of the plan and of what is committed."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from batchpoint.scoring.ledger import Record
from batchpoint.scoring.mini_batches import KeySpan
from batchpoint.scoring.model_index import Key

NAME = "models_report.jsonl"
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass
class KeyReport:
    """What became of one key's rows so far."""

    key: Key
    model: str | None
    rows: int = 0
    """Scored."""
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    """Reading the model and predicting."""
    loads: int = 0
    message: str | None = field(default=None)
    """The first error, or why rows were left out."""


def key_reports(planned: Mapping[int, tuple[KeySpan, ...]], records: Iterable[Record]) -> list[KeyReport]:
    """A report for each key, in the order of the plan; only what is committed counts, once."""
    reports: dict[Key, KeyReport] = {}
    for _, spans in sorted(planned.items()):
        for span in spans:
            reports.setdefault(span.key, KeyReport(span.key, span.model.name if span.model else None))
    for record in records:
        spans = planned.get(record.mini_batch, ())
        if spans:
            _add(record, [reports[span.key] for span in spans], [span.rows for span in spans])
    return list(reports.values())


def write_models_report(folder: Path, reports: Iterable[KeyReport]) -> None:
    """Write ``models_report.jsonl`` into a run's folder, whole or not at all."""
    partial = folder / f"{NAME}.partial"
    with partial.open("w", encoding="utf-8") as file:
        for report in reports:
            line = {**vars(report), "key": dict(report.key), "seconds": round(report.seconds, 6)}
            file.write(_encode(line) + "\n")
    partial.replace(folder / NAME)


def _add(record: Record, reports: list[KeyReport], rows: list[int]) -> None:
    begins = [0, *accumulate(rows)]
    for report, count in zip(reports, rows, strict=True):
        report.rows += count

    def of(item: int) -> KeyReport:
        return reports[bisect_right(begins, item) - 1]

    for failure in record.failures:
        report = of(failure.item)
        report.failed += 1
        report.rows -= 1
        report.message = report.message or failure.error.message
    for models in (part.models for part in record.parts if part.models is not None):
        for use in models.uses:
            report = of(use.start)
            report.model = use.model or report.model
            report.seconds += use.seconds
            report.loads += use.loads
        for span in models.skipped:
            report = of(span.start)
            report.skipped += span.stop - span.start
            report.rows -= span.stop - span.start
            report.message = report.message or span.reason
