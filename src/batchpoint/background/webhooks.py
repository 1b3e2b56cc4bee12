"""The outbox of webhooks → their receivers, over HTTP.

A receiver is called at an address that was looked at, and no redirect is followed: who may declare a webhook shall not
reach, through the server, what only its own machine can reach. Nothing of an answer is kept but its status.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from batchpoint import __version__, logs
from batchpoint.background.loop import Loop
from batchpoint.background.meters import Meters
from batchpoint.entities.webhooks import Webhook, signed_headers
from batchpoint.errors import BatchpointError, NotFoundError
from batchpoint.registry.deliveries import ClaimedDelivery
from batchpoint.workspace import Workspace

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often to look for deliveries: jobs end on other servers of the same registry, too."""
ATTEMPT_SECONDS = 15.0
"""A receiver has so long to answer, however slowly it sends."""
LEASE_SECONDS = 60.0
"""A server that has not said by then how an attempt went is taken to be gone."""
SENDERS = 8
"""Receivers that are called at the same time at most; each is called by one."""
_OF_CLOUDS = frozenset(
    map(
        ipaddress.ip_address,
        (
            "168.63.129.16",  # Azure
            "100.100.100.200",  # Alibaba Cloud
            "192.0.0.192",  # Oracle Cloud
            "fd00:ec2::254",  # AWS
            "fd20:ce::254",  # Google Cloud
        ),
    )
)
"""Addresses that are not link-local, and at which clouds tell their machines about themselves all the same."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Of RFC 6052: the last four bytes are an address of version 4."""


class DeliveryFailedError(Exception):
    """A receiver could not be reached, or did not say that it has what it was sent."""

    def __init__(self, message: str, *, status_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code


class Webhooks:
    """Sends the deliveries of one registry, whatever workspace they belong to. Any number of servers may do so."""

    def __init__(self, workspace: Workspace, meters: Meters) -> None:
        self._workspace = workspace
        self._deliveries = workspace.registry.deliveries
        self._meters = meters
        self._allowed = workspace.settings.allowed_webhook_hosts
        self._busy: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._until_due = math.inf
        self.loop = Loop("webhooks", self.step, interval=LOOK_SECONDS, until_due=lambda: self._until_due)

    def step(self) -> bool:
        """Begin with one delivery that is due; whether there was one."""
        with self._lock:
            busy = set(self._busy)
        due_at = self._deliveries.next_due_at() if len(busy) < SENDERS else None
        seconds = (due_at - self._workspace.registry.now()).total_seconds() if due_at is not None else math.inf
        self._until_due = seconds if seconds > 0 else LOOK_SECONDS
        if seconds > 0:
            return False
        claimed = self._deliveries.claim(LEASE_SECONDS, busy)
        if claimed is None:
            return False
        with self._lock:
            self._busy.add(claimed.address)
        # A daemon: a server that is told to end does not wait for a receiver. The attempt is made again then.
        threading.Thread(target=self._send, args=(claimed,), name=f"webhook-{claimed.webhook}", daemon=True).start()
        return True

    def _send(self, claimed: ClaimedDelivery) -> None:
        """In a thread of its own: one attempt, and what is noted of it."""
        try:
            with logs.about(workspace=claimed.workspace, webhook=claimed.webhook, delivery=claimed.id):
                self._attempt(claimed)
        except Exception:  # the rim of an attempt: the lease runs out, and it is made again
            log.exception("What became of delivery %d to webhook %s is not known", claimed.id, claimed.webhook)
        finally:
            with self._lock:
                self._busy.discard(claimed.address)
            self.loop.wake.set()

    def _attempt(self, claimed: ClaimedDelivery) -> None:
        try:
            status_code = self._sent(claimed)
        except _EndedError as fault:
            self._deliveries.not_arrived(claimed, fault.message, for_good=True)
            self._meters.delivery_attempted("failed")
        except DeliveryFailedError as fault:
            log.info("Attempt %d at webhook %s failed: %s", claimed.attempt, claimed.webhook, fault.message)
            self._deliveries.not_arrived(claimed, fault.message, fault.status_code)
            self._meters.delivery_attempted("failed")
        else:
            self._deliveries.arrived(claimed, status_code)
            self._meters.delivery_attempted("delivered")

    def _sent(self, claimed: ClaimedDelivery) -> int:
        """Call the receiver; the status that it answered.

        Raises:
            DeliveryFailedError: it has not got the delivery, as far as is known.
        """
        try:
            registry = self._workspace.registry.within(claimed.workspace)
            webhook = registry.resources.get("webhook", claimed.webhook)
            credentials = registry.resources.webhook_credentials(claimed.webhook)
        except NotFoundError:
            raise _EndedError("The webhook was deleted.") from None
        except BatchpointError as fault:
            raise DeliveryFailedError(fault.message) from fault
        assert isinstance(webhook, Webhook)
        if not webhook.enabled:
            raise _EndedError("The webhook is not enabled.")
        # Asked last: while the delivery is there, what was read is of the webhook that it was meant for.
        if not self._deliveries.is_current(claimed):
            raise _EndedError("The webhook was deleted.")
        assert credentials is not None, "a webhook has had a secret since it was made"
        body = claimed.body.encode()
        secret = credentials.secret.get_secret_value()
        return post(webhook.url, body, signed_headers(secret, claimed.message_id, registry.now(), body), self._allowed)


class _EndedError(DeliveryFailedError):
    """It makes no sense to try again."""


def post(url: str, body: bytes, headers: dict[str, str], allowed_hosts: frozenset[str]) -> int:
    """Send JSON to an address; the status of the answer, which is one of success.

    Raises:
        DeliveryFailedError: the host may not be called, does not answer, or answers with anything else.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(host, port)
    ends_at = time.monotonic() + ATTEMPT_SECONDS
    try:
        connection.sock = _connected(host, port, allowed_hosts, ends_at)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            # Both steps apart, so that the deadline finds the socket that the handshake is made on.
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host, do_handshake_on_connect=False)
        said = {
            "Content-Type": "application/json",
            "User-Agent": f"batchpoint/{__version__}",
            "Connection": "close",
            "Host": parts.netloc,
            **headers,
        }
        path = parts.path or "/"
        with _hung_up_on(connection.sock, ends_at):
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.request("POST", f"{path}?{parts.query}" if parts.query else path, body, said)
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as fault:  # the last: the host can be no name
        text = str(fault) or type(fault).__name__
        raise DeliveryFailedError(f"{host}:{port} did not answer: {text}") from fault
    finally:
        connection.close()
    if not 200 <= status < 300:
        hint = " (redirects are not followed)" if 300 <= status < 400 else ""
        raise DeliveryFailedError(f"{host}:{port} answered with status {status}{hint}.", status_code=status)
    return status


def _connected(host: str, port: int, allowed_hosts: frozenset[str], ends_at: float) -> socket.socket:
    """A connection to the first address of a host that may be called and answers; all of them share the time."""
    last: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if (reason := refusal(str(address[0]))) and host.lower() not in allowed_hosts:
            named = "" if host == address[0] else f"{address[0]}, "
            raise DeliveryFailedError(
                f"{host} is {named}{reason}, which this server does not call. Whoever runs it can allow it with "
                f"BATCHPOINT_WEBHOOK_HOSTS={host}."
            )
        left = _left(ends_at)
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(left)
        try:
            connection.connect(address)
        except OSError as fault:
            connection.close()
            last = fault
        else:
            return connection
    raise last or OSError("the name has no address")


def refusal(text: str) -> str | None:
    """Why an address may not be called unless it is allowed by name; None when it may.

    Addresses of private networks may: that is where receivers are.
    """
    address = _meant(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback:
        return "this machine itself"
    if address.is_link_local:
        return "a link-local address"  # where clouds hand out the credentials of a machine
    if address in _OF_CLOUDS:
        return "where a cloud hands out the credentials of a machine"
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        return "no address of a receiver"
    return None


def _meant(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """What is called in the end: of an address of version 6 that stands for one of version 4, that one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)


def _left(ends_at: float) -> float:
    """The seconds until then.

    Raises:
        TimeoutError: there are none.
    """
    left = ends_at - time.monotonic()
    if left <= 0:
        message = f"{ATTEMPT_SECONDS:g} s are over"
        raise TimeoutError(message)
    return left


@contextmanager
def _hung_up_on(connection: socket.socket, ends_at: float) -> Iterator[None]:
    """Hang up when the time is over, whatever is being waited for.

    The time-out of a socket is that of one read; a receiver that sends a byte now and then would have for ever.
    """
    deadline = threading.Timer(_left(ends_at), _hang_up, [connection])
    deadline.daemon = True
    deadline.start()
    try:
        yield
    finally:
        deadline.cancel()


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)
