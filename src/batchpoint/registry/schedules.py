"""Schedules, the times that they fired, and the files that they know. The clock's hand of the house.

Each time a schedule fires is a row. Whoever finds a schedule due writes the row and moves the schedule on in one
transaction, so of two servers only one does. He then has the row until ``claimed_until``; when nothing came of it by
then, the next one takes it. What is due is asked of all workspaces at once; all else is about one.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import ColumnElement, Connection, Row, func

from batchpoint.entities.schedules import (
    Cause,
    DueTime,
    RunOutcome,
    Schedule,
    ScheduleRun,
    due_times,
)
from batchpoint.entities.triggers import FileTrigger
from batchpoint.errors import NotFoundError
from batchpoint.registry.changes import check_unchanged
from batchpoint.registry.database import Database
from batchpoint.registry.endpoints import stamped
from batchpoint.registry.scope import EVERYWHERE, Scope
from batchpoint.registry.tables import schedule_files_table as files
from batchpoint.registry.tables import schedule_runs_table as runs
from batchpoint.registry.tables import schedules_table as schedules

SUBMIT_SECONDS = 60.0
"""Whoever claimed a run starts its job within this time, or another one does."""
LOOKING_SECONDS = 60.0
"""Whoever looks for files has so long, or another one looks."""

_THERE_BEFORE = 0
"""In place of a run: files that lay there when the schedule was made."""
_IN_COLUMNS = {"is_enabled", "next_run_at"}


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file that a listing found."""

    path: str
    """Relative to the folder that is watched."""
    fingerprint: str


@dataclass(frozen=True, slots=True)
class DueRuns:
    """Runs that whoever claimed them has to start jobs for."""

    workspace: str
    runs: Sequence[ScheduleRun]


@dataclass(frozen=True, slots=True)
class DueLook:
    """A folder that whoever claimed the look at it has to look at."""

    workspace: str
    schedule: Schedule
    until: datetime
    """Nobody else looks until then. It is for ``take_files``."""


class Schedules:
    """The schedules of one workspace, and what is due in all of them. ``now`` is the clock that they fire by."""

    def __init__(self, database: Database, now: Callable[[], datetime], scope: Scope) -> None:
        self._database = database
        self._now = now
        self._scope = scope

    def put(
        self,
        schedule: Schedule,
        *,
        by: str | None,
        seen: Schedule | None = None,
        known_files: Sequence[SeenFile] | None = None,
    ) -> Schedule:
        """Store a schedule, new or in place of the one of that name; given ``seen``, in place of that one alone.

        ``next_run_at`` says when it is due; one that is as it was seen is left to the scheduler, which may have moved
        on since. ``known_files`` take the place of all files that it knew: they do not count as new.

        Raises:
            ChangedMeanwhileError: another one is stored than was seen.
        """
        key = schedules.c.name == schedule.name

        def work(connection: Connection) -> Schedule:
            before = connection.execute(self._scope.select(schedules).where(key).with_for_update()).first()
            _check_unchanged(before, seen)
            if before and seen and schedule.next_run_at == seen.next_run_at:
                next_run_at = before.next_fire_at
            else:
                next_run_at = schedule.next_run_at
            stored = stamped(schedule, before.body if before else None, self._now(), by)
            stored = stored.model_copy(update={"next_run_at": next_run_at})
            values = {"enabled": stored.is_enabled, "next_fire_at": next_run_at, "body": _body(stored)}
            if before is None:
                connection.execute(self._scope.insert(schedules).values(name=schedule.name, **values))
            else:
                connection.execute(self._scope.update(schedules).where(key).values(values))
            if known_files is not None:
                self._replace_files(connection, schedule.name, known_files)
            return stored

        return self._database.store(work)

    def get(self, name: str) -> Schedule:
        """One schedule.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.read() as connection:
            return _schedule(self._row(connection, name))

    def list(
        self, *, enabled: bool | None = None, limit: int | None = None, offset: int = 0
    ) -> builtins.list[Schedule]:
        """Schedules by name: all, or only those that are enabled, or not."""
        query = self._scope.select(schedules).order_by(schedules.c.name).limit(limit).offset(offset)
        if enabled is not None:
            query = query.where(schedules.c.enabled == enabled)
        with self._database.read() as connection:
            return [_schedule(row) for row in connection.execute(query)]

    def set_enabled(
        self, name: str, *, enabled: bool, next_run_at: datetime | None, seen: Schedule | None = None
    ) -> Schedule:
        """Let a schedule fire, or not; given ``seen``, only when that is what is stored.

        Raises:
            NotFoundError: there is none of that name.
            ChangedMeanwhileError: another one is stored than was seen.
        """
        with self._database.write() as connection:
            _check_unchanged(self._row(connection, name, lock=True), seen)
            values = {"enabled": enabled, "next_fire_at": next_run_at}
            connection.execute(self._scope.update(schedules).where(schedules.c.name == name).values(values))
            return _schedule(self._row(connection, name))

    def delete(self, name: str) -> None:
        """Forget a schedule with its runs and the files that it knows.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.write() as connection:
            if connection.execute(self._scope.delete(schedules).where(schedules.c.name == name)).rowcount == 0:
                raise _no_schedule(name)

    def next_due_at(self) -> datetime | None:
        """When a schedule is due, or a run may be taken over, of any workspace; None when nothing is planned."""
        due = EVERYWHERE.select(schedules, func.min(schedules.c.next_fire_at)).where(schedules.c.enabled)
        claimed = EVERYWHERE.select(runs, func.min(runs.c.claimed_until)).where(
            runs.c.outcome == str(RunOutcome.PENDING)
        )
        with self._database.read() as connection:
            found = [connection.execute(query).scalar() for query in (due, claimed)]
        return min((at for at in found if at is not None), default=None)

    def claim_due(self) -> DueRuns | None:
        """Take the schedule by the clock that has been due for longest: write down what becomes of its times.

        Answers with the runs that the caller has to start jobs for, by ``claimed_until``; None when no schedule is due.
        In one transaction the schedule moves on, so that of two who ask one gets it.
        """
        with self._database.write() as connection:
            row = self._due(connection, files_too=False)
            if row is None:
                return None
            schedule, now, scope = _schedule(row), self._now(), Scope(row.workspace)
            _move_on(connection, scope, row.name, schedule.next_time(now))
            recorded = [
                self._record(connection, scope, schedule.name, "tick", due)
                for due in due_times(schedule, row.next_fire_at, now)
            ]
        pending = [run for run in recorded if run is not None and run.outcome is RunOutcome.PENDING]
        return DueRuns(row.workspace, pending)

    def claim_look(self) -> DueLook | None:
        """Take the file trigger whose folder is to be looked at; None when none is due."""
        with self._database.write() as connection:
            row = self._due(connection, files_too=True)
            if row is None:
                return None
            until = self._now() + timedelta(seconds=LOOKING_SECONDS)
            _move_on(connection, Scope(row.workspace), row.name, until)
            return DueLook(row.workspace, _schedule(row), until)

    def take_files(
        self,
        name: str,
        seen: Sequence[SeenFile],
        *,
        until: datetime | None,
        settle_seconds: float,
        next_look_at: datetime | None,
        most: int,
        cause: Cause = "files",
    ) -> ScheduleRun | None:
        """Note which files there are, and make a run of those that are new and have not changed for a while.

        Each is taken by one run; one that has changed since counts as new. None when there are none, or when somebody
        else looked meanwhile (``until`` is not that of ``claim_look``; None asks whatever anybody does).
        """
        with self._database.write() as connection:
            row = self._row(connection, name, lock=True)
            if until is not None and row.next_fire_at != until:
                return None
            now = self._now()
            of_it = self._scope.select(files).where(files.c.schedule_name == name)
            known = {each.path: each for each in connection.execute(of_it)}
            ready, new = [], []
            for file in seen:
                before = known.get(file.path)
                if before is None:
                    new.append(file)
                    settled = settle_seconds == 0
                elif before.fingerprint != file.fingerprint:
                    self._note_change(connection, name, file, now)
                    settled = settle_seconds == 0
                else:
                    settled = before.run_id is None and now - before.seen_at >= timedelta(seconds=settle_seconds)
                if settled:
                    ready.append(file.path)
            self._note_new(connection, name, new, now, run_id=None)
            if until is not None:
                _move_on(connection, self._scope, name, now if len(ready) > most else next_look_at)
            return self._run_over(connection, name, ready[:most], cause) if ready else None

    def look_again(self, name: str, until: datetime, at: datetime) -> None:
        """Give up a look that could not be finished; the next one is at ``at``."""
        with self._database.write() as connection:
            mine = (schedules.c.name == name, schedules.c.next_fire_at == until)
            connection.execute(self._scope.update(schedules).where(*mine).values(next_fire_at=at))

    def files_of(self, run: ScheduleRun) -> builtins.list[SeenFile]:
        """The files that a run took and that have not been seen changed since, by name."""
        own = (files.c.schedule_name == run.schedule_name, files.c.run_id == run.id)
        query = self._scope.select(files, files.c.path, files.c.fingerprint).where(*own)
        with self._database.read() as connection:
            found = [SeenFile(*row) for row in connection.execute(query)]
        return sorted(found, key=lambda file: file.path.encode())

    def forget_files(self, run: ScheduleRun, paths: Sequence[str]) -> None:
        """Let files that a run took, and that are not there any more as they were, count as new when they come back."""
        with self._database.write() as connection:
            for some in _portions(paths):
                own = (files.c.schedule_name == run.schedule_name, files.c.run_id == run.id, files.c.path.in_(some))
                connection.execute(self._scope.delete(files).where(*own))

    def free_files(self, run: ScheduleRun) -> None:
        """Let the files of a run that starts no job count as new again."""
        with self._database.write() as connection:
            mine = (files.c.schedule_name == run.schedule_name, files.c.run_id == run.id)
            connection.execute(self._scope.update(files).where(*mine).values(run_id=None))

    def free_failed_files(self, name: str) -> None:
        """The same for all runs that failed to start."""
        failed = self._scope.select(runs, runs.c.id).where(runs.c.schedule_name == name)
        failed = failed.where(runs.c.outcome == str(RunOutcome.FAILED))
        with self._database.write() as connection:
            mine = (files.c.schedule_name == name, files.c.run_id.in_(failed))
            connection.execute(self._scope.update(files).where(*mine).values(run_id=None))

    def claim_pending(self) -> DueRuns | None:
        """Take over a run of any workspace that nobody has started a job for in time; None when there is none."""
        pending = (runs.c.outcome == str(RunOutcome.PENDING), runs.c.claimed_until <= self._now())
        query = EVERYWHERE.select(runs).where(*pending).order_by(runs.c.id).limit(1).with_for_update(skip_locked=True)
        with self._database.read() as connection:
            if connection.execute(EVERYWHERE.select(runs, runs.c.id).where(*pending).limit(1)).first() is None:
                return None
        with self._database.write() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            connection.execute(EVERYWHERE.update(runs).where(runs.c.id == row.id).values(claimed_until=self._claim()))
            return DueRuns(row.workspace, [_run(row)])

    def record_manual(self, name: str, window_start: datetime) -> ScheduleRun:
        """Write down that somebody asked for a run now, claimed by the caller.

        Raises:
            NotFoundError: there is no such schedule.
        """
        with self._database.write() as connection:
            self._row(connection, name, lock=True)
            return self._record_now(connection, name, "manual", window_start=window_start)

    def record_backfill(
        self, name: str, at: datetime, window_start: datetime, keys: builtins.list[dict[str, str | None]] | None
    ) -> ScheduleRun:
        """Write down that somebody asked for a time that is over, claimed by the caller.

        When a time is asked for again, that counts as a microsecond later.

        Raises:
            NotFoundError: there is no such schedule.
        """
        with self._database.write() as connection:
            self._row(connection, name, lock=True)
            mine = (runs.c.schedule_name == name, runs.c.cause == "backfill", *_within_second(at))
            last = connection.execute(self._scope.select(runs, func.max(runs.c.fire_at)).where(*mine)).scalar()
            free = at if last is None else last + timedelta(microseconds=1)
            due = DueTime(free, window_start, RunOutcome.PENDING)
            run = self._record(connection, self._scope, name, "backfill", due)
            assert run is not None, "the schedule's row is locked, and the time is free"
            run = run.model_copy(update={"keys": keys})
            connection.execute(self._scope.update(runs).where(runs.c.id == run.id).values(details=_details(run)))
            return run

    def runs_for(self, name: str, first: datetime, last: datetime) -> builtins.list[ScheduleRun]:
        """The runs that have jobs and are for times from ``first`` on, the oldest first; those that make up for
        several times may be for one after ``last``, so the end is open."""
        query = self._scope.select(runs).where(runs.c.schedule_name == name, runs.c.job_name.is_not(None))
        query = query.where(runs.c.cause.in_(["tick", "backfill"]), runs.c.fire_at >= first)
        with self._database.read() as connection:
            found = [_run(row) for row in connection.execute(query.order_by(runs.c.id))]
        return [run for run in found if run.window_start < last]

    def record_failure(self, name: str, message: str, *, only_once: bool = False) -> None:
        """Write down that files could not be looked for; once for as long as it fails in the same way, or at all."""
        with self._database.write() as connection:
            self._row(connection, name, lock=True)
            said = (runs.c.outcome == str(RunOutcome.FAILED)) & (runs.c.message == message[:1024])
            earlier = self._scope.select(runs, said).where(runs.c.schedule_name == name).order_by(runs.c.id.desc())
            earlier = earlier.where(said) if only_once else earlier
            if connection.execute(earlier.limit(1)).scalar():
                return
            run = self._record_now(connection, name, "files")
            self._end(connection, run.id, RunOutcome.FAILED, {"message": message[:1024]})

    def finish(
        self, run: ScheduleRun, outcome: RunOutcome, *, job_name: str | None = None, message: str | None = None
    ) -> ScheduleRun:
        """Write down what became of a run."""
        values = {"job_name": job_name, "message": (message or run.message or "")[:1024] or None}
        with self._database.write() as connection:
            self._end(connection, run.id, outcome, {**values, "details": _details(run)})
        return run.model_copy(update={"outcome": outcome, **values})

    def postpone(self, run: ScheduleRun, seconds: float, message: str) -> None:
        """Leave a run pending for so long, and say why; what it says of earlier tries is kept."""
        until = self._now() + timedelta(seconds=seconds)
        values = {"claimed_until": until, "message": message[:1024], "details": _details(run)}
        with self._database.write() as connection:
            connection.execute(self._scope.update(runs).where(runs.c.id == run.id).values(values))

    def runs(
        self, name: str, *, outcome: RunOutcome | None = None, limit: int = 50, offset: int = 0
    ) -> builtins.list[ScheduleRun]:
        """The runs of a schedule, the newest first.

        Raises:
            NotFoundError: there is no such schedule.
        """
        query = self._scope.select(runs).where(runs.c.schedule_name == name).order_by(runs.c.id.desc())
        if outcome is not None:
            query = query.where(runs.c.outcome == str(outcome))
        with self._database.read() as connection:
            self._row(connection, name)
            return [_run(row) for row in connection.execute(query.limit(limit).offset(offset))]

    def not_started(self, since: datetime, *, limit: int) -> tuple[builtins.list[ScheduleRun], int]:
        """Runs whose time was since then and that have no job though they should, the newest first; and how many."""
        wanted = (
            # Each is named, so that they are found by their time and not among all that ever failed.
            runs.c.schedule_name.in_(self._scope.select(schedules, schedules.c.name)),
            runs.c.cause.in_(get_args(Cause)),
            runs.c.fire_at >= since,
            runs.c.outcome.in_([str(RunOutcome.FAILED), str(RunOutcome.MISSED)]),
        )
        newest = self._scope.select(runs).where(*wanted).order_by(runs.c.fire_at.desc(), runs.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            found = connection.execute(self._scope.select(runs, func.count()).where(*wanted)).scalar_one()
            return [_run(row) for row in connection.execute(newest)], found

    def _due(self, connection: Connection, *, files_too: bool) -> Row[Any] | None:
        """The schedule of one sort, of all workspaces, that has been due for longest; locked."""
        due = (schedules.c.enabled, schedules.c.next_fire_at <= self._now())
        query = EVERYWHERE.select(schedules).where(*due).order_by(schedules.c.next_fire_at).limit(100)
        for row in connection.execute(query.with_for_update(skip_locked=True)).all():
            if isinstance(_schedule(row).trigger, FileTrigger) == files_too:
                return row
        return None

    def _record(
        self, connection: Connection, scope: Scope, name: str, cause: Cause, due: DueTime
    ) -> ScheduleRun | None:
        own = (runs.c.schedule_name == name, runs.c.cause == cause, runs.c.fire_at == due.fire_at)
        if connection.execute(scope.select(runs, runs.c.id).where(*own)).first() is not None:
            return None
        values = {
            "schedule_name": name,
            "cause": cause,
            "fire_at": due.fire_at,
            "outcome": str(due.outcome),
            "message": due.message,
            "claimed_until": self._claim() if due.outcome is RunOutcome.PENDING else None,
            "details": {"window_start": due.window_start.isoformat()},
        }
        return _run(connection.execute(scope.insert(runs).values(values).returning(runs)).one())

    def _run_over(self, connection: Connection, name: str, paths: Sequence[str], cause: Cause) -> ScheduleRun:
        run = self._record_now(connection, name, cause)
        for some in _portions(paths):
            mine = (files.c.schedule_name == name, files.c.path.in_(some))
            connection.execute(self._scope.update(files).where(*mine).values(run_id=run.id))
        run = run.model_copy(update={"files": len(paths)})
        connection.execute(self._scope.update(runs).where(runs.c.id == run.id).values(details=_details(run)))
        return run

    def _record_now(
        self, connection: Connection, name: str, cause: Cause, *, window_start: datetime | None = None
    ) -> ScheduleRun:
        """A run of this moment; of two in one moment of the clock, the second counts as a microsecond later."""
        newest = self._scope.select(runs, func.max(runs.c.fire_at))
        newest = newest.where(runs.c.schedule_name == name, runs.c.cause == cause)
        last = connection.execute(newest).scalar()
        at = self._now() if last is None else max(self._now(), last + timedelta(microseconds=1))
        run = self._record(connection, self._scope, name, cause, DueTime(at, window_start or at, RunOutcome.PENDING))
        assert run is not None, "the schedule's row is locked, and the time is free"
        return run

    def _note_change(self, connection: Connection, name: str, file: SeenFile, now: datetime) -> None:
        own = (files.c.schedule_name == name, files.c.path == file.path)
        changed = {"fingerprint": file.fingerprint, "seen_at": now, "run_id": None}
        connection.execute(self._scope.update(files).where(*own).values(changed))

    def _note_new(
        self, connection: Connection, name: str, found: Sequence[SeenFile], now: datetime, *, run_id: int | None
    ) -> None:
        there = {"schedule_name": name, "seen_at": now, "run_id": run_id}
        rows = [{**there, "path": file.path, "fingerprint": file.fingerprint} for file in found]
        if rows:
            connection.execute(self._scope.insert(files), rows)

    def _replace_files(self, connection: Connection, name: str, known: Sequence[SeenFile]) -> None:
        connection.execute(self._scope.delete(files).where(files.c.schedule_name == name))
        self._note_new(connection, name, known, self._now(), run_id=_THERE_BEFORE)

    def _end(self, connection: Connection, run_id: int, outcome: RunOutcome, values: dict[str, Any]) -> None:
        ended = {"outcome": str(outcome), "claimed_until": None, **values}
        connection.execute(self._scope.update(runs).where(runs.c.id == run_id).values(ended))

    def _claim(self) -> datetime:
        return self._now() + timedelta(seconds=SUBMIT_SECONDS)

    def _row(self, connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
        query = self._scope.select(schedules).where(schedules.c.name == name)
        row = connection.execute(query.with_for_update() if lock else query).first()
        if row is None:
            raise _no_schedule(name)
        return row


def _within_second(at: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return runs.c.fire_at >= at, runs.c.fire_at < at + timedelta(seconds=1)


def _portions(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as fit into one statement."""
    return (paths[start : start + 500] for start in range(0, len(paths), 500))


def _details(run: ScheduleRun) -> dict[str, Any]:
    """What is kept of a run beside its columns."""
    first_tried_at = run.first_tried_at.isoformat() if run.first_tried_at else None
    found = {
        "window_start": run.window_start.isoformat(),
        "files": run.files,
        "keys": run.keys,
        "first_tried_at": first_tried_at,
        "broken_tries": run.broken_tries or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _move_on(connection: Connection, scope: Scope, name: str, at: datetime | None) -> None:
    connection.execute(scope.update(schedules).where(schedules.c.name == name).values(next_fire_at=at))


def _check_unchanged(row: Row[Any] | None, seen: Schedule | None) -> None:
    """``check_unchanged`` of all but the next time, which the scheduler moves on without changing the schedule."""
    if seen is None:
        return
    found = _schedule(row).model_copy(update={"next_run_at": seen.next_run_at}) if row is not None else None
    check_unchanged(found, seen)


def _no_schedule(name: str) -> NotFoundError:
    return NotFoundError(f"There is no schedule named {name}.", kind="schedule", name=name)


def _schedule(row: Row[Any]) -> Schedule:
    return Schedule.model_validate({**row.body, "is_enabled": row.enabled, "next_run_at": row.next_fire_at})


def _body(schedule: Schedule) -> dict[str, Any]:
    return {key: value for key, value in schedule.body().items() if key not in _IN_COLUMNS}


def _run(row: Row[Any]) -> ScheduleRun:
    return ScheduleRun(
        id=row.id,
        schedule_name=row.schedule_name,
        cause=row.cause,
        fire_at=row.fire_at,
        window_start=row.details["window_start"],
        window_end=row.fire_at,
        outcome=row.outcome,
        job_name=row.job_name,
        message=row.message,
        files=row.details.get("files"),
        keys=row.details.get("keys"),
        first_tried_at=row.details.get("first_tried_at"),
        broken_tries=row.details.get("broken_tries", 0),
    )
