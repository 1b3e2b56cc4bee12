"""Workspace: opens registry and datastores, carries the operations. The one place that wires things together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from batchpoint.operations.assets import DEFAULT_DATASTORE, Assets
from batchpoint.operations.endpoints import Endpoints
from batchpoint.operations.jobs import Jobs
from batchpoint.operations.places import Places
from batchpoint.operations.resources import Resources, ensure_built_in
from batchpoint.operations.tokens import Tokens
from batchpoint.registry import Registry
from batchpoint.settings import Settings
from batchpoint.storage.datastores import Stores


@dataclass(frozen=True)
class Workspace:
    """All that a server or a background loop works with. Use it as a context manager, or ``close()`` it."""

    settings: Settings
    registry: Registry
    places: Places
    """Says what addresses such as ``azureml://datastores/…`` mean."""
    assets: Assets
    resources: Resources
    endpoints: Endpoints
    jobs: Jobs
    tokens: Tokens
    job_queued: threading.Event = field(repr=False)
    """Set when there is something new for the dispatcher: a queued job, or a wish to cancel."""

    @classmethod
    def open(cls, settings: Settings) -> Workspace:
        """Open what lies in ``settings.home``, making it where it does not exist yet.

        Raises:
            RegistryError: the registry database cannot be used.
        """
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        registry = Registry.open(settings.registry_url, settings.home / "secret.key")
        datastore = settings.home / "datastores" / DEFAULT_DATASTORE
        datastore.mkdir(parents=True, exist_ok=True)
        ensure_built_in(registry, datastore_path=str(datastore), instances=settings.default_compute_instances)
        places = Places(registry)
        job_queued = threading.Event()
        assets = Assets(registry, places, settings.home / "cache")
        jobs = Jobs(registry, places, job_queued)
        return cls(
            settings=settings,
            registry=registry,
            places=places,
            assets=assets,
            resources=Resources(registry),
            endpoints=Endpoints(registry, assets, places, jobs, job_queued),
            jobs=jobs,
            tokens=Tokens(registry),
            job_queued=job_queued,
        )

    def stores(self) -> Stores:
        """Storage that can open every datastore, credentials included."""
        return self.places.stores()

    def close(self) -> None:
        """Close the registry's connections."""
        self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
