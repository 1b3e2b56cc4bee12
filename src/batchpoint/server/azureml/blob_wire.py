"""Wire forms of the blob operations: lists and errors in XML, ranges, metadata in headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from fastapi.responses import Response

from batchpoint.errors import (
    AlreadyExistsError,
    AuthenticationError,
    BatchpointError,
    ConflictError,
    InvalidEntityError,
    NotFoundError,
    PermissionDeniedError,
)
from batchpoint.server.azureml.containers import SUFFIX

ADDRESS = re.compile(rf"^/[^/]+{re.escape(SUFFIX)}/")
"""Addresses of blobs."""

_METADATA = "x-ms-meta-"
_METADATA_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
_BLOCKS = re.compile(rb"<(?:Latest|Uncommitted|Committed)>([^<]+)</")
_MOST_BLOCKS = 50_000
"""Azure's limit, too. A block may stand in a list many times, and each time takes its place on the disk."""
_RANGE = re.compile(r"^bytes=([0-9]{1,18})-([0-9]{0,18})$")
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold."""

_CODES: tuple[tuple[type[BatchpointError], str], ...] = (
    (NotFoundError, "BlobNotFound"),
    (AlreadyExistsError, "BlobAlreadyExists"),
    (ConflictError, "InvalidBlockList"),
    (AuthenticationError, "AuthenticationFailed"),
    (PermissionDeniedError, "AuthorizationPermissionMismatch"),
    (InvalidEntityError, "InvalidInput"),
)


@dataclass(frozen=True, slots=True)
class Blob:
    """One file of a list."""

    name: str
    size: int
    metadata: Mapping[str, str]


def xml(text: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document."""
    content = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
    return Response(content, status, media_type="application/xml", headers=dict(headers or {}))


def listed(container: str, prefix: str, blobs: Iterable[Blob], folders: Iterable[str], *, following: str) -> Response:
    """A list of files, and of what stands for those below a delimiter."""
    found = "".join([*map(_blob, blobs), *(f"<BlobPrefix>{_name(folder)}</BlobPrefix>" for folder in folders)])
    head = f"<EnumerationResults ContainerName={quoteattr(_UNFIT.sub('?', container))}><Prefix>{_text(prefix)}</Prefix>"
    return xml(f"{head}<Blobs>{found}</Blobs><NextMarker>{_text(following)}</NextMarker></EnumerationResults>")


def error(problem: BatchpointError, status: int) -> Response:
    """An error, as the storage client makes its own exceptions of it."""
    code = next((code for kind, code in _CODES if isinstance(problem, kind)), "InternalError")
    text = f"<Error><Code>{code}</Code><Message>{_text(problem.message)}</Message></Error>"
    return xml(text, status=status, headers={"x-ms-error-code": code})


def metadata_in(headers: Mapping[str, str]) -> dict[str, str]:
    """The metadata that a request gives. Raises ``InvalidEntityError`` for names that XML could not hold."""
    found = {key.removeprefix(_METADATA): value for key, value in headers.items() if key.startswith(_METADATA)}
    if wrong := [key for key in found if not _METADATA_NAME.match(key)]:
        raise InvalidEntityError(f"{wrong[0]!r} is no name for metadata: a letter or _, then letters, digits and _.")
    return found


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata of an answer."""
    return {f"{_METADATA}{key}": value for key, value in metadata.items()}


def blocks_in(document: bytes) -> list[str]:
    """The blocks of a block list, in their order. No XML parser sees what a stranger wrote.

    Raises:
        InvalidEntityError: there are more than a file can have.
    """
    found = _BLOCKS.findall(document)
    if len(found) > _MOST_BLOCKS:
        raise InvalidEntityError(f"The list has {len(found)} blocks; a file has {_MOST_BLOCKS} at most.")
    return [block.decode(errors="replace").strip() for block in found]


def range_in(headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """First and last byte that are asked for, the last before the first where the file has none; None for all of it."""
    match = _RANGE.match(headers.get("x-ms-range") or headers.get("range") or "")
    if match is None:
        return None
    return int(match[1]), min(int(match[2] or size), size - 1)


def no_such_range(size: int) -> Response:
    """What is asked for begins behind the end, as the first part of an empty file does."""
    text = "<Error><Code>InvalidRange</Code><Message>The file ends before that.</Message></Error>"
    return xml(text, status=416, headers={"x-ms-error-code": "InvalidRange", "Content-Range": f"bytes */{size}"})


def _blob(blob: Blob) -> str:
    metadata = "".join(f"<{key}>{_text(value)}</{key}>" for key, value in blob.metadata.items())
    length = f"<Content-Length>{blob.size}</Content-Length><BlobType>BlockBlob</BlobType>"
    return f"<Blob>{_name(blob.name)}<Properties>{length}</Properties><Metadata>{metadata}</Metadata></Blob>"


def _name(name: str) -> str:
    if _UNFIT.search(name):
        return f'<Name Encoded="true">{quote(name, errors="surrogateescape")}</Name>'
    return f"<Name>{escape(name)}</Name>"


def _text(text: str) -> str:
    return escape(_UNFIT.sub("?", text))
