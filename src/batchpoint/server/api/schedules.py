"""Schedules: declare, enable, trigger now, and see what became of each time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from batchpoint.entities.documents import read_body
from batchpoint.entities.schedules import BackfillRequest, RunOutcome, Schedule, ScheduleRun
from batchpoint.server.api.resources import named
from batchpoint.server.api.wire import Paged, answer, as_json, described, merged
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.bodies import JsonBody
from batchpoint.server.context import Context, Shared, Work
from batchpoint.server.given_paths import check_schedule_paths

router = APIRouter(prefix="/schedules", tags=["schedules"])

_SET_BY_SERVER = {"created_at", "modified_at", "created_by", "anchored_at", "next_run_at", "provisioning_state"}


@router.get("", name="schedules.list")
def list_schedules(_: Reader, work: Work, page: Paged, *, enabled: bool | None = None) -> JSONResponse:
    """Schedules by name: all, or only those that are enabled, or not."""
    return page.answer(work.schedules.list(enabled=enabled, limit=page.reach, offset=page.offset))


@router.get("/{name}", name="schedules.get", **described(result=Schedule))
def get_schedule(name: str, _: Reader, work: Work) -> JSONResponse:
    """One schedule."""
    return answer(work.schedules.get(name))


@router.put("/{name}", name="schedules.create_or_update", **described(body=Schedule, result=Schedule))
def create_or_update(name: str, body: JsonBody, caller: Operator, shared: Shared) -> JSONResponse:
    """Create a schedule, or replace the one of that name. It fires from now on unless ``is_enabled`` is false."""
    schedule = _declared(name, body, shared)
    return answer(shared.workspace.schedules.create_or_update(schedule, by=caller.name))


@router.patch("/{name}", name="schedules.update", **described(body=Schedule, result=Schedule))
def update(name: str, body: JsonBody, caller: Operator, shared: Shared) -> JSONResponse:
    """Change the keys that are given; null takes one away."""

    def change(before: Schedule) -> Schedule:
        return _declared(name, merged(before.body(), body), shared)

    return answer(shared.workspace.schedules.update(name, change, by=caller.name))


@router.delete("/{name}", name="schedules.delete", status_code=204)
def delete(name: str, _: Operator, work: Work, *, force: bool = False) -> Response:
    """Delete a schedule and the record of its runs; one that is enabled only with ``force``. Its jobs stay."""
    work.schedules.delete(name, force=force)
    return Response(status_code=204)


@router.post("/{name}/enable", name="schedules.enable", **described(result=Schedule))
def enable(name: str, _: Operator, work: Work) -> JSONResponse:
    """Let a schedule fire again."""
    return answer(work.schedules.enable(name))


@router.post("/{name}/disable", name="schedules.disable", **described(result=Schedule))
def disable(name: str, _: Operator, work: Work) -> JSONResponse:
    """Let a schedule fire no more."""
    return answer(work.schedules.disable(name))


@router.post("/{name}/trigger", name="schedules.trigger", status_code=202, **described(result=ScheduleRun))
def trigger(name: str, caller: Operator, work: Work) -> JSONResponse:
    """Fire a schedule now. The job is queued when this answers; its address is in ``Location``."""
    run = work.schedules.trigger(name, by=caller.name)
    return answer(run, status=202, headers={"Location": f"/api/v1/jobs/{run.job_name}"})


_BACKFILL = described(body=BackfillRequest, result=ScheduleRun)


@router.post("/{name}/backfill", name="schedules.backfill", status_code=202, **_BACKFILL)
def backfill(name: str, body: JsonBody, caller: Operator, work: Work) -> JSONResponse:
    """Start the jobs of times that are over: one for each that has something failed or missing."""
    request = read_body(BackfillRequest, body)
    runs = work.backfills.start_between(name, request, by=caller.name)
    return answer({"value": [as_json(run) for run in runs], "next": None}, status=202)


@router.get("/{name}/upcoming", name="schedules.upcoming")
def upcoming(name: str, _: Reader, work: Work, count: Annotated[int, Query(ge=1, le=1000)] = 10) -> JSONResponse:
    """The next times at which a schedule fires, or would if it were enabled. None for files."""
    return answer({"value": [as_json(time) for time in work.schedules.upcoming(name, count)], "next": None})


@router.get("/{name}/runs", name="schedules.runs")
def runs(name: str, _: Reader, work: Work, page: Paged, *, outcome: RunOutcome | None = None) -> JSONResponse:
    """The times that a schedule fired, or should have, with what became of each; the newest first."""
    return page.answer(work.schedules.runs(name, outcome=outcome, limit=page.reach, offset=page.offset))


def _declared(name: str, body: object, shared: Context) -> Schedule:
    """The schedule of a body whose name stands in the address.

    Raises:
        InvalidEntityError: the body is not valid, names another, or paths that the caller cannot mean.
    """
    given = {key: value for key, value in body.items() if key not in _SET_BY_SERVER} if isinstance(body, dict) else body
    schedule = named(Schedule, given, name)
    check_schedule_paths(shared, schedule)
    return schedule
