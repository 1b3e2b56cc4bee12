"""For code that uses the official ``azure-ai-ml`` client: a credential, and the set-up of a process. docs/azureml.md

from azure.ai.ml import MLClient
from batchpoint import azureml

azureml.connect()
ml_client = MLClient(azureml.Credential(), **azureml.DEFAULTS)
"""

from __future__ import annotations

import os
from typing import Any

from batchpoint.client import Client
from batchpoint.client.azureml import DEFAULTS, AccessToken

__all__ = ["DEFAULTS", "AccessToken", "Credential", "connect"]


def connect() -> str:
    """Set this process up as ``eval "$(batchpoint azureml-env)"`` sets a shell up; answers with the server's address.

    Call it before an ``MLClient`` is made.
    """
    with Client() as client:
        found = client.azureml()
    os.environ.update(found.variables())
    return found.url


class Credential:
    """A credential for ``MLClient``: tokens of the server, in the shape that the client asks for.

    Args:
        url: address of the server; else ``BATCHPOINT_URL``, else the local server.
        token: API token; else ``BATCHPOINT_TOKEN``, else the token that the local server left in its home.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self._client = Client(url, token)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:  # noqa: ARG002 - the client's signature
        """A token that is valid for an hour, for whatever it is asked for.

        Raises:
            AuthenticationError: the API token is unknown, expired or revoked.
            ServerUnavailableError: nothing answers.
        """
        return self._client.signed_token()
