"""How this interface packs and unpacks: bodies, answers, pages, and their description for OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from batchpoint.entities.base import Entity
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
from batchpoint.errors import InvalidEntityError

AnyModel = TypeVar("AnyModel", bound=BaseModel)

LARGEST_OFFSET = 2**53
"""Beyond it neither SQLite nor a file can be asked."""


class Page:
    """Which part of a list is asked for."""

    def __init__(
        self,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=LARGEST_OFFSET)] = 0,
    ) -> None:
        self._request = request
        self.limit = limit
        self.offset = offset

    @property
    def reach(self) -> int:
        """How many items to ask for: one more than the page holds, which tells whether there is a next page."""
        return self.limit + 1

    def answer(self, found: Sequence[Any]) -> JSONResponse:
        """The page, and the address of the next one."""
        following = None
        if len(found) > self.limit:
            query = {**self._request.query_params, "limit": self.limit, "offset": self.offset + self.limit}
            following = f"{self._request.url.path}?{urlencode(query)}"
        return JSONResponse({"value": [as_json(item) for item in found[: self.limit]], "next": following})


Paged = Annotated[Page, Depends(Page)]
"""Paging of a list route."""


def answer(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A value as JSON."""
    return JSONResponse(as_json(value), status_code=status, headers=dict(headers or {}))


def as_json(value: object) -> Any:
    """An entity, or anything else that is made of plain values, ready for JSON."""
    if isinstance(value, Entity):
        return value.body()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return value


def whole_address(request: Request, route: str, name: str) -> str:
    """The address of something as the caller reaches this server; it names its workspace, unless that is default."""
    address, workspace = request.url_for(route, name=name), request.scope.get("workspace", DEFAULT_WORKSPACE)
    return str(address if workspace == DEFAULT_WORKSPACE else address.include_query_params(workspace=workspace))


def files_json(files: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """Files as path and size."""
    return [{"path": path, "size": size} for path, size in files]


def merged(before: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """A JSON merge patch (RFC 7386): keys of the patch replace those before, null removes.

    Raises:
        InvalidEntityError: the patch is not a mapping.
    """
    if not isinstance(patch, Mapping):
        raise InvalidEntityError("The body of a PATCH is a mapping of the keys that change.")
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def described(*, body: type[BaseModel] | None = None, result: type[BaseModel] | None = None) -> dict[str, Any]:
    """What a route takes and answers with, for OpenAPI."""
    found: dict[str, Any] = {}
    if body is not None:
        found["openapi_extra"] = {"requestBody": {"required": True, "content": _content(body)}}
    if result is not None:
        found["responses"] = {"2XX": {"description": "Done", "content": _content(result)}}
    return found


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
