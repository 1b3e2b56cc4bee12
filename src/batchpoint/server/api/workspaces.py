"""Workspaces: the namespaces of this server. Which one another request is about is told by its header."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.server.api.resources import named
from batchpoint.server.api.wire import Paged, answer, described
from batchpoint.server.auth import Admin, Operator, Reader
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Server

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


@router.get("", name="workspaces.list")
def list_workspaces(_: Reader, shared: Server, page: Paged) -> JSONResponse:
    """All workspaces, by name: those that were created, and those that were used."""
    return page.answer(shared.workspace.workspaces.list(limit=page.reach, offset=page.offset))


@router.get("/{name}", name="workspaces.get", **described(result=NamedWorkspace))
def get_workspace(name: str, _: Reader, shared: Server) -> JSONResponse:
    """One workspace."""
    return answer(shared.workspace.workspaces.get(name))


@router.put("/{name}", name="workspaces.create_or_update", **described(body=NamedWorkspace, result=NamedWorkspace))
def create_or_update(name: str, body: JsonBody, caller: Operator, shared: Server) -> JSONResponse:
    """Create a workspace, or change the one of that name."""
    workspace = named(NamedWorkspace, body, name)
    return answer(shared.workspace.workspaces.create_or_update(workspace, by=caller.name))


@router.delete("/{name}", name="workspaces.delete", status_code=204)
def delete(name: str, _: Admin, shared: Server, *, permanently: bool = False) -> Response:
    """Delete a workspace; one that holds something only ``permanently``."""
    shared.workspace.delete(name, permanently=permanently)
    return Response(status_code=204)
