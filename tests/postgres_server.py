"""A private PostgreSQL server for tests, from the binaries on the PATH (or in PostgreSQL's usual folders)."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server in a temporary folder, yield the URL of its empty database ``test``, stop it.

    It listens on a Unix socket alone. PostgreSQL refuses to run as root, so root starts it as ``postgres`` or
    ``nobody``. Without the binaries the tests are skipped at home, and fail where ``CI`` is true.
    """
    programs = _find_programs()
    folder = Path(tempfile.mkdtemp(prefix="bp-pg-", dir="/tmp"))  # short: the path of a socket has at most 107 bytes
    owner = _unprivileged_user()
    if owner is not None:
        os.chown(folder, pwd.getpwnam(owner).pw_uid, -1)
    options: dict[str, Any] = {"cwd": folder, "user": owner, "env": {**os.environ, "TZ": "UTC", "LC_ALL": "C"}}
    data = str(folder / "data")
    try:
        _run([programs["initdb"], "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"], **options)
        settings = f"-k {folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB -c max_connections=60"
        control = [programs["pg_ctl"], "-D", data, "-w"]
        _run([*control, "-l", str(folder / "log"), "-o", settings, "start"], **options)
        try:
            _create_database(folder)
            yield f"postgresql://test@/test?host={folder}"
        finally:
            _run([*control, "-m", "immediate", "stop"], **options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_programs() -> dict[str, str]:
    folders = [os.environ.get("PATH", ""), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    found = {name: shutil.which(name, path=os.pathsep.join(folders)) for name in ("initdb", "pg_ctl", "postgres")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        reason = f"PostgreSQL is not installed: {', '.join(missing)} not found on the PATH."
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    return {name: path for name, path in found.items() if path is not None}


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _create_database(folder: Path) -> None:
    import psycopg  # noqa: PLC0415 - only where a server was found

    with psycopg.connect(f"postgresql://test@/postgres?host={folder}", autocommit=True) as connection:
        connection.execute("CREATE DATABASE test")


def _run(command: list[str], **options: Any) -> None:
    # Output goes to a file: a server that inherits a pipe would keep it open, and this call would never end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, check=False, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)
        if done.returncode != 0:
            output.seek(0)
            message = f"{' '.join(command)} failed: {output.read().decode(errors='replace')}"
            raise RuntimeError(message)
