"""The server as a process of its own: how it is found, started, ended, and what it leaves in its home.

Locks, signals, detached processes and the token file's mode exist only between real processes.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from batchpoint import local_server
from batchpoint.errors import ConflictError, InvalidEntityError
from batchpoint.server.process import check_address, serve
from batchpoint.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # The servers run what is tested here, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(Path(local_server.__file__).parent.parent))
    yield tmp_path / "home"
    local_server.stop(tmp_path / "home")


def test_a_server_is_started_found_used_and_stopped(home: Path) -> None:
    assert local_server.find(home) is None
    server = local_server.ensure(home)
    assert local_server.ensure(home) == server
    assert local_server.find(home) == server
    secret = local_server.read_token(home)
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    answered = httpx.get(f"{server.url}/api/v1/server", headers={"Authorization": f"Bearer {secret}"})
    assert answered.json()["shares_files"] is True
    assert answered.json()["role"] == "admin"
    with pytest.raises(ConflictError, match=server.url):
        serve(Settings(home=home))
    assert local_server.stop(home)
    assert local_server.find(home) is None
    assert not (home / "server.json").exists()
    assert local_server.read_token(home) == secret
    assert not local_server.stop(home)


def test_a_killed_server_is_noticed_and_replaced_with_the_same_token(home: Path) -> None:
    first = local_server.ensure(home)
    secret = local_server.read_token(home)
    os.kill(first.pid, signal.SIGKILL)
    while local_server.is_locked(home):
        time.sleep(0.01)
    assert (home / "server.json").exists()
    assert local_server.find(home) is None
    second = local_server.ensure(home)
    assert second.id != first.id
    assert local_server.read_token(home) == secret


def test_a_server_that_nobody_uses_ends_itself(home: Path) -> None:
    environment = {**os.environ, "BATCHPOINT_HOME": str(home), "BATCHPOINT_IDLE_SHUTDOWN_SECONDS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "batchpoint.server"], env=environment, stderr=subprocess.DEVNULL)
    assert process.wait(timeout=30) == 0
    assert not (home / "server.json").exists()


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    home.mkdir()
    (home / "registry.db").write_text("this is no database, and long enough to be looked at " * 50)
    with pytest.raises(Exception, match=r"server\.log"):
        local_server.ensure(home)


def test_an_address_of_the_network_needs_a_certificate_or_a_word(tmp_path: Path) -> None:
    with pytest.raises(InvalidEntityError, match="--tls-cert"):
        serve(replace(Settings(home=tmp_path), host="0.0.0.0"))
    check_address("0.0.0.0", tls=True, allow_insecure=False)
    check_address("0.0.0.0", tls=False, allow_insecure=True)
    check_address("localhost", tls=False, allow_insecure=False)


def test_a_file_of_another_server_is_not_believed(home: Path) -> None:
    server = local_server.ensure(home)
    told = json.loads((home / "server.json").read_text())
    (home / "server.json").write_text(json.dumps({**told, "id": "another"}))
    assert local_server.find(home) is None
    (home / "server.json").write_text(json.dumps(told))
    assert local_server.find(home) == server
