"""``apply`` and ``delete``: everything that files declare, brought about or removed in one command."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from batchpoint.cli.options import AnyCommand, Command, State, common, confirm, yes_option

if TYPE_CHECKING:
    from batchpoint.client.apply import Applying, Outcome, Step

PENDING = 7
"""Exit code of a dry run with ``--exit-code`` that finds something to change."""

_LONGEST = 60
"""Characters of a value in a line of a plan; ``-o json`` shows all of it."""

_STEP_COLUMNS = ("action", "kind", "name", "state")

_DONE: dict[str, str] = {
    "create": "created",
    "update": "updated",
    "restore": "restored",
    "delete": "deleted",
    "with its endpoint": "deleted",
    "archive": "archived",
}


def _paths_option(command: AnyCommand) -> AnyCommand:
    return click.option(
        "-f", "--file", "paths", multiple=True, required=True, metavar="FILE_OR_FOLDER",
        help="YAML file, or folder of such files; may be given several times.",
    )(command)  # fmt: skip


def _dry_run_option(command: AnyCommand) -> AnyCommand:
    return click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")(command)


@click.command(cls=Command)
@_paths_option
@click.option("--set", "assignments", multiple=True, metavar="[KIND/NAME:]KEY=VALUE",
              help="Set a key before anything is compared; of which declaration, where there are several.")  # fmt: skip
@_dry_run_option
@click.option("--exit-code", "tell", is_flag=True, help=f"With --dry-run: end with {PENDING} when there are changes.")
@yes_option
@common
def apply(
    state: State, paths: tuple[str, ...], assignments: tuple[str, ...], dry_run: bool, tell: bool, yes: bool
) -> None:
    """Create or update everything that files declare, in the order of their references.

    A second run changes nothing. What differs from the files, whoever changed it, is shown and brought back. On a
    terminal the changes are shown first, and asked for. Prints a line for each thing, unless -o says otherwise.
    """
    from batchpoint.client.apply import Applying

    applying = Applying(state.client(), paths, assignments)
    steps = applying.changes()
    for path in applying.skipped:
        state.note(f"{path} declares nothing and was skipped.")
    pending = _pending(steps)
    if pending and not (dry_run or yes) and sys.stdin.isatty():
        _show_lines(applying.carry_out(steps, dry_run=True))
        confirm(f"{pending} changes", yes=False, deed="Apply")
    _carry_out(state, applying, steps, dry_run=dry_run)
    if dry_run and tell and pending:
        raise click.exceptions.Exit(PENDING)


@click.command(cls=Command)
@_paths_option
@_dry_run_option
@yes_option
@common
def delete(state: State, paths: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Remove everything that files declare, in reverse: assets are archived, all else is deleted. Jobs stay.

    Prints a line for each thing, unless -o says otherwise.
    """
    from batchpoint.client.apply import Applying

    applying = Applying(state.client(), paths)
    steps = applying.removals()
    if (pending := _pending(steps)) and not dry_run:
        confirm(f"{pending} things that the files declare", yes=yes)
    _carry_out(state, applying, steps, dry_run=dry_run)


def _pending(steps: Sequence[Step]) -> int:
    from batchpoint.client.apply import is_settled

    return sum(not is_settled(step) for step in steps)


def _carry_out(state: State, applying: Applying, steps: Sequence[Step], *, dry_run: bool) -> None:
    """Do it, tell of each step as it is done, and end with the error of the step that failed, if one did."""
    as_text = state.output is None and state.query is None
    told: Callable[[Outcome], None] | None = _say if as_text else None
    outcomes = applying.carry_out(steps, told, dry_run=dry_run)
    if as_text:
        click.echo(_summary(outcomes))
    elif state.output == "table" and state.query is None:
        state.show([outcome.body() for outcome in outcomes], columns=_STEP_COLUMNS)
    else:
        changes = sum(outcome.state in ("done", "planned") for outcome in outcomes)
        shown = {"changes": changes, "steps": [outcome.body() for outcome in outcomes]}
        state.show({**shown, "skipped": list(applying.skipped)})
    if failed := next((outcome.error for outcome in outcomes if outcome.error), None):
        raise failed


def _say(outcome: Outcome) -> None:
    _show_lines([outcome])


def _show_lines(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        step = outcome.step
        word = outcome.state if outcome.state in ("failed", "not reached") else _verb(step)
        replaces = getattr(step, "replaces", None)
        beside = " (with its endpoint)" if step.action == "with its endpoint" else ""
        click.echo(f"{word:<11}  {step.kind} {f'{replaces} → ' if replaces else ''}{step.name}{beside}")
        for field in getattr(step, "fields", ()):
            click.echo(f"{'':<15}{field.key}: {_short(field.before)} → {_short(field.after)}")
        if outcome.error is not None:
            click.echo(f"{'':<15}{outcome.error}")


def _short(value: Any) -> str:
    """A value in a line; what is named by its content, by the start of its hash."""
    import json
    import re

    if value is None:
        return "(none)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if found := re.search(r"/LocalUpload/([0-9a-f]{8})[0-9a-f]+/|^azureml:([0-9a-f]{8})[0-9a-f]{24}:1$", text):
        return f"content {found[1] or found[2]}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _summary(outcomes: Sequence[Outcome]) -> str:
    states = Counter(outcome.state for outcome in outcomes)
    if states["unchanged"] == len(outcomes):
        return f"0 changes; {len(outcomes)} unchanged."
    planned = Counter(f"to {_verb(outcome.step)}" for outcome in outcomes if outcome.state == "planned")
    done = Counter(_DONE[outcome.step.action] for outcome in outcomes if outcome.state == "done")
    left = {word: count for word, count in states.items() if word in ("unchanged", "failed", "not reached")}
    counts = [f"{count} {word}" for word, count in (*planned.items(), *done.items(), *left.items())]
    return f"{'Nothing was changed: ' if planned else ''}{', '.join(counts)}."


def _verb(step: Step) -> str:
    return "delete" if step.action == "with its endpoint" else step.action
