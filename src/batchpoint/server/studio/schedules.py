"""Schedules: all of them, and one with its next times and what became of the last; enable, disable, trigger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response

from batchpoint.entities.schedules import Schedule, ScheduledInvoke, ScheduleRun
from batchpoint.entities.triggers import CronTrigger, FileTrigger, Trigger
from batchpoint.server.studio.rendering import Facts, Page, Visited, page, see_other
from batchpoint.server.studio.sessions import SentForm

router = APIRouter(prefix="/schedules")

RUNS_SHOWN = 50


class ScheduleLine(Facts):
    """One schedule in the list."""

    schedule: Schedule
    when: str
    """Its trigger in words."""
    starts: str
    """What it starts, in words."""
    last: ScheduleRun | None


class SchedulesPage(Page):
    """All schedules."""

    lines: Sequence[ScheduleLine]


class SchedulePage(Page):
    """One schedule."""

    schedule: Schedule
    when: str
    starts: str
    has_grid: bool
    """Whether it has times to make a grid of."""
    upcoming: Sequence[tuple[datetime, datetime]]
    """The next times: UTC, and in the schedule's time zone."""
    runs: Sequence[ScheduleRun]


@page(router, "", "schedules.html")
def schedules(visit: Visited) -> SchedulesPage:
    """All schedules."""
    lines = []
    for one in visit.work.schedules.list():
        runs = visit.work.schedules.runs(one.name, limit=1)
        lines.append(
            ScheduleLine(schedule=one, when=in_words(one.trigger), starts=_starts(one), last=next(iter(runs), None))
        )
    return SchedulesPage(title="Schedules", lines=lines)


@page(router, "/{name}", "schedule.html")
def schedule(visit: Visited, name: str) -> SchedulePage:
    """One schedule."""
    found = visit.work.schedules.get(name)
    return SchedulePage(
        title=found.display_name or found.name,
        schedule=found,
        when=in_words(found.trigger),
        starts=_starts(found),
        has_grid=not isinstance(found.trigger, FileTrigger),
        upcoming=[(each.fire_time, each.local_time) for each in visit.work.schedules.upcoming(name)],
        runs=visit.work.schedules.runs(name, limit=RUNS_SHOWN),
    )


@router.post("/{name}/{change}", name="schedules.update", include_in_schema=False)
def changed(visit: Visited, name: str, change: Literal["enable", "disable", "trigger"], _: SentForm) -> Response:
    """Enable a schedule, disable it, or fire it now and show the job."""
    if change == "trigger":
        run = visit.work.schedules.trigger(name, by=visit.visitor.name)
        return see_other(visit.at.job(str(run.job_name)))
    (visit.work.schedules.enable if change == "enable" else visit.work.schedules.disable)(name)
    return see_other(visit.at.schedule(name))


def in_words(trigger: Trigger) -> str:
    """When a trigger fires, for people."""
    if isinstance(trigger, FileTrigger):
        return f"new files in {trigger.path}"
    zone = f" ({trigger.time_zone})"
    if isinstance(trigger, CronTrigger):
        return f"cron {trigger.expression}{zone}"
    unit = trigger.frequency if trigger.interval == 1 else f"{trigger.interval} {trigger.frequency}s"
    return f"every {unit}{zone}"


def _starts(found: Schedule) -> str:
    plan = found.create_job
    if isinstance(plan, ScheduledInvoke):
        return f"endpoint {plan.endpoint_name}"
    if plan.published_pipeline is not None:
        return f"published pipeline {plan.published_pipeline}"
    return f"job {plan.job_name}" if plan.job_name else "a pipeline of its own"
