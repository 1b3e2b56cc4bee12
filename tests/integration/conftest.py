"""Fixtures of the integration ring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postgres_server import running_postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of an empty PostgreSQL database of this test session."""
    with running_postgres() as url:
        yield url
