"""Tokens and the audit log, for administrators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, cast

from fastapi import APIRouter, Query
from fastapi.responses import Response

from batchpoint.entities.tokens import ROLES, AuditRecord, Role, Token
from batchpoint.errors import BatchpointError, InvalidEntityError, PermissionDeniedError
from batchpoint.server.studio.rendering import Page, Visit, Visited, html, page, see_other
from batchpoint.server.studio.sessions import SentForm

router = APIRouter()

ON_A_PAGE = 100
MOST_DAYS = 36_500.0
"""A hundred years; who wants more leaves it empty."""


class TokensPage(Page):
    """All tokens."""

    tokens: Sequence[Token]
    roles: Sequence[Role] = ROLES
    made: str | None = None
    """The name of the token that was made just now."""
    secret: str | None = None
    """Its secret, which is shown on this page and nowhere else, ever."""
    refusal: str | None = None


class AuditPage(Page):
    """Some lines of the audit log, the newest first."""

    records: Sequence[AuditRecord]
    who: str
    action: str
    target: str
    before: int | None
    following: int | None
    """Where the pages before and after begin; None where there is none."""


@page(router, "/tokens", "tokens.html")
def tokens(visit: Visited) -> TokensPage:
    """All tokens, without their secrets."""
    _check_admin(visit)
    return TokensPage(title="Tokens", tokens=visit.work.tokens.list())


@router.post("/tokens", name="tokens.create", include_in_schema=False)
def create_token(visit: Visited, form: SentForm) -> Response:
    """Make a token, and show its secret this once."""
    _check_admin(visit)
    name, role, days = (str(form.get(field, "")).strip() for field in ("name", "role", "days"))
    try:
        secret, made = visit.work.tokens.create(name, cast("Role", role), lifetime(days), by=visit.visitor.name)
    except BatchpointError as refusal:
        told = TokensPage(title="Tokens", tokens=visit.work.tokens.list(), refusal=refusal.message)
        return html(visit.request, "tokens.html", told, at=visit.at, visitor=visit.visitor, status=422)
    told = TokensPage(title="Tokens", tokens=visit.work.tokens.list(), made=made.name, secret=secret)
    return html(visit.request, "tokens.html", told, at=visit.at, visitor=visit.visitor)


@router.post("/tokens/{name}/revoke", name="tokens.revoke", include_in_schema=False)
def revoke_token(visit: Visited, name: str, _: SentForm) -> Response:
    """Make a token invalid from now on."""
    _check_admin(visit)
    visit.work.tokens.revoke(name)
    return see_other(visit.at.tokens())


@page(router, "/audit", "audit.html")
def audit(
    visit: Visited,
    who: str = "",
    action: str = "",
    target: str = "",
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> AuditPage:
    """Who did what."""
    _check_admin(visit)
    found = visit.work.tokens.audit(
        who=who or None, action=action or None, target=target or None, limit=ON_A_PAGE + 1, offset=offset
    )
    return AuditPage(
        title="Audit",
        records=found[:ON_A_PAGE],
        who=who,
        action=action,
        target=target,
        before=max(offset - ON_A_PAGE, 0) if offset else None,
        following=offset + ON_A_PAGE if len(found) > ON_A_PAGE else None,
    )


def lifetime(days: str) -> timedelta | None:
    """How long a token is to be valid; None for ever. Pure. Raises ``InvalidEntityError`` for what is no time."""
    if not days:
        return None
    try:
        count = float(days)
    except ValueError:
        count = 0.0
    if not 0 < count <= MOST_DAYS:
        raise InvalidEntityError(f"{days!r} is no number of days from more than 0 to {MOST_DAYS:,.0f}.")
    return timedelta(days=count)


def _check_admin(visit: Visit) -> None:
    if not visit.visitor.allows("admin"):
        raise PermissionDeniedError(
            f"The token {visit.visitor.name} has the role {visit.visitor.role}; this needs admin."
        )
