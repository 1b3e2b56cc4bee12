"""The import contracts and the laws that can be read off the source."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

STANDARD_LIBRARY_ONLY = [
    "worker.py",
    "fork_server.py",
    "slices.py",
    "slice_bytes.py",
    "csv_records.py",
    "csv_parsing.py",
    "csv_rows.py",
    "json_rows.py",
    "parquet_rows.py",
    "read_ahead.py",
    "model_map.py",
    "lean_predict.py",
    "results.py",
    "cells.py",
    "arrow_bytes.py",
    "encodings.py",
    "segment.py",
    "mlflow_script.py",
]
"""Run under the interpreter of a deployment's environment, where only what the deployment asked for is installed."""


def test_the_import_contracts_hold(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    status = lint_imports(no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_there_is_one_colour_of_code(root: Path) -> None:
    found = {
        path.relative_to(root / "src" / "batchpoint").as_posix()
        for path in sorted((root / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    }
    # The rim of the web server, where ASGI itself is asynchronous: middleware, start and stop, bodies, forms.
    assert found == {
        "server/door.py",
        "server/app.py",
        "server/process.py",
        "server/api/resources.py",
        "server/azureml/blobs.py",
        "server/bodies.py",
        "server/studio/sessions.py",
        "server/streams.py",
    }


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY)
def test_what_runs_in_a_deployments_environment_needs_the_standard_library_alone(root: Path, name: str) -> None:
    path = root / "src" / "batchpoint" / "scoring" / name
    neighbours = {Path(neighbour).stem for neighbour in STANDARD_LIBRARY_ONLY}
    imported = set(imported_at_the_top(ast.parse(path.read_text())))
    assert imported - set(sys.stdlib_module_names) - neighbours == set()


def imported_at_the_top(module: ast.Module) -> list[str]:
    """Top-level names of what a module imports when it is imported."""
    names = []
    for node in module.body:
        if isinstance(node, ast.Import):
            names += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            beside = [alias.name for alias in node.names] if node.module is None else [node.module]
            names += [name.partition(".")[0] for name in beside]
    return names


def test_every_type_ignore_and_noqa_gives_its_reason(root: Path) -> None:
    bare = [
        f"{path.relative_to(root)}:{number}"
        for folder in ("src", "tests", "examples", "benchmarks")
        for path in sorted((root / folder).rglob("*.py"))
        if path != Path(__file__)
        for number in without_reason(path.read_text().splitlines())
    ]
    assert bare == []


SILENCED = re.compile(r"# (type: ignore\[[\w, -]+\]|noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*)(.*)$")


def without_reason(lines: list[str]) -> list[int]:
    """Lines that silence a rule with no reason given: there, on the line above, or further up in the file."""
    reasoned: set[str] = set()
    bare = []
    for number, (above, line) in enumerate(zip(["", *lines], lines, strict=False), 1):
        for rule, rest in SILENCED.findall(line):
            if re.search(r"\w{3}", rest) or above.lstrip().startswith("#"):
                reasoned.add(rule)
            elif rule not in reasoned:
                bare.append(number)
    return bare


def test_what_belongs_to_a_workspace_is_asked_for_through_its_scope_alone(root: Path) -> None:
    for name in ("assets", "endpoints", "jobs", "resources", "schedules"):
        tree = ast.parse((root / "src" / "batchpoint" / "registry" / f"{name}.py").read_bytes())
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "sqlalchemy"
            for alias in node.names
        }
        assert not imported & {"select", "insert", "update", "delete"}, name
