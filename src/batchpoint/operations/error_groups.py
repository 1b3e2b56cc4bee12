"""Failed items → groups of the same exception and the same kind of message. Pure, and of bounded size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batchpoint.entities.run_reports import ErrorGroup, ErrorGroups

MOST_GROUPS = 50
"""Kinds of message that are told apart."""
EXAMPLES = 5
LONGEST = 160
"""Characters of a pattern."""
OTHERS = ("other errors", "")
"""Exception and pattern of the group of whatever comes after those."""

TEXT_KEPT = 4_000
"""Characters of a message or traceback that are shown, counted from the end; the errors file has all."""

_QUOTED = re.compile(r"""'[^'\n]{1,200}'|"[^"\n]{1,200}"|`[^`\n]{1,200}`""")
_IDENTIFIER = re.compile(r"\b(?:0x[0-9a-fA-F]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\b")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?")


def exception_of(item: Mapping[str, Any]) -> str:
    """What went wrong with an item, in one word."""
    return str(item.get("exception") or item.get("code") or "error")


def pattern_of(message: object) -> str:
    """What is common to messages that quote different things: the first line without its numbers and quoted names."""
    first = str(message or "").strip().partition("\n")[0][: 4 * LONGEST]
    return _NUMBER.sub("N", _IDENTIFIER.sub("N", _QUOTED.sub("'…'", first)))[:LONGEST]


def is_of(item: Mapping[str, Any], exception: str, pattern: str) -> bool:
    """Whether an item is of a group; an empty word means any."""
    return (not exception or exception_of(item) == exception) and (
        not pattern or pattern_of(item.get("message")) == pattern
    )


def shortened(item: Mapping[str, Any]) -> dict[str, Any]:
    """A failed item with as much of its texts as is shown."""
    return {key: value[-TEXT_KEPT:] if isinstance(value, str) else value for key, value in item.items()}


class Grouping:
    """Groups failed items as they come."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], list[Mapping[str, Any]]] = {}

    def add(self, item: Mapping[str, Any]) -> None:
        """Count one item; the first of each group are kept."""
        key = (exception_of(item), pattern_of(item.get("message")))
        if key not in self._counts and len(self._counts) >= MOST_GROUPS:
            key = OTHERS
        self._counts[key] = self._counts.get(key, 0) + 1
        examples = self._examples.setdefault(key, [])
        if len(examples) < EXAMPLES:
            examples.append(shortened(item))

    def groups(self, *, is_whole: bool) -> ErrorGroups:
        """The groups, the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda counted: -counted[1])
        groups = [
            ErrorGroup(exception=key[0], pattern=key[1], count=count, items=self._examples[key])
            for key, count in ordered
        ]
        return ErrorGroups(groups=groups, items=sum(self._counts.values()), is_whole=is_whole)
