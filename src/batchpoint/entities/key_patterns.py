"""Names made of the values of partition keys, such as ``model_{Device}_{Sensor}``: filled in, and read back. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

SUBMITTED = "submitted"
"""The placeholder for the time at which a job was submitted, in UTC; ``{submitted:%y%m%d}`` says its form."""
MOST_BYTES = 255
"""Longest name of a file. Source: ext4, XFS, NTFS, APFS."""

_PLAIN = " !#$&'()+,-.;=@[]^_`{}~"
"""Beside letters and digits, what the names of files hold as it is on every system."""


class KeyPattern:
    """A text with a placeholder for each of some keys.

    Args:
        text: such as ``model_{Device}_{Sensor}``; ``{{`` and ``}}`` are braces.

    Raises:
        ValueError: a brace is left open, a placeholder has no name, comes twice, or follows another directly.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._pieces = [(literal, name, form or "") for literal, name, form, _ in string.Formatter().parse(text)]
        except ValueError as fault:
            raise ValueError(f"{text!r} cannot be read: {fault}") from None
        self.fields = tuple(name for _, name, _ in self._pieces if name is not None)
        if "" in self.fields:
            raise ValueError(f"{text!r} has a placeholder without a name; name a partition key in it")
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"{text!r} names a placeholder twice")
        if any(not literal for literal, name, _ in self._pieces[1:] if name is not None):
            raise ValueError(f"{text!r} has two placeholders with nothing between them; put a '_' there")
        self._shortest, self._longest = (re.compile(_expression(self._pieces, some), re.DOTALL) for some in ("+?", "+"))

    def check_fields(self, keys: Sequence[str], *, also: Iterable[str] = ()) -> None:
        """Check that the placeholders are the keys, all of them.

        Raises:
            ValueError: a key is missing, or a placeholder is neither a key nor in ``also``.
        """
        if unknown := [name for name in self.fields if name not in {*keys, *also}]:
            raise ValueError(f"{{{unknown[0]}}} in {self.text!r} is not a partition key; these are {', '.join(keys)}")
        if missing := [key for key in keys if key not in self.fields]:
            raise ValueError(f"{self.text!r} lacks {{{missing[0]}}}: every partition key stands in it once")

    @property
    def prefix(self) -> str:
        """The text before the first placeholder."""
        first = self._pieces[0] if self._pieces else ("", None, "")
        return first[0]

    def filled(self, values: Mapping[str, str]) -> str:
        """The text with the values put in."""
        return "".join(literal + ("" if name is None else values[name]) for literal, name, _ in self._pieces)

    def keys_of(self, name: str) -> list[dict[str, str]]:
        """Every way to read a name back: values that give it when they are filled in.

        There may be several: ``model_1_2_3`` is both 1 with 2_3 and 1_2 with 3.
        """
        first = self._shortest.fullmatch(name)
        if first is None:
            return []
        values, last = first.groups(), self._longest.fullmatch(name)
        if last is not None and values == last.groups():  # the first and the last of all ways: there is no other
            return [dict(zip(self.fields, values, strict=True))]
        return [dict(found) for found in _readings(self._pieces, name)]

    def file_name(self, values: Mapping[str, str], submitted: datetime) -> str:
        """The text as the name of a file; characters of values that such names cannot hold become ``%2F`` and alike.

        Raises:
            ValueError: the name is longer than file names may be.
        """
        texts = []
        for literal, name, form in self._pieces:
            texts.append(literal)
            if name == SUBMITTED and name not in values:
                texts.append(quote(format(submitted.astimezone(UTC), form or "%Y%m%dT%H%M%SZ"), safe=_PLAIN))
            elif name is not None:
                texts.append(quote(values[name], safe=_PLAIN))
        result = "".join(texts)
        if result.startswith("."):
            result = f"%2E{result[1:]}"
        if len(result.encode()) > MOST_BYTES:
            raise ValueError(f"the name {result[:60]}… is longer than {MOST_BYTES} bytes, which no file name may be")
        return result


def key_text(value: object) -> str:
    """The text by which a value of a key is known: a whole number is its digits; a missing one is empty."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _expression(pieces: Sequence[tuple[str, str | None, str]], some: str) -> str:
    return "".join(re.escape(literal) + ("" if name is None else f"(.{some})") for literal, name, _ in pieces)


def _readings(pieces: Sequence[tuple[str, str | None, str]], text: str) -> Iterator[tuple[tuple[str, str], ...]]:
    if not pieces:
        if not text:
            yield ()
        return
    literal, name, _ = pieces[0]
    if not text.startswith(literal):
        return
    rest = text[len(literal) :]
    if name is None:
        yield from _readings(pieces[1:], rest)
        return
    following = pieces[1][0] if len(pieces) > 1 else ""
    ends = [found.start() for found in re.finditer(f"(?={re.escape(following)})", rest)] if following else [len(rest)]
    for end in ends:
        if end:
            for later in _readings(pieces[1:], rest[end:]):
                yield ((name, rest[:end]), *later)
