"""The server as a process: it claims its home, listens, says where, and ends in good order."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import signal
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from batchpoint import __version__, local_server, logs
from batchpoint.background.loop import Loop
from batchpoint.background.service import Background
from batchpoint.entities.jobs import JobStatus
from batchpoint.errors import AlreadyExistsError, AuthenticationError, InvalidEntityError
from batchpoint.registry import utc_now
from batchpoint.server.app import create_app
from batchpoint.server.context import Context
from batchpoint.server.listening import listen
from batchpoint.server.tls import TlsAddress
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace

log = logging.getLogger(__name__)

GOODBYE_SECONDS = 3
"""Requests that are being answered when the server is told to end have so long."""
_LOCAL_TOKEN = "local"  # noqa: S105 - the token's name, not its secret


def serve(
    settings: Settings,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    allow_insecure: bool = False,
    ends_when_idle: bool = False,
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Serve the workspace of ``settings.home`` at ``settings.host`` and ``settings.port`` until told to end (SIGTERM).

    Jobs that run when the server ends go on, and the next server takes them over. ``ends_when_idle`` ends the server
    after ``settings.idle_shutdown_seconds`` without a request, a job, a schedule that will fire or a
    delivery that waits. ``now`` is the clock
    that schedules fire by.

    Raises:
        InvalidEntityError: the address is not of this machine alone, and there is no certificate, or none that works;
            or a setting has a value that it cannot have.
        ConflictError: another server serves this home; the message says where.
    """
    check_address(settings.host, tls=tls_cert is not None, allow_insecure=allow_insecure)
    _check_certificate(tls_cert, tls_key)
    logs.configure(settings)
    with (
        local_server.claimed(settings.home),
        _listening(settings) as listener,
        Workspace.open(settings, now=now) as workspace,
    ):
        _leave_token(workspace)
        background = Background(workspace)
        context = Context(workspace, background, server_id=uuid.uuid4().hex, shares_files=_is_loopback(settings.host))
        scheme = "https" if tls_cert else "http"
        here = _description(context, f"{scheme}://{_in_url(settings.host)}:{listener.getsockname()[1]}")
        app = create_app(context, on_start=lambda: local_server.announce(settings.home, here))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ssl_certfile=tls_cert,
            ssl_keyfile=tls_key,
            timeout_graceful_shutdown=GOODBYE_SECONDS,
            server_header=False,
        )
        server = _Server(config, context)
        watchers = [Loop("idle", lambda: _end_if_idle(server, context), interval=1.0)] if ends_when_idle else []
        if tls_cert is None:
            context.tls = TlsAddress(settings.home / "tls", settings.host, server.accept)
            watchers.append(Loop("certificate", context.tls.renew, interval=24 * 3600))
        gc.collect()
        gc.freeze()  # what is there by now stays: each search for garbage in it stops all requests for 50 ms
        _run(server, listener, background, watchers)


def check_address(host: str, *, tls: bool, allow_insecure: bool) -> None:
    """Refuse to send tokens and data over a network in clear.

    Raises:
        InvalidEntityError: the address can be reached from other machines, and nothing protects it.
    """
    if _is_loopback(host) or tls or allow_insecure:
        return
    message = (
        f"{host} can be reached from other machines, and tokens would travel in clear. Give a certificate "
        "(--tls-cert and --tls-key), or --allow-insecure when something else protects the connection."
    )
    raise InvalidEntityError(message)


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    if certificate is None:
        if key is not None:
            raise InvalidEntityError("--tls-key needs --tls-cert, the certificate that it is the key of.")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as fault:  # what ssl raises is one too
        where = f"{certificate} and {key}" if key is not None else f"{certificate} alone"
        message = f"{where} cannot be used ({fault}). Give a certificate and its key, both in PEM format."
        raise InvalidEntityError(message) from None


class _Server(uvicorn.Server):
    """Ends waiting requests as soon as it is told to end, and not after their time; listens at a second address."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context

    def accept(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """Answer connections to one more socket, in TLS. Like those to the first they end when the server does."""
        asyncio.run_coroutine_threadsafe(self._accept(listener, tls), self._loop).result()

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]  # its classes share more than their type says
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        self.servers.append(await self._loop.create_server(protocol, sock=listener, ssl=tls))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._context.tls is not None:
            await asyncio.to_thread(self._context.tls.open_again)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._context.closing.set()
        self._context.background.changes.notify()
        await super().shutdown(sockets)


def _run(server: uvicorn.Server, listener: socket.socket, background: Background, watchers: list[Loop]) -> None:
    # uvicorn raises the signal that ended it once more when it is done; ours swallow it, so that the end is orderly.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
    background.start()
    try:
        for watcher in watchers:
            watcher.start()
        server.run(sockets=[listener])
    finally:
        for watcher in watchers:
            watcher.stop()
        background.stop()


def _end_if_idle(server: uvicorn.Server, context: Context) -> bool:
    if context.activity.idle_seconds < context.workspace.settings.idle_shutdown_seconds:
        return False
    if context.tls is not None and context.tls.port is not None:
        return False  # whoever connects there cannot start the server again
    registry = context.workspace.registry
    if registry.schedules.next_due_at() is not None or registry.deliveries.next_due_at() is not None:
        return False
    counts = registry.jobs.counts_by_status()
    if not any(count for status, count in counts.items() if not JobStatus(status).is_finished):
        log.info("Nobody has used this server for %.0f s; it ends", context.activity.idle_seconds)
        server.should_exit = True
    return False


def _listening(settings: Settings) -> socket.socket:
    try:
        return listen(settings.host, settings.port)
    except OSError as error:
        message = (
            f"The server cannot listen at {settings.host}:{settings.port}: {error}. Choose another address or port."
        )
        raise InvalidEntityError(message) from error


def _leave_token(workspace: Workspace) -> None:
    """Make the admin token of this home, unless the one that lies there still works."""
    home = workspace.settings.home
    secret = local_server.read_token(home)
    if secret is not None:
        try:
            workspace.tokens.authenticate(secret)
        except AuthenticationError:
            log.warning("The token in %s is not valid any more; a new one takes its place", home / "token")
        else:
            return
    try:
        secret, _ = workspace.tokens.create(_LOCAL_TOKEN, "admin")
    except AlreadyExistsError:
        secret, _ = workspace.tokens.create(f"{_LOCAL_TOKEN}-{uuid.uuid4().hex[:8]}", "admin")
    partial = home / "token.partial"
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
    partial.replace(home / "token")


def _description(context: Context, url: str) -> local_server.LocalServer:
    return local_server.LocalServer(
        url=url,
        pid=os.getpid(),
        id=context.server_id,
        version=__version__,
        started_at=datetime.now(UTC).isoformat(),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_url(host: str) -> str:
    """An address that a client of this machine can use."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not listened at
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"  # noqa: S104 - compared, not listened at
    return f"[{host}]" if ":" in host else host
