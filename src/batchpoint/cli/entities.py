"""Assets and resources: ``model``, ``component``, ``compute`` and the like, created, shown, changed, taken away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from batchpoint.cli.options import (
    Group,
    State,
    archived_of,
    archived_options,
    changes_of,
    common,
    confirm,
    file_option,
    limit_option,
    name_option,
    no_wait_option,
    set_option,
    tags_of,
    tags_option,
    unused_options,
    update_options,
    yes_option,
)

if TYPE_CHECKING:
    from batchpoint.entities.documents import Kind

Option = Callable[[Any], Any]

_ASSET_COLUMNS = ("name", "version", "type", "description", "created_at")


def declare(
    kind: Kind, path: str | None, given: dict[str, Any], assignments: tuple[str, ...], tags: tuple[str, ...] = ()
) -> Any:
    """The entity of a ``create``: from the file, the options (``outer__inner`` for a key within), ``--set``."""
    from batchpoint.client.files import declared
    from batchpoint.errors import InvalidEntityError

    values: dict[str, Any] = {}
    for key, value in {**given, "tags": tags_of(tags)}.items():
        if value not in (None, {}, ()):
            outer, _, inner = key.partition("__")
            values[outer] = {**values.get(outer, {}), inner: value} if inner else value
    if path is None and not values and not assignments:
        raise click.UsageError("Nothing is declared: give --file, or the options of what you create.")
    try:
        return declared(kind, path=path, given=values, assignments=assignments)
    except InvalidEntityError as fault:
        if options := _options_for(fault.details.get("problems", [])):
            fault.details["on_command_line"] = ", ".join(options)
        raise


def _options_for(problems: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options of the command that is carried out which give a key that is missing."""
    missing = {problem["key"].replace(".", "__") for problem in problems if problem["message"].endswith("is missing.")}
    params = click.get_current_context().command.params
    return [max(each.opts, key=len) for each in params if isinstance(each, click.Option) and each.name in missing]


_ONE_REGISTRY = "there is one registry, whose assets every endpoint can use"


def _asset_group(kind: Kind, door: str, text: str, *own: Option, **absent: str) -> click.Group:
    """The commands of one kind of asset; ``own`` are the options of its ``create``, ``absent`` what is not here."""

    @click.group(kind, cls=Group, help=text, absent={"share": _ONE_REGISTRY, **absent})
    def group() -> None:
        pass

    version = click.option("-v", "--version", help="Version; the next one when not given.")
    registry = unused_options("--registry-name", why=_ONE_REGISTRY)
    _add_create(
        group, kind, door, "Register a new version, from a YAML file or from options.", (version, *own, registry)
    )
    _add_asset_readers(group, door, registry)
    _add_asset_changes(group, door)
    return group


def _add_create(group: click.Group, kind: Kind, door: str, text: str, own: tuple[Option, ...]) -> None:
    @group.command(help=text)
    @file_option()
    @click.option("-n", "--name", help="Name.")
    @_with(own)
    @click.option("--description", help="What it is.")
    @tags_option
    @set_option
    @no_wait_option
    @common
    def create(
        state: State, file: str | None, assignments: tuple[str, ...], tags: tuple[str, ...], **given: Any
    ) -> None:
        entity = declare(kind, file, given, assignments, tags)
        state.show(getattr(state.client(), door).create_or_update(entity))


def _add_asset_readers(group: click.Group, door: str, registry: Option) -> None:
    @group.command()
    @name_option
    @_which
    @registry
    @common
    def show(state: State, name: str, version: str | None, label: str | None) -> None:
        """Show one version; the latest when none is named."""
        state.show(getattr(state.client(), door).get(name, version, label))

    @group.command("list")
    @click.option("-n", "--name", help="The versions of this one.")
    @archived_options
    @limit_option
    @registry
    @common
    def list_(state: State, name: str | None, archived_only: bool, include_archived: bool, limit: int | None) -> None:
        """List them, or the versions of one."""
        archived = archived_of(archived_only, include_archived)
        found = getattr(state.client(), door).list(name, archived=archived, limit=limit)
        state.show(list(found), columns=_ASSET_COLUMNS)

    @group.command()
    @name_option
    @_which
    @click.option("-p", "--download-path", default=".", show_default=True, help="Folder to make the folder NAME in.")
    @registry
    @common
    def download(state: State, name: str, version: str | None, label: str | None, download_path: str) -> None:
        """Copy the files of one version."""
        folder = getattr(state.client(), door).download(name, version, label, path=download_path)
        state.note(f"Downloaded to {folder}")


def _add_asset_changes(group: click.Group, door: str) -> None:
    @group.command()
    @name_option
    @_which
    @click.option("--description", help="What it is.")
    @tags_option
    @update_options
    @common
    def update(
        state: State,
        name: str,
        version: str | None,
        label: str | None,
        description: str | None,
        tags: tuple[str, ...],
        assignments: tuple[str, ...],
    ) -> None:
        """Change description or tags of one version."""
        changes = changes_of(assignments, {"description": description, "tags": tags_of(tags)})
        state.show(getattr(state.client(), door).update(name, version, label, changes=changes))

    @group.command()
    @name_option
    @_which
    @common
    def archive(state: State, name: str, version: str | None, label: str | None) -> None:
        """Hide one version, or all, from lists."""
        getattr(state.client(), door).archive(name, version, label)

    @group.command()
    @name_option
    @_which
    @common
    def restore(state: State, name: str, version: str | None, label: str | None) -> None:
        """Show one archived version, or all, in lists again."""
        getattr(state.client(), door).restore(name, version, label)


def resource_group(
    kind: Kind,
    door: str,
    text: str,
    columns: tuple[str, ...],
    *own: Option,
    absent: dict[str, str],
    deletes_in_scripts: bool = False,
) -> click.Group:
    """The commands of one kind of named thing; ``absent`` are those that are not here."""

    @click.group(kind, cls=Group, help=text, absent=absent)
    def group() -> None:
        pass

    _add_create(group, kind, door, "Create it, or bring it to what the file and the options say.", own)

    @group.command()
    @name_option
    @file_option(text="YAML file that holds the whole of it.")
    @click.option("--description", help="What it is.")
    @tags_option
    @_with(own)
    @update_options
    @no_wait_option
    @common
    def update(
        state: State, name: str, file: str | None, assignments: tuple[str, ...], tags: tuple[str, ...], **given: Any
    ) -> None:
        """Change some keys; with a file, all of them."""
        client = getattr(state.client(), door)
        if file is not None:
            state.show(client.create_or_update(declare(kind, file, {**given, "name": name}, assignments, tags)))
            return
        changes = changes_of(assignments, {**given, "tags": tags_of(tags)})
        state.show(client.update(name, changes=changes))

    add_named_readers(group, door, columns, deletes_in_scripts=deletes_in_scripts)
    return group


def add_named_readers(
    group: click.Group,
    door: str,
    columns: tuple[str, ...],
    *,
    deletes_in_scripts: bool = False,
    once_deleted: Callable[[State, str], None] = lambda _state, _name: None,
) -> None:
    """``show``, ``list`` and ``delete`` of things that are known by name alone.

    With ``deletes_in_scripts``, ``delete`` asks on a terminal only: that of Azure's command line has no ``--yes``.
    ``once_deleted`` tells what else there is to know then.
    """

    @group.command()
    @name_option
    @common
    def show(state: State, name: str) -> None:
        """Show one."""
        state.show(getattr(state.client(), door).get(name))

    @group.command("list")
    @click.option("-t", "--type", "kind", help="Only those of this type.")
    @limit_option
    @common
    def list_(state: State, kind: str | None, limit: int | None) -> None:
        """List them."""
        found = list(getattr(state.client(), door).list(limit=None if kind else limit))
        fitting = [one for one in found if kind is None or getattr(one, "type", "batch") == kind.lower()]
        state.show(fitting[:limit], columns=columns)

    @group.command()
    @name_option
    @yes_option
    @no_wait_option
    @common
    def delete(state: State, name: str, yes: bool) -> None:
        """Remove one."""
        confirm(f"{group.name} {name}", yes=yes, in_scripts=not deletes_in_scripts)
        getattr(state.client(), door).delete(name)
        once_deleted(state, name)


def _which(command: Any) -> Any:
    command = click.option("-l", "--label", help="Label, such as latest.")(command)
    return click.option("-v", "--version", help="Version.")(command)


def _with(options: tuple[Option, ...]) -> Option:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


model = _asset_group(
    "model",
    "models",
    "Trained models.",
    click.option("-p", "--path", help="Local file or folder, or an address in a datastore."),
    click.option("-t", "--type", help="custom_model, mlflow_model or triton_model."),
    click.option("--datastore", help="Datastore to keep it in."),
    unused_options("--stage", why="the stage of a model is not kept; --tags are"),
    package="a deployment brings its environment; no image is made",
)

data = _asset_group(
    "data",
    "data",
    "Data to score.",
    click.option("-p", "--path", help="Local file or folder, or an address."),
    click.option("-t", "--type", help="uri_file, uri_folder or mltable."),
    click.option("--datastore", help="Datastore to keep it in."),
    **{
        "import": "register a query's rows with 'endpoint invoke --input-query', or the files as they are",
        "list-materialization-status": "nothing is imported, so nothing waits to be",
        "mount": "'data download' copies the files",
    },
)

environment = _asset_group(
    "environment",
    "environments",
    "Packages that scoring scripts run with.",
    click.option("-i", "--image", help="Docker image; recorded, not used."),
    click.option("-c", "--conda-file", help="Conda specification."),
    click.option("--pip-requirements", help="Requirements file."),
    click.option("-b", "--build-context", "build__path", help="Folder of a Dockerfile; recorded, not built."),
    click.option("-d", "--dockerfile-path", "build__dockerfile_path", help="Dockerfile in that folder."),
    click.option("--os-type", help="linux or windows."),
    click.option("--datastore", help="Datastore to keep it in."),
)

component = _asset_group(
    "component",
    "components",
    "Steps and pipelines to be used by name.",
    unused_options("--skip-validation", why="a component that cannot work is refused anyway", flags=True),
)

datastore = resource_group(
    "datastore",
    "datastores",
    "Named places for bytes.",
    ("name", "type", "path", "is_default"),
    click.option("-t", "--type", help="local, memory, http, s3, gcs, azure_blob, …"),
    click.option("-p", "--path", help="Folder of a local datastore; prefix in a bucket."),
    absent={"mount": "'data create --path azureml://datastores/…' and 'data download' reach its files"},
    deletes_in_scripts=True,
)

compute = resource_group(
    "compute",
    "computes",
    "Where jobs run.",
    ("name", "type", "min_instances", "max_instances", "idle_time_before_scale_down"),
    click.option("-t", "--type", help="amlcompute or local."),
    click.option("--size", help="Recorded; the machine is as large as it is."),
    click.option("--min-instances", type=int, help="Instances kept warm."),
    click.option("--max-instances", type=int, help="Instances at most."),
    click.option("--tier", help="dedicated or low_priority."),
    click.option("-d", "--idle-time-before-scale-down", type=int, help="Seconds an unused instance stays warm."),
    click.option("-l", "--location", help="Recorded."),
    click.option("--enable-node-public-ip", type=click.BOOL, help="Recorded."),
    click.option("-p", "--ssh-public-access-enabled", type=click.BOOL, help="Recorded."),
    unused_options("--vnet-name", "--subnet", why="its instances are processes of the server's machine"),
    unused_options("--admin-username", "--admin-password", "--ssh-key-value", why="nobody logs into its instances"),
    unused_options(
        "--identity-type", "--user-assigned-identities/-i", "--user-object-id", "--user-tenant-id",
        why="jobs read with the credentials of datastores",
    ),
    absent={
        **dict.fromkeys(("attach", "detach"), "'compute create' makes one; the machine is the server's"),
        **dict.fromkeys(("start", "stop", "restart"), "instances start with jobs and stop when idle"),
        **dict.fromkeys(("list-sizes", "list-usage"), "an instance is as large as the machine of the server"),
        **dict.fromkeys(("connect-ssh", "enable-sso"), "nobody logs into its instances"),
    },
)  # fmt: skip


@compute.command("list-nodes")
@name_option
@common
def list_nodes(state: State, name: str) -> None:
    """List the instances and their state."""
    state.show(list(state.client().computes.nodes(name)))
