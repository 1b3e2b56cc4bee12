"""``schedule``: create, update, show, list, enable, disable, delete, trigger, backfill; upcoming times and runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from batchpoint.cli.entities import declare
from batchpoint.cli.jobs import watch
from batchpoint.cli.options import (
    Group,
    State,
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
    update_options,
    yes_option,
)

_COLUMNS = ("name", "is_enabled", "next_run_at", "display_name", "description")
_RUN_COLUMNS = ("fire_at", "cause", "outcome", "job_name", "message")
_TIME_COLUMNS = ("fire_time", "local_time", "window_start")


@click.group("schedule", cls=Group)
def schedule() -> None:
    """Schedules: what starts jobs by itself, by the clock or for new files."""


@schedule.command()
@file_option()
@click.option("-n", "--name", help="Name.")
@click.option("--description", help="What it is.")
@tags_option
@set_option
@no_wait_option
@common
def create(state: State, file: str | None, assignments: tuple[str, ...], tags: tuple[str, ...], **given: Any) -> None:
    """Create a schedule, or bring it to what the file and the options say."""
    entity = declare("schedule", file, given, assignments, tags)
    state.show(state.client().schedules.create_or_update(entity))


@schedule.command()
@name_option
@file_option(text="YAML file that holds the whole of it.")
@click.option("--description", help="What it is.")
@tags_option
@update_options
@no_wait_option
@common
def update(
    state: State,
    name: str,
    file: str | None,
    description: str | None,
    tags: tuple[str, ...],
    assignments: tuple[str, ...],
) -> None:
    """Change some keys; with a file, all of them."""
    schedules = state.client().schedules
    if file is not None:
        given = {"name": name, "description": description}
        state.show(schedules.create_or_update(declare("schedule", file, given, assignments, tags)))
        return
    changes = changes_of(assignments, {"description": description, "tags": tags_of(tags)})
    state.show(schedules.update(name, changes=changes))


@schedule.command()
@name_option
@common
def show(state: State, name: str) -> None:
    """Show one."""
    state.show(state.client().schedules.get(name))


@schedule.command("list")
@click.option("--disabled-only", is_flag=True, help="Only those that are disabled.")
@click.option("--include-disabled", is_flag=True, help="Those that are disabled too.")
@limit_option
@common
def list_(state: State, disabled_only: bool, include_disabled: bool, limit: int | None) -> None:
    """List those that are enabled."""
    enabled = False if disabled_only else None if include_disabled else True
    found = state.client().schedules.list(enabled=enabled, limit=limit)
    state.show(list(found), columns=_COLUMNS)


@schedule.command()
@name_option
@no_wait_option
@common
def enable(state: State, name: str) -> None:
    """Let one fire again, from its next time on."""
    state.show(state.client().schedules.enable(name))


@schedule.command()
@name_option
@no_wait_option
@common
def disable(state: State, name: str) -> None:
    """Let one fire no more until it is enabled. Its jobs go on."""
    state.show(state.client().schedules.disable(name))


@schedule.command()
@name_option
@yes_option
@click.option("--force", is_flag=True, help="Even when it is enabled.")
@no_wait_option
@common
def delete(state: State, name: str, yes: bool, force: bool) -> None:
    """Remove one that is disabled, with the record of its runs. Its jobs stay."""
    confirm(f"schedule {name}", yes=yes, in_scripts=False)
    state.client().schedules.delete(name, force=force)


@schedule.command()
@name_option
@click.option("-s", "--stream", is_flag=True, help="Wait for the end, showing progress.")
@common
def trigger(state: State, name: str, stream: bool) -> None:
    """Fire one now, enabled or not. Prints the job."""
    job = state.client().schedules.trigger(name)
    if stream:
        watch(state, job)
    if not stream or state.output or state.query:
        state.show(job.entity)


@schedule.command()
@name_option
@click.option("--from", "first", required=True, help="The first day, or moment, such as 2036-03-29T02:00 (UTC).")
@click.option("--until", "last", required=True, help="The last one, included.")
@click.option("--key", "keys", multiple=True, help="Only this key of a model map, such as store=east; repeatable.")
@click.option("--done-too", is_flag=True, help="Also what is done, not just what failed or is missing.")
@common
def backfill(state: State, name: str, first: str, last: str, keys: tuple[str, ...], done_too: bool) -> None:
    """Start the jobs of times that are over. Prints the runs."""
    begin, end, chosen = moment(first), moment(last, is_end=True), [key_values(key) for key in keys]
    found = state.client().schedules.backfill(name, begin, end, keys=chosen, done_too=done_too)
    state.show([run.model_dump(mode="json", exclude_none=True) for run in found], columns=_RUN_COLUMNS)


def moment(text: str, *, is_end: bool = False) -> datetime:
    """A moment, or the begin or end of a day; without an offset in UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is neither a day such as 2036-03-29 nor an ISO date and time."
        raise click.BadParameter(message) from None
    is_day = len(text) == len("2036-03-29")
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return found + timedelta(days=1, microseconds=-1) if is_day and is_end else found


def key_values(text: str) -> dict[str, str]:
    """``store=east,day=1`` as the values of the partition keys."""
    found = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if not found or len(found) != text.count(",") + 1:
        raise click.BadParameter(f"{text!r} is no key. Give column=value, and commas between several.")
    return found


@schedule.command()
@name_option
@click.option("-c", "--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@common
def upcoming(state: State, name: str, count: int) -> None:
    """List the next times at which one fires."""
    state.show(list(state.client().schedules.upcoming(name, count)), columns=_TIME_COLUMNS)


@schedule.command()
@name_option
@click.option("--outcome", help="Only those that were started, skipped, missed or failed, or are pending.")
@limit_option
@common
def runs(state: State, name: str, outcome: str | None, limit: int | None) -> None:
    """List what became of each time, the newest first; 50 when nothing else is said."""
    found = state.client().schedules.runs(name, outcome=outcome, limit=limit or 50)
    state.show([run.model_dump(mode="json", exclude_none=True) for run in found], columns=_RUN_COLUMNS)
