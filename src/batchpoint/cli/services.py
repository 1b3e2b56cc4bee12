"""``up``, ``down``, ``status``, ``server``, ``token``, ``audit``, ``completion``, ``version``."""

from __future__ import annotations

import click

from batchpoint import __version__
from batchpoint.cli.options import State, common, limit_option, yes_option


@click.command()
@common
def up(state: State) -> None:
    """Start the local server of the home folder, unless it runs; print its address.

    It ends itself after BATCHPOINT_IDLE_SHUTDOWN_SECONDS without a request or a job.
    """
    from batchpoint import local_server
    from batchpoint.settings import Settings

    home = Settings.from_environment().home
    server = local_server.ensure(home)
    state.note(f"The server of {home} listens at {server.url} (process {server.pid}).")
    state.show({"url": server.url, "pid": server.pid, "version": server.version, "home": str(home)})


@click.command()
@common
def down(state: State) -> None:
    """Stop the local server of the home folder. Jobs that run go on; the next server picks them up."""
    from batchpoint import local_server
    from batchpoint.settings import Settings

    home = Settings.from_environment().home
    state.note(f"The server of {home} has ended." if local_server.stop(home) else f"No server of {home} runs.")


@click.command()
@common
def status(state: State) -> None:
    """Show the server in use: address, version, the token's role. Starts nothing.

    Ends with exit code 6 when no server answers.
    """
    from batchpoint import local_server
    from batchpoint.client import Client
    from batchpoint.errors import ServerUnavailableError
    from batchpoint.settings import Settings

    settings = Settings.from_environment()
    url, token = settings.url, settings.token
    if url is None:
        server = local_server.find(settings.home)
        if server is None:
            raise ServerUnavailableError(f"No server of {settings.home} runs. 'batchpoint up' starts it.")
        url, token = server.url, token or local_server.read_token(settings.home)
    with Client(url, token, settings) as client:
        state.show({"url": client.url, "home": str(settings.home), **client.server()})


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
@click.pass_context
def server(context: click.Context) -> None:
    """Run a server in the foreground until it is interrupted. Takes the options of `python -m batchpoint.server`."""
    from batchpoint.server.__main__ import main

    context.exit(main(context.args))


@click.group()
def token() -> None:
    """Tokens of the server. Needs an admin's token."""


@token.command("create")
@click.option("-n", "--name", required=True, help="Name of the token.")
@click.option("--role", type=click.Choice(["admin", "operator", "reader"]), default="reader", show_default=True,
              help="What it allows.")  # fmt: skip
@click.option("--expires-in-days", type=click.IntRange(1), help="Days until it ends; never when not given.")
@common
def create_token(state: State, name: str, role: str, expires_in_days: int | None) -> None:
    """Make a token. Its secret is shown this once."""
    state.show(state.client().tokens.create(name, role=role, expires_in_days=expires_in_days))  # type: ignore[arg-type]  # click has checked the role


@token.command("list")
@common
def list_tokens(state: State) -> None:
    """List the tokens, without their secrets."""
    state.show(list(state.client().tokens.list()), columns=("name", "role", "created_at", "expires_at"))


@token.command("revoke")
@click.option("-n", "--name", required=True, help="Name of the token.")
@yes_option
@common
def revoke_token(state: State, name: str, yes: bool) -> None:
    """End a token's validity at once."""
    from batchpoint.cli.options import confirm

    confirm(f"token {name}", yes=yes)
    state.client().tokens.revoke(name)


@click.group()
def audit() -> None:
    """Who did what, when. Needs an admin's token."""


@audit.command("list")
@limit_option
@common
def list_audit(state: State, limit: int | None) -> None:
    """List what was done, the newest first; 50 when nothing else is said."""
    state.show(list(state.client().audit(limit=limit or 50)))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: eval "$(batchpoint completion bash)"
    """
    from click.shell_completion import get_completion_class

    from batchpoint.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "batchpoint", "_BATCHPOINT_COMPLETE").source())


@click.command()
@common
def version(state: State) -> None:
    """Show the version of this program."""
    state.show({"batchpoint": __version__})
