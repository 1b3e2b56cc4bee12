"""What was looked at last and does not change any more, kept to be looked at again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The newest of what was made, a bounded number."""

    KEPT = 64

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, ...], T] = OrderedDict()

    def of(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What was made for a key; made now where it is not known."""
        with self._lock:
            if key in self._known:
                return self._known[key]
        made = make()
        with self._lock:
            self._known[key] = made
            if len(self._known) > self.KEPT:
                self._known.popitem(last=False)
        return made
