"""Workspaces: create or update, list. What is in one is told by the operations within it."""

from __future__ import annotations

from collections.abc import Sequence

from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.errors import NotFoundError
from batchpoint.registry import Registry
from batchpoint.registry.changes import repeated


class Workspaces:
    """What a user may ask about the workspaces of a server. The case of their names does not matter."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def create_or_update(self, workspace: NamedWorkspace, *, by: str | None = None) -> NamedWorkspace:
        """Create a workspace, or change the one of that name. Keys that are not given stay as they are."""
        not_given = NamedWorkspace.model_fields.keys() - workspace.model_fields_set

        def change() -> NamedWorkspace:
            before = self._find(workspace.name)
            kept = {key: getattr(before, key) for key in not_given} if before else {}
            named = {"name": before.name} if before else {}
            return self._registry.workspaces.put(workspace.model_copy(update=kept | named), by=by, seen=before)

        return repeated(change)

    def ensure(self, name: str) -> None:
        """Make a workspace known that is used for the first time.

        Raises:
            InvalidEntityError: none can be called so.
        """
        if self._find(name) is None:
            self._registry.workspaces.put(NamedWorkspace(name=name), by=None)

    def get(self, name: str) -> NamedWorkspace:
        """One workspace. Raises ``NotFoundError``, and ``InvalidEntityError`` when none can be called so."""
        return self._registry.workspaces.get(name)

    def list(self, *, limit: int | None = None, offset: int = 0) -> Sequence[NamedWorkspace]:
        """All workspaces, by name."""
        return self._registry.workspaces.list(limit=limit, offset=offset)

    def _find(self, name: str) -> NamedWorkspace | None:
        try:
            return self.get(name)
        except NotFoundError:
            return None
