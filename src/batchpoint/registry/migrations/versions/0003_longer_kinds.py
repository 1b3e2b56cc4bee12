"""Room for the names of longer kinds: ``published_pipeline`` has more letters than the column had."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the column; SQLite copies the table for that."""
    with op.batch_alter_table("resources") as table:
        table.alter_column(
            "kind", existing_type=sa.String(length=16), type_=sa.String(length=32), existing_nullable=False
        )
