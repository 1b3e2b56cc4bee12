"""Models, data, environments, code."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from batchpoint.entities.assets import ASSET_KINDS
from batchpoint.entities.base import Asset, AssetKind, Part
from batchpoint.entities.documents import read_body
from batchpoint.errors import NotFoundError
from batchpoint.server.api.wire import JsonBody, Paged, answer, check_local_paths, described, files_json
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.context import Shared, Work

router = APIRouter(tags=["assets"])

Plural = Literal["models", "data", "environments", "codes"]
Archived = Literal["exclude", "only", "include"]

_KINDS: dict[str, AssetKind] = {"models": "model", "data": "data", "environments": "environment", "codes": "code"}


class AssetChange(Part):
    """What may change on a registered version."""

    description: str | None = None
    tags: dict[str, str] | None = Field(default=None)


@router.post("/{kind}", name="assets.create_or_update", status_code=201, **described(body=Asset, result=Asset))
def create_or_update(kind: Plural, body: JsonBody, caller: Operator, shared: Shared) -> JSONResponse:
    """Register a version. Without ``version`` the versions count up."""
    asset = read_body(ASSET_KINDS[_KINDS[kind]], body)
    check_local_paths(shared, _KINDS[kind], asset)
    return answer(shared.workspace.assets.create_or_update(_KINDS[kind], asset, by=caller.name), status=201)


@router.get("/{kind}", name="assets.list")
def list_assets(
    kind: Plural, _: Reader, work: Work, page: Paged, name: str | None = None, archived: Archived = "exclude"
) -> JSONResponse:
    """Versions, the newest first."""
    found = work.assets.list(_KINDS[kind], name=name, archived=archived, limit=page.reach, offset=page.offset)
    return page.answer(found)


@router.get("/{kind}/{name}", name="assets.get", **described(result=Asset))
def get_asset(
    kind: Plural, name: str, _: Reader, work: Work, version: str | None = None, label: str | None = None
) -> JSONResponse:
    """One version; the latest when nothing is said."""
    return answer(work.assets.get(_KINDS[kind], name, version=version, label=label))


@router.patch("/{kind}/{name}", name="assets.update", **described(body=AssetChange, result=Asset))
def update(
    kind: Plural,
    name: str,
    body: JsonBody,
    _: Operator,
    work: Work,
    version: str | None = None,
    label: str | None = None,
) -> JSONResponse:
    """Change description or tags."""
    change = read_body(AssetChange, body)
    return answer(
        work.assets.update(
            _KINDS[kind], name, version=version, label=label, description=change.description, tags=change.tags
        )
    )


@router.post("/{kind}/{name}/archive", name="assets.archive")
def archive(kind: Plural, name: str, _: Operator, work: Work, version: str | None = None) -> JSONResponse:
    """Hide a version, or all, from lists."""
    work.assets.archive(_KINDS[kind], name, version=version)
    return answer({"name": name, "version": version, "archived": True})


@router.post("/{kind}/{name}/restore", name="assets.restore")
def restore(kind: Plural, name: str, _: Operator, work: Work, version: str | None = None) -> JSONResponse:
    """Undo ``archive``."""
    work.assets.restore(_KINDS[kind], name, version=version)
    return answer({"name": name, "version": version, "archived": False})


@router.get("/{kind}/{name}/files", name="assets.files")
def files(
    kind: Plural, name: str, _: Reader, work: Work, version: str | None = None, label: str | None = None
) -> JSONResponse:
    """The asset's files: path and size."""
    found = work.assets.files(_KINDS[kind], name, version=version, label=label)
    return answer({"value": files_json((file.path, file.size) for file in found), "next": None})


@router.get("/{kind}/{name}/files/{path:path}", name="assets.download")
def download(
    kind: Plural,
    name: str,
    path: str,
    _: Reader,
    work: Work,
    version: Annotated[str | None, Query()] = None,
    label: Annotated[str | None, Query()] = None,
) -> StreamingResponse:
    """One of them."""
    found = work.assets.files(_KINDS[kind], name, version=version, label=label)
    file = next((file for file in found if file.path == path), None)
    if file is None:
        raise NotFoundError(f"{name} has no file {path}.", kind="file", name=path)
    return streamed(work.stores().open_read(file.url, file.datastore), path, file.size)


def streamed(opening: Any, name: str, size: int | None = None) -> StreamingResponse:
    """A file, read and sent piece by piece. ``opening`` is the context manager that opens it.

    It is opened before the answer begins, so that what cannot be opened is an error and not a broken download.
    """
    file = opening.__enter__()

    def pieces() -> Iterator[bytes]:
        try:
            while piece := file.read(1 << 20):
                yield piece
        finally:
            opening.__exit__(None, None, None)

    headers = {"Content-Length": str(size)} if size is not None else {}
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(pieces(), media_type=media_type, headers=headers)
