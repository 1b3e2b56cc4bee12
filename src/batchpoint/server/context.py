"""What the routes of one server share. It hangs on the application, never on a module."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from batchpoint.background.service import Background
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
from batchpoint.errors import NotFoundError, TooManyRequestsError
from batchpoint.server.auth import authenticated
from batchpoint.server.failed_attempts import FailedAttempts
from batchpoint.server.tls import TlsAddress
from batchpoint.workspace import Workspace

WAITERS_ALLOWED = 200
"""Requests that may wait at the same time (long polls and event streams); each takes a thread while it waits."""


class Activity:
    """When the server was last used, for servers that end themselves when nobody does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open = 0
        self._last = clock()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request for as long as it is being answered."""
        with self._lock:
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                self._last = self._clock()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last request was answered; 0 while one is."""
        with self._lock:
            return 0.0 if self._open else self._clock() - self._last


@dataclass
class Context:
    """The workspace, what goes on by itself, and what the server remembers between requests."""

    workspace: Workspace
    """That of the request, for whoever has it from ``Shared``; else the default one."""
    background: Background
    server_id: str
    shares_files: bool
    """Whether callers see the same files as the server: it listens on this machine alone."""
    activity: Activity = field(default_factory=Activity)
    failed_attempts: FailedAttempts = field(default_factory=FailedAttempts)
    tls: TlsAddress | None = None
    """The server's second address, which speaks TLS; None where the only one does, or in a test without a process."""
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends: event streams and long polls end with it."""
    _waiters: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WAITERS_ALLOWED))

    def take_waiting_place(self) -> Callable[[], None]:
        """Take one of the places for requests that wait; call the answer to give it back.

        Raises:
            TooManyRequestsError: all are taken.
        """
        if not self._waiters.acquire(blocking=False):
            message = f"{WAITERS_ALLOWED} requests wait for jobs already. Ask again later, or less often."
            raise TooManyRequestsError(message)
        return self._waiters.release


def context_of(request: Request) -> Context:
    """The context of the server that answers this request."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


def _shared_of(
    request: Request,
    named: Annotated[str | None, Query(alias="workspace")] = None,
    x_batchpoint_workspace: Annotated[str | None, Header()] = None,
) -> Context:
    """The context, within the workspace that a request names: in its path, its query or its header.

    One that nobody has used yet is made for a caller who may change something.

    Raises:
        InvalidEntityError: no workspace can be called so.
        NotFoundError: there is none of that name, and the caller may make none.
        AuthenticationError: the same, and the caller is not known.
    """
    context = context_of(request)
    name = request.path_params.get("workspace") or named or x_batchpoint_workspace or DEFAULT_WORKSPACE
    try:
        workspace = context.workspace.within(name, create=False)
    except NotFoundError:
        if not authenticated(request).allows("operator"):
            raise
        workspace = context.workspace.within(name)
    request.scope["workspace"] = workspace.name
    return replace(context, workspace=workspace)


Shared = Annotated[Context, Depends(_shared_of)]
"""What the routes share, within the workspace that a request names."""


def _workspace_of(shared: Shared) -> Workspace:
    return shared.workspace


Work = Annotated[Workspace, Depends(_workspace_of)]
"""The operations of the workspace that a request names."""
Server = Annotated[Context, Depends(context_of)]
"""What the routes about the server itself share: they are asked within no workspace."""
