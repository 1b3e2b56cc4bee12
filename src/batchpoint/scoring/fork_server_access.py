"""The way to a fork server: find the one that listens in a folder, start one, have it import what will be needed.

``fork_server.py`` is the process at the other end; it runs under the interpreter of the deployment's environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchpoint.errors import EnvironmentBuildError
from batchpoint.scoring.fork_server import OPEN_FOLDERS, socket_path
from batchpoint.scoring.preloading import remembered
from batchpoint.scoring.spec import ScoringSpec

log = logging.getLogger(__name__)

FORK_SERVER = Path(__file__).with_name("fork_server.py")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def threads_of_worker(spec: ScoringSpec) -> int:
    """How many threads numeric libraries of one worker may use, so that all workers together use each core once."""
    return max(1, usable_cpus() // (spec.instances * spec.processes_per_instance))


def usable_cpus() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def connect(spec: ScoringSpec, run_folder: Path) -> socket.socket:
    """A connection to the run's fork server, which is started when there is none, and imports what it is known to need.

    Raises:
        EnvironmentBuildError: the interpreter does not start.
    """
    folder = Path(spec.fork_server) if spec.fork_server else run_folder / "fork_server"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = connected(folder)
    if server is not None:
        return server
    with _one_at_a_time(folder):
        server = connected(folder)
        if server is None:
            server = _started(spec, folder)
            preload(server, remembered(folder))
        return server


def source_stamp() -> str:
    """Another one whenever a file is that a fork server may load; it loads some late, when a worker needs them."""
    with os.scandir(FORK_SERVER.parent) as entries:
        facts = [(found.name, found.stat()) for found in entries if found.name.endswith(".py")]
    files = sorted((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


def preload(server: socket.socket, modules: Iterable[str]) -> None:
    """Have a fork server import packages; it does so before it forks the next worker."""
    if wanted := list(modules):
        tell(server, {"op": "preload", "modules": wanted})


def tell(server: socket.socket, message: dict[str, Any]) -> None:
    """Send a fork server a message. Raises ``OSError`` when it is gone."""
    server.sendall(json.dumps(message).encode() + b"\n")


def warm_up(spec: ScoringSpec) -> None:
    """Begin to start the fork server of a run that is still being prepared; it imports meanwhile. Returns at once.

    What goes wrong is only logged: the runner does the same, and tells.
    """
    folder = Path(spec.fork_server) if spec.fork_server else None
    if folder is None or not remembered(folder):
        return

    def start() -> None:
        try:
            connect(spec, folder).close()
        except (OSError, EnvironmentBuildError) as error:
            log.info("The fork server of job %s was not started ahead: %s", spec.job, error)

    threading.Thread(target=start, name="warm-up", daemon=True).start()


def retire(folder: Path) -> None:
    """Have the fork server of a folder end as soon as no runner uses it; nothing happens when none listens."""
    server = connected(folder)
    if server is not None:
        with server, contextlib.suppress(OSError):
            tell(server, {"op": "retire"})


def connected(folder: Path) -> socket.socket | None:
    """A connection to the fork server that listens in ``folder``; None when none does."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = ""
    try:
        path = socket_path(folder)
        server.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        server.close()
        return None
    finally:
        if path.startswith(OPEN_FOLDERS):  # a server of many jobs would run out of files
            os.close(int(path.removeprefix(OPEN_FOLDERS).partition("/")[0]))
    return server


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _started(spec: ScoringSpec, folder: Path) -> socket.socket:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCHPOINT_")}
    environment.update(dict.fromkeys(_THREADS, str(threads_of_worker(spec))))
    environment.update(spec.environment_variables)  # read by packages while they are imported, here or in a worker
    idle = spec.fork_server_idle_seconds if spec.fork_server else 0
    command = [spec.python, str(FORK_SERVER), str(folder), str(idle)]
    errors_file = folder / "fork_server.log"
    try:
        with errors_file.open("ab") as errors:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        raise EnvironmentBuildError(f"The interpreter {spec.python} cannot be started: {error}") from error
    assert child.stdout is not None
    with child.stdout as output:
        said = output.readline()
    child.wait()  # it has left the server to itself
    server = connected(folder) if said == b"ready\n" else None
    if server is None:
        raise EnvironmentBuildError(f"The interpreter {spec.python} could not start workers: {_tail(errors_file)}")
    return server


def _tail(log_file: Path) -> str:
    return log_file.read_text(errors="replace")[-2000:].strip() or "it ended without a word"
