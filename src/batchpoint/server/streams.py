"""Answers that are sent piece by piece, and hold something meanwhile: an open file, a place among those who wait."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PIECE = 1 << 20


class HoldingResponse(StreamingResponse):
    """Lets go of what it holds when it is over, also when its reader was gone before the first piece.

    A ``finally`` in the generator would not do: of a generator that was never begun nothing is run.
    """

    def __init__(
        self,
        pieces: Iterator[bytes] | Iterator[str],
        let_go: Callable[[], None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._let_go = let_go

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._let_go()  # at once: a task that is canceled waits for nothing any more


def sent_file(
    opening: AbstractContextManager[IO[bytes]],
    name: str,
    size: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> HoldingResponse:
    """A file, read and sent piece by piece. ``opening`` is the context manager that opens it.

    It is opened before the answer begins, so that what cannot be opened is an error and not a broken download.
    """
    file = opening.__enter__()

    def pieces() -> Iterator[bytes]:
        while piece := file.read(PIECE):
            yield piece

    def close() -> None:
        opening.__exit__(None, None, None)

    told = {**(headers or {}), **({"Content-Length": str(size)} if size is not None else {})}
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return HoldingResponse(pieces(), close, media_type=media_type, headers=told)
