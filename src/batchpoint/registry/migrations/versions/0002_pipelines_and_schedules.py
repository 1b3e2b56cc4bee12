"""Steps of pipelines, schedules, and what became of each model of a model map."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns to the jobs, and the new tables."""
    _jobs()
    _schedules()
    _scored_models()


def _jobs() -> None:
    op.add_column("jobs", sa.Column("type", sa.String(length=16), nullable=False, server_default="scoring"))
    op.add_column("jobs", sa.Column("parent_job_name", sa.String(length=255)))
    op.add_column("jobs", sa.Column("schedule_name", sa.String(length=255)))
    op.add_column("jobs", sa.Column("published_pipeline", sa.String(length=255)))
    op.add_column("jobs", sa.Column("reuse_hash", sa.String(length=64)))
    for column in ("parent_job_name", "schedule_name", "published_pipeline", "reuse_hash"):
        op.create_index(op.f(f"ix_jobs_{column}_id"), "jobs", [column, "id"], unique=False)


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_fire_at", sa.DateTime(timezone=True)),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
    )
    op.create_index(op.f("ix_schedules_enabled_next_fire_at"), "schedules", ["enabled", "next_fire_at"], unique=False)
    op.create_table(
        "schedule_runs",
        sa.Column("id", COUNTER, autoincrement=True, nullable=False),
        sa.Column("schedule_name", sa.String(length=255), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("fire_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("job_name", sa.String(length=255)),
        sa.Column("message", sa.String(length=1024)),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_name"], ["schedules.name"], name=op.f("fk_schedule_runs_schedule_name"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_runs")),
        sa.UniqueConstraint(
            "schedule_name", "cause", "fire_at", name=op.f("uq_schedule_runs_schedule_name_cause_fire_at")
        ),
    )
    op.create_index(
        op.f("ix_schedule_runs_outcome_claimed_until"), "schedule_runs", ["outcome", "claimed_until"], unique=False
    )
    op.create_table(
        "schedule_files",
        sa.Column("schedule_name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", COUNTER),
        sa.ForeignKeyConstraint(
            ["schedule_name"], ["schedules.name"], name=op.f("fk_schedule_files_schedule_name"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule_name", "path", name=op.f("pk_schedule_files")),
    )
    op.create_index(
        op.f("ix_schedule_files_schedule_name_run_id"), "schedule_files", ["schedule_name", "run_id"], unique=False
    )


def _scored_models() -> None:
    op.create_table(
        "scored_models",
        sa.Column("endpoint_name", sa.String(length=64), nullable=False),
        sa.Column("deployment_name", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=512)),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_job_name", sa.String(length=255), nullable=False),
        sa.Column("message", sa.String(length=1024)),
        sa.ForeignKeyConstraint(
            ["endpoint_name", "deployment_name"],
            ["deployments.endpoint_name", "deployments.name"],
            name=op.f("fk_scored_models_endpoint_name_deployment_name"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("endpoint_name", "deployment_name", "key", name=op.f("pk_scored_models")),
    )
