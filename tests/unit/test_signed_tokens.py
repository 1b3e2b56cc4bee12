"""Signed tokens: whose they are, until when, and that nobody else can make one."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from batchpoint.errors import AuthenticationError
from batchpoint.operations.signed_tokens import issue, looks_signed, name_in

KEY = b"k" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def make(key: bytes = KEY) -> str:
    return issue(key, name="alice", audience="https://ml.azure.com", now=NOW, expires_at=NOW + timedelta(hours=1))


def test_a_signed_token_says_whose_it_is_until_it_expires() -> None:
    assert looks_signed(make())
    assert name_in(KEY, make(), now=NOW + timedelta(minutes=59)) == "alice"
    with pytest.raises(AuthenticationError, match="expired at 2026-01-01 01:00"):
        name_in(KEY, make(), now=NOW + timedelta(hours=1))


def test_a_client_can_read_for_whom_it_is_and_until_when() -> None:
    body = make().split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["aud"] == "https://ml.azure.com"
    assert claims["exp"] - claims["iat"] == 3600


def changed(part: int, value: dict[str, object]) -> str:
    parts = make().split(".")
    parts[part] = base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    return ".".join(parts)


@pytest.mark.parametrize(
    "text",
    [
        make(b"x" * 32),
        changed(1, {"iss": "batchpoint", "sub": "admin", "exp": 9e9}),
        changed(0, {"alg": "none"}),
        changed(0, {"alg": "none"}).rpartition(".")[0] + ".",
        "a.b.c",
        "..",
        "ä.ö.ü",
        make()[:-1],
    ],
)
def test_what_the_server_did_not_sign_is_nobodys(text: str) -> None:
    with pytest.raises(AuthenticationError, match="not issued"):
        name_in(KEY, text, now=NOW)


@pytest.mark.parametrize("changed", ["{}=", "{}==", "{}A", " {}", "{}\n"])
def test_a_token_is_written_in_one_way_alone_so_that_who_ends_it_ends_it(changed: str) -> None:
    with pytest.raises(AuthenticationError, match="not issued"):
        name_in(KEY, changed.format(make()), now=NOW)


def test_the_last_sign_stands_for_no_other_that_means_the_same_bytes() -> None:
    signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/"
    taken = []
    for sign in signs:
        with suppress(AuthenticationError):
            name_in(KEY, make()[:-1] + sign, now=NOW)
            taken.append(sign)
    assert taken == [make()[-1]]
