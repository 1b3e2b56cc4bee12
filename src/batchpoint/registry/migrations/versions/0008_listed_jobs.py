"""Many jobs are filtered, searched and sorted within one index; what is searched is a column for it.

Retries are found by what they retry.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_LISTED = (
    *("workspace", "parent_job_name", "archived", "id", "status", "endpoint_name"),
    *("queued_at", "started_at", "finished_at", "name", "searched"),
)


def upgrade() -> None:
    """Add the column, fill it from what is stored, and add the indexes."""
    op.add_column("jobs", sa.Column("searched", sa.String(length=600)))
    text = (sa.column(name, sa.String()) for name in ("name", "searched", "endpoint_name"))
    jobs = sa.table("jobs", *text, sa.column("body", sa.JSON()))
    shown = sa.func.substr(sa.func.coalesce(jobs.c.body["display_name"].as_string(), ""), 1, 255)
    words = jobs.c.name + " " + shown + " " + sa.func.coalesce(jobs.c.endpoint_name, "")
    op.execute(sa.update(jobs).values(searched=sa.func.lower(words)))
    op.create_index("ix_jobs_listed", "jobs", [*_LISTED])
    op.create_index("ix_jobs_workspace_retry_of_id", "jobs", ["workspace", "retry_of", "id"])
