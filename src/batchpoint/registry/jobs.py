"""The queue. The only writer of a job's status: each change is guarded by the lease token and leaves an event row
and, for webhooks that want to know, a delivery.

There is one queue for all workspaces, first come, first served before each pool of instances; a job's name is unique
within its workspace. Whoever claims a job learns whose it is, and speaks of it within that workspace from then on.

A lease is the right to work on a job until a time. Whoever holds its token renews it; when it runs out, the next
``claim`` takes the job over, and whatever the old holder still tries fails with ``LeaseLostError``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, func
from sqlalchemy.exc import IntegrityError

from batchpoint.entities.base import retagged
from batchpoint.entities.job_queries import JobListing, JobQuery
from batchpoint.entities.jobs import (
    TERMINAL_STATUSES,
    TRANSITIONS,
    WITHDRAWN,
    Job,
    JobError,
    JobStatus,
    JobType,
    Output,
    Progress,
    Reason,
    Receipt,
)
from batchpoint.entities.quality import QualitySummary
from batchpoint.entities.resources import pool_of
from batchpoint.errors import AlreadyExistsError, ConflictError, LeaseLostError, NotFoundError
from batchpoint.registry.database import Database
from batchpoint.registry.deliveries import put_out
from batchpoint.registry.job_pages import page_of
from batchpoint.registry.scope import EVERYWHERE, Scope
from batchpoint.registry.tables import job_events_table as events
from batchpoint.registry.tables import jobs_table as jobs

ACTIVE_STATUSES = frozenset(JobStatus) - TERMINAL_STATUSES
"""Jobs that are waiting or worked on."""

LEASED_STATUSES = ACTIVE_STATUSES - {JobStatus.QUEUED}
"""Jobs that somebody works on, or did until he was lost."""

LOOKED_AT = 100
"""Jobs that are read at a time, where nobody knows how many have to be looked at."""

Archived = Literal["exclude", "only", "include"]

_IN_COLUMNS = frozenset(
    {"status", "reason", "cancel_requested", "archived", "idempotency_key", "waiting_for", "progress"}
    | {"queued_at", "started_at", "finished_at"}
)
"""Fields of a job that change while it runs: they lie in columns, not in the body."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job, and the proof of the right to work on it."""

    job: Job
    workspace: str
    lease_token: str
    resumed: bool
    """Whether somebody worked on it before and was lost: its folder may hold committed work."""


@dataclass(frozen=True, slots=True)
class StepJob:
    """What is looked at often of a step's job."""

    name: str
    parent_job_name: str
    step_name: str
    type: JobType
    status: JobStatus
    waiting_for: str | None
    progress: Progress | None
    reused_job_name: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change of a job."""

    at: datetime
    event: str
    """A new status, or ``cancel_requested``, ``lease_taken_over``, ``released``, ``archived``, ``restored``."""
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job's place before a pool of instances."""

    name: str | None
    """None for one of another workspace, which nobody learns more about."""
    waiting_for: str | None


class Jobs:
    """The jobs of one workspace, and the queue of all of them. ``now`` is the clock that leases run by."""

    def __init__(self, database: Database, queue: Database, now: Callable[[], datetime], scope: Scope) -> None:
        """``queue`` is the database for whoever claims jobs or holds their leases; what else is checked when the
        workspace is written into (``database``) is checked for him by the lease: a job that has one is not over, and
        its workspace cannot be deleted."""
        self._database = database
        self._queue = queue
        self._now = now
        self._scope = scope

    def enqueue(
        self, job: Job, *, idempotency_key: str | None = None, request_hash: str | None = None
    ) -> tuple[Job, bool]:
        """Put a job at the end of the queue. Answers with the job, and whether it is new.

        The same key with the same request hash gives the job that was made then.

        Raises:
            ConflictError: the key was used for another request; or the job retries one that is being retried already.
            AlreadyExistsError: a job of that name exists.
        """
        while True:
            with self._database.write() as connection:
                known = self._known(connection, job, idempotency_key, request_hash)
                if known is not None:
                    return known, False
                if job.retry_of is not None:
                    self._check_not_retried(connection, job.retry_of)
                try:
                    with connection.begin_nested():
                        return self._insert(connection, job, idempotency_key, request_hash), True
                except IntegrityError:
                    pass  # another process put the same key or name in just now: look again

    def add_step(self, job: Job, parent_token: str, *, key: str, reason: Reason | None = None) -> Job | None:
        """Put in the job of a step, for whoever works on its pipeline. Answers with the job of this key: the new one or
        the one that is there already; None when the pipeline is asked to cancel and there is none.

        With a ``reason`` it is over as it comes: it has the outputs of an earlier job, or could not be made.

        Raises:
            LeaseLostError: somebody else works on the pipeline now, or it is finished.
            AlreadyExistsError: a job of that name exists.
            ConflictError: it retries a job that is being retried already.
        """
        assert job.parent_job_name is not None, "a step belongs to a pipeline"
        with self._queue.write() as connection:
            parent = self._leased(connection, job.parent_job_name, parent_token)
            known = connection.execute(self._scope.select(jobs).where(jobs.c.idempotency_key == key)).first()
            if known is not None:
                return _job(known)
            if parent.cancel_requested:
                return None
            if job.retry_of is not None and reason is None:
                self._check_not_retried(connection, job.retry_of)
            self._known(connection, job, None, None)
            try:
                with connection.begin_nested():
                    return self._insert(connection, job, key, None, reason)
            except IntegrityError:
                raise _name_taken(job.name) from None

    def find_submitted(self, idempotency_key: str, request_hash: str) -> Job | None:
        """The job that was made for this key, or None.

        Raises:
            ConflictError: the key was used for another request.
        """
        with self._database.read() as connection:
            return self._submitted(connection, idempotency_key, request_hash)

    def made_for(self, idempotency_key: str) -> Job | None:
        """The job that was made for this key, whatever the request was, or None."""
        query = self._scope.select(jobs).where(jobs.c.idempotency_key == idempotency_key)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return _job(row) if row is not None else None

    def exists(self, name: str) -> bool:
        """Whether there is a job of that name."""
        with self._database.read() as connection:
            return self._is_known(connection, name)

    def get(self, name: str) -> Job:
        """One job.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.read() as connection:
            return _job(self._row(connection, name))

    def list(
        self,
        *,
        status: JobStatus | Collection[JobStatus] | None = None,
        endpoint: str | None = None,
        deployment: str | None = None,
        compute: str | None = None,
        retry_of: str | None = None,
        published_pipeline: str | None = None,
        parent: str | None = None,
        top_level: bool = False,
        retries: bool = True,
        since: datetime | None = None,
        finished_after: datetime | None = None,
        schedule: str | None = None,
        archived: Archived = "exclude",
        limit: int | None = 50,
        offset: int = 0,
    ) -> list[Job]:
        """Jobs, the newest first. ``top_level`` leaves out the steps of pipelines; without ``retries`` those are left
        out that retry another; ``since`` is when they were put in at the earliest."""
        query = self._scope.select(jobs).order_by(jobs.c.id.desc()).limit(limit).offset(offset)
        if status is not None:
            wanted = [status] if isinstance(status, JobStatus) else status
            query = query.where(jobs.c.status.in_([str(each) for each in wanted]))
        for column, value in (
            (jobs.c.endpoint_name, endpoint),
            (jobs.c.deployment_name, deployment),
            (jobs.c.pool, self._pool(compute) if compute is not None else None),
            (jobs.c.retry_of, retry_of),
            (jobs.c.published_pipeline, published_pipeline),
            (jobs.c.parent_job_name, parent),
            (jobs.c.schedule_name, schedule),
        ):
            if value is not None:
                query = query.where(column == value)
        if top_level:
            query = query.where(jobs.c.parent_job_name.is_(None))
        if not retries:
            query = query.where(jobs.c.retry_of.is_(None))
        if since is not None:
            query = query.where(jobs.c.queued_at >= since)
        if finished_after is not None:
            query = query.where(jobs.c.finished_at > finished_after)
        if archived != "include":
            query = query.where(jobs.c.archived == (archived == "only"))
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def named(self, names: Collection[str]) -> Mapping[str, Job]:
        """Those of these jobs that exist, by their names."""
        query = self._scope.select(jobs).where(jobs.c.name.in_(names))
        with self._database.read() as connection:
            return {row.name: _job(row) for row in connection.execute(query)}

    def find(self, query: JobQuery) -> JobListing:
        """A page of jobs. However many there are, only those of the page are read.

        Raises:
            NotFoundError: there is no job of the name that the page begins or ends at.
        """
        with self._database.read() as connection:
            return page_of(connection, self._scope, query, _job)

    def steps(self, parents: Collection[str]) -> Sequence[StepJob]:
        """The steps' jobs of some pipeline jobs, in the order in which they were started."""
        body = jobs.c.body
        query = self._scope.select(
            jobs,
            *(jobs.c[key] for key in ("name", "parent_job_name", "type", "status", "waiting_for", "progress")),
            *(jobs.c[key] for key in ("queued_at", "started_at", "finished_at")),
            *(body[key].as_string().label(key) for key in ("step_name", "reused_job_name")),
        ).where(jobs.c.parent_job_name.in_(parents))
        with self._database.read() as connection:
            return [_step(row) for row in connection.execute(query.order_by(jobs.c.id))]

    def asked_to_cancel(self, names: Collection[str]) -> set[str]:
        """Those of these jobs that somebody wants to be canceled."""
        query = self._scope.select(jobs, jobs.c.name).where(jobs.c.name.in_(names), jobs.c.cancel_requested)
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def queue(self, compute: str) -> Sequence[QueuedJob]:
        """The queued jobs that wait for instances of a compute, those of other workspaces too; in their order."""
        query = EVERYWHERE.select(jobs, jobs.c.workspace, jobs.c.name, jobs.c.waiting_for)
        query = query.where(jobs.c.status == str(JobStatus.QUEUED), jobs.c.pool == self._pool(compute))
        query = query.where(jobs.c.type != "pipeline")  # its steps take instances, not itself
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(jobs.c.id)).all()
        own = self._scope.workspace
        return [QueuedJob(row.name if row.workspace == own else None, row.waiting_for) for row in rows]

    def find_reusable(self, reuse_hash: str, *, limit: int = 5) -> Sequence[Job]:
        """Completed jobs whose outputs were determined by the same things, the newest first."""
        completed = jobs.c.status == str(JobStatus.COMPLETED)
        query = self._scope.select(jobs).where(jobs.c.reuse_hash == reuse_hash, completed)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))]

    def folders_of_completed(
        self, endpoint: str, deployment: str, model: str | None, *, since: datetime | None = None
    ) -> Iterator[str]:
        """Where the completed jobs of a deployment ran that saw columns and were not withdrawn, the oldest first: those
        that scored with this model (any, where it is None), and were put in at this moment or later.

        Nothing else of these jobs is read, and no more of them than whoever asks looks at.
        """
        body, id_ = jobs.c.body, jobs.c.id
        query = self._scope.select(jobs, id_, body["folder"].as_string().label("folder")).where(
            jobs.c.endpoint_name == endpoint,
            jobs.c.deployment_name == deployment,
            jobs.c.status == str(JobStatus.COMPLETED),
            body["sample"].as_string().is_(None),
            body["quality"]["columns"].as_integer() > 0,
            func.coalesce(body["properties"][WITHDRAWN].as_string(), "") == "",
        )
        if model is not None:
            query = query.where(body["deployment"]["model"].as_string() == model)
        if since is not None:
            query = query.where(jobs.c.queued_at >= since)
        last = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query.where(id_ > last).order_by(id_).limit(LOOKED_AT)).all()
            yield from (row.folder for row in rows if row.folder is not None)
            if len(rows) < LOOKED_AT:
                return
            last = rows[-1].id

    def claim(
        self,
        owner: str,
        lease_seconds: float,
        *,
        fits: Callable[[str, Job], str | None] = lambda _workspace, _job: None,
        types: Sequence[JobType] = ("scoring", "command", "pipeline"),
    ) -> ClaimedJob | None:
        """Take the next job of any workspace to work on, of one of these types; None when there is none that fits.

        First jobs whose lease ran out (they keep their status, ``resumed`` is true), then the oldest queued one, which
        becomes ``preparing``. ``fits`` says why a job of a workspace cannot start now, or None when it can; it is
        called inside the transaction and must decide at once, from memory. A queued job that does not fit keeps the
        answer as ``waiting_for`` and holds back the younger ones that wait for the same pool of instances.
        """
        with self._database.read() as connection:
            if connection.execute(self._claimable(EVERYWHERE.select(jobs, jobs.c.id), types).limit(1)).first() is None:
                return None
        with self._queue.write() as connection:
            return self._take_over(connection, owner, lease_seconds, fits, types) or self._take_queued(
                connection, owner, lease_seconds, fits, types
            )

    def renew(self, name: str, token: str, lease_seconds: float, progress: Progress | None = None) -> bool:
        """Hold the lease for longer and note the progress. Answers whether the job is asked to cancel.

        Raises:
            LeaseLostError: somebody else works on the job now, or it is finished.
        """
        values: dict[str, Any] = {"lease_expires_at": self._now() + timedelta(seconds=lease_seconds)}
        if progress is not None:
            values["progress"] = progress.model_dump(mode="json", exclude_none=True)
        with self._queue.write() as connection:
            statement = self._scope.update(jobs).where(jobs.c.name == name, jobs.c.lease_token == token).values(values)
            found = connection.execute(statement.returning(jobs.c.cancel_requested)).first()
        if found is None:
            raise LeaseLostError(f"The lease of job {name} was lost.")
        return bool(found.cancel_requested)

    def note_wait(self, name: str, token: str, waiting_for: str) -> None:
        """Say what a job waits for that is being prepared.

        Raises:
            LeaseLostError: somebody else works on the job now.
        """
        with self._queue.write() as connection:
            mine = self._scope.update(jobs).where(jobs.c.name == name, jobs.c.lease_token == token)
            if connection.execute(mine.values(waiting_for=waiting_for[:1024])).rowcount == 0:
                raise LeaseLostError(f"The lease of job {name} was lost.")

    def transition(self, name: str, token: str, to_status: JobStatus) -> Job:
        """Move a leased job on. Moving it to where it is already changes nothing.

        Raises:
            LeaseLostError: somebody else works on the job now.
            ConflictError: the move is not allowed, or it is the end: ends go through ``finish``.
        """
        with self._queue.write() as connection:
            row = self._leased(connection, name, token)
            if row.status == to_status:
                return _job(row)
            if to_status in TERMINAL_STATUSES:
                raise ConflictError(f"Job {name} ends through finish(), which wants a reason.")
            return self._move(connection, row, to_status, {})

    def finish(
        self,
        name: str,
        token: str,
        reason: Reason,
        *,
        error: JobError | None = None,
        receipt: Receipt | None = None,
        outputs: Mapping[str, Mapping[str, Any]] | None = None,
        notices: Collection[str] = (),
        progress: Progress | None = None,
        quality: QualitySummary | None = None,
    ) -> Job:
        """End a job; its status follows from the reason. ``outputs`` says where each named output lies:
        ``uri``, ``folder``, ``files`` and ``table`` of ``entities.jobs.Output``.

        Raises:
            LeaseLostError: somebody else works on the job now.
            ConflictError: a job in this status cannot end for this reason.
        """
        with self._queue.write() as connection:
            row = self._leased(connection, name, token)
            job = _job(row)
            job.error, job.receipt, job.quality = error, receipt, quality
            for output, found in (outputs or {}).items():
                job.outputs[output] = Output(**{**job.outputs.get(output, Output()).model_dump(), **found})
            job.notices += [notice for notice in notices if notice not in job.notices]
            values: dict[str, Any] = {"body": _body(job), "reason": str(reason)}
            if progress is not None:
                values["progress"] = progress.model_dump(mode="json", exclude_none=True)
            return self._move(connection, row, reason.status, values, {"reason": str(reason)})

    def request_cancel(self, name: str) -> tuple[Job, bool]:
        """Ask for a job to be canceled. A queued one is canceled at once; a canceled one stays as it is.

        Answers with the job, and whether it has ended by this.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: the job has completed or failed already.
        """
        with self._database.write() as connection:
            row = self._row(connection, name, lock=True)
            if row.status == JobStatus.QUEUED:
                values = {"cancel_requested": True, "reason": str(Reason.CANCELED_BY_USER)}
                return self._move(connection, row, JobStatus.CANCELED, values, {"reason": values["reason"]}), True
            if row.status in {JobStatus.COMPLETED, JobStatus.FAILED}:
                raise ConflictError(f"Job {name} cannot be canceled: it is {row.status} already.")
            if row.status == JobStatus.CANCELED or row.cancel_requested:
                return _job(row), False
            return self._change(connection, row, {"cancel_requested": True}, "cancel_requested", {}), False

    def release(self, name: str, token: str) -> None:
        """Give the lease back, so that the next ``claim`` of any server takes the job over at once.

        Raises:
            LeaseLostError: somebody else works on the job now.
        """
        with self._queue.write() as connection:
            row = self._leased(connection, name, token)
            values = {"lease_token": None, "lease_owner": None, "lease_expires_at": self._now()}
            self._change(connection, row, values, "released", {"owner": row.lease_owner})

    def release_all(self, owner: str) -> None:
        """Give back every lease of an owner that is known to be gone, so that nobody waits for them to run out.

        Those of all workspaces.
        """
        with self._queue.write() as connection:
            left = EVERYWHERE.select(jobs).where(jobs.c.lease_owner == owner, jobs.c.lease_token.is_not(None))
            for row in connection.execute(left.with_for_update()).all():
                values = {"lease_token": None, "lease_owner": None, "lease_expires_at": self._now()}
                self._change(connection, row, values, "released", {"owner": owner})

    def archive(self, name: str) -> Job:
        """Hide a job from lists.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._set_archived(name, archived=True)

    def restore(self, name: str) -> Job:
        """Undo ``archive``.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._set_archived(name, archived=False)

    def update(
        self,
        name: str,
        *,
        description: str | None = None,
        display_name: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        properties: Mapping[str, str] | None = None,
        folder: str | None = None,
        notices: Collection[str] = (),
    ) -> Job:
        """Change what is not guarded by the lease; None leaves a field as it is, ``notices`` are added.

        ``tags`` are merged into those before, so that of two who change some at once neither undoes the other; None
        takes one away.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.write() as connection:
            job = _job(self._row(connection, name, lock=True))
            if description is not None:
                job.description = description
            if display_name is not None:
                job.display_name = display_name
            if tags is not None:
                job.tags = retagged(job.tags, tags)
            if properties is not None:
                job.properties = dict(properties)
            if folder is not None:
                job.folder = folder
            job.notices += [notice for notice in notices if notice not in job.notices]
            values = {"body": _body(job), "searched": _searched(job)}
            connection.execute(self._scope.update(jobs).where(jobs.c.name == name).values(values))
            return job

    def events(self, name: str) -> Sequence[JobEvent]:
        """Every change of a job, the oldest first.

        Raises:
            NotFoundError: there is none of that name.
        """
        query = self._scope.select(events).where(events.c.job_name == name).order_by(events.c.id)
        with self._database.read() as connection:
            self._row(connection, name)
            rows = connection.execute(query)
            return [JobEvent(row.at, row.event, row.details) for row in rows]

    def counts_by_status(self) -> dict[JobStatus, int]:
        """How many jobs of all workspaces are in each status, archived ones included."""
        with self._database.read() as connection:
            query = EVERYWHERE.select(jobs, jobs.c.status, func.count()).group_by(jobs.c.status)
            rows = connection.execute(query).all()
        counts = {JobStatus(status): count for status, count in rows}
        return {status: counts.get(status, 0) for status in JobStatus}

    def _known(self, connection: Connection, job: Job, key: str | None, request_hash: str | None) -> Job | None:
        if key is not None and (submitted := self._submitted(connection, key, request_hash)) is not None:
            return submitted
        if self._is_known(connection, job.name):
            raise _name_taken(job.name)
        return None

    def _insert(
        self,
        connection: Connection,
        job: Job,
        key: str | None,
        request_hash: str | None,
        reason: Reason | None = None,
    ) -> Job:
        """A new row: queued, or over already when there is a reason for it."""
        now = self._now()
        job = job.model_copy(update={"created_at": now, "queued_at": now, "idempotency_key": key})
        values = {
            "name": job.name,
            "type": job.type,
            "searched": _searched(job),
            "parent_job_name": job.parent_job_name,
            "schedule_name": job.schedule_name,
            "published_pipeline": job.published_pipeline,
            "reuse_hash": job.reuse_hash,
            "status": str(reason.status if reason else JobStatus.QUEUED),
            "reason": str(reason) if reason else None,
            "cancel_requested": False,
            "archived": job.archived,
            "endpoint_name": job.endpoint_name,
            "deployment_name": job.deployment_name,
            "pool": self._pool(job.compute_name),
            "retry_of": job.retry_of,
            "idempotency_key": key,
            "request_hash": request_hash,
            "queued_at": now,
            "finished_at": now if reason else None,
            "progress": job.progress.model_dump(mode="json", exclude_none=True) if job.progress else None,
            "body": _body(job),
        }
        row = connection.execute(self._scope.insert(jobs).values(values).returning(jobs)).one()
        self._note(connection, row, "queued", {"by": job.created_by} if job.created_by else {})
        if reason is not None:
            self._note(connection, row, str(reason.status), {"reason": str(reason), "of": job.reused_job_name})
            put_out(connection, row.workspace, _job(row), now)
        return _job(row)

    def _claimable(self, query: Select[Any], types: Sequence[JobType]) -> Select[Any]:
        expired = jobs.c.status.in_([str(status) for status in LEASED_STATUSES]) & (
            jobs.c.lease_expires_at <= self._now()
        )
        return query.where((jobs.c.status == str(JobStatus.QUEUED)) | expired, jobs.c.type.in_(types))

    def _take_over(
        self,
        connection: Connection,
        owner: str,
        lease_seconds: float,
        fits: Callable[[str, Job], str | None],
        types: Sequence[JobType],
    ) -> ClaimedJob | None:
        begun = self._claimable(EVERYWHERE.select(jobs), types).where(jobs.c.status != str(JobStatus.QUEUED))
        query = begun.order_by(jobs.c.id).limit(100).with_for_update(skip_locked=True)
        for row in connection.execute(query).all():
            if fits(row.workspace, _job(row)) is None:
                lease = self._lease(owner, lease_seconds)
                details = {"owner": owner, "before": row.lease_owner}
                job = self._change(connection, row, lease, "lease_taken_over", details)
                return ClaimedJob(job, row.workspace, lease["lease_token"], resumed=True)
        return None

    def _take_queued(
        self,
        connection: Connection,
        owner: str,
        lease_seconds: float,
        fits: Callable[[str, Job], str | None],
        types: Sequence[JobType],
    ) -> ClaimedJob | None:
        queued = (jobs.c.status == str(JobStatus.QUEUED)) & jobs.c.type.in_(types)
        first = func.min(jobs.c.id)
        pools = EVERYWHERE.select(jobs, jobs.c.pool).where(queued).group_by(jobs.c.pool).order_by(first)
        for pool in connection.execute(pools).scalars().all():
            oldest = EVERYWHERE.select(jobs).where(queued, jobs.c.pool == pool).order_by(jobs.c.id).limit(1)
            row = connection.execute(oldest.with_for_update(skip_locked=True)).first()
            if row is None:
                continue
            reason = fits(row.workspace, _job(row))
            if reason is None:
                lease = self._lease(owner, lease_seconds)
                values = {**lease, "waiting_for": None}
                job = self._move(connection, row, JobStatus.PREPARING, values, {"owner": owner})
                return ClaimedJob(job, row.workspace, lease["lease_token"], resumed=False)
            if reason != row.waiting_for:
                waits = EVERYWHERE.update(jobs).where(jobs.c.id == row.id)
                connection.execute(waits.values(waiting_for=reason[:1024]))
        return None

    def _lease(self, owner: str, lease_seconds: float) -> dict[str, Any]:
        expires_at = self._now() + timedelta(seconds=lease_seconds)
        return {"lease_owner": owner, "lease_token": secrets.token_hex(16), "lease_expires_at": expires_at}

    def _leased(self, connection: Connection, name: str, token: str) -> Row[Any]:
        query = self._scope.select(jobs).where(jobs.c.name == name).with_for_update()
        row = connection.execute(query).first()
        if row is None or row.lease_token != token:
            raise LeaseLostError(f"The lease of job {name} was lost.")
        return row

    def _move(
        self,
        connection: Connection,
        row: Row[Any],
        to_status: JobStatus,
        values: dict[str, Any],
        details: dict[str, Any] | None = None,
    ) -> Job:
        """Apply one row of ``TRANSITIONS``."""
        if to_status not in TRANSITIONS[JobStatus(row.status)]:
            raise ConflictError(f"Job {row.name} is {row.status} and cannot become {to_status}.")
        values = {**values, "status": str(to_status)}
        if to_status == JobStatus.RUNNING:
            values |= {"started_at": self._now(), "waiting_for": None}
        if to_status in TERMINAL_STATUSES:
            values |= {"finished_at": self._now(), "waiting_for": None}
            values |= {"lease_owner": None, "lease_token": None, "lease_expires_at": None}
        job = self._change(connection, row, values, str(to_status), details or {})
        put_out(connection, row.workspace, job, self._now())
        return job

    def _change(
        self, connection: Connection, row: Row[Any], values: dict[str, Any], event: str, details: dict[str, Any]
    ) -> Job:
        change = EVERYWHERE.update(jobs).where(jobs.c.id == row.id).values(values)
        changed = connection.execute(change.returning(jobs)).one()
        self._note(connection, row, event, details)
        return _job(changed)

    def _set_archived(self, name: str, *, archived: bool) -> Job:
        with self._database.write() as connection:
            row = self._row(connection, name, lock=True)
            if row.archived == archived:
                return _job(row)
            return self._change(connection, row, {"archived": archived}, "archived" if archived else "restored", {})

    def _note(self, connection: Connection, row: Row[Any], event: str, details: dict[str, Any]) -> None:
        values = {"job_name": row.name, "at": self._now(), "event": event, "details": details}
        connection.execute(Scope(row.workspace).insert(events).values(values))

    def _pool(self, compute: str) -> str:
        assert self._scope.workspace is not None
        return pool_of(self._scope.workspace, compute)

    def _is_known(self, connection: Connection, name: str) -> bool:
        return connection.execute(self._scope.select(jobs, jobs.c.id).where(jobs.c.name == name)).first() is not None

    def _submitted(self, connection: Connection, key: str, request_hash: str | None) -> Job | None:
        row = connection.execute(self._scope.select(jobs).where(jobs.c.idempotency_key == key)).first()
        if row is not None and row.request_hash != request_hash:
            raise ConflictError(
                f"The idempotency key {key} was used for another request, which made job {row.name}. "
                "Use a new key for a new request."
            )
        return _job(row) if row is not None else None

    def _check_not_retried(self, connection: Connection, name: str) -> None:
        """Both would write to one output. The row is locked, so that of two at once the second sees the first."""
        self._row(connection, name, lock=True)
        active = jobs.c.status.in_([str(status) for status in ACTIVE_STATUSES])
        others = self._scope.select(jobs, jobs.c.name).where(jobs.c.retry_of == name, active).limit(1)
        if (other := connection.execute(others).scalar()) is not None:
            raise ConflictError(f"Job {name} is being retried already, by job {other}. Wait for that one.")

    def _row(self, connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
        query = self._scope.select(jobs).where(jobs.c.name == name)
        row = connection.execute(query.with_for_update() if lock else query).first()
        if row is None:
            raise NotFoundError(f"There is no job named {name}.", kind="job", name=name)
        return row


def _searched(job: Job) -> str:
    """What words are looked for in; of a long name as much as an index can hold."""
    return f"{job.name} {(job.display_name or '')[:255]} {job.endpoint_name or ''}".lower()[:600]


def _name_taken(name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"A job named {name} exists already. Choose another name, or leave it out.")


def _job(row: Row[Any]) -> Job:
    columns = {field: getattr(row, field) for field in _IN_COLUMNS}
    return Job.model_validate({**row.body, **columns})


def _step(row: Row[Any]) -> StepJob:
    progress = Progress.model_validate(row.progress) if row.progress is not None else None
    facts = {field.name: getattr(row, field.name) for field in fields(StepJob)}
    return StepJob(**{**facts, "status": JobStatus(row.status), "progress": progress})


def _body(job: Job) -> dict[str, Any]:
    return {key: value for key, value in job.body().items() if key not in _IN_COLUMNS}
