"""The server is killed while a pipeline is on its way; the next one goes on where it was, and each step runs once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from shipped import Shipped

STEP = """
  {name}:
    command: echo {name} >> {log}; sleep 1; cp {log} ${{{{outputs.out}}}}/seen.txt
    inputs: {inputs}
    outputs:
      out:
        type: uri_folder"""


def pipeline(log: Path) -> str:
    """a → b, c → d; every step notes its name, and takes a second."""
    inputs = {
        "a": "{}",
        "b": "{x: '${{parent.jobs.a.outputs.out}}'}",
        "c": "{x: '${{parent.jobs.a.outputs.out}}', other: 1}",
        "d": "{x: '${{parent.jobs.b.outputs.out}}', y: '${{parent.jobs.c.outputs.out}}'}",
    }
    steps = "".join(STEP.format(name=name, log=log, inputs=text) for name, text in inputs.items())
    return f"type: pipeline\njobs:{steps}\n"


def kill_server(shipped: Shipped) -> None:
    pid = int(shipped.server()["pid"])
    os.kill(pid, signal.SIGKILL)
    while pid in shipped.processes("batchpoint.server"):
        time.sleep(0.01)


def test_each_step_runs_once_however_often_the_server_is_killed(shipped: Shipped, tmp_path: Path) -> None:
    log = tmp_path / "steps.log"
    log.touch()
    (tmp_path / "pipeline.yml").write_text(pipeline(log))
    shipped.ok("job", "create", "-f", tmp_path / "pipeline.yml", "-n", "nightly")
    for started in (1, 2):
        deadline = time.monotonic() + 60
        while len(log.read_text().split()) < started:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        kill_server(shipped)
        shipped.ok("job", "show", "-n", "nightly")

    done = shipped.wait("nightly")

    assert done["status"] == "Completed", done.get("error")
    ran = log.read_text().split()
    assert (ran[0], sorted(ran[1:3]), ran[3:]) == ("a", ["b", "c"], ["d"])
    again = shipped.json("job", "create", "-f", tmp_path / "pipeline.yml", "-n", "again")
    assert shipped.wait(again["name"])["status"] == "Completed"
    assert log.read_text().split() == ran
