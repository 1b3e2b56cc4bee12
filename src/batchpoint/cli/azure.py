"""What scripts for Azure's command line do around ``az ml``: log in, choose a subscription, ask for a token.

``batchpoint.cli.main`` finds them under the words that ``az() { shift; batchpoint "$@"; }`` leaves of them, too.
"""

from __future__ import annotations

from typing import Any

import click

from batchpoint.cli.options import (
    Command,
    Group,
    State,
    common,
    file_option,
    no_wait_option,
    set_option,
    unused_options,
)

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
    """Resource groups: there are none."""


@group.command("create")
@unused_options("--name/-n", "--location/-l", "--tags", why=_HOME)
@common
def create_group(state: State) -> None:
    """Take the wish for a resource group."""
    state.note(f"No resource group was made: {_HOME}.")


@click.command("configure", cls=Command)
@click.option("-d", "--defaults", "pairs", multiple=True, metavar="KEY=VALUE", help="Such as: group=g workspace=w.")
@click.option("-l", "--list-defaults", "listed", is_flag=True, help="List them: there are none.")
@unused_options("--scope", why="no defaults are kept")
@common
def configure(state: State, pairs: tuple[str, ...], listed: bool) -> None:
    """Take the defaults of Azure's command line. They are not kept: a home has one group and one workspace."""
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise click.BadParameter(f"{bad[0]!r}: write KEY=VALUE.", param_hint="--defaults")
    if pairs:
        named = ", ".join(pair.partition("=")[0] for pair in pairs)
        state.note(f"Defaults are not kept ({named}): {_HOME}.")
    if listed:
        state.show([])


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
    """Workspaces: the server in use is one."""


@workspace.command("show")
@click.option("-n", "--name", help="Name, as it is to be shown.")
@common
def show_workspace(state: State, name: str | None) -> None:
    """Show the server in use as a workspace."""
    state.show(_workspace(state, name))


@workspace.command("create")
@file_option()
@click.option("-n", "--name", help="Name, as it is to be shown.")
@set_option
@unused_options("--location/-l", "--display-name", "--description", "--tags", "--storage-account", why=_HOME)
@no_wait_option
@common
def create_workspace(state: State, file: str | None, name: str | None, assignments: tuple[str, ...]) -> None:
    """Take the wish for a workspace: the server in use stands for every one."""
    if file is not None or assignments:
        state.note(f"What a workspace is made of does not count here: {_HOME}.")
    state.note(f"No workspace was made: {_HOME}.")
    state.show(_workspace(state, name))


@workspace.command("list")
@common
def list_workspaces(state: State) -> None:
    """List the workspaces: the one there is."""
    state.show([_workspace(state, None)])


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


def _workspace(state: State, name: str | None) -> dict[str, Any]:
    from batchpoint.client.azureml import DEFAULTS

    client = state.client()
    return {
        "name": name or state.workspace or DEFAULTS["workspace_name"],
        "resource_group": state.resource_group or DEFAULTS["resource_group"],
        "location": "local",
        "discovery_url": client.url,
        "provisioning_state": "Succeeded",
        "version": client.server().get("version"),
    }
