"""Where one csv record ends and the next begins, what its fields are, and which types its columns seem to have.

Runs under the interpreter of the deployment's environment: only the standard library is imported. Records end at
``\\n``, ``\\r\\n`` or a lone ``\\r`` outside quotes; a quote opens only at the start of a field (RFC 4180; the readers
of pyarrow, pandas and the ``csv`` module agree); a line without any character is not a record. Files are UTF-8 by the
time they are planned.
"""

from __future__ import annotations

import csv as csv_module
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NUMBER_NULLS = ("", "NaN", "nan", "NA", "N/A", "null", "NULL")
"""Texts that mean "missing" in a column of numbers or truth values, whatever ``csv.null_values`` says."""

HEAD_BYTES = 1 << 18
"""How much of a file is looked at to guess the types of its columns."""
SAMPLE_ROWS = 1000
LONGEST_RECORD = 1 << 26
"""A csv record of more bytes than this is taken for a quote that never ends."""

BOM = b"\xef\xbb\xbf"

TRUE = ("true", "True", "TRUE", "1")
"""Texts that are true in a column of truth values."""
FALSE = ("false", "False", "FALSE", "0")
"""Texts that are false in a column of truth values."""
_TRUTH = frozenset(("true", "True", "TRUE", "false", "False", "FALSE"))
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|inf|Inf|nan|NaN)")


class UnreadableRowsError(ValueError):
    """Rows could not be read. The message names file, row and, where it can, column and value."""

    def __init__(self, message: str, item: int | None = None) -> None:
        super().__init__(message)
        self.item = item
        """Position within the mini-batch of the one row that is at fault, where it is known."""


def delimiter_of(name: str, csv: Mapping[str, Any]) -> str:
    """The delimiter of a csv file: as set, except that a ``.tsv`` is cut at tabs unless something else was set."""
    delimiter = str(csv.get("delimiter") or ",")
    may_be_tabs = delimiter == "," and ".tsv" in name.lower()  # asked for each slice, and a Path is slow
    return "\t" if may_be_tabs and ".tsv" in Path(name.lower()).suffixes[-2:] else delimiter


def header_of(path: str, delimiter: str, csv: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Names of a csv file's columns, and the offset at which its data begins.

    Empty and repeated names become ``Unnamed: 3`` and ``name.1``, as in pandas. No names means an empty file.

    Raises:
        UnreadableRowsError: the header is not UTF-8, or names fewer columns than were given for the file.
    """
    with Path(path).open("rb") as file:
        head = file.read(HEAD_BYTES)
        while True:
            begin = len(BOM) if head.startswith(BOM) else 0
            found = next(_records(head[begin:], delimiter), None)
            more = file.read(HEAD_BYTES) if found is None or begin + found[1] == len(head) else b""
            if not more:
                break
            head += more
            if len(head) > LONGEST_RECORD:
                raise UnreadableRowsError(f"The first line of {path} does not end within {LONGEST_RECORD} bytes.")
    if found is None:
        return (), begin
    try:
        fields = fields_of(head[begin + found[0] : begin + found[1]], delimiter)
    except UnicodeDecodeError as error:
        raise UnreadableRowsError(f"The first line is not UTF-8 ({error}). Set csv.encoding.") from None
    if csv.get("header", True):
        return _unique_names(fields), begin + found[1]
    names = csv.get("column_names")
    return (tuple(names) if names else tuple(str(i) for i in range(len(fields)))), begin


def record_bounds(data: bytes, delimiter: str) -> list[tuple[int, int]]:
    """Start and end (line ending included) of each record of ``data``, which begins at the start of a record."""
    return list(_records(data, delimiter))


def fields_of(record: bytes, delimiter: str) -> list[str]:
    """The texts of one csv record. Raises ``UnicodeDecodeError`` or ``csv.Error`` when it is not one."""
    text = record.decode().rstrip("\r\n") if b'"' not in record else record.decode()
    return next(csv_module.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])


def sample_types(
    head: bytes,
    columns: Sequence[str],
    delimiter: str,
    null_values: Sequence[str],
    rows: int = SAMPLE_ROWS,
    *,
    is_whole: bool = False,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Guess the types of csv columns from the first ``rows`` rows: int64, double, bool or string, as Arrow names them.

    A column that is missing throughout is ``double``; one that holds only texts such as ``NA`` which are missing for
    numbers but not for text is ``string``, so that no text is lost. Dates stay text, as with ``pandas.read_csv``. The
    last record may be cut in two, and is not looked at, unless ``is_whole`` says that there is nothing after it.

    Returns:
        The types, and the names of the columns in which no value at all is a number or a truth value.
    """
    values: list[set[str]] = [set() for _ in columns]
    for number, (begin, end) in enumerate(_records(head, delimiter)):
        if number == rows or (end == len(head) and number > 0 and not is_whole):
            break
        try:
            fields = fields_of(head[begin:end], delimiter)
        except (UnicodeDecodeError, csv_module.Error):
            continue
        for seen, text in zip(values, fields):
            seen.add(text)
    nulls = set(null_values)
    present = [{text.strip() for text in seen} - set(NUMBER_NULLS) - nulls for seen in values]
    types = tuple(_type_of(seen, texts, nulls) for seen, texts in zip(values, present))
    only_text = [
        name
        for name, texts in zip(columns, present)
        if texts and not any(_NUMBER.fullmatch(text) or text in _TRUTH for text in texts)
    ]
    return types, tuple(only_text)


def is_number(text: str) -> bool:
    """Whether a text is written as a number."""
    return _NUMBER.fullmatch(text) is not None


def _records(data: bytes, delimiter: str) -> Iterator[tuple[int, int]]:
    begin = 0
    if b'"' in data:
        mark = re.escape(delimiter.encode())
        opens = rb"(?:(?<=[\r\n])|(?<=" + mark + rb")|\A)"
        tokens = re.compile(opens + rb'"[^"]*(?:""[^"]*)*(?:"|\Z)|\r\n|\n|\r')
        ends = (match.end() for match in tokens.finditer(data) if data[match.start()] != 34)
    else:
        ends = (match.end() for match in re.finditer(rb"\r\n|\n|\r", data))
    for end in ends:
        if end - begin > 2 or data[begin:end].strip(b"\r\n"):
            yield begin, end
        begin = end
    if begin < len(data):
        yield begin, len(data)


def _unique_names(fields: list[str]) -> tuple[str, ...]:
    names: list[str] = []
    for position, field in enumerate(fields):
        name = base = field or f"Unnamed: {position}"
        count = 0
        while name in names:
            count += 1
            name = f"{base}.{count}"
        names.append(name)
    return tuple(names)


def _type_of(values: set[str], present: set[str], null_values: set[str]) -> str:
    if not present:
        return "double" if values <= (null_values | {"", "NaN", "nan"}) else "string"
    if all(_INTEGER.fullmatch(text) for text in present):
        return "int64"
    if all(_NUMBER.fullmatch(text) for text in present):
        return "double"
    return "bool" if present <= _TRUTH else "string"
