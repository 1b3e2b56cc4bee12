"""Apply and remove: everything that files declare is brought about, or torn down, one step after the other.

Each step is whole by itself, and what is done is looked up anew each time; so a run that was broken off anywhere is
completed by the next one, and nothing is made twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batchpoint.client.changes import (
    Change,
    Declaration,
    Removal,
    Stored,
    changes_of,
    removals_of,
    wanted,
)
from batchpoint.client.declarations import Solution, placed, read_solution
from batchpoint.entities.base import Asset, Entity
from batchpoint.entities.documents import Kind
from batchpoint.entities.endpoints import BatchEndpoint
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.entities.resources import Datastore
from batchpoint.entities.schedules import Schedule
from batchpoint.entities.webhooks import Webhook
from batchpoint.errors import BatchpointError, NotFoundError

if TYPE_CHECKING:
    from batchpoint.client import Client

State = Literal["planned", "done", "unchanged", "failed", "not reached"]

Step = Change | Removal

_LEFT_OUT = frozenset(
    {"schema_address", "created_at", "modified_at", "created_by", "scoring_uri", "openapi_uri", "provisioning_state",
     "anchored_at", "next_run_at"}
)  # fmt: skip
"""Set by the server, and not sent to it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one step."""

    step: Step
    state: State
    error: BatchpointError | None = None

    def body(self) -> dict[str, Any]:
        """The outcome as JSON-ready values."""
        step = self.step
        shown = step.body() if isinstance(step, Change) else vars(step)
        return {**shown, "state": self.state, **({"error": str(self.error)} if self.error else {})}


Told = Callable[[Outcome], None]
"""Called with each outcome as soon as it is known."""


class Applying:
    """What some files declare, held against one server."""

    def __init__(self, client: Client, paths: Iterable[str | Path], assignments: Iterable[str] = ()) -> None:
        """Read and check the files.

        Raises:
            InvalidEntityError: with every fault of every file.
        """
        self._client = client
        self._solution: Solution = read_solution(paths, assignments)
        self.skipped = self._solution.skipped

    def changes(self) -> list[Change]:
        """What is to be done, in order.

        Raises:
            InvalidEntityError: what a file points to on this machine does not exist; or something refers to what is
                neither declared nor stored, or to itself in a circle.
            ConflictError: what is declared cannot become so.
        """
        files = self._client.files()
        declarations = [placed(each, files) for each in self._solution.declarations]
        return changes_of(declarations, _stored(self._client, declarations))

    def removals(self) -> list[Removal]:
        """What is to be done to be rid of all of it, in order. Jobs, and files in datastores, stay.

        What the files point to on this machine is not looked at, and may be gone.
        """
        declarations = [placed(each, _Unread()) for each in self._solution.declarations]
        return removals_of(declarations, _stored(self._client, declarations))

    def carry_out(self, steps: Sequence[Step], told: Told | None = None, *, dry_run: bool = False) -> list[Outcome]:
        """Do the steps until one fails; what comes after that is not reached. A dry run does nothing.

        An error of a step is part of its outcome and not raised.
        """
        outcomes: list[Outcome] = []
        failed = False
        for step in steps:
            outcome = Outcome(step, "not reached") if failed else self._outcome(step, dry_run=dry_run)
            failed = failed or outcome.state == "failed"
            outcomes.append(outcome)
            if told is not None:
                told(outcome)
        return outcomes

    def _outcome(self, step: Step, *, dry_run: bool) -> Outcome:
        if is_settled(step):
            return Outcome(step, "unchanged")
        if dry_run:
            return Outcome(step, "planned")
        try:
            if isinstance(step, Change):
                _change(self._client, step)
            else:
                _remove(self._client, step)
        except BatchpointError as fault:
            return Outcome(step, "failed", fault)
        return Outcome(step, "done")


class _Unread:
    """Local content where nothing is compared: any address will do."""

    def expected_address(self, kind: Kind, local: str) -> str:
        return f"azureml://jobs/unread/outputs/{kind}/paths/{Path(local).name}"

    def expected_code(self, local: str) -> str:
        return f"azureml:{hashlib.sha256(local.encode()).hexdigest()[:32]}:1"

    def expected_place(self, local: str) -> str:
        return local


def is_settled(step: Step) -> bool:
    """Whether there is nothing to be done about it."""
    return step.action in ("unchanged", "gone", "built in")


def _stored(client: Client, declarations: Sequence[Declaration]) -> Stored:
    stored = Stored()
    named = chain.from_iterable(((each.kind, each.reference.name) for each in wanted(one)) for one in declarations)
    own = ((each.kind, each.entity.name if isinstance(each.entity, Asset) else each.name) for each in declarations)
    defaults = (
        ("deployment", f"{each.entity.name}/{each.entity.defaults.deployment_name}")
        for each in declarations
        if isinstance(each.entity, BatchEndpoint) and each.entity.defaults.deployment_name
    )
    keys: list[tuple[Kind, str]] = [*own, *named, *defaults]  # type: ignore[list-item]  # the literal's type is lost
    for kind, name in dict.fromkeys(keys):
        if kind in ASSET_KINDS:
            stored.versions[kind, name] = list(client.door(kind).list(name, archived="include"))
        else:
            stored.named[kind, name] = _found(client, kind, name)
    stored.same_credentials = {
        (each.kind, each.name)
        for each in declarations
        if isinstance(each.entity, Datastore | Webhook)
        and each.entity.credentials is not None
        and stored.named[each.kind, each.name] is not None
        and client.door(each.kind).holds_credentials(each.name, each.entity.credentials)
    }
    return stored


def _found(client: Client, kind: Kind, name: str) -> Entity | None:
    try:
        if kind == "deployment":
            endpoint, _, deployment = name.partition("/")
            return client.deployments.get(deployment, endpoint)
        found: Entity = client.door(kind).get(name)
    except NotFoundError:
        return None
    return found


def _change(client: Client, change: Change) -> None:
    entity, door = change.send, client.door(change.kind)
    if isinstance(entity, Asset):
        _change_asset(door, change, entity)
    elif [each.key for each in change.fields] == ["defaults.deployment_name"]:
        after = change.fields[0].after
        client.endpoints.update(entity.name, changes={"defaults": {"deployment_name": after}})
    else:
        # A schedule is replaced as a whole, but for whether it is enabled, which stays as somebody may have left it.
        door.create_or_update(entity if isinstance(entity, Schedule) else _whole(entity))


def _change_asset(door: Any, change: Change, asset: Asset) -> None:
    if change.action == "create":
        door.create_or_update(asset)
        return
    if change.action == "restore":
        door.restore(asset.name, asset.version)
    if change.fields:
        gone = {each.key.removeprefix("tags."): None for each in change.fields if each.after is None}
        changes = {"description": asset.description or "", "tags": {**gone, **asset.tags}}
        door.update(asset.name, asset.version, changes=changes)


def _whole(entity: Entity) -> Entity:
    """The entity with every key given: a key that is left out would stay as it is.

    All but the default deployment of an endpoint, which is set when the deployment is there.
    """
    left_out = _LEFT_OUT | ({"defaults"} if isinstance(entity, BatchEndpoint) else set())
    return type(entity).model_validate(entity.model_dump(exclude=set(left_out)))


def _remove(client: Client, removal: Removal) -> None:
    """Take one thing away; that it is gone already is as good."""
    name, _, version = removal.name.partition(":")
    try:
        if removal.action == "archive":
            client.door(removal.kind).archive(name, version or None)
        elif removal.kind == "deployment" and removal.action == "delete":
            endpoint, _, deployment = removal.name.partition("/")
            client.deployments.delete(deployment, endpoint)
        elif removal.kind == "schedule" and removal.action == "delete":
            client.schedules.delete(removal.name, force=True)
        elif removal.action == "delete":
            client.door(removal.kind).delete(removal.name)
    except NotFoundError:
        return
