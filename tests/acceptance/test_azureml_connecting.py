"""The official client connects: a fresh shell, one command of set-up, certificates verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_client import CURRENT, OLDER, AzureClient
from shipped import Shipped


@pytest.mark.parametrize("version", [CURRENT, OLDER])
def test_one_command_in_a_fresh_shell_lets_the_client_connect_with_certificates_verified(
    shipped: Shipped, tmp_path: Path, version: str
) -> None:
    client = AzureClient(shipped, tmp_path / "notebook", version)
    found = client.json("""
from azure.core.exceptions import ClientAuthenticationError
token = DefaultAzureCredential().get_token("https://ml.azure.com/.default")
print(json.dumps(token.token.count(".")))
""")
    assert found == 2
