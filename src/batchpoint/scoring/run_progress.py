"""How far a run is, in numbers: counts and plan → ``Progress`` (pure)."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

from batchpoint.entities.jobs import Progress
from batchpoint.scoring.state_machine import Counts


def progress_of(
    counts: Counts, plan: Any, *, rate: float | None, workers: int, phase: str, heartbeat_at: datetime
) -> Progress:
    """What ``progress.json`` tells. ``plan`` is None until there is one, ``rate`` until it is known."""
    done = done_items(counts)
    fraction = _fraction(counts.planned_items, done, plan, planned_all=counts.planned_all)
    left = None
    if rate and fraction:
        total = counts.planned_items if counts.planned_all else done / fraction
        left = max(0.0, (total - done) / rate)
    return Progress(
        unit=plan.unit if plan is not None else "files",
        planned_items=counts.planned_items,
        planned_all=counts.planned_all,
        ok=counts.ok,
        kept=counts.kept,
        failed=counts.failed,
        skipped=len(plan.skipped) if plan is not None else 0,
        mini_batches_planned=counts.mini_batches_planned,
        mini_batches_done=counts.mini_batches_done,
        mini_batches_kept=counts.mini_batches_kept,
        mini_batches_failed=counts.mini_batches_failed,
        workers=workers,
        worker_losses=counts.worker_losses,
        timeouts=counts.timeouts,
        items_per_second=rate,
        seconds_left=left,
        fraction=fraction,
        phase=phase,
        heartbeat_at=heartbeat_at,
    )


def done_items(counts: Counts) -> int:
    """Items with a verdict, and those that a model map leaves out."""
    return counts.ok + counts.failed + counts.skipped


class Rate:
    """Items per second over the last half minute."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._seen: deque[tuple[float, int]] = deque(maxlen=60)

    def of(self, now: float, done: int) -> float | None:
        """Note how many items are done now; the rate, once there is one."""
        if not self._seen or self._seen[0][1] == done:
            self._seen.clear()  # the clock starts with the first finished item, not with the start of the workers
        self._seen.append((now, done))
        (then, before) = self._seen[0]
        return (done - before) / (now - then) if now > then and done > before else None


def _fraction(planned_items: int, done: int, plan: Any, *, planned_all: bool) -> float | None:
    """Done part of the input; by bytes while the plan still grows."""
    if not planned_items:
        return None
    fraction = done / planned_items
    if planned_all:
        return fraction
    if plan is None or not plan.total_bytes:
        return None
    return float(min(1.0, fraction * plan.planned_bytes / plan.total_bytes))
