"""Jobs: all of them, and one with its progress, plots, errors, logs, outputs and receipt, as it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

from fastapi import APIRouter
from fastapi.responses import Response

from batchpoint.entities.base import AssetKind, parse_reference
from batchpoint.entities.job_queries import JobQuery, JobSort
from batchpoint.entities.jobs import Job, JobStatus, Reason
from batchpoint.entities.pipelines import Pipeline, dependencies
from batchpoint.entities.run_reports import ErrorGroups, Histograms, RunReport
from batchpoint.entities.secrets import without_secrets
from batchpoint.errors import DatastoreError, InputError, InvalidEntityError, NotFoundError
from batchpoint.operations.file_previews import Preview, preview_of
from batchpoint.operations.invoking import asked_again, can_run_again
from batchpoint.server.given_paths import check_invoke_paths
from batchpoint.server.streams import HoldingResponse
from batchpoint.server.studio.live import APART_SECONDS, LiveParts, Parts, still_here, stream
from batchpoint.server.studio.rendering import HEADERS, Facts, Page, Visit, Visited, page, see_other
from batchpoint.server.studio.sessions import SentForm
from batchpoint.server.waiting import with_place

router = APIRouter(prefix="/jobs")

ON_A_PAGE = 50
WORDS_SEARCHED = 8
STEPS_SHOWN = 500
PREVIEWED_FILES = 3
"""Outputs of a job that are previewed; others are listed."""
FILES_SHOWN = 200
LIVE = ("job_state", "job_steps", "job_plots", "job_errors", "job_files")
"""Parts of a job's page that change while it goes on: a template, and an element of the page, for each."""
SORTS: Mapping[str, str] = {
    "-queued": "newest first",
    "queued": "oldest first",
    "-started": "last started first",
    "-finished": "last ended first",
    "name": "by name",
    "endpoint": "by endpoint",
    "status": "by status",
}
"""Orders of the list of jobs, and their words; ``-`` means downwards."""


class JobsPage(Page):
    """Some jobs."""

    jobs: Sequence[Job]
    found: int
    """How many there are on all pages."""
    status: JobStatus | None
    endpoint: str | None
    search: str
    since: date | None
    until: date | None
    """Days, in UTC; jobs queued on the last are among them."""
    ended: datetime | None
    """Only those that ended since then, in UTC."""
    wrong: bool
    """Only those that failed, or in which items did, and that no retry has put right."""
    archived: bool
    sort: str
    sorts: Mapping[str, str] = SORTS
    statuses: Sequence[JobStatus] = tuple(JobStatus)
    earlier: str | None
    later: str | None
    """Addresses of the pages before and after; None where there is none."""


class OutputFile(Facts):
    """A published file."""

    path: str
    output: str
    size: int
    preview: Preview | None = None
    """Its beginning, of the first files that are a table or a picture."""
    histograms: Histograms | None = None
    """Of its numbers."""


class Source(Facts):
    """An asset that a job was made from."""

    what: str
    reference: str
    kind: AssetKind | None = None
    name: str | None = None
    version: str | None = None
    """Of a registered asset."""


class JobPage(Page):
    """One job."""

    job: Job
    steps: Sequence[Job]
    """Of a pipeline: the jobs of its steps, as far as they were started."""
    reads: Mapping[str, Sequence[str]]
    """Of a pipeline: for each of its steps those whose outputs it reads."""
    report: RunReport | None
    waited: float | None
    """Seconds in the queue, until now while it is there."""
    errors: ErrorGroups
    logs: Sequence[tuple[str, int]]
    """Path and size."""
    outputs: Sequence[OutputFile]
    outputs_left_out: int
    """Published files that the page does not list."""
    outputs_missing: str | None
    """Why the outputs cannot be shown."""
    sources: Sequence[Source]
    parameters: Mapping[str, str]
    """Settings that it ran with. Of environment variables only the names: their values may be secrets."""
    repair: Job | None
    """The retry that left nothing failed."""
    retries: Sequence[str]
    """Jobs that scored again what failed in this one."""
    offers: Sequence[str]
    """What can be done with the job now: ``cancel``, ``retry-failed``, ``run-again``."""

    @property
    def by_step(self) -> Mapping[str, Job]:
        """The jobs of steps by their names."""
        return {str(step.step_name): step for step in self.steps}


@page(router, "", "jobs.html")
def jobs(
    visit: Visited,
    status: str = "",
    endpoint: str = "",
    search: str = "",
    since: str = "",
    until: str = "",
    ended: str = "",
    sort: str = "-queued",
    after: str = "",
    before: str = "",
    *,
    wrong: bool = False,
    archived: bool = False,
) -> JobsPage:
    """Jobs, filtered, searched and sorted."""
    wanted = JobStatus(status) if status in set(JobStatus) else None
    sort = sort if sort in SORTS else "-queued"
    first_day, last_day, ended_since = _day(since), _day(until), _minute(ended)
    listing = visit.work.jobs.find(
        JobQuery(
            status=wanted,
            endpoint=endpoint or None,
            words=search.split()[:WORDS_SEARCHED],
            queued_since=_midnight(first_day) if first_day else None,
            queued_until=_midnight(last_day) + timedelta(days=1) if last_day else None,
            ended_since=ended_since,
            went_wrong=wrong,
            archived=archived,
            sort=cast("JobSort", sort.removeprefix("-")),
            descending=sort.startswith("-"),
            after=after or None,
            before=(before or None) if not after else None,
            limit=ON_A_PAGE,
        )
    )
    filters = {"status": wanted, "endpoint": endpoint, "search": search, "archived": "true" if archived else None}
    filters |= {
        "since": str(first_day or ""),
        "until": str(last_day or ""),
        "ended": f"{ended_since:%Y-%m-%dT%H:%M}" if ended_since else None,
        "wrong": "true" if wrong else None,
        "sort": sort if sort != "-queued" else None,
    }
    shown = listing.jobs
    return JobsPage(
        title="Jobs",
        jobs=shown,
        found=listing.found,
        status=wanted,
        endpoint=endpoint or None,
        search=search,
        since=first_day,
        until=last_day,
        ended=ended_since,
        wrong=wrong,
        archived=archived,
        sort=sort,
        earlier=visit.at.jobs(**filters, before=shown[0].name) if shown and listing.has_earlier else None,
        later=visit.at.jobs(**filters, after=shown[-1].name) if shown and listing.has_later else None,
    )


def _day(text: str) -> date | None:
    """The day that a form was given; None for what is none, and for the last of all, which has no next."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day < date.max else None


def _minute(text: str) -> datetime | None:
    """The time, in UTC, that a form was given; None for what is none."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@page(router, "/{name}", "job.html")
def job(visit: Visited, name: str) -> JobPage:
    """One job."""
    return _page_of(visit, name)


@router.get("/{name}/live", name="studio.job_live", include_in_schema=False)
def live(visit: Visited, name: str) -> HoldingResponse:
    """The parts of the job's page that change, as they change."""
    queued_at = visit.work.jobs.get(name).queued_at  # an unknown job is an error, not an empty stream
    context, changes = visit.shared, visit.shared.background.changes
    live_parts: LiveParts = visit.request.app.state.live_parts
    seen, allowed = changes.count, still_here(visit)

    def make() -> tuple[Mapping[str, str], bool]:
        made = _page_of(visit, name)
        # Whose visit made them does not matter: they hold no form, and whoever may look at all may see every job.
        return {part: visit.fragment(f"_{part}.html", made) for part in LIVE}, made.job.status.is_finished

    def parts() -> tuple[Parts, bool]:
        return live_parts.of((visit.work.name, name, str(queued_at)), make)

    def wait(seconds: float) -> bool:
        nonlocal seen
        time.sleep(APART_SECONDS)
        seen = changes.wait(seen, seconds)
        return allowed()

    return HoldingResponse(
        stream(parts, wait), context.take_waiting_place(), media_type="text/event-stream", headers=HEADERS
    )


@router.post("/{name}/cancel", name="jobs.cancel", include_in_schema=False)
def cancel(visit: Visited, name: str, _: SentForm) -> Response:
    """Ask for the job to be canceled."""
    visit.shared.background.cancel(visit.work, name)
    return see_other(visit.at.job(name))


@router.post("/{name}/retry-failed", name="jobs.retry_failed", include_in_schema=False)
def retry_failed(visit: Visited, name: str, _: SentForm) -> Response:
    """Score again what failed, and show the job that does."""
    again = visit.work.jobs.retry_failed(name, by=visit.visitor.name)
    return see_other(visit.at.job(again.name))


@router.post("/{name}/run-again", name="jobs.run_again", include_in_schema=False)
def run_again(visit: Visited, name: str, _: SentForm) -> Response:
    """Ask once more for what the job was asked for, and show the new one."""
    work, before = visit.work, visit.work.jobs.get(name)
    if before.type == "pipeline":
        again = work.pipelines.submit(
            work.pipelines.from_job(name),
            by=visit.visitor.name,
            endpoint_name=before.endpoint_name,
            deployment_name=before.deployment_name,
        )
        return see_other(visit.at.job(again.name))
    request = asked_again(before)
    check_invoke_paths(visit.shared, request)
    again = work.endpoints.invoke(str(before.endpoint_name), request, by=visit.visitor.name)
    return see_other(visit.at.job(again.name))


def _page_of(visit: Visit, name: str) -> JobPage:
    work = visit.work
    found = with_place(work, work.jobs.get(name))
    outputs, left_out, missing = _outputs(visit, found)
    errors = _errors(visit, name)
    is_pipeline = found.type == "pipeline"
    return JobPage(
        title=found.display_name or found.name,
        job=found,
        steps=sorted(work.jobs.list(parent=name, limit=STEPS_SHOWN), key=_by_start) if is_pipeline else (),
        reads=_reads(found),
        report=work.jobs.run_report(found),
        waited=_waited(found),
        errors=errors,
        logs=work.jobs.logs(name),
        outputs=outputs,
        outputs_left_out=left_out,
        outputs_missing=missing,
        sources=_sources(found),
        parameters=_parameters(found),
        repair=work.jobs.get(found.repaired_by) if found.repaired_by else None,
        retries=[each.name for each in work.jobs.retries(name)],
        offers=_offers(found, is_whole=not errors.groups),
    )


def _errors(visit: Visit, name: str) -> ErrorGroups:
    """What failed; nothing where the file that says so is gone or its store does not answer, as the outputs tell."""
    try:
        return visit.work.jobs.error_groups(name)
    except (DatastoreError, InputError, NotFoundError):
        return ErrorGroups(groups=[], items=0, is_whole=False)


def _offers(found: Job, *, is_whole: bool) -> list[str]:
    if not found.status.is_finished:
        return ["cancel"]
    offers = []
    # Nothing failed where all is published; or withheld, as the same rows would be again.
    has_ended_well = found.status is JobStatus.COMPLETED or found.reason is Reason.QUALITY_CHECK_FAILED
    is_done = (is_whole and has_ended_well) or found.repaired_by is not None
    if found.type != "command" and found.sample is None and not is_done:
        offers.append("retry-failed")
    if can_run_again(found):
        offers.append("run-again")
    return offers


def _by_start(step: Job) -> str:
    return str(step.started_at or step.queued_at or "")


def _waited(found: Job) -> float | None:
    if found.queued_at is None or (found.started_at is None and found.status.is_finished):
        return None
    return ((found.started_at or datetime.now(UTC)) - found.queued_at).total_seconds()


def _reads(found: Job) -> dict[str, list[str]]:
    if found.pipeline is None:
        return {}
    steps = Pipeline.model_validate(found.pipeline).jobs
    return {name: sorted(dependencies(step)) for name, step in steps.items()}


def _sources(found: Job) -> list[Source]:
    """Model, environment, code and data, with where each is registered."""
    deployment, command = found.deployment, found.command
    given: list[tuple[str, AssetKind, object]] = []
    if deployment is not None:
        code = deployment.code_configuration
        given += [("Model", "model", deployment.model), ("Environment", "environment", deployment.environment)]
        given += [("Code", "code", code.code if code else None)]
    if command is not None:
        given += [("Environment", "environment", command.environment), ("Code", "code", command.code)]
    given += [("Data", "data", found.properties.get("input_asset"))]
    given += [
        (f"Registered from {name}", "data", f"azureml:{output.asset_name}:{output.asset_version}")
        for name, output in found.outputs.items()
        if output.asset_name and output.asset_version
    ]
    return [_source(what, kind, text) for what, kind, text in given if isinstance(text, str)]


def _source(what: str, kind: AssetKind, text: str) -> Source:
    try:
        reference = parse_reference(text) if text.startswith("azureml:") and "//" not in text else None
    except InvalidEntityError:
        reference = None
    if reference is None or reference.version is None:
        return Source(what=what, reference=text)
    return Source(what=what, reference=text, kind=kind, name=reference.name, version=reference.version)


def _parameters(found: Job) -> dict[str, str]:
    if found.deployment is None:
        return {}
    deployment = found.deployment
    told: dict[str, Any] = deployment.settings.model_dump(mode="json", exclude={"environment_variables"})
    told |= told.pop("retry_settings")
    told |= deployment.batchpoint.model_dump(mode="json", exclude_defaults=True, exclude={"model_map"})
    names = {*deployment.environment_variables, *deployment.settings.environment_variables}
    told["environment_variables"] = ", ".join(sorted(names)) or None
    told = without_secrets(told)
    return {
        name.replace("_", " "): value if isinstance(value, str) else json.dumps(value)
        for name, value in told.items()
        if value is not None
    }


def _outputs(visit: Visit, found: Job) -> tuple[list[OutputFile], int, str | None]:
    """The first published files, how many there are more, and why they cannot be shown."""
    files: list[OutputFile] = []
    previews, left_out = 0, 0
    try:
        for name in found.outputs:
            shown = visit.work.jobs.outputs(found.name, name, limit=FILES_SHOWN - len(files))
            left_out += len(found.outputs[name].files) - len(shown)
            for path, size in shown:
                seen, counted = _preview(visit, found, name, path, size) if previews < PREVIEWED_FILES else (None, None)
                previews += seen is not None
                files.append(OutputFile(path=path, output=name, size=size, preview=seen, histograms=counted))
    except (DatastoreError, InputError, NotFoundError) as error:
        return files, left_out, error.message
    return files, left_out, None


def _preview(visit: Visit, found: Job, output: str, path: str, size: int) -> tuple[Preview | None, Histograms | None]:
    """The beginning of a table or a picture; None for all else, and for failed items: they have their own place."""
    if path.endswith(("errors.jsonl", "errors.parquet")):
        return None, None
    with visit.work.jobs.open_output(found.name, path, output) as file:
        seen = preview_of(path, file, size)
    if seen.kind not in ("table", "image"):
        return None, None
    return seen, visit.work.jobs.histograms(found, path, output) if seen.kind == "table" else None
