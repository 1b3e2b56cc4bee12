"""Columns → the bytes of a block of result rows, in the encoding of a job. Nothing is written here.

Runs under the deployment's interpreter, Python 3.7 or later, and imports the standard library alone. pyarrow is used
when there are many rows and it is installed. With pyarrow or without, the bytes of csv and jsonl are equal.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import TYPE_CHECKING, Any

from . import arrow_bytes
from .cells import cells_of
from .results import kind_of, output_columns

if TYPE_CHECKING:
    from typing import Literal

    from .cells import Style
    from .results import Beside

    Encoding = Literal["csv", "jsonl", "arrow", "azureml", "none"]

MANY_ROWS = {"csv": 400, "jsonl": 2000}
"""From so many rows on, pyarrow is quicker than Python alone."""
ROWS_WORTH_AN_IMPORT = 50_000
"""From so many rows on, that is so even where pyarrow must be imported first."""


def encoded(
    encoding: Encoding, result: Any, rows: int, part: dict[str, Any], beside: Beside
) -> tuple[Encoding, list[str], bytes]:
    """The encoding that was used (``jsonl`` for ``arrow`` without pyarrow), the names of the columns, and the bytes.

    Raises what ``results.output_columns`` raises.
    """
    if encoding == "none":
        return encoding, [], b""
    if encoding == "azureml":
        return (encoding, *_azureml_bytes(result, rows, part))
    table = output_columns(result, rows, part, beside)
    if not table:
        return encoding, [], b""
    if encoding == "arrow" and _is_installed("pyarrow"):
        return "arrow", list(table), arrow_bytes.ipc_stream(table)
    style: Style = "csv" if encoding == "csv" else "jsonl"
    return style, list(table), text_bytes(table, rows, style)


def text_bytes(table: dict[str, Any], rows: int, style: Style) -> bytes:
    """Columns as lines of csv, without a header, or of jsonl."""
    prefixes, suffix = _frame_of_line(list(table), style)
    if _is_worth_arrow(rows, style):
        written = arrow_bytes.csv_lines(table, rows) if style == "csv" and len(table) > 1 else None
        return arrow_bytes.joined_lines(table, rows, style, prefixes, suffix) if written is None else written
    cells = [cells_of(column, style) for column in table.values()]
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


def _is_worth_arrow(rows: int, style: Style) -> bool:
    if "pyarrow" in sys.modules:
        return rows >= MANY_ROWS[style] and sys.modules["pyarrow"] is not None
    return rows >= ROWS_WORTH_AN_IMPORT and _is_installed("pyarrow")


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def _azureml_bytes(result: Any, rows: int, part: dict[str, Any]) -> tuple[list[str], bytes]:
    """Azure's exact bytes: a table separated by spaces, or ``str()`` of each element, without header and keys.

    What the script for MLflow models returned has the name of the file beside each row: in a table as its last column,
    else as the list of both. The names of a table's columns go with it, for those who want them in the first line
    after all.
    """
    package, name = kind_of(result) or ("", "")
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
