"""The database: engine, transactions, SQLite's pragmas, UTC times, bringing the schema up to date.

SQLite and PostgreSQL behave alike from here on. Writing transactions start with ``BEGIN IMMEDIATE`` on SQLite: a
deferred one that reads and then writes fails with *busy* whatever the time-out. Nothing slow happens inside one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, DateTime, Dialect, Engine, TypeDecorator, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError

from batchpoint.errors import ConflictError, InvalidEntityError, RegistryError
from batchpoint.registry import migrations

T = TypeVar("T")

_MIGRATION_LOCK = 7_214_090_311
"""Key of the PostgreSQL advisory lock under which one process at a time changes the schema."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime. SQLite forgets time zones, so they are taken off and put back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; a naive datetime is a mistake of the program."""
        if value is None:
            return None
        assert value.tzinfo is not None, "times in the registry are aware"
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Give the time zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """Connections to one registry database.

    Args:
        url: SQLAlchemy address, ``sqlite:///path`` or ``postgresql://user@host/name``.
        busy_seconds: how long a statement waits for another process's lock before it gives up.

    Raises:
        RegistryError: the address is not understood, or its driver is not installed.
    """

    def __init__(self, url: str, *, busy_seconds: float = 30) -> None:
        self.busy_seconds = busy_seconds
        self.engine = _create_engine(url, busy_seconds)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.place = self.engine.url.render_as_string(hide_password=True)
        self._check: Callable[[Connection], None] | None = None

    def checked(self, check: Callable[[Connection], None]) -> Database:
        """The same database, for writers whose transactions all begin with a check that may refuse them."""
        database = copy(self)
        database._check = check  # noqa: SLF001 - a copy of this one
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            InvalidEntityError: it asked for a text with NUL in it, which PostgreSQL does not take.
            RegistryError: the database does not answer.
        """
        try:
            with self._translated(), self.engine.connect() as connection:
                yield connection
        except RegistryError as error:
            if isinstance(error.__cause__, DataError) and "NUL" in str(error.__cause__.orig):
                raise InvalidEntityError("The character NUL was asked for, which no name or text holds.") from error
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, rolled back by any exception.

        Raises:
            RegistryError: the database does not answer, or stayed locked for ``busy_seconds``.
            BatchpointError: what the check raises, for a database that has one.
        """
        writing = self.engine.execution_options(batchpoint_writes=True)
        with self._translated(), writing.begin() as connection:
            if self._check is not None:
                self._check(connection)
            yield connection

    def store(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` in a writing transaction; once more when another process stored the same key just before.

        Raises:
            ConflictError: what the entity belongs to was deleted meanwhile.
            RegistryError: the database does not answer.
        """
        try:
            with self.write() as connection:
                return work(connection)
        except IntegrityError:
            pass  # now the other's row is there to be seen
        try:
            with self.write() as connection:
                return work(connection)
        except IntegrityError as error:
            message = "It was changed at the same time from elsewhere, or what it belongs to was deleted. Try again."
            raise ConflictError(message) from error

    def migrate(self) -> None:
        """Bring the schema up to this program's version; safe when several processes do so at once.

        Raises:
            RegistryError: the database was made by a newer program, or does not answer.
        """
        with self._translated():
            if self.is_sqlite:
                _use_write_ahead_log(str(self.engine.url.database), self.busy_seconds)
        with self.read() as connection:
            if schema_version(connection) == migrations.HEAD:
                return
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            version = schema_version(connection)
            if version not in migrations.KNOWN and version is not None:
                raise RegistryError(
                    f"The registry database {self.place} has schema version {version}, which this batchpoint does not "
                    f"know (its own is {migrations.HEAD}): a newer batchpoint has used it. Upgrade batchpoint, or give "
                    "another home with BATCHPOINT_HOME."
                )
            if version != migrations.HEAD:
                migrations.upgrade(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise RegistryError(self._explain(str(error.orig).strip())) from error
        except sqlite3.Error as error:  # while connecting, before SQLAlchemy wraps anything
            raise RegistryError(self._explain(str(error))) from error

    def _explain(self, reason: str) -> str:
        if "locked" in reason or "busy" in reason:
            return (
                f"The registry database {self.place} stayed locked for {self.busy_seconds:g} s: another program holds "
                "it in a long transaction. End that program, or try again."
            )
        if "not a database" in reason or "malformed" in reason:
            return (
                f"{self.place} is not a usable registry database ({reason}). Restore it from a backup, or move it away."
            )
        if "unable to open" in reason or "readonly" in reason:
            return (
                f"The registry database {self.place} cannot be opened for writing ({reason}). Check folder and rights."
            )
        if "disk is full" in reason or "No space left" in reason:
            return f"The disk of the registry database {self.place} is full. Make room and try again."
        return f"The registry database {self.place} does not answer: {reason}"


def schema_version(connection: Connection) -> str | None:
    """Version of the schema; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version


def _create_engine(url: str, busy_seconds: float) -> Engine:
    try:
        address = make_url(url)
        if address.drivername in {"postgresql", "postgres"}:
            address = address.set(drivername="postgresql+psycopg")
        if address.get_backend_name() not in {"sqlite", "postgresql"}:
            raise RegistryError(f"The registry needs SQLite or PostgreSQL; {address.get_backend_name()} is neither.")
        if address.get_backend_name() == "sqlite":
            return _create_sqlite_engine(address.database, address, busy_seconds)
        return create_engine(address, pool_pre_ping=True, pool_size=5, max_overflow=25)
    except (ArgumentError, NoSuchModuleError) as error:
        raise RegistryError(f"The registry's address cannot be used: {error}") from error
    except ModuleNotFoundError as error:
        message = f"The registry needs the package {error.name}. Install batchpoint[postgres]."
        raise RegistryError(message) from error


def _create_sqlite_engine(path: str | None, address: Any, busy_seconds: float) -> Engine:
    if not path or path == ":memory:":
        raise RegistryError("The registry needs a file: sqlite:///<path>. A database in memory forgets everything.")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        address, pool_size=5, max_overflow=45, connect_args={"timeout": busy_seconds, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; see _begin
        for pragma in ("foreign_keys = ON", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("batchpoint_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_write_ahead_log(path: str, busy_seconds: float) -> None:
    """Switch the file to WAL, once for ever. SQLite does not wait for locks while switching, so the wait is here."""
    give_up = time.monotonic() + busy_seconds
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
        time.sleep(0.05)
