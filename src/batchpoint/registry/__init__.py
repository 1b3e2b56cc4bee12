"""What is remembered. The only part that knows SQLAlchemy; SQLite and PostgreSQL behave alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from batchpoint.registry.assets import Assets
from batchpoint.registry.database import Database
from batchpoint.registry.endpoints import Deployments, Endpoints
from batchpoint.registry.jobs import ClaimedJob, JobEvent, Jobs
from batchpoint.registry.resources import Resources
from batchpoint.registry.schedules import Schedules
from batchpoint.registry.scored_models import ScoredModels
from batchpoint.registry.secrets import SecretBox
from batchpoint.registry.tokens import Audit, Tokens

__all__ = ["ClaimedJob", "JobEvent", "Registry", "utc_now"]


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Registry:
    """One open registry."""

    database: Database
    assets: Assets
    resources: Resources
    endpoints: Endpoints
    deployments: Deployments
    jobs: Jobs
    scored_models: ScoredModels
    schedules: Schedules
    tokens: Tokens
    audit: Audit
    signing_key: Callable[[str], bytes]
    """A key of this home for signatures of one purpose."""
    now: Callable[[], datetime]
    """The clock."""

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
        return cls(
            database=database,
            assets=Assets(database, now),
            resources=Resources(database, now, secret_box),
            endpoints=Endpoints(database, now),
            deployments=Deployments(database, now),
            jobs=Jobs(database, now),
            scored_models=ScoredModels(database, now),
            schedules=Schedules(database, now),
            tokens=Tokens(database, now),
            audit=Audit(database, now),
            signing_key=secret_box.signing_key,
            now=now,
        )

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
