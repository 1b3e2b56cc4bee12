"""Who is asking, and what he may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from batchpoint.entities.tokens import Role, Token
from batchpoint.errors import AuthenticationError, PermissionDeniedError

if TYPE_CHECKING:
    from batchpoint.server.context import Context  # which asks who the caller is before it makes a workspace


def authenticated(request: Request) -> Token:
    """The token of a request, looked up once.

    Raises:
        AuthenticationError: there is none, or it is unknown, expired or revoked.
        TooManyRequestsError: the same, and the address failed too often of late. A token that is right always passes:
            on one machine all programs share an address, and none may shut the others out.
    """
    if isinstance(known := request.scope.get("token"), Token):
        return known
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        message = "This needs a token, which requests carry in the header 'Authorization: Bearer <token>'."
        raise AuthenticationError(message, on_command_line="set BATCHPOINT_TOKEN to a token of the server")
    with attempt(request):
        token = _context_of(request).workspace.tokens.authenticate(secret.strip())
    request.scope["token"] = token
    return token


@contextmanager
def attempt(request: Request) -> Iterator[None]:
    """Somebody tries a secret: when it is wrong, that is counted for his address.

    Raises:
        TooManyRequestsError: the secret is wrong, and the address failed too often of late.
    """
    try:
        yield
    except AuthenticationError:
        failed_attempts = _context_of(request).failed_attempts
        address = request.client.host if request.client else "unknown"
        failed_attempts.check(address)
        failed_attempts.note(address)
        raise


def _context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _require(role: Role) -> Callable[[Request], Token]:
    def check(request: Request) -> Token:
        token = authenticated(request)
        if not token.allows(role):
            message = (
                f"The token {token.name} has the role {token.role}; {request.method} {request.url.path} needs {role}."
            )
            raise PermissionDeniedError(message)
        return token

    return check


Reader = Annotated[Token, Depends(_require("reader"))]
"""The caller, who may at least read."""
Operator = Annotated[Token, Depends(_require("operator"))]
"""The caller, who may at least register, deploy and invoke."""
Admin = Annotated[Token, Depends(_require("admin"))]
"""The caller, who may do everything."""
