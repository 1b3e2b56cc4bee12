"""Endpoints: all of them, one with its deployments and jobs, its default, and the form that starts a job."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO, cast

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import FormData, UploadFile

from batchpoint.entities.components import DATA_TYPES
from batchpoint.entities.documents import read_body
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.forecasts import Forecast, PlanRequest
from batchpoint.entities.jobs import InvokeRequest, Job, LiteralValue
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.entities.pipelines import Component, InputPort
from batchpoint.entities.secrets import masked
from batchpoint.errors import BatchpointError, InvalidEntityError, NotFoundError
from batchpoint.operations.assets import DEFAULT_DATASTORE
from batchpoint.server.bodies import spooled
from batchpoint.server.given_paths import check_invoke_paths
from batchpoint.server.studio.rendering import Facts, Page, Visit, Visited, html, page, see_other
from batchpoint.server.studio.sessions import SentForm

router = APIRouter(prefix="/endpoints")

RECENT = 20
"""Jobs on the page of an endpoint."""
DATA_SHOWN = 200
"""Registered data to pick from."""
OVERRIDES = (
    "mini_batch_size",
    "error_threshold",
    "instance_count",
    "max_concurrency_per_instance",
    "output_file_name",
)
"""What the form may change of the deployment, for one job."""
INPUT = "input."
"""Begins the names of the fields for the inputs of a pipeline."""
PLAN_SECONDS = 30.0
"""So long a page waits for a sample, which takes a few seconds once it runs."""
LOOK_SECONDS = 1.0


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


class PipelineInput(Facts):
    """An input of a pipeline, to be filled in."""

    name: str
    field: str
    """Of the form."""
    port: InputPort
    is_data: bool
    filled: str
    """What was filled in before, or its default."""


class InvokePage(Page):
    """The form that starts a job."""

    endpoint: BatchEndpoint
    deployments: Sequence[str]
    """Those that score with a model."""
    pipelines: Sequence[str]
    """Deployments that run a pipeline; each has a form of its own."""
    pipeline: str | None = None
    """The one that this form is for, if any."""
    inputs: Sequence[PipelineInput] = ()
    """What that pipeline takes."""
    uploaded_as: str | None = None
    """The input that a file of one's own becomes; None where several are data, or none."""
    known: Sequence[str]
    """Data to pick from: what jobs of the endpoint read last, and registered data. An address that holds a secret
    is not among it."""
    given: Mapping[str, str]
    """What was filled in before, for whoever has to change it."""
    planned: Job | None = None
    """The job that scores, or has scored, a sample of it."""
    forecast: Forecast | None = None
    """What the sample says; None when it is not over, or could not be scored."""
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
def invoke_form(visit: Visited, name: str, path: str = "", plan: str = "", deployment: str = "") -> InvokePage:
    """The form that starts a job, with the forecast of a plan when there is one."""
    if not plan:
        return _form(visit, name, {"path": path, "deployment": deployment})
    planned = _awaited(visit, plan)
    if planned.sample is None or planned.endpoint_name != name:
        raise NotFoundError(f"{plan} is no plan of endpoint {name}.", kind="forecast", name=plan)
    forecast = None
    with suppress(NotFoundError):  # it is not over, or failed and says why itself
        forecast = visit.work.jobs.forecast(plan)
    shown = _form(visit, name, form_of(planned))
    return shown.model_copy(update={"planned": planned, "forecast": forecast})


@router.post("/{name}/invoke", name="endpoints.invoke_form", include_in_schema=False)
def invoke(visit: Visited, name: str, form: SentForm) -> Response:
    """Start the job, and show it."""
    given = _given(form)
    try:
        request = InvokeRequest.model_validate(_asked(visit, name, form, given).model_dump(exclude_unset=True))
        job = visit.work.endpoints.invoke(name, request, by=visit.visitor.name)
    except BatchpointError as refusal:
        return _refused(visit, name, given, refusal)
    return see_other(visit.at.job(job.name))


@router.post("/{name}/plan", name="endpoints.plan_form", include_in_schema=False)
def plan(visit: Visited, name: str, form: SentForm) -> Response:
    """Score a sample, and show the form again with what it says of the whole."""
    given = _given(form)
    try:
        request = _asked(visit, name, form, given)
        planned = visit.work.endpoints.plan(name, request, by=visit.visitor.name)
    except BatchpointError as refusal:
        return _refused(visit, name, given, refusal)
    return see_other(visit.at.invoke(name, plan=planned.name))


def form_of(planned: Job) -> dict[str, str]:
    """What was filled in to ask for a plan. Pure."""
    overrides = planned.overrides.model_dump(exclude_none=True, include=set(OVERRIDES))
    size = planned.overrides.mini_batch_bytes
    return {
        "path": next(iter(planned.inputs.values())).path,
        "deployment": planned.deployment_name or "",
        "description": planned.description or "",
        **{name: str(value) for name, value in overrides.items()},
        **({"mini_batch_size": f"{size >> 10}KB"} if size is not None else {}),
    }


def request_of(given: Mapping[str, str]) -> PlanRequest:
    """What a form asks for. Pure.

    Raises:
        InvalidEntityError: a field is not what it should be, or it names no data.
    """
    if not given.get("path"):
        raise InvalidEntityError("Say what to score: a path, a data asset, an address, or a file of yours.")
    body = {
        "inputs": {"data": {"path": given["path"]}},
        "deployment_name": given.get("deployment") or None,
        "description": given.get("description") or None,
        "overrides": {name: given[name] for name in OVERRIDES if given.get(name)},
    }
    return read_body(PlanRequest, {key: value for key, value in body.items() if value})


def pipeline_request_of(given: Mapping[str, str], ports: Mapping[str, InputPort]) -> PlanRequest:
    """What the form of a pipeline with these inputs asks for. Pure.

    What is left empty is not given: it has a default, may be left out, or is told to be missing by the pipeline.
    """
    filled = {name: text for name in ports if (text := given.get(INPUT + name))}
    body = {
        "inputs": {name: {"path": text} for name, text in filled.items() if ports[name].type in DATA_TYPES},
        "literals": {name: text for name, text in filled.items() if ports[name].type not in DATA_TYPES},
        "deployment_name": given.get("deployment") or None,
        "description": given.get("description") or None,
    }
    return read_body(PlanRequest, {key: value for key, value in body.items() if value})


def _given(form: FormData) -> dict[str, str]:
    fields = ("path", "deployment", "description", *OVERRIDES, *(name for name in form if name.startswith(INPUT)))
    return {field: str(form.get(field, "")).strip() for field in fields}


def _asked(visit: Visit, name: str, form: FormData, given: dict[str, str]) -> PlanRequest:
    """What the form asks for. An uploaded file is kept, and its place is noted in ``given``."""
    ports = _inputs(visit, visit.work.endpoints.deployment_for(name, given["deployment"] or None))
    wanted = "path" if ports is None else INPUT + (_uploaded_as(ports) or "")
    upload = form.get("upload")
    if isinstance(upload, UploadFile) and upload.filename and wanted != INPUT:
        given[wanted] = _stored(visit, upload.filename, upload.file)
    request = request_of(given) if ports is None else pipeline_request_of(given, ports)
    check_invoke_paths(visit.shared, request)
    return request


def _inputs(visit: Visit, deployment: BatchDeployment | PipelineDeployment) -> Mapping[str, InputPort] | None:
    """What the pipeline of a deployment takes; None for a model. Raises ``NotFoundError``: its component is gone."""
    if not isinstance(deployment, PipelineDeployment):
        return None
    return cast("Component", visit.work.assets.resolve("component", cast("str", deployment.component))).inputs


def _uploaded_as(ports: Mapping[str, InputPort]) -> str | None:
    data = [name for name, port in ports.items() if port.type in DATA_TYPES]
    return data[0] if len(data) == 1 else None


def filled_in(ports: Mapping[str, InputPort], given: Mapping[str, str]) -> list[PipelineInput]:
    """The inputs of a pipeline with what was filled in before. Pure."""
    return [
        PipelineInput(
            name=name,
            field=INPUT + name,
            port=port,
            is_data=port.type in DATA_TYPES,
            filled=given.get(INPUT + name, as_typed(port.default)),
        )
        for name, port in ports.items()
    ]


def as_typed(value: LiteralValue | None) -> str:
    """A literal as somebody types it. Pure."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _refused(visit: Visit, name: str, given: Mapping[str, str], refusal: BatchpointError) -> Response:
    shown = _form(visit, name, given, refusal.message)
    return html(visit.request, "invoke.html", shown, at=visit.at, visitor=visit.visitor, status=422)


def _awaited(visit: Visit, name: str) -> Job:
    """A job that scores a sample, when it is over; or as it is after ``PLAN_SECONDS``. Raises ``NotFoundError``."""
    changes, until = visit.shared.background.changes, time.monotonic() + PLAN_SECONDS
    give_back = visit.shared.take_waiting_place()
    try:
        while True:
            seen, job = changes.count, visit.work.jobs.get(name)
            if job.status.is_finished or time.monotonic() > until or visit.shared.closing.is_set():
                return job
            changes.wait(seen, LOOK_SECONDS)
    finally:
        give_back()


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
    there = visit.work.endpoints.list_deployments(name)
    pipelines = {one.name: one for one in there if isinstance(one, PipelineDeployment)}
    chosen = pipelines.get(given.get("deployment") or found.defaults.deployment_name or "")
    ports = (_inputs(visit, chosen) if chosen else None) or {}
    uploaded_as = _uploaded_as(ports)
    if uploaded_as and given.get("path"):
        given = {INPUT + uploaded_as: given["path"], **given}
    read = [one.path for job in visit.work.jobs.list(endpoint=name, limit=RECENT) for one in job.inputs.values()]
    registered = [f"azureml:{one.latest.name}@latest" for one in visit.work.assets.by_name("data", limit=DATA_SHOWN)]
    return InvokePage(
        title=f"Create a job of {found.name}",
        endpoint=found,
        deployments=[one.name for one in there if one.name not in pipelines],
        pipelines=list(pipelines),
        pipeline=chosen.name if chosen else None,
        inputs=filled_in(ports, given),
        uploaded_as=uploaded_as,
        known=list(dict.fromkeys([*registered, *(path for path in read if masked(path) == path)])),
        given=given,
        refusal=refusal,
    )
