"""Slices of parquet → DataFrame, or Arrow table. The last file, and its last row group, are kept.

Runs under the interpreter of the deployment's environment: only the standard library is imported at the top.
"""

from __future__ import annotations

from typing import Any, Mapping

from . import csv_records


def read(piece: Mapping[str, Any], first: int, last: int) -> Any:
    """The rows ``first`` to ``last`` of a slice as a DataFrame.

    Raises:
        csv_records.UnreadableRowsError: there is no pyarrow, or it cannot read them.
        OSError: the file cannot be read: it is not its content that is at fault.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 -- the user's own, and may be absent
    except ImportError:
        message = "Reading parquet needs pyarrow in the deployment's environment. Add it to its packages."
        raise csv_records.UnreadableRowsError(message) from None
    first, last = piece["first_row"] + first, piece["first_row"] + last
    try:
        table = arrow_rows(piece["path"], first, last)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the file is gone, or its disk fails
        raise csv_records.UnreadableRowsError(f"{piece['name']}, rows {first} to {last}: {error}") from None
    return table.to_pandas(use_threads=False, ignore_metadata=True)


def arrow_rows(path: str, first: int, last: int) -> Any:
    """Rows of a parquet file as an Arrow table. Raises what pyarrow raises."""
    import pyarrow as pa  # noqa: PLC0415 -- the user's own, known to be there
    from pyarrow import parquet  # noqa: PLC0415 -- the same

    if _Memory.path != path:
        _Memory.path, _Memory.file, _Memory.group_key = path, parquet.ParquetFile(path), None
    tables = []
    passed = 0
    for group in range(_Memory.file.metadata.num_row_groups):
        rows = _Memory.file.metadata.row_group(group).num_rows
        if passed < last and passed + rows > first:
            if _Memory.group_key != (path, group):
                try:
                    _Memory.group = _Memory.file.read_row_group(group, use_threads=False)
                except OSError:
                    _Memory.path = None  # as with the files that stay open
                    raise
                _Memory.group_key = (path, group)
            begin = max(first - passed, 0)
            tables.append(_Memory.group.slice(begin, min(last - passed, rows) - begin))
        passed += rows
    return pa.concat_tables(tables)


class _Memory:
    """The file and the row group that were read last."""

    path: str | None = None
    file: Any = None
    group_key: tuple[str, int] | None = None
    group: Any = None
