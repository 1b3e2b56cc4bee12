"""The web application: the workspaces of one server, behind one door."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from batchpoint import __version__
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import InvokeRequest, Job, Receipt
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.entities.pipeline_deployments import (
    PipelineDeployment,
    PublishedPipeline,
    PublishRequest,
    RunRequest,
)
from batchpoint.entities.pipelines import Pipeline
from batchpoint.entities.resources import Compute, Datastore
from batchpoint.entities.schedules import BackfillRequest, Schedule, ScheduleRun
from batchpoint.entities.tokens import Token
from batchpoint.entities.webhooks import Delivery, Webhook
from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.errors import BatchpointError
from batchpoint.server import problems
from batchpoint.server.api import assets, endpoints, jobs, pipelines, resources, schedules, tls, tokens, workspaces
from batchpoint.server.auth import Reader
from batchpoint.server.azureml import assets as azureml_assets
from batchpoint.server.azureml import (
    blobs,
    components,
    data_plane,
    run_history,
)
from batchpoint.server.azureml import endpoints as azureml_endpoints
from batchpoint.server.azureml import jobs as azureml_jobs
from batchpoint.server.azureml import resources as azureml_resources
from batchpoint.server.azureml import schedules as azureml_schedules
from batchpoint.server.azureml import tokens as azureml_tokens
from batchpoint.server.context import WAITERS_ALLOWED, Context, Server
from batchpoint.server.door import Door
from batchpoint.server.studio import install as install_studio

WORKING_THREADS = 40
"""Threads for requests that do not wait."""

_DESCRIBED: tuple[type[BaseModel], ...] = (
    *ASSET_KINDS.values(), BackfillRequest, BatchDeployment, BatchEndpoint, Compute, Datastore, Delivery, InvokeRequest,
    Job, NamedWorkspace, Pipeline, PipelineDeployment, PublishedPipeline, PublishRequest, Receipt, RunRequest, Schedule,
    ScheduleRun, Token, Webhook,
    assets.AssetChange, jobs.JobChange, pipelines.PipelineChange, tls.TlsRequest, tokens.TokenRequest,
)  # fmt: skip
"""Models that ``api`` refers to when it describes its routes."""


def create_app(context: Context, *, on_start: Callable[[], None] = lambda: None) -> FastAPI:
    """The application for one server.

    ``on_start`` is called when requests can be answered. The loops of ``context.background`` are started and stopped
    by whoever made them.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = WAITERS_ALLOWED + WORKING_THREADS
        on_start()
        yield
        context.closing.set()
        context.background.changes.notify()

    app = FastAPI(
        title="Batchpoint",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        # These pages would run scripts from elsewhere beside the studio's sessions. /openapi.json tells the same.
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    problems.install(app)
    app.add_middleware(Door, context=context, max_request_bytes=context.workspace.settings.max_request_bytes)
    _add_health(app)
    for part in (tokens, workspaces, tls, endpoints, jobs, pipelines, schedules, resources, assets):
        app.include_router(part.router, prefix="/api/v1")
    for part in (
        azureml_tokens, azureml_resources, azureml_assets, components, azureml_endpoints, data_plane, azureml_jobs,
        run_history, azureml_schedules, blobs,
    ):  # fmt: skip
        app.include_router(part.router)
    install_studio(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["health"])
    def healthz(shared: Server) -> JSONResponse:
        """The process lives."""
        return JSONResponse({"status": "ok", "id": shared.server_id, "version": __version__})

    @app.get("/readyz", tags=["health"])
    def readyz(shared: Server) -> JSONResponse:
        """The registry answers and the background loops run."""
        checks: dict[str, Any] = {"registry": "ok"}
        try:
            shared.workspace.registry.jobs.counts_by_status()
        except BatchpointError as error:
            checks["registry"] = error.message
        for loop in shared.background.health():
            checks[loop.name] = "ok" if loop.is_well else (loop.last_error or "not running")
        ready = all(check == "ok" for check in checks.values())
        if not ready:
            return problems.problem(
                "server_unavailable", "The server is not ready.", status=503, request_id=None, details=checks
            )
        return JSONResponse({"status": "ok", "checks": checks})

    @app.get("/metrics", tags=["health"], name="server.metrics")
    def metrics(_: Reader, shared: Server) -> Response:
        """What a monitor wants to know, in the text form of Prometheus; it sends a token as everybody does."""
        return Response(shared.background.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api/v1/server", tags=["server"], name="server.get")
    def server(caller: Reader, shared: Server) -> JSONResponse:
        """Version, id and Python of the server, whether local paths may be given, and the caller's role."""
        return JSONResponse(
            {
                "version": __version__,
                "id": shared.server_id,
                "python": platform.python_version(),
                "shares_files": shared.shares_files,
                "token": caller.name,
                "role": caller.role,
            }
        )


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        template = "#/components/schemas/{model}"
        _, models = models_json_schema([(model, "validation") for model in _DESCRIBED], ref_template=template)
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update(models["$defs"])
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
        app.openapi_schema = schema
    return app.openapi_schema
