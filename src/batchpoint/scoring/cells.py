"""Values → the texts of cells, one by one. With pyarrow, ``arrow_bytes`` makes the same texts by columns.

Runs under the deployment's interpreter, Python 3.7 or later, and imports the standard library alone.

Texts of values (csv): nothing for None and NaN, ``True`` and ``False``, whole numbers as they are, floats in Python's
shortest form, times in ISO 8601 without trailing zeros of a second, bytes in base64, nested values as JSON. In jsonl
they are JSON's own values; a missing value is null, an infinite float is the text ``Infinity`` or ``-Infinity``.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
from typing import TYPE_CHECKING, Any

from .results import kind_of

if TYPE_CHECKING:
    from typing import Literal

    Style = Literal["csv", "jsonl"]

_NEEDS_QUOTES = re.compile('[",\r\n]')
_NEEDS_ESCAPE = re.compile('["\\\\\x00-\x1f]')
_SECONDS_ZEROS = re.compile(r"(\.\d*?)0+(?=$|[+-]|Z)")


def cells_of(column: Any, style: Style) -> list[str]:
    """The texts of a column."""
    if isinstance(column, list):
        if len(column) > 1 and is_one_text(column):
            return cells_of(column[:1], style) * len(column)
    else:
        numbers = _whole_numbers(column)
        if numbers is not None:
            if (numbers == numbers[0]).all():  # the values of keys, as a rule
                return [str(numbers[0])] * len(numbers)
            return list(map(str, numbers.tolist()))
    values = values_of(column)
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(str, values))
    if kinds == {float}:
        return [float_cell(value, style) for value in values]
    if kinds == {str}:
        unsafe = (_NEEDS_QUOTES if style == "csv" else _NEEDS_ESCAPE).search("".join(values))
        if style == "csv":
            return [_quoted(value) for value in values] if unsafe else values
        return [json_text(value) for value in values] if unsafe else [f'"{value}"' for value in values]
    return [_cell(value, style) for value in values]


def csv_line(cells: list[str]) -> str:
    """One line of csv with its line end, quoted where needed; a lone empty cell is quoted, so no line is blank."""
    if cells == [""]:
        return '""\n'
    return ",".join([_quoted(cell) for cell in cells]) + "\n"


def json_ready_text(value: Any) -> str | None:
    """A value as the text of one cell: its own if it is text, JSON if it is nested, None if it is missing."""
    plain = _plain(value)
    if plain is None or isinstance(plain, str):
        return plain
    return json_text(_finite(plain)) if isinstance(plain, (list, dict)) else str(plain)


def values_of(column: Any) -> list[Any]:
    """The column's values as Python objects; floats of less than 64 bits by their own shortest text."""
    kind = kind_of(column)
    if kind == ("pandas", "Series"):
        # numpy would turn times into bare numbers, and has no word for pandas' own types
        return (
            values_of(column.to_numpy())
            if getattr(column.dtype, "kind", "O") in "biuf" and _is_numpy(column)
            else list(column)
        )
    if kind == ("numpy", "ndarray"):
        if column.dtype.kind == "f" and column.dtype.itemsize < 8:
            return [float(text) for text in column.astype(str).tolist()]
        return list(column) if column.dtype.kind in "mM" else list(column.tolist())
    if isinstance(column, list):
        return column
    if str(column.type) in {"float", "halffloat"}:
        pandas_like = column.to_numpy(zero_copy_only=False)
        return values_of(pandas_like)
    return list(column.to_pylist())


def float_cell(value: float, style: Style) -> str:
    """The text of a float."""
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "" if style == "csv" else "null"
    if style == "csv":
        return repr(value)
    return '"Infinity"' if value > 0 else '"-Infinity"'


def json_text(value: Any) -> str:
    """JSON of a value that ``json`` knows and that is finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def is_one_text(column: Any) -> bool:
    """Whether a column is a list that repeats one text, as the names of files do."""
    return isinstance(column, list) and type(column[0]) is str and column.count(column[0]) == len(column)


def _whole_numbers(column: Any) -> Any:
    """The numpy array of a column that holds whole numbers; None for others and for an empty one."""
    array = column.to_numpy() if kind_of(column) == ("pandas", "Series") and _is_numpy(column) else column
    is_array = kind_of(array) == ("numpy", "ndarray") and array.ndim == 1 and array.dtype.kind in "iu"
    return array if is_array and len(array) and not hasattr(array, "mask") else None  # what is masked is missing


def _is_numpy(series: Any) -> bool:
    return type(series.dtype).__module__.partition(".")[0] == "numpy"


def _cell(value: Any, style: Style) -> str:
    plain = _plain(value)
    if isinstance(plain, float):
        return float_cell(plain, style)
    if style == "jsonl":
        return json_text(_finite(plain))
    if plain is None:
        return ""
    if isinstance(plain, str):
        return _quoted(plain)
    if isinstance(plain, (list, dict)):
        return _quoted(json_text(_finite(plain)))
    return str(plain)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _plain(value: Any) -> Any:
    """The value as one of JSON's kinds. A top-level float stays as it is, NaN and infinity included."""
    if value is None or type(value) in {str, int, float, bool}:
        return value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if type(value).__module__.partition(".")[0] == "numpy":
        return _plain_numpy(value)
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if type(value).__name__ in {"NaTType", "NAType"}:
        return None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return _without_zeros(value.isoformat())
    for base in (bool, int, float, str):
        if isinstance(value, base):
            return base(value)
    return str(value)


def _plain_numpy(value: Any) -> Any:
    if hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0:
        return [_plain(inner) for inner in value.tolist()]
    if value.dtype.kind in "mM":
        text = str(value)
        return None if text == "NaT" else _without_zeros(text)
    if value.dtype.kind == "f" and value.dtype.itemsize < 8:
        return float(str(value))
    return _plain(value.item())


def _without_zeros(text: str) -> str:
    """``03:04:05.500000`` → ``03:04:05.5``; ``03:04:05.000`` → ``03:04:05``."""
    if "." not in text:
        return text
    return re.sub(r"\.(?=$|[+-]|Z)", "", _SECONDS_ZEROS.sub(r"\1", text))


def _finite(value: Any) -> Any:
    """The value with NaN as null and infinity as text wherever they stand in it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
