"""Many official clients at once, whose connections break and who try again, as the client does by itself."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from azure_client import AzureClient
from shipped import Shipped

CLIENTS = 50
ROWS = "azureml://datastores/workspaceblobstore/paths/rows.csv"

WAITING = """
import time
def run(files):
    time.sleep(600)
"""
"""The first job holds the machine's one instance, and the others wait behind it: what they score is not the matter."""

DEPLOYMENT = """
name: blue
endpoint_name: churn
code_configuration: {code: ., scoring_script: score.py}
"""

AT_ONCE = """
# A process each: the client keeps one dictionary of headers, the id of the request in it, for all threads of a process.
started, gate = os.pipe(), os.pipe()
children = []
for number in range(CLIENTS):
    child = os.fork()
    if child == 0:
        os.close(gate[1])
        try:
            own = MLClient.from_config(DefaultAzureCredential(), path="config.json")
            os.write(started[1], b".")
            os.read(gate[0], 1)
            asked = {"experiment_name": f"client-{number}", "input": Input(type="uri_file", path=ROWS)}
            job = own.batch_endpoints.invoke(endpoint_name="churn", **asked)
            Path(f"job-{number}").write_text(job.name)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    children.append(child)
os.close(started[1])
seen = b""
while len(seen) < CLIENTS and (more := os.read(started[0], CLIENTS)):
    seen += more
os.close(gate[1])
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print(json.dumps([Path(f"job-{number}").read_text() for number in range(CLIENTS)]))
"""


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


FAILED = Answer(500, [], b"")


@dataclass
class Breaks:
    """What becomes of each invoke the first times that it is sent; ``sent`` counts how often each came."""

    kinds: Iterator[str] = field(default_factory=lambda: cycle(("dropped", "failed", "failed too early")))
    first: dict[str, str] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, request_id: str) -> str | None:
        """How this one breaks, or None when it passes."""
        with self.lock:
            self.sent[request_id] = self.sent.get(request_id, 0) + 1
            if request_id in self.first:
                return None
            self.first[request_id] = next(self.kinds)
            return self.first[request_id]


class Front(ThreadingHTTPServer):
    """Leads to a server over a network that loses the answers to each client's first invoke.

    The server has done its work by then, or is still at it: the client cannot know, and sends the request again.
    """

    request_queue_size = 4 * CLIENTS
    daemon_threads = True

    def __init__(self, url: str, home: Path) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.url = f"https://localhost:{self.server_address[1]}"
        self.breaks = Breaks()
        self.leads_to = urlsplit(url)
        self.trusted = ssl.create_default_context(cafile=home / "tls" / "authority.pem")
        self.shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.shown.load_cert_chain(home / "tls" / "server.pem", home / "tls" / "server.key")

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        plain, peer = super().get_request()
        # Shaken hands with in the thread of the connection, so that nobody waits for anybody.
        return self.shown.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), peer

    def handle_error(self, *_: object) -> None:
        pass  # a client that has gone


class Passage(BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: Front

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(self.ask(b""))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request_id = self.headers.get("repeatability_request-id")
        broken = self.server.breaks.next(request_id) if request_id else None
        if broken == "failed too early":
            threading.Thread(target=self.ask, args=[body]).start()
            self.reply(FAILED)
            return
        answer = self.ask(body)
        if broken == "dropped":
            self.close_connection = True
        else:
            self.reply(FAILED if broken else answer)

    def ask(self, body: bytes) -> Answer:
        to = self.server.leads_to
        behind = http.client.HTTPSConnection(to.hostname or "", to.port, context=self.server.trusted, timeout=120)
        behind.request(self.command, self.path, body or None, dict(self.headers.items()) | {"Connection": "close"})
        answer = behind.getresponse()
        found = Answer(answer.status, answer.getheaders(), answer.read())
        behind.close()
        return found

    def reply(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in {"connection", "content-length", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


@contextmanager
def front_of(url: str, home: Path) -> Iterator[Front]:
    """Such a front, while it is open."""
    with Front(url, home) as front:
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        try:
            yield front
        finally:
            front.shutdown()
            thread.join()


def test_fifty_clients_that_lose_their_answers_and_try_again_make_fifty_jobs(shipped: Shipped, tmp_path: Path) -> None:
    source = tmp_path / "churn"
    source.mkdir()
    (source / "score.py").write_text(WAITING)
    (source / "blue.yml").write_text(DEPLOYMENT)
    shipped.ok("endpoint", "create", "-n", "churn")
    shipped.ok("deployment", "create", "-f", source / "blue.yml", "--set-default")
    (shipped.home / "datastores" / "workspaceblobstore" / "rows.csv").write_text("a\n1\n2\n")
    client = AzureClient(shipped, tmp_path / "notebook")
    own = client.variables["AZUREML_DEV_URL_MFE"]
    with front_of(own, shipped.home) as front:
        client.variables = {name: text.replace(own, front.url) for name, text in client.variables.items()}
        names = client.json(f"CLIENTS, ROWS = {CLIENTS}, {ROWS!r}\n{AT_ONCE}", timeout=600)

    assert len(set(names)) == CLIENTS
    assert len(front.breaks.first) == CLIENTS
    assert all(count >= 2 for count in front.breaks.sent.values())
    listed = shipped.json("job", "list", "--max-results", "1000")
    made = {job["name"]: job["experiment_name"] for job in listed}
    assert made == {name: f"client-{number}" for number, name in enumerate(names)}
