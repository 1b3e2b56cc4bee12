"""Fixtures of the integration ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import create_engine, text

from batchpoint.cli.main import run
from batchpoint.registry import Registry
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from fake_server import FakeServer, fake_server
from postgres_server import running_postgres


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
    with Workspace.open(Settings(home=tmp_path / "home")) as opened:
        yield opened
