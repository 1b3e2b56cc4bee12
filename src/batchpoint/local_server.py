"""The server of a home folder: where it is, whether it answers, how it is started and ended.

Both sides use it: the server writes down where it listens, the client finds it there or starts it. What a home folder
remembers about its server is ``server.json`` (address, process, version), ``server.lock`` (held for the server's life,
so that two servers never share a home) and ``token`` (an admin token, readable by its owner alone).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from batchpoint.azureml_shell import taken_back
from batchpoint.errors import ConflictError, ServerUnavailableError

START_SECONDS = 30.0
"""How long a started server may take until it answers."""
STOP_SECONDS = 15.0
"""How long a server may take to end after it was asked to."""


@dataclass(frozen=True, kw_only=True)
class LocalServer:
    """A server as it is written down in ``server.json``."""

    url: str
    pid: int
    id: str
    """Changes with every start; ``/healthz`` answers with it, so a stale file is told from a living server."""
    version: str
    started_at: str
    """ISO 8601, UTC."""


def find(home: Path) -> LocalServer | None:
    """The server of this home, or None when none answers."""
    server = _read(home)
    return server if server is not None and _answers(server) else None


def ensure(home: Path, *, timeout: float = START_SECONDS) -> LocalServer:
    """The server of this home; started, detached from this process, when none answers.

    A server that is started this way ends itself when nobody has used it for ``Settings.idle_shutdown_seconds``.

    Raises:
        ServerUnavailableError: it did not start in time, when the message quotes the end of its log; or the home cannot
            be written to.
    """
    if server := find(home):
        return server
    with _opened(home, "starting.lock") as lock:
        # Two clients that start at once must not both start a server: the second waits, and finds the first one's.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find(home) or _start(home, timeout)


def stop(home: Path, *, timeout: float = STOP_SECONDS) -> bool:
    """End the server of this home; jobs that run go on. False when there was none.

    Raises:
        ConflictError: it was asked to end and still runs.
    """
    if not is_locked(home):
        return False
    # Not from server.json: after a crash that file may still name a process that is somebody else's by now.
    pid = int((home / "server.lock").read_text())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while is_locked(home) or not _has_ended(pid):
        if time.monotonic() > deadline:
            raise ConflictError(f"The server (process {pid}) did not end within {timeout:g} s of being asked to.")
        time.sleep(0.02)
    return True


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or only its parent has not asked how it ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def read_token(home: Path) -> str | None:
    """The admin token that the local server left in its home, or None."""
    with suppress(OSError):
        return (home / "token").read_text().strip() or None
    return None


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Hold the home for one server.

    Raises:
        ConflictError: another server holds it; the message says where it listens.
        ServerUnavailableError: the home cannot be written to.
    """
    with _opened(home, "server.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = _read(home)
            where = f" at {other.url} (process {other.pid})" if other else ""
            message = (
                f"A server for {home} runs already{where}. Use it, stop it with 'batchpoint down', "
                "or set BATCHPOINT_HOME to another folder."
            )
            raise ConflictError(message) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            (home / "server.json").unlink(missing_ok=True)


def announce(home: Path, server: LocalServer) -> None:
    """Write down where the server listens. Call it while the home is claimed and the server answers."""
    path = home / "server.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(server)))
    partial.replace(path)


def is_locked(home: Path) -> bool:
    """Whether a server holds this home, answering or not."""
    try:
        with (home / "server.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _read(home: Path) -> LocalServer | None:
    try:
        return LocalServer(**json.loads((home / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _opened(home: Path, name: str) -> TextIO:
    """A lock file of the home, which is made when it is missing."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (home / name).open("a")
    except OSError as fault:
        message = f"{home} cannot be used as the home folder ({fault}). Set BATCHPOINT_HOME to one you may write to."
        raise ServerUnavailableError(message) from None


def _answers(server: LocalServer) -> bool:
    # The certificate is the person's own and the address is the one the server itself wrote down.
    unverified = ssl._create_unverified_context() if server.url.startswith("https:") else None  # noqa: S323, SLF001
    try:
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=5, context=unverified) as response:  # noqa: S310 - the server's own address
            return bool(json.load(response).get("id") == server.id)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def _start(home: Path, timeout: float) -> LocalServer:
    log_path = home / "server.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "batchpoint.server"],
            env={**taken_back(os.environ), "BATCHPOINT_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home,
            start_new_session=True,
        )
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if server := find(home):
            # Its end is awaited, or it would stay a zombie for as long as this process lives.
            threading.Thread(target=process.wait, name="reap-server", daemon=True).start()
            return server
        time.sleep(0.02)
    if server := find(home):
        return server
    if process.poll() is None:
        process.kill()
        process.wait()
    last_lines = "\n".join(log_path.read_text(errors="replace").splitlines()[-15:])
    raise ServerUnavailableError(f"The local server of {home} did not start. The end of {log_path}:\n{last_lines}")
