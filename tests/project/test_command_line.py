"""The command starts at once, and its page of documentation is up to date."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {"pydantic", "httpx", "rich", "yaml", "jmespath", "sqlalchemy", "fastapi", "pyarrow", "pandas", "numpy"}


@pytest.mark.parametrize("arguments", [["--help"], ["job", "--help"], ["endpoint", "invoke", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    # Modules are counted rather than time: a busy machine must not fail the test. Needs a fresh interpreter.
    script = (
        "import sys; from batchpoint.cli.main import run; code = run(sys.argv[1:]); "
        "print(*sorted({name.split('.')[0] for name in sys.modules}), sep='\\n', file=sys.stderr); sys.exit(code)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )  # fmt: skip

    loaded = set(done.stderr.split())
    assert done.stdout
    assert loaded & HEAVY == set()


def test_importing_the_package_imports_nothing_heavy_and_gives_everything_when_asked() -> None:
    script = (
        "import sys, batchpoint; before = {name.split('.')[0] for name in sys.modules}; "
        "assert batchpoint.Client and batchpoint.Job and batchpoint.Model and batchpoint.NotFoundError; "
        "assert not hasattr(batchpoint, 'Nonsense'); print(*sorted(before))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )  # fmt: skip

    assert set(done.stdout.split()) & HEAVY == set()


def test_the_pages_that_follow_from_the_program_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    pages = generate.pages()

    assert len(pages) == 3
    assert [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text] == [], (
        "run: python docs/generate.py"
    )
