"""What ``run()`` returned → rows in the worker's segment. Runs under the deployment's interpreter.

Imports the standard library alone; pandas, numpy, polars and pyarrow are touched only when a result is theirs, or, for
pyarrow, when there are many rows and it is installed. With pyarrow or without, the bytes of csv and jsonl are equal.
The code keeps to Python 3.7: environments of older models have it.

Texts of values (csv): nothing for None and NaN, ``True`` and ``False``, whole numbers as they are, floats in Python's
shortest form, times in ISO 8601 without trailing zeros of a second, bytes in base64, nested values as JSON. In jsonl
they are JSON's own values; a missing value is null, an infinite float is the text ``Infinity`` or ``-Infinity``.
"""

from __future__ import annotations

import base64
import datetime as dt
import importlib.util
import json
import math
import os
import re
import sys
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Literal

    Encoding = Literal["csv", "jsonl", "arrow", "azureml", "none"]
    Style = Literal["csv", "jsonl"]

MANY_ROWS = {"csv": 400, "jsonl": 2000}
"""From so many rows on, pyarrow is quicker than Python alone."""
ROWS_WORTH_AN_IMPORT = 50_000
"""From so many rows on, that is so even where pyarrow must be imported first."""

_KINDS = {
    ("pandas", "DataFrame"),
    ("pandas", "Series"),
    ("numpy", "ndarray"),
    ("pyarrow", "Table"),
    ("pyarrow", "RecordBatch"),
    ("polars", "DataFrame"),
    ("polars", "Series"),
    ("builtins", "list"),
    ("builtins", "tuple"),
}
_NEEDS_QUOTES = re.compile('[",\r\n]')
_NEEDS_ESCAPE = re.compile('["\\\\\x00-\x1f]')
_SECONDS_ZEROS = re.compile(r"(\.\d*?)0+(?=$|[+-]|Z)")


class SegmentWriter:
    """Appends result rows to one worker's segment, each time as one block of bytes at a known offset."""

    def __init__(self, path: str, encoding: Encoding, output: dict[str, Any]) -> None:
        """Open the segment, or go on at the end of the one that is there.

        Args:
            path: Absolute path of the segment.
            encoding: ``csv``, ``jsonl``, ``arrow``, ``azureml``; ``none`` counts results and keeps no rows.
            output: ``row_keys``, ``key_columns``, ``passthrough`` and ``rename`` of the job's output.
        """
        self.path = path
        self.encoding = encoding
        self._row_keys: bool = output.get("row_keys", True)
        self._key_columns: list[str] = output.get("key_columns") or []
        self._passthrough: list[str] = output.get("passthrough") or []
        self._rename: dict[str, str] = output.get("rename") or {}
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = os.lseek(self._descriptor, 0, os.SEEK_END)

    def append(self, result: Any, part: dict[str, Any], sketch: bytes = b"") -> dict[str, Any]:
        """Check a result, append its rows, and tell where they lie and which items they stand for.

        Args:
            result: What ``run()`` returned.
            part: ``unit``, ``start``, ``stop``; ``names`` (files) or ``keys`` and ``frame`` (rows);
                ``positions`` of the items that have a result, where that is known.  ``frame`` is what
                ``run()`` was given, best as a shallow copy made before the call, so that columns which the script
                added or dropped in place are not mistaken for input.
            sketch: What lies behind the rows, to be read with them and committed with them.

        Returns:
            ``segment``, ``offset``, ``length`` (bytes), ``rows``, ``ok``, ``missing`` (positions in the mini-batch of
            the items without a result; None when only their number is known), ``encoding``, ``columns``,
            ``sketched`` (bytes of the sketch).

        Raises:
            TypeError: the result is neither a list nor a table.
            ValueError: a key or passthrough column is not in the input, the result has rows but no columns, or two
                columns would have one name.
            OSError: the segment could not be written; it is as it was before.
        """
        rows = _count(result)
        items = part["stop"] - part["start"]
        encoding = self.encoding
        columns: list[str] = []
        if encoding == "none":
            data = b""
        elif encoding == "azureml":
            columns, data = _azureml_bytes(result, rows, part)
        else:
            encoding, columns, data = self._encode(result, rows, part, encoding)
        answer = {
            "segment": self.path,
            "offset": self._end,
            "length": len(data),
            "rows": 0 if encoding == "none" else rows,
            "ok": min(rows, items),
            "missing": _missing(result, rows, part),
            "encoding": encoding,
            "columns": columns,
            "sketched": len(sketch),
        }
        self._write(data + sketch)
        return answer

    def close(self) -> None:
        """Close the segment. What was appended stays."""
        os.close(self._descriptor)

    def _encode(
        self, result: Any, rows: int, part: dict[str, Any], encoding: Encoding
    ) -> tuple[Encoding, list[str], bytes]:
        table = tabulate(result)
        if not table and rows == 0:
            return encoding, [], b""
        leading = self._leading_columns(result, rows, part, set(table))
        table = _renamed({**leading, **table}, self._rename)
        if not table:
            message = "The table that the run() method returned has rows, but no columns."
            raise ValueError(message)
        if encoding == "arrow":
            if not _is_installed("pyarrow"):
                return "jsonl", list(table), _text_bytes(table, rows, "jsonl")
            return "arrow", list(table), _arrow_bytes(table)
        return encoding, list(table), _text_bytes(table, rows, "csv" if encoding == "csv" else "jsonl")

    def _leading_columns(self, result: Any, rows: int, part: dict[str, Any], taken: set[str]) -> dict[str, Any]:
        """Keys, then passed-through input columns. A result column of the same name renames a key, drops the other."""
        positions = _positions(result, rows, part)
        frame = part.get("frame")
        keys: dict[str, Any] = {}
        if self._row_keys:
            if self._key_columns and frame is not None:
                keys = {name: _picked(_input_column(frame, name, "key"), rows, positions) for name in self._key_columns}
            else:
                keys = _file_keys(part, rows, positions)
        leading = {f"input_{name}" if name in taken else name: column for name, column in keys.items()}
        if frame is not None and self._passthrough:
            wanted = [str(name) for name in frame.columns] if "*" in self._passthrough else self._passthrough
            for name in wanted:
                if name not in taken and name not in keys:
                    leading[name] = _picked(_input_column(frame, name, "passthrough"), rows, positions)
        return leading

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        at = self._end
        try:
            while view:
                written = os.pwrite(self._descriptor, view, at)
                view = view[written:]
                at += written
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end = at


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
    return _json_text(_finite(plain)) if isinstance(plain, (list, dict)) else str(plain)


def _renamed(table: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    renamed = {names.get(name, name): column for name, column in table.items()}
    if len(renamed) < len(table):
        taken = sorted(new for old, new in names.items() if old in table and new in table and new not in names)
        message = f"rename gives a column the name {taken[0]!r}, which another column of the output has already."
        raise ValueError(message)
    return renamed


def _count(result: Any) -> int:
    kind = _kind(result)
    if kind is None or (kind == ("numpy", "ndarray") and result.ndim == 0):
        message = (
            "The run() method in the entry script should return a list or a pandas DataFrame. "
            f"The actual type of output is {type(result)}."
        )
        raise TypeError(message)
    return result.num_rows if kind[0] == "pyarrow" else len(result)


def _kind(value: Any) -> tuple[str, str] | None:
    """Package and name of the class, or of the nearest base class, that results may have."""
    for cls in type(value).__mro__:
        found = (cls.__module__.partition(".")[0], cls.__name__)
        if found in _KINDS:
            return found
    return None


def _missing(result: Any, rows: int, part: dict[str, Any]) -> list[int] | None:
    start, stop = part["start"], part["stop"]
    if rows >= stop - start:
        return []
    if rows == 0:
        return list(range(start, stop))
    positions = _positions(result, rows, part)
    if isinstance(positions, list):
        return sorted(set(range(start, stop)) - {start + position for position in positions})
    return None


def _positions(result: Any, rows: int, part: dict[str, Any]) -> list[int] | Literal["same", "unknown"]:
    """Which item of the part each result row stands for.

    A table that kept the input's index tells by itself. An index 0, 1, 2… of fewer rows than were given tells nothing:
    ``head()`` and a new aggregate look alike. Neither does any other result of another length than the input.
    """
    if "positions" in part:
        return list(part["positions"])
    items = part["stop"] - part["start"]
    by_length: Literal["same", "unknown"] = "same" if rows == items else "unknown"
    kind = _kind(result)
    if part["unit"] == "files" or rows == 0 or kind not in {("pandas", "DataFrame"), ("pandas", "Series")}:
        return by_length
    index = result.index
    if index.name is not None:  # the input's has no name: these are groups, or a column of the script's own choice
        return by_length
    if getattr(index, "nlevels", 1) != 1 or getattr(index.dtype, "kind", "O") not in "iu":
        return by_length
    first, last = int(index.min()), int(index.max())
    if first < 0 or last >= items or not index.is_unique or (first == 0 and last == rows - 1 and rows < items):
        return by_length
    if rows == items and index.is_monotonic_increasing:
        return "same"
    return [int(position) for position in index.tolist()]


def _file_keys(part: dict[str, Any], rows: int, positions: list[int] | str) -> dict[str, list[Any]]:
    if part["unit"] == "files":
        names = part["names"]
        if positions == "same":
            return {"file": list(names)}
        if len(names) == 1:
            return {"file": names * rows, "row": list(range(rows))}
        return {"file": [None] * rows}
    if positions == "unknown":
        return {"file": [None] * rows, "row": [None] * rows}
    files = list(chain.from_iterable(repeat(name, count) for name, _, count in part["keys"]))
    numbers = list(chain.from_iterable(_row_numbers(first, count) for _, first, count in part["keys"]))
    if isinstance(positions, list):
        return {"file": [files[at] for at in positions], "row": [numbers[at] for at in positions]}
    return {"file": files, "row": numbers}


def _row_numbers(first: Any, count: int) -> Any:
    """Rows that follow each other are told by the first; others by a list of their numbers."""
    return range(first, first + count) if isinstance(first, int) else first


def _input_column(frame: Any, name: str, role: str) -> Any:
    for at, column in enumerate(frame.columns):
        if str(column) == name:
            return frame.iloc[:, at]
    message = f"The {role} column {name!r} is not among the columns of the input."
    raise ValueError(message)


def _picked(column: Any, rows: int, positions: list[int] | str) -> Any:
    if positions == "same":
        return column
    if positions == "unknown":
        return [None] * rows
    return column.iloc[positions]


def tabulate(result: Any) -> dict[str, Any]:
    """The columns of what ``run()`` returned, by name: each a list, a pandas Series, a numpy or an Arrow array."""
    package, name = _kind(result) or ("", "")
    if package == "polars":
        if name == "Series":
            return {result.name or "prediction": result.to_arrow()}
        package, result = "pyarrow", result.to_arrow()
    if package == "pyarrow":
        return _named(result.column_names, [_one_array(column) for column in result.columns])
    if (package, name) == ("pandas", "DataFrame"):
        return _named(result.columns, [column for _, column in result.items()])
    if (package, name) == ("pandas", "Series"):
        return {"prediction" if result.name is None else str(result.name): result}
    if package == "numpy":
        return _tabulate_ndarray(result)
    return _tabulate_list(list(result))


def _named(names: Any, columns: list[Any]) -> dict[str, Any]:
    """Columns by their names as text; a second column of one name gets ``_1``, a third ``_2``."""
    named: dict[str, Any] = {}
    for name, column in zip(names, columns):
        unique, number = str(name), 0
        while unique in named:
            number += 1
            unique = f"{name}_{number}"
        named[unique] = column
    return named


def _one_array(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _tabulate_ndarray(array: Any) -> dict[str, Any]:
    if array.dtype.names:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim == 1:
        return _tabulate_list(array.tolist()) if array.dtype.kind == "O" else {"prediction": array}
    if array.ndim == 2 and array.shape[1] == 1:
        return {"prediction": array[:, 0]}
    if array.ndim == 2:
        return {f"prediction_{at}": array[:, at] for at in range(array.shape[1])}
    return {"prediction": array.tolist()}


def _tabulate_list(values: list[Any]) -> dict[str, Any]:
    if not values:
        return {}
    kinds = set(map(type, values))
    if kinds <= {str, int, float, bool}:
        return {"prediction": values}
    if all(issubclass(kind, dict) for kind in kinds):
        names = dict.fromkeys(chain.from_iterable(values))
        return _named(names, [[value.get(name) for value in values] for name in names])
    if all(_is_sequence(value) for value in values):
        sizes = {len(value) for value in values}
        if len(sizes) == 1 and sizes != {0}:
            return {f"prediction_{at}": [value[at] for value in values] for at in range(sizes.pop())}
    return {"prediction": values}


def _is_sequence(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return True
    return _kind(value) == ("numpy", "ndarray") and value.ndim == 1


def _azureml_bytes(result: Any, rows: int, part: dict[str, Any]) -> tuple[list[str], bytes]:
    """Azure's exact bytes: a table separated by spaces, or ``str()`` of each element, without header and keys.

    What the script for MLflow models returned has the name of the file beside each row: in a table as its last column,
    else as the list of both. The names of a table's columns go with it, for those who want them in the first line
    after all.
    """
    package, name = _kind(result) or ("", "")
    if package == "pyarrow" or (package, name) == ("polars", "DataFrame"):
        result = result.to_pandas()
        name = "DataFrame"
    predicted = result.attrs.get("mlflow_prediction") if name == "DataFrame" else None
    if predicted == "table":
        result = result.assign(_azureml_filename=_file_names(rows, part))
    elif predicted is not None:
        values = result.to_numpy() if predicted == "vectors" else result.iloc[:, 0].to_numpy()
        result = [[file, str(value)] for file, value in zip(_file_names(rows, part), values)]
        name = "list"
    if name == "DataFrame":
        text: str = result.to_csv(sep=" ", header=False, index=False)
        return [str(column) for column in result.columns], text.encode()
    return [], "".join([f"{element!s}\n" for element in result]).encode()


def _file_names(rows: int, part: dict[str, Any]) -> list[str]:
    """For each row of a result the name of the file that it came from, without folders.

    Where there are more or fewer rows than items, each item is taken to have as many.
    """
    names = part["names"] if "names" in part else [name for name, _, count in part["keys"] for _ in range(count)]
    return [names[at * len(names) // rows].rpartition("/")[2] for at in range(rows)]


def _text_bytes(table: dict[str, Any], rows: int, style: Style) -> bytes:
    prefixes, suffix = _frame_of_line(list(table), style)
    if _is_worth_arrow(rows, style):
        written = _write_with_arrow(table, rows) if style == "csv" and len(table) > 1 else None
        return _join_with_arrow(table, rows, style, prefixes, suffix) if written is None else written
    cells = [_cells(column, style) for column in table.values()]
    if style == "csv" and len(cells) == 1:
        cells = [[cell or '""' for cell in cells[0]]]
    if style == "csv":
        return "".join([line + "\n" for line in map(",".join, zip(*cells))]).encode()
    line = "".join(prefix.replace("%", "%%") + "%s" for prefix in prefixes) + suffix
    return "".join([line % row for row in zip(*cells)]).encode()


def _frame_of_line(names: list[str], style: Style) -> tuple[list[str], str]:
    """What stands before each cell of a line, and at its end."""
    if style == "csv":
        return ["", *[","] * (len(names) - 1)], "\n"
    labels = [f"{json.dumps(name, ensure_ascii=False)}: " for name in names]
    return ["{" + labels[0], *[f", {label}" for label in labels[1:]]], "}\n"


def _cells(column: Any, style: Style) -> list[str]:
    if isinstance(column, list):
        if len(column) > 1 and _is_one_text(column):
            return _cells(column[:1], style) * len(column)
    else:
        numbers = _whole_numbers(column)
        if numbers is not None:
            if (numbers == numbers[0]).all():  # the values of keys, as a rule
                return [str(numbers[0])] * len(numbers)
            return list(map(str, numbers.tolist()))
    values = _values(column)
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(str, values))
    if kinds == {float}:
        return [_float_cell(value, style) for value in values]
    if kinds == {str}:
        unsafe = (_NEEDS_QUOTES if style == "csv" else _NEEDS_ESCAPE).search("".join(values))
        if style == "csv":
            return [_quoted(value) for value in values] if unsafe else values
        return [_json_text(value) for value in values] if unsafe else [f'"{value}"' for value in values]
    return [_cell(value, style) for value in values]


def _whole_numbers(column: Any) -> Any:
    """The numpy array of a column that holds whole numbers; None for others and for an empty one."""
    array = column.to_numpy() if _kind(column) == ("pandas", "Series") and _is_numpy(column) else column
    is_array = _kind(array) == ("numpy", "ndarray") and array.ndim == 1 and array.dtype.kind in "iu"
    return array if is_array and len(array) and not hasattr(array, "mask") else None  # what is masked is missing


def _values(column: Any) -> list[Any]:
    """The column's values as Python objects; floats of less than 64 bits by their own shortest text."""
    kind = _kind(column)
    if kind == ("pandas", "Series"):
        # numpy would turn times into bare numbers, and has no word for pandas' own types
        return (
            _values(column.to_numpy())
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
        return _values(pandas_like)
    return list(column.to_pylist())


def _is_numpy(series: Any) -> bool:
    return type(series.dtype).__module__.partition(".")[0] == "numpy"


def _cell(value: Any, style: Style) -> str:
    plain = _plain(value)
    if isinstance(plain, float):
        return _float_cell(plain, style)
    if style == "jsonl":
        return _json_text(_finite(plain))
    if plain is None:
        return ""
    if isinstance(plain, str):
        return _quoted(plain)
    if isinstance(plain, (list, dict)):
        return _quoted(_json_text(_finite(plain)))
    return str(plain)


def _float_cell(value: float, style: Style) -> str:
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "" if style == "csv" else "null"
    if style == "csv":
        return repr(value)
    return '"Infinity"' if value > 0 else '"-Infinity"'


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


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


def _is_worth_arrow(rows: int, style: Style) -> bool:
    if "pyarrow" in sys.modules:
        return rows >= MANY_ROWS[style] and sys.modules["pyarrow"] is not None
    return rows >= ROWS_WORTH_AN_IMPORT and _is_installed("pyarrow")


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def _write_with_arrow(table: dict[str, Any], rows: int) -> bytes | None:
    """The same bytes by Arrow's own writer, several times quicker; None where a cell needs quotes, or it is too old."""
    import pyarrow as pa  # noqa: PLC0415 - lazily: slow to import, and perhaps not there
    from pyarrow import csv as arrow_csv  # noqa: PLC0415 - the same

    if not hasattr(arrow_csv.WriteOptions, "quoting_style"):  # before pyarrow 11
        return None
    arrays = []
    for column in table.values():
        if _is_one_text(column):
            arrays.append(pa.repeat(pa.scalar(column[0], pa.large_string()), rows))
            continue
        array = _simple_arrow_array(column)
        # The writer's own texts of these are ours, and it refuses what needs quotes.
        is_plain = array is not None and (pa.types.is_integer(array.type) or pa.types.is_large_string(array.type))
        arrays.append(array if is_plain else _arrow_cells(column, "csv"))
    sink = pa.BufferOutputStream()
    options = arrow_csv.WriteOptions(include_header=False, quoting_style="none", batch_size=rows)
    try:
        arrow_csv.write_csv(pa.table(arrays, names=list(table)), sink, options)
    except pa.ArrowInvalid:  # a quote, a comma or a line end in a text
        return None
    return bytes(memoryview(sink.getvalue()))


def _join_with_arrow(table: dict[str, Any], rows: int, style: Style, prefixes: list[str], suffix: str) -> bytes:
    """The same bytes as cell by cell, made by columns."""
    import pyarrow as pa  # noqa: PLC0415 - lazily: slow to import, and perhaps not there
    import pyarrow.compute as pc  # noqa: PLC0415

    columns = list(table.values())
    same = [_is_one_text(column) for column in columns]
    if all(same):
        same[0] = False  # at least one column says how many lines there are
    cells = [
        pa.scalar(_cells(column[:1], style)[0], pa.large_string()) if once else _arrow_cells(column, style)
        for column, once in zip(columns, same)
    ]
    if style == "csv" and len(cells) == 1:
        cells = [pc.if_else(pc.equal(cells[0], ""), '""', cells[0])]
    pieces: list[Any] = []
    for prefix, column in zip(prefixes, cells):
        pieces += [pa.scalar(prefix, pa.large_string()), column]
    pieces.append(pa.scalar(suffix, pa.large_string()))
    lines = pc.binary_join_element_wise(*pieces, pa.scalar("", pa.large_string()))
    offsets = memoryview(lines.buffers()[1]).cast("q")
    first, last = offsets[lines.offset], offsets[lines.offset + rows]
    return bytes(memoryview(lines.buffers()[2])[first:last])


def _is_one_text(column: Any) -> bool:
    """Whether a column is a list that repeats one text, as the names of files do."""
    return isinstance(column, list) and type(column[0]) is str and column.count(column[0]) == len(column)


def _arrow_cells(column: Any, style: Style) -> Any:
    """Texts of a column as an Arrow array of large strings without nulls."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    array = _simple_arrow_array(column)
    if array is None:
        return pa.array(_cells(column, style), pa.large_string())
    kind = array.type
    nothing = "" if style == "csv" else "null"
    if pa.types.is_boolean(kind):
        words = ("True", "False") if style == "csv" else ("true", "false")
        cells = pc.if_else(array, *[pa.scalar(word, pa.large_string()) for word in words])
    elif pa.types.is_integer(kind):
        cells = pc.cast(array, pa.large_string())
    elif pa.types.is_floating(kind):
        cells = _arrow_float_cells(array, style)
    elif pa.types.is_timestamp(kind):
        cells = _arrow_time_cells(array, style)
    else:
        cells = _arrow_text_cells(array, style)
    return pc.fill_null(cells, pa.scalar(nothing, pa.large_string()))


def _simple_arrow_array(column: Any) -> Any:
    """The column as an Arrow array of a kind whose texts are made by columns, or None."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(column, list):
        kinds = set(map(type, column)) - {type(None)}
        if len(kinds) != 1 or not kinds <= {str, int, float, bool}:
            return None
    elif _kind(column) is not None and getattr(column.dtype, "kind", "O") == "O" and not _is_text_series(column):
        return _simple_arrow_array(column.tolist())
    try:
        array = _arrow_array(column)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError):
        return None
    types = pa.types
    if types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if str(array.type) in {"string", "string_view"}:
        array = array.cast(pa.large_string())
    kind = array.type
    plain_time = types.is_timestamp(kind) and kind.tz is None
    simple = types.is_boolean(kind) or types.is_integer(kind) or types.is_large_string(kind) or plain_time
    return array if simple or types.is_float32(kind) or types.is_float64(kind) else None


def _is_text_series(column: Any) -> bool:
    return type(column.dtype).__name__ in {"StringDtype", "CategoricalDtype"}


def _arrow_array(column: Any) -> Any:
    """Any column as one Arrow array; NaN of floats is missing."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        array = column
    elif _kind(column) == ("numpy", "ndarray") and column.dtype.kind not in "fiubMm":
        array = pa.array(column.tolist(), from_pandas=True)
    else:
        array = pa.array(column, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _arrow_float_cells(array: Any, style: Style) -> Any:
    """Python's shortest texts: Arrow's digits are the same, its exponents and whole numbers look otherwise."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    if pa.types.is_float32(array.type):
        array = pc.cast(pc.cast(array, pa.string()), pa.float64())
    array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
    size = pc.abs(array)
    ordinary = pc.or_(pc.and_(pc.greater_equal(size, 1e-4), pc.less(size, 1e10)), pc.equal(size, 0.0))
    cells = pc.cast(array, pa.large_string())
    has_point = pc.match_substring(cells, ".")
    if pc.all(has_point).as_py() is False:
        whole = pc.binary_join_element_wise(cells, pa.scalar(".0", pa.large_string()), pa.scalar("", pa.large_string()))
        cells = pc.if_else(has_point, cells, whole)
    special = pc.fill_null(pc.invert(ordinary), fill_value=False)
    if pc.any(special).as_py() is False:
        return cells
    texts = [_float_cell(value, style) for value in array.filter(special).to_pylist()]
    return pc.replace_with_mask(cells, special, pa.array(texts, pa.large_string()))


def _arrow_time_cells(array: Any, style: Style) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    texts = pc.cast(pc.strftime(array, format="%Y-%m-%dT%H:%M:%S"), pa.large_string())
    texts = pc.replace_substring_regex(texts, r"(\.\d*?)0+$", r"\1")
    texts = pc.replace_substring_regex(texts, r"\.$", "")
    return texts if style == "csv" else _arrow_text_cells(texts, style)


def _arrow_text_cells(texts: Any, style: Style) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    unsafe = pc.match_substring_regex(texts, '[",\r\n]' if style == "csv" else '["\\\\\\x00-\\x1f]')
    quote, nothing = pa.scalar('"', pa.large_string()), pa.scalar("", pa.large_string())
    if style == "csv":
        if not pc.any(unsafe).as_py():
            return texts
        doubled = pc.binary_join_element_wise(quote, pc.replace_substring(texts, '"', '""'), quote, nothing)
        return pc.if_else(unsafe, doubled, texts)
    quoted = pc.binary_join_element_wise(quote, texts, quote, nothing)
    unsafe = pc.fill_null(unsafe, fill_value=False)
    escaped = [_json_text(text) for text in texts.filter(unsafe).to_pylist()]
    return pc.replace_with_mask(quoted, unsafe, pa.array(escaped, pa.large_string()))


def _arrow_bytes(table: dict[str, Any]) -> bytes:
    """One Arrow IPC stream. A column that Arrow cannot hold as one type becomes text; dictionaries become JSON."""
    import pyarrow as pa  # noqa: PLC0415

    arrays = {name: _typed_array(column) for name, column in table.items()}
    batch = pa.table(arrays)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_table(batch)
    return bytes(memoryview(sink.getvalue()))


def _typed_array(column: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    try:
        array = _arrow_array(column)
    except (pa.ArrowException, OverflowError, TypeError):
        return pa.array([json_ready_text(value) for value in _values(column)], pa.string())
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if str(array.type) in {"large_string", "string_view"}:
        return array.cast(pa.string())
    if pa.types.is_struct(array.type) or pa.types.is_map(array.type):
        return pa.array([json_ready_text(value) for value in _values(column)], pa.string())
    return array
