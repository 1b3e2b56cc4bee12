"""Every route, asked with nonsense, answers in the one shape; and so does what is no route."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

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
