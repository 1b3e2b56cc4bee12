"""Files that arrive in blocks, in any order, until somebody says in which order they are the file."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO

from batchpoint.errors import InvalidEntityError

_ABANDONED_SECONDS = 86400.0 * 7
"""Blocks of an upload that nobody has gone on with for so long are deleted."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Block:
    """Where the bytes of a block lie."""

    file: Path
    offset: int
    size: int


class BlockUploads:
    """The uploads that are under way in one folder, each known by the address that its file will have.

    Blocks whose place in the file is known when they come are written there at once, so that in the end there is
    nothing to join: of a file of many gigabytes that would take longer than a client waits for an answer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, target: str, block: str, content: Path, *, offset: int | None = None) -> None:
        """Take a file over as one block of ``target``; one that is sent again takes the first one's place.

        Args:
            target: the address that the file will have.
            block: name of the block.
            content: a file that is not needed any more.
            offset: where the block probably lies in the file; what is true is said in the end.
        """
        folder = self._of(target)
        if not folder.exists():
            self._forget_abandoned()
            folder.mkdir(parents=True, exist_ok=True)
        if offset is None:
            content.replace(folder / _hash(block))
            return
        descriptor = os.open(folder / "whole", os.O_WRONLY | os.O_CREAT, 0o666)
        with content.open("rb") as source, os.fdopen(descriptor, "wb") as whole:
            whole.seek(offset)
            shutil.copyfileobj(source, whole, _CHUNK)
            size = whole.tell() - offset
        content.write_text(f"{offset} {size}")
        content.replace(folder / f"{_hash(block)}.at")

    @contextmanager
    def joined(self, target: str, names: Sequence[str]) -> Iterator[Path]:
        """The file that blocks make in this order, to be moved to where it belongs; then the upload is over.

        Raises:
            InvalidEntityError: a block was never sent; the upload can go on.
        """
        folder = self._of(target)
        blocks = [_find(folder, name) for name in names]
        if missing := [name for name, block in zip(names, blocks, strict=True) if block is None]:
            raise InvalidEntityError(f"{len(missing)} blocks of {target} were not sent, such as {missing[0]!r}.")
        found = [block for block in blocks if block is not None]
        whole = folder / "whole"
        if found and _lie_in_order(found, whole):
            os.truncate(whole, sum(block.size for block in found))
        else:
            folder.mkdir(parents=True, exist_ok=True)  # of an empty file no block was sent
            whole = folder / "joined"
            with whole.open("wb") as joined:
                for block in found:
                    _append(joined, block)
        yield whole
        shutil.rmtree(folder, ignore_errors=True)

    def _forget_abandoned(self) -> None:
        if not self._folder.exists():
            return
        for folder in self._folder.iterdir():
            with suppress(FileNotFoundError):  # an upload that ends just now
                if folder.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

    def _of(self, target: str) -> Path:
        return self._folder / _hash(target)


def _find(folder: Path, name: str) -> _Block | None:
    own = folder / _hash(name)
    if own.exists():
        return _Block(own, 0, own.stat().st_size)
    try:
        offset, size = own.with_suffix(".at").read_text().split()
    except FileNotFoundError:
        return None
    return _Block(folder / "whole", int(offset), int(size))


def _lie_in_order(blocks: Sequence[_Block], whole: Path) -> bool:
    ends = accumulate((block.size for block in blocks), initial=0)
    return all(block.file == whole and block.offset == end for block, end in zip(blocks, ends, strict=False))


def _append(joined: IO[bytes], block: _Block) -> None:
    left = block.size
    with block.file.open("rb") as file:
        file.seek(block.offset)
        while left > 0 and (piece := file.read(min(_CHUNK, left))):
            joined.write(piece)
            left -= len(piece)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
