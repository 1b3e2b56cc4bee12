"""Workspace: opens registry and datastores, carries the operations. The one place that wires things together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from batchpoint.operations.assets import DEFAULT_DATASTORE, Assets
from batchpoint.operations.endpoints import Endpoints
from batchpoint.operations.jobs import Jobs
from batchpoint.operations.model_maps import ModelMaps
from batchpoint.operations.pipeline_deployments import PublishedPipelines
from batchpoint.operations.pipelines import Pipelines
from batchpoint.operations.places import Places
from batchpoint.operations.resources import Resources, ensure_built_in
from batchpoint.operations.schedules import Schedules
from batchpoint.operations.tokens import Tokens
from batchpoint.registry import Registry, utc_now
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
    model_maps: ModelMaps
    resources: Resources
    endpoints: Endpoints
    jobs: Jobs
    pipelines: Pipelines
    published_pipelines: PublishedPipelines
    schedules: Schedules
    tokens: Tokens
    job_queued: threading.Event = field(repr=False)
    """Set when there is something new for the dispatcher: a queued job, or a wish to cancel."""
    pipeline_changed: threading.Event = field(repr=False)
    """Set when there is something new for the pipeline driver: a queued pipeline, an ended step, a wish to cancel."""
    schedule_changed: threading.Event = field(repr=False)
    """Set when a schedule may be due earlier than the scheduler knows."""

    @classmethod
    def open(cls, settings: Settings, *, now: Callable[[], datetime] = utc_now) -> Workspace:
        """Open what lies in ``settings.home``, making it where it does not exist yet. ``now`` is the clock.

        Raises:
            RegistryError: the registry database cannot be used.
        """
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        registry = Registry.open(settings.registry_url, settings.home / "secret.key", now=now)
        datastore = settings.home / "datastores" / DEFAULT_DATASTORE
        datastore.mkdir(parents=True, exist_ok=True)
        ensure_built_in(registry, datastore_path=str(datastore), instances=settings.default_compute_instances)
        places = Places(registry)
        job_queued, pipeline_changed, schedule_changed = threading.Event(), threading.Event(), threading.Event()
        assets = Assets(registry, places, settings.home / "cache")
        model_maps = ModelMaps(registry, assets, places)
        pipelines = Pipelines(registry, assets, places, pipeline_changed)
        jobs = Jobs(registry, places, job_queued, pipelines, pipeline_changed)
        endpoints = Endpoints(registry, assets, places, model_maps, pipelines, jobs, job_queued)
        published_pipelines = PublishedPipelines(registry, assets, pipelines)
        return cls(
            settings=settings,
            registry=registry,
            places=places,
            assets=assets,
            model_maps=model_maps,
            resources=Resources(registry),
            endpoints=endpoints,
            jobs=jobs,
            pipelines=pipelines,
            published_pipelines=published_pipelines,
            schedules=Schedules(registry, endpoints, pipelines, published_pipelines, assets, places, schedule_changed),
            tokens=Tokens(registry),
            job_queued=job_queued,
            pipeline_changed=pipeline_changed,
            schedule_changed=schedule_changed,
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
