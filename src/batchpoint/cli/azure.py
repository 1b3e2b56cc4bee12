"""What scripts for Azure's command line do around ``az ml``: log in, choose a subscription, ask for a token.

``batchpoint.cli.main`` finds them under the words that ``az() { shift; batchpoint "$@"; }`` leaves of them, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchpoint.cli.options import (
    Command,
    Group,
    State,
    common,
    confirm,
    file_option,
    no_wait_option,
    set_option,
    tags_of,
    tags_option,
    unused_options,
    yes_option,
)

if TYPE_CHECKING:
    from batchpoint.entities.workspaces import NamedWorkspace

_HOME = "the server of this home, or BATCHPOINT_URL, is the one in use"


@click.group("account", cls=Group)
def account() -> None:
    """The account of Azure: scripts ask for it, and for a token."""


@account.command()
@common
def show(state: State) -> None:
    """Show what stands for the account: the server in use."""
    state.show(_account(state))


@account.command("list")
@unused_options("--all", "--refresh", why=_HOME, flags=True)
@common
def list_(state: State) -> None:
    """List the accounts: the one there is."""
    state.show([_account(state)])


@account.command("set")
@unused_options("--name/-n", "-s", why=_HOME)
@common
def set_(state: State) -> None:
    """Choose a subscription: there is nothing to choose."""
    state.note(f"No subscription is chosen: {_HOME}.")


@account.command("get-access-token")
@unused_options(
    "--resource", "--scope", "--resource-type", "--tenant/-t", why="the token is good for all of the server"
)
@common
def get_access_token(state: State) -> None:
    """Show a token for 'Authorization: Bearer' of requests; it is valid for an hour."""
    from datetime import UTC, datetime

    from batchpoint.client.azureml import DEFAULTS

    token, expires_on = state.client().signed_token()
    state.show(
        {
            "accessToken": token,
            "expiresOn": datetime.fromtimestamp(expires_on, UTC).astimezone().isoformat(" ", "seconds"),
            "expires_on": expires_on,
            "subscription": DEFAULTS["subscription_id"],
            "tokenType": "Bearer",
        }
    )


@click.group("extension", cls=Group)
def extension() -> None:
    """Extensions of Azure's command line: the one called ml is built in."""


def _extension_command(name: str) -> None:
    @extension.command(name)
    @click.option("-n", "--name", help="Name.")
    @unused_options("--upgrade", "--yes/-y", "--allow-preview", why="it is built in", flags=True)
    @unused_options("--source/-s", "--version", why="it is built in")
    @common
    def command(state: State, name: str | None) -> None:
        """Nothing is installed or removed."""
        if name in (None, "ml", "azure-cli-ml"):
            state.note(f"Extension {name or 'ml'}: it is built in, and nothing was done.")
        else:
            raise click.UsageError(f"There is no extension {name!r} here; only what 'ml' does is built in.")


for _name in ("add", "remove", "update"):
    _extension_command(_name)


@click.group("group", cls=Group)
def group() -> None:
    """Resource groups: there are none. Any name stands for the server in use."""


@group.command("show")
@click.option("-n", "--name", help="Name; the one that is kept as a default when not given.")
@common
def show_group(state: State, name: str | None) -> None:
    """Show what stands for a resource group."""
    state.show(_group(state, name))


@group.command("list")
@unused_options("--tag", why=_HOME)
@common
def list_groups(state: State) -> None:
    """List the resource groups: the one that stands for all."""
    state.show([_group(state, None)])


@group.command("create")
@click.option("-n", "--name", help="Name.")
@unused_options("--location/-l", "--tags", why=_HOME)
@common
def create_group(state: State, name: str | None) -> None:
    """Take the wish for a resource group."""
    state.note(f"No resource group was made: {_HOME}.")
    state.show(_group(state, name))


@click.command("configure", cls=Command)
@click.option("-d", "--defaults", "pairs", multiple=True, metavar="KEY=VALUE",
              help="Such as: workspace=risk group=g. An empty value takes one away.")  # fmt: skip
@click.option("-l", "--list-defaults", "listed", is_flag=True, help="List those that are kept.")
@unused_options("--scope", why="defaults are those of the home")
@common
def configure(state: State, pairs: tuple[str, ...], listed: bool) -> None:
    """Keep defaults for the commands of this home: the workspace that they work within, and its group.

    --workspace-name and BATCHPOINT_WORKSPACE come first. Other names are kept and listed, and count for nothing.
    """
    from batchpoint.cli.defaults import defaults_file, keep_defaults, read_defaults
    from batchpoint.entities.workspaces import workspace_key
    from batchpoint.settings import Settings

    if bad := [pair for pair in pairs if "=" not in pair]:
        raise click.BadParameter(f"{bad[0]!r}: write KEY=VALUE.", param_hint="--defaults")
    home = Settings.from_environment().home
    given = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    if given.get("workspace"):
        workspace_key(given["workspace"])
    if given:
        keep_defaults(home, given)
    if "workspace" in given:
        within = given["workspace"] or "the default one"
        state.note(f"Commands of {home} work within this workspace from now on: {within}.")
    if listed or not given:
        source = str(defaults_file(home))
        kept = read_defaults(home)
        state.show([{"name": key, "source": source, "value": value} for key, value in kept.items()])


@click.command("login", cls=Command)
@unused_options("--identity/-i", "--service-principal", "--use-device-code", "--allow-no-subscriptions", why=_HOME,
                flags=True)  # fmt: skip
@unused_options("--username/-u", "--password/-p", "--tenant/-t", "--federated-token", "--scope", why=_HOME)
@common
def login(state: State) -> None:
    """Log in: nobody has to. BATCHPOINT_TOKEN is the token of another server than the local one."""
    state.note(f"Nobody has to log in: {_HOME}.")


@click.group("workspace", cls=Group)
def workspace() -> None:
    """Workspaces: the namespaces of the server in use."""


@workspace.command("show")
@click.option("-n", "--name", help="Name; that of the workspace in use when not given.")
@common
def show_workspace(state: State, name: str | None) -> None:
    """Show a workspace."""
    wanted = name or state.client().workspace
    state.show(_workspace(state, state.client().workspaces.get(wanted)))


@workspace.command("create")
@file_option()
@click.option("-n", "--name", help="Name.")
@click.option("--display-name", help="Name as it is shown.")
@click.option("--description", help="What it is for.")
@tags_option
@set_option
@unused_options("--location/-l", "--storage-account", why=_HOME)
@no_wait_option
@common
def create_workspace(
    state: State,
    file: str | None,
    name: str | None,
    display_name: str | None,
    description: str | None,
    tags: tuple[str, ...],
    assignments: tuple[str, ...],
) -> None:
    """Create a workspace, or change the one of that name. One that is only used needs not be created."""
    from batchpoint.entities.documents import Document, read_body, read_document
    from batchpoint.entities.workspaces import NamedWorkspace

    text = Path(file).read_text(encoding="utf-8") if file is not None else None
    document = Document(value={}, name="workspace") if text is None else read_document(text, name=str(file))
    options = {"name": name, "display_name": display_name, "description": description, "tags": tags_of(tags)}
    declared = {**document.with_settings(assignments).value, **{key: each for key, each in options.items() if each}}
    wanted = read_body(NamedWorkspace, {key: declared[key] for key in options if key in declared}, name="workspace")
    if more := ", ".join(sorted(declared.keys() - options.keys() - {"$schema"})):
        state.note(f"What else a workspace is made of does not count here ({more}): {_HOME}.")
    state.show(_workspace(state, state.client().workspaces.create_or_update(wanted)))


@workspace.command("delete")
@click.option("-n", "--name", help="Name; that of the workspace in use when not given.")
@click.option("-p", "--permanently-delete", "permanently", is_flag=True,
              help="With all that is in it, its default datastore too. It cannot be had back.")  # fmt: skip
@unused_options("--all-resources", why="what other datastores lead to stays", flags=True)
@yes_option
@no_wait_option
@common
def delete_workspace(state: State, name: str | None, permanently: bool, yes: bool) -> None:
    """Delete a workspace. One that holds something is refused without --permanently-delete."""
    wanted = name or state.client().workspace
    confirm(f"workspace {wanted}", yes=yes)
    state.client().workspaces.delete(wanted, permanently=permanently)


@workspace.command("list")
@common
def list_workspaces(state: State) -> None:
    """List the workspaces."""
    state.show([_workspace(state, each) for each in state.client().workspaces.list()])


def _account(state: State) -> dict[str, Any]:
    from batchpoint.client.azureml import DEFAULTS

    client = state.client()
    return {
        "id": DEFAULTS["subscription_id"],
        "name": "batchpoint",
        "isDefault": True,
        "state": "Enabled",
        "tenantId": DEFAULTS["subscription_id"],
        "environmentName": client.url,
        "user": {"name": client.server().get("role", "admin"), "type": "token"},
    }


def _group(state: State, name: str | None) -> dict[str, Any]:
    from batchpoint.client.azureml import DEFAULTS

    named = name or _group_name(state)
    return {
        "id": f"/subscriptions/{DEFAULTS['subscription_id']}/resourceGroups/{named}",
        "name": named,
        "location": "local",
        "properties": {"provisioningState": "Succeeded"},
        "type": "Microsoft.Resources/resourceGroups",
    }


def _group_name(state: State) -> str:
    from batchpoint.client.azureml import DEFAULTS

    return state.resource_group or state.defaults().get("group") or DEFAULTS["resource_group"]


def _workspace(state: State, named: NamedWorkspace) -> dict[str, Any]:
    client = state.client()
    return {
        **named.body(),
        "resource_group": _group_name(state),
        "location": "local",
        "discovery_url": client.url,
        "provisioning_state": "Succeeded",
        "version": client.server().get("version"),
    }
