"""Names of the dialect: the workspace in an address, ids of resources, pages, long-running operations, error bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from batchpoint.entities.assets import CURATED_ENVIRONMENT
from batchpoint.entities.base import Entity, parse_reference
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.operations.places import asset_reference
from batchpoint.server.azureml.mapping import Form
from batchpoint.server.bodies import LenientJsonBody
from batchpoint.server.context import Work

PROVIDER = "Microsoft.MachineLearningServices"
WORKSPACES = f"/subscriptions/{{subscription}}/resourceGroups/{{resource_group}}/providers/{PROVIDER}/workspaces"
WORKSPACE = f"{WORKSPACES}/{{workspace}}"
"""The prefix of every route of the control plane."""

LOCATION = "local"
"""The region that everything is said to be in."""

Item = TypeVar("Item")

PREFIXES = ("/subscriptions/", "/history/", "/mferp/", "/data/", "/modelregistry/", "/discovery", "/azureml/")
"""Addresses that are answered in the dialect, errors too."""

_ID = re.compile(
    r"^(?:azureml:)?/+subscriptions/[^/]+/resourcegroups/[^/]+/providers/[^/]+/workspaces/[^/]+"
    r"/(?P<kind>[A-Za-z]+)/(?P<name>[^/]+)(?:/(?:versions|labels|deployments|jobs)/(?P<inner>[^/]+))?/?$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Scope:
    """The workspace that a request is about, and how the caller reaches this server."""

    subscription: str
    resource_group: str
    workspace: str
    base: str
    """Scheme and host, without a slash at the end: ``https://localhost:8443``."""

    @property
    def path(self) -> str:
        """The workspace's own id. It stands in headers, and the names in it are whatever an address can hold."""
        return WORKSPACE.format(
            subscription=quote(self.subscription),
            resource_group=quote(self.resource_group),
            workspace=quote(self.workspace),
        )

    def id_of(self, kind: str, name: str, *inner: str) -> str:
        """The id of a resource, which is the path it is found at: ``id_of("models", "churn", "versions", "3")``."""
        return "/".join([self.path, kind, quote(name), *(quote(part) for part in inner)])


def scope_of(request: Request) -> Scope:
    """The workspace named in the address of a request."""
    given = request.path_params
    return Scope(given["subscription"], given["resource_group"], given["workspace"], base_of(request))


def base_of(request: Request) -> str:
    """Scheme and host by which the caller reaches this server."""
    return str(request.base_url).rstrip("/")


Scoped = Annotated[Scope, Depends(scope_of)]
"""The workspace in the address."""
ScopedWork = Work
"""The operations on what is in that workspace."""


def _mapping_of(body: LenientJsonBody) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidEntityError("The body has to be a JSON object.")
    return body


WireBody = Annotated[dict[str, Any], Depends(_mapping_of)]
"""The parsed body of a request, which is a JSON object."""


@dataclass(frozen=True, slots=True)
class ResourceId:
    """What an id names."""

    kind: str
    """``models``, ``data``, ``environments``, ``codes``, ``components``, ``computes``, ``datastores``, ``jobs``, …"""
    name: str
    inner: str | None = None
    """The version, label, deployment or job below it."""


def parse_id(text: str) -> ResourceId | None:
    """Read an id in any of its spellings; None for what is none, such as a bare name."""
    match = _ID.match(text)
    return None if match is None else ResourceId(match["kind"], match["name"], match["inner"])


def name_in(text: str) -> str:
    """The bare name in an id, in ``azureml:<name>``, or alone. The client leaves ``azureml:`` inside of ids, too."""
    found = parse_id(text)
    return (found.name if found else text).removeprefix("azureml:")


def asset_form(scope: Scope, kind: str) -> Form:
    """A reference to an asset here (``azureml:churn:3``), its id there; read in each of its spellings.

    An environment of Azure's registries is none here; it travels as it is, and ``operations`` says what stands for it.
    """

    def write(reference: str) -> str:
        named = parse_reference(reference)
        by, which = ("versions", named.version) if named.version else ("labels", named.label or "latest")
        return scope.id_of(kind, named.name, by, which)

    def read(text: str) -> str:
        return text if CURATED_ENVIRONMENT.match(text) else f"azureml:{asset_reference(text) or parse_reference(text)}"

    return Form(write, read)


def name_form(scope: Scope, kind: str) -> Form:
    """A resource by name here (``azureml:cluster``), its id there."""
    return Form(lambda name: scope.id_of(kind, name_in(name)), lambda text: f"azureml:{name_in(text)}")


def resource(
    scope: Scope, kind: str, names: Sequence[str], properties: Mapping[str, Any], *, entity: Entity | None = None
) -> dict[str, Any]:
    """The envelope of a resource.

    Args:
        scope: its workspace.
        kind: as it stands in addresses: ``models``.
        names: its name, and what follows it in its id: ``("churn", "versions", "3")``.
        properties: what the dialect says about it.
        entity: tells when and by whom it was stored.
    """
    types = [kind, *names[1:-1:2]] if len(names) > 1 else [kind]
    found: dict[str, Any] = {
        "id": scope.id_of(kind, *names),
        "name": names[-1],
        "type": "/".join([PROVIDER, "workspaces", *types]),
        "properties": dict(properties),
    }
    if entity is not None:
        found["systemData"] = system_data(entity)
    return found


def system_data(entity: Entity) -> dict[str, Any]:
    """When and by whom an entity was stored."""
    known = {
        "createdAt": timestamp(entity.created_at),
        "createdBy": entity.created_by,
        "createdByType": "Application",
        "lastModifiedAt": timestamp(entity.modified_at or entity.created_at),
        "lastModifiedBy": entity.created_by,
        "lastModifiedByType": "Application",
    }
    return {key: value for key, value in known.items() if value is not None}


def timestamp(moment: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(items: Iterable[Mapping[str, Any]], *, following: str | None = None) -> JSONResponse:
    """A list; ``following`` is the absolute address of the next page."""
    return JSONResponse({"value": list(items), **({"nextLink": following} if following else {})})


class Listing:
    """Which part of a list is asked for: pages of ``count``, or at most ``$top`` in all."""

    def __init__(
        self,
        request: Request,
        top: Annotated[int | None, Query(alias="$top", ge=1, le=1000)] = None,
        count: Annotated[int, Query(ge=1, le=1000)] = 100,
        skip: Annotated[int, Query(alias="$skip", ge=0, le=2**53)] = 0,
    ) -> None:
        self._request = request
        self._is_whole = top is not None
        self.limit = top or count
        self.offset = skip

    @property
    def reach(self) -> int:
        """How many items to ask for: one more than the page holds, which tells whether there is a next page."""
        return self.limit + 1

    def answer(self, found: Sequence[Item], written: Callable[[Item], Mapping[str, Any] | None]) -> JSONResponse:
        """The page, each item as ``written`` says it (None leaves it out), and the address of the next page."""
        following = None
        if len(found) > self.limit and not self._is_whole:
            following = str(self._request.url.include_query_params(**{"$skip": self.offset + self.limit}))
        items = (written(item) for item in found[: self.limit])
        return page([item for item in items if item is not None], following=following)


Listed = Annotated[Listing, Depends(Listing)]
"""Paging of a list route."""


OPERATION = f"{WORKSPACE}/operations/done"


def stored_at_once(scope: Scope, body: Mapping[str, Any]) -> JSONResponse:
    """The answer to a PUT of what the client makes an object of by its ``…Type``: it is to ask for it once more.

    Of an answer that leaves nothing to wait for, older clients make their object twice: when it comes, and as the
    result. The first time takes the type out of it, so that the second one fails. With an operation to ask for, even
    one that is done, the result is what they then fetch.
    """
    return JSONResponse(dict(body), status_code=201, headers={"Azure-AsyncOperation": operation_address(scope)})


def operation_address(scope: Scope) -> str:
    """Where a caller asks whether what he stored is there by now."""
    return f"{scope.base}{scope.path}{OPERATION.removeprefix(WORKSPACE)}"


def deleted(delete: Callable[[], None]) -> Response:
    """The answer to a DELETE: 204 is the client's word for there having been none, which is as good."""
    try:
        delete()
    except NotFoundError:
        return Response(status_code=204)
    return Response(status_code=200)


def error_body(
    code: str, message: str, *, target: str | None = None, details: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """An error as the client makes its own exceptions of it. ``code`` is ours: ``not_found`` becomes ``NotFound``."""
    name = "".join(part.capitalize() for part in code.split("_"))
    found: dict[str, Any] = {"code": name, "message": message}
    if target:
        found["target"] = target
    if details:
        found["details"] = [dict(detail) for detail in details]
    return {"error": found}
