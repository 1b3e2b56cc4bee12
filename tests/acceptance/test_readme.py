"""The tour in the README, run line by line as a reader would, on an empty home."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shipped import Shipped

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Shown:
    """One command of a ``console`` fence and the output printed under it, with ``…`` for what differs each time."""

    command: str
    output: str


def tour(text: str) -> Iterator[Shown]:
    """The commands of all ``console`` fences, in order."""
    for fence in re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for block in re.split(r"^\$ ", fence, flags=re.MULTILINE)[1:]:
            command, _, output = block.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = command[:-1] + more.removeprefix("> ")
            yield Shown(command, output)


def matches(shown: str, printed: str) -> bool:
    """Whether the output is what the README shows; ``…`` stands for anything, runs of spaces count as one."""
    wanted = [re.escape(" ".join(part.split())) for part in shown.split("…")]
    return re.search(r".*?".join(wanted), " ".join(printed.split()), flags=re.DOTALL) is not None


@pytest.mark.timeout(280)
def test_every_command_of_the_readme_tour_prints_what_the_readme_shows(shipped: Shipped, tmp_path: Path) -> None:
    steps = list(tour((CHECKOUT / "README.md").read_text()))
    assert len(steps) >= 8, "the tour has gone missing"
    checkout = tmp_path / "batchpoint"
    checkout.mkdir()
    shutil.copytree(CHECKOUT / "examples", checkout / "examples")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in (("batchpoint", "-m batchpoint"), ("python", "")):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        script.chmod(0o755)
    environment = {**shipped.environment(), "PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    for step in steps:
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=checkout, env=environment, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"$ {step.command}\n{printed}"
        assert matches(step.output, printed), (
            f"$ {step.command}\nthe README shows:\n{step.output}\nit printed:\n{printed}"
        )
