"""The grid of a schedule, times by keys, and backfills of what is chosen in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.grids import WHOLE, Attempt, Grid, Key, key_of, values_of
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.entities.schedules import BackfillRequest, Schedule, ScheduledInvoke, ScheduleRun
from batchpoint.entities.triggers import FileTrigger
from batchpoint.errors import BatchpointError, ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.jobs import Jobs
from batchpoint.operations.model_maps import ModelMaps
from batchpoint.operations.recent import Recent
from batchpoint.operations.schedules import Schedules
from batchpoint.registry import Registry

MOST_TIMES = 31
"""Columns of a grid."""
MOST_KEYS = 10_000
"""Lines of a grid."""
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
"""Before it no grid ends: the search for the time before another goes back 800 years, and there must be that many."""


class Backfills:
    """What a user may ask about the times of schedules that are over."""

    def __init__(self, registry: Registry, schedules: Schedules, jobs: Jobs, model_maps: ModelMaps) -> None:
        self._registry = registry
        self._schedules = schedules
        self._jobs = jobs
        self._model_maps = model_maps
        self._told = Recent[Attempt]()
        """What finished jobs said, by name and end: thousands of keys each, so that a grid is there at once again."""

    def grid(self, name: str, *, until: datetime | None = None, count: int = 14) -> Grid:
        """What became of each key at the last ``count`` times of a schedule that are over by ``until``.

        Raises:
            NotFoundError: there is no such schedule.
            ConflictError: it waits for files, and has no times.
            InvalidEntityError: ``until`` lies before 1900.
        """
        if until is not None and until < EARLIEST:
            raise InvalidEntityError(f"{until} is too early for a grid. Give a time from {EARLIEST.year} on.")
        schedule = self._schedules.get(name)
        if isinstance(schedule.trigger, FileTrigger):
            raise ConflictError(f"Schedule {name} waits for files, so that it has no times to make a grid of.")
        now = self._registry.now()
        times = times_until(schedule, min(until or now, now), min(count, MOST_TIMES))
        attempts = self._attempts(schedule, times)
        keys = self._keys(schedule, attempts)
        return Grid(times, keys or [WHOLE], attempts)

    def start_between(self, name: str, request: BackfillRequest, *, by: str | None = None) -> Sequence[ScheduleRun]:
        """``start`` for the times of a schedule from one moment to another.

        Raises:
            NotFoundError: there is no such schedule.
            ConflictError: it has no such time that is over, or too many, or nothing is to be done.
            InvalidEntityError: the last moment lies before the first, or before 1900.
            BatchpointError: as ``start`` does.
        """
        if request.last < request.first:
            raise InvalidEntityError(
                f"There is nothing to backfill: until {request.last} lies before from {request.first}. Swap them."
            )
        times = self.grid(name, until=request.last, count=MOST_TIMES).times
        chosen = [time for time in times if time >= request.first]
        if len(chosen) == MOST_TIMES and times[0] > request.first:
            message = f"Schedule {name} has more than {MOST_TIMES} times from {request.first} to {request.last}."
            raise ConflictError(f"{message} Backfill some of them, and then the others.")
        keys = {key_of(key) for key in request.keys}
        return self.start(name, chosen, keys, only_gaps=not request.done_too, by=by)

    def start(
        self, name: str, times: Collection[datetime], keys: Collection[Key], *, only_gaps: bool, by: str | None = None
    ) -> Sequence[ScheduleRun]:
        """Start the jobs of a rectangle of the grid, one for each time that has something to score.

        Args:
            name: the schedule.
            times: times of it that are over.
            keys: keys of its grid; none means all.
            only_gaps: whether to leave out what is done, or being done.
            by: who asks.

        Raises:
            ConflictError: nothing is to be done, or too many times are chosen.
            InvalidEntityError: a key or a time is none of its grid.
            BatchpointError: as ``schedules.backfill`` does, for the first time that cannot be started; the ones before
                it go on.
        """
        if not times or len(times) > MOST_TIMES:
            raise ConflictError(f"Choose 1 to {MOST_TIMES} times to backfill; {len(times)} were chosen.")
        grid = self.grid(name, until=max(times), count=MOST_TIMES)
        if early := next((time for time in times if time not in grid.times), None):
            said = f"{early:%Y-%m-%d %H:%M:%S} UTC is none of the {MOST_TIMES} times of schedule {name}"
            raise InvalidEntityError(f"{said} up to the last one chosen. Choose times of its own, closer together.")
        if odd := next((key for key in keys if key not in grid.keys), None):
            raise InvalidEntityError(f"{odd} is no key of schedule {name}. Its grid tells which there are.")
        asked = grid.rectangle(sorted(times), keys, only_gaps=only_gaps)
        if not asked:
            raise ConflictError("Nothing of what was chosen has failed or is missing, so that there is nothing to do.")
        return [
            self._schedules.backfill(name, at, keys=None if some is None else [values_of(key) for key in some], by=by)
            for at, some in asked.items()
        ]

    def _attempts(self, schedule: Schedule, times: Sequence[datetime]) -> Mapping[datetime, Sequence[Attempt]]:
        """The jobs of each time, and those that tried again what failed in them."""
        if not times:
            return {}
        found: dict[datetime, list[Attempt]] = {time: [] for time in times}
        for run in self._registry.schedules.runs_for(schedule.name, times[0], times[-1]):
            own = [time for time in times if run.window_start < time <= run.fire_at]
            for attempt in self._of_run(str(run.job_name)) if own else ():
                for time in own:  # several where one job makes up for times that were missed
                    found[time].append(attempt)
        return found

    def _of_run(self, job_name: str) -> Iterator[Attempt]:
        try:
            jobs = [self._jobs.get(job_name)]
        except NotFoundError:
            return
        while jobs:
            for job in jobs:
                yield self._attempt(job)
            again = (self._registry.jobs.list(retry_of=job.name, archived="include") for job in jobs)
            jobs = [job for some in again for job in reversed(some)]

    def _attempt(self, job: Job) -> Attempt:
        if not job.status.is_finished:
            return self._read(job)
        return self._told.of((job.name, job.finished_at), lambda: self._read(job))

    def _read(self, job: Job) -> Attempt:
        reports = self._jobs.models(job.name)
        return Attempt(
            job=job.name,
            is_finished=job.status.is_finished,
            went_well=job.status is JobStatus.COMPLETED and not (job.progress and job.progress.failed),
            keys={key_of(report.key): not report.failed and not report.skipped for report in reports},
            asked_for=None if job.overrides.keys is None else frozenset(map(key_of, job.overrides.keys)),
        )

    def _keys(self, schedule: Schedule, attempts: Mapping[datetime, Sequence[Attempt]]) -> Sequence[Key]:
        """The keys that have a model, and those that any job of these times has met."""
        met = {key for some in attempts.values() for attempt in some for key in attempt.keys}
        return sorted({*self._keys_of_map(schedule), *met}, key=_in_order)[:MOST_KEYS]

    def _keys_of_map(self, schedule: Schedule) -> set[Key]:
        plan = schedule.create_job
        if not isinstance(plan, ScheduledInvoke):
            return set()
        try:
            endpoint = self._registry.endpoints.get(plan.endpoint_name)
            name = plan.deployment_name or endpoint.defaults.deployment_name
            deployment = self._registry.deployments.get(endpoint.name, name or "")
            if not isinstance(deployment, BatchDeployment) or deployment.batchpoint.model_map is None:
                return set()
            keys = deployment.batchpoint.partition_keys
            models = self._model_maps.found(deployment.batchpoint.model_map, keys)
        except BatchpointError:
            return set()  # what became of earlier times can be told all the same
        return {key_of(dict(zip(keys, model.key, strict=True))) for model in models}


def times_until(schedule: Schedule, until: datetime, count: int) -> Sequence[datetime]:
    """The last ``count`` times of a schedule's calendar up to ``until``, the oldest first. Pure."""
    times: list[datetime] = []
    before = until + timedelta(microseconds=1)
    while len(times) < count and (at := schedule.window_start(before)) < before:
        times.insert(0, at)
        before = at
    return times


def _in_order(key: Key) -> list[tuple[int, float, str]]:
    """Numbers by their value, and before texts."""
    return [
        (0, float(value), "") if value is not None and value.isdecimal() else (1, 0.0, value or "")
        for value in values_of(key).values()
    ]
