"""The README shows the pictures that ``make pictures`` takes, all of them and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

LARGEST = 300_000
"""Bytes; a checkout holds every version of every picture."""


def taken(root: Path) -> set[str]:
    """The names in the list of the command, which is read and not run: it needs a browser's driver."""
    tree = ast.parse((root / "docs" / "pictures.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "PICTURES":
            return set(ast.literal_eval(node.value))
    raise AssertionError("docs/pictures.py has no list PICTURES")


def test_the_readme_shows_what_the_command_takes(root: Path) -> None:
    shown = set(re.findall(r"\(docs/pictures/([\w-]+)\.png\)", (root / "README.md").read_text()))
    assert shown == taken(root)


def test_every_picture_is_there_as_one_and_small(root: Path) -> None:
    there = {path.stem: path.read_bytes() for path in (root / "docs" / "pictures").iterdir()}
    assert set(there) == taken(root)
    for name, content in there.items():
        assert content.startswith(b"\x89PNG\r\n\x1a\n"), name
        assert len(content) < LARGEST, name
