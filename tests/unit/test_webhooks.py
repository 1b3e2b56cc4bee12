"""What webhooks are told, how it is signed, and when it is tried again."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from batchpoint.background.webhooks import DeliveryFailedError, post, refusal
from batchpoint.entities.jobs import Job, JobError, JobStatus, Progress, Reason
from batchpoint.entities.webhooks import (
    TRIED_FOR,
    Webhook,
    WebhookCredentials,
    events_of,
    is_told,
    new_secret,
    next_attempt_at,
    signed_headers,
    told_of,
)
from webhook_receiver import documented_snippet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "webhooks.md"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def job(status: JobStatus, reason: Reason | None = None, parent: str | None = None) -> Job:
    return Job(name="night", status=status, reason=reason, parent_job_name=parent)


def webhook(**given: object) -> Webhook:
    return Webhook.model_validate({"name": "w", "url": "https://a.example/x", "events": ["job.failed"], **given})


def test_the_documented_snippet_takes_what_is_signed_and_nothing_else() -> None:
    verified, secret, body = documented_snippet(PAGE), new_secret(), json.dumps({"type": "job.failed"}).encode()
    headers = signed_headers(secret, "msg_1", datetime.now(UTC), body)
    assert verified(secret, headers, body) == {"type": "job.failed"}
    for forged in (
        lambda: verified(new_secret(), headers, body),
        lambda: verified(secret, headers, body + b" "),
        lambda: verified(secret, {**headers, "webhook-id": "msg_2"}, body),
        lambda: verified(secret, {**headers, "webhook-timestamp": str(int(time.time()) - 1)}, body),
    ):
        with pytest.raises(ValueError, match="signature"):
            forged()
    old = signed_headers(secret, "msg_1", datetime.now(UTC) - timedelta(minutes=10), body)
    with pytest.raises(ValueError, match="too old"):
        verified(secret, old, body)


def test_a_signature_is_that_of_the_standards_own_example() -> None:
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (JobStatus.QUEUED, None, ()),
        (JobStatus.PREPARING, None, ()),
        (JobStatus.RUNNING, None, ("job.started",)),
        (JobStatus.FINALIZING, None, ()),
        (JobStatus.COMPLETED, Reason.COMPLETED, ("job.completed",)),
        (JobStatus.CANCELED, Reason.CANCELED_BY_USER, ("job.canceled",)),
        (JobStatus.FAILED, Reason.LOST, ("job.failed",)),
        (JobStatus.FAILED, Reason.ERROR_THRESHOLD_EXCEEDED, ("job.failed", "job.threshold_exceeded")),
    ],
)
def test_a_status_of_a_job_is_told_as_these_events(
    status: JobStatus, reason: Reason | None, told: tuple[str, ...]
) -> None:
    assert events_of(job(status, reason)) == told


def test_only_what_was_asked_for_is_told_and_steps_only_where_that_is_said() -> None:
    failed, step = job(JobStatus.FAILED), job(JobStatus.FAILED, parent="pipeline")
    assert is_told(webhook(), "job.failed", failed)
    assert not is_told(webhook(), "job.completed", failed)
    assert not is_told(webhook(enabled=False), "job.failed", failed)
    assert not is_told(webhook(), "job.failed", step)
    assert is_told(webhook(steps=True), "job.failed", step)


def test_a_body_says_how_it_went_but_shows_neither_rows_nor_tracebacks() -> None:
    failed = job(JobStatus.FAILED, Reason.LOST)
    failed.error = JobError(code="worker_lost", message="It died.", traceback="secret row", file="a.csv")
    failed.progress = Progress(unit="rows", ok=3, failed=1)
    body = told_of(failed, "job.failed", "default", NOW)
    told = json.loads(body)
    assert (told["type"], told["timestamp"]) == ("job.failed", NOW.isoformat())
    assert told["data"]["job"]["error"] == {"code": "worker_lost", "message": "It died."}
    assert told["data"]["job"]["items"] == {"unit": "rows", "ok": 3, "failed": 1, "skipped": 0}
    assert "secret row" not in body


def test_pauses_double_up_to_an_hour_until_it_is_given_up() -> None:
    expires_at, now, pauses = NOW + TRIED_FOR, NOW, list[float]()
    while (following := next_attempt_at(len(pauses) + 1, now, expires_at)) is not None:
        pauses.append((following - now).total_seconds())
        now = following
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert pauses[12:] == [3600] * len(pauses[12:])
    assert timedelta(hours=71) < now - NOW < TRIED_FOR


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "https://", "/hooks", "https://me:secret@a/b", "http://a b/", "http://a:x/"]
)
def test_what_cannot_be_called_is_no_webhook(url: str) -> None:
    with pytest.raises(ValidationError):
        webhook(url=url)


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_", "whsec_!!", "whsec_c2hvcnQ="])
def test_a_secret_that_cannot_sign_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError, match="openssl rand"):
        WebhookCredentials.model_validate({"secret": secret})


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", True),
        ("::", True), ("169.254.169.254", True), ("::ffff:169.254.169.254", True), ("fe80::1%eth0", True),
        ("224.0.0.1", True), ("10.1.2.3", False), ("192.168.1.5", False), ("fd00::5", False), ("93.184.216.34", False),
        ("168.63.129.16", True), ("100.100.100.200", True), ("fd00:ec2::254", True), ("fd20:ce::254", True),
        ("192.0.0.192", True), ("::ffff:168.63.129.16", True),
        ("2002:7f00:1::1", True), ("2002:a9fe:a9fe::", True), ("2002:5db8:d822::1", False),
        ("64:ff9b::7f00:1", True), ("64:ff9b::169.254.169.254", True), ("64:ff9b::93.184.216.34", False),
        ("64:ff9b:1::7f00:1", True), ("2001:0:4136:e378:8000:63bf:80ff:fffe", True), ("::127.0.0.1", True),
        ("::ffff:0:127.0.0.1", True),
    ],
)  # fmt: skip
def test_the_machine_itself_and_what_gives_out_its_credentials_are_not_called(address: str, refused: bool) -> None:
    assert bool(refusal(address)) == refused


@pytest.mark.parametrize(
    ("host", "said"),
    [("127.0.0.1", "127.0.0.1 is this machine itself, "), ("localhost", "localhost is 127.0.0.1, this machine itself")],
)
def test_a_host_that_is_not_called_is_told_once(host: str, said: str) -> None:
    with pytest.raises(DeliveryFailedError) as refused:
        post(f"http://{host}:9/", b"{}", {}, frozenset())
    assert said in str(refused.value).replace("::1", "127.0.0.1")
    assert f"BATCHPOINT_WEBHOOK_HOSTS={host}" in str(refused.value)
