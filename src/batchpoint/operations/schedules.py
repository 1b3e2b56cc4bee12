"""Schedules: create or update, enable, trigger now; and how the times that they fire become jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from batchpoint.entities.base import Part
from batchpoint.entities.jobs import Job
from batchpoint.entities.schedules import (
    MOST_WAITING,
    RunOutcome,
    Schedule,
    ScheduleRun,
    held_back,
    outdated,
)
from batchpoint.entities.triggers import CronTrigger, FileTrigger, TimeTrigger, fire_times
from batchpoint.errors import BatchpointError, ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.assets import Assets
from batchpoint.operations.endpoints import Endpoints
from batchpoint.operations.pipeline_deployments import PublishedPipelines
from batchpoint.operations.pipelines import Pipelines
from batchpoint.operations.places import Places
from batchpoint.operations.scheduled_jobs import ScheduledJobs
from batchpoint.operations.watched_files import WatchedFiles, cannot_be_taken
from batchpoint.registry import Registry
from batchpoint.registry.changes import repeated
from batchpoint.registry.jobs import ACTIVE_STATUSES

WAIT_SECONDS = 2.0
"""How often a time that waits for its turn is looked at."""
RETRY_SECONDS = 30.0
"""When to try again after a store or the like did not answer."""
RETRY_FOR = timedelta(hours=1)
"""After so long a time whose job could not be started for such a reason has failed."""
MOST_BROKEN_TRIES = 5
"""So often at most it is tried to start a job when that breaks off for a reason that nobody foresaw."""


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
        self._jobs = ScheduledJobs(registry, endpoints, pipelines, published_pipelines, assets, places)
        self._files = WatchedFiles(registry, places)
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
        self._jobs.check(schedule, first or now)
        if before is not None and same_trigger and before.is_enabled:
            first = before.next_run_at
        known = self._files.there_before(schedule, before)
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
            job = self._job_of(schedule, run, by=by)
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
        if keys is not None and not self._jobs.takes_keys(schedule.create_job):
            message = f"Schedule {name} starts a pipeline, which has no keys to choose from. Backfill all of its time."
            raise ConflictError(message)
        wanted = None if keys is None else [dict(key) for key in keys]
        run = self._registry.schedules.record_backfill(name, at, schedule.window_start(at), wanted)
        return self._started_now(schedule, run, by)

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

    def not_started(self, since: datetime, *, limit: int) -> tuple[Sequence[ScheduleRun], int]:
        """The times since then, of all schedules, whose job could not be started or was missed, the newest first; and
        how many there are."""
        return self._registry.schedules.not_started(since, limit=limit)

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
            job = self._job_of(schedule, run, by=schedule.created_by)
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
            (seen, unusable), most = self._files.seen(trigger), self._jobs.most_files(schedule)
        except BatchpointError as error:
            self._registry.schedules.record_failure(schedule.name, error.message)
            self._registry.schedules.look_again(schedule.name, until, following)
            return None
        for path in unusable:
            self._registry.schedules.record_failure(schedule.name, cannot_be_taken(path), only_once=True)
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
        why = outdated(schedule, run)
        if why is None:
            return False
        self._registry.schedules.free_files(run)
        message = f"Skipped: {why} before the job was started."
        self._registry.schedules.finish(run, RunOutcome.SKIPPED, message=message)
        return True

    def _is_held_back(self, schedule: Schedule, run: ScheduleRun) -> bool:
        """Whether a run may not start now; what becomes of it is written down."""
        if schedule.batchpoint.overlap == "allow":
            return False
        pending = self.runs(schedule.name, outcome=RunOutcome.PENDING, limit=MOST_WAITING + 1)
        earlier = [other for other in pending if other.id < run.id and other.cause == "tick"]
        active = self._unfinished(schedule.name)
        held = held_back(
            schedule.batchpoint.overlap, f"job {active[0].name} is {active[0].status}" if active else None, len(earlier)
        )
        if held is None:
            return False
        if held.waits:
            self._registry.schedules.postpone(run, WAIT_SECONDS, held.message)
        else:
            self._registry.schedules.finish(run, RunOutcome.SKIPPED, message=held.message)
        return True

    def _job_of(self, schedule: Schedule, run: ScheduleRun, *, by: str | None) -> Job:
        files = self._files.taken(schedule, run) if isinstance(schedule.trigger, FileTrigger) else None
        return self._jobs.submit(schedule, run, files=files, by=by)

    def _unfinished(self, name: str) -> Sequence[Job]:
        return self._registry.jobs.list(schedule=name, status=ACTIVE_STATUSES, archived="include", limit=1)

    def _take_files_now(self, schedule: Schedule, trigger: FileTrigger) -> ScheduleRun:
        self._registry.schedules.free_failed_files(schedule.name)
        run = self._registry.schedules.take_files(
            schedule.name,
            self._files.seen(trigger)[0],
            until=None,
            settle_seconds=0,
            next_look_at=None,
            most=self._jobs.most_files(schedule),
            cause="manual",
        )
        if run is None:
            raise ConflictError(f"There are no new files in {trigger.path}: each is taken once.")
        return run


def _broken(error: Exception) -> str:
    found = f"{type(error).__name__}: {error}"[:500]
    return f"The job could not be started, by a fault of Batchpoint: {found}. The server's log has more."


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
