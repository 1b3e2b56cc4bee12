"""The board: what the models of a deployment's map did, over all its jobs. Each job is added once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import JSON, Row, column, func, literal, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from batchpoint.entities.scored_models import ModelReport, ScoredModel
from batchpoint.registry.database import Database
from batchpoint.registry.scope import Scope
from batchpoint.registry.tables import deployments_table as deployments
from batchpoint.registry.tables import job_events_table as events
from batchpoint.registry.tables import jobs_table as jobs
from batchpoint.registry.tables import scored_models_table as scored

Order = Literal["key", "failed", "rows", "seconds", "last_seen"]
"""What lines of the board are sorted by; all but the key from the greatest down."""

_encode = json.JSONEncoder(ensure_ascii=False).encode
_NOTED = "models_noted"
"""The event of a job whose report is on the board."""
_LONGEST_KEY, _LONGEST_MESSAGE = 255, 1024


class ScoredModels:
    """The boards of one workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime], scope: Scope) -> None:
        self._database = database
        self._now = now
        self._scope = scope

    def add(self, endpoint: str, deployment: str, job: str, reports: Iterable[ModelReport]) -> bool:
        """Add what a job's models did; False when it was added before, or the deployment is gone.

        Raises:
            RegistryError: the database does not answer.
        """
        now = self._now()
        line = {
            "workspace": self._scope.workspace,
            "endpoint_name": endpoint,
            "deployment_name": deployment,
            "last_seen_at": now,
            "last_job_name": job,
        }
        rows = [_values(report) for report in reports]
        try:
            with self._database.write() as connection:
                is_known = self._scope.select(jobs, jobs.c.id).where(jobs.c.name == job)
                if connection.execute(is_known.with_for_update()).first() is None:
                    return False
                is_noted = self._scope.select(events, events.c.id).where(
                    events.c.job_name == job, events.c.event == _NOTED
                )
                key = (deployments.c.endpoint_name == endpoint, deployments.c.name == deployment)
                is_there = self._scope.select(deployments, deployments.c.name).where(*key)
                if connection.execute(is_noted).first() is not None or connection.execute(is_there).first() is None:
                    return False
                if rows:
                    connection.execute(_added_up(self._database, line, rows))
                noted = {"job_name": job, "at": now, "event": _NOTED, "details": {"keys": len(rows)}}
                connection.execute(self._scope.insert(events).values(noted))
        except IntegrityError:
            return False  # the deployment was deleted a moment ago
        return True

    def list(
        self,
        endpoint: str,
        deployment: str,
        *,
        failing: bool = False,
        order: Order = "key",
        limit: int = 50,
        offset: int = 0,
    ) -> list[ScoredModel]:
        """The lines of a board; with ``failing`` those of which something failed or was skipped the last time."""
        query = self._scope.select(scored)
        query = query.where(scored.c.endpoint_name == endpoint, scored.c.deployment_name == deployment)
        if failing:
            query = query.where(scored.c.message.is_not(None))
        if order != "key":
            query = query.order_by(scored.c["last_seen_at" if order == "last_seen" else order].desc())
        query = query.order_by(scored.c.key).limit(limit).offset(offset)
        with self._database.read() as connection:
            return [_scored_model(row) for row in connection.execute(query)]


def _values(report: ModelReport) -> dict[str, Any]:
    message = report.message
    if message is None and report.failed + report.skipped:
        message = f"{report.failed:,} rows failed, {report.skipped:,} were skipped."
    return {
        "key": _key_text(report.key),
        "model": _storable(report.model[:512]) if report.model else None,
        "rows": report.rows,
        "failed": report.failed,
        "seconds": report.seconds,
        "message": _storable(message[:_LONGEST_MESSAGE]) if message else None,
    }


def _storable(text: str) -> str:
    """The text with question marks for what a database's texts cannot hold: half a character, and NUL."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def _added_up(database: Database, line: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """The statement that stores each row, or adds its numbers to those that are there.

    All rows are one parameter, as JSON: a job has thousands, and to bind each of their values takes longer than to
    store them.
    """
    names = list(rows[0])
    values: list[Any]
    if database.is_sqlite:
        each = func.json_each(json.dumps(rows)).table_valued("value")
        values = [func.json_extract(each.c.value, f"$.{name}", type_=scored.c[name].type) for name in names]
    else:
        types = [column(name, scored.c[name].type) for name in names]
        each = func.json_to_recordset(literal(rows, JSON)).table_valued(*types).render_derived(with_types=True)
        values = [each.c[name] for name in names]
    kept = [literal(value, scored.c[name].type) for name, value in line.items()]
    found = select(*kept, *values).where(literal_column("1") == 1)  # SQLite takes ON CONFLICT for a join without it
    statement: Any = (sqlite.insert if database.is_sqlite else postgresql.insert)(scored)
    statement = statement.from_select([*line, *names], found)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[scored.c.workspace, scored.c.endpoint_name, scored.c.deployment_name, scored.c.key],
        set_={
            **{name: scored.c[name] + new[name] for name in ("rows", "failed", "seconds")},
            **{name: new[name] for name in ("model", "last_seen_at", "last_job_name", "message")},
        },
    )


def _key_text(key: dict[str, str | None]) -> str:
    """The key as JSON; of a very long one its beginning and a hash, so that it stays one key and fits its column."""
    text = _storable(_encode(key))
    if len(text) <= _LONGEST_KEY:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return _encode({"key": f"{text[:100]}… {digest}"})


def _scored_model(row: Row[Any]) -> ScoredModel:
    values = {name: getattr(row, name) for name in ScoredModel.model_fields if name != "key"}
    return ScoredModel(key=json.loads(row.key), **values)
