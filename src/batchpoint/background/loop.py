"""A named loop in a thread: what goes on by itself, with its failures reported and never silent."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

FAILURES_UNTIL_UNHEALTHY = 3


@dataclass(frozen=True)
class LoopHealth:
    """How a loop fares."""

    name: str
    alive: bool
    failures: int
    """Failed steps since the last one that worked."""
    last_error: str | None
    busy_seconds: float
    """How long the present step has been going on; 0 between steps."""

    @property
    def is_well(self) -> bool:
        """Whether the loop does its work: it lives and did not fail three times running."""
        return self.alive and self.failures < FAILURES_UNTIL_UNHEALTHY


class Loop:
    """Calls ``step`` again and again in a thread of its own, until it is stopped.

    ``step`` answers whether it found something to do. After a step without work the loop waits, twice as long each
    time, from ``interval`` up to ``longest_interval`` seconds, but at most for the seconds that ``until_due`` answers;
    setting ``wake`` ends the wait at once. A step that raises is logged, shows in ``health`` and is tried again after
    such a wait.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], bool],
        *,
        interval: float,
        longest_interval: float | None = None,
        wake: threading.Event | None = None,
        until_due: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.name = name
        self.wake = wake or threading.Event()
        self._step = step
        self._interval = interval
        self._longest_interval = longest_interval or interval
        self._until_due = until_due
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"loop-{name}", daemon=True)
        self._failures = 0
        self._last_error: str | None = None
        self._step_began: float | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """End after the present step; whether it ended within ``timeout`` seconds."""
        self._stopping.set()
        self.wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def health(self) -> LoopHealth:
        """How the loop fares now."""
        began = self._step_began
        return LoopHealth(
            name=self.name,
            alive=self._thread.is_alive(),
            failures=self._failures,
            last_error=self._last_error,
            busy_seconds=0.0 if began is None else time.monotonic() - began,
        )

    def _run(self) -> None:
        pause = self._interval
        while not self._stopping.is_set():
            # Cleared before the step: what sets it during the step is about work that the step may not have seen.
            self.wake.clear()
            if self._stopping.is_set():
                break
            if self._step_worked():
                pause = self._interval
                continue
            woken = self.wake.wait(min(pause, self._until_due()))
            pause = self._interval if woken else min(pause * 2, self._longest_interval)

    def _step_worked(self) -> bool:
        self._step_began = time.monotonic()
        try:
            worked = self._step()
        except Exception as error:  # the rim of the loop: it must outlive whatever a step meets
            self._failures += 1
            self._last_error = f"{type(error).__name__}: {error}"
            log.exception("The loop %s failed (%d times running); it goes on", self.name, self._failures)
            return False
        finally:
            self._step_began = None
        self._failures, self._last_error = 0, None
        return worked
