"""``up``, ``down``, ``status``, ``server``, ``token``, ``audit``, ``completion``, ``version``."""

from __future__ import annotations

import click

from batchpoint import __version__
from batchpoint.cli.options import Command, Group, State, common, diagnostics, limit_option, yes_option


@click.command(cls=Command)
@common
def up(state: State) -> None:
    """Start the local server of the home folder, unless it runs; print its address and that of its studio.

    It ends itself after BATCHPOINT_IDLE_SHUTDOWN_SECONDS without a request or a job.
    """
    from batchpoint import local_server
    from batchpoint.settings import Settings

    home = Settings.from_environment().home
    server = local_server.ensure(home)
    state.note(f"The server of {home} listens at {server.url} (process {server.pid}).")
    studio, token_file = f"{server.url}/studio", str(home / "token")
    state.note(f"Studio: {studio} (it asks for the token in {token_file}).")
    told = {"url": server.url, "pid": server.pid, "version": server.version, "home": str(home)}
    state.show({**told, "studio": studio, "token_file": token_file})


@click.command(cls=Command)
@common
def down(state: State) -> None:
    """Stop the local server of the home folder. Jobs that run go on; the next server picks them up."""
    from batchpoint import local_server
    from batchpoint.settings import Settings

    home = Settings.from_environment().home
    state.note(f"The server of {home} has ended." if local_server.stop(home) else f"No server of {home} runs.")


@click.command(cls=Command)
@common
def status(state: State) -> None:
    """Show the server in use: address, studio, version, the token's role. Starts nothing.

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
        told = {"url": client.url, "home": str(settings.home), **client.server(), "studio": f"{client.url}/studio"}
        # The token of another server lies elsewhere.
        state.show(told if settings.url else {**told, "token_file": str(settings.home / "token")})


@click.command(cls=Command)
@click.option("--host", help="Address to listen on; this machine alone when not given.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; the system chooses when not given.")
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Certificate, for other machines.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Key of the certificate.")
@click.option("--allow-insecure", is_flag=True, help="Listen to other machines without a certificate.")
@diagnostics
def server(
    state: State,
    host: str | None,
    port: int | None,
    tls_cert: str | None,
    tls_key: str | None,
    allow_insecure: bool,
) -> None:
    """Run a server in the foreground until it is told to end (Ctrl-C, SIGTERM). Jobs that run go on."""
    import os
    from dataclasses import replace
    from pathlib import Path

    from batchpoint.azureml_shell import taken_back
    from batchpoint.server.process import serve
    from batchpoint.settings import Settings

    kept = taken_back(os.environ)
    os.environ.clear()
    os.environ.update(kept)
    settings = Settings.from_environment()
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    state.note(f"Serving {settings.home}; 'batchpoint status' shows the address.")
    serve(
        settings,
        tls_cert=Path(tls_cert) if tls_cert else None,
        tls_key=Path(tls_key) if tls_key else None,
        allow_insecure=allow_insecure,
    )


@click.group(cls=Group)
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

    confirm(f"token {name}", yes=yes, deed="Revoke")
    state.client().tokens.revoke(name)


@click.group(cls=Group)
def audit() -> None:
    """Who did what, when. Needs an admin's token."""


@audit.command("list")
@limit_option
@common
def list_audit(state: State, limit: int | None) -> None:
    """List what was done, the newest first; 50 when nothing else is said."""
    state.show(list(state.client().audit(limit=limit or 50)))


@click.command(cls=Command)
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


@click.command(cls=Command)
@common
def version(state: State) -> None:
    """Show the version of this program."""
    state.show({"batchpoint": __version__})
