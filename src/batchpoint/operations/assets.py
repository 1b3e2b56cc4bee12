"""Assets: register, find, list, archive, and where their files are.

What lies on this machine is copied into the default datastore, under a name made from its content: registering the
same folder again copies nothing. What lies in a datastore or behind a URL stays where it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import yaml

from batchpoint.content import NEVER_CODE, hash_content, upload_path, walk
from batchpoint.entities.assets import CURATED_ENVIRONMENT, Code, Data, Environment, Model
from batchpoint.entities.base import Asset, AssetKind, Reference, parse_reference
from batchpoint.entities.components import definition
from batchpoint.entities.file_names import as_text
from batchpoint.entities.pipeline_faults import faults_of_component, refuse
from batchpoint.entities.pipelines import Component
from batchpoint.entities.resources import Datastore
from batchpoint.errors import DatastoreError, InputError, InvalidEntityError, NotFoundError
from batchpoint.operations.pipeline_resolver import PipelineResolver
from batchpoint.operations.places import Place, Places, asset_reference
from batchpoint.registry import Registry
from batchpoint.registry.assets import Archived, AssetVersions
from batchpoint.storage.datastores import Stores

DEFAULT_DATASTORE = "workspaceblobstore"
"""Where uploads and outputs go when nothing else is said. It always exists."""

_FETCHERS = 8
"""Models that are fetched at once."""


class AssetFile(NamedTuple):
    """One file of an asset."""

    path: str
    """Relative to the asset, with forward slashes, named as ``file_names.as_text`` writes it."""
    size: int
    """Bytes."""
    url: str
    datastore: str | None


class Assets:
    """What a user may ask about models, data, environments, code and components."""

    def __init__(self, registry: Registry, places: Places, cache: Path) -> None:
        self._registry = registry
        self._places = places
        self._cache = cache

    def create_or_update(self, kind: AssetKind, asset: Asset, *, by: str | None = None) -> Asset:
        """Register a version; without one the versions count up.

        The same version with the same content again only takes over description and tags.

        Raises:
            InvalidEntityError: the content is not what it is declared to be.
            InputError: there is nothing at the path.
            AlreadyExistsError: the version exists with other content.
        """
        prepared, content_hash = self._prepare(asset, by)
        return self._registry.assets.register(kind, prepared, content_hash, by=by)[0]

    def register_unless_known(self, kind: AssetKind, asset: Asset, *, by: str | None = None) -> Asset:
        """The newest version of that name with the same content; registered when there is none.

        For what is declared in place: declaring it again adds no version.

        Raises:
            InvalidEntityError: the content is not what it is declared to be.
            InputError: there is nothing at the path.
        """
        prepared, content_hash = self._prepare(asset, by)
        if prepared.version is None and (
            known := self._registry.assets.find_content(kind, prepared.name, content_hash)
        ):
            return known
        return self._registry.assets.register(kind, prepared, content_hash, by=by)[0]

    def register_code(self, path: str, *, by: str | None = None) -> Code:
        """Upload a folder of code as an asset that is named by its content.

        Raises:
            InvalidEntityError: the path is a file.
            InputError: there is nothing at the path.
        """
        draft, _ = self._prepare(Code(name="code", version="1", path=path), by)
        assert isinstance(draft, Code), "code stays code"
        assert draft.content_hash is not None, "set by _prepare"
        named = draft.model_copy(update={"name": draft.content_hash[:32]})
        stored, _ = self._registry.assets.register("code", named, draft.content_hash, by=by)
        return cast("Code", stored)

    def get(self, kind: AssetKind, name: str, version: str | None = None, label: str | None = None) -> Asset:
        """One version; ``latest`` (also when nothing is said) is the most recently created that is not archived.

        Raises:
            NotFoundError: there is no such asset, version or label.
        """
        return self._registry.assets.get(kind, name, version, label)

    def resolve(self, kind: AssetKind, reference: str | Reference) -> Asset:
        """The asset that a reference names, in any of its forms.

        Raises:
            InvalidEntityError: the text is not a reference.
            NotFoundError: there is no such asset.
        """
        if isinstance(reference, str):
            reference = asset_reference(reference) or parse_reference(reference)
        return self.get(kind, reference.name, reference.version, reference.label)

    def model(self, given: str | Model) -> Model:
        """The model of a stored deployment. Raises ``NotFoundError`` when it is gone."""
        return given if isinstance(given, Model) else cast("Model", self.resolve("model", given))

    def declared_model(self, given: str | Model, *, name: str, by: str | None = None) -> Model:
        """The model that a deployment declares: by reference, in place, or by a path, which is registered as ``name``.

        Raises:
            NotFoundError: there is no such model.
            InvalidEntityError, InputError: what lies at the path is not what it is declared to be.
        """
        if isinstance(given, Model):
            return cast("Model", self.register_unless_known("model", given, by=by))
        reference = asset_reference(given)
        if reference is None and _is_path(given):
            is_mlflow = (Path(given.removeprefix("file:")).expanduser() / "MLmodel").is_file()
            declared = Model(name=name, path=given, type="mlflow_model" if is_mlflow else "custom_model")
            return cast("Model", self.register_unless_known("model", declared, by=by))
        return cast("Model", self.resolve("model", reference or given))

    def declared_environment(
        self, given: str | Environment, *, by: str | None = None, register: bool = True
    ) -> Environment:
        """The environment that a deployment or a step declares: by reference, in place, or as one of Azure's own.

        Those of Azure's registries are images, which are not run here. Whoever registers an environment of the same
        name says with it what stands for theirs. Without ``register`` what is not known stays as it is declared.

        Raises:
            NotFoundError: there is no such environment.
        """
        if isinstance(given, str) and (curated := CURATED_ENVIRONMENT.match(given)):
            try:
                return cast("Environment", self.get("environment", curated["name"]))
            except NotFoundError:
                given = Environment(name=curated["name"], image=given)
        if isinstance(given, str):
            return cast("Environment", self.resolve("environment", given))
        return cast("Environment", self.register_unless_known("environment", given, by=by)) if register else given

    def list(
        self,
        kind: AssetKind,
        *,
        name: str | None = None,
        archived: Archived = "exclude",
        limit: int = 50,
        offset: int = 0,
    ) -> list[Asset]:
        """Versions, the newest first."""
        return self._registry.assets.list(kind, name=name, archived=archived, limit=limit, offset=offset)

    def by_name(
        self, kind: AssetKind, *, archived: Archived = "exclude", limit: int = 50, offset: int = 0
    ) -> Sequence[AssetVersions]:
        """What is registered under each name, the newest first. A name is archived when all its versions are."""
        return self._registry.assets.by_name(kind, archived=archived, limit=limit, offset=offset)

    def versions_of(self, kind: AssetKind, name: str) -> AssetVersions:
        """What is registered under a name.

        Raises:
            NotFoundError: nothing is.
        """
        found = self._registry.assets.by_name(kind, name=name, archived="include")
        if not found:
            raise NotFoundError(f"There is no {kind} named {name}.", kind=kind, name=name)
        return found[0]

    def code_with(self, content_hash: str) -> Code | None:
        """The newest code that is registered with this hash, under whatever name."""
        return cast("Code | None", self._registry.assets.find_content("code", None, content_hash))

    def update(
        self,
        kind: AssetKind,
        name: str,
        version: str | None = None,
        label: str | None = None,
        *,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> Asset:
        """Change description or tags of one version; None leaves them as they are, and takes a tag away.

        Raises:
            NotFoundError: there is no such version.
        """
        found = self.get(kind, name, version, label)
        assert found.version is not None, "stored assets have versions"
        return self._registry.assets.update(kind, name, found.version, description=description, tags=tags)

    def archive(self, kind: AssetKind, name: str, version: str | None = None) -> None:
        """Hide a version, or all there are, from lists and from ``latest``. Exact references keep working.

        Raises:
            NotFoundError: there is no such asset.
        """
        self._registry.assets.set_archived(kind, name, version, archived=True)

    def restore(self, kind: AssetKind, name: str, version: str | None = None) -> None:
        """Undo ``archive``.

        Raises:
            NotFoundError: there is no such asset.
        """
        self._registry.assets.set_archived(kind, name, version, archived=False)

    def files(
        self,
        kind: AssetKind,
        name: str,
        version: str | None = None,
        label: str | None = None,
        *,
        limit: int | None = None,
    ) -> Sequence[AssetFile]:
        """The asset's files; those of a component are those of its code, an environment has none.

        With a ``limit`` so many of them, whichever are found first.

        Raises:
            NotFoundError: there is no such asset.
            DatastoreError: the store does not answer.
        """
        asset = self.get(kind, name, version, label)
        if isinstance(asset, Component):
            code = asset.task.code if asset.task else asset.code
            if code is None:
                return []
            asset = self.resolve("code", code)
        if not isinstance(asset, (Model, Data, Code)):
            return []
        return self._files(self._places.resolve(asset.path), limit)

    def check_readable(self, asset: Asset) -> None:
        """Look whether the asset's files are there; an environment has none.

        Raises:
            InputError: they are gone, or may not be read.
            DatastoreError: the store does not answer.
        """
        if isinstance(asset, (Model, Data, Code)):
            place = self._places.resolve(asset.path)
            self._places.stores().check_readable(place.url, place.datastore)

    def local_path(self, asset: Model | Data | Code) -> Path:
        """The asset's file or folder on this machine, under its own name; fetched into the cache where it lies remote.

        Raises:
            InputError: it is not there any more.
            DatastoreError: the store does not answer.
        """
        place = self._places.resolve(asset.path)
        stores = self._places.stores()
        if (local := stores.local_path(place.url)) is not None:
            stores.check_readable(place.url)
            return local
        return self._cached(asset, place, stores)

    def local_paths(self, models: Sequence[Model]) -> Sequence[Path]:
        """``local_path`` of thousands of models: those that lie remote are fetched by several threads.

        Whether a model is there is not looked at: its path leads nowhere then.

        Raises:
            DatastoreError: a store does not answer.
        """
        stores = self._places.stores()

        def path_of(model: Model, place: Place) -> Path:
            if (local := stores.local_path(place.url)) is not None:
                return local
            try:
                return self._cached(model, place, stores)
            except InputError:
                return self._cache / "missing" / PurePosixPath(place.url).name

        with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch") as pool:
            return [*pool.map(path_of, models, self._places.resolve_all(model.path for model in models))]

    def _cached(self, asset: Model | Data | Code, place: Place, stores: Stores) -> Path:
        name = PurePosixPath(place.url.rstrip("/")).name
        target = self._cache / "assets" / _hash_text(f"{place.uri} {asset.version} {asset.created_at}")[:32] / name
        if not target.exists():
            is_folder = stores.is_folder(place.url, place.datastore)
            with _appearing(target) as draft:
                for file in self._files(place):
                    stores.fetch(file.url, draft / file.path if is_folder else draft, file.datastore)
        return target

    def _prepare(self, asset: Asset, by: str | None) -> tuple[Asset, str]:
        """The asset as it is stored, its content uploaded and checked; and the hash of the content."""
        if isinstance(asset, Component):
            resolver = PipelineResolver(self._registry, self, self._places, by=by, register=True)
            component = resolver.resolve_component(asset)
            faults = [*resolver.faults, *(faults_of_component(component) if component.type == "pipeline" else ())]
            refuse(f"Component {asset.name}", faults)
            return component, _hash_text(json.dumps(definition(component), sort_keys=True))
        if isinstance(asset, Environment):
            asset = _with_requirements(asset)
            content = asset.model_dump(mode="json", include={"image", "conda_file", "pip_requirements", "build"})
            return asset, _hash_text(json.dumps(content, sort_keys=True))
        if not isinstance(asset, (Model, Data, Code)):
            raise InvalidEntityError(f"{type(asset).__name__} is not a kind of asset.")
        place, content_hash = self._place(asset)
        self._check(asset, place)
        changes: dict[str, Any] = {"path": place.uri}
        if isinstance(asset, Model):
            changes["flavors"] = self._flavors(asset, place)
        if isinstance(asset, Code):
            changes["content_hash"] = content_hash
            return asset.model_copy(update=changes), content_hash
        return asset.model_copy(update=changes), _hash_text(f"{asset.type} {content_hash}")

    def _place(self, asset: Model | Data | Code) -> tuple[Place, str]:
        """Where the content is to lie, uploaded if it is on this machine; and a hash that changes with it."""
        place = self._places.resolve(asset.path)
        stores = self._places.stores()
        if any(mark in asset.path for mark in "*?[") and not stores.exists(place.url, place.datastore):
            raise InvalidEntityError(
                f"{asset.path} is a pattern, and an asset is one file or folder. Register the folder; invokes take "
                "patterns, and 'include' and 'exclude' beside a registered folder."
            )
        stores.check_readable(place.url, place.datastore)
        if place.datastore is not None or (local := stores.local_path(place.url)) is None:
            declared = asset.content_hash if isinstance(asset, Code) else None
            return place, declared or _hash_text(place.uri.rstrip("/"))
        skip = NEVER_CODE if isinstance(asset, Code) else frozenset[str]()
        content_hash = hash_content(local, skip)
        target = upload_path(local, content_hash)
        default = cast("Datastore", self._registry.resources.get("datastore", DEFAULT_DATASTORE))
        uploaded = Path(cast("str", default.path)) / target
        if not uploaded.exists():
            with _appearing(uploaded) as draft:
                _copy(local, draft, skip)
        return self._places.resolve(f"azureml://datastores/{DEFAULT_DATASTORE}/paths/{target}"), content_hash

    def _check(self, asset: Model | Data | Code, place: Place) -> None:
        stores = self._places.stores()
        is_folder = stores.is_folder(place.url, place.datastore)
        if isinstance(asset, Code) and not is_folder:
            raise InvalidEntityError(f"Code {asset.path} is a file. Give the folder that the script lies in.")
        if not isinstance(asset, Data):
            return
        if asset.type == "uri_file" and is_folder:
            raise InvalidEntityError(f"Data {asset.name} is declared as uri_file, but {asset.path} is a folder.")
        if asset.type != "uri_file" and not is_folder:
            message = f"Data {asset.name} is declared as {asset.type}, but {asset.path} is a file. Use uri_file for it."
            raise InvalidEntityError(message)
        if asset.type == "mltable" and not stores.exists(f"{place.url.rstrip('/')}/MLTable", place.datastore):
            raise InvalidEntityError(f"Data {asset.name} is an mltable, but {asset.path} holds no file named MLTable.")

    def _flavors(self, model: Model, place: Place) -> dict[str, Any] | None:
        """The flavors of an MLflow model. Raises ``InvalidEntityError`` when it is not one."""
        if model.type != "mlflow_model":
            return model.flavors
        stores = self._places.stores()
        marker = f"{place.url.rstrip('/')}/MLmodel"
        if not stores.exists(marker, place.datastore):
            found = ", ".join(sorted({file.path.split("/")[0] for file in self._files(place)})[:10]) or "nothing"
            raise InvalidEntityError(
                f"Model {model.name} is declared as mlflow_model, but there is no file named MLmodel at the root of "
                f"{model.path}; found: {found}. Give the folder that holds MLmodel, or declare it as custom_model."
            )
        with stores.open_read(marker, place.datastore) as file:
            try:
                described = yaml.safe_load(file.read())
            except yaml.YAMLError as error:
                raise InvalidEntityError(f"The MLmodel file of {model.path} is not YAML: {error}") from error
        flavors = described.get("flavors") if isinstance(described, dict) else None
        if not isinstance(flavors, dict) or not flavors:
            keys = ", ".join(map(str, described)) if isinstance(described, dict) and described else "nothing"
            message = (
                f"The MLmodel file of {model.path} names no flavor; it holds: {keys}. "
                "Log the model with mlflow.<flavor>.save_model(), which writes them."
            )
            raise InvalidEntityError(message)
        # Dates and the like inside a flavor become text: bodies are JSON.
        loaded: dict[str, Any] = json.loads(json.dumps(flavors, default=str))
        return loaded

    def _files(self, place: Place, limit: int | None = None) -> Sequence[AssetFile]:
        stores = self._places.stores()
        if not stores.is_folder(place.url, place.datastore):
            name = PurePosixPath(place.url).name
            return [AssetFile(as_text(name), stores.size(place.url, place.datastore), place.url, place.datastore)]
        if limit is None:
            found = [*stores.list(place.url, place.datastore, recursive=True)]
        else:
            found = sorted(stores.some(place.url, place.datastore, limit=limit), key=lambda file: file.path)
        return [AssetFile(as_text(file.path), file.size, file.url, place.datastore) for file in found]


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~", "file:")) or "://" in text


def _with_requirements(environment: Environment) -> Environment:
    """The environment with the files that it names read in.

    Raises:
        InvalidEntityError: a file is missing, or not of its format.
    """
    changes: dict[str, Any] = {}
    if isinstance(environment.conda_file, str):
        text = _read_declared(environment.conda_file, "conda_file")
        try:
            conda = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidEntityError(f"The conda file {environment.conda_file} is not YAML: {error}") from error
        changes["conda_file"] = conda
    conda = changes.get("conda_file", environment.conda_file)
    if conda is not None and (not isinstance(conda, dict) or not isinstance(conda.get("dependencies", []), list)):
        message = f"The conda file of environment {environment.name} needs a list of 'dependencies' at its root."
        raise InvalidEntityError(message)
    if isinstance(environment.pip_requirements, str):
        text = _read_declared(environment.pip_requirements, "pip_requirements")
        lines = (line.split(" #")[0].strip() for line in text.splitlines())
        changes["pip_requirements"] = [line for line in lines if line and not line.startswith("#")]
    return environment.model_copy(update=changes)


def _read_declared(path: str, key: str) -> str:
    try:
        return Path(path.removeprefix("file:")).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidEntityError(
            f"{key} {path} cannot be read: {reason}. Give an absolute path, or its content."
        ) from None


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _copy(source: Path, target: Path, skip: frozenset[str]) -> None:
    if source.is_file():
        shutil.copyfile(source, target)
        return
    target.mkdir()
    for name, path in walk(source, skip):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A draft beside ``target``, which takes its name when the block ends well. Of two at once, the quicker wins."""
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    draft.mkdir()
    try:
        yield draft / target.name
        if not target.exists():
            (draft / target.name).rename(target)
    except OSError as error:
        if not target.exists():
            raise DatastoreError(f"{target} could not be written: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
