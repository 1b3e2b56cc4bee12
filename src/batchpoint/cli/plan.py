"""``plan``: what a job would take, told from a sample before anything is committed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from batchpoint.cli.endpoints import asked_for, job_options
from batchpoint.cli.options import Command, State, common, set_option

if TYPE_CHECKING:
    from batchpoint.entities.forecasts import Forecast, Range

TOO_LATE = 8
"""Exit code of a plan whose upper estimate is later than ``--finish-by``."""


@click.command("plan", cls=Command)
@click.option("-n", "--name", required=True, help="Endpoint.")
@job_options
@set_option
@click.option("--sample-rows", type=click.IntRange(1), help="Items to score at most.  [default: three seconds' worth]")
@click.option("--finish-by", metavar="TIME", help="Warn if it would be later: 06:00, or an ISO date and time.")
@click.option("--timeout", type=float, help="Seconds to wait for the sample at most.")
@common
def plan(state: State, name: str, file: str | None, assignments: tuple[str, ...], **given: Any) -> None:
    """Score a sample and tell what the whole job would take. Nothing is published.

    A table for people with -o table. Ends with exit code 8 when the job would be later than --finish-by.
    """
    request = asked_for(state, file, assignments, given)
    finish_by = given.pop("finish_by")
    until = finish_time(finish_by, datetime.now().astimezone()) if finish_by else None
    try:
        found = state.client().endpoints.plan(name, **request, **given, finish_by=until)
    except TimeoutError as late:
        raise click.ClickException(str(late)) from None
    state.show_or_tell(found, forecast_lines)
    if found.deadline is not None and found.deadline.is_late:
        state.note(_lateness(found))
        raise click.exceptions.Exit(TOO_LATE)


def finish_time(text: str, now: datetime) -> datetime:
    """A time of day, today or tomorrow, or an ISO date and time; without a zone in that of ``now``."""
    try:
        if "T" not in text and "-" not in text and " " not in text:
            clock = datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 -- a time of day has no zone
            today = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
            return today if today > now else today + timedelta(days=1)
        found = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is neither a time of day such as 06:00 nor an ISO date and time."
        raise click.BadParameter(message, param_hint="--finish-by") from None
    return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def forecast_lines(found: Forecast) -> list[str]:
    """What a person asks first comes first: how long, how much, what fails."""
    about = "" if found.items_are_exact else "about "
    rate = found.failure_rate
    cut, workers = _count(found.mini_batches, "mini-batch", "es"), _count(found.workers, "worker")
    lines = [
        f"Input       {about}{found.items:,} {found.unit} ({_size(found.bytes)}), {cut}",
        f"Sample      {found.sampled_items:,} {found.unit} of {_count(found.sampled_files, 'file')}",
        f"Time        {_span(found.seconds)} with {workers}; start-up {found.startup_seconds:.1f} s",
        f"Memory      {_size(found.peak_memory_per_worker)} for each worker, {_size(found.peak_memory)} in all",
        f"Failures    {rate.estimate:.2%} of {found.unit} (95 %: {rate.low:.2%} to {rate.high:.2%})",
        f"Output      {_output(found)}",
    ]
    return [*lines, *_more_lines(found)]


def _output(found: Forecast) -> str:
    if found.output_bytes is None and not found.output_columns:
        return "unknown: no row of the sample was scored" if found.unit == "rows" else "unknown"
    columns = ", ".join(f"{column.name} {column.type}" for column in found.output_columns)
    return f"about {_size(found.output_bytes)}: {columns or 'no columns known'}"


def _more_lines(found: Forecast) -> Iterator[str]:
    for error in found.errors:
        row = "" if error.row is None else f", row {error.row}"
        yield f"  {error.file}{row}: {error.exception}: {error.message}"
    if not found.items_are_exact:
        yield f"Notice: {found.unit} are {found.items_how}."
    yield from (f"Warning: {words}" for words in found.thresholds)
    yield from (f"Notice: {notice}" for notice in found.notices)


def _lateness(found: Forecast) -> str:
    deadline = found.deadline
    assert deadline is not None, "asked only for late ones"
    needed = deadline.workers_needed
    help_ = "No number of workers would do" if needed is None else f"{needed} workers would do, on as many free cores"
    latest, asked = (each.astimezone().isoformat(" ", "seconds") for each in (deadline.latest_at, deadline.finish_by))
    return f"Too late: it would be over by {latest} at the latest; asked for was {asked}. {help_}."


def _span(seconds: Range) -> str:
    return f"{_duration(seconds.estimate)} ({_duration(seconds.low)} to {_duration(seconds.high)})"


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}{'' if number == 1 else plural}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
