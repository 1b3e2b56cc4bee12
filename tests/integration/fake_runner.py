"""Stands in for the runner parent and its runners: keeps the contract of a run's folder and scores nothing.

What it does is said by the file ``behaviour`` beside the input: ``complete``, ``compare`` (with columns that
drifted), ``withhold`` (a check did not pass), ``wait`` (until the file ``go`` lies in the run's folder, or a cancel),
``die`` (always), ``die once``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while (line := sys.stdin.readline()) and (pid := os.fork()):
    print(json.dumps({"pid": pid}), flush=True)
if not line:
    sys.exit()
os.setsid()
folder = Path(json.loads(line)["folder"])
lock = (folder / "runner.lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
spec = json.loads((folder / "spec.json").read_text())
behaviour = (Path(spec["input"]["locations"][0]["url"]).parent / "behaviour").read_text()
with (folder / "starts").open("a") as starts:
    starts.write(f"{os.getpid()} {time.time()}\n")
if behaviour == "die" or (behaviour == "die once" and len((folder / "starts").read_text().splitlines()) == 1):
    os.kill(os.getpid(), signal.SIGKILL)
reason = "completed"
(folder / "progress.json").write_text('{"planned_items": 10, "ok": 5, "phase": "scoring"}')
(folder / "logs" / "user").mkdir(parents=True, exist_ok=True)
(folder / "logs" / "user" / "job_progress_overview.1.txt").write_text("half of it\n")
forgotten_at = time.monotonic() + 300  # its story is over, and nobody will say go
while behaviour == "wait" and not (folder / "go").exists() and time.monotonic() < forgotten_at:
    if (folder / "cancel").exists():
        reason = "canceled_by_user"
        break
    time.sleep(0.02)
output = Path(spec["output"]["folder"]["url"])
output.mkdir(parents=True, exist_ok=True)
(output / "predictions.csv").write_text("prediction\n1\n")
receipt = {"job": spec["job"], "unit": "files", "items": 1, "ok": 1, "failed": 0, "skipped": 0}
files = [
    {"file": "a.csv", "items": 1, "ok": 1, "failed": 0},
    {"file": "b.csv", "items": 0, "ok": 0, "failed": 0, "reason": "no data rows"},
]
outcome = {
    "reason": reason,
    "error": None,
    "receipt": {**receipt, "output_rows": 1, "balanced": True, "files": files},
    "outputs": {"score": {"uri": str(output), "folder": str(output), "files": ["predictions.csv"]}},
    "notices": ["from the runner"],
}
if behaviour == "compare":
    told = {"side": "input", "name": "<script>x</script>", "kind": "numbers", "rows": 10, "missing": 2, "drift": 0.7}
    quality = {"job": spec["job"], "reference": "before", "items": 10, "columns": [told]}
    (folder / "quality.json").write_text(json.dumps(quality))
    outcome["quality"] = {"reference": "before", "drift": 0.7, "drift_column": "input <script>x</script>"}
if behaviour == "withhold":
    error = {"code": "quality_check_failed", "message": "Nothing was published: input column x has drifted by 0.7."}
    outcome |= {"reason": "quality_check_failed", "error": error, "outputs": {}}
(folder / "outcome.partial").write_text(json.dumps(outcome))
(folder / "outcome.partial").rename(folder / "outcome.json")
