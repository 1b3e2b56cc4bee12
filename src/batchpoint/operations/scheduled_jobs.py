"""What a schedule starts: its plan, checked when it is stored and made a job of when it is due."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from batchpoint.entities.documents import read_body
from batchpoint.entities.jobs import Input, InvokeRequest, Job, Output
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.entities.pipelines import Pipeline, PipelineSettings
from batchpoint.entities.schedules import (
    FILES,
    Schedule,
    ScheduledInvoke,
    ScheduledJob,
    ScheduleRun,
    Tick,
    filled,
    path_of,
)
from batchpoint.entities.triggers import FileTrigger
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.assets import Assets
from batchpoint.operations.endpoints import Endpoints
from batchpoint.operations.pipeline_deployments import PublishedPipelines
from batchpoint.operations.pipelines import Pipelines
from batchpoint.operations.places import Places, asset_reference
from batchpoint.registry import Registry

MOST_FILES = 10_000
"""One job is started for so many new files at most; the others go to the next one."""


class ScheduledJobs:
    """Makes jobs of the plans of schedules."""

    def __init__(
        self,
        registry: Registry,
        endpoints: Endpoints,
        pipelines: Pipelines,
        published_pipelines: PublishedPipelines,
        assets: Assets,
        places: Places,
    ) -> None:
        self._registry = registry
        self._endpoints = endpoints
        self._pipelines = pipelines
        self._published_pipelines = published_pipelines
        self._assets = assets
        self._places = places

    def check(self, schedule: Schedule, at: datetime) -> None:
        """Look whether what the job refers to is there, as far as that does not depend on the time."""
        tick = Tick(schedule.name, at, schedule.window_start(at), at, "job", schedule.trigger)
        plan = schedule.create_job
        if isinstance(plan, ScheduledInvoke):
            endpoint = self._endpoints.get(plan.endpoint_name)
            self._endpoints.deployment_for(endpoint.name, plan.deployment_name)
        elif self._repeats_an_invoke(plan):
            self._repeated(plan, {"inputs": {}})
        else:
            self._check_pipeline(schedule, plan, tick)
        for path in _paths_of(plan):
            now = filled(path, tick)
            if path == now and asset_reference(path) is not None:
                self._assets.resolve("data", path)
            elif asset_reference(now) is None:
                self._places.resolve(now)

    def takes_keys(self, plan: ScheduledInvoke | ScheduledJob) -> bool:
        """Whether its jobs can be of some keys alone: those of endpoints can, those of pipelines cannot."""
        return isinstance(plan, ScheduledInvoke) or self._repeats_an_invoke(plan)

    def most_files(self, schedule: Schedule) -> int:
        """How many files one job may be for: an input of a pipeline is one file."""
        plan = schedule.create_job
        if isinstance(plan, ScheduledInvoke):
            asked = self._endpoints.deployment_for(plan.endpoint_name, plan.deployment_name)
            return 1 if isinstance(asked, PipelineDeployment) else MOST_FILES
        return MOST_FILES if self._repeats_an_invoke(plan) else 1

    def submit(self, schedule: Schedule, run: ScheduleRun, *, files: Input | None, by: str | None) -> Job:
        """The job of a run, over ``files`` where the schedule waits for some. The one place where it makes jobs."""
        job_name = self._job_name(run)
        at = run.fire_at.replace(microsecond=0) if run.cause == "backfill" else run.fire_at
        tick = Tick(schedule.name, at, run.window_start, at, job_name, schedule.trigger)
        plan = _with_files(_filled_in(schedule.create_job, tick), files)
        experiment_name = plan.experiment_name or schedule.name
        tags = {"schedule": schedule.name, **plan.tags}
        if isinstance(plan, ScheduledJob) and not self._repeats_an_invoke(plan):
            pipeline = self._pipeline(plan)
            if plan.published_pipeline is not None:
                experiment_name = plan.experiment_name or pipeline.experiment_name or schedule.name
            named = {"name": job_name, "experiment_name": experiment_name, "display_name": job_name}
            return self._pipelines.submit(
                pipeline.model_copy(update={**named, "tags": {**pipeline.tags, **tags}}),
                idempotency_key=run.idempotency_key,
                schedule_name=schedule.name,
                published_pipeline=plan.published_pipeline,
                trigger_time=at,
                by=by,
            )
        given = {"inputs": plan.inputs, "job_name": job_name, "experiment_name": experiment_name, "tags": tags}
        if isinstance(plan, ScheduledInvoke):
            endpoint_name, request = plan.endpoint_name, plan.request().model_copy(update=given)
        else:
            endpoint_name, request = self._repeated(plan, given)
        if run.keys is not None:
            request = _of_keys(request, run.keys)
        return self._endpoints.invoke(
            endpoint_name, request, idempotency_key=run.idempotency_key, schedule_name=schedule.name, by=by
        )

    def _check_pipeline(self, schedule: Schedule, plan: ScheduledJob, tick: Tick) -> None:
        """Raise what is wrong with a pipeline, but for data of another time, which need not be there yet."""
        files = Input(path=schedule.trigger.path) if isinstance(schedule.trigger, FileTrigger) else None
        given = _with_files(_filled_in(plan, tick), files).inputs
        of_another_time = {f"inputs.{name}" for name, port in plan.inputs.items() if given[name] != port}
        pipeline = self._pipeline(plan.model_copy(update={"inputs": given}))
        try:
            self._pipelines.validate(pipeline)
        except InvalidEntityError as refused:
            problems = [each for each in refused.details["problems"] if each["place"] not in of_another_time]
            if problems:
                lines = [f"{each['place']}: {each['message']}" for each in problems]
                message = "\n  ".join([f"The pipeline of schedule {schedule.name} is not valid:", *lines])
                raise InvalidEntityError(message, problems=problems) from None

    def _repeats_an_invoke(self, plan: ScheduledJob) -> bool:
        """Whether ``plan`` names the job of a model deployment, and no pipeline.

        Raises:
            NotFoundError: there is no such job.
            InvalidEntityError: the job is not of the type that the plan says, or a step of a pipeline.
        """
        if plan.job_name is None:
            return False
        job = self._registry.jobs.get(plan.job_name)
        if plan.type not in (None, job.type):
            message = f"create_job says that job {job.name} is of type {plan.type}, but it is of type {job.type}."
            raise InvalidEntityError(message)
        if job.type == "scoring" and job.endpoint_name is not None and job.parent_job_name is None:
            if plan.settings:
                message = (
                    f"'settings' are those of a pipeline, and {job.name} is a job of endpoint {job.endpoint_name}."
                )
                raise InvalidEntityError(message)
            return True
        if job.type != "pipeline":
            message = f"Job {job.name} is a step of a pipeline. Name the job of an endpoint, or of the whole pipeline."
            raise InvalidEntityError(message)
        return False

    def _repeated(self, plan: ScheduledJob, given: dict[str, Any]) -> tuple[str, InvokeRequest]:
        """An earlier job of an endpoint as an invoke; it writes to a place of its own."""
        job = self._registry.jobs.get(plan.job_name or "")
        request = InvokeRequest(
            deployment_name=job.deployment_name,
            description=plan.description or job.description,
            overrides=job.overrides,
            outputs=plan.outputs,
        )
        inputs = {**job.inputs, **{key: _as_input(value) for key, value in given["inputs"].items()}}
        return job.endpoint_name or "", request.model_copy(update={**given, "inputs": inputs})

    def _pipeline(self, plan: ScheduledJob) -> Pipeline:
        """The pipeline that is to be run, with the inputs, outputs and settings of the schedule.

        Raises:
            NotFoundError: there is no such job, or no such published pipeline.
            ConflictError: the published pipeline is disabled.
            InvalidEntityError: it is no pipeline, or has no such input or output.
        """
        if plan.published_pipeline is not None:
            pipeline = self._published_pipelines.as_pipeline(plan.published_pipeline)
        elif plan.job_name is not None:
            pipeline = self._pipelines.from_job(plan.job_name)
        else:
            pipeline = read_body(Pipeline, _mapping(plan.job), name="create_job.job")
        data = {name: _as_input(given) for name, given in plan.inputs.items() if isinstance(given, dict | Input)}
        return self._pipelines.with_inputs(
            pipeline,
            inputs=data,
            literals={name: given for name, given in plan.inputs.items() if name not in data},
            outputs={name: read_body(Output, _mapping(given), name=name) for name, given in plan.outputs.items()},
            settings=read_body(PipelineSettings, plan.settings, name="settings") if plan.settings else None,
        )

    def _job_name(self, run: ScheduleRun) -> str:
        """``<schedule>-YYYYMMDDThhmmssZ``, as on Azure ML; with the run's number where that is taken."""
        name = f"{run.schedule_name}-{run.fire_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        return f"{name}-{run.id}" if run.cause != "tick" or self._registry.jobs.exists(name) else name


def _paths_of(plan: ScheduledInvoke | ScheduledJob) -> list[str]:
    """The places that a plan reads and writes, new files apart."""
    ports = [*plan.inputs.values(), *plan.outputs.values()]
    parts = [port if isinstance(port, Input | Output) else _mapping(port) for port in ports]
    parts = [part for part in parts if not (isinstance(part, Input) and part.query)]  # a database, asked when it is due
    paths = [part.get("path") if isinstance(part, dict) else part.path for part in parts]
    more = [path for part in parts if isinstance(part, Input) for path in part.paths]
    return [path for path in [*paths, *more] if isinstance(path, str) and path != FILES]


def _mapping(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def _filled_in(plan: ScheduledInvoke | ScheduledJob, tick: Tick) -> ScheduledInvoke | ScheduledJob:
    try:
        return type(plan).model_validate(filled(plan.model_dump(exclude_unset=True), tick))
    except ValidationError as refused:
        message = f"create_job is not valid once its placeholders are filled in: {refused.errors()[0]['msg']}."
        raise InvalidEntityError(message) from None


def _with_files(plan: ScheduledInvoke | ScheduledJob, files: Input | None) -> ScheduledInvoke | ScheduledJob:
    """The plan with the new files in the inputs that ask for them."""
    if files is None:
        return plan
    inputs = {name: files if path_of(given) == FILES else given for name, given in plan.inputs.items()}
    return plan.model_copy(update={"inputs": inputs})


def _of_keys(request: InvokeRequest, keys: list[dict[str, str | None]]) -> InvokeRequest:
    """The request for some keys alone. What has a place of its own is written beside what lies there, which may be
    the predictions of all keys."""
    beside = {"if_exists": "version"} if any(output.path for output in request.outputs.values()) else {}
    overrides = request.overrides.model_copy(update={"keys": keys, **beside})
    return request.model_copy(update={"overrides": overrides})


def _as_input(given: Any) -> Input:
    if isinstance(given, Input):
        return given
    try:
        return Input.model_validate({"path": given} if isinstance(given, str) else given)
    except ValidationError:
        raise InvalidEntityError(f"{given!r} is not an input. Give a mapping with 'path'.") from None
