"""Fixtures of the integration ring."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from batchpoint.registry import Registry
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
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
