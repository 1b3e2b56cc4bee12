"""Workspaces are told from those of the same name that were before them. Those that are there are the first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; whatever is made from now on has another value than the empty one."""
    op.add_column("workspaces", sa.Column("generation", sa.String(length=32), nullable=False, server_default=""))
    with op.batch_alter_table("workspaces") as batch:
        batch.alter_column("generation", existing_type=sa.String(length=32), server_default=None)
