"""The server's log: text as ever, or JSON that says which request and which job a line is about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint import local_server, logs
from batchpoint.background.service import Background
from batchpoint.errors import InvalidEntityError
from batchpoint.settings import Settings
from integration.served import FAKE_RUNNER, eventually, invoke, make_input, open_workspace


@contextmanager
def heard() -> Iterator[io.StringIO]:
    """What is logged as JSON meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel("INFO")
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_server_that_logs_json_tells_each_request_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(local_server.__file__).parent.parent))
    monkeypatch.setenv("BATCHPOINT_LOG_FORMAT", "json")
    home = tmp_path / "home"
    server = local_server.ensure(home)
    try:
        headers = {"Authorization": f"Bearer {local_server.read_token(home)}", "X-Request-Id": "night-1"}
        httpx.get(f"{server.url}/api/v1/jobs/none", headers=headers)
        httpx.get(f"{server.url}/healthz")
    finally:
        local_server.stop(home)
    (line,) = [line for line in lines((home / "server.log").read_text()) if line["logger"] == "batchpoint.requests"]
    assert line["request_id"] == "night-1"
    told = {key: line[key] for key in ("level", "method", "path", "status", "token", "workspace")}
    assert told == {
        "level": "info", "method": "GET", "path": "/api/v1/jobs/none", "status": 404, "token": "local",
        "workspace": "default",
    }  # fmt: skip


def test_a_server_that_logs_text_tells_no_routine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(local_server.__file__).parent.parent))
    home = tmp_path / "home"
    server = local_server.ensure(home)
    try:
        httpx.get(f"{server.url}/api/v1/jobs/none")
    finally:
        local_server.stop(home)
    assert "/api/v1/jobs" not in (home / "server.log").read_text()


def test_lines_about_a_job_name_it_and_its_workspace(tmp_path: Path) -> None:
    with heard() as stream, open_workspace(tmp_path / "home") as workspace:
        background = Background(workspace, runner_parent=FAKE_RUNNER)
        background.start()
        died = invoke(workspace, make_input(tmp_path / "in", "die"))
        eventually(lambda: workspace.jobs.get(died.name).status.is_finished)
        eventually(lambda: "batchpoint.jobs" in stream.getvalue() and ": lost" in stream.getvalue())
        background.stop()
    told = [line for line in lines(stream.getvalue()) if line.get("job") == died.name]
    assert {line["workspace"] for line in told} == {"default"}
    assert [line["message"] for line in told if line["level"] == "warning"]  # of the dispatcher, that the runner died
    assert (told[-1]["logger"], told[-1]["status"], told[-1]["reason"]) == ("batchpoint.jobs", "failed", "lost")


def test_a_traceback_is_part_of_its_line() -> None:
    with heard() as stream:
        try:
            raise RuntimeError("first\nsecond")
        except RuntimeError:
            logging.getLogger("x").exception("It broke: %s", "é")
    (line,) = lines(stream.getvalue())
    assert (line["message"], line["level"]) == ("It broke: é", "error")
    assert line["exception"].endswith("RuntimeError: first\nsecond")


@pytest.mark.parametrize("given", [{"log_format": "xml"}, {"log_level": "chatty"}])
def test_a_setting_that_does_not_exist_is_told(given: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidEntityError, match="Give"):
        logs.configure(Settings(home=tmp_path, **given))  # type: ignore[arg-type]  # both are texts
