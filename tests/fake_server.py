"""A server that answers as a test says and remembers what it was asked; it speaks the wire form of docs/rest.md."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from batchpoint import __version__


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


Answer = Callable[[Request], Any]


@dataclass
class FakeServer:
    """Routes are ``"GET /jobs/one"`` → an answer: JSON, ``(status, JSON)``, bytes, or a function of the request."""

    url: str = ""
    routes: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    shares_files: bool = True
    failures_first: int = 0
    """How many requests are answered 503 before any is answered properly."""

    def asked(self, route: str) -> list[Request]:
        return [request for request in self.requests if f"{request.method} {request.path}" == route]

    def answer(self, request: Request) -> tuple[int, bytes]:
        if self.failures_first > 0:
            self.failures_first -= 1
            return 503, b"busy"
        found = self.routes.get(f"{request.method} {request.path}")
        if request.path == "/server" and found is None:
            found = {"version": __version__, "id": "one", "shares_files": self.shares_files, "role": "admin"}
        if found is None:
            return 404, error("not_found", f"There is no {request.path}.")
        if callable(found):
            found = found(request)
        status, value = found if isinstance(found, tuple) else (200, found)
        return status, value if isinstance(value, bytes) else json.dumps(value).encode()


def error(code: str, message: str, **details: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "details": details, "request_id": "r1"}}).encode()


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            path = parts.path.removeprefix("/api/v1")
            request = Request(self.command, path, dict(parse_qsl(parts.query)), headers, content)
            fake.requests.append(request)
            status, answer = fake.answer(request)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
