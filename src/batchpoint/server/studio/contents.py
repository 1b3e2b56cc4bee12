"""Folders and files of datastores and assets: listed, previewed, downloaded. No content is ever run.

What browsers are given to show are images, by their first bytes, in a sandbox. All else is text of a page, or saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import Response

from batchpoint.entities.assets import Code, Data, Model
from batchpoint.entities.file_names import as_text
from batchpoint.errors import InputError, InvalidEntityError, NotFoundError
from batchpoint.operations.file_previews import HEAD, LARGEST_IMAGE, Kind, image_type, preview_of
from batchpoint.operations.places import Place
from batchpoint.server.streams import sent_file
from batchpoint.server.studio.rendering import HEADERS, Facts, Page, Visit, Visited, page

router = APIRouter()

ON_A_PAGE = 200
"""Files and folders that a page lists."""
ASSETS_WITH_FILES = Literal["model", "data", "code"]
_CONTENT_HEADERS = {**HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox"}

Offset = Annotated[int, Query(ge=0, le=2**53)]


class Entry(Facts):
    """A file or folder in a folder."""

    name: str
    path: str | None
    """Below the root; None where its name is no text, so that no address can name it."""
    size: int | None
    """None of a folder."""


class Shown(Facts):
    """A part of a file."""

    kind: Kind
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str
    note: str | None


class FilesPage(Page):
    """One folder, or one file."""

    root: Sequence[str]
    """``datastores`` and a name, or ``assets``, kind and name."""
    version: str | None
    """Of an asset."""
    path: str
    """Below the root; empty for the root itself."""
    above: Sequence[tuple[str, str]]
    """The names and paths of the folders on the way, the root first."""
    uri: str
    """What an input that means it is given as its path."""
    entries: Sequence[Entry] | None
    """Of a folder; None of a file."""
    count: int
    """Entries on all pages."""
    size: int | None
    """Bytes, of a file."""
    shown: Shown | None
    before: int | None
    following: int | None
    """Where the pages before and after begin; None where there is none."""


@page(router, "/datastores/{name}/files", "files.html")
def datastore_files(visit: Visited, name: str, offset: Offset = 0) -> FilesPage:
    """What lies in a datastore."""
    return _browsed(visit, ("datastores", name), _in_datastore(visit, name, ""), "", offset)


@page(router, "/datastores/{name}/files/{path:path}", "files.html")
def datastore_file(visit: Visited, name: str, path: str, offset: Offset = 0) -> FilesPage:
    """A folder or file of a datastore."""
    return _browsed(visit, ("datastores", name), _in_datastore(visit, name, ""), path, offset)


@page(router, "/assets/{kind}/{name}/files", "files.html")
def asset_files(
    visit: Visited, kind: ASSETS_WITH_FILES, name: str, version: str | None = None, offset: Offset = 0
) -> FilesPage:
    """What an asset consists of."""
    return _of_asset(visit, kind, name, version, "", offset)


@page(router, "/assets/{kind}/{name}/files/{path:path}", "files.html")
def asset_file(
    visit: Visited, kind: ASSETS_WITH_FILES, name: str, path: str, version: str | None = None, offset: Offset = 0
) -> FilesPage:
    """A folder or file of an asset."""
    return _of_asset(visit, kind, name, version, path, offset)


@router.get("/datastores/{name}/content/{path:path}", name="studio.datastore_content", include_in_schema=False)
def datastore_content(visit: Visited, name: str, path: str, *, shown: bool = False) -> Response:
    """A file of a datastore, to be saved; with ``shown`` an image, to be seen."""
    return _content(visit, _in_datastore(visit, name, ""), path, shown=shown)


@router.get("/assets/{kind}/{name}/content", name="studio.asset_itself", include_in_schema=False)
@router.get("/assets/{kind}/{name}/content/{path:path}", name="studio.asset_content", include_in_schema=False)
def asset_content(
    visit: Visited,
    kind: ASSETS_WITH_FILES,
    name: str,
    path: str = "",
    version: str | None = None,
    *,
    shown: bool = False,
) -> Response:
    """A file of an asset, in the same way."""
    return _content(visit, _in_asset(visit, kind, name, version)[0], path, shown=shown)


def _in_datastore(visit: Visit, name: str, path: str) -> Place:
    visit.work.resources.get("datastore", name)
    return visit.work.places.resolve(f"azureml://datastores/{name}/paths/{path}")


def _in_asset(visit: Visit, kind: ASSETS_WITH_FILES, name: str, version: str | None) -> tuple[Place, str]:
    """Where the files of an asset lie, and its version."""
    found = visit.work.assets.get(kind, name, version)
    assert isinstance(found, Model | Data | Code), "these have files"
    return visit.work.places.resolve(found.path), str(found.version)


def _of_asset(
    visit: Visit, kind: ASSETS_WITH_FILES, name: str, version: str | None, path: str, offset: int
) -> FilesPage:
    root, found = _in_asset(visit, kind, name, version)
    return _browsed(visit, ("assets", kind, name), root, path, offset, version=found)


def _browsed(
    visit: Visit, root: Sequence[str], root_place: Place, path: str, offset: int, *, version: str | None = None
) -> FilesPage:
    path = "/".join(step for step in path.split("/") if step)
    place, stores = _below(visit, root_place, path), visit.work.stores()
    steps = path.split("/") if path else []
    above = [(root[-1], ""), *((step, "/".join(steps[: at + 1])) for at, step in enumerate(steps))]
    facts = {
        "title": steps[-1] if steps else root[-1],
        "root": root,
        "version": version,
        "path": path,
        "above": above[:-1],
        "uri": place.uri,
    }
    if not stores.exists(place.url, place.datastore):
        if path:
            raise NotFoundError(f"{path} does not exist in {root[-1]}.", kind="file", name=path)
        return FilesPage(**facts, entries=[], count=0, size=None, shown=None, before=None, following=None)
    if stores.is_folder(place.url, place.datastore):
        listing = stores.listing(place.url, place.datastore, within=root_place.url)
        entries = [_entry(name, path, None) for name in listing.folders]
        entries += [_entry(file.path, path, file.size) for file in listing.files]
        following = offset + ON_A_PAGE
        return FilesPage(
            **facts,
            entries=entries[offset:following],
            count=len(entries),
            size=None,
            shown=None,
            before=max(offset - ON_A_PAGE, 0) if offset else None,
            following=following if following < len(entries) else None,
        )
    size = stores.size(place.url, place.datastore)
    with stores.open_read(place.url, place.datastore) as file:
        found = preview_of(PurePosixPath(place.url).name, file, size)
    shown = Shown(kind=found.kind, columns=found.columns, rows=found.rows, text=found.text, note=found.note)
    return FilesPage(**facts, entries=None, count=0, size=size, shown=shown, before=None, following=None)


def _content(visit: Visit, root: Place, path: str, *, shown: bool) -> Response:
    place, stores = _below(visit, root, path), visit.work.stores()
    name = PurePosixPath(place.url).name
    try:
        if stores.is_folder(place.url, place.datastore):
            raise NotFoundError(f"{path or name} is a folder; look into it instead.", kind="file", name=path)
        size = stores.size(place.url, place.datastore)
        if not shown:
            told = {**_CONTENT_HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
            return sent_file(stores.open_read(place.url, place.datastore), "", size or None, headers=told)
        with stores.open_read(place.url, place.datastore) as file:
            head = file.read(HEAD)
            media_type = image_type(head)
            if media_type is None or size > LARGEST_IMAGE:
                raise InvalidEntityError(f"{name} is no image that is shown here. Download it.")
            content = head + file.read(LARGEST_IMAGE)
    except InputError as error:
        raise NotFoundError(f"There is no file {path or name}.", kind="file", name=path) from error
    return Response(content, media_type=media_type, headers=_CONTENT_HEADERS)


def _below(visit: Visit, root: Place, path: str) -> Place:
    """A place in a root, which neither dots nor links lead out of. Raises ``InvalidEntityError`` for others."""
    if "\0" in path:
        raise InvalidEntityError(f"{path!r} is the path of no file.")
    place = visit.work.places.below(root, path)
    if place.datastore is not None:
        return visit.work.places.resolve(place.uri)  # which looks at links, and at how long the path is
    if not visit.work.stores().is_within(place.url, root.url):
        raise InvalidEntityError(f"{path!r} leads out of {root.uri} through a link.")
    return place


def _entry(name: str, folder: str, size: int | None) -> Entry:
    shown = as_text(name)
    path = f"{folder}/{name}".lstrip("/") if shown == name and "\\" not in name else None
    return Entry(name=shown, path=path, size=size)
