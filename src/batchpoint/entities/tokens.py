"""Tokens: who may ask, and for what. The audit log: who asked for what, when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from batchpoint.entities.base import Part

Role = Literal["reader", "operator", "admin"]

ROLES: tuple[Role, ...] = ("reader", "operator", "admin")
"""From the least to the most; each may do all that the ones before it may."""

TokenName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,254}$")]


class Token(Part):
    """A bearer token, without its secret: only a hash of that is kept."""

    name: TokenName
    role: Role
    prefix: str
    """First characters of the secret, to tell tokens apart."""
    created_at: datetime
    created_by: str | None = None
    expires_at: datetime | None = None
    """None: never."""
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """Exact to a minute."""

    def allows(self, role: Role) -> bool:
        """Whether whoever holds this token may do what ``role`` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class AuditRecord(Part):
    """One line of the audit log."""

    at: datetime
    who: str
    """Name of the token."""
    action: str
    """Verb of the operation, such as ``endpoints.invoke``."""
    target: str
    """What it was done to."""
    ok: bool
    details: dict[str, Any] = Field(default_factory=dict)
