"""What the official client does when it connects, done step by step, so that what is wrong can be told."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from batchpoint.client.azureml import AUDIENCE, AzureML, claims_of, workspace_path

_OTHER_CREDENTIALS = (
    ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"),
    ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_CERTIFICATE_PATH"),
    ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
)
"""Variables that ``DefaultAzureCredential`` goes by before it looks at ours."""


@dataclass(frozen=True)
class Step:
    """One step."""

    name: str
    is_well: bool
    told: str
    """What was found; when it is not well, what to do."""


class _NotWellError(Exception):
    pass


def steps(azureml: AzureML) -> Iterator[Step]:
    """The steps, up to the first of the connection that fails."""
    yield _done("variables", lambda: _variables(azureml))
    yield _done("credential", _credential)
    checks = _Checks(azureml)
    for name in ("TLS", "token", "workspace", "discovery", "blobs"):
        step = _done(name, getattr(checks, name.lower()))
        yield step
        if not step.is_well:
            return


def _done(name: str, check: Callable[[], str]) -> Step:
    try:
        return Step(name, True, check())
    except _NotWellError as fault:
        return Step(name, False, str(fault))


def _variables(azureml: AzureML) -> str:
    wrong = [name for name, value in azureml.variables().items() if os.environ.get(name) != value]
    if wrong:
        raise _NotWellError(f'{", ".join(wrong)} not as needed in this shell. Run: eval "$(batchpoint azureml-env)"')
    return "set as they have to be"


def _credential() -> str:
    for names in _OTHER_CREDENTIALS:
        if all(os.environ.get(name) for name in names):
            raise _NotWellError(
                f"{', '.join(names)} are set, and DefaultAzureCredential goes by these first. Unset them, or use "
                "batchpoint.azureml.Credential()."
            )
    chosen = os.environ.get("AZURE_TOKEN_CREDENTIALS", "")
    if chosen.lower() not in ("", "prod", "managedidentitycredential"):
        raise _NotWellError(
            f"AZURE_TOKEN_CREDENTIALS is {chosen!r}, which keeps DefaultAzureCredential from asking this server. "
            "Unset it, or use batchpoint.azureml.Credential()."
        )
    return "DefaultAzureCredential asks this server"


class _Checks:
    """The steps that speak to the server, each with what the ones before it found."""

    def __init__(self, azureml: AzureML) -> None:
        self._azureml = azureml
        self._token = ""
        self._workspace: dict[str, Any] = {}
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or azureml.ca_bundle
        self._http = httpx.Client(verify=ssl.create_default_context(cafile=bundle), timeout=10)

    def tls(self) -> str:
        self._get("/healthz")
        return f"{self._azureml.url} is trusted"

    def token(self) -> str:
        headers = {"X-IDENTITY-HEADER": self._azureml.token}
        url = self._azureml.variables()["IDENTITY_ENDPOINT"]
        self._token = self._get(url, params={"resource": AUDIENCE}, headers=headers).json()["access_token"]
        claims = claims_of(self._token)
        if claims.get("aud") != AUDIENCE:
            raise _NotWellError(f"the token is for {claims.get('aud')!r} instead of {AUDIENCE!r}.")
        return f"granted to {claims['sub']}"

    def workspace(self) -> str:
        self._workspace = self._get(workspace_path(), headers=self._bearer()).json()
        return str(self._workspace["name"])

    def discovery(self) -> str:
        found = self._get(self._workspace["properties"]["discoveryUrl"]).json()["api"]
        if found != self._azureml.url:
            raise _NotWellError(f"it leads to {found} instead of {self._azureml.url}. Does a proxy change the host?")
        return f"leads to {found}"

    def blobs(self) -> str:
        told = self._get(f"{workspace_path()}/datastores/workspaceblobstore", headers=self._bearer()).json()[
            "properties"
        ]
        url = f"https://{told['accountName']}.blob.core.windows.net/{told['containerName']}"
        self._get(url, params={"restype": "container", "comp": "list", "prefix": "check/"}, headers=self._bearer())
        return f"{url} is listed"

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def _get(self, path: str, **given: Any) -> httpx.Response:
        url = path if path.startswith("https:") else f"{self._azureml.url}{path}"
        try:
            answered = self._http.get(url, **given)
        except httpx.HTTPError as failure:
            raise _NotWellError(f"{url} does not answer ({failure}). {_advice(str(failure))}") from None
        if answered.is_error:
            text = answered.text[:300].strip()
            raise _NotWellError(f"{url} answered {answered.status_code}: {text or 'nothing'}")
        return answered


def _advice(failure: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in failure:
        return (
            "The certificate is not trusted: REQUESTS_CA_BUNDLE has to name the file that 'batchpoint azureml-env' "
            'writes. Run: eval "$(batchpoint azureml-env)"'
        )
    return (
        "Does another program hold the port, or a proxy stand between (HTTPS_PROXY, NO_PROXY)? The end of server.log "
        "in the home folder says what the server could not do."
    )
