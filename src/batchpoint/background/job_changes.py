"""Wakes whoever waits for a job: requests that poll long, and event streams."""

from __future__ import annotations

import threading


class JobChanges:
    """Counts the changes of jobs within this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._events: list[threading.Event] = []

    def also_set(self, event: threading.Event) -> None:
        """Set this event too at every change."""
        with self._changed:
            self._events.append(event)

    @property
    def count(self) -> int:
        """How many changes there were so far; hand it to ``wait`` to miss none."""
        with self._changed:
            return self._count

    def notify(self) -> None:
        """Some job has changed."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()
            for event in self._events:
                event.set()

    def wait(self, seen: int, timeout: float) -> int:
        """Wait until there were more than ``seen`` changes, ``timeout`` seconds at most; answers with the count."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > seen, timeout)
            return self._count
