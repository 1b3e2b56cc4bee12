"""Fixtures of the integration ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, create_engine, event, text

from batchpoint.background.service import Background
from batchpoint.cli.main import run
from batchpoint.registry import Registry, migrations
from batchpoint.registry.database import schema_version
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from fake_server import FakeServer, fake_server
from integration.served import FAKE_RUNNER, declare_churn
from postgres_server import running_postgres

Upgrade = Callable[[Connection], None]


@pytest.fixture(scope="session", autouse=True)
def migrated_by_alembic() -> Iterator[Upgrade]:
    """What migrates; it does so for the first empty database of each kind, and is never asked by those after it.

    They are sent the statements that it sent: to find those out takes it longer than most stories take.
    """
    upgrade, head, sent = migrations.upgrade, migrations.HEAD, {}

    def replayed(connection: Connection) -> None:
        kind = connection.dialect.name
        if schema_version(connection) is not None or head != migrations.HEAD:
            upgrade(connection)
        elif kind in sent:
            for statement, parameters in sent[kind]:
                connection.exec_driver_sql(statement, parameters)
        else:
            sent[kind] = statements_of(connection, upgrade)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "upgrade", replayed)
        yield upgrade


def statements_of(connection: Connection, upgrade: Upgrade) -> list[tuple[str, Any]]:
    """Upgrade, and tell what was sent that changes something."""
    sent: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if not statement.lstrip().startswith(("SELECT", "PRAGMA")):
            sent.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    upgrade(connection)
    event.remove(connection, "before_cursor_execute", note)
    return sent


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of an empty PostgreSQL database of this test session."""
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty registry database: SQLite in a fresh file, PostgreSQL with its tables dropped."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'registry.db'}"
    url: str = request.getfixturevalue("postgres_url")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


class Said(NamedTuple):
    """What a command line said, and what it ended with."""

    code: int
    out: str
    err: str


CommandLine = Callable[..., Said]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """The server that command lines speak to, from an empty folder."""
    with fake_server() as fake:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BATCHPOINT_URL", fake.url)
        monkeypatch.setenv("BATCHPOINT_TOKEN", "secret")
        monkeypatch.setenv("BATCHPOINT_HOME", str(tmp_path / "home"))
        yield fake


@pytest.fixture
def batchpoint(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Carry out a command line in this process; words with blanks follow the line."""

    def call(line: str, *more: str) -> Said:
        code = run([*line.split(), *more])
        return Said(code, *capsys.readouterr())

    return call


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """The clock of ``registry``."""
    return Clock()


@pytest.fixture
def registry(database_url: str, clock: Clock, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry, once on SQLite and once on PostgreSQL."""
    opened = Registry.open(database_url, tmp_path / "secret.key", now=clock)
    yield opened
    opened.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace on SQLite."""
    with Workspace.open(Settings(home=tmp_path / "home", max_request_bytes=100_000)) as opened:
        yield opened


@pytest.fixture
def churn(workspace: Workspace) -> Workspace:
    """The workspace, with an endpoint that is ready to be invoked."""
    declare_churn(workspace)
    return workspace


@pytest.fixture
def context(churn: Workspace) -> Iterator[Context]:
    """What serves ``churn``: the loops run, with runners that score nothing."""
    background = Background(churn, runner_parent=FAKE_RUNNER)
    background.start()
    found = Context(churn, background, server_id="s1", shares_files=True)
    yield found
    found.background.stop()  # not the first one's a second time: a test may have put another in its place


@pytest.fixture
def background(context: Context) -> Background:
    """The loops that run."""
    return context.background
