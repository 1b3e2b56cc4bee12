"""The ``console`` fences of a page, run line by line as a reader would, on an empty home."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shipped import Shipped

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass
class Shown:
    """One command of a ``console`` fence and the output printed under it, with ``…`` for what differs each time."""

    command: str
    output: str


def steps_of(text: str) -> Iterator[Shown]:
    """The commands of all ``console`` fences, in order. Lines that start with ``>`` continue the command above."""
    for fence in re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for block in re.split(r"^\$ ", fence, flags=re.MULTILINE)[1:]:
            lines = block.splitlines()
            count = next((i for i, line in enumerate(lines) if i and not line.startswith(">")), len(lines))
            more = [line.removeprefix(">").removeprefix(" ") for line in lines[1:count]]
            yield Shown("\n".join([lines[0], *more]), "\n".join(lines[count:]))


def matches(shown: str, printed: str) -> bool:
    """Whether the whole output is what the page shows; ``…`` stands for anything, runs of spaces count as one."""
    wanted = r".*?".join(re.escape(" ".join(part.split())) for part in shown.split("…"))
    # Spaces beside an ellipsis belong to it.
    wanted = wanted.replace(r"\ .*?", ".*?").replace(r".*?\ ", ".*?")
    return re.fullmatch(wanted, " ".join(printed.split()), flags=re.DOTALL) is not None


def run_page(page: Path, shipped: Shipped, folder: Path, *, at_least: int) -> None:
    """Run every command of a page in a folder that holds a copy of the examples, and compare what each prints.

    A command that is shown with ``exit code N`` as its last line has to end with that code, the others with 0.
    """
    steps = list(steps_of(page.read_text()))
    assert len(steps) >= at_least, f"the commands of {page.name} have gone missing"
    where = folder / "batchpoint"
    where.mkdir()
    shutil.copytree(CHECKOUT / "examples", where / "examples", ignore=shutil.ignore_patterns("work", "__pycache__"))
    environment = {**shipped.environment(), "PATH": f"{commands_in(folder)}:{os.environ['PATH']}", "HOME": str(folder)}
    for step in steps:
        shown, code = re.fullmatch(r"(.*?)(?:exit code (\d+)\n?)?", step.output, flags=re.DOTALL).groups()  # type: ignore[union-attr]  # the pattern takes any text
        done = subprocess.run(
            ["bash", "-c", step.command], cwd=where, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == int(code or 0), f"$ {step.command}\nended with {done.returncode}\n{done.stdout}"
        assert matches(shown, done.stdout), f"$ {step.command}\n{page.name} shows:\n{shown}\nit printed:\n{done.stdout}"


def commands_in(folder: Path) -> Path:
    """A folder for the PATH with ``batchpoint`` and ``python`` under the interpreter of the tests."""
    commands = folder / "bin"
    commands.mkdir()
    for name, module in (("batchpoint", "-m batchpoint"), ("python", "")):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        script.chmod(0o755)
    return commands
