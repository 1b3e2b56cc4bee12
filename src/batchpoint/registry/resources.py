"""Named things: computes, datastores, webhooks, published pipelines.

Credentials are stored apart from the body, encrypted. The machine's compute is everybody's: it is
one row, and seen from every workspace.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Column, ColumnElement, Connection, Select

from batchpoint.entities.base import Entity
from batchpoint.entities.kinds import NAMED_KINDS, NamedKind
from batchpoint.entities.resources import MACHINE, Compute, Datastore, DatastoreCredentials, pool_of
from batchpoint.entities.webhooks import Webhook, WebhookCredentials
from batchpoint.errors import NotFoundError
from batchpoint.registry.changes import check_unchanged
from batchpoint.registry.database import Database
from batchpoint.registry.deliveries import forget
from batchpoint.registry.endpoints import stamped
from batchpoint.registry.scope import EVERYWHERE, Scope
from batchpoint.registry.secrets import SecretBox
from batchpoint.registry.tables import resources_table as resources

_EVERYBODY = Scope("")
"""Whose the machine's compute is."""


class Resources:
    """The computes, datastores, webhooks and published pipelines of one workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime], scope: Scope, secret_box: SecretBox) -> None:
        self._database = database
        self._now = now
        self._scope = scope
        self._secret_box = secret_box

    def put(self, kind: NamedKind, entity: Entity, *, by: str | None, seen: Entity | None = None) -> Entity:
        """Store an entity, new or in place of the one of that name; given ``seen``, in place of that one alone.

        A datastore or webhook without credentials keeps those that it has; empty ones take them away.

        Raises:
            ChangedMeanwhileError: another one is stored than was seen.
        """

        def work(connection: Connection) -> Entity:
            key, scope = _key(kind, entity.name), self._scope_of(kind, entity.name)
            before = connection.execute(scope.select(resources).where(*key).with_for_update()).first()
            check_unchanged(NAMED_KINDS[kind].model_validate(before.body) if before else None, seen)
            bare, encrypted = self._without_credentials(entity, before.credentials if before else None)
            stored = stamped(bare, before.body if before else None, self._now(), by)
            values = {"body": stored.body(), "credentials": encrypted}
            if before:
                connection.execute(scope.update(resources).where(*key).values(values))
            else:
                connection.execute(scope.insert(resources).values(kind=kind, name=entity.name, **values))
            return stored

        return self._database.store(work)

    def get(self, kind: NamedKind, name: str) -> Entity:
        """One of them, without its credentials.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.read() as connection:
            query = self._scope_of(kind, name).select(resources, resources.c.body).where(*_key(kind, name))
            row = connection.execute(query).first()
            if row is None:
                names = ", ".join([*connection.execute(self._of_kind(kind, resources.c.name).limit(20)).scalars()])
                raise NotFoundError(f"There is no {kind} named {name}. There are: {names}.", kind=kind, name=name)
        return NAMED_KINDS[kind].model_validate(row.body)

    def list(self, kind: NamedKind, *, limit: int | None = None, offset: int = 0) -> list[Entity]:
        """All of a kind, by name."""
        query = self._of_kind(kind, resources.c.body).limit(limit).offset(offset)
        with self._database.read() as connection:
            bodies = connection.execute(query).scalars().all()
        return [NAMED_KINDS[kind].model_validate(body) for body in bodies]

    def pools(self) -> dict[str, Compute]:
        """The computes of all workspaces, by the pool of instances that each is."""
        query = EVERYWHERE.select(resources, resources.c.workspace, resources.c.body)
        with self._database.read() as connection:
            rows = connection.execute(query.where(resources.c.kind == "compute")).all()
        computes = [(row.workspace, Compute.model_validate(row.body)) for row in rows]
        return {pool_of(workspace, compute.name): compute for workspace, compute in computes}

    def delete(self, kind: NamedKind, name: str) -> None:
        """Forget one, with its credentials, and a webhook with its deliveries.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.write() as connection:
            which = self._scope_of(kind, name).delete(resources).where(*_key(kind, name))
            if connection.execute(which).rowcount == 0:
                raise NotFoundError(f"There is no {kind} named {name}.", kind=kind, name=name)
            if kind == "webhook":
                forget(connection, self._scope, name)

    def credentials(self, name: str) -> DatastoreCredentials | None:
        """The decrypted credentials of a datastore. For whoever opens it; never for an answer to a user.

        Raises:
            RegistryError: the key file is not the one that they were stored with.
        """
        found = self._credentials("datastore", name)
        return DatastoreCredentials.model_validate(found) if found is not None else None

    def webhook_credentials(self, name: str) -> WebhookCredentials | None:
        """Those of a webhook. For whoever signs its deliveries.

        Raises:
            RegistryError: the key file is not the one that they were stored with.
        """
        found = self._credentials("webhook", name)
        return WebhookCredentials.model_validate(found) if found is not None else None

    def _credentials(self, kind: NamedKind, name: str) -> dict[str, Any] | None:
        query = self._scope.select(resources, resources.c.credentials).where(*_key(kind, name))
        with self._database.read() as connection:
            encrypted = connection.execute(query).scalar()
        return self._secret_box.decrypt(encrypted) if encrypted is not None else None

    def _scope_of(self, kind: NamedKind, name: str) -> Scope:
        return _EVERYBODY if (kind, name) == ("compute", MACHINE) else self._scope

    def _of_kind(self, kind: NamedKind, column: Column[Any]) -> Select[Any]:
        """What is seen from here of a kind, by name."""
        seen = resources.c.workspace.in_([self._scope.workspace, _EVERYBODY.workspace])
        return EVERYWHERE.select(resources, column).where(seen, resources.c.kind == kind).order_by(resources.c.name)

    def _without_credentials(self, entity: Entity, kept: bytes | None) -> tuple[Entity, bytes | None]:
        """The entity as its body shows it, and the encrypted credentials to store beside it."""
        if not isinstance(entity, Datastore | Webhook):
            return entity, None
        if entity.credentials is not None:
            given = _plain(entity.credentials)
            kept = self._secret_box.encrypt(given) if given else None
        return entity.model_copy(update={"credentials": None, "has_credentials": kept is not None}), kept


def _key(kind: NamedKind, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return resources.c.kind == kind, resources.c.name == name


def _plain(credentials: DatastoreCredentials | WebhookCredentials) -> dict[str, str]:
    values: dict[str, Any] = {name: getattr(credentials, name) for name in type(credentials).model_fields}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
    }
    return {name: value for name, value in plain.items() if value is not None}
