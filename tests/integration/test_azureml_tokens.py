"""Tokens for the official client, exchanged for API tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from batchpoint.azureml_shell import TOKEN_PATH
from batchpoint.background.service import Background
from batchpoint.server.context import Context
from batchpoint.server.failed_attempts import FAILURES_ALLOWED
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.conftest import Clock
from integration.served import served


@pytest.fixture
def workspace(tmp_path: Path, clock: Clock) -> Iterator[Workspace]:
    with Workspace.open(Settings(home=tmp_path / "home"), now=clock) as opened:
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    context = Context(workspace, Background(workspace), server_id="s", shares_files=True)
    with served(context, None) as found:
        yield found
    context.background.dispatcher.stop()


def exchange(client: httpx.Client, secret: str) -> httpx.Response:
    return client.get(TOKEN_PATH, params={"resource": "https://ml.azure.com"}, headers={"X-IDENTITY-HEADER": secret})


def bearer(told: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {told.json()['access_token']}"}


def test_a_signed_token_is_good_for_an_hour_wherever_an_api_token_is(
    client: httpx.Client, workspace: Workspace, clock: Clock
) -> None:
    secret, _ = workspace.tokens.create("alice", "operator")
    told = exchange(client, secret)
    assert told.status_code == 200
    assert told.json()["expires_on"] == str(int(clock().timestamp()) + 3600)
    shown = client.get("/api/v1/server", headers=bearer(told)).json()
    assert (shown["token"], shown["role"]) == ("alice", "operator")
    assert client.get("/api/v1/tokens", headers=bearer(told)).status_code == 403
    clock.move(3601)
    assert client.get("/api/v1/server", headers=bearer(told)).status_code == 401


def test_a_signed_token_ends_with_the_api_token_it_was_given_for(
    client: httpx.Client, workspace: Workspace, clock: Clock
) -> None:
    secret, _ = workspace.tokens.create("alice", "operator")
    told = exchange(client, secret)
    workspace.tokens.revoke("alice")
    refused = client.get("/api/v1/server", headers=bearer(told))
    assert refused.status_code == 401
    assert "revoked" in refused.json()["error"]["message"]
    assert exchange(client, secret).status_code == 401


def test_a_signed_token_lasts_no_longer_than_its_api_token_and_is_not_exchanged_itself(
    client: httpx.Client, workspace: Workspace, clock: Clock
) -> None:
    secret, _ = workspace.tokens.create("brief", "reader", timedelta(minutes=5))
    told = exchange(client, secret)
    assert told.json()["expires_on"] == str(int(clock().timestamp()) + 300)
    assert exchange(client, told.json()["access_token"]).status_code == 401


def test_wrong_secrets_are_counted_and_answered_in_the_clients_form(client: httpx.Client) -> None:
    answered = exchange(client, "wrong")
    assert answered.status_code == 401
    assert answered.json()["error"]["code"] == "Unauthenticated"
    assert "www-authenticate" not in answered.headers
    assert client.get(TOKEN_PATH).status_code == 401
    for _ in range(FAILURES_ALLOWED):
        answered = exchange(client, "wrong")
    assert answered.status_code == 429
    assert answered.json()["statusCode"] == 429


def test_a_refusal_says_why_and_what_to_do_where_the_client_looks(client: httpx.Client, workspace: Workspace) -> None:
    secret, _ = workspace.tokens.create("alice", "operator")
    workspace.tokens.revoke("alice")
    for header, why in (("", "no API token"), ("wrong", "none of this server's"), (secret, "alice was revoked")):
        told = exchange(client, header).json()
        assert told["statusCode"] == 401
        assert why in told["message"]
        assert 'eval "$(batchpoint azureml-env)"' in told["message"]
