"""What changes on the page of a job, as server-sent events.

However many people look at a job, its page is made anew once for each change, and at most twice a second.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LOOK_SECONDS = 1.0
"""Changes of this server's own jobs wake a stream at once; those of another server are looked for so often."""
APART_SECONDS = 0.5
"""A job changes many times a second; people read slower."""
KEPT = 64
"""Jobs whose last parts are held."""


@dataclass
class _Made:
    """The parts of one job's page as they were last."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float = float("-inf")
    parts: dict[str, str] = field(default_factory=dict)
    is_final: bool = False


class LiveParts:
    """The parts of pages that are looked at now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str, ...], _Made] = {}

    def of(self, key: tuple[str, ...], make: Callable[[], tuple[dict[str, str], bool]]) -> tuple[dict[str, str], bool]:
        """The parts of a job's page, and whether nothing will change any more; made anew when they are old.

        Args:
            key: what tells the job from all others, also from one that had its name before.
            make: makes them.
        """
        with self._lock:
            if key not in self._made and len(self._made) >= KEPT:
                self._made.pop(next(iter(self._made)))
            made = self._made.setdefault(key, _Made())
        with made.lock:
            if not made.is_final and time.monotonic() - made.at >= APART_SECONDS:
                made.parts, made.is_final = make()
                made.at = time.monotonic()
            if made.is_final:
                with self._lock:
                    self._made.pop(key, None)  # whoever looks at it now has them; nobody will look for long
            return made.parts, made.is_final


def stream(parts: Callable[[], tuple[dict[str, str], bool]], wait: Callable[[float], bool]) -> Iterator[str]:
    """Events ``part`` with an element's id and its new HTML, and ``end`` when nothing will change any more.

    Args:
        parts: the parts by their ids, and whether they are the last ones.
        wait: waits for a change, so many seconds at most; False when nobody is to be told any more.
    """
    shown: dict[str, str] = {}
    while True:
        made, is_final = parts()
        for name, text in made.items():
            if shown.get(name) != text:
                shown[name] = text
                yield _event("part", {"id": name, "html": text})
        if is_final:
            yield _event("end", {})
            return
        yield ": still here\n\n"  # notices a reader who is gone
        if not wait(LOOK_SECONDS):
            return


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
