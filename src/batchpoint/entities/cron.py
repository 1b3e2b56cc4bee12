"""Cron expressions: minute, hour, day of month, month, day of week; read strictly.

The syntax is that of Vixie's cron and of NCrontab, which Azure ML uses. Azure ML takes day of month and month for ``*``
whatever they say; here they mean what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

_MONTHS = {name: number for number, name in enumerate(
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
)}  # fmt: skip
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}

_FIELDS: tuple[tuple[str, int, int, Mapping[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """A cron expression, read."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days_of_month: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]
    """0 is Sunday."""
    any_day_will_do: bool
    """Whether a day needs to fit only one of day of month and day of week: cron's rule when both are restricted."""

    def fits(self, day: date) -> bool:
        """Whether it fires on this day."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days_of_month, day.isoweekday() % 7 in self.days_of_week
        return by_month or by_week if self.any_day_will_do else by_month and by_week


def read_cron(expression: str) -> Cron:
    """Read a cron expression of five fields.

    Raises:
        ValueError: it is none; the message names the field.
    """
    texts = expression.split()
    if len(texts) != len(_FIELDS):
        names = ", ".join(name for name, *_ in _FIELDS)
        hint = " A field for seconds is not known here." if len(texts) == len(_FIELDS) + 1 else ""
        message = f"{expression!r} has {len(texts)} fields; a cron expression has five: {names}.{hint}"
        raise ValueError(message)
    minutes, hours, days, months, week_days = (
        _values(text, name, lowest, highest, names)
        for text, (name, lowest, highest, names) in zip(texts, _FIELDS, strict=True)
    )
    return Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days_of_month=frozenset(days),
        months=frozenset(months),
        days_of_week=frozenset(day % 7 for day in week_days),
        any_day_will_do=not texts[2].startswith("*") and not texts[4].startswith("*"),
    )


def _values(text: str, field: str, lowest: int, highest: int, names: Mapping[str, int]) -> set[int]:
    found: set[int] = set()
    for item in text.split(","):
        span, slash, step_text = item.partition("/")
        step = _number(step_text, field, 1, highest, {}) if slash else 1
        if span == "*":
            first, last = lowest, highest
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(first_text, field, lowest, highest, names)
            # `5/15` means from 5 on, as NCrontab has it.
            last = _number(last_text, field, lowest, highest, names) if dash else highest if slash else first
        if first > last:
            message = f"{item!r} as {field} begins after its end; write it as two ranges: '{first}-{highest},…'"
            raise ValueError(message)
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, field: str, lowest: int, highest: int, names: Mapping[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not (text.isascii() and text.isdigit()):
        known = f" names {', '.join(names)}," if names else ""
        message = f"{text!r} is not a {field}; numbers,{known} '*', '-', ',' and '/' are known"
        raise ValueError(message)
    if not lowest <= int(text) <= highest:
        message = f"the {field} {text} is not within {lowest} to {highest}"
        raise ValueError(message)
    return int(text)
