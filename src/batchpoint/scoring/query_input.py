"""Databases of a run: the rows of a query → one parquet file in the run's folder, read once, in one transaction.

The file is what the run scores, and what a resumed run and a retry of failed rows score again: whatever happens in the
database meanwhile, a row's number means the same row.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchpoint.entities.secrets import masked
from batchpoint.errors import DatastoreError, InputError
from batchpoint.scoring.spec import InputSpec, Location, ScoringSpec

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAME = "query.parquet"
SQLITE_SECONDS = 60.0
"""How long to wait for a program that writes into a SQLite database."""
_ROWS_AT_ONCE = 65_536
"""Rows of a row group: what is held in memory, and what the file can be cut at."""

_POSTGRESQL_TYPES = {
    "boolean": "bool", "smallint": "int16", "integer": "int32", "bigint": "int64", "real": "float",
    "double precision": "double", "numeric": "double", "date": "date32", "timestamp without time zone": "timestamp[us]",
    "timestamp with time zone": "timestamp[us, tz=UTC]",
}  # fmt: skip
"""PostgreSQL's types in Arrow's words; every other one is read as text. ``numeric`` loses digits beyond a double's."""


def database_url(url: str, options: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole address of a database, password included: of a datastore (``azureml://datastores/<name>``) its own.

    Args:
        url: as a specification names it.
        options: for each datastore of type ``sql``, ``url``: its whole address.
    """
    name = url.removeprefix("azureml://datastores/").strip("/")
    return str(options[name]["url"]) if name != url and name in options else url


def columns_of(url: str, query: str) -> list[str]:
    """The columns that a query gives, found without reading a row.

    Raises:
        InputError: there is no such database, or it does not understand the query.
        DatastoreError: the database does not answer.
    """
    with _translated(url):
        if _is_sqlite(url):
            with closing(_sqlite(url)) as connection:
                return [column[0] for column in connection.execute(_without_rows(query)).description]
        with closing(_postgresql(url)) as connection:
            return list(_postgresql_columns(connection, query))


def as_files(spec: ScoringSpec, folder: Path, options: Mapping[str, Mapping[str, Any]]) -> ScoringSpec:
    """The run with the rows of its query in a file; one without a query is returned as it is.

    Args:
        spec: the run.
        folder: the run's folder.
        options: for each datastore of type ``sql``, ``url``: its whole address.

    Raises:
        InputError: there is no such database, it does not understand the query, or it gives no row.
        DatastoreError: the database does not answer.
    """
    if spec.input.query is None:
        return spec
    target = folder / "inputs" / FILE_NAME
    earlier = Path(spec.retry_of) / "inputs" / FILE_NAME if spec.retry_of else None
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if earlier is not None and earlier.exists():
            os.link(earlier, target)
        else:
            _write(database_url(spec.input.locations[0].url, options), spec.input.query, target)
    read = InputSpec(type="uri_file", locations=[Location(url=str(target))])
    return spec.model_copy(update={"input": read})


def with_table(spec: ScoringSpec, *, options: Mapping[str, Mapping[str, Any]]) -> ScoringSpec:
    """The run with the whole address of the database that its predictions go to; never to be written down."""
    table = spec.output.table
    if table is None:
        return spec
    whole = table.model_copy(update={"url": database_url(table.url, options)})
    return spec.model_copy(update={"output": spec.output.model_copy(update={"table": whole})})


def _write(url: str, query: str, target: Path) -> None:
    """Write the rows of a query into a parquet file, which appears whole or not at all."""
    from pyarrow import parquet  # noqa: PLC0415 -- costs 0.1 s, and most runs need no database

    partial = target.with_name(f"{target.name}.partial")
    with _translated(url):
        schema, tables = (_sqlite_tables if _is_sqlite(url) else _postgresql_tables)(url, query, target.parent)
        rows = 0
        with parquet.ParquetWriter(partial, schema) as writer:
            for table in tables:
                rows += table.num_rows
                writer.write_table(table.cast(schema))
    if not rows:
        partial.unlink()
        raise InputError(f"The query gives no row: {_shortened(query)}")
    partial.replace(target)


# ------------------------------------------------------------------------------------------------------------- SQLite


def _is_sqlite(url: str) -> bool:
    return url.startswith("sqlite:")


def _sqlite(url: str) -> sqlite3.Connection:
    path = Path(url.removeprefix("sqlite:///"))
    if not path.is_file():
        raise InputError(f"There is no database {path}.")
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=SQLITE_SECONDS, isolation_level=None
    )


def _sqlite_tables(url: str, query: str, folder: Path) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """SQLite's values have types, its columns have none: the types are known when all rows were seen.

    So the rows are put down in pieces first, each with the types of its own values, and joined afterwards.
    """
    import pyarrow as pa  # noqa: PLC0415 -- see _write
    from pyarrow import feather  # noqa: PLC0415 -- see _write

    pieces: list[Path] = []
    schemas: list[pa.Schema] = []
    with closing(_sqlite(url)) as connection:
        cursor = connection.execute(_bare(query))
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            table = pa.table([_column(values) for values in zip(*rows, strict=True)], names=names)
            pieces.append(folder / f"query-{len(pieces)}.arrow")
            schemas.append(table.schema)
            feather.write_feather(table, pieces[-1], compression="uncompressed")
    schema = _joined(schemas) if schemas else pa.schema([(name, pa.null()) for name in names])
    return schema, _read_back(pieces, schema)


def _column(values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415 -- see _write

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass  # numbers and texts in one column
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array([None if value is None else _text(value) for value in values])


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _joined(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One type for each column: that of all pieces, a number for integers beside floats, else text."""
    import pyarrow as pa  # noqa: PLC0415 -- see _write

    fields = []
    for each in zip(*schemas, strict=True):
        kinds = {field.type for field in each if not pa.types.is_null(field.type)}
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
        kind = kinds.pop() if len(kinds) == 1 else pa.float64() if kinds and numbers else pa.string()
        fields.append(pa.field(each[0].name, kind))
    return pa.schema(fields)


def _read_back(pieces: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    from pyarrow import feather  # noqa: PLC0415 -- see _write

    for piece in pieces:
        yield feather.read_table(piece).cast(schema)
        piece.unlink()


# --------------------------------------------------------------------------------------------------------- PostgreSQL


def _postgresql(url: str) -> Any:
    try:
        import psycopg  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "Reading from PostgreSQL needs the package psycopg: pip install 'batchpoint[postgres]'."
        raise InputError(message) from error
    connection = psycopg.connect(re.sub(r"^postgres(ql)?(\+psycopg)?://", "postgresql://", url), connect_timeout=15)
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("SET TIME ZONE 'UTC'")
    return connection


def _postgresql_columns(connection: Any, query: str) -> dict[str, str]:
    """Name and Arrow type of each column."""
    described = connection.execute(_without_rows(query).encode()).description
    names = [column.name for column in described]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"The query gives several columns named {', '.join(twice)}. Name each its own way with AS.")
    wanted = [column.type_code for column in described]
    kinds = connection.execute("SELECT format_type(kind, NULL) FROM unnest(%s::oid[]) AS kind", [wanted]).fetchall()
    return {name: _POSTGRESQL_TYPES.get(kind, "string") for name, (kind,) in zip(names, kinds, strict=True)}


def _postgresql_tables(url: str, query: str, folder: Path) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """COPY gives the rows as csv, which Arrow reads by columns: no row passes through Python."""
    import pyarrow as pa  # noqa: PLC0415 -- see _write

    copied = folder / "query.csv"
    with closing(_postgresql(url)) as connection:
        columns = _postgresql_columns(connection, query)
        statement = f"COPY (\n{_bare(query)}\n) TO STDOUT (FORMAT csv)".encode()
        with copied.open("wb") as file, connection.cursor().copy(statement) as copy:
            for piece in copy:
                file.write(piece)
    schema = pa.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])
    return schema, _csv_tables(copied, schema)


def _csv_tables(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa  # noqa: PLC0415 -- see _write
    from pyarrow import csv  # noqa: PLC0415 -- see _write

    if not path.stat().st_size:
        path.unlink()
        return
    read = csv.ReadOptions(column_names=schema.names, block_size=1 << 22)
    # COPY quotes an empty text and leaves a missing one bare.
    convert = csv.ConvertOptions(
        column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
        true_values=["t"], false_values=["f"],
    )  # fmt: skip
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as batches:
        for batch in batches:
            yield pa.Table.from_batches([batch])
    path.unlink()


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415 -- see _write

    zoned = {"timestamp[us]": pa.timestamp("us"), "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC")}
    return zoned.get(name) or pa.type_for_alias(name)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Whatever the driver says becomes an error that names the database, without its password.

    A database that does not answer may do so later; a query that it does not understand stays what it is.
    """
    try:
        yield
    except InputError:
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise DatastoreError(f"The database {url} is locked by another program.", url=url) from error
        raise InputError(f"The query cannot be asked of {url}: {error}.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "psycopg":
            raise
        shown = masked(url)
        if "OperationalError" in (kind.__name__ for kind in type(error).__mro__):
            raise DatastoreError(f"The database {shown} does not answer: {str(error).strip()}.", url=shown) from error
        raise InputError(f"The query cannot be asked of {shown}: {str(error).strip()}.") from error


def _bare(query: str) -> str:
    return query.strip().rstrip(";")


def _without_rows(query: str) -> str:
    # On lines of its own, or a comment at its end would swallow what follows. Nothing is injected: the user's own SQL
    # is what is asked, in a transaction that cannot write.
    return f"SELECT * FROM (\n{_bare(query)}\n) AS given LIMIT 0"  # noqa: S608 - see above


def _shortened(query: str) -> str:
    text = " ".join(query.split())
    return text if len(text) <= 300 else f"{text[:300]}…"
