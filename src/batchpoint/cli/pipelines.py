"""``pipeline``: published pipelines."""

from __future__ import annotations

from typing import Any

import click

from batchpoint.cli.options import (
    Group,
    State,
    common,
    confirm,
    file_option,
    limit_option,
    name_option,
    tags_of,
    tags_option,
    yes_option,
)

_COLUMNS = ("name", "version", "status", "component", "endpoint")


@click.group("pipeline", cls=Group)
def pipeline() -> None:
    """Published pipelines: an address of their own that starts a run."""


@pipeline.command()
@name_option
@file_option(text="YAML file of a pipeline, or of a pipeline component.")
@click.option("--component", help="Instead of a file: azureml:NAME:VERSION of a pipeline component.")
@click.option("--job-name", help="Instead of a file: a job that ran the pipeline.")
@click.option("-v", "--version", help="Free text that is shown with it.")
@click.option("--description", help="What it does.")
@click.option("--experiment-name", help="Of its runs, unless they name one.")
@common
def publish(
    state: State, name: str, file: str | None, component: str | None, job_name: str | None, **said: Any
) -> None:
    """Give a pipeline an address; under a name that was published before, replace what runs there."""
    sources = [source for source in (file, component, job_name) if source is not None]
    if len(sources) != 1:
        raise click.UsageError("Give one of --file, --component and --job-name.")
    client = state.client()
    source = client.jobs.get(job_name) if job_name else sources[0]
    state.show(client.pipelines.publish(name, source, **said))


@pipeline.command("list")
@limit_option
@common
def list_(state: State, limit: int | None) -> None:
    """List them."""
    found = state.client().pipelines.list(limit=limit)
    state.show(list(found), columns=_COLUMNS)


@pipeline.command()
@name_option
@common
def show(state: State, name: str) -> None:
    """Show one, with its address."""
    state.show(state.client().pipelines.get(name))


@pipeline.command()
@name_option
@click.option("--set", "parameters", multiple=True, metavar="PARAMETER=VALUE", help="A value of an input.")
@click.option("--data", multiple=True, metavar="INPUT=PATH", help="What an input reads: local path, address, asset.")
@click.option("--experiment-name", help="Recorded with the job.")
@tags_option
@click.option("-s", "--stream", "streamed", is_flag=True, help="Show the log and the progress until the run ends.")
@common
def run(
    state: State,
    name: str,
    parameters: tuple[str, ...],
    data: tuple[str, ...],
    experiment_name: str | None,
    tags: tuple[str, ...],
    streamed: bool,
) -> None:
    """Start a run. Prints its job; --stream follows it to its end."""
    from batchpoint.cli.jobs import stream_to_end

    started = state.client().pipelines.run(
        name,
        _pairs(parameters, "--set"),
        data=_pairs(data, "--data"),
        experiment_name=experiment_name,
        tags=tags_of(tags),
    )
    if streamed:
        stream_to_end(state, started)
    if not streamed or state.output or state.query:
        state.show(started.entity)


@pipeline.command()
@name_option
@limit_option
@common
def runs(state: State, name: str, limit: int | None) -> None:
    """List its runs, the newest first."""
    found = list(state.client().pipelines.runs(name, limit=limit))
    if state.output == "table" and not state.query:
        found = [{"Id": one["Id"], **one["Status"], "HasErrors": one["HasErrors"]} for one in found]
    state.show(found)


@pipeline.command()
@name_option
@common
def disable(state: State, name: str) -> None:
    """Refuse every start."""
    state.show(state.client().pipelines.disable(name))


@pipeline.command()
@name_option
@common
def enable(state: State, name: str) -> None:
    """Let it be started again."""
    state.show(state.client().pipelines.enable(name))


@pipeline.command()
@name_option
@yes_option
@common
def delete(state: State, name: str, yes: bool) -> None:
    """Take its address away; its component and its jobs stay."""
    confirm(f"pipeline {name}", yes=yes)
    state.client().pipelines.delete(name)


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    if bad := [text for text in given if "=" not in text]:
        raise click.BadParameter(f"{bad[0]!r}: write NAME=VALUE.", param_hint=option)
    return dict(text.split("=", 1) for text in given)
