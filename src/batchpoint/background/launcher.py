"""Runs that were prepared → their processes. Each kind of job is prepared by a module of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from batchpoint.background.command_launcher import CommandPreparation
from batchpoint.background.environments import Environments, Tell
from batchpoint.background.scoring_preparation import ScoringPreparation
from batchpoint.entities.jobs import Job
from batchpoint.errors import PlatformError
from batchpoint.scoring import fork_server_access
from batchpoint.workspace import Workspace

RUNNER_PARENT = (sys.executable, "-m", "batchpoint.scoring.runner_parent")
"""The command that starts a runner for each line on its standard input."""


class RunnerProcess:
    """A runner that was started. It is a child of the runner parent, not ours, so it is followed by its id."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd: int | None = None
        """Becomes readable when the runner ends; None where the system has none (not Linux), and once it is gone."""
        with suppress(AttributeError, OSError):
            self.pidfd = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        """Whether the runner is gone."""
        if self.pidfd is not None:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            return bool(poll.poll(0))
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def close(self) -> None:
        """Follow it no longer."""
        pidfd, self.pidfd = self.pidfd, None
        if pidfd is not None:
            os.close(pidfd)


class Launcher:
    """Prepares runs and starts their runners, which are forked from a warm parent, so that a job begins at once."""

    def __init__(self, workspace: Workspace, *, runner_parent: Sequence[str] = RUNNER_PARENT) -> None:
        self._command = list(runner_parent)
        self._home = workspace.settings.home
        self._environments = Environments(self._home)
        self._lock = threading.Lock()
        self._parent: subprocess.Popen[bytes] | None = None
        self._closed = False

    def prepare(self, work: Workspace, job: Job, folder: Path, tell: Tell) -> tuple[str, ...]:
        """Write the run's specification into its folder; answers with notices. Takes minutes when packages are built,
        and ``tell`` is told how that goes on.

        ``work`` is the workspace that the job belongs to.

        Raises:
            EnvironmentBuildError: the environment cannot be built.
            InputError, DatastoreError: the input is not there.
            NotFoundError, InvalidEntityError: something that the job names is gone or unfit.
        """
        preparation = CommandPreparation if job.command is not None else ScoringPreparation
        return preparation(work, self._environments, tell).prepare(job, folder)

    def start(self, work: Workspace, folder: Path) -> RunnerProcess:
        """Start, or resume, the run in this folder, with the datastores of its workspace at hand.

        Its runner is a process of its own, which outlives this one.

        Raises:
            PlatformError: no runner can be started.
        """
        line = json.dumps({"folder": str(folder), "storage_options": work.places.storage_options()}).encode() + b"\n"
        with self._lock:
            answer = self._ask_parent(line) or self._ask_parent(line)  # one that has died is replaced once
        if not answer:
            raise PlatformError(f"No runner could be started. The end of {self._log_path} says why.")
        return RunnerProcess(json.loads(answer)["pid"])

    def warm_up(self) -> None:
        """Start the parent of runners, unless it lives."""
        with self._lock:
            if not self._closed:
                self._living_parent()

    def close(self) -> None:
        """End the parent of runners and every fork server that no runner uses. The runners go on."""
        with self._lock:
            self._closed = True
            parent, self._parent = self._parent, None
        if parent is not None:
            _end(parent)
        for folder in (self._home / "fork_servers").glob("*/"):
            fork_server_access.retire(folder)

    def warm_instances(self, pool: str) -> int:
        """How many instances of a pool have a living fork server."""
        return max(self._living_fork_servers(pool), default=0)

    def _ask_parent(self, line: bytes) -> bytes:
        """The answer of the parent of runners; empty when it has died."""
        parent = self._living_parent()
        assert parent.stdin is not None
        assert parent.stdout is not None
        with suppress(BrokenPipeError):
            parent.stdin.write(line)
            parent.stdin.flush()
        answer = parent.stdout.readline()
        if not answer:
            _end(parent)
        return answer

    def _living_parent(self) -> subprocess.Popen[bytes]:
        if self._parent is None or self._parent.poll() is not None:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            with self._log_path.open("ab") as log:
                self._parent = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=self._home,
                    start_new_session=True,
                )
        return self._parent

    @property
    def _log_path(self) -> Path:
        return self._home / "logs" / "runner_parent.log"

    def _living_fork_servers(self, pool: str) -> Iterable[int]:
        for described in (self._home / "fork_servers").glob("*/compute.json"):
            facts = json.loads(described.read_text())
            if facts["compute"] == pool and (described.parent / "socket").exists():
                yield facts["instances"]


def _end(parent: subprocess.Popen[bytes]) -> None:
    """End a parent of runners, or bury one that has died: it ends with its standard input."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    with suppress(BrokenPipeError):
        parent.stdin.close()
    parent.stdout.close()
    parent.wait()
