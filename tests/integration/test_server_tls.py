"""The server's second address: its certificates, its port, and how it comes back and ends.

Certificates that are verified, and ports that are taken, exist only between real sockets.
"""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import uvicorn

from batchpoint import Client, local_server
from batchpoint.background.service import Background
from batchpoint.cli.azureml import SHELLS
from batchpoint.client.azureml import AzureML
from batchpoint.errors import ConflictError, InvalidEntityError, PermissionDeniedError
from batchpoint.server.certificates import Certificates
from batchpoint.server.context import Context
from batchpoint.server.process import _end_if_idle
from batchpoint.server.tls import TlsAddress
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    yield tmp_path / "home"
    local_server.stop(tmp_path / "home")


def verified(found: AzureML) -> httpx.Client:
    return httpx.Client(base_url=found.url, verify=ssl.create_default_context(cafile=found.ca_bundle), trust_env=False)


def test_the_server_listens_a_second_time_with_a_certificate_that_is_verified(home: Path) -> None:
    with Client(settings=Settings(home=home)) as client:
        found = client.azureml()
        assert client.azureml() == found
    with verified(found) as http:
        assert http.get("/healthz").json()["status"] == "ok"
        port = httpx.URL(found.url).port
        assert http.get(f"https://127.0.0.1:{port}/healthz").is_success
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{found.url}/healthz", trust_env=False)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "tls").iterdir()}
    assert {name: mode for name, mode in modes.items() if mode != 0o600 and name != "address.json"} == {}
    assert stat.S_IMODE((home / "tls").stat().st_mode) == 0o700


def test_a_server_that_starts_again_listens_at_the_same_port_by_itself(home: Path) -> None:
    with Client(settings=Settings(home=home)) as client:
        found = client.azureml()
    local_server.stop(home)
    with pytest.raises(httpx.ConnectError), verified(found) as http:
        http.get("/healthz")
    local_server.ensure(home)
    with Client(settings=Settings(home=home)) as client:
        assert client.azureml() == found
    with verified(found) as http:
        assert http.get("/healthz").is_success


def test_a_port_that_is_taken_is_told_and_another_one_can_be_named(home: Path) -> None:
    with Client(settings=Settings(home=home)) as client:
        port = httpx.URL(client.azureml().url).port
        assert port is not None
        local_server.stop(home)
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(ConflictError, match=f"port {port}.*--port"):
                client.azureml()
            with socket.create_server(("127.0.0.1", 0)) as free:
                other = free.getsockname()[1]
            assert client.azureml(port=other).url == f"https://localhost:{other}"
    assert json.loads((home / "tls" / "address.json").read_text())["port"] == other
    assert f"cannot speak TLS at port {port}" in (home / "server.log").read_text()


def test_a_reader_is_told_the_address_but_does_not_open_it(home: Path) -> None:
    settings = Settings(home=home)
    with Client(settings=settings) as admin:
        secret = admin.tokens.create("r", role="reader")["secret"]
        with Client(token=secret, settings=settings) as reader:
            with pytest.raises(PermissionDeniedError):
                reader.azureml()
            opened = admin.azureml()
            assert reader.azureml().url == opened.url
        with pytest.raises(InvalidEntityError, match="certificate"):
            admin.azureml(names=["ä name"])


def test_a_name_of_the_machine_is_added_to_the_certificate_and_kept(home: Path) -> None:
    with Client(settings=Settings(home=home)) as client:
        found = client.azureml(names=["scoring.example"])
        assert found.url.startswith("https://scoring.example:")
        context = ssl.create_default_context(cafile=found.ca_bundle)
        address = ("127.0.0.1", httpx.URL(found.url).port or 0)
        with socket.create_connection(address) as plain:
            context.wrap_socket(plain, server_hostname="scoring.example").close()


def test_what_was_trusted_before_is_trusted_still_and_one_authority_is_added_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.pem"
    own.write_text("# certificates of a company\n")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(own))
    with Client(settings=Settings(home=home)) as client:
        found = client.azureml()
        assert found.ca_bundle is not None
        text = found.ca_bundle.read_text()
        assert text.startswith(own.read_text())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(found.ca_bundle))
        assert client.azureml().ca_bundle == found.ca_bundle
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")  # another shell, which trusts the public ones alone
        assert client.azureml().ca_bundle != found.ca_bundle
        assert found.ca_bundle.read_text() == text


def test_a_proxy_is_told_to_leave_this_machine_alone() -> None:
    found = AzureML("https://localhost:8443", "secret", Path("bundle"))
    assert "NO_PROXY" not in found.variables({})
    assert found.variables({"HTTPS_PROXY": "http://p", "NO_PROXY": "a.b"})["NO_PROXY"] == "a.b,localhost"
    assert "NO_PROXY" not in found.variables({"HTTPS_PROXY": "http://p", "NO_PROXY": "localhost"})


def test_every_shell_is_told_in_its_own_words() -> None:
    value = "it's $HOME"
    assert SHELLS["fish"]("A", value) == "set -gx A 'it'\"'\"'s $HOME'"
    assert SHELLS["powershell"]("A", value) == "$env:A = 'it''s $HOME'"
    printed = subprocess.check_output(["sh", "-c", SHELLS["sh"]("A", value) + "; printenv A"], text=True)
    assert printed == f"{value}\n"


def test_a_certificate_is_renewed_before_its_end_and_its_authority_too(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls")
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def shown() -> tuple[bytes, bytes]:
        return (tmp_path / "tls" / "authority.pem").read_bytes(), (tmp_path / "tls" / "server.pem").read_bytes()

    certificates.prepare(["a.example"], now=now)
    authority, server = shown()
    certificates.prepare(["a.example"], now=now + timedelta(days=360))
    assert shown() == (authority, server)
    certificates.prepare(["a.example"], now=now + timedelta(days=370))
    assert shown()[0] == authority
    assert shown()[1] != server
    certificates.prepare([], now=now + timedelta(days=3645))
    assert shown()[0] != authority


def test_a_server_with_a_second_address_does_not_end_when_nobody_uses_it(workspace: Workspace, tmp_path: Path) -> None:
    tls = TlsAddress(tmp_path / "tls", "127.0.0.1", lambda *_: None)
    unused = Context(
        replace(workspace, settings=replace(workspace.settings, idle_shutdown_seconds=0)),
        Background(workspace), server_id="s", shares_files=True, tls=tls,
    )  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(lambda: None))
    tls.port = 8443
    _end_if_idle(server, unused)
    assert not server.should_exit
    tls.port = None
    _end_if_idle(server, unused)
    assert server.should_exit
    unused.background.dispatcher.stop()
