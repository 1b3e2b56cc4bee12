"""Worker processes on this machine, forked from a warm parent under the interpreter of the deployment's environment.

Everything is asynchronous on one selector: a message to a busy worker waits in memory, never in the driver.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

from batchpoint.scoring import fork_server_access
from batchpoint.scoring.challenge import challenger_setup, read_challenge
from batchpoint.scoring.events import (
    ChampionDone,
    Event,
    PartFailed,
    PartSucceeded,
    WorkerInitFailed,
    WorkerLost,
    WorkerReady,
)
from batchpoint.scoring.fork_server import kill_group
from batchpoint.scoring.mini_batches import ErrorInfo, KeySpan, MiniBatch, TableSchema
from batchpoint.scoring.model_outcomes import read_outcomes
from batchpoint.scoring.preloading import READING, forget, learnable, modules_for, modules_of_script, remember
from batchpoint.scoring.spec import ScoringSpec

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
STACK_SECONDS = 0.5
"""How long a worker may take to write down its stack before it is killed."""


class Engine(Protocol):
    """Where workers live. One thread drives it; nothing here waits but ``poll`` and ``close``."""

    def start_worker(self, worker: int, slot: int) -> None:
        """Begin to start a worker; ``poll`` tells when it is ready, or why it never will be."""

    def pin_schema(self, schema: TableSchema | None) -> None:
        """What the plan learnt about the columns; called before the first ``score``."""

    def score(self, worker: int, task: int, mini_batch: MiniBatch, start: int, stop: int) -> None:
        """Give a worker one more part, with the next ``poll``, which also tells when the worker is gone."""

    def kill_worker(self, worker: int) -> str:
        """Kill a worker and what it started; the stack that it was at."""

    def poll(self, timeout: float, *, pause: float = 0.0) -> list[Event]:
        """What happened, in order; waits up to ``timeout`` seconds for the first of it.

        Before that, ``pause`` seconds pass in any case, so that several answers are found at once.
        """

    def describe(self, worker: int) -> tuple[str, str]:
        """Node and process name of a worker, for the logs."""

    def peak_memory(self) -> int | None:
        """Bytes that the largest of the living workers has held at once, shared ones too; None when nobody tells."""

    def close(self, *, grace: float, is_hurried: Callable[[], bool] = ...) -> int:
        """End all workers: within ``grace`` seconds, or until there is a hurry, by their ``shutdown()``, then by force.

        Returns:
            How many had not come to the end of their ``shutdown()``.
        """


@dataclass(slots=True)
class _Process:
    """What the driver knows of one worker."""

    number: int
    node: str
    process: str
    segment: str
    stack_file: Path
    channel: socket.socket
    pid: int | None = None
    is_ready: bool = False
    has_schema: bool = False
    is_done: bool = False
    """It said that it cannot start, so its end is no loss."""
    ended: str | None = None
    """How the process ended, once the fork server has told."""
    closed_at: float | None = None
    """When its end of the socket was seen closed."""
    inbox: bytes = b""
    outbox: bytearray = field(default_factory=bytearray)


class LocalEngine:
    """An ``Engine`` of processes of this machine."""

    def __init__(self, spec: ScoringSpec, folder: Path) -> None:
        """Connect to the fork server, or start it.

        Raises:
            EnvironmentBuildError: the interpreter does not start.
        """
        self._spec = spec
        self._folder = folder
        challengers = ("user_output-challenger",) if spec.challenger else ()
        for name in ("segments", "stacks", "user_output", "logs", *challengers):
            (folder / name).mkdir(exist_ok=True)
        self._generation = _next_generation(folder / "segments")
        self._threads = fork_server_access.threads_of_worker(spec)
        self._gpus = visible_gpus()
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, _Process] = {}
        self._names: dict[int, tuple[str, str]] = {}
        self._by_pid: dict[int, _Process] = {}
        self._started_on: dict[str, int] = {}
        self._schema: TableSchema | None = None
        self._has_schema = False
        self._modules: dict[str, None] = {}
        """Packages that workers imported and the fork server has not, in the order of the imports."""
        self._last: tuple[MiniBatch, dict[str, Any]] | None = None
        self._unsent: dict[int, _Process] = {}
        """Workers with messages that wait for the next ``poll``: one system call takes them all."""
        self._events: deque[Event] = deque()
        self._server: socket.socket | None = None
        self._server_inbox = b""
        self._connect()

    # ── the protocol ──

    def start_worker(self, worker: int, slot: int) -> None:
        """See ``Engine``. The worker's name counts up on its node: a replacement never shares a file with the lost."""
        node = f"node-{slot // self._spec.processes_per_instance}"
        count = self._started_on[node] = self._started_on.get(node, -1) + 1
        process = f"process{count:03}"
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        name = f"{self._generation:04}-{worker:05}"
        state = _Process(worker, node, process, f"{name}.rows", self._folder / "stacks" / f"{name}.txt", ours)
        self._processes[worker] = state
        self._names[worker] = (node, process)
        try:
            if self._server is None:
                self._connect()
            assert self._server is not None
            line = json.dumps({"op": "spawn", "id": worker}).encode() + b"\n"
            socket.send_fds(self._server, [line], [theirs.fileno()])
        except OSError as error:
            self._lose(state, f"The fork server is gone: {error}")
            return
        finally:
            theirs.close()
        self._selector.register(ours, selectors.EVENT_READ, state)
        self._send(state, self._setup(state, slot))

    def pin_schema(self, schema: TableSchema | None) -> None:
        """See ``Engine``."""
        self._schema, self._has_schema = schema, True

    def score(self, worker: int, task: int, mini_batch: MiniBatch, start: int, stop: int) -> None:
        """See ``Engine``."""
        state = self._processes.get(worker)
        if state is None:
            return
        if self._has_schema and not state.has_schema:
            state.has_schema = True
            if self._schema is not None:
                self._send(state, {"op": "schema", "schema": asdict(self._schema)})
        if self._last is None or self._last[0] is not mini_batch:
            self._last = (mini_batch, _content(mini_batch))
        parts = {"op": "score", "id": task, "start": start, "stop": stop}
        self._put(state, {**parts, **self._last[1]})
        self._unsent[worker] = state

    def kill_worker(self, worker: int) -> str:
        """See ``Engine``."""
        state = self._processes.get(worker)
        if state is None:
            return ""
        stack = self._stack_of(state)
        self._kill(worker)
        return stack

    def poll(self, timeout: float, *, pause: float = 0.0) -> list[Event]:
        """See ``Engine``."""
        for state in self._unsent.values():
            if state.number in self._processes:
                self._flush(state)
        self._unsent.clear()
        if pause:
            sleep(pause)
        if any(state.closed_at is not None for state in self._processes.values()):
            timeout = min(timeout, 0.02)  # an end was seen, its cause not yet
        for key, mask in self._selector.select(0 if self._events else timeout):
            if key.data is None:
                self._hear_server()
                continue
            if mask & selectors.EVENT_WRITE:
                self._flush(key.data)
            if mask & selectors.EVENT_READ:
                self._hear(key.data)
        self._report_ends()
        events = list(self._events)
        self._events.clear()
        return events

    def describe(self, worker: int) -> tuple[str, str]:
        """See ``Engine``."""
        return self._names.get(worker, ("node-0", "process"))

    def peak_memory(self) -> int | None:
        """See ``Engine``."""
        found = [_peak_of(state.pid) for state in self._processes.values() if state.pid is not None]
        return max((peak for peak in found if peak is not None), default=None)

    def close(self, *, grace: float, is_hurried: Callable[[], bool] = lambda: False) -> int:
        """See ``Engine``. The fork server, if it stays, is told what to have ready for the next run."""
        deadline = monotonic() + grace
        if grace > 0:
            for state in list(self._processes.values()):
                self._send(state, {"op": "stop"}) if state.is_ready else self._kill(state.number)
            while self._processes and monotonic() < deadline and not is_hurried():
                self.poll(min(0.1, max(0.0, deadline - monotonic())))
        left = list(self._processes)
        for number in left:
            self._kill(number)
        if self._server is not None:
            modules = learnable(self._modules)
            if modules and self._spec.fork_server:
                with contextlib.suppress(OSError):
                    remember(Path(self._spec.fork_server), modules)
                    if self._spec.fork_server_idle_seconds:
                        fork_server_access.preload(self._server, modules)
            self._server.close()
            self._server = None
        self._selector.close()
        return len(left) if grace > 0 else 0

    # ── the fork server ──

    def _connect(self) -> None:
        """Connect to the fork server, and have it import what this run will need."""
        server = fork_server_access.connect(self._spec, self._folder)
        self._server, self._server_inbox = server, b""
        self._selector.register(server, selectors.EVENT_READ, None)
        if self._spec.script.kind == "mlflow" and self._spec.model is not None:
            fork_server_access.tell(server, {"op": "preload_model", "path": self._spec.model.path})
        if self._spec.model_map is not None:
            fork_server_access.preload(server, modules_for(self._folder / self._spec.model_map.models_file))
        elif self._spec.script.kind == "script" and self._spec.script.path is not None:
            reading = READING if self._spec.script.takes == "dataframe" else ()
            fork_server_access.preload(server, [*reading, *modules_of_script(Path(self._spec.script.path))])

    def _hear_server(self) -> None:
        assert self._server is not None
        try:
            data = self._server.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(self._server)
            self._server.close()
            self._server = None
            if self._spec.fork_server:
                with contextlib.suppress(OSError):
                    forget(Path(self._spec.fork_server))
            for state in self._processes.values():
                state.ended = state.ended or "its fork server ended"
            return
        *lines, self._server_inbox = (self._server_inbox + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["event"] == "spawned":
                self._spawned(message["id"], message["pid"])
            elif message["pid"] in self._by_pid:
                self._by_pid.pop(message["pid"]).ended = _end_in_words(message["status"])

    def _spawned(self, worker: int, pid: int) -> None:
        state = self._processes.get(worker)
        if state is None:
            kill_group(pid)  # given up while it was being forked
        else:
            state.pid = pid
            self._by_pid[pid] = state

    # ── workers ──

    def _setup(self, state: _Process, slot: int) -> dict[str, Any]:
        spec, folder = self._spec, self._folder
        model = spec.model
        encoding: str = "arrow" if spec.output.table or spec.output.format == "parquet" else spec.output.format
        if spec.output.action == "summary_only":
            encoding = "none"
        setup = {
            "op": "setup",
            "job": spec.job,
            "instances": spec.instances,
            "kind": spec.script.kind,
            "script": spec.script.path,
            "code_dir": spec.script.code_dir,
            "arguments": spec.script.arguments,
            "takes": spec.script.takes,
            "environment_variables": spec.environment_variables,
            "model_map": {**spec.model_map.model_dump(), "keys": spec.split.partition_keys} if spec.model_map else None,
            "model": {"directory": model.directory, "path": model.path} if model else None,
            "node": state.node,
            "process": state.process,
            "segment": str(folder / "segments" / state.segment),
            "encoding": encoding,
            "output": {
                "action": spec.output.action,
                "row_keys": spec.output.row_keys,
                "key_columns": spec.output.key_columns,
                "passthrough": spec.output.passthrough,
                "rename": spec.output.rename,
                "format": spec.output.format,
            },
            "csv": spec.csv.model_dump(),
            "sketches": spec.sketches,
            "checked_columns": list(spec.quality.output_ranges),
            "schema": None,
            "logs": str(folder / "logs"),
            "output_dir": str(folder / "user_output"),
            "working_dir": str(folder / "work" / state.segment.removesuffix(".rows")),
            "stack_file": str(state.stack_file),
            "logging_level": spec.logging_level,
            "threads": self._threads,
            "gpus": self._gpus,
            "gpu": self._gpus[slot] if slot < len(self._gpus) else "",
        }
        return {**setup, "challenger": challenger_setup(spec, setup)}

    def _send(self, state: _Process, message: dict[str, Any]) -> None:
        self._put(state, message)
        self._flush(state)

    def _put(self, state: _Process, message: dict[str, Any]) -> None:
        state.outbox += _encode(message).encode() + b"\n"

    def _flush(self, state: _Process) -> None:
        """Send what the worker's socket takes now; the selector tells when it takes more."""
        try:
            sent = state.channel.send(state.outbox)
            del state.outbox[:sent]
        except BlockingIOError:
            pass
        except OSError:
            state.outbox.clear()  # it is gone; the end of its file tells the rest
        if state.channel.fileno() in self._selector.get_map():
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if state.outbox else 0)
            if self._selector.get_key(state.channel).events != wanted:
                self._selector.modify(state.channel, wanted, state)

    def _hear(self, state: _Process) -> None:
        try:
            data = state.channel.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(state.channel)
            state.closed_at = monotonic()
            return
        *lines, state.inbox = (state.inbox + data).split(b"\n") if state.inbox else data.split(b"\n")
        for line in lines:
            self._take(state, json.loads(line))

    def _take(self, state: _Process, message: dict[str, Any]) -> None:
        kind, number = message["event"], state.number
        if kind == "succeeded":
            missing = message.get("missing", ())
            self._events.append(
                PartSucceeded(
                    worker=number,
                    id=message["id"],
                    segment=state.segment,
                    offset=message["offset"],
                    length=message["length"],
                    rows=message["rows"],
                    ok=message["ok"],
                    missing=None if missing is None else tuple(missing),
                    encoding=message["encoding"],
                    columns=tuple(message["columns"]),
                    seconds=message["seconds"],
                    models=read_outcomes(message.get("models")),
                    challenge=read_challenge(message["challenge"]) if "challenge" in message else None,
                    sketched=message.get("sketched", 0),
                )
            )
        elif kind == "champion_done":
            self._events.append(ChampionDone(number, message["id"], message["within"]))
        elif kind == "failed":
            error = ErrorInfo(**message["error"])
            self._events.append(
                PartFailed(
                    worker=number,
                    id=message["id"],
                    error=error,
                    key=message.get("key"),
                    item=message.get("item"),
                    is_unread=message["unread"],
                    seconds=message["seconds"],
                )
            )
        elif kind == "ready":
            state.is_ready = True
            modules = tuple(message["modules"])
            self._modules.update(dict.fromkeys(modules))
            self._events.append(WorkerReady(number, modules))
        elif kind == "init_failed":
            state.is_done = True
            self._events.append(WorkerInitFailed(number, ErrorInfo(**message["error"])))
        elif kind == "stopped":
            self._modules.update(dict.fromkeys(message["modules"]))

    def _report_ends(self) -> None:
        """Tell of workers that ended, after all that they had sent; their cause is not waited for long."""
        for state in list(self._processes.values()):
            if state.closed_at is None and state.ended is not None and state.pid is None:
                self._lose(state, "The worker could not be forked: its fork server ended.")
                continue
            if state.closed_at is None and state.ended is not None:
                self._hear_last(state)
            if state.closed_at is None:
                continue
            if state.ended is None and monotonic() - state.closed_at < 1.0 and self._server is not None:
                continue
            if state.pid is not None:
                kill_group(state.pid)  # nobody can talk with it any more, if it lives on; nor with what it started
            self._lose(state, f"The worker ended: {state.ended or 'it closed its connection'}.")

    def _hear_last(self, state: _Process) -> None:
        """What an ended worker had sent. Its own children may hold its socket open, so the end of it is not awaited."""
        while state.closed_at is None and select.select([state.channel], [], [], 0)[0]:
            self._hear(state)
        state.closed_at = state.closed_at or monotonic()

    def _kill(self, worker: int) -> None:
        state = self._processes.pop(worker)
        if state.pid is not None:
            kill_group(state.pid)
        self._shut(state)

    def _lose(self, state: _Process, message: str) -> None:
        del self._processes[state.number]
        self._shut(state)
        if not state.is_done:
            self._events.append(WorkerLost(state.number, message))

    def _shut(self, state: _Process) -> None:
        if state.channel.fileno() in self._selector.get_map():
            self._selector.unregister(state.channel)
        state.channel.close()

    def _stack_of(self, state: _Process) -> str:
        """Ask a live worker for its stack: the handler is native code, so it answers even from within native code."""
        if state.pid is None or not state.is_ready or state.ended is not None:
            return ""
        try:
            os.kill(state.pid, signal.SIGUSR1)
        except ProcessLookupError:
            return ""
        deadline, size = monotonic() + STACK_SECONDS, 0
        while monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                grown = state.stack_file.stat().st_size
                if grown and grown == size:
                    break
                size = grown
            sleep(0.01)
        with contextlib.suppress(FileNotFoundError):
            return state.stack_file.read_text(errors="replace")
        return ""


def visible_gpus() -> list[str]:
    """The GPUs of this machine as ``CUDA_VISIBLE_DEVICES`` names them; empty when there are none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    devices = Path("/dev")
    found = (re.fullmatch(r"nvidia(\d+)", entry.name) for entry in devices.iterdir()) if devices.is_dir() else ()
    return sorted((match[1] for match in found if match), key=int)


def _peak_of(pid: int) -> int | None:
    """Peak of the resident memory of a process, where the kernel tells (Linux)."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 if found else None
    return None


def _next_generation(segments: Path) -> int:
    """A resumed run never appends to the segments of its former life."""
    return 1 + max((int(path.name.split("-")[0]) for path in segments.glob("*.rows")), default=0)


def _span(span: KeySpan) -> dict[str, Any]:
    model = span.model
    place = {"model": model.name, "path": model.path, "type": model.type} if model else {"model": None}
    return {"key": dict(span.key), "rows": span.rows, **place}


def _content(mini_batch: MiniBatch) -> dict[str, Any]:
    """A mini-batch as the worker gets it."""
    spans = {"spans": [_span(span) for span in mini_batch.spans]} if mini_batch.spans else {}
    return {
        **spans,
        "mini_batch": mini_batch.index,
        "unit": mini_batch.unit,
        "partition": dict(mini_batch.partition),
        "files": [{"name": file.name, "path": file.path} for file in mini_batch.files],
        "slices": [
            {
                "name": piece.file.name,
                "path": piece.file.path,
                "format": piece.format,
                "offset": piece.offset,
                "length": piece.length,
                "first_row": piece.first_row,
                "rows": piece.rows,
                "numbers": piece.numbers,
            }
            for piece in mini_batch.slices
        ],
    }


def _end_in_words(status: int) -> str:
    """How a process ended, from its exit status; negative is a signal."""
    if status == -signal.SIGKILL:
        return "it was killed (signal 9), perhaps because memory ran out"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        return f"signal {-status} ({name})"
    return f"exit code {status}"
