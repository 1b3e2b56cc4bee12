"""Tokens, and the audit log."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from batchpoint.entities.base import Part
from batchpoint.entities.documents import read_body
from batchpoint.entities.tokens import Role, Token, TokenName
from batchpoint.server.api.wire import Paged, answer, as_json, described
from batchpoint.server.auth import Admin
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Work

router = APIRouter(tags=["tokens"])


MOST_DAYS = timedelta.max.days
"""A longer time cannot be told from never."""


class TokenRequest(Part):
    """A token to make."""

    name: TokenName
    role: Role = "operator"
    expires_in_days: float | None = Field(default=None, gt=0, le=MOST_DAYS)
    """None: never."""


@router.post("/tokens", name="tokens.create", status_code=201, **described(body=TokenRequest, result=Token))
def create(body: JsonBody, caller: Admin, work: Work) -> JSONResponse:
    """Make a token. Its secret is in this answer and nowhere else, ever."""
    wanted = read_body(TokenRequest, body)
    lifetime = timedelta(days=wanted.expires_in_days) if wanted.expires_in_days else None
    secret, token = work.tokens.create(wanted.name, wanted.role, lifetime, by=caller.name)
    return answer({**as_json(token), "secret": secret}, status=201)


@router.get("/tokens", name="tokens.list")
def list_tokens(_: Admin, work: Work) -> JSONResponse:
    """All tokens, revoked and expired ones too, without their secrets."""
    return answer({"value": [as_json(token) for token in work.tokens.list()], "next": None})


@router.delete("/tokens/{name}", name="tokens.revoke", **described(result=Token))
def revoke(name: str, _: Admin, work: Work) -> JSONResponse:
    """Make a token invalid from now on."""
    return answer(work.tokens.revoke(name))


@router.get("/audit", name="audit.list")
def audit(_: Admin, work: Work, page: Paged, who: str | None = None, target: str | None = None) -> JSONResponse:
    """Who did what, the newest first."""
    return page.answer(work.tokens.audit(who=who, target=target, limit=page.reach, offset=page.offset))
