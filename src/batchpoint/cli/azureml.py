"""``azureml-env``: what the official ``azure-ai-ml`` client has to be told."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from batchpoint.cli.options import Command, State, common

SHELLS = {
    "sh": lambda name, value: f"export {name}={shlex.quote(value)}",
    "fish": lambda name, value: f"set -gx {name} {shlex.quote(value)}",
    "powershell": lambda name, value: "$env:{} = '{}'".format(name, value.replace("'", "''")),
}
"""How each shell sets a variable."""


FAILURES = {"powershell": "throw 'batchpoint azureml-env failed'"}
"""What fails when a shell evaluates it, unless it is ``false``."""


@contextmanager
def failing_when_evaluated(shell: str) -> Iterator[None]:
    """When there are no variables to print, print what fails when it is evaluated.

    To evaluate nothing is a success: a script would go on, and speak to Azure.
    """
    try:
        yield
    except BaseException:
        if not sys.stdout.isatty():  # a person sees the message, and evaluates nothing
            click.echo(FAILURES.get(shell, "false"))
        raise


class _Evaluated(Command):
    """A command whose output is evaluated by a shell: an option that is not understood has to fail there, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError:
            with failing_when_evaluated("sh"):
                raise


@click.command("azureml-env", cls=_Evaluated)
@click.option("--check", is_flag=True, help="Tell what is wrong with this shell, step by step. Starts nothing.")
@click.option("--shell", type=click.Choice(list(SHELLS)), default="sh", show_default=True, help="Whose words to print.")
@click.option("--config", metavar="FILE", help="Write a config.json for MLClient.from_config().")
@click.option("--port", type=click.IntRange(1, 65535),
              help="Where the server speaks TLS; a free port, and then always the same, when not given.")  # fmt: skip
@click.option("--host-name", "names", multiple=True, metavar="NAME",
              help="Name of the server, for its certificate; repeatable; the first one is used.")  # fmt: skip
@common
def azureml_env(
    state: State, check: bool, shell: str, config: str | None, port: int | None, names: tuple[str, ...]
) -> None:
    """Print the variables that set up the official azure-ai-ml client.

    \b
    eval "$(batchpoint azureml-env)"

    Code that uses MLClient and DefaultAzureCredential() then speaks to this server, unchanged. The server is started
    when none runs, speaks TLS from then on, and runs until 'batchpoint down'.
    """
    if check:
        if config is not None or port is not None or names:
            message = "--check looks and changes nothing: leave out --config, --port and --host-name."
            raise click.UsageError(message)
        _check(state)
    elif state.output is not None or state.query is not None:
        state.show(_set_up(state, config, port, names))
    else:
        with failing_when_evaluated(shell):
            found = _set_up(state, config, port, names)
        variables = found.pop("variables")
        for name, value in variables.items():
            click.echo(SHELLS[shell](name, value))
        click.echo("# " + ", ".join(f"{key}: {value}" for key, value in found.items()))


def _set_up(state: State, config: str | None, port: int | None, names: tuple[str, ...]) -> dict[str, Any]:
    """Have the server speak TLS; the variables, and what ``MLClient`` is given beside them."""
    from pathlib import Path

    from batchpoint.client.azureml import DEFAULTS, write_config

    client = state.client()
    variables = client.azureml(port=port, names=names).variables()
    if config is not None:
        write_config(Path(config), client.workspace)
        state.note(f"Wrote {config}.")
    return {"variables": variables, **DEFAULTS, "workspace_name": client.workspace}


def _check(state: State) -> None:
    from batchpoint.client.azureml_check import steps
    from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
    from batchpoint.settings import Settings

    found = []
    for step in steps(Settings.from_environment(), state.named_workspace() or DEFAULT_WORKSPACE):
        found.append(step)
        if state.output is None:
            click.echo(f"{'ok ' if step.is_well else 'NOT'}  {step.name}: {step.told}")
    wrong = sum(not step.is_well for step in found)
    if state.output is not None:
        state.show([vars(step) for step in found])
    elif wrong:
        click.echo("1 thing is wrong." if wrong == 1 else f"{wrong} things are wrong.")
    else:
        click.echo("Everything is in order: what is started from this shell speaks to the server.")
    if wrong:
        raise click.exceptions.Exit(1)
