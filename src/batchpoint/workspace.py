"""Workspace: opens registry and datastores, carries the operations. The one place that wires things together.

A server has many workspaces, which are namespaces: each has operations of its own, which see what is in it and nothing
else. They share the registry's database, the machine and the loops.
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from batchpoint.entities.workspaces import DEFAULT_WORKSPACE, workspace_key
from batchpoint.errors import NotFoundError
from batchpoint.operations.assets import DEFAULT_DATASTORE, Assets
from batchpoint.operations.backfills import Backfills
from batchpoint.operations.endpoints import Endpoints
from batchpoint.operations.jobs import Jobs
from batchpoint.operations.model_maps import ModelMaps
from batchpoint.operations.pipeline_deployments import PublishedPipelines
from batchpoint.operations.pipelines import Pipelines
from batchpoint.operations.places import Places
from batchpoint.operations.resources import Resources, ensure_built_in
from batchpoint.operations.schedules import Schedules
from batchpoint.operations.tokens import Tokens
from batchpoint.operations.workspaces import Workspaces, folder_of
from batchpoint.registry import Registry, utc_now
from batchpoint.settings import Settings
from batchpoint.storage.datastores import Stores

LOOK_SECONDS = 1.0
"""For how long an opened workspace is taken to be there still: another server may have deleted it."""


@dataclass(frozen=True)
class _Shared:
    """What the workspaces of one server have in common."""

    job_queued: threading.Event = field(default_factory=threading.Event)
    pipeline_changed: threading.Event = field(default_factory=threading.Event)
    schedule_changed: threading.Event = field(default_factory=threading.Event)
    opened: dict[str, Workspace] = field(default_factory=dict)
    found_at: dict[str, float] = field(default_factory=dict)
    """When each of them was last seen in the registry, by ``time.monotonic``."""
    opening: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Workspace:
    """All that a server or a background loop works with, within one workspace of the server.

    Use the one that was opened as a context manager, or ``close()`` it.
    """

    name: str
    """What the workspace is known by: ``default``, unless it was got from ``within``."""
    folder: Path
    """Where it keeps what it has on this machine: folders of jobs, its default datastore, its cache."""
    settings: Settings
    registry: Registry
    """As it is seen from this workspace."""
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
    backfills: Backfills
    workspaces: Workspaces
    tokens: Tokens
    _shared: _Shared = field(repr=False)

    @classmethod
    def open(cls, settings: Settings, *, now: Callable[[], datetime] = utc_now) -> Workspace:
        """Open what lies in ``settings.home``, making it where it does not exist yet. ``now`` is the clock.

        Raises:
            RegistryError: the registry database cannot be used.
        """
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        registry = Registry.open(settings.registry_url, settings.home / "secret.key", now=now)
        workspace = cls._wired(DEFAULT_WORKSPACE, settings, registry, _Shared())
        workspace.workspaces.ensure(DEFAULT_WORKSPACE)
        _remove_deleted(settings.home)
        return workspace

    def within(self, name: str, *, create: bool = True) -> Workspace:
        """The operations within another workspace of the same server, which begins to exist when it is used first.

        They are made once, so that asking again costs nothing but a look, once a second, whether it is still there.
        The case of a name does not matter.

        Raises:
            InvalidEntityError: no workspace can be called so.
            NotFoundError: there is none of that name, and with ``create`` false it is not to be.
            RegistryError: the database does not answer.
        """
        key, shared = workspace_key(name), self._shared
        known, found_at = shared.opened.get(key), shared.found_at.get(key)
        lasts = key == DEFAULT_WORKSPACE or (found_at is not None and time.monotonic() < found_at + LOOK_SECONDS)
        if known is not None and lasts:
            return known
        with shared.opening:
            try:
                registry = self.registry.within(key)
            except NotFoundError:
                shared.opened.pop(key, None)
                if not create:
                    raise
                self.workspaces.ensure(name)
                registry = self.registry.within(key)
            known = shared.opened.get(key)
            if known is None or known.registry.generation != registry.generation:
                self._wired(key, self.settings, registry, shared)
            shared.found_at[key] = time.monotonic()
            return shared.opened[key]

    def delete(self, name: str, *, permanently: bool = False) -> None:
        """Delete a workspace of the same server, with its folder: its default datastore, the folders of its jobs.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is the default one, a job of it is not over, or it holds something and ``permanently``
                was not given.
        """
        with self._shared.opening:
            self.workspaces.delete(name, permanently=permanently)
            key = workspace_key(name)
            self._shared.opened.pop(key, None)
            folder = folder_of(self.settings.home, key)
            if folder.is_dir():
                # At once, whoever writes in it: what is used under this name next begins with nothing.
                folder.rename(folder.with_name(f"{_DELETED}{uuid.uuid4().hex}"))
        _remove_deleted(self.settings.home)

    @property
    def job_queued(self) -> threading.Event:
        """Set when there is something new for the dispatcher: a queued job, or a wish to cancel."""
        return self._shared.job_queued

    @property
    def pipeline_changed(self) -> threading.Event:
        """Set when there is something new for the pipeline driver: a queued one, an ended step, a wish to cancel."""
        return self._shared.pipeline_changed

    @property
    def schedule_changed(self) -> threading.Event:
        """Set when a schedule may be due earlier than the scheduler knows."""
        return self._shared.schedule_changed

    def stores(self) -> Stores:
        """Storage that can open every datastore, credentials included."""
        return self.places.stores()

    def close(self) -> None:
        """Close the registry's connections, which all workspaces share."""
        self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def _wired(cls, name: str, settings: Settings, registry: Registry, shared: _Shared) -> Workspace:
        """The operations within a workspace, among those that are opened; with what it has from the start."""
        folder = folder_of(settings.home, name)
        datastore = folder / "datastores" / DEFAULT_DATASTORE
        datastore.mkdir(parents=True, exist_ok=True)
        ensure_built_in(registry, datastore_path=str(datastore), instances=settings.default_compute_instances)
        places = Places(registry)
        assets = Assets(registry, places, folder / "cache")
        model_maps = ModelMaps(registry, assets, places)
        pipelines = Pipelines(registry, assets, places, shared.pipeline_changed)
        jobs = Jobs(registry, places, shared.job_queued, pipelines, shared.pipeline_changed)
        endpoints = Endpoints(registry, assets, places, model_maps, pipelines, jobs, shared.job_queued)
        published_pipelines = PublishedPipelines(registry, assets, pipelines)
        schedules = Schedules(
            registry, endpoints, pipelines, published_pipelines, assets, places, shared.schedule_changed
        )
        workspace = cls(
            name=name,
            folder=folder,
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
            schedules=schedules,
            backfills=Backfills(registry, schedules, jobs, model_maps),
            workspaces=Workspaces(registry, settings.home),
            tokens=Tokens(registry),
            _shared=shared,
        )
        shared.opened[name] = workspace
        return workspace


_DELETED = ".deleted-"
"""How the name of a deleted workspace's folder begins, until it is removed. No workspace can be called so."""


def _remove_deleted(home: Path) -> None:
    """Remove the folders of deleted workspaces. What is still written in one stays for the next time."""
    for folder in (home / "workspaces").glob(f"{_DELETED}*"):
        shutil.rmtree(folder, ignore_errors=True)
