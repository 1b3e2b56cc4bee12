"""Schedules: what starts jobs by itself, and when.

Those that the dialect has no words for, such as for new files, are shown as far as it goes. Whoever reads one and sends
it back, as the client does to enable or disable, changes nothing else: what is left out stays. An action that is given
is another matter: it takes the place of the one before, but for what the dialect has no words for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from batchpoint.entities.documents import read_body
from batchpoint.entities.endpoints import OPTION, as_properties, options_of
from batchpoint.entities.schedules import CreateJob, Schedule, ScheduledInvoke
from batchpoint.entities.triggers import RecurrenceTrigger, TimeTrigger, Trigger
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.azureml.data_plane import INPUT_FIELDS, OUTPUT_FIELDS, read_invoke, write_invoke
from batchpoint.server.azureml.mapping import ANSWERED, NUMBER, TEXTS, Field, Form, from_wire, holds, to_wire, words
from batchpoint.server.azureml.pipelines import definition, job_ports, pipeline_of
from batchpoint.server.azureml.wire import (
    WORKSPACE,
    Scope,
    Scoped,
    ScopedWork,
    WireBody,
    deleted,
    name_in,
    page,
    resource,
    stored_at_once,
)
from batchpoint.server.context import Shared
from batchpoint.server.given_paths import check_schedule_paths
from batchpoint.workspace import Workspace

router = APIRouter(tags=["azureml"], include_in_schema=False)

SCHEDULES = f"{WORKSPACE}/schedules"
SCHEDULE = f"{SCHEDULES}/{{name}}"

INVOKE = "InvokeBatchEndpoint"
"""The action of a schedule that invokes an endpoint. Azure's interface has the word and leaves open what is said with
it: here the body of an invoke, with the names of endpoint and deployment."""

_VIEWS = {"enabledonly": True, "disabledonly": False}


@router.get(SCHEDULES, name="azureml.schedules.list")
def list_schedules(
    scope: Scoped, work: ScopedWork, _: Reader, view: Annotated[str, Query(alias="listViewType")] = "EnabledOnly"
) -> JSONResponse:
    """Schedules by name; those that are enabled, unless others are asked for."""
    found = work.schedules.list(enabled=_VIEWS.get(view.lower()))
    return page(schedule_resource(scope, schedule) for schedule in found)


@router.get(SCHEDULE, name="azureml.schedules.get")
def get_schedule(name: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
    """One schedule."""
    return JSONResponse(schedule_resource(scope, work.schedules.get(name)))


@router.put(SCHEDULE, name="azureml.schedules.create_or_update")
def put_schedule(
    name: str, body: WireBody, scope: Scoped, work: ScopedWork, shared: Shared, caller: Operator
) -> JSONResponse:
    """Create a schedule, or replace what the body says of it."""
    schedule = read_body(Schedule, {**_read(scope, body, _stored(work, name)), "name": name}, name="schedule")
    check_schedule_paths(shared, schedule)
    stored = work.schedules.create_or_update(schedule, by=caller.name)
    return stored_at_once(scope, schedule_resource(scope, stored))


@router.delete(SCHEDULE, name="azureml.schedules.delete")
def delete_schedule(name: str, work: ScopedWork, _: Operator) -> Response:
    """Delete a schedule, which has to be disabled. Its jobs stay."""
    return deleted(lambda: work.schedules.delete(name))


@router.post(f"{SCHEDULE}/trigger", name="azureml.schedules.trigger")
def trigger(name: str, work: ScopedWork, caller: Operator) -> JSONResponse:
    """Start its job now."""
    is_invoke = isinstance(work.schedules.get(name).create_job, ScheduledInvoke)
    run = work.schedules.trigger(name, by=caller.name)
    return JSONResponse({"scheduleActionType": INVOKE if is_invoke else "CreateJob", "submissionId": run.job_name})


def schedule_resource(scope: Scope, schedule: Schedule) -> dict[str, Any]:
    """A schedule as the dialect shows it."""
    options = schedule.batchpoint.model_dump(mode="json", exclude_defaults=True)
    body = {**schedule.body(), "properties": {**schedule.properties, **as_properties(options)}}
    said: dict[str, Any] = to_wire((*_FIELDS, *_trigger_fields(schedule.trigger)), body)["properties"]
    if isinstance(schedule.trigger, RecurrenceTrigger):
        said["trigger"].setdefault("schedule", {"hours": [], "minutes": []})
    said["action"] = _written_action(scope, schedule)
    return resource(scope, "schedules", (schedule.name,), said, entity=schedule)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stored(work: Workspace, name: str) -> Schedule | None:
    try:
        return work.schedules.get(name)
    except NotFoundError:
        return None


def _read(scope: Scope, body: Mapping[str, Any], stored: Schedule | None) -> dict[str, Any]:
    """The body of a schedule of ours."""
    before = stored.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_SET_BY_SERVER) if stored else {}
    given = from_wire((*_FIELDS, *_TRIGGER, *_times()), body)
    if (properties := given.get("properties")) is not None:
        given["batchpoint"] = options_of(before.get("batchpoint", {}), properties)
        given["properties"] = {key: value for key, value in properties.items() if not key.startswith(OPTION)}
    if given.get("trigger", {}).get("type") in (None, "file"):  # of which more is known than the wire says
        given.pop("trigger", None)
    action = from_wire((Field("action", "properties.action", Form(read=dict)),), body).get("action", {})
    shown = _written_action(scope, stored) if stored else {}
    if action and action != shown and str(action.get("actionType")).lower() == INVOKE.lower():
        given["create_job"] = _with_unsaid(stored.create_job if stored else None, _read_invoke(scope, action))
    elif action and action != shown:
        read = _read_action(scope, action)
        if stored is None or isinstance(stored.create_job, ScheduledInvoke) or read != _read_action(scope, shown):
            given["create_job"] = _create_job(read)
    return {**before, **given}


def _read_invoke(scope: Scope, action: Mapping[str, Any]) -> dict[str, Any]:
    """The endpoint that is to be invoked, and what it is asked."""
    said = from_wire((Field("said", "endpointInvocationDefinition", Form(read=dict)),), action).get("said")
    named = from_wire(_INVOKED, said or {})
    if said is None or "endpoint_name" not in named:
        raise InvalidEntityError(
            f"The action {INVOKE} has an endpointInvocationDefinition with an endpointName, beside what an invoke has."
        )
    asked = read_invoke(scope, said if holds(said, "properties") else {"properties": {}})
    body = asked.model_dump(mode="json", exclude_unset=True)
    return {**{key: value for key, value in body.items() if value}, **named, "type": "invoke"}


def _with_unsaid(before: CreateJob | None, read: dict[str, Any]) -> dict[str, Any]:
    """What was read, with what the wire cannot say of an invoke: its challenger, and globs and the like of a place."""
    if not isinstance(before, ScheduledInvoke):
        return read
    stored = before.model_dump(mode="json", exclude_unset=True)
    merged = {**read, **({"challenger": before.challenger} if before.challenger else {})}
    for kind, said in (("inputs", INPUT_FIELDS), ("outputs", OUTPUT_FIELDS)):
        for name, given in read.get(kind, {}).items():
            known = stored.get(kind, {}).get(name, {})
            unsaid = {key: value for key, value in known.items() if key not in {field.ours for field in said}}
            merged[kind] = {**merged[kind], name: {**unsaid, **given}}
    return merged


def _read_action(scope: Scope, action: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be started: ``job``, or the pipeline that is written there, and what it is given."""
    kind, wire = action.get("actionType"), action.get("jobDefinition")
    if not isinstance(wire, Mapping):
        raise InvalidEntityError(
            f"The action of a schedule is CreateJob with a jobDefinition, or {INVOKE}, and this is {kind!r}."
        )
    given = from_wire(_ACTION, wire)
    source = from_wire((Field("job", "sourceJobId", Form(read=name_in)),), wire).get("job")
    if source is None:
        return {**given, "job": pipeline_of(scope, wire).given()}
    ports = from_wire(job_ports(scope), wire)
    return {**given, **ports, "job": f"azureml:{source}"}


def _create_job(action: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a job of a schedule, whose inputs have no modes: they stay as the job has them."""
    ports = {
        kind: {
            name: {key: value for key, value in given.items() if key != "mode"} if isinstance(given, Mapping) else given
            for name, given in action[kind].items()
        }
        for kind in ("inputs", "outputs")
        if kind in action
    }
    return {**action, **ports}


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _written_action(scope: Scope, schedule: Schedule) -> dict[str, Any]:
    plan = schedule.create_job
    if isinstance(plan, ScheduledInvoke):
        said = {**to_wire(_INVOKED, plan.model_dump()), **write_invoke(plan.request())}
        return {"actionType": INVOKE, "endpointInvocationDefinition": said}
    body = plan.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    known = to_wire(_ACTION, body)
    if isinstance(plan.job, dict):
        return {"actionType": "CreateJob", "jobDefinition": {**definition(scope, plan.job), **known}}
    shown = {"jobType": "Pipeline", "jobs": {}, "inputs": {}, "outputs": {}, **known, **to_wire(job_ports(scope), body)}
    if plan.job_name is not None:
        shown["sourceJobId"] = scope.id_of("jobs", plan.job_name)
    return {"actionType": "CreateJob", "jobDefinition": shown}


def _trigger_fields(trigger: Trigger) -> tuple[Field, ...]:
    """Of a trigger for files: that it is one. The client shows none then, and leaves it out when it sends it back."""
    if isinstance(trigger, TimeTrigger):
        return (*_TRIGGER, *_times(trigger.zone))
    return (_TRIGGER[0],)


def _times(zone: tzinfo = UTC) -> tuple[Field, ...]:
    """Start and end: wall times of the trigger's zone, without an offset."""

    def wall_time(text: str) -> str:
        moment = datetime.fromisoformat(text)
        return (moment.astimezone(zone) if moment.tzinfo else moment).replace(tzinfo=None).isoformat()

    form = Form(wall_time)
    return (
        Field("trigger.start_time", "properties.trigger.startTime", form),
        Field("trigger.end_time", "properties.trigger.endTime", form),
    )


_SET_BY_SERVER = {"created_at", "modified_at", "created_by", "anchored_at", "next_run_at", "provisioning_state"}

_FIELDS = (
    Field("display_name", "properties.displayName"),
    Field("description", "properties.description"),
    Field("tags", "properties.tags", TEXTS),
    Field("properties", "properties.properties", TEXTS),
    Field("is_enabled", "properties.isEnabled"),
    Field("provisioning_state", "properties.provisioningState", ANSWERED),
)
_UNLESS_EMPTY = Form(lambda days: days or None)
_TRIGGER = (
    Field("trigger.type", "properties.trigger.triggerType", words(cron="Cron", recurrence="Recurrence", file="File")),
    Field("trigger.expression", "properties.trigger.expression"),
    Field("trigger.frequency", "properties.trigger.frequency"),
    Field("trigger.interval", "properties.trigger.interval", NUMBER),
    Field("trigger.schedule.hours", "properties.trigger.schedule.hours"),
    Field("trigger.schedule.minutes", "properties.trigger.schedule.minutes"),
    Field("trigger.schedule.week_days", "properties.trigger.schedule.weekDays", _UNLESS_EMPTY),
    Field("trigger.schedule.month_days", "properties.trigger.schedule.monthDays", _UNLESS_EMPTY),
    Field("trigger.time_zone", "properties.trigger.timeZone"),
)
_INVOKED = (
    Field("endpoint_name", "endpointName", Form(read=name_in)),
    Field("deployment_name", "deploymentName"),
)
_ACTION = (
    Field("experiment_name", "experimentName", Form(read=lambda given: given or None)),
    Field("description", "description"),
    Field("tags", "tags", TEXTS),
)
