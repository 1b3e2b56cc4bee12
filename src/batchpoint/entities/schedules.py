"""Schedules: what starts jobs by itself, when, and what becomes of each time. Pure: the time is handed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, ValidationError, field_validator, model_validator

from batchpoint.entities.base import Entity, Part
from batchpoint.entities.jobs import Input, InvokeRequest
from batchpoint.entities.triggers import (
    FileTrigger,
    RecurrenceTrigger,
    TimeTrigger,
    Trigger,
    next_fire_time,
    previous_fire_time,
)

ScheduleName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,179}$")]
"""The names of its jobs begin with it, and have to stay short enough for the registry."""

CATCH_UP = 100
"""Missed times that ``missed: run_all`` makes up for at most; the older ones are recorded as missed."""

MOST_WAITING = 100
"""So many times of a schedule wait for their turn at most, with ``overlap: queue``."""

FILES = "{{files}}"
"""As the path of an input: the new files that the schedule fired for."""

Cause = Literal["tick", "manual", "files", "backfill"]


class ScheduledInvoke(InvokeRequest):
    """An invoke of an endpoint. Every text in it may hold placeholders such as ``{{window_start}}``."""

    type: Literal["invoke"] = "invoke"
    endpoint_name: str

    @model_validator(mode="after")
    def _named_by_the_schedule(self) -> ScheduledInvoke:
        if self.job_name is not None:
            raise ValueError("job_name is given by the schedule: <schedule>-<time>")
        return self

    def request(self) -> InvokeRequest:
        """What is asked of the endpoint."""
        own = {name: getattr(self, name) for name in InvokeRequest.model_fields}
        return InvokeRequest.model_construct(**own)


class ScheduledJob(Part):
    """A job like another one, as it is written here, or a run of a published pipeline.

    Every text in it may hold placeholders.
    """

    type: Literal["pipeline", "scoring"] | None = None
    """None: that of the job which ``job`` names."""
    job: str | dict[str, Any] | None = None
    """``azureml:<job>``, the job to do again; or a job's YAML in place."""
    published_pipeline: str | None = None
    """Instead of a job: the published pipeline to run, as it is published then. The job is one of its runs."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Take the place of the job's own, one by one."""
    outputs: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    experiment_name: str | None = None
    """None: that of the published pipeline, else the name of the schedule."""
    description: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _job_or_published_pipeline(self) -> ScheduledJob:
        if (self.job is None) == (self.published_pipeline is None):
            raise ValueError("give either 'job' or 'published_pipeline'")
        if self.published_pipeline is not None and self.type == "scoring":
            raise ValueError("a published pipeline is of type 'pipeline'")
        return self

    @property
    def job_name(self) -> str | None:
        """The job that is done again; None when it is written in place, or published."""
        return self.job.removeprefix("azureml:") if isinstance(self.job, str) else None


def _form(value: Any) -> str:
    if isinstance(value, Mapping):
        is_invoke = value.get("type") == "invoke" or "endpoint_name" in value
        return (ScheduledInvoke if is_invoke else ScheduledJob).__name__
    return type(value).__name__


CreateJob = Annotated[
    Annotated[ScheduledInvoke, Tag("ScheduledInvoke")] | Annotated[ScheduledJob, Tag("ScheduledJob")],
    Discriminator(_form),
]


def path_of(given: Any) -> str | None:
    """The path of an input, in whichever form; None for one that has none."""
    return given.path if isinstance(given, Input) else given.get("path") if isinstance(given, Mapping) else None


class ScheduleOptions(Part):
    """What Azure ML leaves open: what becomes of times that were missed, or that come while a job still runs."""

    missed: Literal["skip", "run_once", "run_all"] = "skip"
    """Times that passed while no server ran: left out; made up for by one job whose window covers them all; or by one
    job each (the latest 100)."""
    overlap: Literal["allow", "queue", "skip"] = "allow"
    """When an earlier job of the schedule is not finished: start another one; let the time wait for its turn; or leave
    it out. New files always wait unless ``allow``."""
    late_seconds: float = Field(default=300.0, ge=0)
    """A time counts as missed when nothing could be started for so long."""


class Schedule(Entity):
    """Starts jobs by itself: by the clock, or for new files."""

    name: ScheduleName
    display_name: str | None = None
    trigger: Trigger
    create_job: CreateJob
    batchpoint: ScheduleOptions = Field(default_factory=ScheduleOptions)
    is_enabled: bool = True
    anchored_at: datetime | None = None
    """When its trigger was given, UTC: what a recurrence without ``start_time`` counts from. Set by the server."""
    next_run_at: datetime | None = None
    """When it fires next, UTC; for files, when they are looked for next. Set by the server."""
    provisioning_state: str | None = None

    @field_validator("create_job", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """``azureml:<job>`` alone, and a pipeline that is written in place without a key of its own."""
        if isinstance(value, str):
            return {"job": value}
        if isinstance(value, Mapping) and "job" not in value and {"jobs", "component"} & value.keys():
            return {"type": value.get("type", "pipeline"), "job": dict(value)}
        return value

    @model_validator(mode="after")
    def _reads_what_it_fires_for(self) -> Schedule:
        """New files go to the input whose path is ``{{files}}``; an invoke without inputs takes them as its one."""
        inputs = self.create_job.inputs
        takers = [name for name, given in inputs.items() if path_of(given) == FILES]
        if not isinstance(self.trigger, FileTrigger):
            if takers:
                message = f"{FILES} is known only with a trigger of type 'file'"
                raise ValueError(message)
        elif not takers and not inputs and isinstance(self.create_job, ScheduledInvoke):
            self.create_job.inputs = {"input": Input(path=FILES)}
        elif not takers:
            message = f"no input of create_job takes the new files: give one the path '{FILES}'"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> Schedule:
        moment = datetime(2000, 1, 1, tzinfo=UTC)
        example = Tick(self.name, moment, moment, moment, "job", self.trigger)
        plan = filled(self.create_job.model_dump(exclude_unset=True), example)
        try:
            type(self.create_job).model_validate(plan)
        except ValidationError as refused:
            message = f"create_job is not valid once its placeholders are filled in: {refused.errors()[0]['msg']}"
            raise ValueError(message) from None
        return self

    @property
    def anchor(self) -> datetime:
        """When its trigger was given: known of every schedule that is stored."""
        assert self.anchored_at is not None, "the server says when the trigger was given"
        return self.anchored_at

    def next_time(self, after: datetime) -> datetime | None:
        """When it fires first after ``after``; for files, when they are looked for."""
        if isinstance(self.trigger, FileTrigger):
            return after + timedelta(seconds=self.trigger.poll_seconds)
        return next_fire_time(self.trigger, after, anchor=self.anchor)

    def first_time(self) -> datetime | None:
        """When it fires first of all: at once for a recurrence without ``start_time``, as on Azure ML."""
        at_once = isinstance(self.trigger, RecurrenceTrigger) and self.trigger.start_time is None
        return self.next_time(self.anchor - timedelta(seconds=1) if at_once else self.anchor)

    def window_start(self, end: datetime) -> datetime:
        """The time before ``end`` by the schedule's own calendar; for files, ``end`` itself."""
        if isinstance(self.trigger, FileTrigger):
            return end
        return previous_fire_time(self.trigger, end, anchor=self.anchor)


class RunOutcome(StrEnum):
    """What became of one time that a schedule fired."""

    PENDING = "pending"
    STARTED = "started"
    SKIPPED = "skipped"
    MISSED = "missed"
    FAILED = "failed"


class ScheduleRun(Part):
    """One time that a schedule fired, or should have, and what became of it."""

    id: int
    schedule_name: str
    cause: Cause
    """``tick``: its time had come; ``manual``: somebody asked; ``files``: there were new ones; ``backfill``: somebody
    asked for a time that is over."""
    fire_at: datetime
    window_start: datetime
    window_end: datetime
    outcome: RunOutcome
    job_name: str | None = None
    message: str | None = None
    files: int | None = None
    """How many new files it was for."""
    first_tried_at: datetime | None = None
    """When its job could not be started for the first time, for a reason that may pass."""
    keys: list[dict[str, str | None]] | None = None
    """Of a backfill: the keys that were asked for; None asks for all."""
    broken_tries: int = 0
    """How often starting its job has broken off, for a reason that nobody foresaw."""

    @property
    def idempotency_key(self) -> str:
        """What keeps two servers from starting two jobs for it."""
        return f"schedule:{self.schedule_name}:{self.cause}:{self.fire_at.astimezone(UTC):%Y%m%dT%H%M%S.%f}"


class BackfillRequest(Part):
    """Which times of a schedule, all of them over, are to get a job now."""

    first: datetime
    last: datetime
    """The times from ``first`` to ``last``. Without a time zone both are UTC."""
    keys: list[dict[str, str | None]] = Field(default_factory=list)
    """Of a model map: the keys to score; none means all."""
    done_too: bool = False
    """Also what is done already. Otherwise a job is for the keys that failed or are missing at its time."""

    @field_validator("first", "last")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


@dataclass(frozen=True)
class DueTime:
    """A time that has come, and what is to become of it."""

    fire_at: datetime
    window_start: datetime
    outcome: Literal[RunOutcome.PENDING, RunOutcome.MISSED]
    message: str | None = None


def due_times(schedule: Schedule, due_at: datetime, now: datetime) -> list[DueTime]:
    """What becomes of the times from ``due_at``, the first that was not acted on yet, to ``now``; the oldest first."""
    trigger = schedule.trigger
    assert isinstance(trigger, TimeTrigger)
    until = min(now, trigger.ends_at or now)
    times: list[datetime] = []
    before = until + timedelta(microseconds=1)
    while len(times) < CATCH_UP and (at := schedule.window_start(before)) >= due_at:
        times.insert(0, at)
        before = at
    policy = schedule.batchpoint.missed
    if not times:
        return []
    if policy == "run_once":
        caught_up = None if times[0] == times[-1] else f"Also for the times since {_said(due_at)}, which were missed."
        return [DueTime(times[-1], schedule.window_start(due_at), RunOutcome.PENDING, caught_up)]
    if policy == "skip":
        in_time = (now - times[-1]).total_seconds() <= schedule.batchpoint.late_seconds
        run = times[-1:] if in_time else []
    else:
        run = times
    ran = [DueTime(at, schedule.window_start(at), RunOutcome.PENDING) for at in run]
    if run and run[0] <= due_at:
        return ran
    last = schedule.window_start(run[0]) if run else times[-1]
    span = _said(due_at) if last <= due_at else f"the times from {_said(due_at)} to {_said(last)}"
    message = f"Missed: nothing could be started at {span}. The policy for missed times is {policy!r}."
    return [DueTime(due_at, schedule.window_start(due_at), RunOutcome.MISSED, message), *ran]


@dataclass(frozen=True)
class Tick:
    """What the placeholders of a schedule stand for."""

    schedule_name: str
    fire_time: datetime
    window_start: datetime
    window_end: datetime
    job_name: str
    trigger: Trigger


_PLACEHOLDER = re.compile(
    r"\$\{\{\s*(?P<azure>[\w.]+)\s*\}\}|(?<!\$)\{\{\s*(?P<own>[\w.]+)\s*(?::(?P<form>[^{}]*))?\}\}"
)


def filled(value: Any, tick: Tick) -> Any:
    """``value`` with the placeholders in its texts filled in.

    Raises:
        ValueError: a placeholder is not known.
    """
    if isinstance(value, Mapping):
        return {key: filled(item, tick) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, tick) for item in value]
    return _PLACEHOLDER.sub(lambda match: _filling(match, tick), value) if isinstance(value, str) else value


def _filling(match: re.Match[str], tick: Tick) -> str:
    if match["azure"] is not None:
        known = {"creation_context.trigger_time": _said(tick.fire_time), "name": tick.job_name}
        return known.get(match["azure"], match[0])  # others are bindings of the job itself
    name, local = match["own"].removesuffix(".local"), match["own"].endswith(".local")
    times = {"window_start": tick.window_start, "window_end": tick.window_end, "fire_time": tick.fire_time}
    if name in times:
        at = times[name]
        if local and isinstance(tick.trigger, TimeTrigger):
            at = at.astimezone(tick.trigger.zone)
        return _in_form(at, match["form"]) if match["form"] else at.isoformat() if local else _said(at)
    texts = {"schedule_name": tick.schedule_name, "job_name": tick.job_name, "files": FILES}
    if name in texts and not local and match["form"] is None:
        return texts[name]
    known_names = ", ".join(f"{{{{{each}}}}}" for each in (*times, *texts))
    message = f"{match[0]} is not known. Known: {known_names}; times also as {{{{window_start:%Y-%m-%d}}}}"
    raise ValueError(message)


def _in_form(at: datetime, form: str) -> str:
    """As ``strftime``, but ``%s`` is always the seconds since 1970, which C's takes from the machine's own zone."""
    return at.strftime(re.sub(r"(%%)|%s", lambda found: found[1] or str(int(at.timestamp())), form))


def _said(at: datetime) -> str:
    """ISO 8601, UTC, in whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A time whose job does not start now."""

    waits: bool
    """Whether it waits for its turn; else it is skipped."""
    message: str


def held_back(overlap: Literal["skip", "queue"], active: str | None, earlier: int) -> HeldBack | None:
    """What becomes of a time that is due; None when its job starts.

    Args:
        overlap: the schedule's policy.
        active: which of its jobs is not over, in words.
        earlier: how many earlier times wait for their turn.
    """
    if active is None and not earlier:
        return None
    what = active or "an earlier time waits for its turn"
    if overlap == "skip":
        return HeldBack(False, f"Skipped: {what}. The policy for overlap is 'skip'.")
    if earlier >= MOST_WAITING:
        return HeldBack(False, f"Skipped: {MOST_WAITING} earlier times wait for their turn.")
    return HeldBack(True, f"Waits for its turn: {what}.")


def outdated(schedule: Schedule, run: ScheduleRun) -> str | None:
    """Why a schedule, changed since the run was claimed, starts none like it; None when it does."""
    if (run.files is not None) != isinstance(schedule.trigger, FileTrigger):
        return "the schedule's trigger was changed"
    if not schedule.is_enabled and run.cause not in ("manual", "backfill"):
        return "the schedule was disabled"
    return None
