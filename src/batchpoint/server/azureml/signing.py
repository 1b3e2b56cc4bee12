"""Signed addresses: whoever has one may use it without a token, until it expires or the token ends that asked for it.

The names of the parameters are those of Azure's shared access signatures, which the client keeps when it adds others.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

from fastapi import Depends, Request

from batchpoint.entities.tokens import Role, Token
from batchpoint.errors import AuthenticationError, PermissionDeniedError
from batchpoint.server.auth import authenticated
from batchpoint.server.context import Context, context_of

Permission = Literal["r", "rlw"]
"""What a signed address allows: to read, or to read, list and write."""

_VERSION = "2024-11-04"
"""Of Azure's signatures. It says nothing here; the client insists on one."""


def signed(context: Context, path: str, holder: Token, *, seconds: float, permission: Permission = "r") -> str:
    """The address of a path, which is given with nothing escaped, with what opens it for so many seconds, unless the
    token of the ``holder``, who asks for it, ends before; that of a container opens all that it holds."""
    ends = context.workspace.registry.now() + timedelta(seconds=seconds)
    expiry = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    signature = _signature(context, path, expiry, permission, holder.name)
    parameters = {"sv": _VERSION, "se": expiry, "sp": permission, "skoid": holder.name, "sig": signature}
    return f"{quote(path)}?{urlencode(parameters)}"


def opened(path_of: Callable[[Request], str], *, writes: bool = False) -> Callable[[Request], None]:
    """A dependency that lets through who has a signed address, or a token that allows as much.

    Args:
        path_of: the path, with nothing escaped, that the address has to be signed for; ``own_path`` for the request's.
        writes: whether the route writes.
    """
    role: Role = "operator" if writes else "reader"

    def check(request: Request) -> None:
        if "sig" in request.query_params:
            _check(request, path_of(request), writes=writes)
        elif not (token := authenticated(request)).allows(role):
            message = f"The token {token.name} has the role {token.role}; this needs {role}."
            raise PermissionDeniedError(message)

    return check


def own_path(request: Request) -> str:
    """The path of a request, with nothing escaped."""
    return str(request.scope["path"])


SignedReader = Annotated[None, Depends(opened(own_path))]
"""The address of the request is signed, or the caller may at least read."""


def _check(request: Request, path: str, *, writes: bool) -> None:
    context, given = context_of(request), request.query_params
    expiry, permission, holder = given.get("se", ""), given.get("sp", ""), given.get("skoid", "")
    genuine = _signature(context, path, expiry, permission, holder)
    if not hmac.compare_digest(genuine.encode(), given["sig"].encode()):
        raise AuthenticationError("The address was not signed by this server, or was changed. Ask for a new one.")
    if datetime.fromisoformat(expiry) <= context.workspace.registry.now():
        raise AuthenticationError(f"The signed address expired at {expiry}. Ask for a new one.")
    context.workspace.tokens.named(holder)
    if writes and "w" not in permission:
        raise PermissionDeniedError("The signed address allows reading alone.")


def _signature(context: Context, path: str, expiry: str, permission: str, holder: str) -> str:
    key = context.workspace.registry.signing_key("addresses")
    # As JSON, so that no two lists of words make one message, whatever stands in a path.
    message = json.dumps([path, expiry, permission, holder])
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()
