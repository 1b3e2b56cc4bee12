"""A plan's mini-batches → a small sample of them, spread over files and over places within files.

The real plan is drawn first, which counts the input, for a few seconds at most. Then pieces are taken from it at places
that the golden ratio gives: however many are taken, they lie evenly. The first pieces are tiny; they grow as long as
they are quick, up to whole mini-batches, so that a sample of a slow model stays short and that of a quick one tells
what a mini-batch really costs.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from time import monotonic

from batchpoint.scoring.estimate import TimedCall
from batchpoint.scoring.mini_batches import MiniBatch
from batchpoint.scoring.planning import Plan, shortened
from batchpoint.scoring.spec import SampleSpec, ScoringSpec

GOLDEN = 0.6180339887498949
CELLS = 64
"""Places that a small input is divided into at least, as far as it has items."""
QUICK = 0.05
"""Seconds of a call below which the next may be four times as large."""
SLOW = 0.25
"""Seconds that a call should not take, as long as more than one item is in it."""
LEAST_PIECES = 8
"""Pieces that are scored however slow they are, so that no verdict rests on one place."""
COUNTING_SECONDS = 5.0
"""Seconds after which what is left of the input is estimated, not counted."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of the whole input."""

    items: int
    mini_batches: int
    is_exact: bool
    how: str
    seconds: float
    """That planning all of it takes."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A place that a piece may be taken from."""

    mini_batch: MiniBatch
    start: int
    stop: int


class SampledPlan(Plan):
    """A plan that yields pieces, one for each worker at a time, until the sample is large enough."""

    def __init__(self, whole: Plan, spec: ScoringSpec, *, workers: int) -> None:
        """Sample ``whole``, which nobody else may draw from."""
        assert spec.sample is not None, "only such runs have a sample"
        super().__init__(whole.unit, whole.total_bytes, whole.schema, whole.skipped, whole.notices)
        self.counted: Counted | None = None
        self.calls: list[TimedCall] = []
        """Timed calls, the first of each worker left out."""
        self.first_calls: list[TimedCall] = []
        """Those: they also pay for what is done once, such as imports."""
        self._whole, self._spec, self._wanted, self._workers = whole, spec, spec.sample, workers
        self._changed = threading.Condition()
        self._in_flight = 0
        self._is_closed = False
        self._spent = 0.0
        self._warm: set[int] = set()
        self.mini_batches = self._pieces()

    def scored(self, worker: int, items: int, seconds: float) -> None:
        """A piece, or a part of one, was scored; failing parts come several times."""
        with self._changed:
            (self.calls if worker in self._warm else self.first_calls).append(TimedCall(items, seconds))
            self._spent += seconds if worker in self._warm else 0.0
            self._warm.add(worker)
            self._changed.notify()

    def committed(self) -> None:
        """All of a piece has its verdict."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    def close(self) -> None:
        """Yield nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _pieces(self) -> Iterator[MiniBatch]:
        mini_batches = self._count()
        cells = cells_of(mini_batches)
        sizes = Sizes(self._wanted, self._workers)
        taken = 0
        for index, cell in enumerate(spread(cells)):
            with self._changed:
                self._changed.wait_for(lambda: self._in_flight < self._workers or self._is_closed)
                last = self.calls[-1] if self.calls else None
                size = sizes.next(index, taken, self._spent / self._workers, last)
                self._in_flight += 1
            if size == 0 or self._is_closed:
                return
            piece = cut_out(cell, size, index, self._spec)
            taken += piece.items
            yield piece

    def _count(self) -> Sequence[MiniBatch]:
        began = monotonic()
        found: list[MiniBatch] = []
        is_whole = True
        for mini_batch in self._whole:
            found.append(mini_batch)
            if monotonic() - began > COUNTING_SECONDS:
                is_whole = False
                break
        seconds = monotonic() - began
        items = sum(mini_batch.items for mini_batch in found)
        self.planned_bytes = self._whole.planned_bytes
        if is_whole:
            self.counted = Counted(items, len(found), True, "counted", seconds)
            return found
        lengths = sum(piece.length for mini_batch in found for piece in mini_batch.slices)
        done = max(1, lengths or self._whole.planned_bytes)
        share = max(1.0, self._whole.total_bytes / done)
        how = (
            f"estimated from the {items:,} in the first {done:,} bytes of {self._whole.total_bytes:,}; "
            "the sample is from those too"
        )
        self.counted = Counted(round(items * share), round(len(found) * share), False, how, seconds * share)
        return found


class Sizes:
    """How many items the next piece has."""

    def __init__(self, wanted: SampleSpec, workers: int) -> None:
        """Begin with single items."""
        self._wanted, self._workers = wanted, workers
        self._size = 1

    def next(self, index: int, taken: int, spent: float, last: TimedCall | None) -> int:
        """Items of piece ``index``; 0 when the sample is large enough.

        Args:
            index: Number of the piece.
            taken: Items taken so far.
            spent: Seconds that each worker has scored.
            last: The latest timed call.
        """
        left = None if self._wanted.rows is None else self._wanted.rows - taken
        if (left is not None and left <= 0) or (spent >= self._wanted.seconds and index >= LEAST_PIECES):
            return 0
        if last is not None and last.seconds < QUICK:
            self._size = max(self._size, last.items * 4)
        elif last is not None and last.seconds > SLOW:
            self._size = max(1, min(self._size, int(last.items * SLOW / last.seconds)))
        # Every third is smaller: calls of one size would not tell what each call costs and what each item does.
        size = max(1, self._size // 4) if index % 3 == 2 else self._size
        if self._wanted.rows is not None:
            size = min(size, max(1, self._wanted.rows // LEAST_PIECES))
        return size if left is None else min(size, left)


def cells_of(mini_batches: Sequence[MiniBatch]) -> list[Cell]:
    """The places of a plan; mini-batches that share a key, and unreadable ones, are never divided."""
    each = max(1, -(-CELLS // max(1, len(mini_batches))))
    cells: list[Cell] = []
    for mini_batch in mini_batches:
        parts = 1 if _is_whole(mini_batch) else min(each, max(1, mini_batch.items))
        bounds = [mini_batch.items * at // parts for at in range(parts + 1)]
        cells += [Cell(mini_batch, start, stop) for start, stop in pairwise(bounds)]
    return cells


def spread(cells: Sequence[Cell]) -> Iterator[Cell]:
    """All cells once, in an order of which every beginning lies evenly over the items."""
    ends = list(accumulate(cell.stop - cell.start for cell in cells))
    total = ends[-1] if ends else 0
    left = dict.fromkeys(range(len(cells)))
    for number in range(len(cells)):
        place = (number + 1) * GOLDEN % 1 * total
        at = next((at for at in _around(_at(ends, place), len(cells)) if at in left), None)
        if at is None:
            return
        del left[at]
        yield cells[at]


def cut_out(cell: Cell, size: int, index: int, spec: ScoringSpec) -> MiniBatch:
    """A mini-batch of the first items of a cell."""
    whole = cell.mini_batch
    if _is_whole(whole):
        return replace(whole, index=index)
    stop = min(cell.stop, cell.start + size)
    if whole.unit == "files":
        return replace(whole, index=index, files=whole.files[cell.start : stop])
    slices, begin = [], 0
    for piece in whole.slices:
        first, last = max(cell.start, begin) - begin, min(stop, begin + piece.rows) - begin
        if first < last:
            slices.append(piece if last - first == piece.rows else shortened(piece, first, last, spec))
        begin += piece.rows
    return replace(whole, index=index, slices=tuple(slices))


def _is_whole(mini_batch: MiniBatch) -> bool:
    """Whether it is scored whole or not at all."""
    return bool(mini_batch.partition or mini_batch.spans or mini_batch.unreadable is not None)


def _at(ends: Sequence[int], place: float) -> int:
    return min(len(ends) - 1, bisect_right(ends, place))


def _around(middle: int, count: int) -> Iterator[int]:
    """All places, the nearest first."""
    yield middle
    for distance in range(1, count):
        if middle + distance < count:
            yield middle + distance
        if middle >= distance:
            yield middle - distance
