"""The shipped commands, in subprocesses, on a home folder of their own: what the acceptance tests and torture use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from batchpoint.cli.main import COMMANDS
from warm import WarmParent

SOURCE = Path(__file__).resolve().parents[1] / "src"

COMMAND = WarmParent(
    sys.executable,
    ["batchpoint.client", *sorted({f"batchpoint.cli.{lazy.module}" for lazy in COMMANDS.values()})],
    path=str(SOURCE),
)
"""Starts ``python -m batchpoint`` without importing it each time. Stories of shells and pages do import it."""


@dataclass
class Shipped:
    """``batchpoint`` as a person has it: one home folder, one server that is stopped at the end."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def within(self, workspace: str) -> Shipped:
        """The same home and server, for commands that are about this workspace."""
        return replace(self, variables={**self.variables, "BATCHPOINT_WORKSPACE": workspace})

    @property
    def place(self) -> Path:
        """Where the workspace keeps its jobs and its built-in datastore."""
        name = self.variables.get("BATCHPOINT_WORKSPACE")
        return self.home / "workspaces" / name if name else self.home

    def environment(self) -> dict[str, str]:
        """Environment variables of every command."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BATCHPOINT_")}
        path = os.pathsep.join(filter(None, [str(SOURCE), kept.get("PYTHONPATH", "")]))
        return {**kept, "BATCHPOINT_HOME": str(self.home), "PYTHONPATH": path, "COLUMNS": "200", **self.variables}

    def run(
        self, *arguments: str | Path, cwd: Path | None = None, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, whatever its exit code."""
        return COMMAND.run(
            "from batchpoint.__main__ import main; main()", *map(str, arguments),
            cwd=cwd, environment=self.environment(), timeout=timeout,
        )  # fmt: skip

    def ok(self, *arguments: str | Path, cwd: Path | None = None, timeout: float = 180) -> str:
        """Run one command that has to succeed; its standard output."""
        done = self.run(*arguments, cwd=cwd, timeout=timeout)
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str | Path, cwd: Path | None = None) -> Any:
        """Run one command that has to succeed and prints JSON."""
        return json.loads(self.ok(*arguments, "-o", "json", cwd=cwd))

    def wait(self, job: str, seconds: float = 120) -> dict[str, Any]:
        """The job, once it has finished."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            shown: dict[str, Any] = self.json("job", "show", "-n", job)
            if shown["status"] in {"completed", "failed", "canceled", "Completed", "Failed", "Canceled"}:
                return shown
            time.sleep(0.2)
        raise AssertionError(f"{job} did not finish in {seconds} s: {shown}")

    def server(self) -> dict[str, Any]:
        """Address, pid and token of the running server."""
        found: dict[str, Any] = json.loads((self.home / "server.json").read_text())
        found["token"] = (self.home / "token").read_text().strip()
        return found

    def output(self, job: str) -> Path:
        """Folder of the job's output in the default datastore."""
        return self.place / "datastores" / "workspaceblobstore" / "azureml" / job / "score"

    def stop(self) -> None:
        """End the server and every process that works for this home."""
        self.run("down", timeout=60)
        for pid in self.processes():
            _kill(pid)

    def processes(self, *needles: str) -> list[int]:
        """Processes of this home whose command line holds every needle."""
        home = str(self.home).encode()
        found = []
        for pid, command, environ in _process_table():
            if home in environ or home in command:
                text = command.decode(errors="replace")
                if all(needle in text for needle in needles):
                    found.append(pid)
        return found

    def workers(self) -> list[int]:
        """Worker processes: the children of the fork servers."""
        parents = set(self.processes("fork_server"))
        return [pid for pid in self.processes("fork_server") if _parent(pid) in parents]

    def runners(self) -> list[int]:
        """Runner processes."""
        return self.processes("batchpoint.scoring.runner")


def _process_table() -> Iterator[tuple[int, bytes, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue  # it ended while we looked


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return -1


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
