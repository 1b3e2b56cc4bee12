"""What would change: what files declare beside what is stored, in an order in which it can be done. Pure.

Both sides are compared as the same entities, so that neither the form of a file (``settings`` or the legacy form,
``azureml:local`` or ``local``) nor a default that was left out counts as a difference. What the server sets is left
out. All else that differs is brought to what is declared, whoever changed it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, cast

from batchpoint.entities.assets import Model
from batchpoint.entities.base import Asset, Entity, Reference, parse_reference
from batchpoint.entities.components import definition
from batchpoint.entities.documents import Kind
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, EndpointDefaults
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.entities.pipeline_deployments import AnyDeployment
from batchpoint.entities.pipelines import Component
from batchpoint.entities.resources import UPDATABLE_COMPUTE_KEYS, Compute, Datastore
from batchpoint.entities.schedules import Schedule, ScheduledInvoke
from batchpoint.entities.webhooks import Webhook
from batchpoint.errors import ConflictError, InvalidEntityError

ORDER: tuple[Kind, ...] = (
    "datastore", "compute", "environment", "data", "model", "code", "component", "endpoint", "deployment", "schedule",
    "webhook",
)  # fmt: skip
"""Of things that do not need each other. What refers to something always comes after it."""

BUILT_IN = {("compute", "local"), ("datastore", "workspaceblobstore")}
"""Exist from the start and are never removed."""

CONTENT_MARK = "batchpoint.applied"
"""Tag of a component: a hash of what was declared; what is stored of it holds all that it refers to."""

_SET_BY_SERVER = frozenset(
    {
        "$schema", "created_at", "modified_at", "created_by", "scoring_uri", "openapi_uri", "provisioning_state",
        "has_credentials", "is_default", "archived", "content_hash", "version", "name", "anchored_at", "next_run_at",
    }
)  # fmt: skip
_MAP = "batchpoint.model_map."
"""What keys of a deployment's model map begin with."""
_REFERENCE_KEYS: dict[str, Kind] = {
    "model": "model",
    "environment": "environment",
    "code": "code",
    "component": "component",
    "compute": "compute",
    "default_compute": "compute",
}
_NO_REFERENCES = frozenset({"inputs", "outputs", "tags", "properties", "environment_variables", "batchpoint"})
_MAY_CHANGE = frozenset({"description", "tags"})
"""Of an asset; all else of it is its version's for good."""

_DATASTORE = re.compile(r"(?:^|/)datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)$")
_ASSET_ID = re.compile(r"/(?P<name>[^/]+)/(?P<by>versions|labels)/(?P<which>[^/]+)/?$")


@dataclass(frozen=True)
class Declaration:
    """One thing that a file declares."""

    kind: Kind
    entity: Entity
    """As it is sent, with paths of this machine."""
    place: str
    """The file, for messages."""
    expected: Entity
    """As it would be stored: paths of this machine replaced by where their content lies then."""
    in_place: bool = False
    """Whether it was declared inside of a deployment: then any version of its name with its content will do."""

    @property
    def name(self) -> str:
        """``churn``, ``churn:3``, and ``endpoint/deployment``."""
        return name_of(self.entity)


@dataclass(frozen=True)
class Wanted:
    """Something that a declaration refers to."""

    kind: Kind
    reference: Reference
    key: str
    """The key that holds the reference."""


@dataclass
class Stored:
    """What the server has of all that is declared or referred to."""

    named: dict[tuple[Kind, str], Entity | None] = field(default_factory=dict)
    versions: dict[tuple[Kind, str], list[Asset]] = field(default_factory=dict)
    """The newest first, archived ones among them."""
    same_credentials: set[tuple[Kind, str]] = field(default_factory=set)
    """What has the credentials that are declared for it."""


@dataclass(frozen=True)
class FieldChange:
    """One key with another value; None means that it is not there."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change:
    """What is to be done about one declared thing."""

    action: Literal["create", "update", "restore", "unchanged"]
    kind: Kind
    name: str
    """With the version that an asset has, or will have."""
    send: Entity
    """What is to be stored."""
    fields: tuple[FieldChange, ...] = ()
    replaces: str | None = None
    """Of a new version: the newest so far, which stays."""

    def body(self) -> dict[str, Any]:
        """The change as JSON-ready values."""
        fields = [{"key": each.key, "before": each.before, "after": each.after} for each in self.fields]
        shown = {"action": self.action, "kind": self.kind, "name": self.name, "replaces": self.replaces}
        return {key: value for key, value in {**shown, "fields": fields}.items() if value is not None}


@dataclass(frozen=True)
class Removal:
    """What is to be done to be rid of one declared thing."""

    action: Literal["delete", "archive", "gone", "built in", "with its endpoint"]
    kind: Kind
    name: str


def name_of(entity: Entity) -> str:
    """What a thing is called among those of its kind."""
    if isinstance(entity, AnyDeployment):
        return f"{entity.endpoint_name}/{entity.name}"
    if isinstance(entity, Asset) and entity.version:
        return entity.reference
    return entity.name


def wanted(declaration: Declaration) -> Iterator[Wanted]:
    """What a declaration refers to, except for what lies on this machine."""
    entity = declaration.expected
    if isinstance(entity, AnyDeployment):
        yield Wanted("endpoint", Reference(entity.endpoint_name), "endpoint_name")
        yield Wanted("compute", Reference(entity.compute_name), "compute")
    if isinstance(entity, AnyDeployment | Component):
        for kind, key, text in _references_in(entity.body()):
            if kind != "compute":
                yield Wanted(kind, asset_reference(text), key)
            elif isinstance(entity, Component):
                yield Wanted(kind, Reference(text.removeprefix("azureml:")), key)
    if isinstance(entity, BatchDeployment):
        yield from _wanted_by_map(entity)
    if isinstance(entity, Schedule) and isinstance(entity.create_job, ScheduledInvoke):
        plan = entity.create_job
        yield Wanted("endpoint", Reference(plan.endpoint_name), "create_job.endpoint_name")
        if plan.deployment_name:
            name = f"{plan.endpoint_name}/{plan.deployment_name}"
            yield Wanted("deployment", Reference(name), "create_job.deployment_name")
    path = getattr(entity, "path", None) if isinstance(entity, Asset) else None
    if isinstance(path, str) and (found := _DATASTORE.search(path)):
        yield Wanted("datastore", Reference(found["datastore"]), "path")


def _wanted_by_map(deployment: BatchDeployment) -> Iterator[Wanted]:
    """What a model map was declared with in place, which has no version yet; the server looks at all else."""
    model_map = deployment.batchpoint.model_map
    if model_map is None:
        return
    name = f"{deployment.endpoint_name}-{deployment.name}-models"
    if model_map.folder == f"azureml:{name}":
        yield Wanted("model", Reference(name), f"{_MAP}folder")
    if model_map.mapping == f"azureml:{name}":
        yield Wanted("data", Reference(name), f"{_MAP}mapping")
    if isinstance(model_map.default_model, str):
        yield Wanted("model", asset_reference(model_map.default_model), f"{_MAP}default_model")


def _references_in(body: Mapping[str, Any], at: str = "") -> Iterator[tuple[Kind, str, str]]:
    """Kind, key and text of each reference of a deployment, a component, and whatever steps are in it."""
    for key, value in body.items():
        kind = _REFERENCE_KEYS.get(key)
        if isinstance(value, str) and kind and "${{" not in value and "://" not in value:
            yield kind, f"{at}{key}", value
        elif isinstance(value, Mapping) and key not in _NO_REFERENCES:
            yield from _references_in(value, f"{at}{key}.")


def asset_reference(text: str) -> Reference:
    """The asset that a text names: ``churn:3``, ``azureml:churn@latest``, ``azureml:churn``, or Azure's long id.

    Raises:
        InvalidEntityError: it names none.
    """
    if found := _ASSET_ID.search(text):
        version = found["which"] if found["by"] == "versions" else None
        return Reference(found["name"], version, None if version else found["which"])
    return parse_reference(text)


def without_repetition(declarations: Iterable[Declaration]) -> list[Declaration]:
    """The same declarations; one that stands in several deployments with the same content, once.

    Raises:
        InvalidEntityError: one thing is declared twice.
    """
    kept: dict[tuple[Kind, str], Declaration] = {}
    problems = []
    for each in declarations:
        known = kept.setdefault((each.kind, each.name), each)
        if known is not each and not (each.in_place and known.entity.given() == each.entity.given()):
            problems.append(f"{each.kind} {each.name} is declared twice, in {known.place} and in {each.place}.")
    _refuse(problems)
    return list(kept.values())


def in_order(declarations: Sequence[Declaration]) -> list[Declaration]:
    """The declarations, each after those that it refers to.

    Raises:
        InvalidEntityError: some of them refer to each other in a circle.
    """
    numbers = {position: _needed(each, declarations) for position, each in enumerate(declarations)}
    sorter = TopologicalSorter(numbers)
    try:
        sorter.prepare()
    except CycleError as fault:
        names = " → ".join(f"{declarations[at].kind} {declarations[at].name}" for at in fault.args[1])
        raise InvalidEntityError(f"What is declared refers to itself in a circle: {names}.") from None
    result: list[Declaration] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        result += [declarations[at] for at in sorted(ready)]
        sorter.done(*ready)
    return sorted(result, key=lambda each: ORDER.index(each.kind))


def changes_of(declarations: Sequence[Declaration], stored: Stored) -> list[Change]:
    """What is to be done to make what is stored what is declared, in an order in which it can be done.

    Raises:
        InvalidEntityError: something refers to what is neither declared nor stored. All such faults are told at once.
        ConflictError: what is declared cannot become so: a version with other content, a compute of another size.
    """
    planner = _Planner(declarations, stored)
    ordered = in_order(declarations)
    changes = [planner.change(each) for each in ordered if each.kind != "schedule"]
    changes += planner.defaults()
    # A schedule may ask the default deployment, which has to be one by then.
    changes += [planner.change(each) for each in ordered if each.kind == "schedule"]
    _refuse(planner.dangling)
    if planner.conflicts:
        raise ConflictError(_joined(planner.conflicts))
    return [change for change in changes if change is not None]


def removals_of(declarations: Sequence[Declaration], stored: Stored) -> list[Removal]:
    """What is to be done to be rid of all that is declared, in an order in which it can be done."""
    endpoints = {each.name for each in declarations if each.kind == "endpoint"}
    return [_removal(each, stored, endpoints) for each in reversed(in_order(declarations))]


class _Planner:
    """Goes through the declarations in order, knowing which versions the assets so far will have."""

    def __init__(self, declarations: Sequence[Declaration], stored: Stored) -> None:
        self._declared = {(each.kind, each.name): each for each in declarations}
        self._stored = stored
        self._new: dict[tuple[Kind, str], list[str]] = {}
        """Versions that will be made, by asset; the newest last."""
        self._of_declaration: dict[tuple[Kind, str], str] = {}
        self.dangling: list[str] = []
        self.conflicts: list[str] = []

    def change(self, declaration: Declaration) -> Change | None:
        """What is to be done about one; None when it cannot be done."""
        for each in wanted(declaration):
            self._check(declaration, each)
        if isinstance(declaration.expected, Component):
            declaration = self._marked(declaration, declaration.expected)
        if isinstance(declaration.expected, Asset):
            return self._asset(declaration, declaration.expected)
        if isinstance(declaration.expected, AnyDeployment):
            return self._deployment(declaration, declaration.expected)
        if isinstance(declaration.expected, BatchEndpoint):
            return self._endpoint(declaration)
        if isinstance(declaration.expected, Schedule):
            said = "is_enabled" in declaration.entity.model_fields_set
            ignored = frozenset[str]() if said else frozenset({"is_enabled"})
            return self._compared(declaration, declaration.expected, declaration.entity, ignoring=ignored)
        return self._resource(declaration)

    def defaults(self) -> Iterator[Change]:
        """The default deployments that are to be set, once all deployments are there."""
        for (kind, name), declaration in self._declared.items():
            if kind != "endpoint":
                continue
            stored = cast("BatchEndpoint | None", self._stored.named.get(("endpoint", name)))
            before = stored.defaults.deployment_name if stored else None
            after = self._default(cast("BatchEndpoint", declaration.entity), before)
            if after == before:
                continue
            if after is not None and not self._exists("deployment", f"{name}/{after}"):
                self.dangling.append(
                    f"{declaration.place}: defaults.deployment_name names {after}, which is neither declared nor "
                    "stored."
                )
            send = BatchEndpoint(name=name, defaults=EndpointDefaults(deployment_name=after))
            fields = (FieldChange("defaults.deployment_name", before, after),)
            yield Change("update", "endpoint", name, send, fields)

    def _default(self, endpoint: BatchEndpoint, before: str | None) -> str | None:
        """The declared one; else that which is stored; else the only deployment that is declared."""
        if "defaults" in endpoint.model_fields_set and "deployment_name" in endpoint.defaults.model_fields_set:
            return endpoint.defaults.deployment_name
        deployments = [name for kind, name in self._declared if kind == "deployment"]
        mine = [name.split("/")[1] for name in deployments if name.startswith(f"{endpoint.name}/")]
        return before or (mine[0] if len(mine) == 1 else None)

    def _asset(self, declaration: Declaration, expected: Asset) -> Change | None:
        versions = self._stored.versions.get((declaration.kind, expected.name), [])
        visible = [each for each in versions if not each.archived]
        if expected.version:
            pool = [each for each in versions if each.version == expected.version]
            if pool and (fields := _content_changes(pool[0], expected)):
                self.conflicts.append(_other_content(declaration, pool[0], fields))
                return None
        else:
            pool = versions if declaration.in_place else visible[:1] or versions
        same = next((each for each in pool if not _content_changes(each, expected)), None)
        if same is None:
            version = expected.version or self._next(declaration.kind, expected.name)
            return self._new_version(declaration, version, visible[0] if visible and not expected.version else None)
        self._of_declaration[declaration.kind, declaration.name] = same.version or ""
        fields = differences(same, expected, only=_MAY_CHANGE)
        send = declaration.entity.model_copy(update={"version": same.version})
        action: Literal["restore", "update", "unchanged"] = "update" if fields else "unchanged"
        return Change("restore" if same.archived else action, declaration.kind, same.reference, send, fields)

    def _new_version(self, declaration: Declaration, version: str, newest: Asset | None) -> Change:
        kind, name = declaration.kind, declaration.entity.name
        self._new.setdefault((kind, name), []).append(version)
        self._of_declaration[kind, declaration.name] = version
        fields: tuple[FieldChange, ...] = ()
        if newest is not None:
            content = _content_changes(newest, cast("Asset", declaration.expected))
            fields = (*content, *_others(newest, declaration))
        send = declaration.entity.model_copy(update={"version": version})
        return Change("create", kind, f"{name}:{version}", send, fields, newest.reference if newest else None)

    def _deployment(self, declaration: Declaration, expected: AnyDeployment) -> Change:
        held: dict[str, Any] = {}
        for each in wanted(declaration):
            if each.kind in ASSET_KINDS:
                held[each.key] = self._pinned(each)
        if isinstance(expected, BatchDeployment):
            held |= _held_by_map(expected, held)
        own = ("model", "environment", "component", "batchpoint")
        send = declaration.entity.model_copy(update={key: value for key, value in held.items() if key in own})
        if isinstance(expected, BatchDeployment):
            held["compute"] = f"azureml:{expected.compute_name}"
            if (code := held.pop("code_configuration.code", None)) and expected.code_configuration:
                held["code_configuration"] = expected.code_configuration.model_copy(update={"code": code})
        return self._compared(declaration, expected.model_copy(update=held), send)

    def _pinned(self, each: Wanted) -> str:
        """The reference with the version that it means."""
        return f"azureml:{each.reference.name}:{each.reference.version or self._version(each.kind, each.reference)}"

    def _marked(self, declaration: Declaration, component: Component) -> Declaration:
        """The component with the hash of what it is declared to be: itself and the versions that it refers to."""
        pinned = {each.key: self._pinned(each) for each in wanted(declaration) if each.kind in ASSET_KINDS}
        content = json.dumps([definition(component), pinned], sort_keys=True)
        tag = {CONTENT_MARK: hashlib.sha256(content.encode()).hexdigest()[:32]}
        entity = declaration.entity.model_copy(update={"tags": {**declaration.entity.tags, **tag}})
        return replace(declaration, entity=entity, expected=component.model_copy(update={"tags": entity.tags}))

    def _endpoint(self, declaration: Declaration) -> Change:
        bare = declaration.entity.model_copy(update={"defaults": EndpointDefaults()})
        return self._compared(declaration, bare, bare, ignoring=frozenset({"defaults"}))

    def _resource(self, declaration: Declaration) -> Change | None:
        entity = declaration.expected
        before = self._stored.named.get((declaration.kind, declaration.name))
        if isinstance(entity, Compute):
            return self._compute(declaration, entity, cast("Compute | None", before))
        if isinstance(entity, Datastore | Webhook):
            return self._secretive(declaration, entity, cast("Datastore | Webhook | None", before))
        return self._compared(declaration, entity, entity)

    def _compute(self, declaration: Declaration, entity: Compute, before: Compute | None) -> Change | None:
        undeclared = frozenset(Compute.model_fields) - UPDATABLE_COMPUTE_KEYS - entity.model_fields_set
        change = self._compared(declaration, entity, entity, ignoring=undeclared)
        fixed = [each for each in change.fields if each.key.split(".")[0] not in UPDATABLE_COMPUTE_KEYS]
        if before is not None and fixed:
            said = ", ".join(f"{each.key} ({each.before} → {each.after})" for each in fixed)
            self.conflicts.append(
                f"{declaration.place}: {said} of compute {entity.name} cannot be changed. Delete the compute and apply "
                "again, or declare what is stored."
            )
            return None
        kept = {key: getattr(before, key) for key in undeclared} if before else {}
        return replace(change, send=entity.model_copy(update=kept))

    def _secretive(
        self, declaration: Declaration, entity: Datastore | Webhook, before: Datastore | Webhook | None
    ) -> Change:
        """Secrets are compared by the server, which shows none. Those that no file declares stay as they are."""
        hidden = entity.model_copy(update={"credentials": None})
        change = _change(declaration, before, hidden, entity)
        if (
            before is None
            or entity.credentials is None
            or (declaration.kind, entity.name) in self._stored.same_credentials
        ):
            return change
        secret = FieldChange("credentials", "others" if before.has_credentials else None, "as declared")
        return replace(change, action="update", fields=(*change.fields, secret))

    def _compared(
        self, declaration: Declaration, expected: Entity, send: Entity, *, ignoring: frozenset[str] = frozenset()
    ) -> Change:
        before = self._stored.named.get((declaration.kind, declaration.name))
        return _change(declaration, before, expected, send, ignoring=ignoring)

    def _check(self, declaration: Declaration, each: Wanted) -> None:
        if each.kind == "code" and declaration.expected is not declaration.entity:
            return  # a folder of this machine, which is registered together with what it belongs to
        if each.kind in ASSET_KINDS:
            there, name = self._version(each.kind, each.reference) is not None, str(each.reference)
        else:
            there, name = self._exists(each.kind, each.reference.name), each.reference.name
        if not there:
            self.dangling.append(
                f"{declaration.place}: {each.key} of {declaration.kind} {declaration.name} names {each.kind} {name}, "
                "which is neither declared nor stored."
            )

    def _exists(self, kind: Kind, name: str) -> bool:
        return (kind, name) in self._declared or self._stored.named.get((kind, name)) is not None

    def _version(self, kind: Kind, reference: Reference) -> str | None:
        """The version that a reference means once all before it is done; None when there is none."""
        new = self._new.get((kind, reference.name), [])
        versions = self._stored.versions.get((kind, reference.name), [])
        if reference.version is not None:
            known = reference.version in new or any(each.version == reference.version for each in versions)
            return reference.version if known else None
        if reference.label is None and (kind, reference.name) in self._of_declaration:
            return self._of_declaration[kind, reference.name]
        if reference.label not in (None, "latest", "default"):
            return None
        if new:
            return new[-1]
        restored = self._of_declaration.get((kind, reference.name))
        return next((each.version for each in versions if not each.archived), restored)

    def _next(self, kind: Kind, name: str) -> str:
        stored = [each.version for each in self._stored.versions.get((kind, name), [])]
        numbers = [int(each) for each in (*stored, *self._new.get((kind, name), [])) if each and each.isdecimal()]
        return str(max(numbers, default=0) + 1)


def _held_by_map(deployment: BatchDeployment, held: dict[str, Any]) -> dict[str, Any]:
    """The options with the versions that a model map means; their keys are taken out of ``held``."""
    found = {key.removeprefix(_MAP): held.pop(key) for key in list(held) if key.startswith(_MAP)}
    model_map = deployment.batchpoint.model_map
    if model_map is None:
        return {}
    changes = {"model_map": model_map.model_copy(update=found)}
    return {"batchpoint": deployment.batchpoint.model_copy(update=changes)}


def differences(
    before: Entity, after: Entity, *, only: frozenset[str] | None = None, ignoring: frozenset[str] = frozenset()
) -> tuple[FieldChange, ...]:
    """The keys in which two entities of a kind differ, but for what the server sets."""
    old, new = _leaves(before, only, ignoring), _leaves(after, only, ignoring)
    if isinstance(after, Model) and after.flavors is None:  # filled in by the server
        old = {key: value for key, value in old.items() if not key.startswith("flavors.")}
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return tuple(FieldChange(key, old.get(key), new.get(key)) for key in keys)


def _change(
    declaration: Declaration,
    before: Entity | None,
    expected: Entity,
    send: Entity,
    *,
    ignoring: frozenset[str] = frozenset(),
) -> Change:
    if before is None:
        return Change("create", declaration.kind, declaration.name, send)
    fields = differences(before, expected, ignoring=ignoring)
    return Change("update" if fields else "unchanged", declaration.kind, declaration.name, send, fields)


def _content_changes(before: Asset, after: Asset) -> tuple[FieldChange, ...]:
    if isinstance(after, Component):
        old, new = before.tags.get(CONTENT_MARK), after.tags[CONTENT_MARK]
        return () if old == new else (FieldChange("content", old, new),)
    return differences(before, after, ignoring=_MAY_CHANGE)


def _leaves(entity: Entity, only: frozenset[str] | None, ignoring: frozenset[str]) -> dict[str, Any]:
    body = entity.model_dump(mode="json", by_alias=True, exclude_none=True)
    kept = {
        key: value
        for key, value in body.items()
        if key not in _SET_BY_SERVER and key not in ignoring and (only is None or key in only)
    }
    found = dict(_flattened(kept, ""))
    found.pop(f"{_MAP}models_found", None)  # counted by the server
    if "path" in found and isinstance(entity, Asset):
        found["path"] = _one_form(str(found["path"]))
    if found.get("description") == "":
        del found["description"]
    return found


def _flattened(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from _flattened(each, f"{prefix}{key}.")
        elif each is not None:
            yield f"{prefix}{key}", each


def _one_form(path: str) -> str:
    """An address of a datastore in its short form, as the server keeps it."""
    found = _DATASTORE.search(path)
    short = f"azureml://datastores/{found['datastore']}/paths/{found['path']}" if found else path
    return short.rstrip("/")


def _others(before: Asset, declaration: Declaration) -> tuple[FieldChange, ...]:
    """What differs beside the content; the mark of a component is the content."""
    found = differences(before, declaration.expected, only=_MAY_CHANGE)
    return tuple(each for each in found if each.key != f"tags.{CONTENT_MARK}")


def _other_content(declaration: Declaration, stored: Asset, fields: Sequence[FieldChange]) -> str:
    said = ", ".join(each.key for each in fields)
    return (
        f"{declaration.place}: {declaration.kind} {stored.reference} is registered with other content ({said}), and "
        "versions never change. Declare another version, or leave the version out to count up."
    )


def _needed(declaration: Declaration, declarations: Sequence[Declaration]) -> list[int]:
    """The positions of what one refers to."""
    found = []
    for each in wanted(declaration):
        for position, other in enumerate(declarations):
            if other.kind != each.kind or other is declaration:
                continue
            version = other.entity.version if isinstance(other.entity, Asset) else None
            name = other.entity.name if isinstance(other.entity, Asset) else other.name
            if name == each.reference.name and each.reference.version in (None, version):
                found.append(position)
    return found


def _removal(declaration: Declaration, stored: Stored, endpoints: set[str]) -> Removal:
    kind, entity, name = declaration.kind, declaration.entity, declaration.name
    if (kind, name) in BUILT_IN:
        return Removal("built in", kind, name)
    if isinstance(entity, Asset):
        versions = stored.versions.get((kind, entity.name), [])
        left = [each for each in versions if not each.archived and entity.version in (None, each.version)]
        return Removal("archive" if left else "gone", kind, name)
    if stored.named.get((kind, name)) is None:
        return Removal("gone", kind, name)
    covered = isinstance(entity, AnyDeployment) and entity.endpoint_name in endpoints
    return Removal("with its endpoint" if covered else "delete", kind, name)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise InvalidEntityError(_joined(problems), problems=list(problems))


def _joined(problems: Sequence[str]) -> str:
    head = "Nothing was changed:" if len(problems) == 1 else f"Nothing was changed; there are {len(problems)} faults:"
    return "\n  ".join([head, *problems])
