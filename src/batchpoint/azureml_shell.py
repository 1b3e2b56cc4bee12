"""What ``azureml-env`` sets in a shell for the official client, and how it is told from what a person set.

Whatever is started from such a shell inherits it: a server, too, which is to have none of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

TOKEN_PATH = "/azureml/msi/token"  # noqa: S105 - an address
"""Where the client asks for tokens, below the server's address."""

_BUNDLE = re.compile(r"ca-bundle-.+-[0-9a-f]{12}\.pem")
_OURS = "\n# The authority of a batchpoint server\n"
_BEFORE = "# Instead of "


def bundle_path(home: Path, host: str, known_by: str) -> Path:
    """The file of certificates for ``REQUESTS_CA_BUNDLE``; ``known_by`` are 12 hexadecimal digits."""
    return home / "tls" / f"ca-bundle-{host.replace(':', '-')}-{known_by}.pem"


def home_of(bundle: str) -> Path | None:
    """The home that a value of ``REQUESTS_CA_BUNDLE`` was made for; None for a person's own."""
    path = Path(bundle)
    return path.parent.parent if _BUNDLE.fullmatch(path.name) and path.parent.name == "tls" else None


def joined(trusted: str, authority: str, *, instead_of: str | None) -> str:
    """What a bundle holds: the certificates that were trusted before, and the authority of a server.

    Args:
        trusted: those certificates.
        authority: its certificate.
        instead_of: the value of ``REQUESTS_CA_BUNDLE`` that this bundle takes the place of.
    """
    before = f"{_BEFORE}{instead_of}\n" if instead_of else ""
    return f"{trusted}{_OURS}{before}{authority}"


def taken_apart(text: str) -> tuple[str, str | None]:
    """What was trusted before a bundle was made, and what ``REQUESTS_CA_BUNDLE`` was; any other file: all, and None."""
    trusted, _, ours = text.partition(_OURS)
    first = ours.partition("\n")[0]
    return trusted, first.removeprefix(_BEFORE) if first.startswith(_BEFORE) else None


def taken_back(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what ``azureml-env`` set in it, and with what that took the place of.

    A server that kept it would hand an API token to every script, and ask itself for the tokens of Azure's storage.
    What a person set stays, proxies among it.
    """
    kept = dict(environ)
    if kept.get("IDENTITY_ENDPOINT", "").endswith(TOKEN_PATH):
        for name in ("AZUREML_DEV_URL_MFE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
            kept.pop(name, None)
    bundle = kept.get("REQUESTS_CA_BUNDLE", "")
    if home_of(bundle) is not None:
        del kept["REQUESTS_CA_BUNDLE"]
        try:
            _, before = taken_apart(Path(bundle).read_text())
        except OSError:
            before = None
        if before is not None:
            kept["REQUESTS_CA_BUNDLE"] = before
    return kept
