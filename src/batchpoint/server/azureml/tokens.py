"""The managed-identity answer: a short-lived token for a user's API token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse

from batchpoint.azureml_shell import TOKEN_PATH
from batchpoint.errors import AuthenticationError, BatchpointError, TooManyRequestsError
from batchpoint.server.auth import attempt
from batchpoint.server.azureml.wire import error_body
from batchpoint.server.context import Server
from batchpoint.server.statuses import status_of

router = APIRouter(tags=["azureml"], include_in_schema=False)

_SET_UP = 'Set this shell up again: eval "$(batchpoint azureml-env)". Then start anew what was started from it.'


@router.get(TOKEN_PATH, name="azureml.token")
def token(
    request: Request, shared: Server, resource: str = "", secret: Annotated[str, Header(alias="X-IDENTITY-HEADER")] = ""
) -> JSONResponse:
    """A token for ``resource``, for the API token in the header, which is the client's ``IDENTITY_HEADER``."""
    try:
        if not secret:
            raise AuthenticationError("There is no API token in the header X-IDENTITY-HEADER (IDENTITY_HEADER).")
        with attempt(request):
            signed, expires_at = shared.workspace.tokens.exchange(secret.strip(), resource)
    except (AuthenticationError, TooManyRequestsError) as error:
        return _refused(error)
    answer = {
        "access_token": signed,
        "expires_on": str(int(expires_at.timestamp())),
        "resource": resource,
        "token_type": "Bearer",
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


def _refused(error: BatchpointError) -> JSONResponse:
    """An error, in the client's form and in that of managed identities: of this ``DefaultAzureCredential`` prints
    ``statusCode`` and ``message``, and nothing else."""
    status = status_of(error)
    shown = {"statusCode": status, "message": f"{error.message} {_SET_UP}"}
    return JSONResponse({**error_body(error.code, error.message), **shown}, status)
