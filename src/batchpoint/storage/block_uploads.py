"""Files that arrive in blocks, in any order, until somebody says in which order they are the file."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from batchpoint.errors import ConflictError, InvalidEntityError

_ABANDONED_SECONDS = 86400.0 * 7
"""An upload that nobody has gone on with for so long is deleted."""
_CHUNK = 1 << 20


class BlockUploads:
    """The blocks that wait in one folder, each known by the address that its file will have, and by its name.

    Two callers may upload to one address at once, and nothing in a request tells which of them sent it. So:

    * A block never changes once it is there. A list of blocks takes away those that it names, and no others: newer
      clients make up a new name for each block, and with them each caller's list finds his own, all of them.
    * Older clients name a block after its place in the file, so that both callers use the same names. A block that is
      sent again with other content is not kept; that there were two is. A list that names it is refused: its caller
      has sent all of his blocks before, so what is named once has one content alone, and that is his.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, target: str, block: str, content: Path) -> None:
        """Keep a file as one block of ``target``.

        Args:
            target: the address that the file will have.
            block: name of the block.
            content: a file that nobody writes to any more.
        """
        folder = self._of(target)
        if not folder.exists():
            self._forget_abandoned()
        place = folder / _hash(block)
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a list of blocks that was carried out just now took the folder away
                try:
                    os.link(content, place)
                except FileExistsError:
                    if not filecmp.cmp(content, place, shallow=False):
                        _other(place).touch()
                return

    @contextmanager
    def joined(self, target: str, names: Sequence[str]) -> Iterator[Path]:
        """The file that blocks make in this order, to be moved to where it belongs; then the blocks are deleted.

        Raises:
            InvalidEntityError: a block was never sent; the upload can go on.
            ConflictError: a block was sent with different contents. All that are named are deleted, so that who
                uploads the file once more is not refused for ever.
        """
        folder = self._of(target)
        blocks = [folder / _hash(name) for name in names]
        if any(_other(block).exists() for block in blocks):
            _delete(folder, blocks)
            raise ConflictError(
                f"{target} was uploaded by two at once, with different content: some of its blocks were sent twice. "
                "Upload it once more, one after the other."
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        whole = self._folder / f"{folder.name}.{uuid.uuid4().hex[:8]}"
        try:
            with whole.open("xb") as joined:
                for name, block in zip(names, blocks, strict=True):
                    _append(joined, block, f"Block {name!r} of {target} was not sent.")
            yield whole
        finally:
            whole.unlink(missing_ok=True)
        _delete(folder, blocks)

    def _forget_abandoned(self) -> None:
        if not self._folder.exists():
            return
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # an upload that ends just now
                if path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)

    def _of(self, target: str) -> Path:
        return self._folder / _hash(target)


def _other(block: Path) -> Path:
    """Says that the block was sent with other content, too."""
    return block.with_suffix(".other")


def _append(joined: IO[bytes], block: Path, missing: str) -> None:
    try:
        with block.open("rb") as file:
            shutil.copyfileobj(file, joined, _CHUNK)
    except FileNotFoundError:
        raise InvalidEntityError(missing) from None


def _delete(folder: Path, blocks: Sequence[Path]) -> None:
    for block in blocks:
        block.unlink(missing_ok=True)
        _other(block).unlink(missing_ok=True)
    with suppress(OSError):  # there are others, or it is gone
        folder.rmdir()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
