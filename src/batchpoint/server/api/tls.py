"""The server's second address, which speaks TLS."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from batchpoint.entities.base import Part
from batchpoint.entities.documents import read_body
from batchpoint.server.api.wire import answer, described
from batchpoint.server.auth import Admin, Reader
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Context, Server

router = APIRouter(tags=["server"])


class TlsRequest(Part):
    """Where to listen, and for which names."""

    port: int | None = Field(default=None, ge=1, le=65535)
    """None: where it was the last time, and the first time a port that is free."""
    names: list[str] = Field(default_factory=list, max_length=100)
    """Names and addresses, besides those of the machine itself, that the certificate is made for."""


@router.get("/server/tls", name="server.tls")
def show(_: Reader, shared: Server) -> JSONResponse:
    """Port of the address that speaks TLS, and the certificate to be trusted; both null when there is none."""
    return _answer(shared)


@router.put("/server/tls", name="server.open_tls", **described(body=TlsRequest))
def open_tls(body: JsonBody, _: Admin, shared: Server) -> JSONResponse:
    """Listen with TLS too, from now on and whenever the server starts; the certificate is renewed when it is time."""
    wanted = read_body(TlsRequest, body)
    if shared.tls is not None:
        shared.tls.open(port=wanted.port, names=wanted.names)
    return _answer(shared)


def _answer(shared: Context) -> JSONResponse:
    tls = shared.tls
    return answer({"port": tls.port, "authority": tls.authority} if tls else {"port": None, "authority": None})
