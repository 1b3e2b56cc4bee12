"""What a file or folder holds, as a hash: what is uploaded is named by it, so the same content is uploaded once.

Server and client name uploads in the same way; that is how the client can tell, without sending anything, whether what
is registered is what lies on this machine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from batchpoint.errors import InvalidEntityError

NEVER_CODE = frozenset({"__pycache__", ".git", ".ipynb_checkpoints", ".venv"})
"""Folders that are left out of uploaded code."""


def upload_path(root: Path, content_hash: str) -> str:
    """Where the content of ``root`` lies in the default datastore."""
    return f"LocalUpload/{content_hash[:32]}/{root.resolve().name}"


def hash_content(root: Path, skip: frozenset[str] = frozenset()) -> str:
    """Hash of a file with its name, or of a folder's files with theirs; ``skip`` are names of folders left out.

    Raises:
        InvalidEntityError: as ``walk``.
    """
    digest = hashlib.sha256(root.resolve().name.encode())
    for name, path in walk(root, skip):
        with path.open("rb") as file:
            told = f"\0{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}"
            digest.update(told.encode(errors="surrogateescape"))  # systems allow any bytes in names
    return digest.hexdigest()


def walk(root: Path, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, Path]]:
    """Files with their names relative to ``root``, in the order of the names. Links are followed.

    Raises:
        InvalidEntityError: a link leads back to a folder that it lies in, or something is no file (a broken link, a
            pipe): it cannot be copied, and leaving it out would go unnoticed.
    """
    if root.is_file():
        yield root.name, root
        return
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if name not in skip]
        for name in folders:
            if (inner := Path(folder, name)).is_symlink() and Path(folder).resolve().is_relative_to(inner.resolve()):
                raise InvalidEntityError(f"{inner} is a link to a folder that it lies in. Take it away.")
        found += [Path(folder, name) for name in files]
    for path in found:
        if not path.is_file():
            raise InvalidEntityError(
                f"{path} is neither a file nor a folder, but a broken link or a device. Take it away."
            )
    yield from sorted((path.relative_to(root).as_posix(), path) for path in found)
