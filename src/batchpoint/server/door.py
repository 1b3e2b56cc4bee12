"""What every request passes, whatever it asks for: a request id, a limit on its size, the audit log, a last resort;
and that no answer is run in a browser."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchpoint import logs
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
from batchpoint.errors import BatchpointError, RequestTooLargeError
from batchpoint.server.azureml import blob_wire
from batchpoint.server.context import Context
from batchpoint.server.problems import answer_to

log = logging.getLogger(__name__)

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REQUEST_ID = re.compile(r"^[A-Za-z0-9_.\-]{1,64}$")
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Not a use of the server: a client asks for the first before each command, a monitor for both at all times."""
_UPLOAD = re.compile(r"^/api/v1/datastores/[^/]+/files/|" + blob_wire.ADDRESS.pattern)
"""Uploads go to disk as they come, so their size is the disk's matter."""
_BLOCK = re.compile(rb"(?:^|&)comp=block(?:&|$)")
"""One of the hundreds of blocks that a file is sent in; what the audit log tells is that they became the file."""
_INERT = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
"""Of each answer that says nothing else itself: whatever a browser takes it for, nothing in it is run."""


class Door:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, context: Context, max_request_bytes: int) -> None:
        self._app = app
        self._context = context
        self._limit = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        with logs.about(request_id=scope["request_id"]):
            if scope["path"] in _PROBES:
                await self._answer(scope, _Passage(scope, receive, send, self._limit))
            else:
                await self._answer_user(scope, _Passage(scope, receive, send, self._limit))

    async def _answer_user(self, scope: Scope, passage: _Passage) -> None:
        began = time.monotonic()
        with self._context.activity.request():
            await self._answer(scope, passage)
        told = {"method": scope["method"], "path": scope["path"], "status": passage.status}
        token, workspace = scope.get("token"), scope.get("workspace", DEFAULT_WORKSPACE)
        who = {"token": token.name} if token is not None else {}
        with logs.about(**told, **who, workspace=workspace, seconds=round(time.monotonic() - began, 4)):
            logs.requests.info("%s %s: %d", scope["method"], scope["path"], passage.status)

    async def _answer(self, scope: Scope, passage: _Passage) -> None:
        if passage.declared_too_large():
            await passage.refuse_too_large()
            return
        try:
            await self._app(scope, passage.receive, passage.send)
        except Exception:  # the rim of a request: it is answered, and the log has the traceback
            request_id = scope["request_id"]
            log.exception("%s %s failed (request %s)", scope["method"], scope["path"], request_id)
            if passage.started:
                raise
            message = f"Something went wrong in the server; its log has the details under request {request_id}."
            await passage.reply(answer_to(Request(scope), BatchpointError(message)))
        if scope["method"] in _WRITES and "token" in scope and not _BLOCK.search(scope["query_string"]):
            await run_in_threadpool(self._audit, scope, passage.status)

    def _audit(self, scope: Scope, status: int) -> None:
        action = str(getattr(scope.get("route"), "name", scope["method"]))
        details = {"status": status, "request_id": scope["request_id"]}
        if scope.get("workspace", DEFAULT_WORKSPACE) != DEFAULT_WORKSPACE:
            details["workspace"] = scope["workspace"]
        audit = self._context.workspace.registry.audit
        audit.record(scope["token"].name, action, scope["path"], ok=status < 400, details=details)


class _Passage:
    """One request and its answer on their way through the door."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limit = None if _UPLOAD.match(scope["path"]) else limit
        self._received = 0
        self._too_large = False
        self._replaced = False
        self.started = False
        self.status = 500

    def declared_too_large(self) -> bool:
        declared = Headers(scope=self._scope).get("content-length", "")
        return self._limit is not None and declared.isdecimal() and int(declared) > self._limit

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._limit is not None and self._received > self._limit:
                # What reads the body sees its end; whatever it makes of that is replaced in ``send``.
                self._too_large = True
                return {"type": "http.request", "body": b"", "more_body": False}
        return message

    async def send(self, message: Message) -> None:
        if self._too_large:
            if not self.started and not self._replaced:
                self._replaced = True
                await self.refuse_too_large()
            return
        await self._pass(message)

    async def refuse_too_large(self) -> None:
        text = (
            f"The request is larger than the {self._limit} bytes that this server takes (BATCHPOINT_MAX_REQUEST_BYTES)."
        )
        await self.reply(answer_to(Request(self._scope), RequestTooLargeError(text)))

    async def reply(self, response: Response) -> None:
        await response(self._scope, self._receive, self._pass)

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._scope["request_id"]
            for name, value in _INERT.items():
                headers.setdefault(name, value)
        await self._send(message)
