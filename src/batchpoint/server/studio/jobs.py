"""Jobs: all of them, and one with its progress, errors, logs, outputs and receipt, as it goes on."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.errors import DatastoreError, NotFoundError
from batchpoint.server.streams import PIECE, HoldingResponse, sent_file
from batchpoint.server.studio import sessions
from batchpoint.server.studio.live import APART_SECONDS, LiveParts, stream
from batchpoint.server.studio.rendering import HEADERS, Facts, Page, Visit, Visited, page, see_other
from batchpoint.server.studio.sessions import SentForm
from batchpoint.server.waiting import with_place

router = APIRouter(prefix="/jobs")

ON_A_PAGE = 50
ERRORS_SHOWN = 100
"""Failed items that a page lists; the errors file has them all."""
LOG_BYTES = 1 << 17
"""Of a log file that a page shows at a time."""
FIRST_BYTES = 1 << 14
"""Of an output that a page previews."""
PREVIEWED_ROWS = 20
PREVIEWED_FILES = 3
"""Outputs of a job that are previewed; others are listed."""
FILES_SHOWN = 200
TEXT_SHOWN = 4_000
"""Characters of a message or traceback that a page shows, counted from the end; the errors file has all."""
ALLOWED_SECONDS = 5.0
"""How often a page that is followed asks whether its reader may still see it."""
LIVE = ("job_state", "job_steps", "job_errors", "job_files")
"""Parts of a job's page that change while it goes on: a template, and an element of the page, for each."""


class JobsPage(Page):
    """Some jobs, the newest first."""

    jobs: Sequence[Job]
    status: JobStatus | None
    endpoint: str | None
    archived: bool
    statuses: Sequence[JobStatus] = tuple(JobStatus)
    before: int | None
    following: int | None
    """Where the pages before and after begin; None where there is none."""


class ErrorGroup(Facts):
    """Failed items with the same exception."""

    exception: str
    count: int
    items: Sequence[Mapping[str, Any]]
    """``file``, ``row``, ``key``, ``message``, ``traceback``; of a pipeline ``step`` and ``job``."""


class OutputFile(Facts):
    """A published file."""

    path: str
    output: str
    size: int
    head: Sequence[Sequence[str]] | None = None
    """The first rows of a csv file, names first."""


class JobPage(Page):
    """One job."""

    job: Job
    steps: Sequence[Job]
    """Of a pipeline."""
    errors: Sequence[ErrorGroup]
    errors_cut: bool
    """Whether there are more failed items than the page lists."""
    logs: Sequence[tuple[str, int]]
    """Path and size."""
    outputs: Sequence[OutputFile]
    outputs_left_out: int
    """Published files that the page does not list."""
    outputs_missing: str | None
    """Why the outputs cannot be shown."""
    offers: Literal["cancel", "retry-failed"] | None
    """What can be done with the job now."""


class LogPage(Page):
    """A piece of a log file; the title is its path."""

    job: str
    text: str
    start: int
    """Where the piece begins in the file, in bytes."""
    earlier: int | None
    later: int | None
    """Where the pieces before and after begin; None where there is none."""
    search: str
    found: int | None
    """Lines of the piece that hold what was looked for."""


@page(router, "", "jobs.html")
def jobs(
    visit: Visited,
    status: str = "",
    endpoint: str = "",
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    *,
    archived: bool = False,
) -> JobsPage:
    """Jobs, filtered."""
    wanted = JobStatus(status) if status in set(JobStatus) else None
    found = visit.work.jobs.list(
        status=wanted,
        endpoint=endpoint or None,
        archived="only" if archived else "exclude",
        limit=ON_A_PAGE + 1,
        offset=offset,
    )
    return JobsPage(
        title="Jobs",
        jobs=found[:ON_A_PAGE],
        status=wanted,
        endpoint=endpoint or None,
        archived=archived,
        before=max(offset - ON_A_PAGE, 0) if offset else None,
        following=offset + ON_A_PAGE if len(found) > ON_A_PAGE else None,
    )


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
    seen, looked_at = changes.count, time.monotonic()

    def make() -> tuple[dict[str, str], bool]:
        made = _page_of(visit, name)
        # Whose visit made them does not matter: they hold no form, and whoever may look at all may see every job.
        return {part: visit.fragment(f"_{part}.html", made) for part in LIVE}, made.job.status.is_finished

    def parts() -> tuple[dict[str, str], bool]:
        return live_parts.of((visit.work.name, name, str(queued_at)), make)

    def wait(seconds: float) -> bool:
        nonlocal seen, looked_at
        time.sleep(APART_SECONDS)
        seen = changes.wait(seen, seconds)
        if time.monotonic() - looked_at >= ALLOWED_SECONDS:
            looked_at = time.monotonic()
            if not sessions.is_still_allowed(visit.request, visit.visitor):
                return False
        return not context.closing.is_set()

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


@page(router, "/{name}/logs/{path:path}", "log.html")
def log(visit: Visited, name: str, path: str, start: int = -LOG_BYTES, search: str = "") -> LogPage:
    """A piece of a log file: its end unless another ``start`` is asked for."""
    size = visit.work.jobs.log_file(name, path).stat().st_size
    begin = max(size + start, 0) if start < 0 else min(start, size)
    piece = visit.work.jobs.read_log(name, path, offset=begin, limit=LOG_BYTES)
    text = piece.decode(errors="replace")
    lines = [line for line in text.splitlines() if search.lower() in line.lower()] if search else None
    return LogPage(
        title=path,
        job=name,
        text=text if lines is None else "\n".join(lines),
        start=begin,
        earlier=max(begin - LOG_BYTES, 0) if begin else None,
        later=begin + LOG_BYTES if begin + LOG_BYTES < size else None,
        search=search,
        found=None if lines is None else len(lines),
    )


@router.get("/{name}/files/{path:path}", name="studio.log_file", include_in_schema=False)
def log_file(visit: Visited, name: str, path: str) -> StreamingResponse:
    """A log file, to be saved."""
    size = visit.work.jobs.log_file(name, path).stat().st_size

    def pieces() -> Iterator[bytes]:
        at = 0
        while at < size and (piece := visit.work.jobs.read_log(name, path, offset=at, limit=PIECE)):
            yield piece
            at += len(piece)

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8", headers=_saved(path))


@router.get("/{name}/outputs/{output}/{path:path}", name="studio.output_file", include_in_schema=False)
def output_file(visit: Visited, name: str, output: str, path: str) -> HoldingResponse:
    """A published file, to be saved."""
    return sent_file(visit.work.jobs.open_output(name, path, output), path, headers=_saved(path))


def _page_of(visit: Visit, name: str) -> JobPage:
    work = visit.work
    found = with_place(work, work.jobs.get(name))
    failed = work.jobs.errors(name, ERRORS_SHOWN + 1)
    outputs, left_out, missing = _outputs(visit, found)
    return JobPage(
        title=found.display_name or found.name,
        job=found,
        steps=sorted(work.jobs.list(parent=name, limit=500), key=_by_start) if found.type == "pipeline" else (),
        errors=_grouped([_shortened(item) for item in failed[:ERRORS_SHOWN]]),
        errors_cut=len(failed) > ERRORS_SHOWN,
        logs=work.jobs.logs(name),
        outputs=outputs,
        outputs_left_out=left_out,
        outputs_missing=missing,
        offers=_offers(found, is_whole=not failed),
    )


def _offers(found: Job, *, is_whole: bool) -> Literal["cancel", "retry-failed"] | None:
    if not found.status.is_finished:
        return "cancel"
    if found.type == "command" or (is_whole and found.status is JobStatus.COMPLETED):
        return None
    return "retry-failed"


def _by_start(step: Job) -> str:
    return str(step.started_at or step.queued_at or "")


def _grouped(failed: Sequence[Mapping[str, Any]]) -> list[ErrorGroup]:
    """Failed items by their exception, the most frequent first."""
    names = [str(item.get("exception") or item.get("code") or "error") for item in failed]
    together: dict[str, list[Mapping[str, Any]]] = {}
    for name, item in zip(names, failed, strict=True):
        together.setdefault(name, []).append(item)
    groups = [ErrorGroup(exception=name, count=len(items), items=items) for name, items in together.items()]
    return sorted(groups, key=lambda group: -group.count)


def _shortened(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[-TEXT_SHOWN:] if isinstance(value, str) else value for key, value in item.items()}


def _outputs(visit: Visit, found: Job) -> tuple[list[OutputFile], int, str | None]:
    """The first published files, how many there are more, and why they cannot be shown."""
    files: list[OutputFile] = []
    previews, left_out = 0, 0
    try:
        for name in found.outputs:
            listed = visit.work.jobs.outputs(found.name, name)
            shown = listed[: FILES_SHOWN - len(files)]
            left_out += len(listed) - len(shown)
            for path, size in shown:
                is_previewed = previews < PREVIEWED_FILES and PurePosixPath(path).suffix == ".csv"
                previews += is_previewed
                head = _head(visit, found.name, name, path) if is_previewed else None
                files.append(OutputFile(path=path, output=name, size=size, head=head))
    except (DatastoreError, NotFoundError) as error:
        return files, left_out, error.message
    return files, left_out, None


def _head(visit: Visit, name: str, output: str, path: str) -> list[list[str]]:
    """The first rows of a csv file that fit into a few kilobytes."""
    with visit.work.jobs.open_output(name, path, output) as file:
        data = file.read(FIRST_BYTES)
    text = data.decode(errors="replace")
    whole = text if len(data) < FIRST_BYTES else text[: text.rfind("\n") + 1]
    rows = csv.reader(io.StringIO(whole, newline=""))
    return list(islice(rows, PREVIEWED_ROWS + 1))


def _saved(path: str) -> dict[str, str]:
    """Headers that make the browser save a file, never show it: it may be HTML that somebody's model wrote."""
    name = PurePosixPath(path).name
    return {**HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
