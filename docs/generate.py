"""Writes docs/cli.md from the commands themselves: python docs/generate.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from batchpoint.cli.main import COMMANDS, EXIT_CODES, cli

PAGE = Path(__file__).parent / "cli.md"

INTRODUCTION = """\
# The command line

`batchpoint`, or `python -m batchpoint`. Written by `docs/generate.py` from the commands themselves.

The commands and options are those of Azure ML's command line, without `az ml`; `batch-endpoint` and `batch-deployment`
are other names of `endpoint` and `deployment`. `-g`, `-w` and `--subscription` are accepted and mean nothing here.

Results are printed as JSON, on a terminal too, so that a command does in a script what it did by hand; `-o` chooses
another form and `--query` a part (JMESPath). Notes, progress and errors go to standard error. A job that is followed on
a terminal shows a bar, elsewhere a line every few seconds.

Every command also takes `--debug` (requests, and where an error came from), `--verbose` and `--only-show-errors`; all
but `score` take `-o`/`--output` (json, jsonc, yaml, yamlc, table, tsv, none) and `--query`.

## Exit codes

| Code | Meaning |
|---|---|
"""

_EVERYWHERE = {"output", "query", "debug", "verbose", "only_show_errors", "help"}


def page() -> str:
    """The whole page."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return "\n".join([INTRODUCTION + codes, *_commands(), ""])


def _commands() -> Iterator[str]:
    context = click.Context(cli, info_name="batchpoint")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        also = "".join(f" (also `{alias}`)" for alias in COMMANDS[name].aliases)
        yield f"\n## {name}{also}\n\n{_help(command)}"
        if isinstance(command, click.Group):
            for inner in sorted(command.commands):
                yield f"\n### {name} {inner}\n\n{_help(command.commands[inner])}"
                yield from _options(command.commands[inner])
        else:
            yield from _options(command)


def _help(command: click.Command) -> str:
    paragraphs = (command.help or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _options(command: click.Command) -> Iterator[str]:
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name not in _EVERYWHERE]
    if shown:
        yield "\n| Option | |\n|---|---|"
    for one in shown:
        if isinstance(one, click.Option):
            names = ", ".join(f"`{name}`" for name in one.opts)
            required = " Required." if one.required else ""
            choices = f" One of {', '.join(one.type.choices)}." if isinstance(one.type, click.Choice) else ""
            yield f"| {names} | {one.help or ''}{required}{choices} |"
        else:
            yield f"| `{one.human_readable_name}` | |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
