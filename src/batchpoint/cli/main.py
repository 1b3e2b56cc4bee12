"""The command ``batchpoint``: its groups, loaded when they are used, and its exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click

from batchpoint import __version__
from batchpoint.cli.options import Group, State
from batchpoint.errors import (
    AlreadyExistsError,
    AuthenticationError,
    BatchpointError,
    ConflictError,
    InputError,
    NotFoundError,
    PermissionDeniedError,
    PlatformError,
    RequestError,
    TooManyRequestsError,
)

EXIT_CODES: dict[int, str] = {
    0: "Done.",
    1: "The job failed or was canceled, or something unexpected happened.",
    2: "The command was not understood, or what was declared is not valid.",
    3: "There is nothing by that name.",
    4: "It exists already, is in use, or is in a state that does not allow this.",
    5: "The token is missing, refused, or does not allow this.",
    6: "No server answers, or something outside the script and the data failed.",
    7: "There are changes to apply (only with `apply --dry-run --exit-code`).",
    8: "A plan whose upper estimate is later than `--finish-by`.",
    130: "Interrupted.",
}
"""What the command ends with. ``docs/cli.md`` repeats this table."""

_EXIT_CODE_OF: tuple[tuple[type[BaseException], int], ...] = (
    (NotFoundError, 3),
    (AlreadyExistsError, 4),
    (ConflictError, 4),
    (AuthenticationError, 5),
    (PermissionDeniedError, 5),
    (TooManyRequestsError, 5),
    (RequestError, 2),
    (InputError, 2),
    (PlatformError, 6),
)


class Lazy(NamedTuple):
    """A command that is imported when it is used; its help is here, so that ``--help`` imports nothing."""

    module: str
    attribute: str
    help: str
    aliases: tuple[str, ...] = ()
    hidden: bool = False


COMMANDS: dict[str, Lazy] = {
    "apply": Lazy("apply", "apply", "Bring about everything that files declare."),
    "delete": Lazy("apply", "delete", "Remove everything that files declare."),
    "provision": Lazy("provision", "provision", "Create a whole solution from one configuration."),
    "model": Lazy("entities", "model", "Trained models."),
    "data": Lazy("entities", "data", "Data to score."),
    "environment": Lazy("entities", "environment", "Packages that scoring scripts run with."),
    "component": Lazy("entities", "component", "Steps and pipelines to be used by name."),
    "datastore": Lazy("entities", "datastore", "Named places for bytes."),
    "compute": Lazy("entities", "compute", "Where jobs run."),
    "endpoint": Lazy("endpoints", "endpoint", "Batch endpoints; invoke them.", ("batch-endpoint",)),
    "plan": Lazy("plan", "plan", "Tell what a job would take, from a sample."),
    "deployment": Lazy("endpoints", "deployment", "Deployments behind endpoints.", ("batch-deployment",)),
    "job": Lazy("jobs", "job", "Jobs: start, follow, cancel, download."),
    "pipeline": Lazy("pipelines", "pipeline", "Published pipelines: an address that starts a run."),
    "schedule": Lazy("schedules", "schedule", "What starts jobs by itself."),
    "webhook": Lazy("webhooks", "webhook", "Addresses that are told what becomes of jobs."),
    "score": Lazy("score", "score", "Score data at once, with no server."),
    "up": Lazy("services", "up", "Start the local server."),
    "down": Lazy("services", "down", "Stop the local server."),
    "status": Lazy("services", "status", "Show the server in use."),
    "server": Lazy("services", "server", "Run a server in the foreground."),
    "azureml-env": Lazy("azureml", "azureml_env", "Set up the official azure-ai-ml client."),
    "token": Lazy("services", "token", "Tokens of the server."),
    "audit": Lazy("services", "audit", "Who did what, when."),
    "completion": Lazy("services", "completion", "Shell completion for bash, zsh and fish."),
    "version": Lazy("services", "version", "Show the version."),
    "workspace": Lazy("azure", "workspace", "Workspaces: namespaces of the server."),
    "configure": Lazy("azure", "configure", "Defaults: the workspace to work within."),
    "account": Lazy("azure", "account", "The account, for scripts that ask for it.", hidden=True),
    "extension": Lazy("azure", "extension", "Extensions: all is built in.", hidden=True),
    "group": Lazy("azure", "group", "Resource groups: there are none.", hidden=True),
    "login": Lazy("azure", "login", "Nobody has to log in.", hidden=True),
}

_MISSING_WORDS: dict[str, str] = {
    **dict.fromkeys(("set", "show", "list", "get-access-token"), "account"),
    **dict.fromkeys(("add", "remove"), "extension"),
    "create": "group",
    **dict.fromkeys(("--defaults", "-d", "--list-defaults", "-l"), "configure"),
    **dict.fromkeys(
        ("--identity", "--service-principal", "--use-device-code", "--tenant", "--username", "-u"), "login"
    ),
}
"""What ``az() { shift; batchpoint "$@"; }`` leaves of a line that is none of ``az ml`` → the word that it took away."""


class LazyGroup(Group):
    """A group whose commands are imported one by one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aliases = {alias: name for name, lazy in COMMANDS.items() for alias in lazy.aliases}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names without their aliases, and without what only stands in for Azure's own."""
        return [name for name, lazy in COMMANDS.items() if not lazy.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """A command by name or alias."""
        lazy = COMMANDS.get(self.aliases.get(cmd_name, cmd_name))
        if lazy is None:
            return None
        command: click.Command = getattr(import_module(f"batchpoint.cli.{lazy.module}"), lazy.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table."""
        rows = [(", ".join(self.names_of(name)), COMMANDS[name].help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="batchpoint")
@click.option("-w", "--workspace-name", metavar="NAME", help="Work within this workspace of the server.")
@click.pass_context
def cli(context: click.Context, workspace_name: str | None) -> None:
    """Batch endpoints on your own machines.

    The local server of the home folder is used, and started when none runs; set BATCHPOINT_URL and BATCHPOINT_TOKEN to
    use another one. Every server has a studio, pages for the browser: 'batchpoint up' tells its address and its token's
    file. Names belong to a workspace: that of --workspace-name, of BATCHPOINT_WORKSPACE, of 'batchpoint configure
    --defaults workspace=NAME', or 'default'.
    """
    context.ensure_object(State).workspace = workspace_name
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; answers with the exit code and never raises for a person's mistake."""
    state = State()
    warnings.showwarning = _show_warning
    try:
        code = cli.main(args=_written_out(arguments), prog_name="batchpoint", standalone_mode=False, obj=state)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough, as in `| head`; Python must not complain about it at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BatchpointError as error:
        return _report(error, state)
    except Exception as error:  # noqa: BLE001 - the rim of the program: what nobody foresaw is told, not thrown
        if not state.debug:
            click.echo("This was not foreseen; --debug shows where it happened.", err=True)
        return _report(error, state)
    return code if isinstance(code, int) else 0


def exit_code_of(error: BaseException) -> int:
    """The exit code that stands for an error."""
    return next((code for kind, code in _EXIT_CODE_OF if isinstance(error, kind)), 1)


def _written_out(words: Sequence[str]) -> list[str]:
    """A command line with the word that the function ``az`` took away from a line that was none of ``az ml``."""
    missing = _MISSING_WORDS.get(words[0]) if words else None
    return [missing, *words] if missing else [*words]


def _report(error: Exception, state: State) -> int:
    if state.debug:
        import traceback

        traceback.print_exception(error)
    label = click.style("Error:", fg="red", bold=True)
    click.echo(f"{label} {error}", err=True)
    details = getattr(error, "details", {})
    if "on_command_line" in details:
        click.echo(f"On the command line: {details['on_command_line']}", err=True)
    request_id = details.get("request_id")
    if request_id and isinstance(error, PlatformError):
        click.echo(f"The server's log has more under request {request_id}.", err=True)
    return exit_code_of(error)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"{click.style('Warning:', fg='yellow')} {message}", err=True)
