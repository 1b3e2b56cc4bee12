"""Settings: ``BATCHPOINT_*`` variables, read once into one frozen object, which is passed, never imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from batchpoint.errors import InvalidEntityError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How this process of batchpoint is set up. Each field is the variable ``BATCHPOINT_<FIELD>`` in upper case."""

    home: Path
    """Folder of everything that is remembered: registry, datastore, job folders, environments, logs."""
    url: str | None = None
    """Address of the server that the client talks to; none means the local server of ``home``, started when needed."""
    token: str | None = None
    """Bearer token of the client; none means the token that the local server left in ``home``."""
    workspace: str | None = None
    """Workspace that the client names in its requests; none means ``default``."""
    database_url: str | None = None
    """SQLAlchemy address of the registry; none means SQLite at ``<home>/registry.db``."""
    host: str = "127.0.0.1"
    """Address that the server listens on."""
    port: int = 0
    """Port that the server listens on; 0 lets the system choose."""
    idle_shutdown_seconds: int = 1800
    """A server that a client started ends itself after so many seconds without a request or a job, unless a schedule is
    to fire."""
    max_request_bytes: int = 2**30
    """Largest request body, in bytes, that the server takes."""
    default_compute_instances: int = 1
    """Instances of the built-in compute ``local``."""
    log_level: str = "info"
    """Level of the server's own log: debug, info, warning."""
    log_format: str = "text"
    """Form of the server's own log: text, or json."""
    webhook_hosts: str = ""
    """Hosts that webhooks may call although they are this machine or have a link-local address, with commas between."""

    @property
    def registry_url(self) -> str:
        """SQLAlchemy address of the registry, whichever way it was set."""
        return self.database_url or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def allowed_webhook_hosts(self) -> frozenset[str]:
        """``webhook_hosts``, one by one, in lower case."""
        return frozenset(host.strip().lower() for host in self.webhook_hosts.split(",") if host.strip())

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        ``home`` is ``BATCHPOINT_HOME``, else the nearest ``.batchpoint/`` of the working folder or a parent, else
        ``.batchpoint/`` in the user's home.

        Raises:
            InvalidEntityError: a number was expected and something else was given.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {"home": find_home(environ)}
        for field in fields(cls):
            text = environ.get(f"BATCHPOINT_{field.name.upper()}")
            if field.name == "home" or text is None or text == "":
                continue
            if field.type == "int":
                try:
                    values[field.name] = int(text)
                except ValueError:
                    message = f"BATCHPOINT_{field.name.upper()} is {text!r}, which is not a whole number."
                    raise InvalidEntityError(message) from None
            else:
                values[field.name] = text
        return cls(**values)  # type: ignore[arg-type]  # each value was converted to its field's type just above


def find_home(environ: Mapping[str, str]) -> Path:
    """The folder of everything that is remembered, found as ``Settings.from_environment`` says."""
    if named := environ.get("BATCHPOINT_HOME"):
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".batchpoint").is_dir():
            return folder / ".batchpoint"
    return Path(environ.get("HOME") or Path.home()) / ".batchpoint"
