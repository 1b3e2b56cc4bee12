"""Names of files as text. A system allows any bytes in them; what is no UTF-8 is written ``\\xff``, and found again."""

from __future__ import annotations

import re


def as_text(name: str) -> str:
    """A file's name, or path, as it can be written down whatever the system calls the file."""
    try:
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # halves of pairs, which stand for no byte
        return name.encode(errors="backslashreplace").decode()


def as_named(text: str) -> str:
    """What the system calls the file that ``as_text`` wrote down so."""
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), text)
