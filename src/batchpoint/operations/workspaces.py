"""Workspaces: create or update, list, delete. What is in one is told by the operations within it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchpoint.entities.workspaces import DEFAULT_WORKSPACE, NamedWorkspace, workspace_key
from batchpoint.errors import ConflictError, NotFoundError
from batchpoint.operations.resources import BUILT_IN
from batchpoint.registry import Registry
from batchpoint.registry.changes import repeated


class Workspaces:
    """What a user may ask about the workspaces of a server. The case of their names does not matter."""

    def __init__(self, registry: Registry, home: Path) -> None:
        self._registry = registry
        self._home = home

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

    def delete(self, name: str, *, permanently: bool = False) -> None:
        """Forget a workspace in which nothing is but what is built in; with ``permanently`` whatever is in it.

        On Azure a workspace can be had back for some days unless it is deleted permanently; here it never can. So
        nothing is lost to whoever does not say that word.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is the default one, it holds something, or a job of it is not over.
        """
        key = workspace_key(name)
        self.get(name)
        if key == DEFAULT_WORKSPACE:
            raise ConflictError(f"The workspace {DEFAULT_WORKSPACE} is built in and cannot be deleted.")
        uploads = folder_of(self._home, key) / "datastores"
        files = ["files"] if not permanently and any(path.is_file() for path in uploads.rglob("*")) else []

        def agreed(held: Sequence[str]) -> None:
            if not permanently and (held := [*held, *files]):
                raise ConflictError(
                    f"Workspace {name} cannot be deleted: it holds {', '.join(held)}. Delete it permanently "
                    "if nothing of that is needed any more.",
                    on_command_line=f"batchpoint workspace delete -n {name} --permanently-delete",
                )

        self._registry.workspaces.delete(name, built_in=BUILT_IN, agreed=agreed)

    def _find(self, name: str) -> NamedWorkspace | None:
        try:
            return self.get(name)
        except NotFoundError:
            return None


def folder_of(home: Path, key: str) -> Path:
    """Where a workspace keeps what it has on this machine; the default one has the home itself."""
    return home if key == DEFAULT_WORKSPACE else home / "workspaces" / key
