"""Predictions into a table of SQLite or PostgreSQL, exactly once: all of a job's rows in one transaction."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchpoint.entities.endpoints import OutputTable
from batchpoint.entities.secrets import masked
from batchpoint.errors import OutputError

JOB_COLUMN = "job"
MARKER_TABLE = "batchpoint_outputs"
"""One row for each job and table: how many rows the job has there. Written in the transaction of the rows."""


def write_table(table: OutputTable, jobs: Sequence[str], schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Put a job's rows into a table in one transaction, in place of what these jobs had there.

    The table is made when it is absent, with a column ``job`` before the others; a column of the predictions that is
    called ``job`` is stored as ``result_job``. Running it again, after a crash too, leaves the same rows once.

    Args:
        table: URL of the database and name of the table.
        jobs: The job that the rows belong to, then earlier jobs whose rows they replace.
        schema: Columns of the rows.
        tables: The rows, in order, in pieces.

    Returns:
        How many rows were written.

    Raises:
        OutputError: the database cannot be reached, or the table's columns do not take the rows.
    """
    if not schema.names:
        return 0  # nothing succeeded, so no columns are known: a table made now would not take the next job's rows
    names = [f"result_{name}" if name == JOB_COLUMN else name for name in schema.names]
    types = [field.type for field in schema]
    rows = chain.from_iterable(_rows(jobs[0], piece) for piece in tables)
    if table.url.startswith("sqlite:///"):
        return _write_sqlite(table, jobs, names, types, rows)
    if re.match(r"postgres(ql)?(\+psycopg)?://", table.url):
        return _write_postgresql(table, jobs, names, types, rows)
    message = f"The output table's url {masked(table.url)} is neither sqlite:///<path> nor postgresql://…."
    raise OutputError(message)


def _rows(job: str, piece: pa.Table) -> Iterator[tuple[Any, ...]]:
    columns = [_database_values(column) for column in piece.columns]
    return zip([job] * piece.num_rows, *columns, strict=True)


def _database_values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)  # databases count microseconds
    values: list[Any] = column.to_pylist()
    if pa.types.is_nested(kind):
        return [None if value is None else json.dumps(value, default=str) for value in values]
    if pa.types.is_duration(kind):
        return [None if value is None else str(value) for value in values]
    return values


def _write_sqlite(
    table: OutputTable, jobs: Sequence[str], names: Sequence[str], types: Sequence[pa.DataType], rows: Iterator[Any]
) -> int:
    path = Path(table.url.removeprefix("sqlite:///"))
    target = _quoted_table(table.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            columns = [f"{_quoted(name)} {_sqlite_type(kind)}" for name, kind in zip(names, types, strict=True)]
            connection.execute(f"CREATE TABLE IF NOT EXISTS {target} ({_definition(columns)})")
            found = {row[1]: "" for row in connection.execute(f"PRAGMA table_info({target})")}
            _check_columns(table, found, dict.fromkeys([JOB_COLUMN, *names], ""))
            connection.executemany(f"DELETE FROM {target} WHERE job = ?", [(job,) for job in jobs])  # noqa: S608 - quoted
            places = ", ".join("?" * (len(names) + 1))
            insert = f"INSERT INTO {target} ({_column_list(names)}) VALUES ({places})"  # noqa: S608 - quoted
            written = connection.executemany(insert, ([_sqlite_value(value) for value in row] for row in rows)).rowcount
            count = max(written, 0)
            _mark(connection, table, jobs, count, place="?")
            connection.execute("COMMIT")
            return count
    except sqlite3.Error as error:
        message = f"The rows could not be written to table {table.name} of {path}: {error}. Nothing of them was kept."
        raise OutputError(message) from error


def _write_postgresql(
    table: OutputTable, jobs: Sequence[str], names: Sequence[str], types: Sequence[pa.DataType], rows: Iterator[Any]
) -> int:
    try:
        import psycopg  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "Writing to PostgreSQL needs the package psycopg: pip install 'batchpoint[postgres]'."
        raise OutputError(message) from error
    target = _quoted_table(table.name)
    kinds = [_postgresql_type(kind) for kind in types]
    url = re.sub(r"^postgres(ql)?(\+psycopg)?://", "postgresql://", table.url)
    try:
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            # Two jobs that make the same table at once would collide in PostgreSQL's catalogue.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"batchpoint:{table.name}"])
            columns = [f"{_quoted(name)} {kind}" for name, kind in zip(names, kinds, strict=True)]
            cursor.execute(_sql(f"CREATE TABLE IF NOT EXISTS {target} ({_definition(columns)})"))
            cursor.execute(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                [target],
            )
            wanted = dict(zip([JOB_COLUMN, *names], ["text", *kinds], strict=True))
            _check_columns(table, dict(cursor.fetchall()), wanted)
            cursor.execute(_sql(f"DELETE FROM {target} WHERE job = ANY(%s)"), [list(jobs)])  # noqa: S608 - quoted
            count = 0
            with cursor.copy(_sql(f"COPY {target} ({_column_list(names)}) FROM STDIN")) as copy:
                for row in rows:
                    copy.write_row(row)
                    count += 1
            _mark(cursor, table, jobs, count, place="%s")
            return count
    except psycopg.Error as error:
        message = (
            f"The rows could not be written to table {table.name} of {masked(table.url)}: {error}. "
            "Nothing of them was kept."
        )
        raise OutputError(message) from error


def _sql(text: str) -> Any:
    """A statement put together from quoted names, which psycopg's types would only take as a literal."""
    return text.encode()


def _mark(connection: Any, table: OutputTable, jobs: Sequence[str], rows: int, *, place: str) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {MARKER_TABLE}"
        " (job TEXT NOT NULL, table_name TEXT NOT NULL, row_count BIGINT NOT NULL, PRIMARY KEY (job, table_name))"
    )
    for job in jobs:
        connection.execute(
            f"DELETE FROM {MARKER_TABLE} WHERE job = {place} AND table_name = {place}",  # noqa: S608 - a constant
            (job, table.name),
        )
    connection.execute(
        f"INSERT INTO {MARKER_TABLE} VALUES ({place}, {place}, {place})",  # noqa: S608 - a constant
        (jobs[0], table.name, rows),
    )


def _check_columns(table: OutputTable, found: dict[str, str], wanted: dict[str, str]) -> None:
    """Every column of the rows must be there, with a type of the same family (SQLite keeps any value anywhere)."""
    missing = [name for name in wanted if name not in found]
    clashing = [
        f"{name} is {found[name]}, the rows need {kind}"
        for name, kind in wanted.items()
        if name in found and not _takes(found[name].lower(), kind.lower())
    ]
    faults = [*(f"{name} is missing" for name in missing), *clashing]
    if faults:
        message = (
            f"Table {table.name} exists, but its columns do not take the predictions: {'; '.join(faults)}. "
            "Change the table, or name another."
        )
        raise OutputError(message, columns=[*missing, *(fault.partition(" ")[0] for fault in clashing)])


def _takes(found: str, wanted: str) -> bool:
    families = [
        ("smallint", "integer", "bigint", "numeric", "real", "double precision"),
        ("text", "character varying", "character", "json", "jsonb"),
        ("timestamp without time zone", "timestamp with time zone", "timestamp", "timestamptz", "date"),
    ]
    if found == wanted or found in {"text", "character varying"}:
        return True
    if found in families[0][:3] and wanted in {"numeric", "real", "double precision"}:
        return False
    return any(found in family and wanted in family for family in families)


def _definition(columns: Sequence[str]) -> str:
    return ", ".join([f"{_quoted(JOB_COLUMN)} TEXT NOT NULL", *columns])


def _column_list(names: Sequence[str]) -> str:
    return ", ".join(_quoted(name) for name in [JOB_COLUMN, *names])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted_table(name: str) -> str:
    return ".".join(_quoted(piece) for piece in name.split("."))


def _sqlite_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "INTEGER"
    if pa.types.is_floating(kind):
        return "REAL"
    return "BLOB" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else "TEXT"


def _sqlite_value(value: Any) -> Any:
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


def _postgresql_type(kind: pa.DataType) -> str:
    types = pa.types
    checks = [
        (types.is_boolean, "boolean"),
        (types.is_uint64, "numeric"),
        (types.is_integer, "bigint"),
        (types.is_floating, "double precision"),
        (types.is_decimal, "numeric"),
        (types.is_date, "date"),
        (types.is_time, "time without time zone"),
        (types.is_binary, "bytea"),
        (types.is_large_binary, "bytea"),
        (types.is_nested, "jsonb"),
    ]
    if types.is_timestamp(kind):
        return "timestamp with time zone" if kind.tz else "timestamp without time zone"
    return next((name for check, name in checks if check(kind)), "text")
