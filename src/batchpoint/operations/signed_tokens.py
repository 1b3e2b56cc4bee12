"""Short-lived tokens that say in themselves whose they are: JSON Web Tokens, signed with a key of the home (pure).

One algorithm, HS256, one issuer, us; nothing in a token chooses how it is checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from batchpoint.errors import AuthenticationError

ISSUER = "batchpoint"
_HEADER = {"alg": "HS256", "typ": "JWT"}


def looks_signed(text: str) -> bool:
    """Whether a bearer token is of this form at all; API tokens hold no dots."""
    return text.count(".") == 2


def issue(
    key: bytes, *, name: str, audience: str, now: datetime, expires_at: datetime, told_apart_by: str | None = None
) -> str:
    """A token that stands for the API token ``name`` until ``expires_at``; ``told_apart_by`` makes it the only one."""
    claims = {
        "iss": ISSUER,
        "aud": audience,
        "sub": name,
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int(expires_at.timestamp()),
        **({"jti": told_apart_by} if told_apart_by else {}),
    }
    body = f"{_encoded(_HEADER)}.{_encoded(claims)}"
    return f"{body}.{_base64(_signature(key, body))}"


def name_in(key: bytes, text: str, *, now: datetime) -> str:
    """The API token that a signed token stands for.

    Raises:
        AuthenticationError: it was signed by somebody else, was changed, or has expired.
    """
    body, _, signature = text.rpartition(".")
    try:
        # The text, and not the bytes that it stands for: base64 writes the same bytes in many ways, and a session is
        # ended by the text of its cookie.
        genuine = hmac.compare_digest(signature.encode(), _base64(_signature(key, body)).encode())
        claims = json.loads(_decoded(body.partition(".")[2])) if genuine else {}
    except ValueError:
        genuine, claims = False, {}
    if not genuine or claims.get("iss") != ISSUER:
        raise AuthenticationError(
            "The signed token was not issued by this server, or was changed. Ask the server for one: "
            "'batchpoint azureml-env' says how, and 'batchpoint azureml-env --check' what is wrong."
        )
    if claims["exp"] <= now.timestamp():
        expired = datetime.fromtimestamp(claims["exp"], UTC)
        raise AuthenticationError(f"The signed token expired at {expired:%Y-%m-%d %H:%M} UTC. Ask for a new one.")
    return str(claims["sub"])


def _signature(key: bytes, body: str) -> bytes:
    return hmac.digest(key, body.encode(), hashlib.sha256)


def _encoded(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
