"""Named things: computes, datastores, published pipelines. Credentials are stored apart from the body, encrypted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Connection, delete, select

from batchpoint.entities.base import Entity
from batchpoint.entities.kinds import NAMED_KINDS, NamedKind
from batchpoint.entities.resources import Datastore, DatastoreCredentials
from batchpoint.errors import NotFoundError
from batchpoint.registry.changes import check_unchanged
from batchpoint.registry.database import Database
from batchpoint.registry.endpoints import stamped
from batchpoint.registry.secrets import SecretBox
from batchpoint.registry.tables import resources_table as resources


class Resources:
    """The computes, datastores and published pipelines of one registry."""

    def __init__(self, database: Database, now: Callable[[], datetime], secret_box: SecretBox) -> None:
        self._database = database
        self._now = now
        self._secret_box = secret_box

    def put(self, kind: NamedKind, entity: Entity, *, by: str | None, seen: Entity | None = None) -> Entity:
        """Store an entity, new or in place of the one of that name; given ``seen``, in place of that one alone.

        A datastore without credentials keeps those that it has; empty ones take them away.

        Raises:
            ChangedMeanwhileError: another one is stored than was seen.
        """

        def work(connection: Connection) -> Entity:
            key = (resources.c.kind == kind, resources.c.name == entity.name)
            before = connection.execute(select(resources).where(*key).with_for_update()).first()
            check_unchanged(NAMED_KINDS[kind].model_validate(before.body) if before else None, seen)
            bare, encrypted = self._without_credentials(entity, before.credentials if before else None)
            stored = stamped(bare, before.body if before else None, self._now(), by)
            values = {"body": stored.body(), "credentials": encrypted}
            if before:
                connection.execute(resources.update().where(*key).values(values))
            else:
                connection.execute(resources.insert().values(kind=kind, name=entity.name, **values))
            return stored

        return self._database.store(work)

    def get(self, kind: NamedKind, name: str) -> Entity:
        """One of them; a datastore comes without its credentials.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.read() as connection:
            key = (resources.c.kind == kind, resources.c.name == name)
            row = connection.execute(select(resources.c.body).where(*key)).first()
            if row is None:
                query = select(resources.c.name).where(resources.c.kind == kind).order_by(resources.c.name).limit(20)
                names = ", ".join(connection.execute(query).scalars())
                raise NotFoundError(f"There is no {kind} named {name}. There are: {names}.", kind=kind, name=name)
        return NAMED_KINDS[kind].model_validate(row.body)

    def list(self, kind: NamedKind, *, limit: int | None = None, offset: int = 0) -> list[Entity]:
        """All of a kind, by name."""
        query = select(resources.c.body).where(resources.c.kind == kind).order_by(resources.c.name)
        with self._database.read() as connection:
            bodies = connection.execute(query.limit(limit).offset(offset)).scalars().all()
        return [NAMED_KINDS[kind].model_validate(body) for body in bodies]

    def delete(self, kind: NamedKind, name: str) -> None:
        """Forget one, with its credentials.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.write() as connection:
            key = (resources.c.kind == kind, resources.c.name == name)
            if connection.execute(delete(resources).where(*key)).rowcount == 0:
                raise NotFoundError(f"There is no {kind} named {name}.", kind=kind, name=name)

    def credentials(self, name: str) -> DatastoreCredentials | None:
        """The decrypted credentials of a datastore. For whoever opens it; never for an answer to a user.

        Raises:
            RegistryError: the key file is not the one that they were stored with.
        """
        key = (resources.c.kind == "datastore", resources.c.name == name)
        with self._database.read() as connection:
            encrypted = connection.execute(select(resources.c.credentials).where(*key)).scalar()
        if encrypted is None:
            return None
        return DatastoreCredentials.model_validate(self._secret_box.decrypt(encrypted))

    def _without_credentials(self, entity: Entity, kept: bytes | None) -> tuple[Entity, bytes | None]:
        """The entity as its body shows it, and the encrypted credentials to store beside it."""
        if not isinstance(entity, Datastore):
            return entity, None
        if entity.credentials is not None:
            given = _plain(entity.credentials)
            kept = self._secret_box.encrypt(given) if given else None
        return entity.model_copy(update={"credentials": None, "has_credentials": kept is not None}), kept


def _plain(credentials: DatastoreCredentials) -> dict[str, str]:
    values: dict[str, Any] = {name: getattr(credentials, name) for name in type(credentials).model_fields}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
    }
    return {name: value for name, value in plain.items() if value is not None}
