"""The share of a run that is scored and checked before the rest of it is scored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from batchpoint.scoring.mini_batches import MiniBatch


class CanaryPlan:
    """A plan whose mini-batches come in two lots: a share of them, spread evenly, then the others, once released.

    The others are held in memory meanwhile: their names and offsets, not their rows. What else is asked of it the plan
    itself answers.
    """

    def __init__(self, whole: Any, percent: float) -> None:
        """Let ``percent`` of the mini-batches of ``whole`` go first, at least one."""
        self._whole = whole
        self._share = percent / 100
        self._first: list[int] = []
        self._is_drawn = threading.Event()
        self._released = threading.Event()
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def __iter__(self) -> Iterator[MiniBatch]:
        held = []
        for number, mini_batch in enumerate(self._whole):
            if ceil((number + 1) * self._share) > ceil(number * self._share):
                self._first.append(mini_batch.index)
                yield mini_batch
            else:
                held.append(mini_batch)
        self._is_drawn.set()
        self._released.wait()
        if not self._closed:
            yield from held

    def first(self, is_done: Callable[[int], bool]) -> list[int] | None:
        """The mini-batches that go first, once all of them are done and the others wait; else None."""
        if not self._is_drawn.is_set() or self._released.is_set() or not all(map(is_done, self._first)):
            return None
        return self._first

    def release(self) -> None:
        """Let the others come."""
        self._released.set()

    def close(self) -> None:
        """Let whoever draws the plan go, without the others unless they are on their way."""
        self._closed = not self._released.is_set()
        self._released.set()
