"""Tokens over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from batchpoint.client.connection import Connection, address


class Tokens:
    """Bearer tokens of the server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self, name: str, *, role: Literal["admin", "operator", "reader"] = "reader", expires_in_days: int | None = None
    ) -> dict[str, Any]:
        """A new token. The answer's ``secret`` is shown here and nowhere else; keep it."""
        body = {"name": name, "role": role, "expires_in_days": expires_in_days}
        given = {key: value for key, value in body.items() if value is not None}
        return dict(self._connection.send("POST", "/tokens", body=given))

    def list(self) -> Iterator[dict[str, Any]]:
        """The tokens without their secrets."""
        return self._connection.pages("/tokens")

    def revoke(self, name: str) -> None:
        """End a token's validity at once."""
        self._connection.send("DELETE", address("tokens", name))
