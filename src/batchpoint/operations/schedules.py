"""Schedules: create or update, enable, trigger now; and how the times that they fire become jobs."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from batchpoint.entities.base import Part
from batchpoint.entities.documents import read_body
from batchpoint.entities.jobs import Input, InvokeRequest, Job, Output
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.entities.pipelines import Pipeline, PipelineSettings
from batchpoint.entities.schedules import (
    FILES,
    RunOutcome,
    Schedule,
    ScheduledInvoke,
    ScheduledJob,
    ScheduleRun,
    Tick,
    filled,
    path_of,
)
from batchpoint.entities.triggers import CronTrigger, FileTrigger, TimeTrigger, fire_times
from batchpoint.errors import BatchpointError, ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.assets import Assets
from batchpoint.operations.endpoints import Endpoints
from batchpoint.operations.pipeline_deployments import PublishedPipelines
from batchpoint.operations.pipelines import Pipelines
from batchpoint.operations.places import Places, asset_reference
from batchpoint.registry import Registry
from batchpoint.registry.changes import repeated
from batchpoint.registry.jobs import ACTIVE_STATUSES
from batchpoint.registry.schedules import SeenFile
from batchpoint.storage.inputs import matches

MOST_FILES = 10_000
"""One job is started for so many new files at most; the others go to the next one."""
MOST_WAITING = 100
"""So many times of a schedule wait for their turn at most, with ``overlap: queue``."""
WAIT_SECONDS = 2.0
"""How often a time that waits for its turn is looked at."""
RETRY_SECONDS = 30.0
"""When to try again after a store or the like did not answer."""
RETRY_FOR = timedelta(hours=1)
"""After so long a time whose job could not be started for such a reason has failed."""
MOST_BROKEN_TRIES = 5
"""So often at most it is tried to start a job when that breaks off for a reason that nobody foresaw."""
LONGEST_PATH = 1024


class UpcomingRun(Part):
    """A time at which a schedule will fire."""

    fire_time: datetime
    """UTC."""
    local_time: datetime
    """The same moment in the schedule's time zone."""
    window_start: datetime
    """The time before it, UTC: where its window begins."""


class Schedules:
    """What a user may ask about schedules, and what the scheduler does for them."""

    def __init__(
        self,
        registry: Registry,
        endpoints: Endpoints,
        pipelines: Pipelines,
        published_pipelines: PublishedPipelines,
        assets: Assets,
        places: Places,
        schedule_changed: threading.Event,
    ) -> None:
        self._registry = registry
        self._endpoints = endpoints
        self._pipelines = pipelines
        self._published_pipelines = published_pipelines
        self._assets = assets
        self._places = places
        self._schedule_changed = schedule_changed

    def create_or_update(self, schedule: Schedule, *, by: str | None = None) -> Schedule:
        """Create a schedule, or replace the one of that name. Its times go on unless the trigger is another one.

        All that can be known to fail fails now, and nothing is stored then. A new schedule is enabled; a stored one
        stays as it is unless ``is_enabled`` is given.

        Raises:
            InvalidEntityError: it would never fire, or its job could never be started.
            NotFoundError: what its job refers to does not exist.
            DatastoreError: the folder of its files cannot be read.
        """
        return repeated(lambda: self._stored(schedule, self._find(schedule.name), by))

    def update(self, name: str, change: Callable[[Schedule], Schedule], *, by: str | None = None) -> Schedule:
        """Store what ``change`` makes of a schedule. It is asked again when another change came between.

        Raises:
            NotFoundError: there is none of that name.
            BatchpointError: as ``create_or_update`` does.
        """

        def changed() -> Schedule:
            before = self.get(name)
            return self._stored(change(before), before, by)

        return repeated(changed)

    def _stored(self, schedule: Schedule, before: Schedule | None, by: str | None) -> Schedule:
        now = self._registry.now().replace(microsecond=0)
        same_trigger = before is not None and before.trigger == schedule.trigger
        if before is not None and "is_enabled" not in schedule.model_fields_set:
            schedule = schedule.model_copy(update={"is_enabled": before.is_enabled})
        anchored_at = before.anchored_at if before is not None and same_trigger else now
        schedule = schedule.model_copy(update={"anchored_at": anchored_at, "provisioning_state": "Succeeded"})
        first = schedule.first_time() if before is None else schedule.next_time(now)
        if first is None and not same_trigger:
            raise InvalidEntityError(_never(schedule, now))
        self._check_job(schedule, first or now)
        if before is not None and same_trigger and before.is_enabled:
            first = before.next_run_at
        known = self._files_there_before(schedule, before)
        schedule = schedule.model_copy(update={"next_run_at": first if schedule.is_enabled else None})
        stored = self._registry.schedules.put(schedule, by=by, seen=before, known_files=known)
        self._schedule_changed.set()
        return stored

    def get(self, name: str) -> Schedule:
        """One schedule. Raises ``NotFoundError``."""
        return self._registry.schedules.get(name)

    def list(self, *, enabled: bool | None = None, limit: int | None = None, offset: int = 0) -> Sequence[Schedule]:
        """Schedules by name: all, or only those that are enabled, or not."""
        return self._registry.schedules.list(enabled=enabled, limit=limit, offset=offset)

    def enable(self, name: str) -> Schedule:
        """Let a schedule fire again, from the next time on; new files that came meanwhile are taken.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it would never fire again.
        """

        def change() -> Schedule:
            schedule = self.get(name)
            if schedule.is_enabled:
                return schedule
            now = self._registry.now()
            following = schedule.next_time(now)
            if following is None:
                raise ConflictError(_never(schedule, now))
            return self._registry.schedules.set_enabled(name, enabled=True, next_run_at=following, seen=schedule)

        enabled = repeated(change)
        self._schedule_changed.set()
        return enabled

    def disable(self, name: str) -> Schedule:
        """Let a schedule fire no more until it is enabled. Its jobs go on. Raises ``NotFoundError``."""
        return self._registry.schedules.set_enabled(name, enabled=False, next_run_at=None)

    def delete(self, name: str, *, force: bool = False) -> None:
        """Delete a schedule with the record of its runs. Its jobs stay.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is enabled, and ``force`` was not given.
        """
        if self.get(name).is_enabled and not force:
            raise ConflictError(
                f"Schedule {name} is enabled. Disable it first, or delete it by force.",
                on_command_line=f"batchpoint schedule disable -n {name}, or --force",
            )
        self._registry.schedules.delete(name)

    def trigger(self, name: str, *, by: str | None = None) -> ScheduleRun:
        """Fire a schedule now, enabled or not, whatever runs already. Its times stay as they are.

        The window begins at the time before. A schedule for files takes the new ones without waiting for them to
        settle, and those again whose jobs could not be started.

        Raises:
            NotFoundError: there is no such schedule, or what its job refers to is gone.
            ConflictError: there are no new files.
            BatchpointError: the job could not be started; the run says so too.
        """
        schedule = self.get(name)
        if isinstance(schedule.trigger, FileTrigger):
            run = self._take_files_now(schedule, schedule.trigger)
        else:
            window_start = schedule.window_start(self._registry.now())
            run = self._registry.schedules.record_manual(name, window_start)
        return self._started_now(schedule, run, by)

    def _started_now(self, schedule: Schedule, run: ScheduleRun, by: str | None) -> ScheduleRun:
        """The run of somebody who waits for its job, and is told what is wrong."""
        try:
            job = self._submit(schedule, run, by=by)
        except Exception as error:
            message = error.message if isinstance(error, BatchpointError) else _broken(error)
            self._registry.schedules.finish(run, RunOutcome.FAILED, message=message)
            raise
        return self._registry.schedules.finish(run, RunOutcome.STARTED, job_name=job.name)

    def backfill(
        self,
        name: str,
        at: datetime,
        *,
        keys: Sequence[Mapping[str, str | None]] | None = None,
        by: str | None = None,
    ) -> ScheduleRun:
        """Start the job of a time that is over, whatever became of it then; enabled or not.

        Args:
            name: the schedule.
            at: one of its times, which need not be after it was made.
            keys: for an endpoint whose deployment has a model map, the keys to score. Where the schedule names a place
                for its output, theirs are written beside what lies there. None scores all.
            by: who asks.

        Raises:
            NotFoundError: there is no such schedule, or what its job refers to is gone.
            ConflictError: it waits for files, or starts a pipeline, of which there are no keys.
            InvalidEntityError: it is none of its times, or the time is not over yet.
            BatchpointError: the job could not be started; the run says so too.
        """
        schedule = self.get(name)
        if isinstance(schedule.trigger, FileTrigger):
            raise ConflictError(f"Schedule {name} waits for files and has no times. Trigger it to take new ones.")
        just_after = at + timedelta(microseconds=1)
        if at > self._registry.now() or schedule.window_start(just_after) != at:
            said = f"{at:%Y-%m-%d %H:%M:%S} UTC is no time of schedule {name} that is over."
            raise InvalidEntityError(f"{said} Its last one was {schedule.window_start(self._registry.now())}.")
        if keys is not None and not self._takes_keys(schedule.create_job):
            message = f"Schedule {name} starts a pipeline, which has no keys to choose from. Backfill all of its time."
            raise ConflictError(message)
        wanted = None if keys is None else [dict(key) for key in keys]
        run = self._registry.schedules.record_backfill(name, at, schedule.window_start(at), wanted)
        return self._started_now(schedule, run, by)

    def _takes_keys(self, plan: ScheduledInvoke | ScheduledJob) -> bool:
        return isinstance(plan, ScheduledInvoke) or self._repeats_an_invoke(plan)

    def upcoming(self, name: str, count: int = 10) -> Sequence[UpcomingRun]:
        """The next times at which a schedule fires, or would if it were enabled. None for files.

        Raises:
            NotFoundError: there is none of that name.
        """
        schedule = self.get(name)
        trigger = schedule.trigger
        if not isinstance(trigger, TimeTrigger):
            return []
        after = self._registry.now()
        if schedule.next_run_at is not None:
            after = min(after, schedule.next_run_at - timedelta(microseconds=1))
        times = fire_times(trigger, after, anchor=schedule.anchor, count=count)
        return [
            UpcomingRun(fire_time=at, local_time=at.astimezone(trigger.zone), window_start=schedule.window_start(at))
            for at in times
        ]

    def runs(
        self, name: str, *, outcome: RunOutcome | None = None, limit: int = 50, offset: int = 0
    ) -> Sequence[ScheduleRun]:
        """The times that a schedule fired, or should have, the newest first. Raises ``NotFoundError``."""
        return self._registry.schedules.runs(name, outcome=outcome, limit=limit, offset=offset)

    def start(self, run: ScheduleRun) -> None:
        """Start the job of a run that the caller has claimed, and write down what became of it.

        A run that was claimed before, by a server that was lost, gives the job that was made then. When something
        that may work later fails, or the run has to wait for its turn, it stays pending.
        """
        if self._is_started(run):
            return
        try:
            schedule = self.get(run.schedule_name)
            if self._is_outdated(schedule, run) or (run.cause == "tick" and self._is_held_back(schedule, run)):
                return
            job = self._submit(schedule, run, by=schedule.created_by)
        except BatchpointError as error:
            if self._is_started(run):
                return  # by another server, which took this one for lost
            since = run.first_tried_at or self._registry.now()
            if error.retryable and self._registry.now() - since < RETRY_FOR:
                tried = run.model_copy(update={"first_tried_at": since})
                self._registry.schedules.postpone(tried, RETRY_SECONDS, error.message)
            else:
                self._registry.schedules.finish(run, RunOutcome.FAILED, message=error.message)
        else:
            self._registry.schedules.finish(run, RunOutcome.STARTED, job_name=job.name)

    def broke_off(self, run: ScheduleRun, error: Exception) -> None:
        """Write down that ``start`` broke off for a reason that nobody foresaw: it is tried again, or given up."""
        if self._is_started(run):
            return
        run = run.model_copy(update={"broken_tries": run.broken_tries + 1})
        if run.broken_tries < MOST_BROKEN_TRIES:
            said = f"{_broken(error)} It is tried again: this was try {run.broken_tries} of {MOST_BROKEN_TRIES}."
            self._registry.schedules.postpone(run, RETRY_SECONDS, said)
        else:
            said = f"Given up after {MOST_BROKEN_TRIES} tries. {_broken(error)}"
            self._registry.schedules.finish(run, RunOutcome.FAILED, message=said)

    def look_for_files(self, schedule: Schedule, until: datetime) -> ScheduleRun | None:
        """Look at the folder of a schedule that the caller claimed until then; the run over what is new in it."""
        trigger = schedule.trigger
        assert isinstance(trigger, FileTrigger)
        following = self._registry.now() + timedelta(seconds=trigger.poll_seconds)
        try:
            (seen, unusable), most = self._seen(trigger), self._most_files(schedule)
        except BatchpointError as error:
            self._registry.schedules.record_failure(schedule.name, error.message)
            self._registry.schedules.look_again(schedule.name, until, following)
            return None
        for path in unusable:
            self._registry.schedules.record_failure(schedule.name, _cannot_be_taken(path), only_once=True)
        if schedule.batchpoint.overlap != "allow" and self._unfinished(schedule.name):
            self._registry.schedules.look_again(schedule.name, until, following)
            return None
        return self._registry.schedules.take_files(
            schedule.name,
            seen,
            until=until,
            settle_seconds=trigger.settle_seconds,
            next_look_at=following,
            most=most,
        )

    def _find(self, name: str) -> Schedule | None:
        try:
            return self.get(name)
        except NotFoundError:
            return None

    def _check_job(self, schedule: Schedule, at: datetime) -> None:
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

    def _is_started(self, run: ScheduleRun) -> bool:
        """Whether a job was made for a run already; if so that is written down."""
        made = self._registry.jobs.made_for(run.idempotency_key)
        if made is not None:
            self._registry.schedules.finish(run, RunOutcome.STARTED, job_name=made.name)
        return made is not None

    def _is_outdated(self, schedule: Schedule, run: ScheduleRun) -> bool:
        """Whether the schedule, changed since the run was claimed, starts none like it; that is written down.

        Its files count as new again.
        """
        is_for_files = run.files is not None
        if is_for_files != isinstance(schedule.trigger, FileTrigger):
            why = "the schedule's trigger was changed"
        elif not schedule.is_enabled and run.cause not in ("manual", "backfill"):
            why = "the schedule was disabled"
        else:
            return False
        self._registry.schedules.free_files(run)
        message = f"Skipped: {why} before the job was started."
        self._registry.schedules.finish(run, RunOutcome.SKIPPED, message=message)
        return True

    def _is_held_back(self, schedule: Schedule, run: ScheduleRun) -> bool:
        """Whether a run may not start now; what becomes of it is written down."""
        finish, policy = self._registry.schedules.finish, schedule.batchpoint.overlap
        if policy == "allow":
            return False
        pending = self.runs(schedule.name, outcome=RunOutcome.PENDING, limit=MOST_WAITING + 1)
        earlier = [other for other in pending if other.id < run.id and other.cause == "tick"]
        active = self._unfinished(schedule.name)
        if not active and not earlier:
            return False
        what = f"job {active[0].name} is {active[0].status}" if active else "an earlier time waits for its turn"
        if policy == "skip":
            finish(run, RunOutcome.SKIPPED, message=f"Skipped: {what}. The policy for overlap is 'skip'.")
        elif len(earlier) >= MOST_WAITING:
            finish(run, RunOutcome.SKIPPED, message=f"Skipped: {MOST_WAITING} earlier times wait for their turn.")
        else:
            self._registry.schedules.postpone(run, WAIT_SECONDS, f"Waits for its turn: {what}.")
        return True

    def _unfinished(self, name: str) -> Sequence[Job]:
        return self._registry.jobs.list(schedule=name, status=ACTIVE_STATUSES, archived="include", limit=1)

    def _submit(self, schedule: Schedule, run: ScheduleRun, *, by: str | None) -> Job:
        """The job of a run. The one place where a schedule makes jobs."""
        job_name = self._job_name(run)
        at = run.fire_at.replace(microsecond=0) if run.cause == "backfill" else run.fire_at
        tick = Tick(schedule.name, at, run.window_start, at, job_name, schedule.trigger)
        files = self._taken(schedule, run) if isinstance(schedule.trigger, FileTrigger) else None
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

    def _files_there_before(self, schedule: Schedule, before: Schedule | None) -> Sequence[SeenFile] | None:
        """The files that do not count as new for a schedule; None leaves those that it knows."""
        trigger = schedule.trigger
        if not isinstance(trigger, FileTrigger):
            return []
        seen, _ = self._seen(trigger)
        watched = before.trigger if before is not None else None
        if isinstance(watched, FileTrigger) and watched.path == trigger.path:
            return None
        return [] if trigger.existing else seen

    def _seen(self, trigger: FileTrigger) -> tuple[Sequence[SeenFile], Sequence[str]]:
        """The files in the watched folder, without those that are left alone; and those whose names cannot be told.

        Raises:
            InvalidEntityError: the path is a file, or one that cannot be listed.
            DatastoreError: the store does not answer.
        """
        place, stores = self._places.resolve(trigger.path), self._places.stores()
        if place.url.startswith(("http:", "https:")):
            raise InvalidEntityError(f"{trigger.path} cannot be watched: nothing can be listed over http.")
        if not stores.exists(place.url, place.datastore):
            return [], []  # it is made when the first file comes
        if not stores.is_folder(place.url, place.datastore):
            raise InvalidEntityError(f"{trigger.path} is a file. Give the folder that new files come to.")
        found, unusable = [], []
        for file in stores.list(place.url, place.datastore, recursive=trigger.recursive):
            wanted = not trigger.include or any(matches(file.path, pattern) for pattern in trigger.include)
            if not wanted or any(matches(file.path, pattern) for pattern in trigger.exclude):
                continue
            if _has_an_address(file.path):
                found.append(SeenFile(file.path, file.fingerprint))
            else:
                unusable.append(file.path)
        return found, unusable

    def _most_files(self, schedule: Schedule) -> int:
        """How many files one job may be for: an input of a pipeline is one file."""
        plan = schedule.create_job
        if isinstance(plan, ScheduledInvoke):
            asked = self._endpoints.deployment_for(plan.endpoint_name, plan.deployment_name)
            return 1 if isinstance(asked, PipelineDeployment) else MOST_FILES
        return MOST_FILES if self._repeats_an_invoke(plan) else 1

    def _take_files_now(self, schedule: Schedule, trigger: FileTrigger) -> ScheduleRun:
        self._registry.schedules.free_failed_files(schedule.name)
        run = self._registry.schedules.take_files(
            schedule.name,
            self._seen(trigger)[0],
            until=None,
            settle_seconds=0,
            next_look_at=None,
            most=self._most_files(schedule),
            cause="manual",
        )
        if run is None:
            raise ConflictError(f"There are no new files in {trigger.path}: each is taken once.")
        return run

    def _taken(self, schedule: Schedule, run: ScheduleRun) -> Input:
        """The files of a run, as an input of exactly these.

        One that was taken away or written again since it was found would fail the others' job, or be scored twice.
        """
        assert isinstance(schedule.trigger, FileTrigger)
        place = self._places.resolve(schedule.trigger.path)
        there = set(self._seen(schedule.trigger)[0])
        taken = self._registry.schedules.files_of(run)
        self._registry.schedules.forget_files(run, [file.path for file in taken if file not in there])
        paths = [self._places.below(place, file.path).uri for file in taken if file in there]
        if not paths:
            message = f"All {run.files} files have changed since they were found; they count as new again."
            raise InvalidEntityError(message)
        return Input(path=paths[0], paths=paths[1:])


def _broken(error: Exception) -> str:
    found = f"{type(error).__name__}: {error}"[:500]
    return f"The job could not be started, by a fault of Batchpoint: {found}. The server's log has more."


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


def _of_keys(request: InvokeRequest, keys: builtins.list[dict[str, str | None]]) -> InvokeRequest:
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


def _has_an_address(path: str) -> bool:
    """Whether a file of this name can be named in an address, and kept."""
    try:
        return len(path.encode()) <= LONGEST_PATH and not set(path) & {"\n", "\r", "\\"}
    except UnicodeEncodeError:
        return False


def _cannot_be_taken(path: str) -> str:
    shown = path.encode(errors="surrogateescape")[:200].decode(errors="backslashreplace")
    return (
        f"The file {shown!r} cannot be taken: its path is longer than {LONGEST_PATH} bytes, not UTF-8, or holds a "
        "backslash or an end of line. Rename it. The others are taken."
    )


def _never(schedule: Schedule, now: datetime) -> str:
    """Why a schedule never fires, and what to do."""
    trigger = schedule.trigger
    assert isinstance(trigger, TimeTrigger)
    open_ended = trigger.model_copy(update={"end_time": None})
    head = f"Schedule {schedule.name} would never fire"
    if trigger.ends_at is not None and trigger.ends_at < now:
        return f"{head}: its end_time, {trigger.ends_at:%Y-%m-%dT%H:%M:%SZ}, is over. Give a later one, or none."
    if fire_times(open_ended, now, anchor=schedule.anchor, count=1):
        return f"{head}: none of its times lies between its start_time and its end_time."
    if isinstance(trigger, CronTrigger):
        return f"{head}: there is no day that fits {trigger.expression!r}. Check day of month and month."
    return f"{head}: no day fits its frequency, interval and start_time. Check them, and month_days."
