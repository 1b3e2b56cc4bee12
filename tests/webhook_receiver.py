"""A receiver of webhooks, as somebody would write one with the snippet of the how-to page: what a test listens with.

As a program, ``webhook_receiver.py <port> <page> <secret> <file>``, it appends what it got and verified to a file.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Verify = Callable[[str, Any, bytes], dict[str, Any]]


def documented_snippet(page: Path) -> Verify:
    """``verified`` as the page tells it: of its Python fences the one that defines it."""
    fences = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    (source,) = [fence for fence in fences if "def verified(" in fence]
    scope: dict[str, Any] = {}
    exec(source, scope)
    verify: Verify = scope["verified"]
    return verify


@dataclass
class Receiver:
    """What has come in, and what is answered."""

    status: int = 204
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    hang: threading.Event | None = None
    """Answer only when it is set."""
    url: str = ""

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies in the order in which they came."""
        return [json.loads(body) for _, body in self.requests]


@contextmanager
def receiving(
    on_request: Callable[[Any, bytes], int], port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[ThreadingHTTPServer]:
    """A server on loopback that answers each POST with the status that it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(on_request(self.headers, body))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """One within this process."""
    found = Receiver()

    def take(headers: Any, body: bytes) -> int:
        found.requests.append((dict(headers), body))
        if found.hang is not None:
            found.hang.wait(30)
        return found.status

    with receiving(take, tls=tls) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/batchpoint"
        yield found


def main() -> None:
    """Receive until it is ended."""
    port, page, secret, file = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    verify = documented_snippet(page)

    def take(headers: Any, body: bytes) -> int:
        event = verify(secret, headers, body)
        with file.open("a") as lines:
            lines.write(json.dumps({"id": headers["webhook-id"], **event}) + "\n")
        return 204

    with receiving(take, port):
        threading.Event().wait()


if __name__ == "__main__":
    main()
