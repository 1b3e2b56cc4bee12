"""Whether a shell is set up for the official client: its variables, and what the client would do by them, in steps.

Nothing is started and nothing is changed: what is wrong is to be told, not hidden.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import httpx

from batchpoint import local_server
from batchpoint.azureml_shell import TOKEN_PATH, home_of
from batchpoint.client.azureml import AUDIENCE, AzureML, claims_of, workspace_path
from batchpoint.client.connection import Connection
from batchpoint.errors import BatchpointError
from batchpoint.settings import Settings

_OTHER_CREDENTIALS = (
    ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"),
    ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_CERTIFICATE_PATH"),
    ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
)
"""Variables that ``DefaultAzureCredential`` goes by before it looks at ours."""
_SET_UP = 'Run: eval "$(batchpoint azureml-env)"'


@dataclass(frozen=True)
class Step:
    """One step."""

    name: str
    is_well: bool
    told: str
    """What was found; when it is not well, what to do."""


class _NotWellError(Exception):
    pass


def steps(settings: Settings, workspace: str, environ: Mapping[str, str] | None = None) -> Iterator[Step]:
    """The steps, without those that need what an earlier one did not find.

    Args:
        settings: whose server the shell is to lead to.
        workspace: that the client is to work within.
        environ: variables of the shell; those of this process when not given.
    """
    checks = _Checks(settings, workspace, os.environ if environ is None else environ)
    missed = set[str]()
    for name, check, needs in checks.in_order():
        if missed.intersection(needs):
            missed.add(name)
            continue
        try:
            yield Step(name, True, check())
        except _NotWellError as fault:
            missed.add(name)
            yield Step(name, False, str(fault))


class _Checks:
    """The steps, each with what the ones before it found."""

    def __init__(self, settings: Settings, workspace: str, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._address_within = workspace_path(workspace)
        self._named = workspace
        self._environ = environ
        self._has_public_certificate = (settings.url or "").startswith("https:")
        self._url = environ.get("AZUREML_DEV_URL_MFE", "")
        self._bundle = environ.get("REQUESTS_CA_BUNDLE", "")
        self._server: dict[str, Any] = {}
        self._tls: dict[str, Any] = {}
        self._token = ""
        self._workspace: dict[str, Any] = {}

    def in_order(self) -> list[tuple[str, Callable[[], str], tuple[str, ...]]]:
        """Name, check, and the names of those that have to be well before it makes sense."""
        return [
            ("variables", self._variables, ()),
            ("credential", self._credential, ()),
            ("home", self._home, ()),
            ("server", self._running, ("home",)),
            ("address", self._address, ("variables", "server")),
            ("certificates", self._certificates, ("variables", "server")),
            ("TLS", self._speaks_tls, ("address", "certificates")),
            ("token", self._granted, ("TLS",)),
            ("workspace", self._shown, ("token",)),
            ("discovery", self._discovery, ("workspace",)),
            ("blobs", self._blobs, ("workspace",)),
        ]

    def _variables(self) -> str:
        names = ["AZUREML_DEV_URL_MFE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"]
        if not self._has_public_certificate:
            names.append("REQUESTS_CA_BUNDLE")
        if missing := [name for name in names if not self._environ.get(name)]:
            raise _NotWellError(f"{', '.join(missing)} not set in this shell. {_SET_UP}")
        if self._environ["IDENTITY_ENDPOINT"] != f"{self._url}{TOKEN_PATH}":
            raise _NotWellError(f"IDENTITY_ENDPOINT is not {self._url}{TOKEN_PATH} in this shell. {_SET_UP}")
        if "NO_PROXY" in AzureML(self._url, "", None).variables(self._environ):
            raise _NotWellError(f"a proxy is set, and NO_PROXY leaves out this machine. {_SET_UP}")
        return "set in this shell"

    def _credential(self) -> str:
        for names in _OTHER_CREDENTIALS:
            if all(self._environ.get(name) for name in names):
                raise _NotWellError(
                    f"{', '.join(names)} are set, and DefaultAzureCredential goes by these first. Unset them, or use "
                    "batchpoint.azureml.Credential()."
                )
        chosen = self._environ.get("AZURE_TOKEN_CREDENTIALS", "")
        if chosen.lower() not in ("", "prod", "managedidentitycredential"):
            raise _NotWellError(
                f"AZURE_TOKEN_CREDENTIALS is {chosen!r}, which keeps DefaultAzureCredential from asking this server. "
                "Unset it, or use batchpoint.azureml.Credential()."
            )
        return "nothing that DefaultAzureCredential goes by first is set"

    def _home(self) -> str:
        home, of_shell = self._settings.home, home_of(self._bundle)
        if of_shell is not None and of_shell.resolve() != home.resolve():
            raise _NotWellError(
                f"this shell was set up for {of_shell}, and here the home folder is {home} (BATCHPOINT_HOME, else the "
                f"nearest .batchpoint). Go back, or set the shell up for this one. {_SET_UP}"
            )
        return str(home)

    def _running(self) -> str:
        url, token, home = self._settings.url, self._settings.token, self._settings.home
        if url is None:
            found = local_server.find(home)
            if found is None:
                raise _NotWellError(f"no server of {home} runs. {_SET_UP}, which starts it where it was")
            url, token = found.url, token or local_server.read_token(home)
        connection = Connection(url, token)
        try:
            self._server, self._tls = connection.get("/server"), connection.get("/server/tls")
        except BatchpointError as error:
            raise _NotWellError(error.message) from None
        finally:
            connection.close()
        if self._tls["port"] is None and not self._has_public_certificate:
            raise _NotWellError(
                f"{url} does not speak TLS. {_SET_UP}, which says why when it cannot; so does {home / 'server.log'}"
            )
        return f"{url} runs"

    def _address(self) -> str:
        there = urlsplit(self._settings.url or "").port if self._has_public_certificate else self._tls["port"]
        try:
            port = urlsplit(self._url).port
        except ValueError:
            port = -1
        if port != there:
            raise _NotWellError(
                f"this shell names {self._url}, and the server speaks TLS at port {there or 443}. {_SET_UP}, and start "
                "anew what was started from here"
            )
        return f"{self._url} is where the server speaks TLS"

    def _certificates(self) -> str:
        try:
            self._context = ssl.create_default_context(cafile=self._bundle or certifi.where())
        except OSError as fault:  # what ssl raises is one too
            why = "is not there" if not Path(self._bundle).exists() else f"holds no certificates ({fault})"
            raise _NotWellError(f"{self._bundle} {why} (REQUESTS_CA_BUNDLE). {_SET_UP}") from None
        authority = self._tls["authority"]
        if authority and ssl.PEM_cert_to_DER_cert(authority) not in self._context.get_ca_certs(binary_form=True):
            raise _NotWellError(
                f"{self._bundle} does not hold the authority of this server: REQUESTS_CA_BUNDLE was set to something "
                f"else afterwards, or the authority was made anew. {_SET_UP}"
            )
        return f"{self._bundle} holds the server's authority" if authority else self._bundle or "the public ones"

    def _speaks_tls(self) -> str:
        try:
            self._http = httpx.Client(verify=self._context, timeout=10)
        except ValueError as fault:
            raise _NotWellError(f"HTTPS_PROXY or its like names no proxy: {fault}") from None
        if self._get("/healthz").json().get("id") != self._server["id"]:
            raise _NotWellError(f"another server answers at {self._url}. {_SET_UP}")
        return f"{self._url} is trusted"

    def _granted(self) -> str:
        headers = {"X-IDENTITY-HEADER": self._environ["IDENTITY_HEADER"]}
        answered = self._get(self._environ["IDENTITY_ENDPOINT"], params={"resource": AUDIENCE}, headers=headers)
        self._token = answered.json()["access_token"]
        claims = claims_of(self._token)
        if claims.get("aud") != AUDIENCE:
            raise _NotWellError(f"the token is for {claims.get('aud')!r} instead of {AUDIENCE!r}.")
        return f"granted to {claims['sub']}"

    def _shown(self) -> str:
        # Asked here first: an address of the dialect makes a workspace that is used for the first time.
        listed = self._get(f"/api/v1/workspaces/{self._named}", headers=self._bearer(), missing=True)
        if listed.status_code == 404:
            raise _NotWellError(f"{_message(listed)} To make it: batchpoint workspace create -n {self._named}")
        self._workspace = self._get(self._address_within, headers=self._bearer()).json()
        return str(self._workspace["name"])

    def _discovery(self) -> str:
        found = self._get(self._workspace["properties"]["discoveryUrl"]).json()["api"]
        if found != self._url:
            raise _NotWellError(f"it leads to {found} instead of {self._url}. Does a proxy change the host?")
        return f"leads to {found}"

    def _blobs(self) -> str:
        told = self._get(f"{self._address_within}/datastores/workspaceblobstore", headers=self._bearer()).json()[
            "properties"
        ]
        url = f"https://{told['accountName']}.blob.core.windows.net/{told['containerName']}"
        self._get(url, params={"restype": "container", "comp": "list", "prefix": "check/"}, headers=self._bearer())
        return f"{url} is listed"

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def _get(self, path: str, *, missing: bool = False, **given: Any) -> httpx.Response:
        """What is answered; with ``missing`` also that there is nothing."""
        url = path if path.startswith("https:") else f"{self._url}{path}"
        try:
            answered = self._http.get(url, **given)
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            raise _NotWellError(f"{url} does not answer ({failure}). {_advice(str(failure))}") from None
        if answered.is_error and not (missing and answered.status_code == 404):
            raise _NotWellError(f"{url} answered {answered.status_code}: {_message(answered)}")
        return answered


def _message(answered: httpx.Response) -> str:
    """What an answer says that is an error."""
    try:
        said = answered.json()
        return str(said.get("message") or said["error"]["message"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return answered.text[:300].strip() or "nothing"


def _advice(failure: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in failure:
        return (
            "The certificate is not trusted: REQUESTS_CA_BUNDLE has to name the file that 'batchpoint azureml-env' "
            f"writes. {_SET_UP}"
        )
    return (
        "Does another program hold the port, or a proxy stand between (HTTPS_PROXY, NO_PROXY)? The end of server.log "
        "in the home folder says what the server could not do."
    )
