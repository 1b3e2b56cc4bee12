"""Changes of what was read before: stored only in place of what was read, made once more from what is there otherwise.

Between reading and writing lie checks that take their time, which no transaction may hold. So whoever writes says what
he saw, and the row is compared with that under its lock. Of two changes made at once, by whichever servers, the second
is made again on top of the first, and neither is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from batchpoint.entities.base import Entity
from batchpoint.errors import ChangedMeanwhileError

T = TypeVar("T")

TRIES = 100
"""A try that fails means that another change was stored, so even many at once all get through."""


def check_unchanged(found: Entity | None, seen: Entity | None) -> None:
    """Check that what is stored is what the writer saw; without ``seen`` he replaces whatever is there.

    Raises:
        ChangedMeanwhileError: it is not.
    """
    if seen is not None and (found is None or found.body() != seen.body()):
        raise ChangedMeanwhileError(f"{seen.name} was changed at the same time from elsewhere. Try again.")


def repeated(change: Callable[[], T]) -> T:
    """What ``change`` answers, which reads and then stores: begun anew while others store between the two.

    Raises:
        ChangedMeanwhileError: they did so every time.
    """
    for _ in range(TRIES - 1):
        try:
            return change()
        except ChangedMeanwhileError:
            pass  # what is there now is read again
    return change()
