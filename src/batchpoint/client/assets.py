"""Assets over HTTP: versioned, immutable, archived instead of deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from batchpoint.client.connection import Archived, ByteProgress, Connection, address
from batchpoint.client.files import LocalFiles, kind_of
from batchpoint.client.jobs import entity_of, inside
from batchpoint.entities.base import Asset, parse_reference

AnyAsset = TypeVar("AnyAsset", bound=Asset)


class Assets(Generic[AnyAsset]):
    """One kind of asset: versioned, immutable, archived instead of deleted."""

    def __init__(
        self, connection: Connection, files: Callable[[], LocalFiles], kind: str, model: type[AnyAsset]
    ) -> None:
        self._connection = connection
        self._files = files
        self._kind = kind
        self._model = model

    def create_or_update(self, asset: AnyAsset, *, progress: ByteProgress | None = None) -> AnyAsset:
        """Register an asset; without a version the next one is taken. A local path is handed over or uploaded.

        Raises:
            AlreadyExistsError: this version exists with other content.
            InvalidEntityError: the local path does not exist, or the server refused the asset.
        """
        body = self._files().entity_body(kind_of(asset), asset, progress=progress)
        return entity_of(self._model, self._connection.send("POST", f"/{self._kind}", body=body))

    def get(self, name: str, version: str | None = None, label: str | None = None) -> AnyAsset:
        """One version: by number, by label, or the latest. ``name`` may be a reference such as ``churn:3``."""
        name, version, label = _named(name, version, label)
        found = self._connection.get(address(self._kind, name), version=version, label=label)
        return entity_of(self._model, found)

    def list(
        self, name: str | None = None, *, archived: Archived = "exclude", limit: int | None = None
    ) -> Iterator[AnyAsset]:
        """The assets, or the versions of one of them."""
        for item in self._connection.pages(f"/{self._kind}", name=name, archived=archived, limit=limit):
            yield entity_of(self._model, item)

    def update(
        self, name: str, version: str | None = None, label: str | None = None, *, changes: Mapping[str, Any]
    ) -> AnyAsset:
        """Change description or tags of one version."""
        name, version, label = _named(name, version, label)
        params = {"version": version, "label": label}
        body = self._connection.send("PATCH", address(self._kind, name), body=dict(changes), params=params)
        return entity_of(self._model, body)

    def archive(self, name: str, version: str | None = None, label: str | None = None) -> None:
        """Hide one version, or all, from lists; references keep working."""
        self._mark("archive", name, version, label)

    def restore(self, name: str, version: str | None = None, label: str | None = None) -> None:
        """Undo ``archive``."""
        self._mark("restore", name, version, label)

    def download(
        self,
        name: str,
        version: str | None = None,
        label: str | None = None,
        *,
        path: str | Path = ".",
        progress: ByteProgress | None = None,
    ) -> Path:
        """Copy the asset's files into the folder ``<path>/<name>`` and answer with it."""
        asset = self.get(name, version, label)
        folder = Path(path) / asset.name
        params = f"?version={asset.version}"
        for file in self._connection.pages(address(self._kind, asset.name, "files"), version=asset.version):
            source = address(self._kind, asset.name, "files", file=file["path"]) + params
            self._connection.download(source, inside(folder, file["path"]), progress=progress)
        return folder

    def _mark(self, verb: str, name: str, version: str | None, label: str | None) -> None:
        name, version, label = _named(name, version, label)
        if label is not None:
            version = self.get(name, None, label).version
        self._connection.send("POST", address(self._kind, name, verb), params={"version": version})


def _named(name: str, version: str | None, label: str | None) -> tuple[str, str | None, str | None]:
    """A name that may be a whole reference, with version and label taken out of it."""
    reference = parse_reference(name)
    return reference.name, version or reference.version, label or reference.label
