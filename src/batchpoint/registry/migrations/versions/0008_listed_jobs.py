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

PORTION = 10_000
"""Jobs that are held in memory at once."""
_LISTED = (
    *("workspace", "parent_job_name", "archived", "id", "status", "endpoint_name"),
    *("queued_at", "started_at", "finished_at", "name", "searched"),
)


def upgrade() -> None:
    """Add the column, fill it from what is stored, and add the indexes."""
    op.add_column("jobs", sa.Column("searched", sa.String(length=600)))
    _fill_searched()
    op.create_index("ix_jobs_listed", "jobs", [*_LISTED])
    op.create_index("ix_jobs_workspace_retry_of_id", "jobs", ["workspace", "retry_of", "id"])


def _fill_searched() -> None:
    """Put in the names in small letters; by Python, since SQLite knows those of ASCII alone."""
    text = (sa.column(name, sa.String()) for name in ("name", "searched", "endpoint_name"))
    jobs = sa.table("jobs", sa.column("id", sa.BigInteger()), *text, sa.column("body", sa.JSON()))
    shown = jobs.c.body["display_name"].as_string().label("shown")
    portion = sa.select(jobs.c.id, jobs.c.name, shown, jobs.c.endpoint_name).order_by(jobs.c.id).limit(PORTION)
    filling = sa.update(jobs).where(jobs.c.id == sa.bindparam("filled")).values(searched=sa.bindparam("words"))
    connection, after = op.get_bind(), 0
    while rows := connection.execute(portion.where(jobs.c.id > after)).all():
        words = [f"{row.name} {(row.shown or '')[:255]} {row.endpoint_name or ''}".lower()[:600] for row in rows]
        connection.execute(filling, [{"filled": row.id, "words": each} for row, each in zip(rows, words, strict=True)])
        after = rows[-1].id
