"""``provision``: from nothing to a published pipeline with a schedule, from one configuration."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchpoint.cli.options import AnyCommand, Command, State, common, confirm, yes_option

if TYPE_CHECKING:
    from batchpoint.client.provisioning import Item
    from batchpoint.entities.provisioning import Configuration


def _key_options(command: AnyCommand) -> AnyCommand:
    """A flag for each key of the configuration."""
    from dataclasses import fields

    from batchpoint.entities.provisioning import KEYS, Provisioning, defaults

    standard = defaults()
    for each in reversed(fields(Provisioning)):
        shown = standard[each.name]
        text = f"{KEYS[each.name]}{f' [default: {shown}]' if shown != '' else ''}"
        kind = click.INT if each.type == "int" else click.STRING
        command = click.option(f"--{each.name.replace('_', '-')}", each.name, type=kind, help=text)(command)
    return command


@click.command(cls=Command)
@click.option(
    "--config",
    metavar="FILE",
    help="JSON file of these keys, or of a solution with many sensors; flags then count for nothing.",
)
@_key_options
@click.option("--logs", metavar="FOLDER", default="Logs", show_default=True, help="Where the log of the run goes.")
@click.option("--delete", "removing", is_flag=True, help="Take everything away again; files in the containers stay.")
@yes_option
@common
def provision(state: State, config: str | None, logs: str, removing: bool, yes: bool, **flags: Any) -> None:
    """Create a whole solution: containers with data, compute, published pipeline, schedule.

    What exists is found and left as it is, so that a second run creates nothing. Values come from flags, else from
    environment variables (BATCHPOINT_PROVISION_ and the key in capitals), else from defaults; or all from a file.
    """
    from batchpoint.client.provisioning import CreationLog, Provisioner
    from batchpoint.settings import Settings

    given = _configuration(state, config, flags).solution()
    items: list[Item] = []
    as_text = state.output is None and state.query is None

    def told(item: Item) -> None:
        items.append(item)
        if as_text:
            click.echo(f"{item.state:<8} {item.kind} {item.name}{f'  ({item.note})' if item.note else ''}")

    home = Settings.from_environment().home.expanduser().absolute()
    if removing:
        confirm(f"pipeline {given.pipeline_name} with its schedule, compute and datastores", yes=yes)
        Provisioner(state.client(), given, home, told).remove()
        if not as_text:
            state.show({"items": [item._asdict() for item in items]})
        return
    log = CreationLog(Path(logs), {"pipeline_name": given.pipeline_name, "workspace": given.workspace})
    try:
        with _ended_by_sigterm():
            published, schedule = Provisioner(state.client(), given, home, told).provision(log)
    finally:
        log.end()
        state.note(f"Log: {log.path}")
    if as_text:
        click.echo(f"REST endpoint: {published.endpoint}")
        click.echo(f"Schedule: {schedule.name}, every {given.interval} {given.frequency}(s)")
        return
    shown = {"endpoint": published.endpoint, "schedule": schedule.name, "log": str(log.path)}
    state.show({**shown, "items": [item._asdict() for item in items]})


def _configuration(state: State, config: str | None, flags: dict[str, Any]) -> Configuration:
    """As a file says, else as flags, variables and defaults do."""
    from batchpoint.client.files import read_text
    from batchpoint.entities.provisioning import mixed_configuration, read_configuration, unused
    from batchpoint.errors import InvalidEntityError

    if config is None:
        return mixed_configuration(flags, os.environ)
    beside = [f"--{key.replace('_', '-')}" for key, value in flags.items() if value is not None]
    if beside:
        state.note(f"{', '.join(beside)} counts for nothing beside --config.")
    try:
        values = json.loads(read_text(Path(config)))
    except ValueError as fault:
        raise InvalidEntityError(f"{config} is not JSON: {fault}.") from None
    if not isinstance(values, dict):
        raise InvalidEntityError(f"{config} holds no keys: a JSON object is expected.")
    configuration = read_configuration(values, name=config)
    if not_used := unused(values):
        state.note(f"{', '.join(not_used)}: not used, and written down nowhere.")
    return configuration


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let a request to end be an ordinary end, so that the log is written."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
