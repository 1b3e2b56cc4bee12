"""The documents say what is there, and what they point to exists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from batchpoint.entities.assets import Model
from batchpoint.entities.base import Entity
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import JobStatus, Reason
from batchpoint.entities.resources import Compute
from batchpoint.errors import BY_CODE
from batchpoint.settings import Settings


def test_every_setting_is_documented(root: Path) -> None:
    text = (root / "docs" / "settings.md").read_text()
    declared = {f"BATCHPOINT_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert set(re.findall(r"`(BATCHPOINT_[A-Z_]+)`", text)) == declared


def test_every_error_code_is_documented_with_its_class_and_whether_to_try_again(root: Path) -> None:
    text = (root / "docs" / "errors.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| `(\w+)` \|", text, re.MULTILINE))
    assert documented == {code: error.__name__ for code, error in BY_CODE.items()}
    again = dict(re.findall(r"^\| `([a-z_]+)` \| `\w+` \| (yes|no) \|", text, re.MULTILINE))
    assert again == {code: "yes" if error.retryable else "no" for code, error in BY_CODE.items()}


def test_every_job_status_and_reason_is_documented(root: Path) -> None:
    text = (root / "docs" / "jobs.md").read_text()
    assert [str(status) for status in JobStatus if f"`{status}`" not in text] == []
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (completed|failed|canceled) \|", text, re.MULTILINE))
    assert documented == {str(reason): str(reason.status) for reason in Reason}


def test_the_drawing_of_the_layout_names_every_folder_and_scoring_module(root: Path) -> None:
    text = (root / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"^(?:│   )?[├└]── (\S+)", text, re.MULTILINE))
    package = root / "src" / "batchpoint"
    tops = {path.name + "/" * path.is_dir() for path in package.iterdir() if path.suffix in {".py", ""}}
    scoring = {path.name for path in (package / "scoring").glob("*.py")}
    there = {name for name in tops | scoring if name not in {"__pycache__/", "__init__.py"}}
    assert there - drawn == set()


def test_links_between_documents_lead_somewhere(root: Path, tracked: list[Path]) -> None:
    broken = [
        f"{path.relative_to(root)}: {target}"
        for path in tracked
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("heading", ["Context", "Decision", "Consequence"])
def test_every_decision_has_its_three_parts(root: Path, heading: str) -> None:
    pages = sorted((root / "docs" / "decisions").glob("[0-9]*.md"))
    assert pages
    assert [page.name for page in pages if f"\n## {heading}\n" not in page.read_text()] == []
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == list(range(1, len(pages) + 1))


def test_every_example_has_a_readme_and_is_listed(root: Path) -> None:
    listed = (root / "examples" / "README.md").read_text()
    folders = [path for path in (root / "examples").iterdir() if path.is_dir() and list(path.glob("*.yml"))]
    assert folders
    assert [path.name for path in folders if not (path / "README.md").is_file()] == []
    assert [path.name for path in folders if f"({path.name}/README.md)" not in listed] == []


@pytest.mark.parametrize(
    ("pattern", "entity"),
    [
        ("*/model.yml", Model),
        ("*/compute.yml", Compute),
        ("*/endpoint.yml", BatchEndpoint),
        ("*/deployment.yml", BatchDeployment),
    ],
)
def test_every_declaration_of_the_examples_is_valid(root: Path, pattern: str, entity: type[Entity]) -> None:
    paths = sorted((root / "examples").glob(pattern))
    assert paths
    for path in paths:
        entity.model_validate(yaml.safe_load(path.read_text()))


def test_the_makefile_lists_every_target_of_the_contributors_page(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (root / "Makefile").read_text(), re.MULTILINE))
    asked = set()
    for page in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        asked |= set(re.findall(r"`make ([a-z]+)", (root / page).read_text()))
    assert asked - targets == set()
