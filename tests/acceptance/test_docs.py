"""The commands of the tutorial, the how-to pages and the like, run line by line as a reader would, on an empty home."""

from __future__ import annotations

from pathlib import Path

import pytest

from console_fences import CHECKOUT, run_page, steps_of
from shipped import Shipped

PAGES = [
    page
    for page in [
        CHECKOUT / "docs" / "tutorial.md",
        CHECKOUT / "docs" / "azureml.md",
        *sorted((CHECKOUT / "docs" / "how-to").glob("*.md")),
    ]
    if list(steps_of(page.read_text())) and not page.name.startswith("call-from-")
]
"""Without those that test_other_callers.py runs, with more than their commands."""


@pytest.mark.timeout(280)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_page_prints_what_the_page_shows(page: Path, shipped: Shipped, tmp_path: Path) -> None:
    run_page(page, shipped, tmp_path, at_least=1)
