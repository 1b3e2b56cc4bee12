"""Bodies of any size: they go to disk as they come, and never lie in memory whole."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import Request

_ENOUGH = 1 << 20
"""Written at once: each write goes to a thread and back."""


@asynccontextmanager
async def received(request: Request, folder: Path) -> AsyncIterator[Path]:
    """The body of a request as a file in ``folder``. It is deleted in the end, unless it was moved away.

    Raises:
        starlette.requests.ClientDisconnect: the caller went away before he had sent all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / uuid.uuid4().hex
    with path.open("xb") as partial:
        try:
            gathered = bytearray()
            async for piece in request.stream():
                gathered += piece
                if len(gathered) >= _ENOUGH:
                    await to_thread.run_sync(partial.write, gathered)
                    gathered = bytearray()
            await to_thread.run_sync(partial.write, gathered)
            partial.flush()
            yield path
        finally:
            path.unlink(missing_ok=True)
