"""Every table. An entity is stored as its JSON ``body`` beside the few columns that are queried."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from batchpoint.registry.database import UtcDateTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Counter = BigInteger().with_variant(Integer, "sqlite")
"""Type of counted-up primary keys; SQLite counts up only plain integers."""


def _workspace(*, primary_key: bool = False) -> Column[str]:
    """Whose a row is; ``scope.py`` adds it to every statement. There is no default, so that nobody forgets it."""
    return Column("workspace", String(33), primary_key=primary_key, nullable=False)


workspaces_table = Table(
    "workspaces",
    metadata,
    Column("key", String(33), primary_key=True),  # the name in lower case
    Column("generation", String(32), nullable=False),  # tells it from those of this name that were before it
    Column("body", JSON, nullable=False),
)

assets_table = Table(
    "assets",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),  # order of creation: what ``latest`` means
    _workspace(),
    Column("kind", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("version", String(255), nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("content_hash", String(128), nullable=False),
    Column("body", JSON, nullable=False),
    UniqueConstraint("workspace", "kind", "name", "version"),
    Index(None, "workspace", "kind", "archived", "id"),
)

resources_table = Table(
    "resources",
    metadata,
    _workspace(primary_key=True),  # empty: everybody's
    Column("kind", String(32), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("body", JSON, nullable=False),
    Column("credentials", LargeBinary),  # encrypted; see secrets.py
)

endpoints_table = Table(
    "endpoints",
    metadata,
    _workspace(primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("body", JSON, nullable=False),
)

deployments_table = Table(
    "deployments",
    metadata,
    _workspace(primary_key=True),
    Column("endpoint_name", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("compute", String(64), nullable=False, index=True),
    Column("model", String(512), index=True),
    Column("body", JSON, nullable=False),
    ForeignKeyConstraint(["workspace", "endpoint_name"], ["endpoints.workspace", "endpoints.name"], ondelete="CASCADE"),
)

jobs_table = Table(
    "jobs",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),  # order of submission: the queue's order
    _workspace(),
    Column("name", String(255), nullable=False),
    Column("type", String(16), nullable=False, server_default="scoring"),
    Column("parent_job_name", String(255)),  # the pipeline job that this is a step of
    Column("schedule_name", String(255)),
    Column("published_pipeline", String(255)),
    Column("searched", String(600)),  # what words are looked for in: names, in small letters
    Column("reuse_hash", String(64)),  # of all that determines a step's outputs
    Column("status", String(16), nullable=False),
    Column("reason", String(64)),
    Column("cancel_requested", Boolean, nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("endpoint_name", String(64)),
    Column("deployment_name", String(64)),
    Column("pool", String(128), nullable=False),  # of instances that it waits for; see entities/resources.py
    Column("retry_of", String(255)),
    Column("idempotency_key", String(255)),
    Column("request_hash", String(64)),
    Column("waiting_for", String(1024)),
    Column("queued_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("lease_owner", String(255)),
    Column("lease_token", String(64)),
    Column("lease_expires_at", UtcDateTime),
    Column("progress", JSON),
    Column("body", JSON, nullable=False),
    UniqueConstraint("workspace", "name"),
    UniqueConstraint("workspace", "idempotency_key"),
    Index(None, "status", "pool", "id"),
    Index(None, "status", "lease_expires_at"),
    Index(None, "workspace", "archived", "id"),
    Index(None, "workspace", "endpoint_name", "deployment_name", "id"),
    Index(None, "workspace", "parent_job_name", "id"),
    Index(None, "workspace", "schedule_name", "id"),
    Index(None, "workspace", "published_pipeline", "id"),
    Index(None, "workspace", "reuse_hash", "id"),
    Index(None, "workspace", "retry_of", "id"),
    Index(
        "ix_jobs_listed",  # lists are filtered and sorted within it, without a look at the long rows
        *("workspace", "parent_job_name", "archived", "id", "status", "endpoint_name"),
        *("queued_at", "started_at", "finished_at", "name", "searched"),
    ),
)

job_events_table = Table(
    "job_events",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),
    _workspace(),
    Column("job_name", String(255), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("event", String(32), nullable=False),
    Column("details", JSON, nullable=False),
    ForeignKeyConstraint(["workspace", "job_name"], ["jobs.workspace", "jobs.name"], ondelete="CASCADE"),
    Index(None, "workspace", "job_name"),
)

schedules_table = Table(
    "schedules",
    metadata,
    _workspace(primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("next_fire_at", UtcDateTime),  # when the scheduler looks at it next; None when it can never fire again
    Column("body", JSON, nullable=False),
    Index(None, "enabled", "next_fire_at"),
)

schedule_runs_table = Table(
    "schedule_runs",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),
    _workspace(),
    Column("schedule_name", String(255), nullable=False),
    Column("cause", String(16), nullable=False),  # tick, manual, files or backfill
    Column("fire_at", UtcDateTime, nullable=False),
    Column("outcome", String(16), nullable=False),  # pending, started, skipped, missed or failed
    Column("job_name", String(255)),
    Column("message", String(1024)),
    Column("claimed_until", UtcDateTime),  # whoever claimed a pending run submits its job until then
    Column("details", JSON, nullable=False),
    ForeignKeyConstraint(["workspace", "schedule_name"], ["schedules.workspace", "schedules.name"], ondelete="CASCADE"),
    UniqueConstraint("workspace", "schedule_name", "cause", "fire_at"),
    Index(None, "outcome", "claimed_until"),
)

schedule_files_table = Table(
    "schedule_files",
    metadata,
    _workspace(primary_key=True),
    Column("schedule_name", String(255), primary_key=True),
    Column("path", String(1024), primary_key=True),
    Column("fingerprint", String(128), nullable=False),  # size and time of change, as the store tells them
    Column("seen_at", UtcDateTime, nullable=False),  # since when it has this fingerprint
    Column("run_id", Counter),  # the run of the schedule that took it
    ForeignKeyConstraint(["workspace", "schedule_name"], ["schedules.workspace", "schedules.name"], ondelete="CASCADE"),
    Index(None, "workspace", "schedule_name", "run_id"),
)

scored_models_table = Table(
    "scored_models",
    metadata,
    _workspace(primary_key=True),
    Column("endpoint_name", String(64), primary_key=True),
    Column("deployment_name", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),  # the values of the partition keys, as JSON
    Column("model", String(512)),
    Column("rows", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("last_seen_at", UtcDateTime, nullable=False),
    Column("last_job_name", String(255), nullable=False),
    Column("message", String(1024)),
    ForeignKeyConstraint(
        ["workspace", "endpoint_name", "deployment_name"],
        ["deployments.workspace", "deployments.endpoint_name", "deployments.name"],
        ondelete="CASCADE",
    ),
)

deliveries_table = Table(
    "deliveries",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),
    _workspace(),
    Column("webhook", String(255), nullable=False),
    Column("message_id", String(64), nullable=False),
    Column("event", String(32), nullable=False),
    Column("job_name", String(255)),
    Column("body", Text, nullable=False),  # the text that is signed, at each attempt the same
    Column("state", String(16), nullable=False),  # pending, delivered or failed
    Column("attempts", Integer, nullable=False),  # that were begun: the number of the last one is the right to end it
    Column("created_at", UtcDateTime, nullable=False),
    Column("next_attempt_at", UtcDateTime),  # while one is being made: when it is taken to be lost with its server
    Column("expires_at", UtcDateTime, nullable=False),  # when it is given up
    Column("ended_at", UtcDateTime),
    Column("status_code", Integer),
    Column("message", String(1024)),
    Index(None, "state", "next_attempt_at"),
    Index(None, "workspace", "webhook", "state", "id"),
)

tokens_table = Table(
    "tokens",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("prefix", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(255)),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
)

ended_sessions_table = Table(
    "ended_sessions",
    metadata,
    Column("session_hash", String(64), primary_key=True),
    Column("expires_at", UtcDateTime, nullable=False),  # when the session would have ended by itself
)

audit_table = Table(
    "audit",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("who", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(1024), nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("details", JSON, nullable=False),
)
