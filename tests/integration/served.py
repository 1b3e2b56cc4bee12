"""A workspace with an endpoint that is ready to be invoked, for tests of the dispatcher and of the web half."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn.server

from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, CodeConfiguration
from batchpoint.entities.jobs import Input, InvokeRequest, Job
from batchpoint.server.app import create_app
from batchpoint.server.context import Context
from batchpoint.server.listening import listen
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace

FAKE_RUNNER = (sys.executable, str(Path(__file__).with_name("fake_runner.py")))


def open_workspace(home: Path) -> Workspace:
    """A workspace with the endpoint ``churn``; see ``declare_churn``."""
    workspace = Workspace.open(Settings(home=home, max_request_bytes=100_000))
    declare_churn(workspace)
    return workspace


def declare_churn(workspace: Workspace) -> None:
    """Declare the endpoint ``churn``, whose deployment ``blue`` is the default."""
    code = workspace.settings.home.parent / "code"
    code.mkdir(exist_ok=True)
    (code / "score.py").write_text("def init():\n    pass\n\n\ndef run(mini_batch):\n    return list(mini_batch)\n")
    workspace.endpoints.create_or_update(BatchEndpoint(name="churn"))
    deployment = BatchDeployment(
        name="blue",
        endpoint_name="churn",
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
    )
    workspace.endpoints.create_or_update_deployment(deployment, set_default=True)


def make_input(folder: Path, behaviour: str) -> Path:
    """An input file, beside what the fake runner is to do with it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour").write_text(behaviour)
    (folder / "data.csv").write_text("a\n1\n")
    return folder / "data.csv"


def invoke(workspace: Workspace, path: Path) -> Job:
    """Ask for the input to be scored."""
    return workspace.endpoints.invoke("churn", InvokeRequest(inputs={"data": Input(path=str(path))}))


def eventually(condition: Callable[[], object], *, seconds: float = 15.0) -> None:
    """Wait until something becomes true; fail when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class _Hurried:
    """``asyncio``, as uvicorn sees it: it looks whether it is to end a hundred times a second instead of ten times."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


uvicorn.server.asyncio = _Hurried()


@contextmanager
def served(context: Context, secret: str | None) -> Iterator[httpx.Client]:
    """The application behind real HTTP, in a thread, and a client with this token."""
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(create_app(context), log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            # To read the certificate authorities, for which there is no use here, takes longer than most requests.
            with httpx.Client(base_url=address, headers=headers, timeout=30, verify=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
