"""Fixtures of the acceptance stories: the shipped commands on a home folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from browser import browsing
from shipped import Shipped


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[Shipped]:
    """A fresh home; everything that was started for it is ended."""
    product = Shipped(tmp_path / "home")
    yield product
    product.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Shipped]]:
    """Workspaces of one server, for the stories of a file: to start a server takes longer than most of them."""
    product = Shipped(tmp_path_factory.mktemp("home"))
    yield (product.within(f"story-{number}") for number in count(1))
    product.stop()


@pytest.fixture
def shared(served: Iterator[Shipped]) -> Shipped:
    """A workspace of its own on the server that the stories of the file share."""
    return next(served)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    """Chromium with a fresh profile; what it saves is in ``downloads``."""
    (tmp_path / "downloads").mkdir()
    with browsing(downloads=tmp_path / "downloads") as opened:
        yield opened
