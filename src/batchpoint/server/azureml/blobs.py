"""The blob operations of up- and downloads: seven of Azure's, onto the files of datastores.

A container stands for a datastore, or for the folder of one upload of code; see ``containers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Annotated
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from batchpoint.errors import (
    AlreadyExistsError,
    InputError,
    InvalidEntityError,
    NotFoundError,
    PermissionDeniedError,
    RequestTooLargeError,
)
from batchpoint.operations.places import Place
from batchpoint.server.auth import Operator
from batchpoint.server.azureml import artifacts, blob_wire
from batchpoint.server.azureml.containers import SUFFIX, container_path, new_code_container, place_in
from batchpoint.server.azureml.signing import opened, signed
from batchpoint.server.azureml.wire import WORKSPACE, Scoped
from batchpoint.server.bodies import received
from batchpoint.server.context import Shared, Work
from batchpoint.storage.block_uploads import BlockUploads
from batchpoint.storage.datastores import Stores
from batchpoint.storage.file_labels import FileLabels
from batchpoint.workspace import Workspace

router = APIRouter(tags=["azureml"], include_in_schema=False)

_CONTAINER = f"/{{workspace}}{SUFFIX}/{{container}}"
_BLOB = f"{_CONTAINER}/{{blob:path}}"
_LONGEST_PAGE = 5000
_LARGEST_BLOCK_LIST = 1 << 24
_CHUNK = 1 << 20
_UPLOAD_SECONDS = 24 * 3600.0
"""For how long code can be uploaded after it was announced."""


def _container_path(request: Request) -> str:
    """What addresses of blobs are signed for: all that is in one container."""
    return container_path(request.path_params["workspace"], request.path_params["container"])


MayRead = Annotated[None, Depends(opened(_container_path))]
MayWrite = Annotated[None, Depends(opened(_container_path, writes=True))]


@dataclass(frozen=True, slots=True)
class _File:
    """Where a blob lies."""

    name: str
    place: Place
    stores: Stores
    labels: FileLabels

    @property
    def exists(self) -> bool:
        return not self.is_folder and self.stores.exists(self.place.url, self.place.datastore)

    @property
    def is_folder(self) -> bool:
        return self.stores.is_folder(self.place.url, self.place.datastore)

    def size(self) -> int:
        try:
            if not self.name.endswith("/") and not self.is_folder:
                return self.stores.size(self.place.url, self.place.datastore)
        except InputError:
            pass
        raise NotFoundError(f"There is no file {self.name}.", kind="file", name=self.name)


def _file(container: str, blob: str, work: Work) -> _File:
    place = artifacts.place_of(work, container, blob) or work.places.resolve(place_in(container, blob))
    return _File(blob, place, work.stores(), _labels(work))


def _file_to_write(container: str, blob: str, work: Work) -> _File:
    if artifacts.place_of(work, container, blob) is not None:
        raise PermissionDeniedError(f"{blob} was made by a job, and is only read.")
    return _file(container, blob, work)


Blob = Annotated[_File, Depends(_file)]
BlobToWrite = Annotated[_File, Depends(_file_to_write)]


@router.get(_CONTAINER, name="azureml.list_blobs")
def list_blobs(
    container: str,
    _: MayRead,
    work: Work,
    prefix: str = "",
    delimiter: str = "",
    marker: str = "",
    maxresults: int = _LONGEST_PAGE,
    include: str = "",
) -> Response:
    """The files whose names begin with ``prefix``; with a delimiter, those below it as one."""
    length = min(max(maxresults, 1), _LONGEST_PAGE)
    names = _names(work, container, prefix, after=marker)
    page = list(islice(_folded(names, prefix, delimiter), length + 1))
    shown, following = page[:length], page[length - 1].name if len(page) > length else ""
    folders = [item.name for item in shown if item.is_folder]
    labels = _labels(work) if "metadata" in include else None
    blobs = [
        blob_wire.Blob(item.name, item.size, labels.read(place_in(container, item.name)) if labels else {})
        for item in shown
        if not item.is_folder
    ]
    return blob_wire.listed(container, prefix, blobs, folders, following=following)


@router.head(_BLOB, name="azureml.blob_properties")
def properties(_: MayRead, blob: Blob) -> Response:
    """Size and metadata."""
    size = blob.size()
    metadata = blob_wire.metadata_headers(blob.labels.read(blob.place.uri))
    headers = {"Content-Length": str(size), "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes", **metadata}
    return Response(headers=headers, media_type="application/octet-stream")


@router.get(_BLOB, name="azureml.get_blob")
def get_blob(request: Request, _: MayRead, blob: Blob) -> Response:
    """The file, or a part of it."""
    size = blob.size()
    part = blob_wire.range_in(request.headers, size)
    headers = {"x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes"}
    if part is None:
        first, last = 0, size - 1
    else:
        first, last = part
        if first > last:
            return blob_wire.no_such_range(size)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    opening = blob.stores.open_read(blob.place.url, blob.place.datastore)
    return StreamingResponse(
        _pieces(opening, first, last - first + 1),
        status_code=200 if part is None else 206,
        headers=headers,
        media_type="application/octet-stream",
    )


@router.put(_BLOB, name="azureml.put_blob")
async def put_blob(
    request: Request, _: MayWrite, blob: BlobToWrite, work: Work, comp: str = "", blockid: str = ""
) -> Response:
    """Write a file, whole or in blocks, or its metadata. What is sent goes to disk as it comes."""
    metadata = blob_wire.metadata_in(request.headers)
    if comp == "metadata":
        return await to_thread.run_sync(_put_metadata, blob, metadata)
    uploads = BlockUploads(work.folder / "uploads" / "blocks")
    if comp == "block":
        async with received(request, work.settings.home / "uploads") as body:
            await to_thread.run_sync(uploads.keep, blob.place.uri, blockid, body)
        return Response(status_code=201)
    exclusive = request.headers.get("if-none-match") == "*"
    if comp == "blocklist":
        blocks = blob_wire.blocks_in(await _small_body(request))
        await to_thread.run_sync(_put_blocks, blob, uploads, blocks, exclusive)
        await to_thread.run_sync(blob.labels.write, blob.place.uri, metadata)
        return Response(status_code=201)
    if comp:
        raise InvalidEntityError(f"comp={comp} is not understood here. A file is put whole, or as block and blocklist.")
    async with received(request, work.settings.home / "uploads") as body:
        await to_thread.run_sync(_place, blob, body, exclusive)
    await to_thread.run_sync(blob.labels.write, blob.place.uri, metadata)
    return Response(status_code=201)


@router.post(f"{WORKSPACE}/codes/{{name}}/versions/{{version}}/startPendingUpload", name="azureml.start_upload")
def start_upload(operator: Operator, shared: Shared, scope: Scoped) -> JSONResponse:
    """A fresh container for one upload of code, and an address that opens it without a token."""
    container = new_code_container()
    path = container_path(scope.workspace, container)
    opening = signed(shared, path, operator, seconds=_UPLOAD_SECONDS, permission="rlw")
    return JSONResponse(
        {
            "pendingUploadId": container,
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": f"{scope.base}{quote(path)}",
                "credential": {"credentialType": "SAS", "sasUri": f"{scope.base}{opening}"},
            },
        }
    )


def _put_metadata(blob: _File, metadata: dict[str, str]) -> Response:
    blob.size()
    blob.labels.write(blob.place.uri, metadata)
    return Response(status_code=200)


def _put_blocks(blob: _File, uploads: BlockUploads, blocks: list[str], exclusive: bool) -> None:
    _check_target(blob, exclusive)
    with uploads.joined(blob.place.uri, blocks) as whole:
        _place(blob, whole, exclusive)


def _place(blob: _File, content: Path, exclusive: bool) -> None:
    _check_target(blob, exclusive)
    blob.stores.move(content, blob.place.url, blob.place.datastore, exclusive=exclusive)


def _check_target(blob: _File, exclusive: bool) -> None:
    if not blob.name.strip("/") or blob.name.endswith("/") or blob.is_folder:
        raise InvalidEntityError(f"{blob.name!r} is a folder. Give the path of a file.")
    if exclusive and blob.exists:
        raise AlreadyExistsError(f"There is a file {blob.name} already.")


async def _small_body(request: Request) -> bytes:
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > _LARGEST_BLOCK_LIST:
            raise RequestTooLargeError("The list of blocks is larger than any that a file can have.")
    return bytes(found)


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    size: int = 0
    is_folder: bool = False


def _names(work: Workspace, container: str, prefix: str, *, after: str) -> Iterator[_Listed]:
    """The files of a container by name, those that begin with ``prefix`` and come behind ``after``."""
    for file in _files(work, container, prefix):
        encoded = file.name.encode(errors="surrogateescape")
        if file.name.startswith(prefix) and encoded > after.encode(errors="surrogateescape"):
            yield file


def _files(work: Workspace, container: str, prefix: str) -> Iterator[_Listed]:
    """The files of the folder that ``prefix`` is in, by name."""
    made = artifacts.names_below(work, container, prefix)
    if made is not None:
        yield from (_Listed(name, size) for name, size in made)
        return
    folder = prefix.rpartition("/")[0]
    whole, place = (work.places.resolve(place_in(container, path)) for path in ("", folder))
    stores = work.stores()
    if not stores.is_folder(place.url, place.datastore):
        return
    below = f"{folder}/" if folder else ""
    for file in stores.list(place.url, place.datastore, recursive=True, within=whole.url):
        yield _Listed(below + file.path, file.size)


def _folded(files: Iterator[_Listed], prefix: str, delimiter: str) -> Iterator[_Listed]:
    """Files, and one for all of those whose names share what stands before the delimiter."""
    last = None
    for file in files:
        head, found, _ = file.name.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
        if not found:
            yield file
        elif (folder := f"{prefix}{head}{delimiter}") != last:
            last = folder
            yield _Listed(folder, is_folder=True)


def _pieces(opening: AbstractContextManager[IO[bytes]], first: int, length: int) -> Iterator[bytes]:
    with opening as file:
        file.seek(first)
        while length > 0 and (piece := file.read(min(_CHUNK, length))):
            length -= len(piece)
            yield piece


def _labels(work: Workspace) -> FileLabels:
    return FileLabels(work.folder / "file-labels")
