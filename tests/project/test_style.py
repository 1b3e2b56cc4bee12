"""What is tracked speaks of the project alone, in the project's own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOMES = re.compile(r"(?<![\w.$}/])/(?:root|home/\w+|Users/\w+|work|opt/\w+)/\w")
"""A path of somebody's machine; a text that only looks like one is written apart."""

OTHER_WORDS = {
    "minibatch": "mini-batch",
    "zygote": "fork server",
    "forkserver": "fork server",
}
"""Words that the glossary does not know → the word that it uses."""

TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".sh", ""}


def test_no_tracked_file_holds_a_path_of_somebodys_machine(root: Path, tracked: list[Path]) -> None:
    found = [
        f"{path.relative_to(root)}:{number}: {match[0]}"
        for path in tracked
        if path.suffix in TEXT and path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := HOMES.search(line))
    ]
    assert found == []


def test_constraints_are_plain_versions(root: Path) -> None:
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line)] == []


def test_no_large_file_is_tracked(root: Path, tracked: list[Path]) -> None:
    assert [str(path.relative_to(root)) for path in tracked if path.stat().st_size > 200_000] == []


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc", "manager", "factory"])
def test_no_module_is_a_drawer(root: Path, name: str) -> None:
    assert [str(path) for path in (root / "src").rglob(f"*{name}*.py")] == []


def test_the_documents_use_the_words_of_the_glossary(root: Path) -> None:
    found = [
        f"{path.relative_to(root)}:{number}: {word!r}: say {better!r}"
        for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
        if path.name != "glossary.md"
        for number, line in enumerate(path.read_text().lower().splitlines(), 1)
        for word, better in OTHER_WORDS.items()
        if re.search(rf"\b{word}s?\b", line)
    ]
    assert found == []
