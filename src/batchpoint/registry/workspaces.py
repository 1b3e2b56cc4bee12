"""The workspaces that a registry knows: those that were created, and those that were used."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from batchpoint.entities.workspaces import NamedWorkspace, workspace_key
from batchpoint.errors import ConflictError, NotFoundError
from batchpoint.registry.changes import check_unchanged
from batchpoint.registry.database import Database
from batchpoint.registry.endpoints import stamped
from batchpoint.registry.jobs import ACTIVE_STATUSES
from batchpoint.registry.scope import Scope
from batchpoint.registry.tables import jobs_table, metadata
from batchpoint.registry.tables import workspaces_table as workspaces


class Workspaces:
    """The workspaces of one registry. The case of their names does not matter."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def put(self, workspace: NamedWorkspace, *, by: str | None, seen: NamedWorkspace | None = None) -> NamedWorkspace:
        """Store a workspace, new or in place of the one of that name; given ``seen``, in place of that one alone.

        Raises:
            ChangedMeanwhileError: another one is stored than was seen.
        """
        key = workspaces.c.key == workspace_key(workspace.name)

        def work(connection: Connection) -> NamedWorkspace:
            before = connection.execute(select(workspaces.c.body).where(key).with_for_update()).scalar()
            check_unchanged(NamedWorkspace.model_validate(before) if before else None, seen)
            stored = stamped(workspace, before, self._now(), by)
            if before is None:
                values = {"key": workspace_key(workspace.name), "body": stored.body()}
                connection.execute(insert(workspaces).values(values))
            else:
                connection.execute(update(workspaces).where(key).values(body=stored.body()))
            return stored

        return self._database.store(work)

    def get(self, name: str) -> NamedWorkspace:
        """One workspace.

        Raises:
            NotFoundError: there is none of that name.
            InvalidEntityError: none can be called so.
        """
        query = select(workspaces.c.body).where(workspaces.c.key == workspace_key(name))
        with self._database.read() as connection:
            body = connection.execute(query).scalar()
        if body is None:
            message = (
                f"There is no workspace named {name}. It begins to exist when an operator or an admin uses it; "
                "'batchpoint workspace list' shows those there are."
            )
            raise NotFoundError(message, kind="workspace", name=name)
        return NamedWorkspace.model_validate(body)

    def delete(self, name: str) -> None:
        """Forget a workspace, and every row that belongs to it.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: a job of it waits or is worked on.
        """
        self.get(name)
        scope = Scope(workspace_key(name))
        active = scope.select(jobs_table, jobs_table.c.name).where(jobs_table.c.status.in_(ACTIVE_STATUSES)).limit(1)

        def work(connection: Connection) -> None:
            if (job := connection.execute(active).scalar()) is not None:
                raise ConflictError(
                    f"Workspace {name} cannot be deleted: its job {job} is not over. Wait for it, or cancel it first."
                )
            for table in reversed(metadata.sorted_tables):
                if "workspace" in table.c:
                    connection.execute(scope.delete(table))
            connection.execute(delete(workspaces).where(workspaces.c.key == scope.workspace))

        self._database.store(work)

    def list(self, *, limit: int | None = None, offset: int = 0) -> builtins.list[NamedWorkspace]:
        """All workspaces, by name."""
        query = select(workspaces.c.body).order_by(workspaces.c.key).limit(limit).offset(offset)
        with self._database.read() as connection:
            return [NamedWorkspace.model_validate(body) for body in connection.execute(query).scalars()]
