"""What the client reads of running jobs: children, details, logs, outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import JSONResponse, StreamingResponse

from batchpoint.entities.components import DECLARED_NAME
from batchpoint.entities.jobs import AZURE_STATUS, Job
from batchpoint.entities.tokens import Token
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.azureml.jobs import (
    OWN_STD_LOG,
    STD_LOG,
    Run,
    experiment_of,
    has_child,
    logged,
    outputs_of,
    run_of,
    status_of,
    tags_of,
)
from batchpoint.server.azureml.mapping import TEXT, TEXTS, TRUTH, Field, from_wire, to_wire
from batchpoint.server.azureml.signing import SignedReader, signed
from batchpoint.server.azureml.wire import WORKSPACE, Scope, Scoped, ScopedWork, WireBody, page
from batchpoint.server.context import Context, Shared
from batchpoint.workspace import Workspace

router = APIRouter(tags=["azureml"], include_in_schema=False)

HISTORY = f"/history/v1.0{WORKSPACE}"
RUN = f"{HISTORY}/runs/{{run}}"
LOGS = f"/azureml{WORKSPACE}/runs/{{run}}/logs"

BATCH_SCORING = "batchscoring"
"""What Azure ML calls the child of the job of a model deployment."""
EXECUTION_LOG = "logs/azureml/executionlogs.txt"
"""The log that the client prints while a job of an endpoint, or a pipeline, runs."""
OVERVIEW = "logs/user/job_progress_overview.txt"
ERRORS_TOLD = 20
"""Failed items that the end of the execution log names."""
LOG_SECONDS = 3600
"""How long the address of a log is good for. The client asks for new ones each time it looks."""

RUN_FIELDS = (
    Field("run", "runId"),
    Field("parent", "parentRunId"),
    Field("root", "rootRunId"),
    Field("status", "status"),
    Field("shown_as", "displayName"),
    Field("description", "description"),
    Field("experiment", "experimentId"),
    Field("tags", "tags"),
    Field("run_properties", "properties"),
    Field("outputs_there", "outputs"),
    Field("archived", "hidden"),
    Field("created_at", "createdUtc"),
    Field("started_at", "startTimeUtc"),
    Field("finished_at", "endTimeUtc"),
    Field("last_change_at", "lastModifiedUtc"),
)
"""A run of the history; what comes before the table is made in ``run_resource``."""

CHANGE_FIELDS = (
    Field("description", "description", TEXT),
    Field("display_name", "displayName", TEXT),
    Field("tags", "tags", TEXTS),
    Field("properties", "properties", TEXTS),
    Field("hidden", "hidden", TRUTH),
)


@router.get(RUN, name="azureml.runs.get")
def get_run(run: str, work: ScopedWork, _: Reader) -> JSONResponse:
    """One run."""
    return JSONResponse(run_resource(work, run_of(work, run)))


@router.get(f"{RUN}/children", name="azureml.runs.children")
def children(run: str, work: ScopedWork, _: Reader) -> JSONResponse:
    """What a run is made of: the scoring of a model deployment, or the steps of a pipeline."""
    found = run_of(work, run)
    if not found.is_child and has_child(found.job):
        return page([run_resource(work, Run(found.job, is_child=True))])
    steps = work.jobs.list(parent=found.name, archived="include", limit=1000)[::-1]
    return page(run_resource(work, Run(step)) for step in steps)


@router.get(f"{RUN}/details", name="azureml.runs.details")
def details(run: str, scope: Scoped, work: ScopedWork, shared: Shared, reader: Reader) -> JSONResponse:
    """Status, error and logs of a run, which the client asks for again and again while it prints them."""
    found = run_of(work, run)
    job = logged(work, found.job)
    logs = {name: _log_address(shared, scope, reader, job, path) for name, path in _logs_shown(work, job).items()}
    return JSONResponse({**run_details(found), "logFiles": logs})


@router.post(f"{HISTORY}/rundata", name="azureml.runs.data")
def run_data(body: WireBody, work: ScopedWork, _: Reader) -> JSONResponse:
    """The same run, asked for in another way."""
    name = from_wire([Field("run", "runId")], body).get("run")
    if not isinstance(name, str):
        raise InvalidEntityError('Say which run: {"runId": "<job>"}.')
    return JSONResponse({"runMetadata": run_resource(work, run_of(work, name))})


@router.patch(f"{HISTORY}/experiments/{{experiment}}/runs/{{run}}", name="azureml.runs.update")
def update(run: str, body: WireBody, work: ScopedWork, _: Operator) -> JSONResponse:
    """Change what is said of a run, or hide it: description, display name, tags and properties are merged."""
    job = run_of(work, run).job
    change = from_wire(CHANGE_FIELDS, body)
    hidden = change.pop("hidden", None)
    for key in ("tags", "properties"):
        if key in change:  # what is ours to say comes back with the rest
            change[key] = {name: text for name, text in change[key].items() if not name.startswith("azureml.")}
    if change:
        job = work.jobs.update(job.name, **change)
    if hidden is not None:
        job = work.jobs.archive(job.name) if hidden else work.jobs.restore(job.name)
    return JSONResponse(run_resource(work, run_of(work, run)))


@router.post(f"/data/v1.0{WORKSPACE}/dataversion/batchGetResolvedUris", name="azureml.runs.resolved")
def resolved(body: WireBody, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """Where outputs of runs lie, as addresses in datastores."""
    wanted = from_wire([Field("values", "values")], body).get("values")
    found = {}
    for asset in wanted if isinstance(wanted, list) else []:
        address = _address_of(work, str(asset))
        if address is not None:
            found[asset] = {"uri": address.replace("azureml:/", f"azureml:/{_long_path(scope)}", 1)}
    return JSONResponse({"values": found})


@router.get(f"{LOGS}/{{path:path}}", name="azureml.runs.log")
def read_log(run: str, path: str, work: ScopedWork, _: SignedReader) -> StreamingResponse:
    """A log as the client prints it: always the whole of it, as it counts the lines that it has printed already."""
    found = run_of(work, run)
    text = execution_log(work, found.job) if path == EXECUTION_LOG else log_of(work, found.job, path)
    return StreamingResponse(text, media_type="text/plain; charset=utf-8")


def run_resource(work: Workspace, run: Run) -> dict[str, Any]:
    """A run as the history shows it."""
    job = run.job
    moved = [moment for moment in (job.created_at, job.started_at, job.finished_at) if moment is not None]
    body = job.body()
    said = {
        **body,
        "run": run.name,
        "parent": job.name if run.is_child else job.parent_job_name,
        "root": job.parent_job_name or job.name,
        "status": status_of(job),
        "shown_as": BATCH_SCORING if run.is_child else job.step_name or job.display_name or job.name,
        "experiment": experiment_of(job),
        "tags": {} if run.is_child else tags_of(job),
        "run_properties": {**job.properties, "azureml.moduleName": _module_name(work, run), **_reused(job)},
        "outputs_there": {
            name: {"assetId": f"azureml://jobs/{run.name}/outputs/{name}", "type": kind}
            for name, (kind, _) in outputs_of(work, job).items()
        },
        "last_change_at": max(moved).isoformat().replace("+00:00", "Z") if moved else None,
    }
    return to_wire(RUN_FIELDS, said)


def run_details(run: Run) -> dict[str, Any]:
    """How a run goes on: its status and, when it has failed, why."""
    job = run.job
    found: dict[str, Any] = {
        "runId": run.name,
        # Not CancelRequested: at that word the client stops printing, before it is known how the job ended.
        "status": AZURE_STATUS[job.status],
        "properties": job.properties,
        "warnings": [{"message": notice} for notice in job.notices],
    }
    if job.error is not None:
        message = "\n".join(part for part in (job.error.message, job.error.traceback) if part)
        code = "".join(word.capitalize() for word in job.error.code.split("_"))
        found["error"] = {"error": {"code": code, "message": message, "details": []}}
    return found


def execution_log(work: Workspace, job: Job) -> Iterator[bytes]:
    """How a job goes on and, once it is over, how it ended. It only grows: nothing above its end ever changes."""
    if job.type == "pipeline":
        yield f"Pipeline job {job.name}\n".encode()
        yield from log_of(work, job, "logs/pipeline.log", missing_is_empty=True)
    else:
        source = next((given.path for given in job.inputs.values()), "its input")
        yield f"Job {job.name}: {job.endpoint_name}/{job.deployment_name} scores {source}\n".encode()
        yield from log_of(work, job, OVERVIEW, missing_is_empty=True)
    if job.status.is_finished:
        yield "".join(f"{line}\n" for line in _ending(work, job)).encode(errors="backslashreplace")


def log_of(work: Workspace, job: Job, path: str, *, missing_is_empty: bool = False) -> Iterator[bytes]:
    """A log of the job's folder, in pieces. Raises ``NotFoundError``, unless a missing one counts as empty."""
    try:
        piece = work.jobs.read_log(job.name, path)
    except NotFoundError:
        if missing_is_empty:
            return iter(())
        raise
    return _pieces(work, job, path, piece)


def _pieces(work: Workspace, job: Job, path: str, first: bytes) -> Iterator[bytes]:
    piece, offset = first, 0
    while piece:
        yield piece
        offset += len(piece)
        piece = work.jobs.read_log(job.name, path, offset=offset)


def _ending(work: Workspace, job: Job) -> Iterator[str]:
    """Receipt, errors and outputs of a job that is over."""
    yield f"Job {job.name} is {job.status}."
    receipt = job.receipt
    if receipt is not None:
        yield (
            f"Receipt: {receipt.items} {receipt.unit} = {receipt.ok} ok + {receipt.failed} failed + "
            f"{receipt.skipped} skipped; {receipt.output_rows} rows written."
        )
    if job.type == "scoring":
        for failure in work.jobs.errors(job.name, ERRORS_TOLD):
            place = str(failure.get("file") or "an item")
            place += f", row {failure['row']}" if failure.get("row") is not None else ""
            yield f"Failed: {place}: {failure.get('exception') or failure.get('error')}: {failure.get('message')}"
        if receipt is not None and receipt.failed > ERRORS_TOLD:
            yield f"… and {receipt.failed - ERRORS_TOLD} more; the errors file lists all."
    if job.error is not None:
        yield f"Error: {job.error.message}"
    for name, (_, address) in outputs_of(work, job).items():
        yield f"Output {name}: {address}"


def _logs_shown(work: Workspace, job: Job) -> dict[str, str]:
    """The logs that are offered: name → path. Those of single workers are in the folder that is downloaded."""
    near = [path for path, _ in work.jobs.logs(job.name) if path.removeprefix("logs/user/").count("/") <= 1]
    shown = {path: path for path in near}
    if job.type == "command":
        return {**shown, STD_LOG: OWN_STD_LOG} if OWN_STD_LOG in shown else shown
    return {EXECUTION_LOG: EXECUTION_LOG, **shown}


def _log_address(shared: Context, scope: Scope, reader: Token, job: Job, path: str) -> str:
    """Where a log is read without a token: the client sends none."""
    place = LOGS.format(
        subscription=scope.subscription,
        resource_group=scope.resource_group,
        workspace=scope.workspace,
        run=quote(job.name),
    )
    return f"{scope.base}{signed(shared, f'{place}/{quote(path)}', reader, seconds=LOG_SECONDS)}"


_OUTPUT = re.compile(r"^azureml://jobs/(?P<run>[^/]+)/outputs/(?P<output>[^/]+)$")


def _address_of(work: Workspace, asset: str) -> str | None:
    """Where an output lies that ``run_resource`` named."""
    match = _OUTPUT.match(asset)
    if match is None:
        return None
    known = outputs_of(work, run_of(work, match["run"]).job)
    return known[match["output"]][1] if match["output"] in known else None


def _long_path(scope: Scope) -> str:
    """What stands between ``azureml:/`` and ``/datastores/…`` in the long form of an address."""
    return f"/subscriptions/{scope.subscription}/resourcegroups/{scope.resource_group}/workspaces/{scope.workspace}"


def _module_name(work: Workspace, run: Run) -> str:
    """The name of the component that a run is of; notebooks look their steps up by it."""
    job = run.job
    if run.is_child:
        return BATCH_SCORING
    if job.parent_job_name is None or job.step_name is None:
        return job.display_name or job.name
    pipeline = work.registry.jobs.get(job.parent_job_name).pipeline or {}
    component = _component_of(pipeline, job.step_name)
    return component or job.step_name


def _component_of(pipeline: Mapping[str, Any], step: str) -> str | None:
    given = pipeline.get("jobs", {}).get(step, {}).get("component")
    if isinstance(given, Mapping):
        given = given.get("properties", {}).get(DECLARED_NAME) or given.get("name")
    return str(given).removeprefix("azureml:").partition(":")[0] if given else None


def _reused(job: Job) -> dict[str, str]:
    """What the client goes by to download the outputs of the job that did the work."""
    if job.reused_job_name is None:
        return {}
    return {"azureml.isreused": "true", "azureml.reusedrunid": job.reused_job_name}
