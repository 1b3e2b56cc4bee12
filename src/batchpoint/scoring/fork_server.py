"""The warm parent: imports the heavy packages once, then forks workers on request.

``python fork_server.py <folder> <idle seconds>`` listens on ``<folder>/socket``. It runs under the interpreter of the
deployment's environment, imports only the standard library and its neighbours until it is told what to preload, starts
no threads and never runs a person's code: that happens in the workers, each a fresh fork. docs/scoring.md has the
messages.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ALWAYS_NEEDED = ("slices", "segment", "sketches")
"""Modules beside this file that read, sketch and write rows: with their neighbours they take a worker milliseconds."""
NEVER_PRELOADED = ("tensorflow", "jax", "jaxlib", "polars", "ray", "grpc", "pyspark", "torch_xla")
"""Packages that do not survive a fork once they are imported, because they hold threads or devices."""
FIRST_CALL_SECONDS = 30.0
"""How long a new fork server waits for its first runner, however short its idle time is."""
LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes."""
OPEN_FOLDERS = "/proc/self/fd/"
"""Where a folder that this process has open lies by its number."""


def socket_path(folder: Path) -> str:
    """The path to bind or connect to: through ``/proc`` when the folder's own path is too long for a socket.

    The folder stays open, so that the short path keeps its meaning, until the process ends or the caller closes it.
    """
    path = str(folder / "socket")
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    return f"{OPEN_FOLDERS}{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}/socket"


class ForkServer:
    """Forks workers for the runners that connect."""

    def __init__(self, folder: Path, idle_seconds: float, worker: Any) -> None:
        """Listen in ``folder``; ``worker`` is the module whose ``main(connection)`` a fork runs."""
        self._folder = folder
        self._idle_seconds = idle_seconds
        self._worker = worker
        self._path = socket_path(folder)
        self._quiet_since = time.monotonic()
        self._had_runner = False
        self._workers: dict[int, Runner] = {}
        self._selector = selectors.DefaultSelector()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 -- a string, as sockets take it
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        self._listener.bind(self._path)
        os.umask(mask)
        self._listener.listen(16)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._wake, selectors.EVENT_READ, self._reap)

    def serve(self) -> None:
        """Serve until no runner has been there for the idle time."""
        while not self._is_idle():
            for key, _ in self._selector.select(self._timeout()):
                key.data()

    def _timeout(self) -> float:
        limit = self._idle_seconds if self._had_runner else max(self._idle_seconds, FIRST_CALL_SECONDS)
        return max(0.01, self._quiet_since + limit - time.monotonic())

    def _is_idle(self) -> bool:
        """Whether it is time to end. The lock keeps a runner from connecting in the very moment of the end."""
        if len(self._selector.get_map()) > 2:
            self._quiet_since = time.monotonic()
            return False
        limit = self._idle_seconds if self._had_runner else max(self._idle_seconds, FIRST_CALL_SECONDS)
        if time.monotonic() - self._quiet_since < limit:
            return False
        try:
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True  # the folder was deleted: nobody can ask for anything any more
        if self._accept():
            os.close(lock)
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 -- a string, as sockets take it
        return True

    def _accept(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        runner = Runner(connection)
        self._had_runner = True
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(runner))
        return True

    def _receive(self, runner: Runner) -> None:
        try:
            messages = runner.receive()
        except (EOFError, ConnectionResetError):
            self._drop(runner)
            return
        for message in messages:
            if message["op"] == "spawn":
                self._spawn(runner, message)
            elif message["op"] == "preload":
                preload(message["modules"])
            elif message["op"] == "preload_model":
                preload_model(message["path"], self._worker)
            elif message["op"] == "retire":
                self._idle_seconds = 0

    def _spawn(self, runner: Runner, message: dict[str, Any]) -> None:
        channel = runner.descriptors.pop(0)
        gc.freeze()  # the fork's collector must not touch, and so copy, what it shares with us
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(channel, parent)
        os.close(channel)
        self._workers[pid] = runner
        runner.send({"event": "spawned", "id": message["id"], "pid": pid})

    def _become_worker(self, channel: int, parent: int) -> None:
        """In the fork: shut what belongs to the parent, then work. Never returns."""
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for key in list(self._selector.get_map().values()):
                os.close(key.fd)
            os.setsid()  # what a script starts itself can be told from the others
            self._worker.main(socket.socket(fileno=channel))
        finally:
            os._exit(1)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            runner = self._workers.pop(pid, None)
            if runner is not None:
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                runner.send({"event": "exited", "pid": pid, "status": code})

    def _drop(self, runner: Runner) -> None:
        """A runner is gone: so are its workers."""
        self._selector.unregister(runner.connection)
        runner.close()
        for pid, owner in self._workers.items():
            if owner is runner:
                kill_group(pid)


class Runner:
    """A runner's connection: lines of JSON, with the sockets of workers handed along."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connection just accepted."""
        self.connection = connection
        self.descriptors: list[int] = []
        self._buffer = b""

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have arrived whole. Raises EOFError when the runner is gone."""
        size = array.array("i").itemsize
        data, ancillary, _, _ = self.connection.recvmsg(1 << 16, socket.CMSG_SPACE(16 * size))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % size])
                self.descriptors.extend(numbers)
        if not data:
            raise EOFError
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, message: dict[str, Any]) -> None:
        """Answer; a runner that is gone is noticed when it is read from."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Close the connection and sockets that were never used."""
        self.connection.close()
        for number in self.descriptors:
            os.close(number)


def preload(modules: list[str]) -> None:
    """Import packages, so that forked workers have them at once. What cannot be imported is left to the workers."""
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the time, and finds none
    try:
        for name in modules:
            if name.split(".")[0] in NEVER_PRELOADED or name in sys.modules:
                continue
            try:
                importlib.import_module(name)
            except BaseException as error:  # noqa: BLE001 -- preloading only saves time; the script's own import will tell
                sys.stderr.write(f"{name} was not preloaded: {error}\n")
    finally:
        gc.enable()


def preload_model(path: str, worker: Any) -> None:
    """Load an MLflow model once; workers forked afterwards find it in ``mlflow_script.PRELOADED``."""
    try:
        script = worker.load_sibling("mlflow_script")
        if path not in script.PRELOADED:
            script.PRELOADED = {path: script.load(path)}
    except Exception as error:  # noqa: BLE001 -- preloading only saves time; init() in the worker will tell
        sys.stderr.write(f"The model {path} was not preloaded: {error}\n")
    gc.collect()


def kill_group(pid: int) -> None:
    """Kill a worker and what its script started."""
    for kill in (os.killpg, os.kill):  # just forked, it is not yet the leader of its own group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, on systems that can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _load_worker() -> Any:
    """The module ``worker.py`` beside this file, by its path."""
    name = "batchpoint_worker"
    spec = importlib.util.spec_from_file_location(name, HERE / "worker.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Run the fork server, as nobody's child; the line ``ready`` on standard output says that it listens."""
    if os.fork():
        os._exit(0)
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    folder, idle_seconds = Path(sys.argv[1]), float(sys.argv[2])
    worker = _load_worker()
    server = ForkServer(folder, idle_seconds, worker)
    os.write(1, b"ready\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ALWAYS_NEEDED:
        worker.load_sibling(name)
    server.serve()


if __name__ == "__main__":
    main()
