"""Which rows a statement may see. Every statement about what belongs to a workspace is begun here.

A scope of one workspace adds it to what is asked, changed and stored. ``EVERYWHERE`` is for the queue, which works for
all workspaces: what to do next is asked of all of them, and each row says whose it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Delete, Insert, Select, Table, Update, delete, insert, select, true, update

from batchpoint.entities.workspaces import DEFAULT_WORKSPACE


@dataclass(frozen=True, slots=True)
class Scope:
    """One workspace, or with None all of them."""

    workspace: str | None = DEFAULT_WORKSPACE

    def select(self, table: Table, *columns: Any) -> Select[Any]:
        """Rows of a table, or only some columns of them."""
        return select(*(columns or (table,))).select_from(table).where(self._own(table))

    def insert(self, table: Table) -> Insert:
        """A new row of the workspace, or many."""
        assert self.workspace is not None, "what is stored belongs to a workspace"
        return insert(table).values(workspace=self.workspace)

    def update(self, table: Table) -> Update:
        """Change rows."""
        return update(table).where(self._own(table))

    def delete(self, table: Table) -> Delete:
        """Delete rows."""
        return delete(table).where(self._own(table))

    def _own(self, table: Table) -> ColumnElement[bool]:
        return true() if self.workspace is None else table.c.workspace == self.workspace


EVERYWHERE = Scope(None)
"""All workspaces of the registry."""
