"""Named, mutable things over HTTP: computes, datastores, webhooks, and what is alike in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from batchpoint.client.connection import ByteProgress, Connection, address
from batchpoint.client.files import LocalFiles, kind_of, with_secrets, with_secrets_of
from batchpoint.client.jobs import entity_of
from batchpoint.entities.base import Entity
from batchpoint.entities.resources import Compute, Datastore, DatastoreCredentials
from batchpoint.entities.webhooks import Delivery, Webhook, WebhookCredentials

AnyEntity = TypeVar("AnyEntity", bound=Entity)


class Resources(Generic[AnyEntity]):
    """One kind of named, mutable thing."""

    def __init__(
        self, connection: Connection, files: Callable[[], LocalFiles], kind: str, model: type[AnyEntity]
    ) -> None:
        self._connection = connection
        self._files = files
        self._kind = kind
        self._model = model

    def create_or_update(self, resource: AnyEntity, *, progress: ByteProgress | None = None) -> AnyEntity:
        """Store it under its name, whether or not there was one."""
        kind = kind_of(resource)
        # Who has no local paths need not know whether the server shares them.
        has_paths = kind in ("datastore", "schedule")
        body = self._files().entity_body(kind, resource, progress=progress) if has_paths else with_secrets_of(resource)
        return entity_of(self._model, self._connection.send("PUT", address(self._kind, resource.name), body=body))

    def get(self, name: str) -> AnyEntity:
        """The thing by that name."""
        return entity_of(self._model, self._connection.get(address(self._kind, name)))

    def list(self, *, limit: int | None = None) -> Iterator[AnyEntity]:
        """All of them."""
        for item in self._connection.pages(f"/{self._kind}", limit=limit):
            yield entity_of(self._model, item)

    def update(self, name: str, *, changes: Mapping[str, Any]) -> AnyEntity:
        """Change some keys; nested mappings are merged."""
        return entity_of(self._model, self._connection.send("PATCH", address(self._kind, name), body=dict(changes)))

    def delete(self, name: str) -> None:
        """Remove it.

        Raises:
            ConflictError: it is in use.
        """
        self._connection.send("DELETE", address(self._kind, name))


class Computes(Resources[Compute]):
    """Computes."""

    def nodes(self, name: str) -> Iterator[dict[str, Any]]:
        """The instances and their state."""
        return self._connection.pages(address("computes", name, "nodes"))


class Datastores(Resources[Datastore]):
    """Datastores, and the files in them."""

    def files(self, name: str, prefix: str = "") -> Iterator[dict[str, Any]]:
        """``path`` and ``size`` of the files below a prefix."""
        return self._connection.pages(address("datastores", name, "files"), prefix=prefix)

    def holds_credentials(self, name: str, credentials: DatastoreCredentials) -> bool:
        """Whether these are the credentials that it has; the server compares them and shows none."""
        path = address("datastores", name, "credentials", "compare")
        return bool(self._connection.send("POST", path, body=with_secrets(credentials))["same"])

    def upload(self, name: str, source: str | Path, path: str, *, progress: ByteProgress | None = None) -> str:
        """Write one local file to a path of the datastore; answers with its ``azureml://`` address."""
        self._connection.upload(address("datastores", name, "files", file=path), Path(source), progress=progress)
        return f"azureml://datastores/{name}/paths/{path}"

    def download(self, name: str, path: str, target: str | Path, *, progress: ByteProgress | None = None) -> Path:
        """Copy one file of the datastore to a local path."""
        self._connection.download(address("datastores", name, "files", file=path), Path(target), progress=progress)
        return Path(target)


class Webhooks(Resources[Webhook]):
    """Webhooks: addresses that are told what becomes of jobs."""

    def holds_credentials(self, name: str, credentials: WebhookCredentials) -> bool:
        """Whether this is the secret that it has; the server compares them and shows none."""
        path = address("webhooks", name, "credentials", "compare")
        return bool(self._connection.send("POST", path, body=with_secrets(credentials))["same"])

    def renew_secret(self, name: str) -> str:
        """Give it a new secret, which is told this once; what is sent from now on is signed with it."""
        return str(self._connection.send("POST", address("webhooks", name, "secret"))["secret"])

    def test(self, name: str) -> Delivery:
        """Send it something that is about no job."""
        return Delivery.model_validate(self._connection.send("POST", address("webhooks", name, "test")))

    def deliveries(self, name: str, *, state: str | None = None, limit: int | None = None) -> Iterator[Delivery]:
        """What was sent to it or waits to be, the newest first; ``state`` is pending, delivered or failed."""
        for item in self._connection.pages(address("webhooks", name, "deliveries"), state=state, limit=limit):
            yield Delivery.model_validate(item)

    def replay(self, name: str, number: int) -> Delivery:
        """Send a delivery again, whatever became of it."""
        path = address("webhooks", name, "deliveries", str(number), "replay")
        return Delivery.model_validate(self._connection.send("POST", path))

    def replay_failed(self, name: str) -> int:
        """Send all again that failed; answers how many."""
        return int(self._connection.send("POST", address("webhooks", name, "replay-failed"))["count"])
