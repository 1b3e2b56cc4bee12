"""What a shell was set up with for the official client is told from what a person set."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchpoint.azureml_shell import bundle_path, home_of, joined, taken_apart, taken_back

HOME = Path("/data/home")
BUNDLE = str(bundle_path(HOME, "::1", "0123456789ab"))
SET = {
    "AZUREML_DEV_URL_MFE": "https://localhost:20000",
    "IDENTITY_ENDPOINT": "https://localhost:20000/azureml/msi/token",
    "IDENTITY_HEADER": "bp_secret",
    "REQUESTS_CA_BUNDLE": BUNDLE,
}


def test_what_was_set_is_taken_back_and_everything_else_stays() -> None:
    own = {"HTTPS_PROXY": "http://p", "NO_PROXY": "a,localhost", "SSL_CERT_FILE": "/own.pem", "AZUREML_RUN_ID": "r"}
    assert taken_back({**SET, **own}) == own


@pytest.mark.parametrize(
    "own",
    [
        {"IDENTITY_ENDPOINT": "http://169.254.129.2:8081/msi/token", "IDENTITY_HEADER": "of a machine of Azure"},
        {"REQUESTS_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt"},
        {"REQUESTS_CA_BUNDLE": "/data/tls/ca-bundle.pem"},
    ],
)
def test_what_a_person_or_azure_set_stays(own: dict[str, str]) -> None:
    assert taken_back(own) == own


def test_a_bundle_tells_whose_it_is_and_what_it_took_the_place_of() -> None:
    assert home_of(BUNDLE) == HOME
    assert home_of("") is None
    text = joined("public\n", "ours\n", instead_of="/own.pem")
    assert taken_apart(text) == ("public\n", "/own.pem")
    assert taken_apart(joined("public\n", "ours\n", instead_of=None)) == ("public\n", None)
    assert taken_apart("own\n") == ("own\n", None)
