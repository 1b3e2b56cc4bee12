"""The page about the REST interface names every route of the server, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from batchpoint.background.service import Background
from batchpoint.server.app import create_app
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace

KINDS = {
    "<kind>": ("models", "data", "environments", "codes", "components"),
    "<resource>": ("computes", "datastores", "webhooks"),
}


def test_the_page_names_every_route_and_no_other(root: Path, tmp_path: Path) -> None:
    with Workspace.open(Settings(home=tmp_path)) as workspace:
        background = Background(workspace)
        described = create_app(Context(workspace, background, server_id="s", shares_files=True)).openapi()
        background.dispatcher.stop()
    there = {f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods}

    assert set(named(root / "docs" / "rest.md")) == there


def named(page: Path) -> list[str]:
    """``GET /api/v1/jobs`` and the like, with the kinds spelled out."""
    found = re.findall(r"`((?:[A-Z]+, )*[A-Z]+) (/[^`]+)`", page.read_text())
    routes = [f"{method} {path}" for methods, path in found for method in methods.split(", ")]
    for word, kinds in KINDS.items():
        routes = [route.replace(word, kind) for route in routes for kind in kinds]
    return routes
