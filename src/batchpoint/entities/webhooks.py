"""Webhooks: addresses that are told what becomes of jobs, how that is signed, and when it is tried again. Pure.

Signatures and headers are those of the Standard Webhooks specification, so that its libraries verify them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, field_validator

from batchpoint.entities.base import Entity, Part
from batchpoint.entities.jobs import Job, JobStatus, Reason

WebhookName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,254}$")]

WebhookEvent = Literal["job.started", "job.completed", "job.failed", "job.canceled", "job.threshold_exceeded"]

TEST_EVENT = "webhook.test"
"""What a test delivery is about; every webhook gets it that is asked to."""

DeliveryState = Literal["pending", "delivered", "failed"]

SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, and not one
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(hours=1)
TRIED_FOR = timedelta(days=3)
"""A delivery that has not arrived by then is given up, until somebody replays it."""


class WebhookCredentials(Part):
    """What deliveries are signed with. Stored encrypted and never shown again."""

    secret: SecretStr
    """``whsec_`` and 24 to 64 random bytes as base64. Without one the server makes one."""

    @field_validator("secret")
    @classmethod
    def _can_sign(cls, secret: SecretStr) -> SecretStr:
        try:
            length = len(signing_key(secret.get_secret_value()))
        except ValueError:
            length = 0
        if not 24 <= length <= 64:
            message = "a secret is 'whsec_' and 24 to 64 random bytes as base64: openssl rand -base64 32"
            raise ValueError(message)
        return secret


class Webhook(Entity):
    """An address that is sent a signed request when something becomes of a job of the workspace."""

    name: WebhookName
    url: str
    """``https://…`` or ``http://…``. Passwords do not belong into it: a receiver knows the sender by the signature."""
    events: list[WebhookEvent] = Field(min_length=1)
    """A job that ends because too many items failed is told of twice: as failed, and as over its threshold."""
    steps: bool = False
    """Whether the steps of pipelines are told of as well, each as a job of its own."""
    enabled: bool = True
    """A webhook that is not enabled is told nothing, and what waits for it is given up until it is replayed."""
    credentials: WebhookCredentials | None = None
    has_credentials: bool = False
    """Whether credentials are stored. Set by the server."""

    @field_validator("url")
    @classmethod
    def _can_be_called(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = None
        if not usable or not url.isascii() or any(sign <= " " or sign == "\x7f" for sign in url):
            raise ValueError("it is no address such as https://pager.example.com/hooks/batchpoint")
        if "@" in parts.netloc:
            raise ValueError("it holds a user name or a password; a receiver knows the sender by the signature")
        return url


class Delivery(Part):
    """One event on its way to one webhook."""

    id: int
    webhook: str
    message_id: str
    """The same at every attempt and replay: by it a receiver knows what it has got already."""
    event: str
    job_name: str | None = None
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None = None
    """While it is pending."""
    ended_at: datetime | None = None
    status_code: int | None = None
    """What the receiver answered the last time; none when it did not answer."""
    message: str | None = None
    """Why the last attempt failed."""


def new_secret() -> str:
    """A secret for a webhook that was given none."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signing_key(secret: str) -> bytes:
    """The bytes that a secret stands for.

    Raises:
        ValueError: it is none.
    """
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("a secret begins with 'whsec_'")
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as fault:
        raise ValueError("what follows 'whsec_' is not base64") from fault


def signed_headers(secret: str, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows who sent a body, and when."""
    timestamp = str(int(at.timestamp()))
    signed = b".".join([message_id.encode(), timestamp.encode(), body])
    signature = base64.b64encode(hmac.digest(signing_key(secret), signed, hashlib.sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


def events_of(job: Job) -> tuple[WebhookEvent, ...]:
    """What webhooks are told when a job has come to where it is."""
    if job.status == JobStatus.RUNNING:
        return ("job.started",)
    if job.status == JobStatus.COMPLETED:
        return ("job.completed",)
    if job.status == JobStatus.CANCELED:
        return ("job.canceled",)
    if job.status != JobStatus.FAILED:
        return ()
    over = job.reason == Reason.ERROR_THRESHOLD_EXCEEDED
    return ("job.failed", "job.threshold_exceeded") if over else ("job.failed",)


def is_told(webhook: Webhook, event: WebhookEvent, job: Job) -> bool:
    """Whether a webhook wants to know this of this job."""
    return webhook.enabled and event in webhook.events and (webhook.steps or job.parent_job_name is None)


def told_of(job: Job, event: str, workspace: str, at: datetime) -> str:
    """The body of a delivery: what happened, to which job, and in brief how it went."""
    keys = ("name", "display_name", "type", "status", "reason", "endpoint_name", "deployment_name", "schedule_name",
            "parent_job_name", "queued_at", "started_at", "finished_at")  # fmt: skip
    shown = job.model_dump(mode="json", include=set(keys), exclude_none=True)
    if job.error is not None:
        shown["error"] = {"code": job.error.code, "message": job.error.message}
    if (counted := job.receipt or job.progress) is not None:
        shown["items"] = {key: getattr(counted, key) for key in ("unit", "ok", "failed", "skipped")}
    return _body(event, at, {"workspace": workspace, "job": shown})


def told_as_test(workspace: str, webhook: str, at: datetime) -> str:
    """The body of a test delivery."""
    return _body(TEST_EVENT, at, {"workspace": workspace, "webhook": webhook})


def next_attempt_at(attempts: int, now: datetime, expires_at: datetime) -> datetime | None:
    """When to try again after so many attempts that failed: after 1, 2, 4 … seconds, and every hour in the end.

    None when it is to be given up.
    """
    pause = min(_FIRST_PAUSE * 2 ** min(attempts - 1, 20), _LONGEST_PAUSE)
    return now + pause if now + pause < expires_at else None


def _body(event: str, at: datetime, data: dict[str, Any]) -> str:
    return json.dumps({"type": event, "timestamp": at.isoformat(), "data": data})
