"""Options that commands share, and the state of one command line."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from batchpoint.client import Client

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])

OUTPUTS = ("json", "jsonc", "yaml", "yamlc", "table", "tsv", "none")


@dataclass
class State:
    """What the options that every command takes have set."""

    workspace: str | None = None
    output: str | None = None
    query: str | None = None
    debug: bool = False
    only_errors: bool = False
    _client: Client | None = field(default=None, repr=False)

    def client(self) -> Client:
        """The client of this command line, made when it is first needed."""
        if self._client is None:
            from batchpoint.client import Client

            self._client = Client(workspace=self.workspace)
            click.get_current_context().call_on_close(self._client.close)
        return self._client

    def show(self, value: Any, *, columns: tuple[str, ...] = ()) -> None:
        """Print a result as ``--query`` and ``--output`` ask; ``columns`` are those of a table of many."""
        from batchpoint.cli.printing import render

        text = render(value, output=self.output or "json", query=self.query, columns=columns)
        if text:
            click.echo(text)

    def note(self, text: str) -> None:
        """Tell a person something that is not the result."""
        if not self.only_errors:
            click.echo(text, err=True)


pass_state = click.make_pass_decorator(State, ensure=True)


def common(command: AnyCommand) -> AnyCommand:
    """The options that every command takes, those of Azure's command line that mean nothing here among them."""
    options = [
        click.option("-o", "--output", type=click.Choice(OUTPUTS), expose_value=False, callback=_keep("output"),
                     help="How to print the result; json when not given."),
        click.option("--query", metavar="JMESPATH", expose_value=False, callback=_keep("query"),
                     help="Print only this part of the result."),
        click.option("-g", "--resource-group", hidden=True, expose_value=False),
        click.option("-w", "--workspace-name", hidden=True, expose_value=False),
        click.option("--subscription", hidden=True, expose_value=False),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return diagnostics(command)


def diagnostics(command: AnyCommand) -> AnyCommand:
    """The options that say how much is told, and the state as the command's first argument."""
    options = [
        click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug,
                     help="Show requests, and where an error came from."),
        click.option("--verbose", is_flag=True, expose_value=False, callback=_set_verbose, help="Show requests."),
        click.option("--only-show-errors", is_flag=True, expose_value=False, callback=_keep("only_errors"),
                     help="Leave out notes and progress."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return pass_state(command)  # type: ignore[return-value]  # click's decorator keeps the command's own signature


def name_option(command: AnyCommand) -> AnyCommand:
    """``-n``, required."""
    return click.option("-n", "--name", required=True, help="Name.")(command)


def set_option(command: AnyCommand) -> AnyCommand:
    """``--set a.b=c``, repeatable."""
    return click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Set a key, as outer.inner=value."
    )(command)


def update_options(command: AnyCommand) -> AnyCommand:
    """``--set``, ``--add``, ``--remove``, ``--force-string``; the command sees them all as assignments."""

    @functools.wraps(command)
    def with_edits(*args: Any, **given: Any) -> Any:
        edits = {name: given.pop(name) for name in ("additions", "removals", "force_string")}
        return command(*args, **{**given, "assignments": _edits(given["assignments"], **edits)})

    options = [
        set_option,
        click.option("--add", "additions", nargs=2, multiple=True, metavar="KEY NAME=VALUE",
                     help="Add to a mapping, as: --add tags team=risk."),
        click.option("--remove", "removals", multiple=True, metavar="KEY", help="Take a key away, as outer.inner."),
        click.option("--force-string", is_flag=True, help="Take the values of --set and --add as text."),
    ]  # fmt: skip
    edited: Any = with_edits
    for option in reversed(options):
        edited = option(edited)
    return edited  # type: ignore[no-any-return]  # click's decorators keep the command's own signature


def file_option(*, required: bool = False, text: str = "YAML file.") -> Callable[[AnyCommand], AnyCommand]:
    """``-f``."""
    return click.option("-f", "--file", "file", required=required, metavar="FILE", help=text)


def no_wait_option(command: AnyCommand) -> AnyCommand:
    """``--no-wait``, for those who write it from habit: nothing here takes long enough to be waited for."""
    return click.option("--no-wait", is_flag=True, expose_value=False, help="Accepted; commands do not wait anyway.")(
        command
    )


def limit_option(command: AnyCommand) -> AnyCommand:
    """``-r``: how many at most."""
    return click.option("-r", "--max-results", "limit", type=click.IntRange(1), help="At most so many.")(command)


def archived_options(command: AnyCommand) -> AnyCommand:
    """``--archived-only`` and ``--include-archived``."""
    command = click.option("--archived-only", is_flag=True, help="Only archived ones.")(command)
    return click.option("--include-archived", is_flag=True, help="Archived ones too.")(command)


def yes_option(command: AnyCommand) -> AnyCommand:
    """``-y``: do not ask."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def tags_option(command: AnyCommand) -> AnyCommand:
    """``--tags a=b``, repeatable."""
    return click.option("--tags", multiple=True, metavar="KEY=VALUE", help="Tags: 'a=b c=d', or repeated.")(command)


def tags_of(tags: tuple[str, ...]) -> dict[str, str]:
    """``('a=b c=d', 'e=f')`` → a mapping."""
    pairs = [pair for text in tags for pair in text.split()]
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise click.BadParameter(f"{bad[0]!r}: write key=value.", param_hint="--tags")
    return dict(pair.split("=", 1) for pair in pairs)


def archived_of(archived_only: bool, include_archived: bool) -> Any:
    """The two flags as the client's word."""
    if archived_only:
        return "only"
    return "include" if include_archived else "exclude"


def changes_of(assignments: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """What an update changes, nested, from options and ``--set``."""
    from batchpoint.entities.documents import Document

    values = {key: value for key, value in given.items() if value is not None and value != {}}
    changes = Document(value=values, name="--set").with_settings(assignments).as_patch()
    if not changes:
        message = "Nothing to change: give --set, or another option."
        raise click.UsageError(message)
    return changes


def confirm(what: str, *, yes: bool, deed: str = "Delete") -> None:
    """Ask before something is deleted; without a terminal ``-y`` is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        message = f"{deed} {what}? That needs a confirmation: add --yes."
        raise click.UsageError(message)
    click.confirm(f"{deed} {what}?", abort=True, err=True)


def _edits(
    assignments: tuple[str, ...],
    *,
    additions: tuple[tuple[str, str], ...],
    removals: tuple[str, ...],
    force_string: bool,
) -> tuple[str, ...]:
    """All that an update changes as ``key=value``; an empty value in YAML takes the key away."""
    given = list(assignments)
    for key, pair in additions:
        if "=" not in pair:
            message = f"--add {key} {pair!r}: write NAME=VALUE. A list is given whole: --set {key}='[...]'."
            raise click.UsageError(message)
        given.append(f"{key}.{pair}")
    if force_string:
        import json

        pairs = [text.partition("=") for text in given]
        given = [f"{key}{equals}{json.dumps(value)}" for key, equals, value in pairs]
    return (*given, *(f"{key}=null" for key in removals))


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(State), name, value)

    return keep


def _set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(State).debug = True
        _log("DEBUG")


def _set_verbose(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        _log("INFO")


def _log(level: str) -> None:
    import logging

    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
