"""The commands of the tutorial, the how-to pages and the like, run line by line as a reader would, on an empty home."""

from __future__ import annotations

import re
from collections import defaultdict
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


def test_no_page_names_a_job_as_the_tour_or_another_page_does() -> None:
    """A reader goes from one to the next in one home, where a name is given once."""
    pages_of = defaultdict(set)
    for page in [CHECKOUT / "README.md", *PAGES]:
        for step in steps_of(page.read_text()):
            for name in re.findall(r"--job-name (\S+)|job create .*--name (\S+)", step.command):
                if not step.command.startswith("batchpoint pipeline publish"):  # that names a job that there is
                    pages_of["".join(name)].add(page.name)
    assert "monday" in pages_of
    assert {name: pages for name, pages in pages_of.items() if len(pages) > 1} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_page_counts_on_a_home_that_the_reader_never_named(page: Path) -> None:
    assert [step.command for step in steps_of(page.read_text()) if "$BATCHPOINT_HOME" in step.command] == []
