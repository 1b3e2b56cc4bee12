"""The process that carries out a run.

``python -m batchpoint.scoring.runner`` reads one line of JSON from its standard input (docs/scoring.md) and carries out
the run of that folder. It may be started ahead of time: while no line has come it imports what a run will need. Killed
at any moment, and started again on the same folder, it goes on where the ledger ends. Every failure of its own ends in
an ``outcome.json``; only a stop from outside (SIGTERM, SIGKILL) leaves none, because the run is not over then.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from batchpoint.entities.jobs import Reason
from batchpoint.errors import BatchpointError, ConflictError
from batchpoint.scoring import job_logs
from batchpoint.scoring.command_runner import CommandRun
from batchpoint.scoring.command_spec import is_command
from batchpoint.scoring.run_outcome import error_of_exception
from batchpoint.scoring.scoring_run import RESERVE, ScoringRun, StoppedError
from batchpoint.scoring.spec import ScoringSpec


def main() -> int:
    """Carry out the run named on standard input; the exit status of ``carry_out``, or 0 when none was named."""
    stop = stop_on_signals()
    if not select.select([sys.stdin], [], [], 0)[0]:
        import_ahead()
    line = _read_line(stop)
    return carry_out(json.loads(line), stop) if line else 0


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set from now on."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def carry_out(request: Mapping[str, Any], stop: threading.Event) -> int:
    """Carry out a run. 0: it is over; 75: it was stopped and can be resumed; 2: not begun.

    ``request`` is what stands on the line that a runner reads: ``folder`` and ``storage_options``.
    """
    try:
        run(Path(request["folder"]), request.get("storage_options"), stop=stop)
    except StoppedError:
        return 75
    except BatchpointError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    return 0


def leave(status: int) -> NoReturn:
    """End the process at once. All is on disk by then, and taking the interpreter apart takes a tenth of a second."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)


def import_ahead() -> None:
    """Import what is imported late otherwise: a waiting runner has the time."""
    import numpy.ma  # noqa: PLC0415, F401 -- see above; numpy itself imports it at the first call of some functions
    import pyarrow.csv  # noqa: PLC0415 -- see above
    import pyarrow.parquet  # noqa: PLC0415, F401 -- see above

    from batchpoint.scoring import output, planning, quality  # noqa: PLC0415, F401 -- see above
    from batchpoint.storage import datastores  # noqa: PLC0415, F401 -- see above


def run(
    folder: Path, storage_options: Mapping[str, Mapping[str, Any]] | None = None, *, stop: threading.Event | None = None
) -> Reason:
    """Carry out the run of a folder, or what is left of it; say how it ended. ``outcome.json`` has it in full.

    Raises:
        ConflictError: another runner is at work in the folder.
        StoppedError: ``stop`` was set; the run can be resumed.
    """
    folder = folder.absolute()  # workers have a folder of their own, and are told where in this one the input lies
    lock = os.open(folder / "runner.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"Another runner is at work in {folder}.") from None
        if (folder / "outcome.json").exists():
            return Reason(json.loads((folder / "outcome.json").read_bytes())["reason"])
        return _guarded(folder, storage_options or {}, stop or threading.Event())
    finally:
        os.close(lock)


def _guarded(folder: Path, storage_options: Mapping[str, Mapping[str, Any]], stop: threading.Event) -> Reason:
    """Whatever goes wrong, a run that is over says so: this is the rim of the process."""
    try:
        if not is_command(folder):
            return _run_of(folder)(folder, storage_options, stop).carry_out()
        reason = CommandRun(folder, storage_options, stop).carry_out()
        if reason is None:
            raise StoppedError
        return reason
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 -- never a silent death: the reason goes into outcome.json
        trace = traceback.format_exc()
        sys.stderr.write(trace)
        reason, job_error = error_of_exception(error, trace)
        (folder / RESERVE).unlink(missing_ok=True)  # a full disk must not keep the outcome from being told
        job_logs.write_outcome(folder, reason=reason, error=job_error)
        return reason


def _run_of(folder: Path) -> type[ScoringRun]:
    """What carries out the run: all of it, or a sample."""
    if ScoringSpec.read(folder).sample is None:
        return ScoringRun
    from batchpoint.scoring.sample_run import SampleRun  # noqa: PLC0415 -- imports Arrow

    return SampleRun


def _read_line(stop: threading.Event) -> bytes:
    """The line on standard input; empty when it was closed or the runner was stopped before one came."""
    data = b""
    while not data.endswith(b"\n") and not stop.is_set():
        if select.select([sys.stdin], [], [], 0.2)[0]:
            more = os.read(sys.stdin.fileno(), 1 << 16)
            if not more:
                break
            data += more
    return data


if __name__ == "__main__":
    leave(main())
