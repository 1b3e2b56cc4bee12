"""Tokens: create, list, revoke, and who is asking."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from batchpoint.entities.tokens import AuditRecord, Role, Token
from batchpoint.errors import AuthenticationError, InvalidEntityError, NotFoundError
from batchpoint.operations import signed_tokens
from batchpoint.registry import Registry

SIGNED_TOKEN_TIME = timedelta(hours=1)
"""How long a signed token is valid."""


class Tokens:
    """What a user may ask about tokens and the audit log."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._key = registry.signing_key("tokens")

    def create(
        self, name: str, role: Role, expires_in: timedelta | None = None, *, by: str | None = None
    ) -> tuple[str, Token]:
        """Make a token. Answers with its secret, shown this once, and the token.

        Raises:
            AlreadyExistsError: there is one of that name.
            InvalidEntityError: it would have expired already, or name or role are not valid.
        """
        if expires_in is not None and expires_in <= timedelta(0):
            raise InvalidEntityError(f"Token {name} would have expired already. Give a time in the future.")
        try:
            expires_at = None if expires_in is None else self._registry.now() + expires_in
        except OverflowError:
            raise InvalidEntityError(f"Token {name} would end after the year 9999. Give fewer days, or none.") from None
        try:
            return self._registry.tokens.create(name, role, expires_at=expires_at, by=by)
        except ValueError as error:
            message = f"Token {name!r} with role {role!r} is not valid: roles are reader, operator and admin; {error}"
            raise InvalidEntityError(message) from error

    def list(self) -> Sequence[Token]:
        """All tokens, revoked and expired ones too, without their secrets."""
        return self._registry.tokens.list()

    def revoke(self, name: str) -> Token:
        """Make a token invalid from now on.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._registry.tokens.revoke(name)

    def exchange(self, secret: str, audience: str) -> tuple[str, datetime]:
        """A signed token for an API token, and when it expires: after that time, or with the API token.

        Args:
            secret: of an API token. A signed one is not exchanged, or it could be renewed for ever.
            audience: what the signed token says that it is for; here it is good for everything.

        Raises:
            AuthenticationError: the token is unknown, expired or revoked.
        """
        found, now = self._registry.tokens.find(secret), self._registry.now()
        if found is None:
            raise AuthenticationError("The API token is none of this server's: it is of another home, or mistyped.")
        token = self._of(found)
        expires_at = min(now + SIGNED_TOKEN_TIME, token.expires_at or now + SIGNED_TOKEN_TIME)
        signed = signed_tokens.issue(self._key, name=token.name, audience=audience, now=now, expires_at=expires_at)
        return signed, expires_at

    def authenticate(self, secret: str) -> Token:
        """Who holds this secret, or this signed token, which ends with the API token that it was given for.

        Raises:
            AuthenticationError: the token is unknown, expired or revoked.
        """
        if not signed_tokens.looks_signed(secret):
            return self._of(self._registry.tokens.find(secret))
        return self.named(signed_tokens.name_in(self._key, secret, now=self._registry.now()))

    def named(self, name: str) -> Token:
        """The token that something was signed for: it ends with the token.

        Raises:
            AuthenticationError: the token is unknown, expired or revoked.
        """
        try:
            return self._of(self._registry.tokens.get(name))
        except NotFoundError:
            return self._of(None)

    def end_session(self, session: str, expires_at: datetime) -> None:
        """Make a session of the studio invalid from now on, by whatever stands for it; it would last until then."""
        self._registry.tokens.end_session(session, expires_at)

    def session_has_ended(self, session: str) -> bool:
        """Whether somebody ended it."""
        return self._registry.tokens.session_has_ended(session)

    def audit(
        self,
        *,
        who: str | None = None,
        action: str | None = None,
        target: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Sequence[AuditRecord]:
        """Who did what, the newest first."""
        return self._registry.audit.list(who=who, action=action, target=target, limit=limit, offset=offset)

    def _of(self, token: Token | None) -> Token:
        """The token, when it is valid."""
        if token is None:
            message = "The token is not known here. Check that it is complete, and one of this server's."
            raise AuthenticationError(message, on_command_line="check BATCHPOINT_TOKEN, and BATCHPOINT_URL")
        if token.revoked_at is not None:
            raise AuthenticationError(f"Token {token.name} was revoked. Ask an administrator for a new one.")
        if token.expires_at is not None and token.expires_at <= self._registry.now():
            message = f"Token {token.name} expired at {token.expires_at:%Y-%m-%d %H:%M} UTC. Ask for a new one."
            raise AuthenticationError(message)
        return token
