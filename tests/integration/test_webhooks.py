"""Webhooks: what happened is told at least once, whoever is down, and by one server at a time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.background import webhooks
from batchpoint.background.meters import Meters
from batchpoint.background.service import Background
from batchpoint.background.webhooks import DeliveryFailedError, Webhooks, post
from batchpoint.client import Client
from batchpoint.entities.jobs import Job, Reason
from batchpoint.entities.webhooks import TRIED_FOR, Webhook
from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.errors import InvalidEntityError, NotFoundError, PermissionDeniedError
from batchpoint.registry import Registry
from batchpoint.registry import deliveries as outbox
from batchpoint.server.certificates import Certificates
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.conftest import Clock, CommandLine
from integration.served import FAKE_RUNNER, eventually, invoke, make_input, open_workspace, served
from webhook_receiver import Receiver, documented_snippet, receiver

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "webhooks.md"
ALL = ["job.started", "job.completed", "job.failed", "job.canceled", "job.threshold_exceeded"]


def put(registry: Registry, name: str = "pager", **given: object) -> None:
    webhook = Webhook.model_validate({"name": name, "url": "http://127.0.0.1:9/", "events": ALL, **given})
    registry.resources.put("webhook", webhook, by=None)


def finished(registry: Registry, name: str, reason: Reason = Reason.COMPLETED) -> None:
    registry.jobs.enqueue(Job(name=name))
    claimed = registry.jobs.claim("a", 60)
    assert claimed is not None
    registry.jobs.finish(name, claimed.lease_token, reason)


def test_a_change_of_status_and_its_delivery_are_stored_together_or_not_at_all(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(registry)
    registry.jobs.enqueue(Job(name="night"))
    claimed = registry.jobs.claim("a", 60)
    assert claimed is not None
    with monkeypatch.context() as broken:
        broken.setattr(outbox, "told_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.jobs.finish("night", claimed.lease_token, Reason.LOST)
    assert registry.jobs.get("night").status == "preparing"
    registry.jobs.finish("night", claimed.lease_token, Reason.ERROR_THRESHOLD_EXCEEDED)
    told = registry.deliveries.list("pager")
    assert [(one.event, one.job_name, one.state) for one in reversed(told)] == [
        ("job.failed", "night", "pending"),
        ("job.threshold_exceeded", "night", "pending"),
    ]


def test_a_webhook_is_told_of_the_jobs_of_its_workspace_only(registry: Registry) -> None:
    registry.workspaces.put(NamedWorkspace(name="other"), by=None)
    elsewhere = registry.within("other")
    put(registry)
    put(elsewhere, name="theirs")
    finished(registry, "night")
    assert [one.event for one in registry.deliveries.list("pager")] == ["job.completed"]
    assert elsewhere.deliveries.list("theirs") == []
    claimed = registry.deliveries.claim(60)
    assert claimed is not None
    assert claimed.address == ("default", "pager")


def test_an_attempt_is_made_by_one_server_and_made_up_for_when_that_is_gone(registry: Registry, clock: Clock) -> None:
    put(registry)
    finished(registry, "night")
    first = registry.deliveries.claim(60)
    assert first is not None
    assert registry.deliveries.claim(60) is None
    clock.move(61)
    second = registry.deliveries.claim(60)
    assert second is not None
    assert (second.message_id, second.attempt) == (first.message_id, 2)
    assert not registry.deliveries.not_arrived(first, "late news")
    assert registry.deliveries.arrived(second, 200)
    (delivery,) = registry.deliveries.list("pager")
    assert (delivery.state, delivery.attempts, delivery.status_code) == ("delivered", 2, 200)


def test_a_delivery_is_given_up_after_three_days_and_can_be_replayed(registry: Registry, clock: Clock) -> None:
    put(registry)
    finished(registry, "night")
    attempts = 0
    while (claimed := registry.deliveries.claim(60)) is not None:
        attempts += 1
        registry.deliveries.not_arrived(claimed, "nobody there")
        due_at = registry.deliveries.next_due_at()
        if due_at is not None:
            clock.time = due_at
    (delivery,) = registry.deliveries.list("pager", state="failed")
    assert (delivery.attempts, delivery.message) == (attempts, "nobody there")
    assert attempts > 70
    assert registry.deliveries.replay_failed("pager") == 1
    (again,) = registry.deliveries.list("pager")
    assert (again.state, again.attempts, again.message_id) == ("pending", 0, delivery.message_id)
    assert again.next_attempt_at == clock()
    with pytest.raises(NotFoundError, match="has no delivery 4711"):
        registry.deliveries.replay("pager", 4711)


def test_a_delivery_whose_attempts_end_nowhere_is_given_up_too(registry: Registry, clock: Clock) -> None:
    put(registry)
    finished(registry, "night")
    assert registry.deliveries.claim(60) is not None
    clock.move(TRIED_FOR.total_seconds() - 1)
    assert registry.deliveries.claim(60) is not None
    clock.move(61)
    finished(registry, "day")
    clock.move(TRIED_FOR.total_seconds() + 1)  # every server was down, and one try each has
    claimed = registry.deliveries.claim(60)
    assert claimed is not None
    told = {one.job_name: one for one in registry.deliveries.list("pager")}
    assert (told["night"].state, told["night"].attempts) == ("failed", 2)
    assert "not known" in str(told["night"].message)
    assert (claimed.id, claimed.attempt) == (told["day"].id, 1)


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example"])
def test_a_host_that_no_name_can_be_is_refused_and_one_that_is_stored_fails_as_others_do(
    host: str, workspace: Workspace
) -> None:
    with pytest.raises(InvalidEntityError, match="no name of a host"):
        workspace.resources.create_or_update(
            "webhook", Webhook(name="pager", url=f"http://{host}/x", events=["job.failed"])
        )
    with pytest.raises(DeliveryFailedError, match="did not answer"):
        post(f"http://{host}/x", b"{}", {}, frozenset())


def test_only_the_newest_of_what_is_over_are_kept(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "KEPT", 3)
    put(registry)
    for number in range(5):
        finished(registry, f"night-{number}")
    for number in range(5):
        claimed = registry.deliveries.claim(60)
        assert claimed is not None
        if number == 0:
            registry.deliveries.not_arrived(claimed, "deleted", for_good=True)
        else:
            registry.deliveries.arrived(claimed, 200)
    assert [one.job_name for one in registry.deliveries.list("pager", state="delivered")] == [
        "night-4", "night-3", "night-2",
    ]  # fmt: skip
    assert [one.job_name for one in registry.deliveries.list("pager", state="failed")] == ["night-0"]


def test_what_waits_for_a_webhook_goes_with_it_even_what_is_just_being_put_out(registry: Registry) -> None:
    put(registry)
    finished(registry, "night")
    night = registry.jobs.get("night")
    deleting = threading.Thread(target=registry.resources.delete, args=("webhook", "pager"))
    with registry.database.write() as connection:
        outbox.put_out(connection, "default", night, registry.now())
        deleting.start()
        deleting.join(1)  # time to go wrong in: it waits
    deleting.join()
    assert registry.deliveries.list("pager") == []
    with pytest.raises(NotFoundError):
        registry.deliveries.add_test("pager")


def test_a_webhook_is_sent_nothing_that_was_meant_for_an_earlier_one_of_its_name(
    workspace: Workspace, found: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(workspace.registry)
    workspace.resources.test("pager")
    claim = outbox.Deliveries.claim

    def claimed(*given: Any) -> outbox.ClaimedDelivery | None:
        taken = claim(*given)
        workspace.resources.delete("webhook", "pager")
        workspace.resources.create_or_update("webhook", Webhook(name="pager", url=found.url, events=["job.failed"]))
        return taken

    monkeypatch.setattr(outbox.Deliveries, "claim", claimed)
    assert Webhooks(workspace, Meters()).step()
    for thread in [one for one in threading.enumerate() if one.name == "webhook-pager"]:
        thread.join()
    assert found.requests == []
    assert workspace.registry.deliveries.list("pager") == []


def test_two_servers_of_one_database_send_each_delivery_once(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", database_url=database_url, webhook_hosts="127.0.0.1")
    with receiver() as found, Workspace.open(settings) as one, Workspace.open(settings) as two:
        for name in ("a", "b", "c"):
            one.resources.create_or_update("webhook", Webhook(name=name, url=found.url, events=["job.completed"]))
        for number in range(10):
            finished(one.registry, f"night-{number}")
        senders = [Webhooks(workspace, Meters()) for workspace in (one, two)]
        for sender in senders:
            sender.loop.start()
        eventually(lambda: one.registry.deliveries.pending() == 0)
        for sender in senders:
            sender.loop.stop()
        ids = [headers["webhook-id"] for headers, _ in found.requests]
        assert len(ids) == len(set(ids)) == 30


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        # The settings are frozen and made in open_workspace; what is allowed is this machine, where the receiver is.
        yield replace(opened, settings=replace(opened.settings, webhook_hosts="127.0.0.1"))


@pytest.fixture
def background(workspace: Workspace) -> Iterator[Background]:
    found = Background(workspace, runner_parent=FAKE_RUNNER)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def connect(workspace: Workspace, background: Background) -> Iterator[Callable[[str], httpx.Client]]:
    with served(Context(workspace, background, server_id="s1", shares_files=True), None) as plain:

        def connected(role: str) -> httpx.Client:
            secret, _ = workspace.tokens.create(f"{role}s", role)  # type: ignore[arg-type]  # one of the three
            return httpx.Client(base_url=plain.base_url, headers={"Authorization": f"Bearer {secret}"}, timeout=30)

        yield connected


@pytest.fixture
def client(connect: Callable[[str], httpx.Client]) -> Iterator[Client]:
    with connect("admin") as door:
        token = door.headers["Authorization"].removeprefix("Bearer ")
        with Client(str(door.base_url), token) as found:
            yield found


@pytest.fixture
def found() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


def test_a_jobs_life_is_told_signed_and_in_order(
    client: Client, workspace: Workspace, found: Receiver, tmp_path: Path
) -> None:
    client.webhooks.create_or_update(Webhook(name="pager", url=found.url, events=["job.started", "job.completed"]))
    secret = client.webhooks.renew_secret("pager")
    job = invoke(workspace, make_input(tmp_path / "in", "succeed"))
    eventually(lambda: len(found.requests) == 2)
    verified = documented_snippet(PAGE)
    started, completed = (verified(secret, headers, body) for headers, body in found.requests)
    assert (started["type"], completed["type"]) == ("job.started", "job.completed")
    told = completed["data"]["job"]
    receipt = workspace.jobs.receipt(job.name)
    assert (told["name"], told["endpoint_name"], told["items"]["ok"]) == (job.name, "churn", receipt.ok)
    eventually(lambda: {one.state for one in client.webhooks.deliveries("pager")} == {"delivered"})


def test_a_receiver_that_was_down_gets_it_later_and_one_that_hangs_holds_up_nobody(
    client: Client, found: Receiver
) -> None:
    found.status = 503
    with receiver() as stuck:
        stuck.hang = threading.Event()
        client.webhooks.create_or_update(Webhook(name="stuck", url=stuck.url, events=["job.failed"]))
        client.webhooks.create_or_update(Webhook(name="pager", url=found.url, events=["job.failed"]))
        client.webhooks.test("stuck")
        client.webhooks.test("pager")
        eventually(lambda: len(found.requests) == 1)
        (delivery,) = client.webhooks.deliveries("pager", state="pending")
        found.status = 200
        eventually(lambda: list(client.webhooks.deliveries("pager", state="delivered")))
        assert (delivery.status_code, delivery.message) in {
            (503, f"127.0.0.1:{found.url.split(':')[2].split('/')[0]} answered with status 503."),
            (None, None),  # looked at between the request and the note of its answer
        }
        (delivered,) = client.webhooks.deliveries("pager")
        assert delivered.attempts == 2
        assert {headers["webhook-id"] for headers, _ in found.requests} == {delivered.message_id}
        stuck.hang.set()


def test_no_redirect_is_followed_and_no_forbidden_address_called(
    client: Client, workspace: Workspace, found: Receiver
) -> None:
    found.status = 302
    local = found.url.replace("127.0.0.1", "localhost")
    client.webhooks.create_or_update(Webhook(name="moved", url=found.url, events=["job.failed"]))
    client.webhooks.create_or_update(Webhook(name="local", url=local, events=["job.failed"]))
    for name in ("moved", "local"):
        client.webhooks.test(name)
        eventually(lambda name=name: [one for one in client.webhooks.deliveries(name) if one.message])
    assert "redirects are not followed" in str(next(client.webhooks.deliveries("moved")).message)
    assert "BATCHPOINT_WEBHOOK_HOSTS=localhost" in str(next(client.webhooks.deliveries("local")).message)
    assert {headers["Host"] for headers, _ in found.requests} == {found.url.split("/")[2]}


def test_a_receiver_with_a_certificate_is_called_by_tls_and_only_when_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Receiver
) -> None:
    certificates = Certificates(tmp_path / "tls")
    certificates.prepare(["localhost"])
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.load_into(own)
    (tmp_path / "ca.pem").write_text(certificates.authority)
    with receiver(tls=own) as safe:
        url = safe.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(DeliveryFailedError, match="CERTIFICATE_VERIFY_FAILED"):
            post(url, b"{}", {}, frozenset({"localhost"}))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert post(url, b"{}", {}, frozenset({"localhost"})) == 204
        with pytest.raises(DeliveryFailedError, match="did not answer"):
            post(found.url.replace("http:", "https:"), b"{}", {}, frozenset({"127.0.0.1"}))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_sends_a_byte_now_and_then_is_hung_up_on(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS", 1.0)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1" if scheme == "http" else b"\x16\x03\x03\x40\x00")
                while not ended.wait(0.1):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(DeliveryFailedError, match="did not answer"):
            post(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/", b"{}", {}, frozenset({"127.0.0.1"}))
        ended.set()
        thread.join()


@pytest.mark.parametrize("slow", ["getaddrinfo", "connect"])
def test_the_time_that_it_takes_to_find_a_receiver_is_of_the_attempt(
    slow: str, monkeypatch: pytest.MonkeyPatch, found: Receiver
) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS", 0.3)
    of = socket if slow == "getaddrinfo" else socket.socket
    quick = getattr(of, slow)

    def slowly(*given: object, **named: object) -> object:
        time.sleep(0.5)
        return quick(*given, **named)

    monkeypatch.setattr(of, slow, slowly)
    with pytest.raises(DeliveryFailedError, match="s are over"):
        post(found.url, b"{}", {}, frozenset({"127.0.0.1"}))
    assert found.requests == []


def test_all_addresses_of_a_receiver_share_the_time_of_one_attempt(
    monkeypatch: pytest.MonkeyPatch, found: Receiver
) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS", 0.3)
    port = int(found.url.split(":")[2].split("/")[0])
    nobody, there = (
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")
    )
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [nobody, nobody, there])
    connect, waited = socket.socket.connect, list[float | None]()

    def connected(self: socket.socket, address: tuple[str, int]) -> None:
        waited.append(self.gettimeout())
        if address[0] == "127.0.0.2":
            time.sleep(0.2)
            raise TimeoutError
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connected)
    with pytest.raises(DeliveryFailedError, match="s are over"):
        post(found.url, b"{}", {}, frozenset({"127.0.0.1"}))
    assert found.requests == []
    assert all(one is not None and one <= 0.3 for one in waited)


def test_what_waits_for_a_webhook_ends_when_it_is_disabled_and_is_gone_when_it_is_deleted(
    client: Client, found: Receiver
) -> None:
    found.status = 500
    client.webhooks.create_or_update(Webhook(name="pager", url=found.url, events=["job.failed"]))
    client.webhooks.test("pager")
    client.webhooks.update("pager", changes={"enabled": False})
    eventually(lambda: list(client.webhooks.deliveries("pager", state="failed")))
    assert next(client.webhooks.deliveries("pager")).message == "The webhook is not enabled."
    client.webhooks.update("pager", changes={"enabled": True})
    found.status = 200
    assert client.webhooks.replay_failed("pager") == 1
    eventually(lambda: list(client.webhooks.deliveries("pager", state="delivered")))
    (delivered,) = client.webhooks.deliveries("pager")
    client.webhooks.replay("pager", delivered.id)
    eventually(lambda: found.requests[-1][0]["webhook-id"] == delivered.message_id)
    client.webhooks.delete("pager")
    with pytest.raises(NotFoundError):
        list(client.webhooks.deliveries("pager"))


def test_the_secret_is_shown_to_nobody_and_only_admins_declare(
    connect: Callable[[str], httpx.Client], client: Client, workspace: Workspace
) -> None:
    given = "whsec_" + "QUJD" * 8
    body = {"url": "https://a.example/", "events": ["job.failed"], "credentials": {"secret": given}}
    with connect("operator") as operator:
        assert operator.put("/api/v1/webhooks/pager", json=body).status_code == 403
    client._connection.send("PUT", "/webhooks/pager", body=body)
    shown = client._connection.get("/webhooks/pager")
    assert shown["has_credentials"] is True
    assert "QUJD" not in str(shown) + str(client._connection.get("/webhooks")) + str(list(client.audit()))
    wrong = {**body, "credentials": {"secret": "whsec_hunter2"}}
    with connect("reader") as reader:
        assert reader.post("/api/v1/webhooks/pager/test").status_code == 403
        assert reader.get("/api/v1/webhooks/pager/deliveries").json() == {"value": [], "next": None}
    with pytest.raises(Exception, match="openssl rand") as refused:
        client._connection.send("PUT", "/webhooks/pager", body=wrong)
    assert "hunter2" not in str(refused.value)
    assert not isinstance(refused.value, PermissionDeniedError)


def test_apply_declares_webhooks_compares_their_secret_and_takes_them_away(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "webhook.yml"
    text = "name: pager\nurl: https://a.example/\nevents: [job.failed]\n"
    file.write_text(text)
    assert [outcome.state for outcome in client.apply(file)] == ["done"]
    assert [outcome.state for outcome in client.apply(file)] == ["unchanged"]
    file.write_text(f"{text}credentials:\n  secret: whsec_{'QUJD' * 8}\n")
    assert [outcome.state for outcome in client.apply(file)] == ["done"]
    assert [outcome.state for outcome in client.apply(file)] == ["unchanged"]
    client.webhooks.update("pager", changes={"events": ["job.completed"]})
    (outcome,) = client.apply(file)
    assert [change.key for change in outcome.step.fields] == ["events"]  # type: ignore[union-attr]  # a change
    assert [outcome.state for outcome in client.remove(file)] == ["done"]
    assert list(client.webhooks.list()) == []


def test_a_command_line_that_says_nothing_to_replay_is_told_what_to_say(batchpoint: CommandLine) -> None:
    said = batchpoint("webhook replay -n pager")
    assert said.code == 2
    assert "--id of one delivery, or --failed" in said.err
