"""Run by Alembic: applies the versions over the connection that ``migrations.upgrade`` hands in."""

from __future__ import annotations

from alembic import context

from batchpoint.registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
