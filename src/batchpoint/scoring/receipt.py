"""The receipt: what was planned against what became of it. A check of the run, not a sum of its own counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from batchpoint.entities.jobs import FileReceipt, Receipt
from batchpoint.scoring.ledger import Record


def make_receipt(
    job: str,
    unit: Literal["rows", "files"],
    records: Iterable[Record],
    *,
    planned: Mapping[str, int],
    skipped: Sequence[FileReceipt],
    rows_written: int,
    key_files: Mapping[str, int] | None = None,
) -> Receipt:
    """Reconcile the ledger with the plan.

    Args:
        job: Name of the job.
        unit: What items are.
        records: The committed mini-batches.
        planned: Items of each input file, as they were counted when the input was planned.
        skipped: Files that were left out on purpose.
        rows_written: Rows that the output holds, as counted where it was written.
        key_files: Rows of the file of each key, for a job that writes them.

    Returns:
        The receipt; ``balanced`` is false when for any file the planned items are not all ok or failed, when a
        mini-batch was committed twice or contradicts its own parts, or when rows were lost or written twice.
    """
    items, ok, failed, parts_rows = Counter[str](), Counter[str](), Counter[str](), 0
    reasons: dict[str, str] = {}
    consistent = True
    seen: set[int] = set()
    for record in records:
        consistent &= record.mini_batch not in seen and _adds_up(record)
        seen.add(record.mini_batch)
        parts_rows += sum(part.rows for part in record.parts)
        for file, (file_items, file_ok, file_failed) in record.files.items():
            items[file] += file_items
            ok[file] += file_ok
            failed[file] += file_failed
        reasons.update(dict.fromkeys(record.files, _why_skipped(record) or "") if record.skipped else {})
    names = list(dict.fromkeys([*planned, *items]))
    files = [
        FileReceipt(
            file=name,
            items=planned.get(name, 0),
            ok=ok[name],
            failed=failed[name],
            skipped=(rows := items[name] - ok[name] - failed[name]),
            reason=reasons.get(name) if rows else None,
        )
        for name in names
    ]
    consistent &= all(file.items == items[file.file] and file.skipped >= 0 for file in files)
    if key_files:
        consistent &= sum(key_files.values()) == rows_written
    left_out = sum(max(file.skipped, file.items) for file in skipped)
    return Receipt(
        job=job,
        unit=unit,
        items=sum(planned.values()) + left_out,
        ok=ok.total(),
        failed=failed.total(),
        skipped=left_out + sum(file.skipped for file in files),
        output_rows=rows_written,
        balanced=consistent and rows_written == parts_rows,
        files=[*files, *skipped],
        key_files=dict(key_files or {}),
    )


def _why_skipped(record: Record) -> str | None:
    return next((span.reason for part in record.parts if part.models for span in part.models.skipped), None)


def _adds_up(record: Record) -> bool:
    by_file = [sum(counts) for counts in zip(*record.files.values(), strict=True)] or [0, 0, 0]
    return (
        record.items == record.ok + record.failed + record.skipped
        and by_file == [record.items, record.ok, record.failed]
        and sum(part.ok for part in record.parts) == record.ok
    )
