"""A second address of a home's server, which speaks TLS: for clients that accept nothing else.

It is opened when somebody asks for it, and from then on whenever the server starts, at the same port: what was set up
once keeps working. What the home remembers of it lies in ``<home>/tls``.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batchpoint.errors import ConflictError, InvalidEntityError
from batchpoint.server.certificates import Certificates
from batchpoint.server.listening import listen

_PORTS = range(20000, 30000)

log = logging.getLogger(__name__)

Accept = Callable[[socket.socket, ssl.SSLContext], None]
"""Begin to answer connections to a listening socket; returns when it does."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the home remembers."""

    port: int
    names: list[str]


class TlsAddress:
    """The second address of one server.

    Args:
        folder: where certificates and port are kept.
        host: address that the server listens on; its names are those of the certificate.
        accept: answers connections.
    """

    def __init__(self, folder: Path, host: str, accept: Accept) -> None:
        self._file = folder / "address.json"
        self._certificates = Certificates(folder)
        self._host = host
        self._accept = accept
        self._lock = threading.Lock()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.port: int | None = None
        """Where it listens; None when it does not."""

    @property
    def authority(self) -> str | None:
        """The certificate that whoever connects has to trust, as PEM; None when there is no such address."""
        return None if self.port is None else self._certificates.authority

    def open(self, *, port: int | None = None, names: Sequence[str] = ()) -> None:
        """Listen, unless it does so already; the certificate is made, and renewed when it is near its end.

        Args:
            port: where; None means where it was the last time, and the first time a port that is free. Another port
                than before takes its place; until the server ends both are answered at.
            names: names of this machine, besides those that are known, that others reach it by.

        Raises:
            ConflictError: the port is taken.
            InvalidEntityError: a name cannot stand in a certificate.
        """
        with self._lock:
            kept = self._kept()
            names = list(dict.fromkeys([*(kept.names if kept else ()), *self._own_names(), *names]))
            try:
                self._certificates.prepare(names)
            except ValueError as fault:
                message = f"{', '.join(names)}: not all are names that a certificate can be made for ({fault})."
                raise InvalidEntityError(message) from None
            self._certificates.load_into(self._context)
            if self.port is None or port not in (None, self.port):
                listener = self._listening(port) if port else self._at_usual_port(kept)
                self._accept(listener, self._context)
                self.port = int(listener.getsockname()[1])
            self._file.write_text(json.dumps({"port": self.port, "names": names}))

    def open_again(self) -> None:
        """Listen where it did the last time. Where it never did nothing happens; where it cannot, the log tells."""
        if self._kept() is None:
            return
        try:
            self.open()
        except ConflictError as error:
            log.warning("%s", error.message)

    def renew(self) -> bool:
        """Renew the certificate when it is near its end, for servers that run for a year. Answers that this was all."""
        if self.port is not None:
            self.open()
        return False

    def _kept(self) -> Kept | None:
        try:
            return Kept(**json.loads(self._file.read_text()))
        except FileNotFoundError:
            return None

    def _own_names(self) -> list[str]:
        if self._host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not listened at
            return [socket.gethostname(), socket.getfqdn()]
        return [self._host]

    def _at_usual_port(self, kept: Kept | None) -> socket.socket:
        if kept is not None:
            return self._listening(kept.port)
        # Chosen by the home's path, and below those that the system gives to outgoing connections: such a port is
        # seldom somebody else's when the server comes back.
        first = zlib.crc32(str(self._file).encode())
        for port in (_PORTS[(first + step) % len(_PORTS)] for step in range(len(_PORTS))):
            with suppress(ConflictError):
                return self._listening(port)
        raise ConflictError(f"No port of {_PORTS[0]} to {_PORTS[-1]} is free. Name one with --port.")

    def _listening(self, port: int) -> socket.socket:
        try:
            return listen(self._host, port)
        except OSError as fault:
            message = (
                f"The server cannot speak TLS at port {port} of {self._host}: {fault.strerror}. Clients were told it: "
                "end the program that holds it and run 'batchpoint azureml-env' again, or name another port with "
                "--port and set the clients up anew."
            )
            raise ConflictError(message) from None
