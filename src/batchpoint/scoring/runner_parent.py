"""The warm parent of runners: imports what every run needs once, then forks a runner for each line that it reads.

``python -m batchpoint.scoring.runner_parent`` reads the lines that ``runner.py`` reads, one for each run, and answers
each with ``{"pid": ...}`` on its standard output. A forked runner starts within milliseconds, takes no processor time
from the workers of other runs for its imports, and outlives its parent, which ends with its standard input.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import traceback
from pathlib import Path
from typing import NoReturn

from batchpoint.scoring import runner


def main() -> None:
    """Fork a runner for each line on standard input, until it is closed."""
    runner.import_ahead()
    gc.collect()
    gc.freeze()  # a fork's collector must not touch, and so copy, what it shares with us
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the runners; who started them follows them
    with open(0, "rb", buffering=0, closefd=False) as lines:
        while line := lines.readline():
            pid = os.fork()
            if pid == 0:
                _become_runner(line)
            os.write(1, json.dumps({"pid": pid}).encode() + b"\n")


def _become_runner(line: bytes) -> NoReturn:
    """In the fork: a session and streams of its own, then the run. Never returns."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        request = json.loads(line)
        logs = Path(request["folder"], "logs")
        logs.mkdir(parents=True, exist_ok=True)
        log = os.open(logs / "runner.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        status = runner.carry_out(request, runner.stop_on_signals())
    except BaseException:  # noqa: BLE001 -- the rim of the process: say why, then end
        traceback.print_exc()
    finally:
        runner.leave(status)


if __name__ == "__main__":
    main()
