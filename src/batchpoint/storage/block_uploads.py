"""Files that arrive in blocks, in any order, until somebody says in which order they are the file."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from batchpoint.errors import InvalidEntityError

_ABANDONED_SECONDS = 86400.0 * 7
"""Blocks of an upload that nobody has gone on with for so long are deleted."""
_CHUNK = 1 << 20


class BlockUploads:
    """The uploads that are under way in one folder, each known by the address that its file will have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, target: str, block: str, content: Path) -> None:
        """Take a file over as one block of ``target``; one that is sent again takes the first one's place."""
        folder = self._of(target)
        if not folder.exists():
            self._forget_abandoned()
            folder.mkdir(parents=True, exist_ok=True)
        content.replace(folder / _hash(block))

    @contextmanager
    def joined(self, target: str, blocks: Sequence[str]) -> Iterator[Path]:
        """The file that blocks make in this order, to be moved to where it belongs; then the upload is over.

        Raises:
            InvalidEntityError: a block was never sent; the upload can go on.
        """
        folder = self._of(target)
        files = [folder / _hash(block) for block in blocks]
        if missing := [block for block, file in zip(blocks, files, strict=True) if not file.exists()]:
            raise InvalidEntityError(f"{len(missing)} blocks of {target} were not sent, such as {missing[0]!r}.")
        whole = folder / "whole"
        with whole.open("wb") as joined:
            for file in files:
                with file.open("rb") as block_file:
                    _append(joined.fileno(), block_file.fileno())
        yield whole
        shutil.rmtree(folder)

    def _forget_abandoned(self) -> None:
        if not self._folder.exists():
            return
        for folder in self._folder.iterdir():
            if folder.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _of(self, target: str) -> Path:
        return self._folder / _hash(target)


def _append(target: int, source: int) -> None:
    """In the kernel, which on some file systems shares the bytes instead of copying them."""
    while os.copy_file_range(source, target, _CHUNK * 64):
        pass


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
