"""Options that commands share, how command lines are read, and the state of one command line."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pydantic import BaseModel

    from batchpoint.client import Client

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])

OUTPUTS = ("json", "jsonc", "yaml", "yamlc", "table", "tsv", "none")


@dataclass
class State:
    """What the options that every command takes have set."""

    output: str | None = None
    query: str | None = None
    debug: bool = False
    only_errors: bool = False
    resource_group: str | None = None
    workspace: str | None = None
    _client: Client | None = field(default=None, repr=False)

    def client(self) -> Client:
        """The client of this command line, made when it is first needed."""
        if self._client is None:
            from batchpoint.client import Client
            from batchpoint.settings import Settings

            self._client = Client(settings=Settings.from_environment(), workspace=self.named_workspace())
            click.get_current_context().call_on_close(self._client.close)
        return self._client

    def named_workspace(self) -> str | None:
        """The workspace that the command line, the shell or the home names; None means the default one."""
        from batchpoint.settings import Settings

        return self.workspace or Settings.from_environment().workspace or self.defaults().get("workspace")

    def defaults(self) -> dict[str, str]:
        """What ``configure`` has kept in the home."""
        from batchpoint.cli.defaults import read_defaults
        from batchpoint.settings import Settings

        return read_defaults(Settings.from_environment().home)

    def show(self, value: Any, *, columns: tuple[str, ...] = ()) -> None:
        """Print a result or entities as ``--query`` and ``--output`` ask; ``columns`` are those of a table of many."""
        from batchpoint.cli.printing import render
        from batchpoint.cli.records import with_other_words

        value = [self.record(each) for each in value] if isinstance(value, list) else self.record(value)
        value = with_other_words(value) if self.query else value
        text = render(value, output=self.output or "json", query=self.query, columns=columns)
        if text:
            click.echo(text)

    def show_or_tell(self, found: BaseModel, lines: Callable[[Any], Sequence[str]]) -> None:
        """Print what was found: in lines for a person who asks for a table, else as ``show`` does."""
        if self.output == "table" and self.query is None:
            click.echo("\n".join(lines(found)))
        else:
            self.show(found.model_dump(mode="json", exclude_none=True))

    def record(self, value: Any) -> Any:
        """What is printed for an entity; anything else is printed as it is."""
        from batchpoint.cli.records import record
        from batchpoint.entities.base import Entity

        return record(value, self.client().url, self.client().workspace) if isinstance(value, Entity) else value

    def note(self, text: str) -> None:
        """Tell a person something that is not the result."""
        if not self.only_errors:
            click.echo(text, err=True)


pass_state = click.make_pass_decorator(State, ensure=True)


class Command(click.Command):
    """A command that reads its line as Azure's does: ``--set a=1 b=2`` gives two, and long options may be cut short."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, once the line is written as click reads it."""
        return super().parse_args(ctx, list(self._written_out(ctx, args)))

    def _written_out(self, ctx: click.Context, args: Sequence[str]) -> Iterator[str]:
        options = {
            name: option
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)
        }
        left = list(args)
        while left:
            given, equals, value = left.pop(0).partition("=")
            name = _whole_name(ctx, given, options) if given.startswith("--") else given
            option = options.get(name)
            yield f"{name}{equals}{value}"
            if option is None or option.is_flag or option.count:
                continue
            size = 0 if equals else option.nargs
            taken, left = left[:size], left[size:]
            yield from taken
            while option.multiple and left and not left[0].startswith("-"):
                # Of a pair, as --add KEY NAME=VALUE, what follows are further second halves.
                yield from (name, *taken[:-1], left.pop(0))


class Group(click.Group):
    """A group whose commands are read in Azure's way, may have other names, and may be known but not here.

    Args:
        aliases: another name → the name of the command.
        absent: a command of Azure's command line that is not here → what to do instead.
    """

    command_class = Command

    def __init__(
        self,
        *args: Any,
        aliases: Mapping[str, str] | None = None,
        absent: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.aliases = dict(aliases or {})
        self.absent = dict(absent or {})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name or alias."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name for one that is not known."""
        name = args[0]
        if name in self.absent:
            ctx.fail(f"There is no '{ctx.command_path} {name}' here: {self.absent[name]}.")
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            nearest = difflib.get_close_matches(name, [*self.list_commands(ctx), *self.aliases], n=1)
            hint = f" Did you mean '{nearest[0]}'?" if nearest else f" '{ctx.command_path} --help' lists the commands."
            ctx.fail(f"No such command '{name}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, each with its other names."""
        commands = {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))}
        names = {name: ", ".join(self.names_of(name)) for name in commands}
        width = formatter.width - 6 - max(map(len, names.values()))
        rows = [(names[name], command.get_short_help_str(width)) for name, command in commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click does, with the other names once they are begun."""
        others = [alias for alias in self.aliases if incomplete and alias.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *map(CompletionItem, others)]

    def names_of(self, name: str) -> list[str]:
        """The name of a command, and its other names."""
        return [name, *(alias for alias, known in self.aliases.items() if known == name)]


def common(command: AnyCommand) -> AnyCommand:
    """The options that every command takes, those of Azure's command line that mean nothing here among them."""
    options = [
        click.option("-o", "--output", type=click.Choice(OUTPUTS), expose_value=False, callback=_keep("output"),
                     help="How to print the result; json when not given."),
        click.option("--query", metavar="JMESPATH", expose_value=False, callback=_keep("query"),
                     help="Print only this part of the result."),
        click.option("-g", "--resource-group", hidden=True, expose_value=False, callback=_keep("resource_group")),
        click.option("-w", "--workspace-name", hidden=True, expose_value=False, callback=_keep("workspace")),
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
        click.option("--only-show-errors", is_flag=True, expose_value=False, is_eager=True,
                     callback=_keep("only_errors"), help="Leave out notes and progress."),
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


def unused_options(*names: str, why: str, flags: bool = False) -> Callable[[AnyCommand], AnyCommand]:
    """Options of Azure's command line that change nothing here: they are taken, and a note says why they do not count.

    Args:
        names: each as ``--long`` or ``--long/-s``.
        why: what the note says.
        flags: whether they take no value.
    """

    def note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value:
            context.ensure_object(State).note(f"{parameter.opts[0]} does not count here: {why}.")

    def add(command: AnyCommand) -> AnyCommand:
        for name in names:
            command = click.option(
                *name.split("/"), hidden=True, expose_value=False, multiple=not flags, is_flag=flags, callback=note
            )(command)
        return command

    return add


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


def confirm(what: str, *, yes: bool, deed: str = "Delete", in_scripts: bool = True) -> None:
    """Ask before something is deleted; without a terminal ``-y`` is needed, unless scripts of Azure's do without."""
    if yes or not (in_scripts or sys.stdin.isatty()):
        return
    if not sys.stdin.isatty():
        message = f"{deed} {what}? That needs a confirmation: add --yes."
        raise click.UsageError(message)
    click.confirm(f"{deed} {what}?", abort=True, err=True)


def _whole_name(context: click.Context, given: str, options: Mapping[str, click.Option]) -> str:
    """An option that was cut short, as ``--workspace``, as it is declared; one that is not known as it was given."""
    if given in options:
        return given
    meant = {id(option): name for name, option in options.items() if name.startswith(given) and given != "--"}
    if len(meant) > 1:
        context.fail(f"Option '{given}' may be {' or '.join(sorted(meant.values()))}: write it out.")
    return next(iter(meant.values()), given)


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
