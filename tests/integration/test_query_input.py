"""Rows of a database as an input: read once, typed, and the same for whoever scores them again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchpoint.errors import DatastoreError, InputError
from batchpoint.scoring import query_input
from batchpoint.scoring.query_input import FILE_NAME, as_files, columns_of
from batchpoint.scoring.spec import InputSpec, Location, OutputSpec, ScoringSpec, ScriptSpec, SplitSpec

QUERY = "SELECT ts, device, value, note, ok FROM readings ORDER BY device"


def spec_of(url: str, query: str = QUERY, *, retry_of: Path | None = None) -> ScoringSpec:
    return ScoringSpec(
        job="job",
        python="python",
        script=ScriptSpec(kind="script", path="/score.py", takes="dataframe"),
        input=InputSpec(locations=[Location(url=url)], query=query),
        split=SplitSpec(by="rows", rows=10),
        output=OutputSpec(folder=Location(url="/out")),
        retry_of=str(retry_of) if retry_of else None,
    )


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    path = tmp_path / "readings.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE readings (ts TEXT, device INTEGER, value REAL, note TEXT, ok INTEGER)")
        rows = [("2018-08-28 23:00:05", 1, 1.5, 'a "quoted",\nnote', 1), ("2018-08-28 23:00:10", 2, None, "", 0)]
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", [*rows, (None, 3, 2, None, None)])
    return f"sqlite:///{path}"


@pytest.fixture
def readings_url(postgres_url: str) -> Iterator[str]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS readings")
        connection.execute(
            "CREATE TABLE readings (ts timestamptz, device integer, value double precision, note text, ok boolean)"
        )
        connection.execute(
            "INSERT INTO readings VALUES ('2018-08-28 23:00:05.25+02', 1, 1.5, E'a \"quoted\",\\nnote', true),"
            " ('2018-08-28 23:00:10+00', 2, NULL, '', false), (NULL, 3, 2, NULL, NULL)"
        )
        yield postgres_url
        connection.execute("DROP TABLE readings")


def rows_of(spec: ScoringSpec, folder: Path, **options: dict[str, str]) -> list[dict[str, object]]:
    read = as_files(spec, folder, options)
    assert read.input.query is None
    rows: list[dict[str, object]] = pq.read_table(read.input.locations[0].url).to_pylist()
    return rows


def test_the_rows_of_a_sqlite_query_keep_their_types_and_their_gaps(sqlite_url: str, tmp_path: Path) -> None:
    rows = rows_of(spec_of(sqlite_url), tmp_path / "run")
    assert [row["device"] for row in rows] == [1, 2, 3]
    assert [row["value"] for row in rows] == [1.5, None, 2.0]
    assert [row["note"] for row in rows] == ['a "quoted",\nnote', "", None]
    assert [path.name for path in (tmp_path / "run" / "inputs").iterdir()] == [FILE_NAME]


def test_a_sqlite_column_of_several_types_becomes_the_one_that_holds_them_all(tmp_path: Path) -> None:
    path = tmp_path / "mixed.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mixed (a, b)")
        connection.executemany("INSERT INTO mixed VALUES (?, ?)", [(1, 1), (2.5, "two"), (None, None)])
    rows = rows_of(spec_of(f"sqlite:///{path}", "SELECT a, b FROM mixed"), tmp_path / "run")
    assert rows == [{"a": 1.0, "b": "1"}, {"a": 2.5, "b": "two"}, {"a": None, "b": None}]


@pytest.mark.postgres
def test_the_rows_of_a_postgresql_query_keep_their_types_and_their_gaps(readings_url: str, tmp_path: Path) -> None:
    read = as_files(spec_of(readings_url), tmp_path / "run", {})
    table = pq.read_table(read.input.locations[0].url)
    assert [str(field.type) for field in table.schema] == ["timestamp[us, tz=UTC]", "int32", "double", "string", "bool"]
    rows = table.to_pylist()
    assert str(rows[0]["ts"]) == "2018-08-28 21:00:05.250000+00:00"
    assert [row["note"] for row in rows] == ['a "quoted",\nnote', "", None]
    assert [row["ok"] for row in rows] == [True, False, None]
    assert [row["ts"] is None for row in rows] == [False, False, True]


@pytest.mark.postgres
def test_the_password_of_a_datastore_opens_the_database_and_stands_nowhere_else(
    readings_url: str, tmp_path: Path
) -> None:
    rows = rows_of(spec_of("azureml://datastores/readings"), tmp_path / "run", readings={"url": readings_url})
    assert len(rows) == 3


def test_a_resumed_run_scores_the_rows_that_it_read_first(sqlite_url: str, tmp_path: Path) -> None:
    before = rows_of(spec_of(sqlite_url), tmp_path / "run")
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM readings WHERE device = 1")
    assert rows_of(spec_of(sqlite_url), tmp_path / "run") == before


def test_a_retry_scores_the_rows_of_the_job_that_it_retries(sqlite_url: str, tmp_path: Path) -> None:
    before = rows_of(spec_of(sqlite_url), tmp_path / "first")
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM readings")
    assert rows_of(spec_of(sqlite_url, retry_of=tmp_path / "first"), tmp_path / "again") == before


def test_a_query_cannot_change_the_database(sqlite_url: str, tmp_path: Path) -> None:
    for statement in ("DELETE FROM readings", "SELECT 1; DELETE FROM readings", "DROP TABLE readings"):
        with pytest.raises(InputError, match="cannot be asked"):
            columns_of(sqlite_url, statement)
    assert len(rows_of(spec_of(sqlite_url), tmp_path / "run")) == 3


@pytest.mark.postgres
def test_a_query_that_postgresql_does_not_understand_says_so_without_the_password(readings_url: str) -> None:
    assert columns_of(readings_url, QUERY + ";") == ["ts", "device", "value", "note", "ok"]
    with pytest.raises(InputError, match='column "nothing" does not exist'):
        columns_of(readings_url, "SELECT nothing FROM readings")
    with pytest.raises(InputError, match="several columns named device"):
        columns_of(readings_url, "SELECT device, device FROM readings")
    with pytest.raises(DatastoreError, match="does not answer") as refused:
        columns_of("postgresql://me:secret@127.0.0.1:1/none", QUERY)
    assert "secret" not in str(refused.value)
    assert refused.value.retryable


def test_a_locked_sqlite_database_may_be_asked_again(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_input, "SQLITE_SECONDS", 0.05)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatastoreError, match="is locked by another program"):
            columns_of(sqlite_url, QUERY)


def test_a_query_without_rows_is_an_input_without_rows(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives no row: SELECT ts FROM readings WHERE device = 9"):
        as_files(spec_of(sqlite_url, "SELECT ts FROM readings WHERE device = 9"), tmp_path / "run", {})
    assert not list((tmp_path / "run" / "inputs").iterdir())


def test_many_rows_are_read_in_pieces_and_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE many (n INTEGER)")
        connection.executemany("INSERT INTO many VALUES (?)", ((n,) for n in range(150_000)))
    read = as_files(spec_of(f"sqlite:///{path}", "SELECT n FROM many"), tmp_path / "run", {})
    file = pq.ParquetFile(read.input.locations[0].url)
    assert file.num_row_groups == 3
    assert file.read()["n"].equals(pa.chunked_array([pa.array(range(150_000), pa.int64())]))
