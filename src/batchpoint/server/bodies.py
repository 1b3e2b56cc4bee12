"""Bodies of requests: JSON that can be stored and shown again, and files of any size, which go to disk as they come."""

from __future__ import annotations

import json
import math
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn

from anyio import to_thread
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from batchpoint.entities.tokens import Token
from batchpoint.errors import InvalidEntityError
from batchpoint.server.auth import authenticated

DEEPEST = 50
"""Levels of mappings and lists in a body; no entity needs a tenth of them."""
_ENOUGH = 1 << 20
"""Written at once: each write goes to a thread and back."""


async def _json_body(request: Request, _: Annotated[Token, Depends(authenticated)]) -> Any:
    """The body, read for callers with a token alone."""
    return await run_in_threadpool(_parsed, await request.body())


JsonBody = Annotated[Any, Depends(_json_body)]
"""The parsed body of a request; ``documents.read_body`` makes an entity of it, with suggestions for slips."""


async def _lenient_json_body(request: Request, _: Annotated[Token, Depends(authenticated)]) -> Any:
    return await run_in_threadpool(_parsed, await request.body(), lenient=True)


LenientJsonBody = Annotated[Any, Depends(_lenient_json_body)]
"""The same, of callers who are used to Azure: a comma after the last item is read over."""


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


@contextmanager
def spooled(content: IO[bytes], folder: Path) -> Iterator[Path]:
    """A file that came with a form, in ``folder``. It is deleted in the end, unless it was moved away."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / uuid.uuid4().hex
    try:
        with path.open("xb") as partial:
            shutil.copyfileobj(content, partial, _ENOUGH)
        yield path
    finally:
        path.unlink(missing_ok=True)


_LAST_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+"?)|,(?=\s*[}\]])', re.DOTALL)
"""A comma after the last item, or a text, in which commas are its own. A text without an end is one too: else each
quote in it would be tried as the beginning of another, and a small body take minutes."""


def _parsed(content: bytes, *, lenient: bool = False) -> Any:
    """JSON that can be stored and answered with again: no NaN, no half characters, no endless nesting.

    Raises:
        InvalidEntityError: it is something else. The message never repeats the body, which may hold a secret.
    """
    if not content.strip():
        raise InvalidEntityError("The request has no body; a JSON object was expected.")
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        message = "The body is not UTF-8, or holds half of a surrogate pair (such as \\ud800)."
        raise InvalidEntityError(message) from None
    except (ValueError, RecursionError) as fault:
        if lenient and (without := _LAST_COMMA.sub(lambda found: found[1] or "", text)) != text:
            return _parsed(without.encode())
        where = f" line {fault.lineno}, column {fault.colno}:" if isinstance(fault, json.JSONDecodeError) else ""
        reason = fault.msg if isinstance(fault, json.JSONDecodeError) else fault
        raise InvalidEntityError(f"The body is not JSON:{where} {reason}.") from None
    if _is_deeper(value, DEEPEST):
        raise InvalidEntityError(f"The body is nested deeper than {DEEPEST} levels.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(item, levels - 1) for item in inner)
