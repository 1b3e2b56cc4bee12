"""What a job leaves: its logs piece by piece and as they grow, what failed in it, its published files and pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from batchpoint.entities.run_reports import LogHit
from batchpoint.errors import NotFoundError
from batchpoint.operations.error_groups import shortened
from batchpoint.operations.file_previews import LARGEST_IMAGE, image_type
from batchpoint.server.streams import PIECE, HoldingResponse, sent_file
from batchpoint.server.studio.live import event, still_here
from batchpoint.server.studio.rendering import HEADERS, Page, Visited, page

router = APIRouter(prefix="/jobs")

LOG_BYTES = 1 << 17
"""Of a log file that a page shows at a time."""
ERRORS_ON_A_PAGE = 100
LOOK_SECONDS = 1.0
"""How often a log that is followed is looked at."""

Bytes = Annotated[int, Query(ge=0, le=2**62)]


class LogPage(Page):
    """A piece of a log file, or the lines of it that hold what was looked for; the title is its path."""

    job: str
    text: str
    start: int
    end: int
    size: int
    """Where the piece begins and ends in the file, and how long that is, in bytes."""
    is_growing: bool
    """Whether lines may still be added."""
    search: str
    hits: Sequence[LogHit]
    following: int | None
    """Where to go on searching; None when the end was reached."""


class ErrorsPage(Page):
    """Items that failed, in input order."""

    job: str
    exception: str
    pattern: str
    items: Sequence[Mapping[str, Any]]
    """``file``, ``row``, ``key``, ``exception``, ``message``, ``traceback``; of a pipeline ``step`` and ``job``."""
    start: int
    following: int | None
    """Where the next page begins; None at the end."""


@page(router, "/{name}/logs/{path:path}", "log.html")
def log(
    visit: Visited,
    name: str,
    path: str,
    start: Annotated[int, Query(ge=-(2**62), le=2**62)] = -LOG_BYTES,
    until: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    search: str = "",
) -> LogPage:
    """A piece of a log file: its end unless another is asked for. With ``search`` the lines from ``start`` on."""
    jobs = visit.work.jobs
    is_growing = not jobs.get(name).status.is_finished
    shown = jobs.log_piece(name, path, start=start, until=until, limit=LOG_BYTES)
    found = jobs.search_log(name, path, search, start=max(start, 0)) if search else None
    return LogPage(
        title=path,
        job=name,
        text=shown.text if found is None else "",
        start=shown.start,
        end=shown.end,
        size=shown.size,
        is_growing=is_growing,
        search=search,
        hits=found.hits if found else (),
        following=found.following if found else None,
    )


@router.get("/{name}/tail/{path:path}", name="studio.log_tail", include_in_schema=False)
def tail(visit: Visited, name: str, path: str, start: Bytes = 0) -> HoldingResponse:
    """The lines of a log file from ``start`` on, as they are written."""
    jobs = visit.work.jobs
    jobs.log_file(name, path)  # an unknown one is an error, not an empty stream
    allowed = still_here(visit)

    def lines() -> Iterator[str]:
        at, is_over = start, False
        while True:
            shown = jobs.log_piece(name, path, start=at, limit=LOG_BYTES)
            is_cut = shown.end < shown.size
            if shown.end > at and (is_over or is_cut or shown.text.endswith("\n")):
                at = shown.end
                yield event("lines", {"text": shown.text, "end": at})
                continue
            if is_over:
                yield event("end", {})
                return
            is_over = jobs.get(name).status.is_finished
            yield ": still here\n\n"
            if not is_over:
                time.sleep(LOOK_SECONDS)
            if not allowed():
                return

    return HoldingResponse(lines(), visit.shared.take_waiting_place(), media_type="text/event-stream", headers=HEADERS)


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


@page(router, "/{name}/errors", "errors.html")
def errors(visit: Visited, name: str, exception: str = "", pattern: str = "", start: Bytes = 0) -> ErrorsPage:
    """What failed in a job: all, or one group of it."""
    found = visit.work.jobs.error_page(name, exception=exception, pattern=pattern, start=start, limit=ERRORS_ON_A_PAGE)
    return ErrorsPage(
        title=f"What failed in {name}",
        job=name,
        exception=exception,
        pattern=pattern,
        items=[shortened(item) for item in found.items],
        start=start,
        following=found.following,
    )


@router.get("/{name}/outputs/{output}/{path:path}", name="studio.output_file", include_in_schema=False)
def output_file(visit: Visited, name: str, output: str, path: str) -> HoldingResponse:
    """A published file, to be saved."""
    return sent_file(visit.work.jobs.open_output(name, path, output), path, headers=_saved(path))


@router.get("/{name}/pictures/{output}/{path:path}", name="studio.picture", include_in_schema=False)
def picture(visit: Visited, name: str, output: str, path: str) -> Response:
    """A published picture, to be shown: one by its first bytes, and nothing else."""
    with visit.work.jobs.open_output(name, path, output) as file:
        content = file.read(LARGEST_IMAGE + 1)
    kind = image_type(content[:12])
    if kind is None or len(content) > LARGEST_IMAGE:
        raise NotFoundError(f"{path} is no picture that can be shown.", kind="output", name=path, job=name)
    return Response(content, media_type=kind, headers=HEADERS)


def _saved(path: str) -> dict[str, str]:
    """Headers that make the browser save a file, never show it: it may be HTML that somebody's model wrote."""
    name = PurePosixPath(path).name
    return {**HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
