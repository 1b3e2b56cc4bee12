"""The managed-identity answer: a short-lived token for a user's API token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse

from batchpoint.errors import AuthenticationError
from batchpoint.server.auth import attempt
from batchpoint.server.context import Server

router = APIRouter(tags=["azureml"], include_in_schema=False)

PATH = "/azureml/msi/token"
"""``IDENTITY_ENDPOINT`` of the client's environment, below the server's address."""


@router.get(PATH, name="azureml.token")
def token(
    request: Request, shared: Server, resource: str = "", secret: Annotated[str, Header(alias="X-IDENTITY-HEADER")] = ""
) -> JSONResponse:
    """A token for ``resource``, for the API token in the header, which is the client's ``IDENTITY_HEADER``."""
    if not secret:
        raise AuthenticationError("This needs an API token in the header X-IDENTITY-HEADER (IDENTITY_HEADER).")
    with attempt(request):
        signed, expires_at = shared.workspace.tokens.exchange(secret.strip(), resource)
    answer = {
        "access_token": signed,
        "expires_on": str(int(expires_at.timestamp())),
        "resource": resource,
        "token_type": "Bearer",
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})
