"""From a few timed calls to the whole job: pure.

A call takes ``fixed`` seconds and ``per_item`` seconds for each of its items, fitted by least squares to calls of
different sizes. The whole takes the start, then the larger of planning and of all calls divided by the workers, then
the writing of the output: only the middle becomes shorter with more workers (Amdahl's law).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

from batchpoint.entities.forecasts import Deadline, Range

Z95 = 1.959963984540054
"""Standard deviations within which 95 % of a normal distribution lie."""
UNSEEN = 0.3
"""Share by which the time of a job may differ for reasons that no sample shows: other load, caches, a colder start."""
BEYOND = 0.1
"""The same for each doubling from the largest call of the sample to a whole mini-batch."""
MOST_WORKERS = 4096


@dataclass(frozen=True, slots=True)
class TimedCall:
    """One ``run()`` of the sample, with reading and writing."""

    items: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What calls cost."""

    fixed: float
    per_item: float
    deviation: float
    """How far a call is from this fit, relative to it: the median, as a standard deviation."""
    largest: int = 0
    """Items of the largest call that it rests on."""

    def call(self, items: float) -> float:
        """Seconds of a call with so many items."""
        return self.fixed + self.per_item * items


@dataclass(frozen=True, slots=True)
class Work:
    """What a whole job consists of, times in seconds."""

    items: int
    mini_batches: int
    startup: float
    planning: float
    writing: float
    fit: Fit
    calls: int
    """Calls that the fit rests on."""

    def seconds(self, workers: int) -> Range:
        """How long it takes with so many workers."""
        used = max(1, min(workers, self.mini_batches))
        whole = self.fit.call(self.items / max(1, self.mini_batches)) * self.mini_batches
        # The last mini-batch is waited for while the other workers have nothing left: half of one, on average.
        tail = whole / max(1, self.mini_batches) * (used - 1) / used / 2
        middle = max(self.planning, whole / used + tail)
        estimate = self.startup + middle + self.writing
        size = self.items / max(1, self.mini_batches)
        beyond = math.log2(max(1.0, size / max(1, self.fit.largest))) if self.fit.largest else 0.0
        doubt = UNSEEN + Z95 * self.fit.deviation / math.sqrt(max(1, self.calls)) + BEYOND * beyond
        low = self.startup / 2 + (middle + self.writing) / (1 + doubt)
        return Range(estimate=estimate, low=low, high=self.startup * 1.5 + (middle + self.writing) * (1 + doubt))

    def workers_for(self, seconds: float) -> int | None:
        """The fewest workers whose upper estimate is within this time; None when no number is."""
        most = max(1, min(MOST_WORKERS, self.mini_batches))
        if self.seconds(most).high > seconds:
            return None
        low, high = 1, most
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.seconds(middle).high <= seconds else (middle + 1, high)
        return low


def fitted(calls: Sequence[TimedCall]) -> Fit:
    """The fit of some calls; weights are such that the relative errors count. Neither part is ever negative."""
    if not calls:
        return Fit(0.0, 0.0, 1.0)
    weights = [1 / max(call.seconds, 1e-6) ** 2 for call in calls]
    total = sum(weights)
    mean_items = sum(w * call.items for w, call in zip(weights, calls, strict=True)) / total
    mean_seconds = sum(w * call.seconds for w, call in zip(weights, calls, strict=True)) / total
    spread = sum(w * (call.items - mean_items) ** 2 for w, call in zip(weights, calls, strict=True))
    common = sum(
        w * (call.items - mean_items) * (call.seconds - mean_seconds) for w, call in zip(weights, calls, strict=True)
    )
    per_item = max(0.0, common / spread) if spread > 0 else mean_seconds / max(mean_items, 1)
    fixed = mean_seconds - per_item * mean_items
    if fixed < 0:  # a line through the origin instead
        fixed, per_item = 0.0, sum(call.seconds for call in calls) / max(1, sum(call.items for call in calls))
    errors = [abs(call.seconds / max(fixed + per_item * call.items, 1e-9) - 1) for call in calls]
    return Fit(fixed, per_item, 1.4826 * median(errors), max(call.items for call in calls))


def warm_up(first_calls: Sequence[TimedCall], fit: Fit) -> float:
    """Seconds that a worker's first call takes beyond what calls cost."""
    return max(0.0, median([call.seconds - fit.call(call.items) for call in first_calls] or [0.0]))


def deadline_of(work: Work, workers: int, finish_by: datetime, now: datetime) -> Deadline:
    """Whether work that is begun now is done by a time; a time without a zone is UTC."""
    if finish_by.tzinfo is None:
        finish_by = finish_by.replace(tzinfo=UTC)
    found = work.seconds(workers)
    latest = now + timedelta(seconds=found.high)
    return Deadline(
        finish_by=finish_by,
        expected_at=now + timedelta(seconds=found.estimate),
        latest_at=latest,
        is_late=latest > finish_by,
        workers_needed=work.workers_for((finish_by - now).total_seconds()),
    )


def wilson(failed: int, tried: int) -> Range:
    """A share with its 95 % interval, which stays sound for few tries and for shares near 0 and 1."""
    if tried == 0:
        return Range(estimate=0.0, low=0.0, high=1.0)
    share, square = failed / tried, Z95**2
    middle = (share + square / (2 * tried)) / (1 + square / tried)
    half = Z95 / (1 + square / tried) * math.sqrt(share * (1 - share) / tried + square / (4 * tried**2))
    low = 0.0 if failed == 0 else max(0.0, middle - half)
    return Range(estimate=share, low=low, high=1.0 if failed == tried else min(1.0, middle + half))


def threshold_words(
    rate: Range, *, items: int, mini_batches: int, item_limit: int, mini_batch_limit: int, percent_limit: float
) -> list[str]:
    """Which thresholds would be exceeded, or might be. A limit of -1, or of 100 %, allows anything.

    That a mini-batch holds a failing item is reckoned as if failing items were spread evenly, which they often are not.
    """
    found = []
    if item_limit >= 0:
        found.append(_verdict(rate, items, item_limit, f"error_threshold {item_limit}", "items"))
    size = items / max(1, mini_batches)
    touched = Range(**{key: 1 - (1 - value) ** size for key, value in rate.model_dump().items()})
    if mini_batch_limit >= 0:
        name = f"mini_batch_error_threshold {mini_batch_limit}"
        found.append(_verdict(touched, mini_batches, mini_batch_limit, name, "mini-batches"))
    if percent_limit < 100:
        limit = percent_limit / 100 * mini_batches
        name = f"allowed_failed_percent {percent_limit:g}"
        found.append(_verdict(touched, mini_batches, limit, name, "mini-batches"))
    return [words for words in found if words]


def _verdict(rate: Range, count: int, limit: float, name: str, what: str) -> str:
    low, middle, high = (getattr(rate, key) * count for key in ("low", "estimate", "high"))
    if low > limit:
        return f"{name} would be exceeded: about {middle:,.0f} of {count:,} {what} would fail."
    if high > limit:
        return f"{name} might be exceeded: {low:,.0f} to {high:,.0f} of {count:,} {what} would fail."
    return ""
