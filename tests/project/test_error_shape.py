"""Every route, asked with nonsense, answers in the one shape; and so does what is no route."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import batchpoint
from batchpoint.background.service import Background
from batchpoint.errors import BY_CODE
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.served import served

NONSENSE = (b"", b"{", b"[]", b'{"nonsense": {"\\u0000": -1}}')


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home: Path = tmp_path_factory.mktemp("home")
    with Workspace.open(Settings(home=home)) as workspace:
        secret, _ = workspace.tokens.create("t", "admin")
        context = Context(workspace, Background(workspace), server_id="s", shares_files=True)
        with served(context, secret) as found:
            yield found
        context.background.dispatcher.stop()


def test_every_route_answers_nonsense_in_the_one_shape(client: httpx.Client) -> None:
    refused = 0
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        address = re.sub(r"{\w+}", "%20no%00such", path)
        for method in methods:
            for content in NONSENSE:
                answered = client.request(method.upper(), address, content=content)
                assert answered.headers["X-Request-Id"]
                assert answered.status_code < 500 or path == "/readyz", (method, path, content, answered.text)
                if answered.is_error:
                    refused += 1
                    check_shape(answered.json())
    assert refused > 100


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/none", 404), ("POST", "/healthz", 405)])
def test_what_is_no_route_answers_in_the_one_shape(client: httpx.Client, method: str, path: str, status: int) -> None:
    answered = client.request(method, path)
    assert answered.status_code == status
    check_shape(answered.json())


def test_no_token_is_an_error_in_the_one_shape(client: httpx.Client) -> None:
    answered = client.get("/api/v1/jobs", headers={"Authorization": ""})
    assert answered.status_code == 401
    check_shape(answered.json())


def test_a_failure_of_the_server_itself_is_an_error_in_the_one_shape(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("batchpoint.operations.jobs.Jobs.list", broken)
    answered = client.get("/api/v1/jobs", headers={"X-Request-Id": "mine"})
    assert answered.status_code == 500
    check_shape(answered.json())
    assert answered.json()["error"]["request_id"] == "mine"
    assert "secret detail" not in answered.text


def check_shape(body: dict[str, dict[str, object]]) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "details", "request_id"}
    assert body["error"]["code"] in BY_CODE
    assert body["error"]["message"]


COMMAND_LINE = re.compile(
    r"\S(?<!azureml-env)\s+\(?--[a-z]|batchpoint (?!azureml-env)[a-z]+ [a-z-]+ -|'batchpoint (?!azureml-env)"
)
"""But for what sets a shell up, which is a command line for everybody."""


@pytest.mark.parametrize("layer", ["operations", "registry"])
def test_no_message_for_everybody_speaks_of_the_command_line(layer: str) -> None:
    """What that line would be is said apart from the message, in ``on_command_line``."""
    found = []
    for path in sorted((Path(batchpoint.__file__).parent / layer).rglob("*.py")):
        tree = ast.parse(path.read_text())
        apart = {id(part) for key in ast.walk(tree) if isinstance(key, ast.keyword) and key.arg == "on_command_line"
                 for part in ast.walk(key.value)}  # fmt: skip
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found += [
            f"{path.name}:{text.lineno}" for text in texts if COMMAND_LINE.search(text.value) and id(text) not in apart
        ]
    assert found == []
