"""The challenger: a second script beside a worker's own, asked for each part that the champion has scored.

It runs in a process of its own, so it has modules, environment variables, folder and model of its own, its DataFrames
are copies, and its errors, hangs and crashes end nothing but itself. That process is an ordinary worker; what it knows
more than others is how to take rows that the champion's worker has read already. With another interpreter it reads
them itself, since pickled tables are not made for crossing versions of pandas. Only the standard library is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

WORKER = Path(__file__).resolve().with_name("worker.py")
LOSSES_IN_A_ROW = 3
"""Crashes and time-outs one after the other that switch the challenger off."""
LOSSES = 10
"""The same in all, for a challenger that fails now and then: each costs the job its time limit."""
FAILED_PARTS_IN_A_ROW = 5
"""Parts one after the other of which nothing succeeded that switch it off."""
MOST_CALLS = 64
"""Calls of its ``run()`` for one part: what is left then, while bad items are looked for, counts as failed."""
SHORTEST_START = 120.0
"""Seconds that ``init()`` may take at least."""
FAREWELL = 5.0
"""Seconds for its ``shutdown()``."""
VALUES = {"row_keys": True, "key_columns": [], "passthrough": []}
"""What both results are compared by: file and row, whatever the predictions show."""

Message = Mapping[str, Any]
Part = Mapping[str, Any]


class Challenger:
    """The challenger of one worker. Nothing that it does raises, and nothing that it does lasts without limit."""

    def __init__(self, setup: Message, worker: Any, driver: socket.socket) -> None:
        """Start the challenger's process. Call it before any of the champion's code runs: the process may be forked.

        Args:
            setup: The setup of the champion's worker, with that of the challenger in ``challenger``.
            worker: The module ``worker``.
            driver: The worker's own connection, which is not the challenger's.
        """
        given = setup["challenger"]
        self._worker = worker
        self._same = given["python"] is None
        self._python = given["python"] or sys.executable
        self._environment = dict(os.environ)
        self._setup = {**{key: value for key, value in setup.items() if key != "challenger"}, **given["setup"]}
        self._setup["companion_of"] = os.getpid()
        self._limit: float = given["limit"]
        self._halves: bool = given["halves"]
        self._schema: Message | None = None
        self._champion_values: Any = None
        self._values_path: str = given["champion_values"]
        self._socket: socket.socket | None = None
        self._pid = 0
        self._inbox = b""
        self._is_ready = False
        self._losses = self._losses_in_a_row = self._failed_in_a_row = 0
        self._off = ""
        self._has_said = False
        self._guarded(lambda: self._begin(driver))

    @property
    def patience(self) -> float:
        """Seconds that ``answer`` may take at most."""
        starting = 0.0 if self._is_ready else max(SHORTEST_START, self._limit)
        return starting + 3 * self._limit

    @property
    def is_on(self) -> bool:
        """Whether it is still asked."""
        return not self._off

    def schema(self, message: Message) -> None:
        """Pass on what the plan learnt about the columns."""
        self._schema = message
        if self._is_ready:
            self._guarded(lambda: self._say(message))

    def copy_of(self, items: Any, part: Part) -> bytes:
        """The items, before the champion's script can change them; empty when they will not be needed."""
        copied: list[bytes] = []
        if self.is_on and self._same:
            kept = {key: value for key, value in part.items() if key != "frame"}
            frame = part.get("frame")
            self._guarded(lambda: copied.append(pickle.dumps((items, kept, frame), pickle.HIGHEST_PROTOCOL)))
        return copied[0] if copied else b""

    def answer(self, message: Message, copy: bytes, part: Part, result: Any, seconds: float) -> dict[str, Any]:
        """Let the challenger score what the champion has scored; what the ledger notes of it."""
        found: dict[str, Any] = {"asked": 0, "champion_seconds": seconds, "challenger_seconds": 0.0, "missing": 0}
        found.update(champion=[], challenger=[], predictions=[], refusals=[])
        if self.is_on:
            self._guarded(lambda: self._compare(message, copy, part, result, found))
        if self._off and not self._has_said:
            self._has_said = True
            found["notice"] = self._off
        found["challenger_seconds"] = round(found["challenger_seconds"], 6)
        return found

    def stop(self) -> None:
        """Ask it to end; ``farewell`` waits for it."""
        if self._socket is not None and self._is_ready:
            self._guarded(lambda: self._say({"op": "stop"}))

    def farewell(self) -> None:
        """Wait a little for the end of its ``shutdown()``, then end it."""
        if self._socket is not None and self._is_ready:
            self._guarded(lambda: self._hear(time.monotonic() + FAREWELL))
        self._end()

    # ── asking ──

    def _compare(self, message: Message, copy: bytes, part: Part, result: Any, found: dict[str, Any]) -> None:
        if not self._is_ready:
            self._await_start()
        if self._off:
            return
        if self._champion_values is None:
            segment = self._worker.load_sibling("segment")
            self._champion_values = segment.SegmentWriter(self._values_path, "arrow", VALUES)
        found["champion"] = [rows_of(self._champion_values.append(result, part))]
        found["asked"] = items = part["stop"] - part["start"]
        failed = self._ask(message, copy, part, found)
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed >= items else 0
        if self._failed_in_a_row >= FAILED_PARTS_IN_A_ROW and not self._off:
            error = found["refusals"][0]["error"]
            self._switch_off(f"it failed for {FAILED_PARTS_IN_A_ROW} mini-batches in a row. {_said(error)}")

    def _ask(self, message: Message, copy: bytes, part: Part, found: dict[str, Any]) -> int:
        """Score the part, halving what fails; how many of its items failed."""
        waiting, calls, failed = [(part["start"], part["stop"])], 0, 0
        deadline = time.monotonic() + 2 * self._limit
        while waiting:
            start, stop = waiting.pop()
            calls += 1
            answer = self._call(message, copy, start, stop)
            if answer["event"] == "succeeded":
                self._losses_in_a_row = 0
                self._keep(answer, start, stop, found)
                continue
            found["challenger_seconds"] += answer.get("seconds", {}).get("run", 0.0)
            goes_on = not answer.get("is_lost") and calls < MOST_CALLS and time.monotonic() < deadline
            if stop - start > 1 and self._halves and goes_on:
                waiting += [((start + stop) // 2, stop), (start, (start + stop) // 2)]
                continue
            refused = [(start, stop)] if goes_on else [(start, stop), *reversed(waiting)]
            waiting = waiting if goes_on else []  # a new process, or more time, is for the next part
            found["refusals"] += [_refusal(part, *span, answer["error"]) for span in refused]
            failed += sum(last - first for first, last in refused)
        return failed

    def _call(self, message: Message, copy: bytes, start: int, stop: int) -> dict[str, Any]:
        """One ``run()`` of the challenger. A lost process is a failed call, and is replaced."""
        try:
            if not self._is_ready:
                self._await_start()
            if self._same:
                told = {key: message.get(key) for key in ("mini_batch", "unit", "partition")}
                self._say({"op": "score", "id": 0, **told, "start": start, "stop": stop, "bytes": len(copy)}, copy)
            else:
                self._say({**message, "start": start, "stop": stop})
            return self._hear(time.monotonic() + self._limit)
        except TimeoutError:
            return self._lose("TimeoutError", f"The challenger's run() took longer than {self._limit:g} seconds.")
        except (EOFError, OSError):
            return self._lose("WorkerLost", "The challenger's process ended.")

    def _keep(self, answer: dict[str, Any], start: int, stop: int, found: dict[str, Any]) -> None:
        found["challenger"].append(rows_of(answer["values"]))
        found["predictions"].append(rows_of(answer))
        found["missing"] += stop - start - answer["ok"]
        found["challenger_seconds"] += answer["seconds"]["run"]

    def _lose(self, kind: str, message: str) -> dict[str, Any]:
        self._end()
        self._losses += 1
        self._losses_in_a_row += 1
        if self._losses_in_a_row >= LOSSES_IN_A_ROW or self._losses >= LOSSES:
            self._switch_off(f"its process crashed or hung {self._losses} times. {message}")
        elif not self._off:
            self._guarded(self._spawn)
        return _lost(kind, message)

    def _guarded(self, work: Callable[[], Any]) -> None:
        """Whatever goes wrong on this side must not cost the champion anything."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 -- see above
            self._switch_off(f"{type(error).__name__}: {error}")

    def _switch_off(self, why: str) -> None:
        self._off = self._off or f"The challenger was switched off: {why}"
        self._end()

    # ── its process ──

    def _begin(self, driver: socket.socket) -> None:
        """The first start: forked where the interpreter is the same, with all that it has imported."""
        if not self._same:
            self._spawn()
            return
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(driver.detach())
                ours.close()
                self._worker.main(theirs)
            finally:
                os._exit(1)
        theirs.close()
        self._socket, self._pid = ours, pid
        self._say(self._setup)

    def _spawn(self) -> None:
        """A start from nothing: the champion's script may have threads by now, and those cannot be forked."""
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        command = [self._python, str(WORKER), str(theirs.fileno())]
        self._pid = os.posix_spawn(self._python, command, self._environment)
        theirs.close()
        self._socket = ours
        self._say(self._setup)

    def _await_start(self) -> None:
        """Wait for its ``init()``. One that fails or hangs ends the challenge."""
        limit = max(SHORTEST_START, self._limit)
        try:
            said = self._hear(time.monotonic() + limit)
        except TimeoutError:
            self._switch_off(f"its init() took longer than {limit:g} seconds.")
            raise
        except (EOFError, OSError):
            self._switch_off("its process ended before it was ready.")
            raise
        if said["event"] != "ready":
            self._switch_off(f"its init() failed. {_said(said['error'])}")
            raise EOFError
        self._is_ready = True
        if self._schema is not None:
            self._say(self._schema)

    def _say(self, message: Message, payload: bytes = b"") -> None:
        if self._socket is None:
            raise EOFError
        self._socket.settimeout(self._limit)
        self._socket.sendall(json.dumps(message, default=str).encode() + b"\n")
        if payload:
            self._socket.sendall(payload)

    def _hear(self, deadline: float) -> dict[str, Any]:
        """Its next message. Raises EOFError when it is gone, TimeoutError when it says nothing in time."""
        while b"\n" not in self._inbox:
            if self._socket is None:
                raise EOFError
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                raise TimeoutError
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._inbox += data
        line, _, self._inbox = self._inbox.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _end(self) -> None:
        """End its process and what that started."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._inbox, self._is_ready = None, b"", False
        pid, self._pid = self._pid, 0
        if pid:
            for kill in (os.killpg, os.kill):
                try:
                    kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
            with contextlib.suppress(ChildProcessError):  # the script waited for children, and found this one too
                os.waitpid(pid, 0)


def settle(parent: int) -> None:
    """Make this process a challenger's: it ends with its worker, and before it when memory runs out."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):  # a container may forbid it
            Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        os._exit(1)


def received(payload: bytes, start: int, stop: int) -> tuple[Any, dict[str, Any]]:
    """The items ``start`` to ``stop`` of a mini-batch and what the segment writer has to know of them."""
    items, part, frame = pickle.loads(payload)  # noqa: S301 -- written a moment ago by the worker that started this one
    if (start, stop) == (part["start"], part["stop"]):
        return items, {**part, "frame": frame} if part["unit"] == "rows" else part
    first, last = start - part["start"], stop - part["start"]
    smaller = {**part, "start": start, "stop": stop}
    if part["unit"] == "files":
        return items[first:last], {**smaller, "names": part["names"][first:last]}
    smaller["keys"] = _cut_keys(part["keys"], first, last)
    smaller["frame"] = None if frame is None else frame.iloc[first:last].reset_index(drop=True)
    return items.iloc[first:last].reset_index(drop=True), smaller


def rows_of(answer: Message) -> dict[str, Any]:
    """Where rows lie, as the ledger has it: the segment by its name alone."""
    kept = {key: answer[key] for key in ("offset", "length", "rows", "encoding", "columns")}
    return {"segment": Path(answer["segment"]).name, **kept}


def place_of(part: Part, item: int) -> tuple[str | None, int | None]:
    """File and row of one item of a part."""
    at = item - part["start"]
    if "names" in part:
        return part["names"][at], None
    ((name, row, _),) = _cut_keys(part["keys"], at, at + 1)
    return name, row


def _cut_keys(keys: Sequence[Any], first: int, last: int) -> list[tuple[str, int, int]]:
    runs, begin = [], 0
    for name, row, rows in keys:
        low, high = max(first, begin), min(last, begin + rows)
        if low < high:
            runs.append((name, row + low - begin, high - low))
        begin += rows
    return runs


def _refusal(part: Part, start: int, stop: int, error: Message) -> dict[str, Any]:
    file, row = place_of(part, start)
    short = {**error, "traceback": error["traceback"][-2000:]}
    return {"start": start, "stop": stop, "file": file, "row": row, "error": short}


def _lost(kind: str, message: str) -> dict[str, Any]:
    return {"event": "failed", "is_lost": True, "error": {"type": kind, "message": message, "traceback": ""}}


def _said(error: Message) -> str:
    return f"{error['type']}: {error['message']}"
