"""Models, data, environments and code, as the client registers, finds, archives and downloads them.

The wire knows *versions* and, above them, *containers*: a name, and what there is under it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from batchpoint.entities.base import Asset, AssetKind
from batchpoint.entities.documents import read_body
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.registry.assets import Archived, AssetVersions
from batchpoint.server.auth import Operator, Reader
from batchpoint.server.azureml.containers import blob_address, place_of
from batchpoint.server.azureml.mapping import DESCRIBED, TEXTS, Field, Form, from_wire, to_wire, words
from batchpoint.server.azureml.wire import WORKSPACE, Listed, Scope, Scoped, ScopedWork, WireBody, page, resource
from batchpoint.server.context import Shared
from batchpoint.server.given_paths import check_local_paths
from batchpoint.workspace import Workspace

router = APIRouter(tags=["azureml"], include_in_schema=False)

ANONYMOUS = frozenset({"azureml_anonymous", "CliV2AnonymousEnvironment"})
"""Names under which the client registers what was declared in place. Lists of names leave them out."""

_DATASTORE_PATH = re.compile(r"^azureml://(?:subscriptions/.*?/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)$")


def _view(given: Annotated[str, Query(alias="listViewType")] = "ActiveOnly") -> Archived:
    views: dict[str, Archived] = {"activeonly": "exclude", "archivedonly": "only", "all": "include"}
    if given.lower() not in views:
        raise InvalidEntityError(f"listViewType is {given!r}; it can be ActiveOnly, ArchivedOnly or All.")
    return views[given.lower()]


View = Annotated[Archived, Depends(_view)]
"""Whether a list shows archived ones."""


@dataclass(frozen=True)
class Spoken:
    """How the wire speaks of one kind."""

    kind: AssetKind
    plural: str
    content: Callable[[Scope], tuple[Field, ...]]
    """What a version is made of, which never changes."""
    extras: tuple[Field, ...] = ()
    """What is said beside it."""

    def read(self, scope: Scope, name: str, version: str, body: Mapping[str, Any]) -> Asset:
        """The asset that a body declares. Raises ``InvalidEntityError``."""
        found = from_wire((*DESCRIBED, *self.content(scope), *self.extras), body)
        return read_body(ASSET_KINDS[self.kind], {**found, "name": name, "version": version})

    def write(self, scope: Scope, asset: Asset) -> dict[str, Any]:
        """A version as a resource."""
        found = to_wire((*DESCRIBED, *self.content(scope), *self.extras), asset.body())["properties"]
        found |= {"isArchived": asset.archived, "isAnonymous": asset.name in ANONYMOUS}
        if self.kind == "model":
            found.setdefault("flavors", {})  # without them the client fails whatever it does with the model
        return resource(scope, self.plural, (asset.name, "versions", str(asset.version)), found, entity=asset)

    def write_container(self, scope: Scope, found: AssetVersions) -> dict[str, Any]:
        """A name as a resource. Like a list it shows what the latest version says."""
        latest = found.latest
        known = {
            **to_wire(DESCRIBED, latest.body())["properties"],
            "latestVersion": latest.version,
            "nextVersion": found.next_version,
            "isArchived": latest.archived,
            "dataType": getattr(latest, "type", None) if self.kind == "data" else None,
        }
        shown = {key: value for key, value in known.items() if value is not None}
        return resource(scope, self.plural, (latest.name,), shown, entity=latest)

    def is_same(self, scope: Scope, one: Asset, other: Asset) -> bool:
        """Whether the wire tells the same content of both: then a version was sent back as it had been shown."""
        fields = self.content(scope)
        return to_wire(fields, one.body()) == to_wire(fields, other.body())


class AssetRoutes:
    """The routes of one kind of asset."""

    def __init__(self, spoken: Spoken) -> None:
        self.spoken = spoken
        self._kind = spoken.kind

    def add_to(self, router: APIRouter) -> None:
        """Put the routes below the workspace."""
        path, name = f"{WORKSPACE}/{self.spoken.plural}", f"azureml.{self.spoken.plural}"
        one = f"{path}/{{name}}"
        router.get(path, name=f"{name}.names")(self.list_containers)
        router.get(one, name=f"{name}.name")(self.get_container)
        router.put(one, name=f"{name}.archive")(self.put_container)
        router.get(f"{one}/versions", name=f"{name}.list")(self.list_versions)
        router.get(f"{one}/versions/{{version}}", name=f"{name}.get")(self.get_version)
        router.put(f"{one}/versions/{{version}}", name=f"{name}.create_or_update")(self.put_version)

    def list_containers(
        self, scope: Scoped, work: ScopedWork, _: Reader, listing: Listed, archived: View
    ) -> JSONResponse:
        """The names, the newest first."""
        found = work.assets.by_name(self._kind, archived=archived, limit=listing.reach, offset=listing.offset)

        def written(item: AssetVersions) -> dict[str, Any] | None:
            return None if item.latest.name in ANONYMOUS else self.spoken.write_container(scope, item)

        return listing.answer(found, written)

    def get_container(self, name: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
        """What there is under a name, and what the next version will be called."""
        return self._container(name, scope, work)

    def put_container(self, name: str, body: WireBody, scope: Scoped, work: ScopedWork, _: Operator) -> JSONResponse:
        """Archive or restore all versions."""
        self._set_archived(work, work.assets.versions_of(self._kind, name).latest, body, all_versions=True)
        return self._container(name, scope, work)

    def list_versions(
        self,
        name: str,
        scope: Scoped,
        work: ScopedWork,
        _: Reader,
        listing: Listed,
        archived: View,
        content_hash: Annotated[str | None, Query(alias="hash")] = None,
    ) -> JSONResponse:
        """Versions, the newest first. A hash of code is looked for under all names: the client makes up a new one."""
        if content_hash is not None and self._kind == "code":
            known = work.assets.code_with(content_hash)
            return page([] if known is None else [self.spoken.write(scope, known)])
        found = work.assets.list(self._kind, name=name, archived=archived, limit=listing.reach, offset=listing.offset)
        return listing.answer(found, lambda asset: self.spoken.write(scope, asset))

    def get_version(self, name: str, version: str, scope: Scoped, work: ScopedWork, _: Reader) -> JSONResponse:
        """One version."""
        return JSONResponse(self.spoken.write(scope, work.assets.get(self._kind, name, version)))

    def put_version(
        self, name: str, version: str, body: WireBody, scope: Scoped, caller: Operator, work: ScopedWork, shared: Shared
    ) -> JSONResponse:
        """Register a version; of one that exists, change description, tags, and whether it is archived.

        Archiving means: the version is read, its flag turned, and all sent back. What is shown can be less than what
        is known, so whoever sends back what was shown changes nothing else.
        """
        asset = self.spoken.read(scope, name, version, body)
        stored = self._known(work, name, version)
        if stored is not None and self.spoken.is_same(scope, stored, asset):
            tags = {**dict.fromkeys(stored.tags), **asset.tags} if "tags" in asset.model_fields_set else None
            found = work.assets.update(self._kind, name, version, description=asset.description, tags=tags)
        else:
            check_local_paths(shared, self._kind, asset)
            found = work.assets.create_or_update(self._kind, asset, by=caller.name)
        self._set_archived(work, found, body)
        return JSONResponse(self.spoken.write(scope, work.assets.get(self._kind, name, version)))

    def _container(self, name: str, scope: Scope, work: Workspace) -> JSONResponse:
        return JSONResponse(self.spoken.write_container(scope, work.assets.versions_of(self._kind, name)))

    def _known(self, work: Workspace, name: str, version: str) -> Asset | None:
        try:
            return work.assets.get(self._kind, name, version)
        except NotFoundError:
            return None

    def _set_archived(
        self, work: Workspace, asset: Asset, body: Mapping[str, Any], *, all_versions: bool = False
    ) -> None:
        wanted = from_wire(_ARCHIVED, body).get("archived", asset.archived)
        if wanted != asset.archived:
            change = work.assets.archive if wanted else work.assets.restore
            change(self._kind, asset.name, None if all_versions else asset.version)


def _read_yaml(text: str) -> Any:
    """What YAML says, as JSON could say it too: it is stored and answered as JSON, like all other bodies."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # a few lines can mean gigabytes
            raise InvalidEntityError("The conda file has aliases (*name). Write out what they stand for.")
        said = json.dumps(yaml.safe_load(text), ensure_ascii=False, allow_nan=False, default=_date)
        return json.loads(said.encode())
    except yaml.YAMLError as fault:
        raise InvalidEntityError(f"The conda file is not YAML: {fault}") from None


def _date(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be said in JSON")


def _short(uri: str) -> str:
    return _DATASTORE_PATH.sub(r"azureml://datastores/\g<datastore>/paths/\g<path>", uri)


def _long(scope: Scope, uri: str) -> str:
    match = _DATASTORE_PATH.match(uri)
    if match is None:
        return uri
    place = f"subscriptions/{scope.subscription}/resourcegroups/{scope.resource_group}/workspaces/{scope.workspace}"
    return f"azureml://{place}/datastores/{match['datastore']}/paths/{match['path']}"


def _place_form(scope: Scope) -> Form:
    return Form(read=lambda uri: place_of(scope, _short(uri)))


def _blob_form(scope: Scope) -> Form:
    def write(uri: str) -> str:
        match = _DATASTORE_PATH.match(uri)
        return uri if match is None else blob_address(scope, match["datastore"], match["path"])

    return Form(write, lambda address: place_of(scope, address))


_ARCHIVED = (Field("archived", "properties.isArchived", Form(read=bool)),)
_YAML = Form(lambda value: yaml.safe_dump(value, sort_keys=True), _read_yaml)
_OS = words(linux="Linux", windows="Windows", Linux="Linux", Windows="Windows")
_FLAVORS = Form(
    lambda flavors: {name: {"data": TEXTS.read(flavor or {})} for name, flavor in flavors.items()},
    lambda flavors: {name: (flavor or {}).get("data") or {} for name, flavor in flavors.items()},
)

_ALL = (
    Spoken(
        "model",
        "models",
        lambda scope: (
            Field("type", "properties.modelType"),
            Field("path", "properties.modelUri", Form(lambda uri: _long(scope, uri), _place_form(scope).read)),
        ),
        (
            Field("flavors", "properties.flavors", _FLAVORS),
            Field("stage", "properties.stage"),
            Field("job_name", "properties.jobName"),
        ),
    ),
    Spoken(
        "data",
        "data",
        lambda scope: (
            Field("type", "properties.dataType"),
            Field("path", "properties.dataUri", _place_form(scope)),
        ),
        (Field("auto_delete_setting", "properties.autoDeleteSetting"),),
    ),
    Spoken(
        "environment",
        "environments",
        lambda scope: (
            Field("image", "properties.image"),
            Field("conda_file", "properties.condaFile", _YAML),
            Field("build.path", "properties.build.contextUri", _blob_form(scope)),
            Field("build.dockerfile_path", "properties.build.dockerfilePath"),
        ),
        (
            Field("os_type", "properties.osType", _OS),
            Field("inference_config", "properties.inferenceConfig"),
        ),
    ),
    Spoken(
        "code",
        "codes",
        lambda scope: (Field("path", "properties.codeUri", _blob_form(scope)),),
        # Only told: what is known here may be another kind of hash. What the client told stays among the properties.
        (Field("content_hash", "properties.properties.hash_sha256", Form(write=lambda _: None)),),
    ),
)

_ROUTES = {each.kind: AssetRoutes(each) for each in _ALL}
for _each in _ROUTES.values():
    _each.add_to(router)

_PREVIEW_PLACES = (Field("uri_folder", "folder"), Field("uri_file", "file"))


@router.put(f"{WORKSPACE}/datasets/{{name}}/versions/{{version}}", name="azureml.datasets.create_or_update")
def put_dataset(
    name: str, version: str, body: WireBody, scope: Scoped, caller: Operator, work: ScopedWork, shared: Shared
) -> JSONResponse:
    """Register data in the words of the first preview: its ``paths``, of which there can be one here."""
    paths = from_wire((Field("paths", "properties.paths", Form(read=list)),), body).get("paths", [])
    places = [from_wire(_PREVIEW_PLACES, path) for path in paths if isinstance(path, Mapping)]
    if len(places) != 1 or len(places[0]) != 1:
        raise InvalidEntityError('The "paths" of a dataset are one {"folder": …} or one {"file": …} here.')
    ((kind, uri),) = places[0].items()
    described = to_wire(DESCRIBED, from_wire(DESCRIBED, body)).get("properties", {})
    declared = {"properties": {**described, "dataType": kind, "dataUri": uri}}
    return _ROUTES["data"].put_version(name, version, declared, scope, caller, work, shared)
