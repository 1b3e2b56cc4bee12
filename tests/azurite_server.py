"""Azurite, the emulator of Azure's blob storage, as a real server for tests; `.ci/setup azurite` installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / ".venv" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Account and key of every Azurite. Source: its documentation."""


@contextmanager
def running_azurite() -> Iterator[str]:
    """Start a server that keeps blobs in memory, yield the address of its account, stop it.

    Without the package the tests are skipped at home, and fail where ``CI`` is true.
    """
    if not PROGRAM.exists() or shutil.which("node") is None:
        reason = "Azurite is not installed: .ci/setup azurite does it, with Node.js and npm."
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    command = [str(PROGRAM), "--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0"]
    command += ["--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        ) as server,
    ):
        try:
            yield f"{_address(server)}/{ACCOUNT}"
        finally:
            server.terminate()
            server.communicate()


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"successfully listens on (http://\S+)", line):
            return found[1]
    raise RuntimeError(f"Azurite did not start: {said}")
