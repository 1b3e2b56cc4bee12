"""The studio: pages for people, rendered by the server. Each has a typed context, and answers programs in JSON."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from batchpoint.entities.studio_addresses import ROOT
from batchpoint.server.studio import (
    admin,
    assets,
    boards,
    computes,
    contents,
    datastores,
    endpoints,
    grids,
    job_files,
    jobs,
    pages,
    quality,
    schedules,
)
from batchpoint.server.studio.live import LiveParts


def install(app: FastAPI) -> None:
    """Add the pages to the application; they begin at ``/studio``, and ``/`` leads there."""
    app.state.live_parts = LiveParts()
    app.mount(f"{ROOT}/static", StaticFiles(directory=str(files(__name__) / "static")), name="studio.static")
    for part in (
        pages,
        endpoints,
        boards,
        jobs,
        quality,
        job_files,
        grids,
        schedules,
        assets,
        datastores,
        contents,
        computes,
        admin,
    ):
        app.include_router(part.router, prefix=ROOT)
    app.add_api_route("/", _lead_to_the_studio, include_in_schema=False)


def _lead_to_the_studio() -> Response:
    return RedirectResponse(ROOT)
