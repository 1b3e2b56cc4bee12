"""Pages of the list of jobs: which jobs, in which order, and where a page begins, asked of one index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, false, func, literal, select, tuple_

from batchpoint.entities.job_queries import JobListing, JobQuery
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.errors import NotFoundError
from batchpoint.registry.scope import Scope
from batchpoint.registry.tables import jobs_table as jobs

_NEVER = literal(datetime(1970, 1, 1, tzinfo=UTC), jobs.c.started_at.type)
"""Before all jobs. In year 1 it could not be read from a database that keeps time west of UTC."""
_SORTED_BY: Mapping[str, ColumnElement[Any]] = {
    "name": jobs.c.name,
    "status": jobs.c.status,
    "endpoint": func.coalesce(jobs.c.endpoint_name, ""),
    "started": func.coalesce(jobs.c.started_at, _NEVER),
    "finished": func.coalesce(jobs.c.finished_at, _NEVER),
}
"""What lists are sorted by besides the order of submission, which decides between equals."""


def page_of(connection: Connection, scope: Scope, query: JobQuery, job_of: Callable[[Row[Any]], Job]) -> JobListing:
    """A page of the jobs of a workspace; ``job_of`` reads a row.

    Raises:
        NotFoundError: there is no job of the name that the page begins or ends at.
    """
    matching = _matching(scope, query)
    found = connection.execute(scope.select(jobs, func.count()).where(*matching)).scalar_one()
    backwards, edge = query.before is not None, query.before or query.after
    keys = [_SORTED_BY[query.sort], jobs.c.id] if query.sort in _SORTED_BY else [jobs.c.id]
    upwards = query.descending == backwards
    ids = scope.select(jobs, jobs.c.id).where(*matching)
    if edge is not None:
        row = connection.execute(scope.select(jobs, *keys).where(jobs.c.name == edge)).first()
        if row is None:
            raise NotFoundError(f"There is no job named {edge}.", kind="job", name=edge)
        place = tuple_(*keys), tuple_(*(literal(value, key.type) for value, key in zip(row, keys, strict=True)))
        ids = ids.where(place[0] > place[1] if upwards else place[0] < place[1])
    ids = ids.order_by(*(key.asc() if upwards else key.desc() for key in keys)).limit(query.limit + 1)
    chosen = connection.execute(ids).scalars().all()
    rows = connection.execute(scope.select(jobs).where(jobs.c.id.in_(chosen)))
    there = {row.id: job_of(row) for row in rows}
    page = [there[each] for each in chosen[: query.limit] if each in there]
    more = len(chosen) > query.limit
    if backwards:
        return JobListing(page[::-1], found, has_earlier=more, has_later=True)
    return JobListing(page, found, has_earlier=edge is not None, has_later=more)


def _matching(scope: Scope, query: JobQuery) -> Sequence[ColumnElement[bool]]:
    conditions = [jobs.c.parent_job_name.is_(None), jobs.c.archived == query.archived]
    if query.status is not None:
        conditions.append(jobs.c.status == str(query.status))
    if query.endpoint is not None:
        conditions.append(jobs.c.endpoint_name == query.endpoint)
    if query.queued_since is not None:
        conditions.append(jobs.c.queued_at >= query.queued_since)
    if query.queued_until is not None:
        conditions.append(jobs.c.queued_at < query.queued_until)
    if query.ended_since is not None:
        conditions.append(jobs.c.finished_at >= query.ended_since)
    if query.went_wrong:
        items_failed = jobs.c.progress["failed"].as_integer() > 0
        conditions.append(jobs.c.finished_at.is_not(None))
        conditions.append((jobs.c.status == str(JobStatus.FAILED)) | items_failed)
        conditions.append(jobs.c.name.not_in(_put_right(scope)))
    words = (
        # SQLite would look for what stands before a NUL, and PostgreSQL takes none.
        jobs.c.searched.contains(word.lower(), autoescape=True) if "\0" not in word else false()
        for word in query.words
    )
    return [*conditions, *words]


def _put_right(scope: Scope) -> Select[Any]:
    """Names of the jobs that a retry has completed, or a retry of one."""
    retried = jobs.c.retry_of.is_not(None)
    completed = jobs.c.status == str(JobStatus.COMPLETED)
    found = scope.select(jobs, jobs.c.retry_of).where(retried, completed).cte("put_right", recursive=True)
    before = scope.select(jobs, jobs.c.retry_of).join(found, jobs.c.name == found.c.retry_of).where(retried)
    return select(found.union(before).c.retry_of)
