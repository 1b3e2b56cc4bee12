"""Writes the pages that follow from the program: cli.md, reference/yaml.md, reference/python.md.

python docs/generate.py
"""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from batchpoint import client
from batchpoint.cli.main import EXIT_CODES, cli
from batchpoint.cli.options import Group
from batchpoint.client.jobs import Job
from batchpoint.entities import (
    assets,
    base,
    endpoints,
    jobs,
    pipeline_deployments,
    pipelines,
    resources,
    schedules,
    triggers,
    webhooks,
)

HERE = Path(__file__).parent

CLI = """\
# The command line

`batchpoint`, or `python -m batchpoint`. Written by `docs/generate.py` from the commands themselves.

The commands and options are those of Azure ML's command line, without `az ml`; `batch-endpoint` and `batch-deployment`
are other names of `endpoint` and `deployment`. `-w` names a workspace
of the server, before the command or behind it; `-g` and `--subscription` are accepted and mean nothing here.
[Scripts for Azure ML](how-to/move-from-azure-ml.md#scripts-of-azures-command-line) run as they are.

An option that may be repeated also takes several values at once (`--set a=1 b=2`), and a long option may be cut short
where it stays the only one (`--endpoint` for `--endpoint-name`). An option of Azure's that does not count here is
accepted, and a note says so; it is not listed below.

Results are printed as JSON, on a terminal too, so that a command does in a script what it did by hand; `-o` chooses
another form and `--query` a part (JMESPath); there the keys that `az` prints are known too. The status of a job is told
in Azure's words (`Completed`), and the `scoring_uri` of an endpoint takes Azure's bodies; REST and Python have words of
their own. Notes, progress and errors go to standard error. A job that is followed on a terminal shows a bar, elsewhere
a line every few seconds.

Every command also takes `--debug` (requests, and where an error came from), `--verbose` and `--only-show-errors`; all
but `score` take `-o`/`--output` (json, jsonc, yaml, yamlc, table, tsv, none) and `--query`.

## Exit codes

| Code | Meaning |
|---|---|
"""

YAML = """\
# The YAML files

Written by `docs/generate.py` from the entities themselves, which are the REST bodies and the Python objects too. Keys,
types and defaults are those of Azure ML's files; what is new is under `batchpoint:` of a deployment. A key that is not
known is an error that names file, line, key and the nearest valid one.

Every kind also takes `$schema` (not read), `name`, `description`, `tags` and `properties`. Keys that the server sets
are left out here.
"""

PYTHON = """\
# The Python client

Written by `docs/generate.py` from the docstrings. `from batchpoint import Client`, and the same for the entities of
[the YAML files](yaml.md) and the [errors](../errors.md). `Client()` holds one door for each kind: `models`, `data`,
`environments`, `codes`, `components`, `computes`, `datastores`, `endpoints`, `deployments`, `jobs`,
`pipelines`, `schedules`, `webhooks`, `tokens`, `workspaces`.
"""

YAML_KINDS: list[tuple[str, type[BaseModel]]] = [
    ("Model", assets.Model),
    ("Data", assets.Data),
    ("Environment", assets.Environment),
    ("Compute", resources.Compute),
    ("Datastore", resources.Datastore),
    ("Webhook", webhooks.Webhook),
    ("Webhook: credentials", webhooks.WebhookCredentials),
    ("Batch endpoint", endpoints.BatchEndpoint),
    ("Batch deployment", endpoints.BatchDeployment),
    ("Pipeline deployment", pipeline_deployments.PipelineDeployment),
    ("Component", pipelines.Component),
    ("Pipeline", pipelines.Pipeline),
    ("Command step", pipelines.CommandStep),
    ("Parallel step", pipelines.ParallelStep),
    ("Pipeline step", pipelines.PipelineStep),
    ("Command by itself", pipeline_deployments.CommandJob),
    ("Schedule", schedules.Schedule),
    ("Schedule: trigger by a cron expression", triggers.CronTrigger),
    ("Schedule: trigger by recurrence", triggers.RecurrenceTrigger),
    ("Schedule: trigger for new files", triggers.FileTrigger),
    ("Schedule: create_job, an invoke", schedules.ScheduledInvoke),
    ("Schedule: create_job, another job", schedules.ScheduledJob),
    ("Invoke: one input", jobs.Input),
    ("Invoke: one output", jobs.Output),
    ("Invoke: overrides (`--set`)", jobs.Overrides),
]

PYTHON_CLASSES: list[type] = [
    client.Client, client.assets.Assets, client.resources.Resources, client.resources.Computes,
    client.resources.Datastores, client.resources.Webhooks,
    client.endpoints.Endpoints, client.endpoints.Deployments, client.jobs.Jobs, client.pipelines.Pipelines,
    client.schedules.Schedules, client.tokens.Tokens,
    client.workspaces.Workspaces, Job,
]  # fmt: skip

_EVERYWHERE = {"output", "query", "debug", "verbose", "only_show_errors", "help"}
_BY_SERVER = ("Set by the", "filled in at")
_BY_SERVER_KEYS = {"provisioning_state", "openapi_uri", "archived"}
_COMMON = {"schema_address", "name", "description", "tags", "properties"}


def pages() -> dict[Path, str]:
    """Every page that is written from the program, with its text."""
    return {
        HERE / "cli.md": cli_page(),
        HERE / "reference" / "yaml.md": yaml_page(),
        HERE / "reference" / "python.md": python_page(),
    }


def cli_page() -> str:
    """The commands, with their options."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return "\n".join([CLI + codes, *_commands(), ""])


def yaml_page() -> str:
    """The keys of every kind, with types, defaults and meaning."""
    lines = [YAML]
    for title, model in YAML_KINDS:
        lines += [f"## {title}\n", *_plain(model), *_keys(model), ""]
    return "\n".join(lines)


def python_page() -> str:
    """The classes of the client, with their methods."""
    lines = [PYTHON]
    for one in PYTHON_CLASSES:
        bases = [parent.__name__ for parent in one.__bases__ if parent in PYTHON_CLASSES]
        also = f"\nAll that `{bases[0]}` has, and:\n" if bases else ""
        lines += [f"## {one.__name__}\n", _paragraphs(inspect.getdoc(one) or ""), also, *_members(one), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _commands() -> Iterator[str]:
    context = click.Context(cli, info_name="batchpoint")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield f"\n## {name}{_also(cli, name)}\n\n{_help(command)}"
        if isinstance(command, click.Group):
            for inner in sorted(command.commands):
                yield f"\n### {name} {inner}{_also(command, inner)}\n\n{_help(command.commands[inner])}"
                yield from _options(command.commands[inner])
        else:
            yield from _options(command)


def _also(group: click.Group, name: str) -> str:
    others = group.names_of(name)[1:] if isinstance(group, Group) else []
    return "".join(f" (also `{other}`)" for other in others)


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


def _plain(model: type[BaseModel]) -> Iterator[str]:
    yield _paragraphs(inspect.getdoc(model) or "") + "\n"


def _keys(model: type[BaseModel]) -> Iterator[str]:
    yield "| Key | Type | Default | |"
    yield "|---|---|---|---|"
    yield from _rows(model, "")


def _rows(model: type[BaseModel], prefix: str, given: object = None) -> Iterator[str]:
    """The keys of a model; ``given`` is what the model that it stands in has for it when nothing is said."""
    said = _said_of_fields(model)
    for name, field in model.model_fields.items():
        meaning = said.get(name, "")
        if (not prefix and name in _COMMON) or _is_of_the_server(name, meaning):
            continue
        inner = _part_of(field.annotation)
        value = getattr(given, name) if isinstance(given, model) else _value(field)
        default = "required" if field.is_required() else _default(value)
        yield f"| `{prefix}{field.alias or name}` | {_type(field.annotation)} | {default} | {meaning} |"
        if inner is endpoints.ScoringOptions and model is not endpoints.BatchDeployment:
            continue  # they are told once
        if inner is not None and not issubclass(inner, base.Entity):
            of_each = "<name>." if typing.get_origin(field.annotation) is dict else ""
            yield from _rows(inner, f"{prefix}{field.alias or name}.{of_each}", value)


def _is_of_the_server(name: str, meaning: str) -> bool:
    return name in _BY_SERVER_KEYS or any(words in meaning for words in _BY_SERVER)


def _said_of_fields(model: type[BaseModel]) -> dict[str, str]:
    """The text under each field of a class and of those it is made from."""
    said: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            body = ast.parse(inspect.getsource(one)).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, below in zip(body.body, body.body[1:], strict=False):
                text = below.value if isinstance(below, ast.Expr) else None
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant) and isinstance(text.value, str):
                    assert isinstance(field.target, ast.Name)
                    said[field.target.id] = _cell(text.value)
    return said


def _type(annotation: Any) -> str:
    """A type as a reader of YAML says it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not type(None)))
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, "text")


def _value(field: FieldInfo) -> object:
    """What a field holds when nothing is given."""
    return None if field.is_required() else field.get_default(call_default_factory=True)  # type: ignore[call-overload]  # no factory here looks at other fields


def _default(value: object) -> str:
    if value is None or isinstance(value, BaseModel):
        return ""
    if value in ([], {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _part_of(annotation: Any) -> type[base.Part] | None:
    candidates = [annotation, *typing.get_args(annotation)]
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, base.Part)), None)


def _members(one: type) -> Iterator[str]:
    for name, member in vars(one).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            assert member.fget is not None
            yield f"### `.{name}`: `{_annotation(member.fget)}`\n"
            yield _paragraphs(inspect.getdoc(member) or "") + "\n"
        elif inspect.isfunction(member):
            yield f"### `{name}{_signature(member)}`\n"
            yield _paragraphs(inspect.getdoc(member) or "") + "\n"


def _signature(function: Any) -> str:
    found = inspect.signature(function)
    shown = found.replace(parameters=[each for each in found.parameters.values() if each.name != "self"])
    return re.sub(r"""(: |-> )(["'])(.*?)\2""", r"\1\3", str(shown))  # annotations are not evaluated: they are texts


def _annotation(function: Any) -> str:
    return str(inspect.signature(function).return_annotation)


def _paragraphs(text: str) -> str:
    """A docstring as Markdown: sections become lists, double backticks single."""
    blocks = []
    for block in text.replace("``", "`").split("\n\n"):
        heading, _, rest = block.partition("\n")
        if heading in {"Args:", "Raises:", "Returns:"} and rest:
            items = re.split(r"\n {4}(?=\S)", "\n" + rest)[1:]
            lines = [_item(" ".join(item.split()), heading) for item in items]
            blocks.append(f"{heading}\n\n" + "\n".join(lines))
        else:
            blocks.append(" ".join(block.split()))
    return "\n\n".join(blocks)


def _item(text: str, heading: str) -> str:
    name, colon, meaning = text.partition(": ")
    return f"* `{name}`: {meaning}" if colon and heading != "Returns:" else f"* {text}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
