"""Schedules over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from batchpoint.client.connection import address
from batchpoint.client.jobs import Job, entity_of
from batchpoint.client.resources import Resources
from batchpoint.entities.jobs import Job as JobEntity
from batchpoint.entities.schedules import BackfillRequest, Schedule, ScheduleRun


class Schedules(Resources[Schedule]):
    """Schedules: what starts jobs by itself."""

    def list(self, *, enabled: bool | None = None, limit: int | None = None) -> Iterator[Schedule]:
        """All of them, or only those that are enabled, or not."""
        for item in self._connection.pages("/schedules", limit=limit, enabled=enabled):
            yield entity_of(Schedule, item)

    def delete(self, name: str, *, force: bool = False) -> None:
        """Remove it, with the record of its runs. Its jobs stay.

        Raises:
            ConflictError: it is enabled, and ``force`` was not given.
        """
        self._connection.send("DELETE", address("schedules", name), params={"force": True if force else None})

    def enable(self, name: str) -> Schedule:
        """Let it fire again, from its next time on."""
        return entity_of(Schedule, self._connection.send("POST", address("schedules", name, "enable")))

    def disable(self, name: str) -> Schedule:
        """Let it fire no more until it is enabled."""
        return entity_of(Schedule, self._connection.send("POST", address("schedules", name, "disable")))

    def trigger(self, name: str) -> Job:
        """Fire it now, enabled or not; answers at once with the job.

        Raises:
            ConflictError: it waits for files, and there are no new ones.
        """
        run = self._connection.send("POST", address("schedules", name, "trigger"))
        return Job(self._connection, entity_of(JobEntity, self._connection.get(address("jobs", run["job_name"]))))

    def backfill(
        self,
        name: str,
        first: datetime,
        last: datetime,
        *,
        keys: Iterable[Mapping[str, str]] = (),
        done_too: bool = False,
    ) -> Sequence[ScheduleRun]:
        """Start the jobs of its times from ``first`` to ``last``, which are over; enabled or not.

        Args:
            name: the schedule.
            first: the moment from which its times count. Without a time zone it is UTC.
            last: the moment until which they count.
            keys: of a model map, the keys to score; none means all.
            done_too: also what is done already. Otherwise each job is for the keys that failed or are missing.

        Raises:
            ConflictError: it has no such time, more than 31 of them, or nothing is to be done.
        """
        given = {"first": first, "last": last, "keys": [dict(key) for key in keys], "done_too": done_too}
        body = BackfillRequest.model_validate(given).model_dump(mode="json")
        sent = self._connection.send("POST", address("schedules", name, "backfill"), body=body)
        return [ScheduleRun.model_validate(run) for run in sent["value"]]

    def upcoming(self, name: str, count: int = 10) -> Iterator[dict[str, Any]]:
        """``fire_time``, ``local_time`` and ``window_start`` of the next times. None for files."""
        return self._connection.pages(address("schedules", name, "upcoming"), count=count)

    def runs(self, name: str, *, outcome: str | None = None, limit: int | None = None) -> Iterator[ScheduleRun]:
        """What became of each time, the newest first; ``outcome`` is started, skipped, missed, failed or pending."""
        for item in self._connection.pages(address("schedules", name, "runs"), outcome=outcome, limit=limit):
            yield ScheduleRun.model_validate(item)
