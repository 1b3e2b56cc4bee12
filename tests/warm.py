"""Programs that start in a moment: forks of a process that has imported what they need, which costs seconds.

Everything else is as with ``subprocess.run``: each has a process, a folder and environment variables of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


class WarmParent:
    """A process that has imported some modules. The first ``run`` starts it, and it ends with this process."""

    def __init__(self, python: str | Path, modules: Sequence[str], *, path: str = "") -> None:
        # Nothing of a home folder: whoever ends what works for that must not take this process for a part of it.
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BATCHPOINT_", "PYTHON"))}
        self._environment = {**kept, "PYTHONPATH": path}
        self._command = [str(python), str(Path(__file__).with_name("warm_parent.py")), *modules]
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self._end)

    def run(
        self, code: str, *arguments: str, cwd: Path | None, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a script (text of Python) to its end.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
            task = {
                "code": code, "arguments": arguments, "cwd": str(cwd or Path.cwd()), "environment": dict(environment),
                "stdout": stdout.name, "stderr": stderr.name,
            }  # fmt: skip
            ended = self._carry_out(json.dumps(task), timeout)
            if ended is None:
                raise subprocess.TimeoutExpired([code, *arguments], timeout, stdout.read(), stderr.read())
            return subprocess.CompletedProcess([code, *arguments], ended, stdout.read(), stderr.read())

    def _carry_out(self, task: str, timeout: float) -> int | None:
        """The exit code, or None when it took too long."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        if select.select([self._process.stdout], [], [], timeout)[0]:
            answer = self._process.stdout.readline()
            assert answer, f"{self._command} ended"
            return int(answer)
        self._end()
        return None

    def _end(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # with a fork that still runs
            self._process.communicate()
            self._process = None
