"""The tour in the README, run line by line as a reader would, on an empty home."""

from __future__ import annotations

from pathlib import Path

import pytest

from console_fences import CHECKOUT, run_page
from shipped import Shipped


@pytest.mark.timeout(280)
def test_every_command_of_the_readme_tour_prints_what_the_readme_shows(shipped: Shipped, tmp_path: Path) -> None:
    run_page(CHECKOUT / "README.md", shipped, tmp_path, at_least=8)
