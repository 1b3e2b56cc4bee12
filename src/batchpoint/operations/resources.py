"""Computes, datastores and webhooks: create or update, list, delete, with the rules of each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast
from urllib.parse import urlsplit

from batchpoint.entities.base import Entity
from batchpoint.entities.resources import (
    MACHINE,
    UPDATABLE_COMPUTE_KEYS,
    Compute,
    Datastore,
    DatastoreCredentials,
    ResourceKind,
)
from batchpoint.entities.webhooks import Delivery, DeliveryState, Webhook, WebhookCredentials, new_secret
from batchpoint.errors import ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.assets import DEFAULT_DATASTORE
from batchpoint.operations.places import check_no_password
from batchpoint.registry import Registry
from batchpoint.registry.changes import repeated
from batchpoint.registry.jobs import ACTIVE_STATUSES
from batchpoint.storage.datastores import datastore_url

E = TypeVar("E", bound=Entity)

BUILT_IN: dict[ResourceKind, str | None] = {"compute": MACHINE, "datastore": DEFAULT_DATASTORE, "webhook": None}
"""Exist from the start in every workspace and cannot be deleted. The compute is one for all of them."""

_SET_BY_SERVER = {"created_at", "modified_at", "created_by", "schema_address"}


class Resources:
    """What a user may ask about computes, datastores and webhooks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def create_or_update(self, kind: ResourceKind, entity: E, *, by: str | None = None) -> E:
        """Create one, or change the one of that name.

        Raises:
            ConflictError: the change is one that this kind does not allow.
            InvalidEntityError: it could not be used as declared.
        """

        def change() -> E:
            try:
                before = self.get(kind, entity.name)
            except NotFoundError:
                before = None
            return cast("E", self._stored(kind, entity, before, by))

        return repeated(change)

    def update(
        self, kind: ResourceKind, name: str, change: Callable[[Entity], Entity], *, by: str | None = None
    ) -> Entity:
        """Store what ``change`` makes of one. It is asked again when another change came between.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: the change is one that this kind does not allow.
            InvalidEntityError: it could not be used as declared.
        """

        def changed() -> Entity:
            before = self.get(kind, name)
            return self._stored(kind, change(before), before, by)

        return repeated(changed)

    def get(self, kind: ResourceKind, name: str) -> Entity:
        """One of them. Credentials are never shown; ``has_credentials`` says whether there are some.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._registry.resources.get(kind, name)

    def holds_secret(self, webhook: str, credentials: WebhookCredentials) -> bool:
        """Whether this is the secret that a webhook has; they are compared and never shown.

        Raises:
            NotFoundError: there is no such webhook.
        """
        self.get("webhook", webhook)
        return self._registry.resources.webhook_credentials(webhook) == credentials

    def holds_credentials(self, name: str, credentials: DatastoreCredentials) -> bool:
        """Whether these are the credentials that a datastore has; they are compared and never shown.

        Raises:
            NotFoundError: there is no such datastore.
        """
        self.get("datastore", name)
        stored = self._registry.resources.credentials(name) or DatastoreCredentials()
        return stored.model_dump() == credentials.model_dump()

    def credential_keys(self, name: str) -> frozenset[str]:
        """Which credentials a datastore has: their keys, and never their values."""
        stored = self._registry.resources.credentials(name) or DatastoreCredentials()
        return frozenset(stored.model_dump(exclude_none=True))

    def list(self, kind: ResourceKind, *, limit: int | None = None, offset: int = 0) -> Sequence[Entity]:
        """All of a kind, by name."""
        return self._registry.resources.list(kind, limit=limit, offset=offset)

    def delete(self, kind: ResourceKind, name: str) -> None:
        """Delete one. What lies in a datastore stays there.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is built in, or in use.
        """
        self.get(kind, name)
        if name == BUILT_IN[kind]:
            raise ConflictError(f"The {kind} {name} is built in and cannot be deleted.")
        if kind == "compute":
            self._check_compute_unused(name)
        self._registry.resources.delete(kind, name)

    def renew_secret(self, webhook: str, *, by: str | None = None) -> str:
        """Give a webhook a new secret, which is told this once. What is sent from now on is signed with it.

        Raises:
            NotFoundError: there is none of that name.
        """
        secret = new_secret()
        credentials = WebhookCredentials.model_validate({"secret": secret})

        def change(before: Entity) -> Entity:
            return before.model_copy(update={"credentials": credentials})

        self.update("webhook", webhook, change, by=by)
        return secret

    def deliveries(
        self, webhook: str, *, state: DeliveryState | None = None, limit: int | None = None, offset: int = 0
    ) -> Sequence[Delivery]:
        """What was sent to a webhook or waits to be, the newest first.

        Raises:
            NotFoundError: there is none of that name.
        """
        self.get("webhook", webhook)
        return self._registry.deliveries.list(webhook, state=state, limit=limit, offset=offset)

    def test(self, webhook: str) -> Delivery:
        """Send a webhook something that is about no job; it goes the way that all goes.

        Raises:
            NotFoundError: there is none of that name.
        """
        self.get("webhook", webhook)
        return self._registry.deliveries.add_test(webhook)

    def replay(self, webhook: str, number: int) -> Delivery:
        """Send a delivery again, whatever became of it.

        Raises:
            NotFoundError: there is no such webhook, or it has no such delivery.
        """
        self.get("webhook", webhook)
        return self._registry.deliveries.replay(webhook, number)

    def replay_failed(self, webhook: str) -> int:
        """Send all deliveries of a webhook again that failed; how many those are.

        Raises:
            NotFoundError: there is none of that name.
        """
        self.get("webhook", webhook)
        return self._registry.deliveries.replay_failed(webhook)

    def _stored(self, kind: ResourceKind, entity: Entity, before: Entity | None, by: str | None) -> Entity:
        if isinstance(entity, Compute) and before is not None:
            entity = _changed_compute(entity, cast("Compute", before))
        if isinstance(entity, Datastore):
            entity = entity.model_copy(update={"is_default": entity.name == DEFAULT_DATASTORE})
            _check_datastore(entity, cast("Datastore | None", before))
        if isinstance(entity, Webhook):
            _check_host(entity)
        if isinstance(entity, Webhook) and entity.credentials is None and before is None:
            entity = entity.model_copy(
                update={"credentials": WebhookCredentials.model_validate({"secret": new_secret()})}
            )
        return self._registry.resources.put(kind, entity, by=by, seen=before)

    def _check_compute_unused(self, name: str) -> None:
        if jobs := self._registry.jobs.list(compute=name, status=ACTIVE_STATUSES, archived="include", limit=1):
            raise ConflictError(
                f"Compute {name} cannot be deleted: job {jobs[0].name} is {jobs[0].status} on it. "
                "Wait for it, or cancel it first."
            )
        if used := self._registry.deployments.list(compute=name):
            users = ", ".join(f"{each.endpoint_name}/{each.name}" for each in used[:5])
            raise ConflictError(
                f"Compute {name} cannot be deleted: it is the compute of {len(used)} deployment(s) ({users}). "
                "Give them another compute first."
            )


def _changed_compute(entity: Compute, before: Compute) -> Compute:
    """The compute after the change; keys that were not given stay as they are, and what was never said can be said.

    Raises:
        ConflictError: a key that cannot change was given another value.
    """
    given = {key: getattr(entity, key) for key in entity.model_fields_set - _SET_BY_SERVER}
    said = {key: getattr(before, key) for key in given if key not in UPDATABLE_COMPUTE_KEYS}
    fixed = sorted(key for key, value in said.items() if value is not None and value != given[key])
    if fixed:
        raise ConflictError(
            f"Compute {before.name} exists, and {', '.join(fixed)} cannot be changed. Changeable are "
            f"{', '.join(sorted(UPDATABLE_COMPUTE_KEYS))}; for the rest delete the compute and create it anew."
        )
    try:
        return Compute.model_validate({**before.model_dump(), **entity.model_dump(include=set(given))})
    except ValueError as error:
        raise InvalidEntityError(f"Compute {before.name} cannot be changed so: {error}") from error


def _check_datastore(datastore: Datastore, before: Datastore | None) -> None:
    if before is not None and before.name == DEFAULT_DATASTORE and datastore.path != before.path:
        message = f"Datastore {DEFAULT_DATASTORE} is built in; its place cannot be changed. Create another datastore."
        raise ConflictError(message)
    if datastore.type == "local" and not str(datastore.path).startswith(("/", "~")):
        message = f"Datastore {datastore.name} of type local needs an absolute path, not {datastore.path!r}."
        raise InvalidEntityError(message)
    if datastore.type == "sql":
        check_no_password(str(datastore.url))
    if datastore.type in {"local", "memory", "http", "s3", "gcs", "azure_blob", "azure_data_lake_gen2"}:
        datastore_url(datastore)  # says what is missing


def _check_host(webhook: Webhook) -> None:
    host = urlsplit(webhook.url).hostname or ""
    try:
        host.encode("idna")
    except UnicodeError as fault:
        raise InvalidEntityError(
            f"Webhook {webhook.name} cannot be called: {host} is no name of a host. Between its dots are 1 to 63 signs."
        ) from fault


def ensure_built_in(registry: Registry, *, datastore_path: str, instances: int) -> None:
    """Make the compute of the machine, and the default datastore of a workspace, where they do not exist yet."""
    built_in: tuple[tuple[ResourceKind, Entity], ...] = (
        ("compute", Compute(name=MACHINE, type="local", min_instances=0, max_instances=max(instances, 1))),
        ("datastore", Datastore(name=DEFAULT_DATASTORE, type="local", path=datastore_path, is_default=True)),
    )
    for kind, entity in built_in:
        try:
            registry.resources.get(kind, entity.name)
        except NotFoundError:
            registry.resources.put(kind, entity, by=None)
