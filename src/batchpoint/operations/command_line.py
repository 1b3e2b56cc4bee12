"""Bindings in command lines, ``${{inputs.x}}`` and ``${{outputs.y}}``: found, and filled in. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence

from batchpoint.errors import InvalidEntityError

BINDING = re.compile(r"\$\{\{\s*(?P<side>inputs|outputs)\.(?P<name>\w+)\s*\}\}")
_OPTIONAL_SEGMENT = re.compile(r"\$\[\[(?P<text>.*?)\]\]", re.DOTALL)
_IN_DOUBLE_QUOTES = re.compile(r'([\\"$`])')

Values = Mapping[str, str]
"""What bindings stand for, by ``inputs.<name>`` and ``outputs.<name>``."""


def with_segments(text: str, given: Collection[str]) -> str:
    """The text with each optional segment ``$[[ … ]]`` kept when all inputs that it names are given, else left out."""

    def keep(segment: re.Match[str]) -> str:
        named = [found["name"] for found in BINDING.finditer(segment["text"]) if found["side"] == "inputs"]
        return segment["text"].strip() if all(name in given for name in named) else ""

    return _OPTIONAL_SEGMENT.sub(keep, text)


def words_of(text: str) -> list[str]:
    """A text of arguments, split as a shell does; bindings stay whole, also those with spaces inside.

    Raises:
        InvalidEntityError: a quote is not closed.
    """
    tight = BINDING.sub(lambda found: f"${{{{{found['side']}.{found['name']}}}}}", text)
    try:
        return shlex.split(tight)
    except ValueError as fault:
        raise InvalidEntityError(f"program_arguments cannot be split into words: {fault}: {text!r}.") from None


def filled_words(words: Sequence[str], values: Values) -> list[str]:
    """Arguments with their bindings filled in; one word stays one word.

    Raises:
        InvalidEntityError: a binding names what is not there.
    """
    return [BINDING.sub(lambda found: _value(found, values), word) for word in words]


def filled_command(command: str, values: Values) -> str:
    """A command line with its bindings filled in: whatever a value holds, the shell sees it as that one value.

    Unlike Azure ML, which pastes the text, a value with spaces or quotes is quoted as the place where it stands needs.

    Raises:
        InvalidEntityError: a binding names what is not there.
    """
    pieces: list[str] = []
    quotes, at = _Quotes(), 0
    for found in BINDING.finditer(command):
        before = command[at : found.start()]
        quotes.read(before)
        pieces += [before, quotes.quoted(_value(found, values))]
        at = found.end()
    return "".join([*pieces, command[at:]])


class _Quotes:
    """Which quotes, if any, a shell is inside of after it has read so much of a command line."""

    def __init__(self) -> None:
        self._inside = [""]
        """From the outside in: quotes, ``(`` (inside of ``$(…)`` those around it do not count), ``#`` of a comment."""
        self._last = " "

    def read(self, text: str) -> None:
        characters = iter(text)
        for character in characters:
            if character == "\\" and self._inside[-1] not in {"'", "#"}:
                next(characters, None)
            elif self._ends(character):
                self._inside.pop()
            elif self._begins(character):
                self._inside.append(character)
            self._last = character

    def _ends(self, character: str) -> bool:
        inside = self._inside[-1]
        return inside != "" and character == {"#": "\n", "(": ")"}.get(inside, inside)

    def _begins(self, character: str) -> bool:
        if self._inside[-1] in {"'", "#"}:
            return False
        if self._inside[-1] == '"':
            return character == "(" and self._last == "$"
        return character in "'\"(" or (character == "#" and self._last.isspace())

    def quoted(self, value: str) -> str:
        self._last = "x"
        if self._inside[-1] == "'":
            return value.replace("'", "'\\''")
        if self._inside[-1] == '"':
            return _IN_DOUBLE_QUOTES.sub(r"\\\1", value)
        return shlex.quote(value)


def _value(found: re.Match[str], values: Values) -> str:
    name = f"{found['side']}.{found['name']}"
    if name not in values:
        known = ", ".join(sorted(values)) or "none"
        raise InvalidEntityError(f"{found[0]} names what the step does not have. Known: {known}.")
    return values[name]
