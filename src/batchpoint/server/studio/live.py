"""What changes on pages that are followed, as server-sent events: that of a job, and home.

However many people look at a page, it is made anew once for each change, and of a job at most once a second.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from batchpoint.server.studio import sessions
from batchpoint.server.studio.rendering import Visit

LOOK_SECONDS = 1.0
"""Changes of this server's own jobs wake a stream at once; those of another server are looked for so often."""
APART_SECONDS = 1.0
"""A job changes many times a second; people read slower."""
ALLOWED_SECONDS = 5.0
"""How often a page that is followed asks whether its reader may still see it."""
KEPT = 64
"""Pages whose last parts are held."""


Parts = Mapping[str, str]
"""Element → the event that brings its new HTML."""


@dataclass
class _Made:
    """The parts of one page as they were last."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float = float("-inf")
    html: Mapping[str, str] = field(default_factory=dict)
    parts: Parts = field(default_factory=dict)
    is_final: bool = False


class LiveParts:
    """The parts of pages that are looked at now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str, ...], _Made] = {}

    def of(
        self,
        key: tuple[str, ...],
        make: Callable[[], tuple[Mapping[str, str], bool]],
        *,
        apart: float = APART_SECONDS,
    ) -> tuple[Parts, bool]:
        """The parts of a page, and whether nothing will change any more; made anew when they are old.

        Args:
            key: what tells the page from all others; that of a job also from one that had its name before.
            make: makes their HTML.
            apart: seconds after which they are old.
        """
        with self._lock:
            if key not in self._made and len(self._made) >= KEPT:
                self._made.pop(next(iter(self._made)))
            made = self._made.setdefault(key, _Made())
        with made.lock:
            if not made.is_final and time.monotonic() - made.at >= apart:
                html, made.is_final = make()
                made.parts = {
                    name: made.parts[name] if made.html.get(name) == text else event("part", {"id": name, "html": text})
                    for name, text in html.items()
                }
                made.html, made.at = html, time.monotonic()
            if made.is_final:
                with self._lock:
                    self._made.pop(key, None)  # whoever looks at it now has them; nobody will look for long
            return made.parts, made.is_final


def still_here(visit: Visit) -> Callable[[], bool]:
    """Asks whether somebody who follows a page is to be told any more: he may see it, and the server goes on."""
    looked_at = time.monotonic()

    def is_still_here() -> bool:
        nonlocal looked_at
        if time.monotonic() - looked_at >= ALLOWED_SECONDS:
            looked_at = time.monotonic()
            if not sessions.is_still_allowed(visit.request, visit.visitor):
                return False
        return not visit.shared.closing.is_set()

    return is_still_here


def stream(parts: Callable[[], tuple[Parts, bool]], wait: Callable[[float], bool]) -> Iterator[str]:
    """Events ``part`` with an element's id and its new HTML, and ``end`` when nothing will change any more.

    Args:
        parts: the parts by their ids, and whether they are the last ones.
        wait: waits for a change, so many seconds at most; False when nobody is to be told any more.
    """
    shown: dict[str, str] = {}
    while True:
        made, is_final = parts()
        news = [told for name, told in made.items() if shown.get(name) != told]
        shown.update(made)
        if is_final:
            yield "".join([*news, event("end", {})])
            return
        yield "".join(news) or ": still here\n\n"  # notices a reader who is gone
        if not wait(LOOK_SECONDS):
            return


def event(kind: str, data: object) -> str:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
