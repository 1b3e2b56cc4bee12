"""Addresses that fail to authenticate too often are told to slow down."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from batchpoint.errors import TooManyRequestsError

FAILURES_ALLOWED = 20
"""Failed attempts from one address within a window, before further ones are told to wait."""
WINDOW_SECONDS = 60.0


class FailedAttempts:
    """Counts failed attempts by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, deque[float]] = {}

    def check(self, address: str) -> None:
        """Let a failed attempt of an address be answered as such.

        Raises:
            TooManyRequestsError: it failed too often of late.
        """
        with self._lock:
            failures = self._recent(address)
            if len(failures) >= FAILURES_ALLOWED:
                message = (
                    f"{len(failures)} requests from {address} had a wrong token within a minute. Wait a minute, "
                    "and check the token."
                )
                raise TooManyRequestsError(message)

    def note(self, address: str) -> None:
        """Count one failed attempt."""
        with self._lock:
            self._recent(address)
            self._failures.setdefault(address, deque(maxlen=FAILURES_ALLOWED)).append(self._clock())

    def _recent(self, address: str) -> deque[float]:
        failures = self._failures.get(address, deque())
        while failures and failures[0] < self._clock() - WINDOW_SECONDS:
            failures.popleft()
        if not failures:
            self._failures.pop(address, None)  # so that the table does not grow with every address ever seen
        return failures
