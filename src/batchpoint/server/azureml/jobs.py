"""Jobs of the control plane: start, show, list, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from batchpoint.background.step_places import is_own_folder
from batchpoint.entities.jobs import AZURE_STATUS, Job, Output
from batchpoint.entities.pipeline_deployments import is_command
from batchpoint.errors import NotFoundError
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.azureml.mapping import Field, Form, from_wire, to_wire
from batchpoint.server.azureml.pipelines import definition_of, submitted
from batchpoint.server.azureml.wire import WORKSPACE, Listed, Scope, Scoped, ScopedWork, WireBody, resource
from batchpoint.server.context import Shared
from batchpoint.workspace import Workspace

router = APIRouter(tags=["azureml"], include_in_schema=False)

JOBS = f"{WORKSPACE}/jobs"
JOB = f"{JOBS}/{{job}}"
CHILD = "-score"
"""Ends the name of the one child that the job of a model deployment is shown with. It has no row of its own."""
BATCH_RUN = "azureml.batchrun"
"""Tag by which the client knows the job of an endpoint: it downloads what the child wrote."""
JOB_TYPE = "azureml.jobtype"
PIPELINE_JOB = "azureml.pipelinejob"
"""Value of the tag ``azureml.jobtype`` that says: download the named outputs of the job itself."""

JOB_FIELDS = (
    Field("description", "description"),
    Field("display_name", "displayName"),
    Field("experiment_name", "experimentName"),
    Field("tags", "tags"),
    Field("properties", "properties"),
    Field("archived", "isArchived"),
    Field("status", "status"),
    Field("services", "services"),
)

STD_LOG = "user_logs/std_log.txt"
"""Where the client looks for what a command prints."""
OWN_STD_LOG = "logs/user/std_log.txt"
"""The same log in the job's folder."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the client means by the name of a job: the job itself, or the child that it is shown with."""

    job: Job
    is_child: bool = False
    """Whether it is the child of the job of a model deployment."""

    @property
    def name(self) -> str:
        """Its name."""
        return f"{self.job.name}{CHILD}" if self.is_child else self.job.name

    @property
    def has_parent(self) -> bool:
        """Whether it is shown below another."""
        return self.is_child or self.job.parent_job_name is not None


def run_of(work: Workspace, name: str) -> Run:
    """The job of a name, or the child that one is shown with. Raises ``NotFoundError``."""
    try:
        return Run(work.jobs.get(name))
    except NotFoundError:
        if name.endswith(CHILD) and work.registry.jobs.exists(name.removesuffix(CHILD)):
            job = work.jobs.get(name.removesuffix(CHILD))
            if has_child(job):
                return Run(job, is_child=True)
        raise


def has_child(job: Job) -> bool:
    """Whether it is shown with one child: the job of a model deployment, which is no step itself."""
    return job.type == "scoring" and job.parent_job_name is None


def logged(work: Workspace, job: Job) -> Job:
    """The job whose logs are shown as those of a job: of a command job its one step, once that has any; else itself."""
    if job.pipeline is not None and is_command(job.pipeline.get("jobs") or {}):
        for step in work.jobs.list(parent=job.name, archived="include", limit=1):
            if work.jobs.logs(step.name):
                return step
    return job


@router.get(JOBS, name="azureml.jobs.list")
def list_jobs(
    scope: Scoped,
    work: ScopedWork,
    listed: Listed,
    _: Reader,
    view: Annotated[Literal["ActiveOnly", "ArchivedOnly", "All"], Query(alias="listViewType")] = "ActiveOnly",
    schedule: Annotated[str | None, Query(alias="scheduleId")] = None,
) -> JSONResponse:
    """Jobs that are no steps, the newest first."""
    archived: Mapping[str, Any] = {"ActiveOnly": "exclude", "ArchivedOnly": "only", "All": "include"}
    found = work.jobs.list(schedule=schedule, archived=archived[view], limit=listed.reach, offset=listed.offset)
    return listed.answer(found, lambda job: job_resource(scope, work, job))


@router.get(JOB, name="azureml.jobs.get")
def get_job(job: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """One job. Of what is shown below another only the name: the client then asks the run history."""
    run = run_of(work, job)
    if run.has_parent:
        return JSONResponse({"id": scope.id_of("jobs", run.name), "name": run.name})
    return JSONResponse(job_resource(scope, work, run.job))


@router.put(JOB, name="azureml.jobs.create_or_update")
def put_job(
    job: str, body: WireBody, scope: Scoped, shared: Shared, work: ScopedWork, caller: Operator
) -> JSONResponse:
    """Start a pipeline or a command; or hide the job of that name, or show it again, as older clients ask for it."""
    fields = (Field("wire", "properties", Form(read=dict)), Field("archived", "properties.isArchived"))
    given = from_wire(fields, body)
    if work.registry.jobs.exists(job) and isinstance(archived := given.get("archived"), bool):
        known = work.jobs.get(job)
        if known.archived != archived:
            change = work.jobs.archive if archived else work.jobs.restore
            return JSONResponse(job_resource(scope, work, change(job)))
    started = submitted(shared, scope, job, given.get("wire", {}), by=caller.name)
    return JSONResponse(job_resource(scope, work, started))


@router.post(f"{JOB}/cancel", name="azureml.jobs.cancel")
def cancel(job: str, scope: Scoped, shared: Shared, work: ScopedWork, _: Operator) -> Response:
    """Ask for a job to be canceled; whoever waits for the answer's ``Location`` waits until it is."""
    return _canceled(scope, shared.background.cancel(work, run_of(work, job).job.name))


@router.get(f"{JOB}/cancel", name="azureml.jobs.canceled")
def canceled(job: str, scope: Scoped, work: ScopedWork, _: Reader) -> Response:
    """Whether a job that is to be canceled has ended."""
    return _canceled(scope, work.jobs.get(job))


def _canceled(scope: Scope, job: Job) -> Response:
    if job.status.is_finished:
        return Response(status_code=200)
    location = f"{scope.base}{scope.id_of('jobs', job.name, 'cancel')}"
    return Response(status_code=202, headers={"Location": location, "Retry-After": "1"})


def job_resource(scope: Scope, work: Workspace, job: Job) -> dict[str, Any]:
    """A job as the control plane shows it. What it runs is said by ``definition``."""
    said = {
        **job.body(),
        "status": status_of(job),
        "display_name": job.display_name or job.name,
        "experiment_name": experiment_of(job),
        "tags": tags_of(job),
        "services": services(scope, job),
    }
    runs = definition_of(scope, job) if job.type == "pipeline" else definition(work, job)
    properties = {**runs, **to_wire(JOB_FIELDS, said)}
    return resource(scope, "jobs", [job.name], properties, entity=job)


def definition(work: Workspace, job: Job) -> dict[str, Any]:
    """What the job of a model deployment reads and writes."""
    inputs: dict[str, Any] = {
        name: {"jobInputType": given.type or "uri_folder", "uri": given.path, "mode": "ReadOnlyMount"}
        for name, given in job.inputs.items()
    }
    inputs |= {name: {"jobInputType": "literal", "value": str(value)} for name, value in job.literals.items()}
    outputs = {
        name: {"jobOutputType": kind, "uri": address, "mode": "ReadWriteMount"}
        for name, (kind, address) in outputs_of(work, job).items()
    }
    return {"jobType": "Pipeline", "jobs": {}, "inputs": inputs, "outputs": outputs, "settings": {}}


def status_of(job: Job) -> str:
    """Azure ML's word for where a job is."""
    if job.cancel_requested and not job.status.is_finished:
        return "CancelRequested"
    return AZURE_STATUS[job.status]


def experiment_of(job: Job) -> str:
    """The experiment that a job is shown in: its own, or that of its endpoint."""
    return job.experiment_name or job.endpoint_name or "Default"


def tags_of(job: Job) -> dict[str, str]:
    """The job's tags, and those by which the client knows what to download."""
    if job.endpoint_name is None:
        return job.tags
    kind = {JOB_TYPE: PIPELINE_JOB} if job.type == "pipeline" else {}
    return {**job.tags, BATCH_RUN: "true", **kind}


def services(scope: Scope, job: Job) -> dict[str, Any]:
    """Where a person looks at a job: its page in the studio."""
    address = f"{scope.base}/studio/jobs/{job.name}?{urlencode({'workspace': scope.workspace})}"
    return {"Studio": {"jobServiceType": "Studio", "endpoint": address, "status": "Running"}}


def outputs_of(work: Workspace, job: Job) -> dict[str, tuple[str, str]]:
    """Of each output that has been published and lies in a datastore: its type, and its address there."""
    found = {}
    for name, output in job.outputs.items():
        kind, place = _published(name, output)
        address = work.places.in_datastore(place) if place else None
        if address is not None:
            found[name] = (kind, address)
    return found


def _published(name: str, output: Output) -> tuple[str, str | None]:
    """Type and place of what there is to download of an output.

    A folder that belongs to the job is taken whole: beside the predictions lie receipt and errors.
    """
    is_file = output.type == "uri_file" and output.uri is not None
    if is_file and not (output.folder and is_own_folder(output.folder, name)):
        return "uri_file", output.uri
    return "uri_folder", output.folder
