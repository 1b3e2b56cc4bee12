"""The Azure ML dialect behind real HTTP, as its client would speak it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from batchpoint.background.service import Background
from batchpoint.server.context import Context
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, served

WS = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/default"
LONG = "azureml://subscriptions/s/resourcegroups/g/workspaces/default/datastores/workspaceblobstore/paths"
SHORT = "azureml://datastores/workspaceblobstore/paths"


@contextmanager
def azure_client(workspace: Workspace, role: Any = "admin", *, shares_files: bool = True) -> Iterator[httpx.Client]:
    """A client with a token of this role. Addresses of the workspace begin with ``WS``."""
    secret, _ = workspace.tokens.create(f"{role}-token", role)
    background = Background(workspace, runner_parent=FAKE_RUNNER)  # whose loops are not started
    with served(Context(workspace, background, server_id="s1", shares_files=shares_files), secret) as client:
        yield client


def register_scripts(workspace: Workspace, folder: Path) -> str:
    """Register code with ``prep.py`` and ``score.py``, written into a new folder below ``folder``; its id."""
    written = folder / "src"
    written.mkdir()
    (written / "prep.py").write_text("print(1)\n")
    (written / "score.py").write_text("def init():\n    pass\n\n\ndef run(mini_batch):\n    return list(mini_batch)\n")
    registered = workspace.assets.register_code(str(written))
    return f"{WS}/codes/{registered.name}/versions/{registered.version}"


def upload(workspace: Workspace, path: str, content: bytes = b"content") -> None:
    """Put a file into the default datastore, as the client does before it registers something."""
    place = workspace.places.resolve(f"{SHORT}/{path}")
    workspace.stores().write_bytes(place.url, content)
