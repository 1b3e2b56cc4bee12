"""Paths of the server's machine: they are taken from callers who are on it alone, and only where they are absolute."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from batchpoint.entities.documents import Kind
from batchpoint.entities.endpoints import BatchDeployment, OutputTable
from batchpoint.entities.jobs import InvokeRequest
from batchpoint.entities.local_paths import is_local, local_paths
from batchpoint.entities.schedules import FILES, Schedule, ScheduledInvoke
from batchpoint.entities.triggers import FileTrigger
from batchpoint.errors import InvalidEntityError
from batchpoint.server.context import Context


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


def _database_files(table: OutputTable | None) -> list[str]:
    return [table.url.removeprefix("sqlite:///")] if table and table.url.startswith("sqlite:") else []


def _is_reference(path: str) -> bool:
    """``churn:3`` or ``churn@latest``: no path has a colon or an at sign and no slash, as far as we care."""
    return "/" not in path and (":" in path or "@" in path)
