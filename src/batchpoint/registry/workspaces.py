"""The workspaces that a registry knows: those that were created, and those that were used."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, Table, delete, insert, select, update

from batchpoint.entities.resources import ResourceKind
from batchpoint.entities.workspaces import NamedWorkspace, workspace_key
from batchpoint.errors import ConflictError, NotFoundError
from batchpoint.registry.changes import check_unchanged
from batchpoint.registry.database import Database
from batchpoint.registry.endpoints import stamped
from batchpoint.registry.jobs import ACTIVE_STATUSES
from batchpoint.registry.scope import Scope
from batchpoint.registry.tables import (
    assets_table,
    endpoints_table,
    jobs_table,
    metadata,
    resources_table,
    schedules_table,
)
from batchpoint.registry.tables import workspaces_table as workspaces

_HELD: Mapping[str, Table] = {
    "assets": assets_table,
    "endpoints": endpoints_table,
    "schedules": schedules_table,
    "jobs": jobs_table,
}
"""What can be in a workspace, in words, beside resources."""


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
                own = {"key": workspace_key(workspace.name), "generation": uuid.uuid4().hex}
                connection.execute(insert(workspaces).values(**own, body=stored.body()))
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
            raise _unknown(name)
        return NamedWorkspace.model_validate(body)

    def generation(self, key: str) -> str:
        """What tells a workspace from those of the same name that were deleted before it was made.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.read() as connection:
            query = select(workspaces.c.generation).where(workspaces.c.key == key)
            found: str | None = connection.execute(query).scalar()
        if found is None:
            raise _unknown(key)
        return found

    def delete(
        self, name: str, *, built_in: Mapping[ResourceKind, str | None], agreed: Callable[[Sequence[str]], None]
    ) -> None:
        """Forget a workspace, and every row that belongs to it.

        Args:
            name: of the workspace.
            built_in: by kind, the resource that is in every workspace.
            agreed: is told in words what else was in it; what it raises leaves everything as it was. It is told of
                the very rows that are deleted, so that none is lost which was made a moment before.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: a job of it waits or is worked on.
        """
        scope = Scope(workspace_key(name))
        itself = workspaces.c.key == scope.workspace
        resources, jobs = resources_table.c, jobs_table.c

        def work(connection: Connection) -> None:
            if connection.execute(select(workspaces.c.key).where(itself).with_for_update()).scalar() is None:
                raise _unknown(name)
            is_active = jobs.status.in_(ACTIVE_STATUSES)
            active = connection.execute(scope.delete(jobs_table).where(is_active).returning(jobs.name)).scalars().all()
            own = {
                kind: connection.execute(
                    scope.delete(resources_table).where(resources.kind == kind, resources.name != built_in_name)
                ).rowcount
                for kind, built_in_name in built_in.items()
            }
            gone = {
                table: connection.execute(scope.delete(table)).rowcount
                for table in reversed(metadata.sorted_tables)
                if "workspace" in table.c
            }
            gone[jobs_table] += len(active)
            found = {f"{kind}s": count for kind, count in own.items()}
            found |= {kind: gone[table] for kind, table in _HELD.items()}
            agreed([kind for kind, count in found.items() if count])
            if active:
                raise ConflictError(
                    f"Workspace {name} cannot be deleted: its job {active[0]} is not over. Wait for it, or cancel it "
                    "first."
                )
            connection.execute(delete(workspaces).where(itself))

        self._database.store(work)

    def list(self, *, limit: int | None = None, offset: int = 0) -> builtins.list[NamedWorkspace]:
        """All workspaces, by name."""
        query = select(workspaces.c.body).order_by(workspaces.c.key).limit(limit).offset(offset)
        with self._database.read() as connection:
            return [NamedWorkspace.model_validate(body) for body in connection.execute(query).scalars()]


def is_there(key: str, generation: str) -> Callable[[Connection], None]:
    """The check of a transaction that it writes into the workspace that its writer began with.

    The row is held until the transaction ends, as by a foreign key, so that the workspace is not deleted meanwhile.
    """
    this_one = (workspaces.c.key == key, workspaces.c.generation == generation)
    held = select(workspaces.c.key).where(*this_one).with_for_update(read=True, key_share=True)

    def check(connection: Connection) -> None:
        if connection.execute(held).first() is None:
            message = (
                f"There is no workspace named {key} any more: it was deleted since this request began. Make the "
                "request again if it is meant for a new workspace of that name."
            )
            raise NotFoundError(message, kind="workspace", name=key)

    return check


def _unknown(name: str) -> NotFoundError:
    message = f"There is no workspace named {name}. It begins to exist when an operator or an admin creates or uses it."
    return NotFoundError(message, kind="workspace", name=name, on_command_line="batchpoint workspace list")
