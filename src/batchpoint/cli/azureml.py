"""``azureml-env``: what the official ``azure-ai-ml`` client has to be told."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from batchpoint.cli.options import State, common

if TYPE_CHECKING:
    from batchpoint.client.azureml import AzureML

SHELLS = {
    "sh": lambda name, value: f"export {name}={shlex.quote(value)}",
    "fish": lambda name, value: f"set -gx {name} {shlex.quote(value)}",
    "powershell": lambda name, value: "$env:{} = '{}'".format(name, value.replace("'", "''")),
}
"""How each shell sets a variable."""


@click.command("azureml-env")
@click.option("--check", is_flag=True, help="Do what the client would do, step by step, and tell what is wrong.")
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
    from pathlib import Path

    from batchpoint.client.azureml import DEFAULTS, write_config

    scope = {**DEFAULTS, "workspace_name": state.client().workspace}
    azureml = state.client().azureml(port=port, names=names)
    if config is not None:
        write_config(Path(config), state.client().workspace)
        state.note(f"Wrote {config}.")
    if check:
        _check(azureml, state)
    elif state.output is not None or state.query is not None:
        state.show({"variables": azureml.variables(), **scope})
    else:
        for name, value in azureml.variables().items():
            click.echo(SHELLS[shell](name, value))
        click.echo("# " + ", ".join(f"{key}: {value}" for key, value in scope.items()))


def _check(azureml: AzureML, state: State) -> None:
    from batchpoint.client.azureml_check import steps

    found = []
    for step in steps(azureml):
        found.append(step)
        if state.output is None:
            click.echo(f"{'ok ' if step.is_well else 'NOT'}  {step.name}: {step.told}")
    if state.output is not None:
        state.show([vars(step) for step in found])
    if not all(step.is_well for step in found):
        raise click.exceptions.Exit(1)
