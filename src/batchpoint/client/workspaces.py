"""Workspaces over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from batchpoint.client.connection import Connection, address
from batchpoint.client.jobs import entity_of
from batchpoint.entities.workspaces import NamedWorkspace


class Workspaces:
    """The workspaces of the server: ``Client(workspace=…)`` works within one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create_or_update(self, workspace: NamedWorkspace) -> NamedWorkspace:
        """Create a workspace, or change the one of that name. One that is only used needs not be created."""
        body = workspace.given()
        return entity_of(NamedWorkspace, self._connection.send("PUT", address("workspaces", workspace.name), body=body))

    def get(self, name: str) -> NamedWorkspace:
        """The workspace by that name."""
        return entity_of(NamedWorkspace, self._connection.get(address("workspaces", name)))

    def list(self, *, limit: int | None = None) -> Iterator[NamedWorkspace]:
        """All of them, by name: those that were created, and those that were used."""
        return (entity_of(NamedWorkspace, item) for item in self._connection.pages("/workspaces", limit=limit))

    def delete(self, name: str, *, permanently: bool = False) -> None:
        """Remove a workspace, and with ``permanently`` all that is in it.

        Raises:
            ConflictError: it is the default one, a job of it is not over, or it holds something and ``permanently``
                was not given.
        """
        params = {"permanently": True if permanently else None}
        self._connection.send("DELETE", address("workspaces", name), params=params)
