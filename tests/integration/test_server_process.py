"""The server as a process of its own: how it is found, started, ended, and what it leaves in its home.

Locks, signals, detached processes and the token file's mode exist only between real processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from batchpoint import local_server
from batchpoint.client import Client
from batchpoint.errors import ConflictError, InvalidEntityError, ServerUnavailableError
from batchpoint.server.listening import listen
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


def test_a_home_that_cannot_be_one_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ServerUnavailableError, match="BATCHPOINT_HOME"):
            local_server.ensure(home)
        with pytest.raises(ServerUnavailableError, match="BATCHPOINT_HOME"):
            serve(Settings(home=home))


def test_a_certificate_that_does_not_work_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(InvalidEntityError, match="PEM"):
        serve(settings, tls_cert=tmp_path / "cert.pem")
    with pytest.raises(InvalidEntityError, match="--tls-cert"):
        serve(settings, tls_key=tmp_path / "cert.pem")
    assert not settings.home.exists()


def test_the_client_of_a_home_reaches_its_server_behind_a_certificate_that_nobody_signed(
    home: Path, tmp_path: Path
) -> None:
    certificate, key = self_signed(tmp_path)
    command = [sys.executable, "-m", "batchpoint", "server", "--tls-cert", str(certificate), "--tls-key", str(key)]
    with subprocess.Popen(command, env={**os.environ, "BATCHPOINT_HOME": str(home)}) as process:
        while local_server.find(home) is None:
            assert process.poll() is None
            time.sleep(0.05)
        with Client(settings=Settings(home=home)) as client:
            assert client.url.startswith("https:")
            assert client.server()["role"] == "admin"
            # An address that speaks TLS already is the one that other clients are told.
            assert (client.azureml().url, client.azureml().ca_bundle) == (client.url, None)
        process.terminate()


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


def test_answers_leave_at_once_and_never_wait_for_the_receipt_of_the_packet_before() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert asyncio.run(_is_undelayed(listener))


async def _is_undelayed(listener: socket.socket) -> bool:
    found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        found.set_result(bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        writer.close()

    async with await asyncio.start_server(accepted, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.close()
        return await found


SLOW_TO_GO = """
import signal, sys, time
from pathlib import Path
from batchpoint.local_server import claimed
def leave(*_):
    raise SystemExit
with claimed(Path(sys.argv[1])):
    signal.signal(signal.SIGTERM, leave)
    print("here", flush=True)
    try:
        signal.pause()
    except SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(1)  # it has let go of the home, and is still there
"""


def test_a_server_that_was_stopped_has_ended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW_TO_GO, tmp_path], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"here\n"
        assert local_server.stop(tmp_path)
        state = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "Z", "only its parent has not asked for it"
