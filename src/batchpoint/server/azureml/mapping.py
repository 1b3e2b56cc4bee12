"""Tables of fields: where a value stands in our body and where on the wire. What a table does not name does not travel.

A field more takes one line of a table. Both directions are read off the same line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchpoint.errors import InvalidEntityError

Convert = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Form:
    """How a value is written on the wire, and read."""

    write: Convert = _same
    read: Convert = _same


PLAIN = Form()


@dataclass(frozen=True, slots=True)
class Field:
    """One value. Paths are dotted; keys of the wire are found in any case."""

    ours: str
    wire: str
    form: Form = PLAIN


def to_wire(fields: Sequence[Field], body: Mapping[str, Any]) -> dict[str, Any]:
    """What the wire says of a body of ours; what is missing or null is left out."""
    found: dict[str, Any] = {}
    for field in fields:
        value = _get(body, field.ours.split("."))
        if value is not None and (written := field.form.write(value)) is not None:
            _set(found, field.wire.split("."), written)
    return found


def from_wire(fields: Sequence[Field], wire: Mapping[str, Any]) -> dict[str, Any]:
    """Our body of what came over the wire; what is missing or null is left out.

    Raises:
        InvalidEntityError: a value is not in its form; the message names it.
    """
    found: dict[str, Any] = {}
    for field in fields:
        value = _get_any_case(wire, field.wire.split("."))
        if value is None:
            continue
        try:
            read = field.form.read(value)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
            raise InvalidEntityError(f"{field.wire} is {value!r}, which is not understood.") from None
        if read is not None:
            _set(found, field.ours.split("."), read)
    return found


def holds(wire: Mapping[str, Any], path: str) -> bool:
    """Whether there is anything at a dotted path of what came over the wire."""
    return _get_any_case(wire, path.split(".")) is not None


def words(**names: str) -> Form:
    """An enumeration: ``words(append_row="AppendRow")``. What is not in it travels as it is; case does not matter."""
    back = {wire.lower(): ours for ours, wire in names.items()}
    return Form(lambda value: names.get(str(value), value), lambda value: back.get(str(value).lower(), value))


_DURATION = re.compile(r"^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$", re.IGNORECASE)


def seconds_of(text: str) -> float:
    """The seconds of an ISO 8601 duration such as ``PT5M``. Raises ``ValueError``."""
    match = _DURATION.match(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is no ISO 8601 duration such as PT30S")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def duration_of(seconds: float) -> str:
    """``PT30S``."""
    return f"PT{int(seconds) if float(seconds).is_integer() else seconds}S"


def _read_duration(value: Any) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = seconds_of(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} never ends")
    return seconds


def _of_type(kind: type) -> Form:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return value

    return Form(read=read)


TEXT = _of_type(str)
TRUTH = _of_type(bool)
"""A text, and whether something is so, for what no entity checks afterwards."""
DURATION = Form(duration_of, _read_duration)
"""Seconds here, ISO 8601 there; a number that comes over the wire, also as text, means seconds."""
NUMBER = Form(read=lambda value: int(value) if str(value).lstrip("-").isdigit() else value)
"""A whole number, which the wire may carry as text."""
TEXTS = Form(read=lambda value: {str(key): str(item) for key, item in value.items() if item is not None})
"""A mapping of texts, such as tags; numbers among them become text, and what is null is left out."""
ANSWERED = Form(read=lambda _: None)
"""What the server says. Callers send it back with the rest, and are not listened to."""
DESCRIBED = (
    Field("description", "properties.description"),
    Field("tags", "properties.tags", TEXTS),
    Field("properties", "properties.properties", TEXTS),
)
"""What most things have, as it stands in the whole body of a resource."""


def _get(body: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = body
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _get_any_case(wire: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = wire
    for key in path:
        if not isinstance(value, Mapping):
            return None
        if key in value:
            value = value[key]
            continue
        value = next((item for name, item in value.items() if str(name).lower() == key.lower()), None)
    return value


def _set(body: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        body = body.setdefault(key, {})
    body[path[-1]] = value
