"""Endpoints: all of them, one with its deployments and jobs, its default, and the form that starts a job."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import Input, InvokeRequest, Job
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.errors import BatchpointError
from batchpoint.operations.assets import DEFAULT_DATASTORE
from batchpoint.server.bodies import spooled
from batchpoint.server.given_paths import check_invoke_paths
from batchpoint.server.studio.rendering import Page, Visit, Visited, html, page, see_other
from batchpoint.server.studio.sessions import SentForm

router = APIRouter(prefix="/endpoints")

RECENT = 20
"""Jobs on the page of an endpoint."""


class EndpointsPage(Page):
    """All endpoints."""

    endpoints: Sequence[BatchEndpoint]
    latest: Mapping[str, Job]
    """The newest job of each that has any."""


class EndpointPage(Page):
    """One endpoint."""

    endpoint: BatchEndpoint
    scoring_uri: str
    """Where an invoke is posted to, as this visitor reaches the server."""
    deployments: Sequence[BatchDeployment | PipelineDeployment]
    jobs: Sequence[Job]


class InvokePage(Page):
    """The form that starts a job."""

    endpoint: BatchEndpoint
    deployments: Sequence[str]
    given: Mapping[str, str]
    """What was filled in before, for whoever has to change it."""
    refusal: str | None = None


@page(router, "", "endpoints.html")
def endpoints(visit: Visited) -> EndpointsPage:
    """All endpoints."""
    found = visit.work.endpoints.list()
    newest = {one.name: visit.work.jobs.list(endpoint=one.name, limit=1) for one in found}
    latest = {name: jobs[0] for name, jobs in newest.items() if jobs}
    return EndpointsPage(title="Endpoints", endpoints=found, latest=latest)


@page(router, "/{name}", "endpoint.html")
def endpoint(visit: Visited, name: str) -> EndpointPage:
    """One endpoint."""
    found = visit.work.endpoints.get(name)
    return EndpointPage(
        title=found.name,
        endpoint=found,
        scoring_uri=_scoring_uri(visit, name),
        deployments=visit.work.endpoints.list_deployments(name),
        jobs=visit.work.jobs.list(endpoint=name, limit=RECENT),
    )


@router.post("/{name}/default", name="endpoints.update", include_in_schema=False)
def set_default(visit: Visited, name: str, form: SentForm) -> Response:
    """Another deployment answers by default from now on."""
    deployment = str(form.get("deployment", ""))

    def changed(before: BatchEndpoint) -> BatchEndpoint:
        defaults = before.defaults.model_copy(update={"deployment_name": deployment})
        return before.model_copy(update={"defaults": defaults})

    visit.work.endpoints.update(name, changed, by=visit.visitor.name)
    return see_other(visit.at.endpoint(name))


@page(router, "/{name}/invoke", "invoke.html")
def invoke_form(visit: Visited, name: str) -> InvokePage:
    """The form that starts a job."""
    return _form(visit, name, {})


@router.post("/{name}/invoke", name="endpoints.invoke_form", include_in_schema=False)
def invoke(visit: Visited, name: str, form: SentForm) -> Response:
    """Start the job, and show it."""
    given = {field: str(form.get(field, "")).strip() for field in ("path", "deployment", "description")}
    upload = form.get("upload")
    try:
        if isinstance(upload, UploadFile) and upload.filename:
            given["path"] = _stored(visit, upload.filename, upload.file)
        request = InvokeRequest(
            inputs={"data": Input(path=given["path"])},
            deployment_name=given["deployment"] or None,
            description=given["description"] or None,
        )
        check_invoke_paths(visit.shared, request)
        job = visit.work.endpoints.invoke(name, request, by=visit.visitor.name)
    except BatchpointError as refusal:
        shown = _form(visit, name, given, refusal.message)
        return html(visit.request, "invoke.html", shown, at=visit.at, visitor=visit.visitor, status=422)
    return see_other(visit.at.job(job.name))


def _scoring_uri(visit: Visit, name: str) -> str:
    found = visit.request.url_for("endpoints.invoke", name=name)
    return str(found.include_query_params(workspace=visit.work.name) if visit.at.is_named else found)


def _stored(visit: Visit, filename: str, content: IO[bytes]) -> str:
    """Keep an uploaded file in the workspace's own datastore; where it lies there.

    Raises:
        InvalidEntityError: no file can be called so.
        DatastoreError: it could not be written.
    """
    name = PurePosixPath(filename.replace("\\", "/")).name
    uri = f"azureml://datastores/{DEFAULT_DATASTORE}/paths/uploads/{uuid.uuid4()}/{name}"
    place = visit.work.places.resolve(uri)
    with spooled(content, visit.work.settings.home / "uploads") as partial:
        visit.work.stores().move(partial, place.url, place.datastore)
    return uri


def _form(visit: Visit, name: str, given: Mapping[str, str], refusal: str | None = None) -> InvokePage:
    found = visit.work.endpoints.get(name)
    names = [one.name for one in visit.work.endpoints.list_deployments(name)]
    return InvokePage(
        title=f"Create a job of {found.name}", endpoint=found, deployments=names, given=given, refusal=refusal
    )
