"""Fixtures of the acceptance stories: the shipped commands on a home folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shipped import Shipped


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[Shipped]:
    """A fresh home; everything that was started for it is ended."""
    product = Shipped(tmp_path / "home")
    yield product
    product.stop()
