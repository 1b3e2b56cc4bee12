"""The worker runs under any interpreter: it needs the standard library alone, not even site-packages."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from batchpoint.scoring import worker


def test_the_worker_scores_a_mini_batch_without_site_packages(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text("import sys\ndef run(mini_batch):\n    return [len(sys.modules) > 0 for _ in mini_batch]\n")
    setup: dict[str, Any] = {
        "op": "setup", "job": "j", "instances": 1, "kind": "script", "script": str(script), "code_dir": str(tmp_path),
        "arguments": [], "takes": "paths", "environment_variables": {}, "model": None, "node": "node-0",
        "process": "process000", "segment": str(tmp_path / "segment"), "encoding": "csv",
        "output": {"row_keys": True, "key_columns": [], "passthrough": [], "format": "csv"}, "csv": {}, "schema": None,
        "logs": str(tmp_path / "logs"), "output_dir": str(tmp_path), "working_dir": str(tmp_path / "work"),
        "stack_file": str(tmp_path / "stack"), "logging_level": "info", "threads": 1,
    }  # fmt: skip
    part = {"op": "score", "id": 1, "mini_batch": 0, "start": 0, "stop": 1, "unit": "files", "slices": []}
    part["files"] = [{"name": "a", "path": "/a"}]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-I", "-S", worker.__file__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        for message in (setup, part, {"op": "stop"}):
            ours.sendall(json.dumps(message).encode() + b"\n")
        with ours.makefile("rb") as lines:
            answers = [json.loads(line) for line in lines]
        assert process.wait(10) == 0
    assert [answer["event"] for answer in answers] == ["ready", "succeeded", "stopped"], answers
    assert answers[0]["modules"] == []
    assert (tmp_path / "segment").read_text() == "a,True\n"
