"""Webhooks by the shipped commands: a receiver that is down, a server that is killed, and no event is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from console_fences import CHECKOUT
from shipped import Shipped

RECEIVER = CHECKOUT / "tests" / "webhook_receiver.py"
PAGE = CHECKOUT / "docs" / "how-to" / "webhooks.md"

SCRIPT = """
def init():
    pass

def run(mini_batch):
    return list(mini_batch)
"""

DEPLOYMENT = """
name: names
endpoint_name: listing
code_configuration:
  code: code
  scoring_script: score.py
"""


def test_each_event_arrives_signed_though_the_receiver_is_down_and_the_server_is_killed(
    shipped: Shipped, tmp_path: Path
) -> None:
    shipped.variables["BATCHPOINT_WEBHOOK_HOSTS"] = "127.0.0.1"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "deployment.yml").write_text(DEPLOYMENT)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a\n")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    shipped.ok("endpoint", "create", "-n", "listing")
    shipped.ok("deployment", "create", "-f", "deployment.yml", "--set-default", cwd=tmp_path)
    shipped.ok("webhook", "create", "-n", "pager", "--url", f"http://127.0.0.1:{port}/", "--event", "job.completed",
               "--event", "job.started")  # fmt: skip
    secret = shipped.json("webhook", "renew-secret", "-n", "pager", "--yes")["secret"]

    jobs = []
    for _ in range(2):
        jobs.append(shipped.json("endpoint", "invoke", "-n", "listing", "--input", "in", cwd=tmp_path)["name"])
        shipped.wait(jobs[-1])
    tried = shipped.json("webhook", "deliveries", "-n", "pager", "--state", "pending")
    assert {(one["job_name"], one["event"]) for one in tried} == {
        (job, event) for job in jobs for event in ("job.started", "job.completed")
    }
    os.kill(shipped.server()["pid"], signal.SIGKILL)

    received = tmp_path / "received.jsonl"
    with subprocess.Popen([sys.executable, str(RECEIVER), str(port), str(PAGE), secret, str(received)]) as process:
        try:
            shipped.ok("up")
            events = _arrived(received, wanted=4)
            while shipped.json("webhook", "deliveries", "-n", "pager", "--state", "pending"):
                time.sleep(0.1)  # what has arrived is noted a moment later
        finally:
            process.kill()
    assert {(event["data"]["job"]["name"], event["type"]) for event in events} == {
        (job, event) for job in jobs for event in ("job.started", "job.completed")
    }
    assert {event["id"] for event in events} == {one["message_id"] for one in tried}


def _arrived(file: Path, *, wanted: int) -> list[dict[str, object]]:
    """What the receiver has verified, once that is so many different events."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        lines = file.read_text().splitlines() if file.exists() else []
        events = [json.loads(line) for line in lines]
        if len({event["id"] for event in events}) == wanted:
            return events
        time.sleep(0.1)
    raise AssertionError(f"{wanted} events were wanted, these came: {events}")
