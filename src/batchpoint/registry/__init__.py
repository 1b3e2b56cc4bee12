"""What is remembered. The only part that knows SQLAlchemy; SQLite and PostgreSQL behave alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
from batchpoint.registry.assets import Assets
from batchpoint.registry.database import Database
from batchpoint.registry.deliveries import Deliveries
from batchpoint.registry.endpoints import Deployments, Endpoints
from batchpoint.registry.jobs import ClaimedJob, JobEvent, Jobs
from batchpoint.registry.resources import Resources
from batchpoint.registry.schedules import Schedules
from batchpoint.registry.scope import Scope
from batchpoint.registry.scored_models import ScoredModels
from batchpoint.registry.secrets import SecretBox
from batchpoint.registry.tokens import Audit, Tokens
from batchpoint.registry.workspaces import Workspaces, is_there

__all__ = ["ClaimedJob", "JobEvent", "Registry", "utc_now"]


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Registry:
    """One open registry, as it is seen from one workspace: ``default``, unless it is that of ``within`` another.

    Assets, resources, endpoints, deployments, jobs, boards, schedules and deliveries are those of the workspace. The
    queue of jobs, and what schedules and deliveries are due, are those of all workspaces; so are tokens and the audit
    log.
    """

    database: Database
    assets: Assets
    resources: Resources
    endpoints: Endpoints
    deployments: Deployments
    jobs: Jobs
    scored_models: ScoredModels
    schedules: Schedules
    deliveries: Deliveries
    tokens: Tokens
    audit: Audit
    workspaces: Workspaces
    signing_key: Callable[[str], bytes]
    """A key of this home for signatures of one purpose."""
    now: Callable[[], datetime]
    """The clock."""
    generation: str | None
    """What tells the workspace from those of the same name that were before it; None for ``default``."""
    _secret_box: SecretBox

    @classmethod
    def open(
        cls,
        url: str,
        secret_key_file: Path,
        *,
        now: Callable[[], datetime] = utc_now,
        busy_seconds: float = 30,
    ) -> Registry:
        """Open a registry, making it or bringing its schema up to date where that is needed.

        Args:
            url: ``sqlite:///path`` or ``postgresql://…``.
            secret_key_file: key of the stored credentials; made when it is missing.
            now: the clock.
            busy_seconds: how long to wait for another process's lock.

        Raises:
            RegistryError: the database cannot be used, stays locked, or was made by a newer batchpoint.
        """
        database = Database(url, busy_seconds=busy_seconds)
        try:
            database.migrate()
            secret_box = SecretBox(secret_key_file)
        except BaseException:
            database.close()
            raise
        return cls._seen_from(DEFAULT_WORKSPACE, None, database, secret_box, now)

    def within(self, workspace: str) -> Registry:
        """The same registry, seen from a workspace (``entities.workspaces.workspace_key`` of its name).

        Once the workspace is deleted, whatever is written there raises ``NotFoundError``: also when there is another
        one of that name by then.

        Raises:
            NotFoundError: there is none of that name.
        """
        generation = None if workspace == DEFAULT_WORKSPACE else self.workspaces.generation(workspace)
        return self._seen_from(workspace, generation, self.database, self._secret_box, self.now)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    @classmethod
    def _seen_from(
        cls,
        workspace: str,
        generation: str | None,
        database: Database,
        secret_box: SecretBox,
        now: Callable[[], datetime],
    ) -> Registry:
        scope = Scope(workspace)
        own = database if generation is None else database.checked(is_there(workspace, generation))
        return cls(
            database=database,
            assets=Assets(own, now, scope),
            resources=Resources(own, now, scope, secret_box),
            endpoints=Endpoints(own, now, scope),
            deployments=Deployments(own, now, scope),
            jobs=Jobs(own, database, now, scope),
            scored_models=ScoredModels(own, now, scope),
            schedules=Schedules(own, now, scope),
            deliveries=Deliveries(own, now, scope),
            tokens=Tokens(database, now),
            audit=Audit(database, now),
            workspaces=Workspaces(database, now),
            signing_key=secret_box.signing_key,
            now=now,
            generation=generation,
            _secret_box=secret_box,
        )
