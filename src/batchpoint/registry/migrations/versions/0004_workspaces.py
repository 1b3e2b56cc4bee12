"""Workspaces: names are unique within one. What is there already belongs to the workspace ``default``."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEYS = {
    "endpoints": ["name"],
    "deployments": ["endpoint_name", "name"],
    "scored_models": ["endpoint_name", "deployment_name", "key"],
    "resources": ["kind", "name"],
    "schedules": ["name"],
    "schedule_files": ["schedule_name", "path"],
}
"""Primary keys that begin with the workspace now; parents before their children."""
_UNIQUE = {
    "assets": (["kind", "name", "version"],),
    "jobs": (["name"], ["idempotency_key"]),
    "schedule_runs": (["schedule_name", "cause", "fire_at"],),
}
_PARENTS = {
    "scored_models": ("deployments", ["endpoint_name", "deployment_name"], ["endpoint_name", "name"]),
    "deployments": ("endpoints", ["endpoint_name"], ["name"]),
    "schedule_runs": ("schedules", ["schedule_name"], ["name"]),
    "schedule_files": ("schedules", ["schedule_name"], ["name"]),
    "job_events": ("jobs", ["job_name"], ["name"]),
}
"""What a table refers to; children before what is their parent and a child itself."""
_INDEXES = {
    "assets": [["kind", "archived", "id"]],
    "jobs": [
        ["archived", "id"],
        ["endpoint_name", "deployment_name", "id"],
        ["parent_job_name", "id"],
        ["schedule_name", "id"],
        ["published_pipeline", "id"],
        ["reuse_hash", "id"],
    ],
    "job_events": [["job_name"]],
    "schedule_files": [["schedule_name", "run_id"]],
}
"""Indexes that begin with the workspace now; what is looked for in all of them keeps its own."""
_TABLES = (
    *("endpoints", "deployments", "scored_models", "resources", "schedules", "schedule_runs", "schedule_files"),
    *("assets", "jobs", "job_events"),
)


def upgrade() -> None:
    """Add the column, and put it in front of keys, references and indexes."""
    op.create_table(
        "workspaces",
        sa.Column("key", sa.String(length=33), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_workspaces")),
    )
    for table in _TABLES:
        workspace = sa.Column("workspace", sa.String(length=33), nullable=False, server_default="default")
        op.add_column(table, workspace)
    _let_go_of_parents()
    _add_pools()
    for table in _TABLES:
        _rekey(table)
    op.execute("UPDATE resources SET workspace = '' WHERE kind = 'compute' AND name = 'local'")


def _let_go_of_parents() -> None:
    """SQLite changes a table by making it anew, and rows that refer to the old one would go with it."""
    for table, (_, columns, _) in _PARENTS.items():
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(op.f(f"fk_{table}_{'_'.join(columns)}"), type_="foreignkey")


def _add_pools() -> None:
    """The queue stands before pools of instances: that of the machine, or of a compute of one workspace."""
    op.drop_index(op.f("ix_jobs_status_compute_id"), table_name="jobs")
    op.add_column("jobs", sa.Column("pool", sa.String(length=128), nullable=False, server_default="local"))
    op.execute("UPDATE jobs SET pool = 'default/' || compute WHERE compute <> 'local'")


def _rekey(table: str) -> None:
    for columns in _INDEXES.get(table, ()):
        op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table_name=table)
    with op.batch_alter_table(table) as batch:
        batch.alter_column("workspace", existing_type=sa.String(length=33), server_default=None)
        if table == "jobs":
            batch.alter_column("pool", existing_type=sa.String(length=128), server_default=None)
            batch.drop_column("compute")
        if table in _KEYS:
            batch.drop_constraint(op.f(f"pk_{table}"), type_="primary")
            batch.create_primary_key(op.f(f"pk_{table}"), ["workspace", *_KEYS[table]])
        for columns in _UNIQUE.get(table, ()):
            batch.drop_constraint(op.f(f"uq_{table}_{'_'.join(columns)}"), type_="unique")
            batch.create_unique_constraint(op.f(f"uq_{table}_workspace_{'_'.join(columns)}"), ["workspace", *columns])
        if table in _PARENTS:
            parent, columns, theirs = _PARENTS[table]
            batch.create_foreign_key(
                op.f(f"fk_{table}_workspace_{'_'.join(columns)}"),
                parent,
                ["workspace", *columns],
                ["workspace", *theirs],
                ondelete="CASCADE",
            )
    for columns in _INDEXES.get(table, ()):
        op.create_index(op.f(f"ix_{table}_workspace_{'_'.join(columns)}"), table, ["workspace", *columns])
    if table == "jobs":
        op.create_index(op.f("ix_jobs_status_pool_id"), "jobs", ["status", "pool", "id"])
