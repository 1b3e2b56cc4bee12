"""How the official ``azure-ai-ml`` client reaches a server: its variables, the certificates it trusts, a token.

Nothing of Azure is imported here: what the client needs are environment variables, and tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import certifi

from batchpoint.azureml_shell import TOKEN_PATH, bundle_path, home_of, joined, taken_apart
from batchpoint.client.connection import Connection
from batchpoint.errors import AuthenticationError, ConflictError
from batchpoint.settings import Settings

AUDIENCE = "https://ml.azure.com"
"""What the client asks of the token that comes with pipeline jobs; of others it asks nothing."""
DEFAULTS = {
    "subscription_id": "00000000-0000-0000-0000-000000000000",
    "resource_group": "batchpoint",
    "workspace_name": "default",
}
"""The client wants all three; any subscription and resource group will do."""


def workspace_path(workspace: str = DEFAULTS["workspace_name"]) -> str:
    """What the addresses of the dialect begin with, within a workspace."""
    return (
        f"/subscriptions/{DEFAULTS['subscription_id']}/resourceGroups/{DEFAULTS['resource_group']}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
    )


_LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})


class AccessToken(NamedTuple):
    """What ``azure.core.credentials.AccessToken`` is."""

    token: str
    expires_on: int
    """Seconds since 1970."""


@dataclass(frozen=True)
class AzureML:
    """How the official client reaches one server."""

    url: str
    """``https://localhost:8443``."""
    token: str
    """The API token that signed tokens are asked for with."""
    ca_bundle: Path | None
    """Certificates to be trusted; None when those that everybody trusts are enough."""

    def variables(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment variables that the client, unchanged, is set up with."""
        environ = os.environ if environ is None else environ
        found = {
            "AZUREML_DEV_URL_MFE": self.url,
            "IDENTITY_ENDPOINT": f"{self.url}{TOKEN_PATH}",
            "IDENTITY_HEADER": self.token,
        }
        if self.ca_bundle is not None:
            found["REQUESTS_CA_BUNDLE"] = str(self.ca_bundle)
        host = urlsplit(self.url).hostname or ""
        if host in _LOCAL and _is_proxied(host, environ):
            # A proxy does not lead to this machine itself.
            given = environ.get("NO_PROXY") or environ.get("no_proxy")
            found["NO_PROXY"] = found["no_proxy"] = f"{given},{host}" if given else host
        return found


def connect(
    connection: Connection, settings: Settings, *, port: int | None = None, names: Sequence[str] = ()
) -> AzureML:
    """Have the server speak TLS, unless it does already, and write the certificates that the client has to trust.

    Args:
        connection: the server.
        settings: the certificates are written below its home.
        port: where the server is to speak TLS; None means where it did the last time.
        names: more names that it is reached by; the first of them is used.

    Raises:
        AuthenticationError: there is no token.
        PermissionDeniedError: the server does not speak TLS yet, and the token is not an administrator's.
        ConflictError: the port is taken.
    """
    if not connection.token:
        raise AuthenticationError("The client needs a token. Set BATCHPOINT_TOKEN to one of the server's.")
    if connection.url.startswith("https:"):
        return AzureML(connection.url, connection.token, None)
    told = connection.get("/server/tls")
    if told["port"] is None or port not in (None, told["port"]) or names:
        told = connection.send("PUT", "/server/tls", body={"port": port, "names": list(names)})
    if told["port"] is None:
        raise ConflictError(f"The server at {connection.url} cannot speak TLS. Restart it: 'batchpoint down'.")
    host = urlsplit(connection.url).hostname or ""
    host = names[0] if names else "localhost" if host in _LOCAL else host
    bundle = _write_bundle(settings.home, host, told["authority"])
    return AzureML(f"https://{f'[{host}]' if ':' in host else host}:{told['port']}", connection.token, bundle)


def signed_token(connection: Connection) -> AccessToken:
    """A token that is valid for an hour, in the shape that the client wants.

    Raises:
        AuthenticationError: the API token is unknown, expired or revoked.
    """
    answered = connection.send(
        "GET",
        f"{connection.url}{TOKEN_PATH}",
        params={"resource": AUDIENCE},
        headers={"X-IDENTITY-HEADER": connection.token or ""},
    )
    return AccessToken(answered["access_token"], int(answered["expires_on"]))


def write_config(path: Path, workspace: str) -> None:
    """A ``config.json`` for ``MLClient.from_config()``.

    Raises:
        ConflictError: the file is there, and names a workspace elsewhere: of Azure, as a rule.
    """
    if path.exists() and not _is_ours(path):
        message = f"{path} names a workspace that is not of this server. Name another file, or move that one away."
        raise ConflictError(message)
    try:
        path.write_text(json.dumps({**DEFAULTS, "workspace_name": workspace}, indent=2) + "\n")
    except OSError as fault:
        raise ConflictError(f"{path} cannot be written: {fault.strerror}.") from None


def _is_ours(path: Path) -> bool:
    """Whether a ``config.json`` was written by us before."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return False
    own = {key: value for key, value in DEFAULTS.items() if key != "workspace_name"}
    return isinstance(found, dict) and own.items() <= found.items()


def _write_bundle(home: Path, host: str, authority: str) -> Path:
    """What is trusted now, and the server's authority: the variable that names it takes the place of the first.

    The file is named by what was trusted before: a shell that trusts less must not take it from one that is set up.
    """
    given = os.environ.get("REQUESTS_CA_BUNDLE")
    now = Path(given or certifi.where())
    trusted, before = taken_apart((now if now.is_file() else Path(certifi.where())).read_text())
    if before is None and given and now.exists() and home_of(given) is None:
        before = str(now.absolute())
    path = bundle_path(home, host, hashlib.sha256(trusted.encode()).hexdigest()[:12])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(joined(trusted, authority, instead_of=before))
    partial.replace(path)
    return path


def _is_proxied(host: str, environ: Mapping[str, str]) -> bool:
    proxies = {name.lower().removesuffix("_proxy"): value for name, value in environ.items() if value}
    return bool({"https", "all"} & proxies.keys()) and not urllib.request.proxy_bypass_environment(host, proxies)  # type: ignore[attr-defined]  # documented in its module alone


def claims_of(token: str) -> dict[str, Any]:
    """What a signed token says, unverified."""
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
