"""The outbox of webhooks: what is to be told to whom, written in the transaction in which it happened.

A delivery is sent by whichever server claims it. A claim begins an attempt and moves the next one to when the sender
is taken to be lost, so each attempt is made by one server, and one that was killed in between is made up for. Whoever
made the attempt that was begun last says how it went.
"""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, not_

from batchpoint.entities.jobs import Job
from batchpoint.entities.webhooks import (
    TEST_EVENT,
    TRIED_FOR,
    Delivery,
    DeliveryState,
    Webhook,
    events_of,
    is_told,
    next_attempt_at,
    told_as_test,
    told_of,
)
from batchpoint.errors import NotFoundError
from batchpoint.registry.database import Database
from batchpoint.registry.scope import EVERYWHERE, Scope
from batchpoint.registry.tables import deliveries_table as deliveries
from batchpoint.registry.tables import resources_table as resources

KEPT = 1000
"""Deliveries of a webhook that arrived, and that failed, which are remembered; the older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery, and the right to make one attempt at it."""

    id: int
    workspace: str
    webhook: str
    message_id: str
    body: str
    attempt: int

    @property
    def address(self) -> tuple[str, str]:
        """Whose it is."""
        return self.workspace, self.webhook


def put_out(connection: Connection, workspace: str, job: Job, now: datetime) -> None:
    """Note for each webhook of the workspace what it wants to know of a job that has just come to where it is."""
    events = events_of(job)
    if not events:
        return
    scope = Scope(workspace)
    for webhook in map(Webhook.model_validate, connection.execute(_kept(scope)).scalars().all()):
        for event in events:
            if is_told(webhook, event, job):
                body = told_of(job, event, workspace, now)
                _insert(connection, scope, webhook.name, event, body, now, job_name=job.name)


def forget(connection: Connection, scope: Scope, webhook: str) -> None:
    """Delete those of a webhook that is deleted in the same transaction: the next of its name must not get them."""
    connection.execute(scope.delete(deliveries).where(deliveries.c.webhook == webhook))


class Deliveries:
    """The deliveries of one workspace, and what is due in all of them."""

    def __init__(self, database: Database, now: Callable[[], datetime], scope: Scope) -> None:
        self._database = database
        self._now = now
        self._scope = scope

    def add_test(self, webhook: str) -> Delivery:
        """Note a delivery that is about no job.

        Raises:
            NotFoundError: there is no such webhook.
        """
        assert self._scope.workspace is not None
        now = self._now()
        body = told_as_test(self._scope.workspace, webhook, now)
        with self._database.write() as connection:
            if connection.execute(_kept(self._scope).where(resources.c.name == webhook)).first() is None:
                raise NotFoundError(f"There is no webhook named {webhook}.", kind="webhook", name=webhook)
            return _delivery(_insert(connection, self._scope, webhook, TEST_EVENT, body, now))

    def list(
        self, webhook: str, *, state: DeliveryState | None = None, limit: int | None = None, offset: int = 0
    ) -> builtins.list[Delivery]:
        """Those of a webhook, the newest first."""
        query = self._of(webhook).order_by(deliveries.c.id.desc()).limit(limit).offset(offset)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        with self._database.read() as connection:
            return [_delivery(row) for row in connection.execute(query)]

    def replay(self, webhook: str, number: int) -> Delivery:
        """Send one again, whatever became of it.

        Raises:
            NotFoundError: there is none of that number.
        """
        with self._database.write() as connection:
            again = self._again(webhook).where(deliveries.c.id == number).returning(deliveries)
            row = connection.execute(again).first()
        if row is None:
            message = f"Webhook {webhook} has no delivery {number}. Its list of deliveries shows those it has."
            raise NotFoundError(
                message,
                kind="delivery",
                name=str(number),
                on_command_line=f"batchpoint webhook deliveries -n {webhook}",
            )
        return _delivery(row)

    def replay_failed(self, webhook: str) -> int:
        """Send all again that failed; how many those are."""
        with self._database.write() as connection:
            replayed = connection.execute(self._again(webhook).where(deliveries.c.state == "failed"))
            return int(replayed.rowcount)

    def next_due_at(self) -> datetime | None:
        """When the next delivery of any workspace is due; None when none is pending."""
        query = EVERYWHERE.select(deliveries, func.min(deliveries.c.next_attempt_at))
        with self._database.read() as connection:
            due: datetime | None = connection.execute(query.where(deliveries.c.state == "pending")).scalar()
        return due

    def pending(self) -> int:
        """How many of all workspaces have neither arrived nor been given up."""
        query = EVERYWHERE.select(deliveries, func.count()).where(deliveries.c.state == "pending")
        with self._database.read() as connection:
            count: int = connection.execute(query).scalar_one()
        return count

    def claim(self, lease_seconds: float, busy: Collection[tuple[str, str]] = ()) -> ClaimedDelivery | None:
        """Begin an attempt at the delivery of any workspace that is due first; None when none is.

        Webhooks that are ``busy`` are passed over: one that hangs must not hold up the others. What was begun and was
        not heard of again until its time was over is given up.
        """
        now = self._now()
        others = [not_(and_(deliveries.c.workspace == one, deliveries.c.webhook == name)) for one, name in busy]
        due = EVERYWHERE.select(deliveries).where(
            deliveries.c.state == "pending", deliveries.c.next_attempt_at <= now, *others
        )
        first = due.order_by(deliveries.c.next_attempt_at, deliveries.c.id).limit(1).with_for_update(skip_locked=True)
        while True:
            with self._database.write() as connection:
                row = connection.execute(first).first()
                if row is None:
                    return None
                claimed = ClaimedDelivery(
                    row.id, row.workspace, row.webhook, row.message_id, row.body, row.attempts + 1
                )
                if row.attempts == 0 or now < row.expires_at:  # one try each has, however late
                    begun = {"attempts": claimed.attempt, "next_attempt_at": now + timedelta(seconds=lease_seconds)}
                    connection.execute(EVERYWHERE.update(deliveries).where(deliveries.c.id == row.id).values(begun))
                    return claimed
            message = row.message or "It is not known how the attempts went, and there is no time for another."
            self._end(replace(claimed, attempt=row.attempts), "failed", row.status_code, message)

    def is_current(self, claimed: ClaimedDelivery) -> bool:
        """Whether the attempt is still to be made: its webhook was not deleted, and nobody else has begun one since."""
        query = EVERYWHERE.select(deliveries, deliveries.c.id).where(*_own(claimed))
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def arrived(self, claimed: ClaimedDelivery, status_code: int) -> bool:
        """The receiver has it. Answers whether it was still for this attempt to say."""
        return self._end(claimed, "delivered", status_code, None)

    def not_arrived(
        self, claimed: ClaimedDelivery, message: str, status_code: int | None = None, *, for_good: bool = False
    ) -> bool:
        """The attempt failed; it is made again later, unless it was tried long enough, or failed ``for_good``."""
        now = self._now()
        with self._database.read() as connection:
            query = EVERYWHERE.select(deliveries, deliveries.c.expires_at).where(deliveries.c.id == claimed.id)
            expires_at = connection.execute(query).scalar()
        again_at = None if for_good or expires_at is None else next_attempt_at(claimed.attempt, now, expires_at)
        if again_at is None:
            return self._end(claimed, "failed", status_code, message)
        later = {"next_attempt_at": again_at, "status_code": status_code, "message": message[:1024]}
        with self._database.write() as connection:
            return connection.execute(_own_attempt(claimed).values(later)).rowcount > 0

    def _end(
        self, claimed: ClaimedDelivery, state: DeliveryState, status_code: int | None, message: str | None
    ) -> bool:
        ended: dict[str, Any] = {"state": state, "status_code": status_code, "message": message and message[:1024]}
        ended |= {"ended_at": self._now(), "next_attempt_at": None}
        with self._database.write() as connection:
            ours = connection.execute(_own_attempt(claimed).values(ended)).rowcount > 0
            _forget_old(connection, Scope(claimed.workspace), claimed.webhook, state)
        return ours

    def _of(self, webhook: str) -> Any:
        return self._scope.select(deliveries).where(deliveries.c.webhook == webhook)

    def _again(self, webhook: str) -> Any:
        now = self._now()
        anew = {"state": "pending", "attempts": 0, "next_attempt_at": now, "expires_at": now + TRIED_FOR}
        cleared = dict.fromkeys(("ended_at", "status_code", "message"))
        return self._scope.update(deliveries).where(deliveries.c.webhook == webhook).values(**anew, **cleared)


def _insert(
    connection: Connection, scope: Scope, webhook: str, event: str, body: str, now: datetime,
    *, job_name: str | None = None,
) -> Row[Any]:  # fmt: skip
    values = {
        "webhook": webhook,
        "message_id": f"msg_{uuid.uuid4().hex}",
        "event": event,
        "job_name": job_name,
        "body": body,
        "state": "pending",
        "attempts": 0,
        "created_at": now,
        "next_attempt_at": now,
        "expires_at": now + TRIED_FOR,
    }
    return connection.execute(scope.insert(deliveries).values(values).returning(deliveries)).one()


def _kept(scope: Scope) -> Select[Any]:
    """The bodies of a workspace's webhooks, which nobody deletes before what is put out for them is committed."""
    query = scope.select(resources, resources.c.body).where(resources.c.kind == "webhook")
    return query.with_for_update(read=True, key_share=True)


def _own(claimed: ClaimedDelivery) -> tuple[ColumnElement[bool], ...]:
    return deliveries.c.id == claimed.id, deliveries.c.attempts == claimed.attempt, deliveries.c.state == "pending"


def _own_attempt(claimed: ClaimedDelivery) -> Any:
    return EVERYWHERE.update(deliveries).where(*_own(claimed))


def _forget_old(connection: Connection, scope: Scope, webhook: str, state: DeliveryState) -> None:
    of_state = (deliveries.c.webhook == webhook, deliveries.c.state == state)
    newest_first = scope.select(deliveries, deliveries.c.id).where(*of_state).order_by(deliveries.c.id.desc())
    last_kept: int | None = connection.execute(newest_first.offset(KEPT - 1).limit(1)).scalar()
    if last_kept is not None:
        connection.execute(scope.delete(deliveries).where(*of_state, deliveries.c.id < last_kept))


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**{key: getattr(row, key) for key in Delivery.model_fields})
