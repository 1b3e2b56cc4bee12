"""The run of a command: once, in a copy of its code, with its outputs staged; they appear only if it ended well.

Killed at any moment, and started again on the same folder, the command is run again from scratch, unless it had ended
well already: then only the publishing is completed. What an earlier runner left alive is ended first.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from batchpoint.entities.jobs import JobError, Progress, Reason
from batchpoint.errors import PlatformError
from batchpoint.scoring import job_logs
from batchpoint.scoring.command_spec import CommandSpec
from batchpoint.scoring.publication import write_synced
from batchpoint.scoring.step_data import check_places, fetch_inputs, make_room, publish_outputs
from batchpoint.storage.datastores import Stores

GRACE_SECONDS = 10.0
"""Between asking a command to end (SIGTERM) and ending it (SIGKILL)."""
LOOK_SECONDS = 0.05
"""How often the command, and the wish to cancel it, are looked at."""
HEARTBEAT_SECONDS = 2.0
LOG = "logs/user/std_log.txt"
"""What the command prints, both of its streams."""
ENDED_WELL = "command_ended.json"
"""File of the run's folder: the command is not run again, only what it wrote is published."""

_TAIL_BYTES = 1 << 16
_TAIL_LINES = 20
_TRACEBACK = "Traceback (most recent call last):"
_WHO = 'echo $$ > "$0" && exec sh -c "$1"'
"""The shell notes who it is before it becomes the command: nothing is ever run that could not be found again."""


class CommandRun:
    """One run, from its specification to its outcome."""

    def __init__(self, folder: Path, storage_options: Mapping[str, Mapping[str, Any]], stop: threading.Event) -> None:
        """Read the folder; nothing is started yet."""
        self._folder, self._stop = folder, stop
        self._spec = CommandSpec.read(folder)
        self._stores = Stores(storage_options)
        self._log = folder / LOG
        self._log_begins = 0

    def carry_out(self) -> Reason | None:
        """Run the command, publish, and write the outcome; None when the runner was stopped before the end.

        Raises:
            InputError, DatastoreError: an input cannot be fetched.
            OutputError: an output was not written, or its place is taken.
        """
        if not (self._folder / ENDED_WELL).exists():
            self._prepare()
            ended = self._run()
            if ended is None:
                return None
            if isinstance(ended, JobError):
                return self._end(Reason.COMMAND_FAILED, ended)
            if ended is Reason.CANCELED_BY_USER:
                return self._end(ended)
            write_synced(self._folder / ENDED_WELL, b'{"exit_code": 0}')
        self._write_progress("publishing")
        outputs = publish_outputs(self._spec.job, self._spec.staged_outputs, self._folder, self._stores)
        return self._end(Reason.COMPLETED, outputs=outputs)

    def _prepare(self) -> None:
        self._write_progress("starting")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        end_what_is_left(self._folder)
        check_places(self._spec.job, self._spec.staged_outputs, self._folder, self._stores)
        fetch_inputs(self._spec.fetched_inputs, self._stores)
        make_room(self._spec.staged_outputs, clean=True)
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        if self._spec.code_dir is not None:
            shutil.copytree(self._spec.code_dir, work, symlinks=True)
        work.mkdir(exist_ok=True)

    def _run(self) -> Reason | JobError | None:
        """Run the command to its end. COMPLETED, CANCELED_BY_USER, what went wrong, or None when it was stopped."""
        if self._is_canceled():
            return Reason.CANCELED_BY_USER
        self._write_progress("running")
        process, began, told = self._start(), monotonic(), monotonic()
        try:
            while not _has_ended(process):
                if self._stop.wait(LOOK_SECONDS):
                    return None
                if self._is_canceled():
                    return Reason.CANCELED_BY_USER
                timeout = self._spec.timeout
                if timeout is not None and monotonic() - began >= timeout:
                    return self._error(f"The command did not end within {timeout:g} seconds and was ended.")
                if monotonic() - told >= HEARTBEAT_SECONDS:
                    self._write_progress("running")
                    told = monotonic()
        finally:
            _end(process)
        if process.returncode == 0:
            return Reason.COMPLETED
        return self._error(_how_it_ended(process.returncode))

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            if log.tell():
                log.write(b"--- started again ---\n")
            log.flush()
            self._log_begins = log.tell()
            lock = _lock(self._folder)
            try:
                return subprocess.Popen(
                    ["sh", "-c", _WHO, str(self._folder / "command.pid"), self._spec.command],
                    cwd=self._folder / "work",
                    env=environment_of(self._spec, self._folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(lock,),
                )
            finally:
                os.close(lock)  # held from now on by the command and all that it starts

    def _is_canceled(self) -> bool:
        return (self._folder / "cancel").exists()

    def _error(self, message: str) -> JobError:
        """What happened, with the last words of the command."""
        words = last_words(self._log, self._log_begins)
        last = words.rstrip().rpartition("\n")[2].strip()
        named = re.match(r"([A-Za-z_][\w.]*)(?::|$)", last) if words.startswith(_TRACEBACK) else None
        if last:
            message += f" Its last words: {last}"
        return JobError(
            code="command_failed",
            message=message,
            exception=named[1].rpartition(".")[2] if named else None,
            traceback=words or None,
            log=LOG,
        )

    def _write_progress(self, phase: str) -> None:
        job_logs.write_progress(self._folder, Progress(phase=phase, heartbeat_at=datetime.now(UTC)))

    def _end(self, reason: Reason, error: JobError | None = None, outputs: Mapping[str, Any] | None = None) -> Reason:
        self._write_progress("finished")
        lines = [f"Job {self._spec.job}: {reason.status.value} ({reason.value})", error.message if error else ""]
        (self._log.parent / "job_result.txt").write_text("\n".join(line for line in lines if line) + "\n")
        job_logs.write_outcome(self._folder, reason=reason, error=error, outputs=outputs)
        for name in ("work", "inputs", "step_outputs"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        return reason


def environment_of(spec: CommandSpec, folder: Path) -> dict[str, str]:
    """The environment variables of a command: this machine's, Azure ML's, then the step's own."""
    variables = {key: value for key, value in os.environ.items() if key not in {"AZUREML_MODEL_DIR", "MODEL_PATH"}}
    variables |= {
        "PATH": os.pathsep.join([spec.bin_folder, variables.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",  # or what is printed would be seen at the end, and a traceback before it
        "AZUREML_RUN_ID": spec.job,
        "AZUREML_NODE_COUNT": "1",
    }
    if "MLFLOW_TRACKING_URI" not in os.environ:
        variables |= {"MLFLOW_TRACKING_URI": (folder / "mlruns").absolute().as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    return variables | spec.environment_variables


def last_words(log: Path, begins: int) -> str:
    """The last traceback that a log holds from ``begins`` on, else its last lines."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(begins, end - _TAIL_BYTES))
        text = file.read().decode(errors="backslashreplace")
    at = text.rfind(_TRACEBACK)
    if at >= 0:
        return text[at:].strip()
    return "\n".join(text.rstrip().splitlines()[-_TAIL_LINES:])


def end_what_is_left(folder: Path) -> None:
    """End the command of an earlier runner of this folder, which was killed and left it alive.

    Raises:
        PlatformError: it does not end.
    """
    deadline = monotonic() + GRACE_SECONDS
    while True:
        try:
            os.close(_lock(folder))
        except BlockingIOError:
            if monotonic() >= deadline:
                raise PlatformError(f"A process that the command had started earlier does not end: {folder}.") from None
            _kill_group(folder)
            sleep(LOOK_SECONDS)
        else:
            return


def _lock(folder: Path) -> int:
    """The lock that a command and all that it starts hold for as long as they live. Raises ``BlockingIOError``."""
    lock = os.open(folder / "command.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _kill_group(folder: Path) -> None:
    with suppress(OSError, ValueError):  # it has not said yet who it is, or has just ended
        os.killpg(int((folder / "command.pid").read_text()), signal.SIGKILL)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the command is over; it is not buried yet, so that its number means it and its group still."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command if it lives, politely first, and with it whatever it left running in its group."""
    if not _has_ended(process):
        os.killpg(process.pid, signal.SIGTERM)
        deadline = monotonic() + GRACE_SECONDS
        while not _has_ended(process) and monotonic() < deadline:
            sleep(LOOK_SECONDS)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(status: int) -> str:
    number = -status if status < 0 else status - 128 if status > 128 else 0
    if number in set(signal.Signals):
        hint = " The system may have run out of memory." if number == signal.SIGKILL else ""
        return f"The command was ended by {signal.Signals(number).name}.{hint}"
    return f"The command ended with exit code {status}."
