"""Tokens, of which only a hash is kept, and the audit log."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, select, update
from sqlalchemy.exc import IntegrityError

from batchpoint.entities.tokens import AuditRecord, Role, Token
from batchpoint.errors import AlreadyExistsError, NotFoundError, RegistryError
from batchpoint.registry.database import Database
from batchpoint.registry.tables import audit_table as audit
from batchpoint.registry.tables import ended_sessions_table as sessions
from batchpoint.registry.tables import tokens_table as tokens

log = logging.getLogger(__name__)

_USE_NOTED_EVERY = timedelta(minutes=1)
"""``last_used_at`` is written this often at most, so that reading requests need no write each."""


class Tokens:
    """The tokens of one registry."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def create(
        self, name: str, role: Role, *, expires_at: datetime | None = None, by: str | None = None
    ) -> tuple[str, Token]:
        """Make a token. Answers with its secret, which is nowhere to be had later, and the token.

        Raises:
            AlreadyExistsError: there is one of that name, revoked ones included.
        """
        secret = f"bp_{secrets.token_urlsafe(32)}"
        token = Token(
            name=name, role=role, prefix=secret[:8], created_at=self._now(), created_by=by, expires_at=expires_at
        )
        try:
            with self._database.write() as connection:
                connection.execute(tokens.insert().values(secret_hash=_hash(secret), **token.model_dump()))
        except IntegrityError as error:
            raise AlreadyExistsError(f"A token named {name} exists already. Choose another name.") from error
        return secret, token

    def get(self, name: str) -> Token:
        """One token, without its secret.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.read() as connection:
            row = connection.execute(select(tokens).where(tokens.c.name == name)).first()
        if row is None:
            raise NotFoundError(f"There is no token named {name}.", kind="token", name=name)
        return _token(row)

    def find(self, secret: str) -> Token | None:
        """The token with this secret, whether or not it is still valid. Notes its use."""
        key = tokens.c.secret_hash == _hash(secret)
        with self._database.read() as connection:
            row = connection.execute(select(tokens).where(key)).first()
        if row is None:
            return None
        if row.last_used_at is None or self._now() - row.last_used_at >= _USE_NOTED_EVERY:
            try:
                with self._database.write() as connection:
                    connection.execute(update(tokens).where(key).values(last_used_at=self._now()))
            except RegistryError as error:
                # Who only reads can be answered all the same, on a full disk for instance.
                log.warning("The use of token %s was not noted: %s", row.name, error.message)
        return _token(row)

    def list(self) -> list[Token]:
        """All tokens, the oldest first, without their secrets."""
        with self._database.read() as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.name))
            return [_token(row) for row in rows]

    def revoke(self, name: str) -> Token:
        """Make a token invalid from now on; a revoked one stays as it is.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.write() as connection:
            change = update(tokens).where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
            connection.execute(change.values(revoked_at=self._now()))
        return self.get(name)

    def end_session(self, session: str, expires_at: datetime) -> None:
        """Note that a session is over before its time; those that would be over by now anyway are forgotten."""
        with self._database.write() as connection:
            mine = sessions.c.session_hash == _hash(session)
            connection.execute(delete(sessions).where(mine | (sessions.c.expires_at <= self._now())))
            connection.execute(sessions.insert().values(session_hash=_hash(session), expires_at=expires_at))

    def session_has_ended(self, session: str) -> bool:
        """Whether a session was ended before its time."""
        query = select(sessions.c.session_hash).where(sessions.c.session_hash == _hash(session))
        with self._database.read() as connection:
            return connection.execute(query).first() is not None


class Audit:
    """The audit log of one registry."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def record(
        self, who: str, action: str, target: str, *, ok: bool = True, details: dict[str, Any] | None = None
    ) -> None:
        """Note that somebody asked for something, and whether it was done."""
        record = AuditRecord(at=self._now(), who=who, action=action, target=target[:1024], ok=ok, details=details or {})
        with self._database.write() as connection:
            connection.execute(audit.insert().values(record.model_dump()))

    def list(
        self,
        *,
        who: str | None = None,
        action: str | None = None,
        target: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[AuditRecord]:
        """Records, the newest first."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit).offset(offset)
        for column, value in ((audit.c.who, who), (audit.c.action, action), (audit.c.target, target)):
            if value is not None:
                query = query.where(column == value)
        with self._database.read() as connection:
            return [
                AuditRecord(
                    at=row.at, who=row.who, action=row.action, target=row.target, ok=row.ok, details=row.details
                )
                for row in connection.execute(query)
            ]


def _hash(secret: str) -> str:
    """The secret has 256 random bits, so a plain hash is as good as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: Row[Any]) -> Token:
    return Token.model_validate({name: getattr(row, name) for name in Token.model_fields})
