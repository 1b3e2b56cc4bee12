"""What ``run()`` returned → columns, and which items its rows stand for. Nothing is written here.

Runs under the deployment's interpreter: imports the standard library alone, and touches pandas, numpy, polars and
pyarrow only when a result is theirs. The code keeps to Python 3.7: environments of older models have it.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing import Literal

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


class Beside(NamedTuple):
    """What stands beside the columns of a result, as the job's output says."""

    row_keys: bool
    key_columns: list[str]
    passthrough: list[str]
    rename: dict[str, str]


def count(result: Any) -> int:
    """How many rows a result has.

    Raises:
        TypeError: it is neither a list nor a table.
    """
    kind = kind_of(result)
    if kind is None or (kind == ("numpy", "ndarray") and result.ndim == 0):
        message = (
            "The run() method in the entry script should return a list or a pandas DataFrame. "
            f"The actual type of output is {type(result)}."
        )
        raise TypeError(message)
    return result.num_rows if kind[0] == "pyarrow" else len(result)


def missing(result: Any, rows: int, part: dict[str, Any]) -> list[int] | None:
    """Positions in the mini-batch of the items without a row; None when only their number is known."""
    start, stop = part["start"], part["stop"]
    if rows >= stop - start:
        return []
    if rows == 0:
        return list(range(start, stop))
    positions = _positions(result, rows, part)
    if isinstance(positions, list):
        return sorted(set(range(start, stop)) - {start + position for position in positions})
    return None


def output_columns(result: Any, rows: int, part: dict[str, Any], beside: Beside) -> dict[str, Any]:
    """Keys, passed-through input columns, and the columns of the result, by their names in the output.

    Each is a list, a pandas Series, a numpy or an Arrow array. There are none where there are no rows to tell them by.

    Raises:
        ValueError: a key or passthrough column is not in the input, the result has rows but no columns, or two columns
            would have one name.
    """
    table = tabulate(result)
    if not table and rows == 0:
        return {}
    table = renamed({**_leading_columns(result, rows, part, beside, set(table)), **table}, beside.rename)
    if not table:
        message = "The table that the run() method returned has rows, but no columns."
        raise ValueError(message)
    return table


def kind_of(value: Any) -> tuple[str, str] | None:
    """Package and name of the class, or of the nearest base class, that results may have."""
    for cls in type(value).__mro__:
        found = (cls.__module__.partition(".")[0], cls.__name__)
        if found in _KINDS:
            return found
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
    kind = kind_of(result)
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


def _leading_columns(result: Any, rows: int, part: dict[str, Any], beside: Beside, taken: set[str]) -> dict[str, Any]:
    """Keys, then passed-through input columns. A result column of the same name renames a key, drops the other."""
    positions = _positions(result, rows, part)
    frame = part.get("frame")
    keys: dict[str, Any] = {}
    if beside.row_keys:
        if beside.key_columns and frame is not None:
            keys = {name: _picked(_input_column(frame, name, "key"), rows, positions) for name in beside.key_columns}
        else:
            keys = _file_keys(part, rows, positions)
    leading = {f"input_{name}" if name in taken else name: column for name, column in keys.items()}
    if frame is not None and beside.passthrough:
        wanted = [str(name) for name in frame.columns] if "*" in beside.passthrough else beside.passthrough
        for name in wanted:
            if name not in taken and name not in keys:
                leading[name] = _picked(_input_column(frame, name, "passthrough"), rows, positions)
    return leading


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
    package, name = kind_of(result) or ("", "")
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
    return kind_of(value) == ("numpy", "ndarray") and value.ndim == 1


def renamed(table: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Columns by the names that they have in the output.

    Raises:
        ValueError: two columns would have one name.
    """
    found = {names.get(name, name): column for name, column in table.items()}
    if len(found) < len(table):
        taken = sorted(new for old, new in names.items() if old in table and new in table and new not in names)
        message = f"rename gives a column the name {taken[0]!r}, which another column of the output has already."
        raise ValueError(message)
    return found
