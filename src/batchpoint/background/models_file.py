"""The models of a job's map → ``models.jsonl`` in its run's folder, and their files on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from batchpoint.entities.jobs import Job
from batchpoint.errors import InputError
from batchpoint.operations.model_maps import AS_OF, KeyedModel
from batchpoint.workspace import Workspace

_FETCHERS = 8
"""Models that are fetched at once."""


def write_models(target: Path, job: Job, workspace: Workspace) -> int:
    """Write a line for each key that has a model: ``key``, ``model``, ``path`` and ``type``; how many there are.

    The versions are those of the job's invoke. A model whose files are gone keeps its line: its own rows fail.

    Raises:
        InvalidEntityError: no model fits the map.
        NotFoundError, InputError: folder or mapping file are gone.
        DatastoreError: a store does not answer.
    """
    assert job.deployment is not None, "only deployments have model maps"
    options = job.deployment.batchpoint
    assert options.model_map is not None, "asked only for jobs with a model map"
    as_of = job.properties.get(AS_OF)
    models = workspace.model_maps.found(
        options.model_map, options.partition_keys, as_of=int(as_of) if as_of is not None else None
    )
    if job.overrides.keys is not None:
        wanted = {tuple(key[name] for name in options.partition_keys) for key in job.overrides.keys}
        models = [model for model in models if model.key in wanted]
    paths = _local_paths(models, target.parent / "models", workspace)
    lines = [
        json.dumps(
            {
                "key": dict(zip(options.partition_keys, model.key, strict=True)),
                "model": model.name,
                "path": path,
                "type": model.type,
            }
        )
        for model, path in zip(models, paths, strict=True)
    ]
    partial = target.with_name(f"{target.name}.partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(target)
    return len(models)


def _local_paths(models: Sequence[KeyedModel], folder: Path, workspace: Workspace) -> list[str]:
    """Where each model lies on this machine: registered ones fetched into the cache, others into ``folder``."""
    registered = [model.asset for model in models if model.asset is not None]
    cached = iter(workspace.assets.local_paths(registered))
    stores = workspace.stores()

    def fetched(model: KeyedModel) -> Path:
        assert model.place is not None, "what is not registered lies at a place"
        place = model.place
        target = (
            folder / hashlib.sha256(model.name.encode()).hexdigest()[:32] / PurePosixPath(place.url.rstrip("/")).name
        )
        try:
            if not stores.is_folder(place.url, place.datastore):
                return target if target.exists() else stores.fetch(place.url, target, place.datastore)
            for file in stores.list(place.url, place.datastore, recursive=True):
                stores.fetch(file.url, target / file.path, place.datastore)
        except InputError:
            pass  # the rows of this key fail, which says where it should have been
        return target

    def here(model: KeyedModel) -> str | None:
        if model.place is None or model.place.url.startswith("/"):  # no Path for a path that is whole: there are many
            return model.place.url if model.place is not None else None
        path = stores.local_path(model.place.url)
        return str(path) if path is not None else None

    local = [here(model) for model in models]
    remote = [model for model, path in zip(models, local, strict=True) if model.asset is None and path is None]
    with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch") as pool:
        elsewhere = pool.map(fetched, remote)
        return [
            str(next(cached)) if model.asset is not None else path or str(next(elsewhere))
            for model, path in zip(models, local, strict=True)
        ]
