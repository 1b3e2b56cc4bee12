"""Models, data, environments, code."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from batchpoint.entities.base import AssetKind, Part
from batchpoint.entities.documents import read_body
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.errors import NotFoundError
from batchpoint.server.api.wire import Paged, answer, described, files_json
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Shared, Work
from batchpoint.server.given_paths import check_local_paths
from batchpoint.server.streams import sent_file

router = APIRouter(tags=["assets"])

PLURALS: dict[AssetKind, str] = {
    "model": "models",
    "data": "data",
    "environment": "environments",
    "code": "codes",
    "component": "components",
}
"""How each kind is called in addresses."""

Archived = Literal["exclude", "only", "include"]


class AssetChange(Part):
    """What may change on a registered version."""

    description: str | None = None
    tags: dict[str, str | None] = Field(default_factory=dict)
    """Merged into those before; null takes one away."""


class _Routes:
    """The routes of one kind of asset."""

    def __init__(self, kind: AssetKind, plural: str) -> None:
        self._kind = kind
        self._plural = plural

    def add_to(self, router: APIRouter) -> None:
        """Put the routes below ``/<plural>``."""
        model, kind, path = ASSET_KINDS[self._kind], self._plural, f"/{self._plural}"
        one = f"{path}/{{name}}"
        router.post(path, name=f"{kind}.create_or_update", status_code=201, **described(body=model, result=model))(
            self.create_or_update
        )
        router.get(path, name=f"{kind}.list")(self.list_assets)
        router.get(one, name=f"{kind}.get", **described(result=model))(self.get_asset)
        router.patch(one, name=f"{kind}.update", **described(body=AssetChange, result=model))(self.update)
        router.post(f"{one}/archive", name=f"{kind}.archive")(self.archive)
        router.post(f"{one}/restore", name=f"{kind}.restore")(self.restore)
        router.get(f"{one}/files", name=f"{kind}.files")(self.files)
        router.get(f"{one}/files/{{path:path}}", name=f"{kind}.download")(self.download)

    def create_or_update(self, body: JsonBody, caller: Operator, shared: Shared) -> JSONResponse:
        """Register a version. Without ``version`` the versions count up."""
        asset = read_body(ASSET_KINDS[self._kind], body)
        check_local_paths(shared, self._kind, asset)
        return answer(shared.workspace.assets.create_or_update(self._kind, asset, by=caller.name), status=201)

    def list_assets(
        self, _: Reader, work: Work, page: Paged, name: str | None = None, archived: Archived = "exclude"
    ) -> JSONResponse:
        """Versions, the newest first."""
        found = work.assets.list(self._kind, name=name, archived=archived, limit=page.reach, offset=page.offset)
        return page.answer(found)

    def get_asset(
        self, name: str, _: Reader, work: Work, version: str | None = None, label: str | None = None
    ) -> JSONResponse:
        """One version; the latest when nothing is said."""
        return answer(work.assets.get(self._kind, name, version=version, label=label))

    def update(
        self, name: str, body: JsonBody, _: Operator, work: Work, version: str | None = None, label: str | None = None
    ) -> JSONResponse:
        """Change description or tags."""
        change = read_body(AssetChange, body)
        which = {"version": version, "label": label}
        return answer(work.assets.update(self._kind, name, **which, description=change.description, tags=change.tags))

    def archive(self, name: str, _: Operator, work: Work, version: str | None = None) -> JSONResponse:
        """Hide a version, or all, from lists."""
        work.assets.archive(self._kind, name, version=version)
        return answer({"name": name, "version": version, "archived": True})

    def restore(self, name: str, _: Operator, work: Work, version: str | None = None) -> JSONResponse:
        """Undo ``archive``."""
        work.assets.restore(self._kind, name, version=version)
        return answer({"name": name, "version": version, "archived": False})

    def files(
        self, name: str, _: Reader, work: Work, version: str | None = None, label: str | None = None
    ) -> JSONResponse:
        """The asset's files: path and size."""
        found = work.assets.files(self._kind, name, version=version, label=label)
        return answer({"value": files_json((file.path, file.size) for file in found), "next": None})

    def download(
        self,
        name: str,
        path: str,
        _: Reader,
        work: Work,
        version: Annotated[str | None, Query()] = None,
        label: Annotated[str | None, Query()] = None,
    ) -> StreamingResponse:
        """One of them."""
        found = work.assets.files(self._kind, name, version=version, label=label)
        file = next((file for file in found if file.path == path), None)
        if file is None:
            raise NotFoundError(f"{name} has no file {path}.", kind="file", name=path)
        return sent_file(work.stores().open_read(file.url, file.datastore), path, file.size)


for _kind, _plural in PLURALS.items():
    _Routes(_kind, _plural).add_to(router)
