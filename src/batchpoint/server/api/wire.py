"""How this interface packs and unpacks: bodies, answers, pages, and their description for OpenAPI."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from batchpoint.entities.base import Entity
from batchpoint.entities.documents import Kind
from batchpoint.entities.endpoints import BatchDeployment, OutputTable
from batchpoint.entities.jobs import InvokeRequest
from batchpoint.entities.local_paths import is_local, local_paths
from batchpoint.entities.schedules import FILES, Schedule, ScheduledInvoke
from batchpoint.entities.tokens import Token
from batchpoint.entities.triggers import FileTrigger
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
from batchpoint.errors import InvalidEntityError
from batchpoint.server.auth import authenticated
from batchpoint.server.context import Context

AnyModel = TypeVar("AnyModel", bound=BaseModel)

DEEPEST = 50
"""Levels of mappings and lists in a body; no entity needs a tenth of them."""
LARGEST_OFFSET = 2**53
"""Beyond it neither SQLite nor a file can be asked."""


async def _json_body(request: Request, _: Annotated[Token, Depends(authenticated)]) -> Any:
    """The body, read for callers with a token alone."""
    return await run_in_threadpool(_parsed, await request.body())


JsonBody = Annotated[Any, Depends(_json_body)]
"""The parsed body of a request; ``documents.read_body`` makes an entity of it, with suggestions for slips."""


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


def check_local_paths(context: Context, kind: Kind, entity: BaseModel) -> None:
    """Take paths of this machine only from callers who are on it, and only absolute ones.

    Raises:
        InvalidEntityError: the caller cannot mean a path of this machine.
    """
    body = entity.model_dump(mode="json", exclude_none=True)
    found = local_paths(kind, body)
    if files := [each.path for each in found if each.holds == "component"]:
        raise InvalidEntityError(
            f"{files[0]!r} is the path of a component file, which the server does not read. Give a registered one "
            "(azureml:<name>:<version>), or the component in place; the command and the Python client read the file."
        )
    refuse_local(context, [each.path for each in found if "\n" not in each.path])
    if isinstance(entity, BatchDeployment):
        refuse_local(context, _database_files(entity.batchpoint.table))


def check_invoke_paths(context: Context, request: InvokeRequest) -> None:
    """The same for an invoke."""
    paths = [path for given in request.inputs.values() for path in (given.path, *given.paths)]
    paths += [output.path for output in request.outputs.values() if output.path is not None]
    paths += _database_files(request.overrides.table)
    check_paths(context, paths)


def check_paths(context: Context, paths: Iterable[str]) -> None:
    """The same for addresses of data, among which may be references and URLs."""
    refuse_local(context, [path for path in paths if is_local(path) and not _is_reference(path)])


def check_schedule_paths(context: Context, schedule: Schedule) -> None:
    """The same for what a schedule watches, and for what its jobs read and write."""
    if isinstance(schedule.trigger, FileTrigger):
        refuse_local(context, [schedule.trigger.path] if is_local(schedule.trigger.path) else [])
    plan = schedule.create_job
    if isinstance(plan, ScheduledInvoke):
        inputs = {name: given for name, given in plan.inputs.items() if given.path != FILES}
        check_invoke_paths(context, plan.request().model_copy(update={"inputs": inputs}))
        return
    ports = [*plan.inputs.values(), *plan.outputs.values()]
    found = [port["path"] for port in ports if isinstance(port, dict) and isinstance(port.get("path"), str)]
    refuse_local(context, [path for path in found if path != FILES and is_local(path) and not _is_reference(path)])
    if isinstance(plan.job, dict):
        refuse_local(context, [local.path for local in local_paths("job", plan.job) if "\n" not in local.path])


def refuse_local(context: Context, paths: Iterable[str]) -> None:
    """Raises ``InvalidEntityError`` for local paths that cannot be meant."""
    for path in paths:
        if not context.shares_files:
            message = (
                f"{path!r} is a path of some machine, and this server listens to others. Put the files into a "
                "datastore (PUT /api/v1/datastores/{name}/files/{path}) and give "
                "azureml://datastores/<name>/paths/<path>."
            )
            raise InvalidEntityError(message)
        if not path.removeprefix("file://").startswith(("/", "~")):
            raise InvalidEntityError(
                f"{path!r} is a relative path, which the server cannot place. Give an absolute one."
            )


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


def _database_files(table: OutputTable | None) -> list[str]:
    return [table.url.removeprefix("sqlite:///")] if table and table.url.startswith("sqlite:") else []


def _is_reference(path: str) -> bool:
    """``churn:3`` or ``churn@latest``: no path has a colon or an at sign and no slash, as far as we care."""
    return "/" not in path and (":" in path or "@" in path)


def _parsed(content: bytes) -> Any:
    """JSON that can be stored and answered with again: no NaN, no half characters, no endless nesting.

    Raises:
        InvalidEntityError: it is something else. The message never repeats the body, which may hold a secret.
    """
    if not content.strip():
        raise InvalidEntityError("The request has no body; a JSON object was expected.")
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        message = "The body is not UTF-8, or holds half of a surrogate pair (such as \\ud800)."
        raise InvalidEntityError(message) from None
    except (ValueError, RecursionError) as fault:
        where = f" line {fault.lineno}, column {fault.colno}:" if isinstance(fault, json.JSONDecodeError) else ""
        reason = fault.msg if isinstance(fault, json.JSONDecodeError) else fault
        raise InvalidEntityError(f"The body is not JSON:{where} {reason}.") from None
    if _is_deeper(value, DEEPEST):
        raise InvalidEntityError(f"The body is nested deeper than {DEEPEST} levels.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(item, levels - 1) for item in inner)
