"""Signing in: a token is exchanged for a cookie, and every form carries proof that it came from a page of ours.

The cookie is a signed token that names the API token it was given for: it ends when that one is revoked or expires,
when somebody signs out, and after ``SESSION``. Scripts cannot read it, and other sites' forms do not send it. A form is
believed only with the session's own proof in it, because older browsers send cookies with other sites' forms all the
same.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response
from starlette.datastructures import FormData

from batchpoint.entities.studio_addresses import ROOT
from batchpoint.entities.tokens import Token
from batchpoint.errors import AuthenticationError, BatchpointError, PermissionDeniedError, RequestTooLargeError
from batchpoint.operations import signed_tokens
from batchpoint.server.auth import attempt, authenticated
from batchpoint.server.context import Context, context_of

SESSION = timedelta(hours=12)
AUDIENCE = "studio"
LONGEST_SIGN_IN = 1 << 14
"""Bytes."""


def begin(request: Request, response: Response, secret: str) -> None:
    """Exchange a token for a session, which the response keeps in the browser.

    Raises:
        AuthenticationError: the token is unknown, expired or revoked.
        TooManyRequestsError: the same, and the address failed too often of late.
        PermissionDeniedError: the form came from another site.
    """
    context = context_of(request)
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise PermissionDeniedError("Another site asked your browser to sign in here. Nothing was done.")
    with attempt(request):
        if signed_tokens.looks_signed(secret):
            raise AuthenticationError("This is a token for programs, which ends soon. Sign in with an API token.")
        token = context.workspace.tokens.authenticate(secret)
    now = context.workspace.registry.now()
    expires_at = min(now + SESSION, token.expires_at or now + SESSION)
    signed = signed_tokens.issue(
        _key(context), name=token.name, audience=AUDIENCE, now=now, expires_at=expires_at,
        told_apart_by=secrets.token_hex(8),
    )  # fmt: skip
    response.set_cookie(
        cookie_name(context),
        signed,
        expires=expires_at,
        path=ROOT,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def cookie_name(context: Context) -> str:
    """What the cookie is called: browsers keep those of all servers of a machine together, whatever their ports."""
    return f"batchpoint_session_{context.workspace.registry.signing_key('cookie name').hex()[:8]}"


def forget(request: Request, response: Response) -> None:
    """Take the session's cookie out of the browser."""
    response.delete_cookie(cookie_name(context_of(request)), path=ROOT)


def end(request: Request, response: Response) -> None:
    """End the session, for whoever else has its cookie too."""
    forget(request, response)
    context, cookie = context_of(request), _cookie(request)
    with suppress(AuthenticationError):  # it is none, or is over already
        _holder(context, cookie)
        context.workspace.tokens.end_session(cookie, context.workspace.registry.now() + SESSION)


def proof(request: Request) -> str:
    """What the forms of this session carry."""
    key = context_of(request).workspace.registry.signing_key("forms")
    return hmac.new(key, _cookie(request).encode(), hashlib.sha256).hexdigest()


def _visitor(request: Request) -> Token:
    """Who looks at a page: by the session, or by a bearer token, as programs have one.

    Raises:
        AuthenticationError: neither is there, or it is not valid any more.
    """
    if isinstance(known := request.scope.get("token"), Token):
        return known
    if "Authorization" in request.headers:
        return authenticated(request)
    cookie = _cookie(request)
    if not cookie:
        raise AuthenticationError("Sign in to see this.")
    # What nobody can guess is not counted as an attempt: an old cookie must not shut its owner out.
    token = _holder(context_of(request), cookie)
    request.scope["token"] = token
    return token


def known_visitor(request: Request) -> Token | None:
    """Who looks at a page that nobody has to sign in for, as that of an error; None when nobody is signed in."""
    if isinstance(known := request.scope.get("token"), Token):
        return known
    with suppress(BatchpointError):  # the session is over, or the registry cannot say: the page is shown all the same
        return _holder(context_of(request), _cookie(request))
    return None


def _cookie(request: Request) -> str:
    """The session's cookie; empty where there is none."""
    return request.cookies.get(cookie_name(context_of(request)), "")


def _holder(context: Context, cookie: str) -> Token:
    """Whose session a cookie stands for.

    Raises:
        AuthenticationError: it is none of ours, or is over.
    """
    name = signed_tokens.name_in(_key(context), cookie, now=context.workspace.registry.now())
    if context.workspace.tokens.session_has_ended(cookie):
        raise AuthenticationError("The session was ended. Sign in again.")
    return context.workspace.tokens.named(name)


def is_still_allowed(request: Request, visitor: Token) -> bool:
    """Whether somebody who looks at a page for hours may still do so: his token is neither revoked nor expired, and his
    session not ended."""
    context = context_of(request)
    try:
        if "Authorization" in request.headers:
            context.workspace.tokens.named(visitor.name)
        else:
            _holder(context, _cookie(request))
    except AuthenticationError:
        return False
    return True


def _key(context: Context) -> bytes:
    """What sessions are signed with: another key than that of tokens, so that neither passes for the other."""
    return context.workspace.registry.signing_key("sessions")


Visitor = Annotated[Token, Depends(_visitor)]
"""Who looks at a page. Every role may look."""


async def _sent_form(request: Request, visitor: Visitor) -> AsyncIterator[FormData]:
    """The form that somebody sends who may change things; it is read for nobody else.

    Raises:
        PermissionDeniedError: the form has no proof of this session, or the token does not allow as much.
    """
    if not visitor.allows("operator"):
        raise PermissionDeniedError(f"The token {visitor.name} has the role {visitor.role}; this needs operator.")
    async with request.form(max_files=1, max_fields=100) as form:
        if not hmac.compare_digest(str(form.get("proof", "")).encode(), proof(request).encode()):
            raise PermissionDeniedError(
                "The form did not come from a page of this session. Go back, load the page again, and send it anew."
            )
        yield form


SentForm = Annotated[FormData, Depends(_sent_form)]
"""A form of ours, sent by an operator."""


async def _sign_in_form(request: Request) -> dict[str, str]:
    """The form of somebody who is not known yet: no more of it is read than a token needs.

    Raises:
        RequestTooLargeError: it is longer.
    """
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > LONGEST_SIGN_IN:
            raise RequestTooLargeError("This is no sign-in: it is too long.")
    return dict(parse_qsl(content.decode(errors="replace")))


SignInForm = Annotated[dict[str, str], Depends(_sign_in_form)]
"""What was typed in to sign in."""
