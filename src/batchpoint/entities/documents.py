"""Documents: YAML or JSON text → an entity, with every fault named by file, line, key and what is allowed there.

Pure: the text is handed in.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from batchpoint.entities.base import (
    AssetName,
    AssetVersion,
    ComputeName,
    DatastoreName,
    DeploymentName,
    EndpointName,
    Entity,
)
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, DeploymentSettings
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.entities.parallel_run_config import KEY as PARALLEL_RUN_CONFIG
from batchpoint.entities.pipeline_deployments import CommandJob, PipelineDeployment
from batchpoint.entities.pipelines import Pipeline, PortName, StepName
from batchpoint.entities.resources import RESOURCE_KINDS
from batchpoint.entities.schedules import Schedule
from batchpoint.errors import InvalidEntityError

Kind = Literal[
    "model", "data", "environment", "code", "component",
    "compute", "datastore", "endpoint", "deployment", "schedule", "webhook", "job",
]  # fmt: skip

ENTITY_KINDS: dict[Kind, type[Entity]] = {
    "model": ASSET_KINDS["model"],
    "data": ASSET_KINDS["data"],
    "environment": ASSET_KINDS["environment"],
    "code": ASSET_KINDS["code"],
    "component": ASSET_KINDS["component"],
    "compute": RESOURCE_KINDS["compute"],
    "datastore": RESOURCE_KINDS["datastore"],
    "endpoint": BatchEndpoint,
    "deployment": BatchDeployment,
    "job": Pipeline,
    "schedule": Schedule,
    "webhook": RESOURCE_KINDS["webhook"],
}
"""Every kind of entity that a person declares."""

_OF_TYPE: dict[tuple[Kind, str], type[Entity]] = {
    ("deployment", "pipeline"): PipelineDeployment,
    ("job", "command"): CommandJob,
}
"""Where a ``type`` makes it another class than that of its kind."""

Key = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the root of the document."""

AnyPart = TypeVar("AnyPart", bound=BaseModel)

MOST_VALUES = 1_000_000
"""In one document. A few lines of aliases of aliases stand for more values than any memory holds."""

_SCHEMAS: dict[str, Kind] = {
    "model": "model",
    "data": "data",
    "environment": "environment",
    "amlcompute": "compute",
    "compute": "compute",
    "batchendpoint": "endpoint",
    "batchdeployment": "deployment",
    "modelbatchdeployment": "deployment",
    "pipelinecomponentbatchdeployment": "deployment",
    "commandcomponent": "component",
    "parallelcomponent": "component",
    "pipelinecomponent": "component",
    "pipelinejob": "job",
    "commandjob": "job",
    "azureblob": "datastore",
    "azurefile": "datastore",
    "azuredatalakegen1": "datastore",
    "azuredatalakegen2": "datastore",
    "onelake": "datastore",
    "datastore": "datastore",
    "schedule": "schedule",
}
"""The name in Azure's ``…/latest/<name>.schema.json``, in lower case."""

_TYPES: dict[str, Kind] = {
    "custom_model": "model",
    "mlflow_model": "model",
    "triton_model": "model",
    "uri_file": "data",
    "uri_folder": "data",
    "mltable": "data",
    "amlcompute": "compute",
    "azure_blob": "datastore",
    "azure_file": "datastore",
    "azure_data_lake_gen1": "datastore",
    "azure_data_lake_gen2": "datastore",
    "s3": "datastore",
    "gcs": "datastore",
    "model": "deployment",
    "parallel": "component",
}

_TELLING_KEYS: dict[str, Kind] = {
    PARALLEL_RUN_CONFIG: "deployment",
    "trigger": "schedule",
    "events": "webhook",
    "endpoint_name": "deployment",
    "conda_file": "environment",
    "pip_requirements": "environment",
    "image": "environment",
    "auth_mode": "endpoint",
    "defaults": "endpoint",
    "traffic": "endpoint",
    "deployments": "endpoint",
    "jobs": "job",
    "command": "job",
}
"""Keys that only one kind has."""

_NAME_RULES: dict[str, str] = {
    get_args(rule)[1].pattern: words
    for rule, words in (
        (AssetName, "letters, digits, '-', '_' and '.', starting with a letter or digit, at most 255"),
        (AssetVersion, "letters, digits, '-', '_' and '.', at most 255"),
        (EndpointName, "3 to 32 letters, digits and dashes, starting with a letter and not ending with a dash"),
        (
            DeploymentName,
            "3 to 32 letters, digits, dashes and '_', starting with a letter, ending with letter or digit",
        ),
        (ComputeName, "3 to 24 letters, digits and dashes, starting with a letter"),
        (DatastoreName, "letters, digits and underscores, at most 255"),
        (StepName, "a name of lower letters, digits and underscores that starts with no digit"),
        (PortName, "a name of letters, digits and underscores that starts with no digit"),
    )
}

_EXPECTED: dict[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "list": "a list",
    "datetime": "a date and time",
}
"""What pydantic's error types ask for, by the first word of the type."""


@dataclass(frozen=True)
class Document:
    """A mapping as it was written: its values, where each stands, and the text of each scalar."""

    value: dict[str, Any]
    name: str
    """File name for messages."""
    places: dict[Key, str] = field(default_factory=dict)
    """``file:line`` of each key."""
    texts: dict[Key, str] = field(default_factory=dict)
    """Scalars as they were written, so that ``version: 1.10`` stays ``1.10``."""

    def with_settings(self, assignments: Iterable[str]) -> Document:
        """The document with ``a.b=c`` applied in order, as ``--set`` does. Values are read as YAML.

        Raises:
            InvalidEntityError: an assignment has no ``=``, or goes through something that is not a mapping or a list.
        """
        value, places, texts = _copy(self.value), dict(self.places), dict(self.texts)
        for assignment in assignments:
            key, given, text = read_assignment(assignment)
            _assign(value, key, given, assignment)
            places[key], texts[key] = f"--set {'.'.join(map(str, key))}", text
        return replace(self, value=value, places=places, texts=texts)

    def as_patch(self) -> dict[str, Any]:
        """The values as JSON: what is no JSON (a date), or was written in another way (``1.10``, ``yes``), as written.

        Whoever wants a number or a truth value understands these texts too.
        """
        value = _copy(self.value)
        for key, text in self.texts.items():
            known = value_at(value, key)
            if known is not None and not isinstance(known, str | Mapping | list):
                written = json.dumps(known, default=str)
                _assign(value, key, known if written == text else text, text)
        return dict(value)

    def with_value(self, key: Key, given: Any) -> Document:
        """The document with one value replaced; its place stays known."""
        value = _copy(self.value)
        _assign(value, key, given, ".".join(map(str, key)))
        texts = {known: text for known, text in self.texts.items() if known[: len(key)] != key}
        return replace(self, value=value, texts=texts)

    def with_document(self, key: Key, inner: Document) -> Document:
        """The document with another one in place of a value: its faults are told with its own file and lines."""
        outer = self.with_value(key, inner.value)
        places = {**outer.places, **{(*key, *inner_key): place for inner_key, place in inner.places.items()}}
        texts = {**outer.texts, **{(*key, *inner_key): text for inner_key, text in inner.texts.items()}}
        return replace(outer, places=places, texts=texts)

    def kind(self) -> Kind:
        """Which kind of entity this declares, by ``$schema``, else ``type``, else a key that only one kind has.

        Raises:
            InvalidEntityError: nothing tells the kind.
        """
        if found := kind_by_schema(self.value):
            return found
        given = str(self.value.get("type", "")).lower()
        if found := _TYPES.get(given):
            return found
        if given in ("command", "pipeline") and "endpoint_name" not in self.value:
            return "component" if "version" in self.value else "job"  # no job has a version
        for key, kind in _TELLING_KEYS.items():
            if key in self.value:
                return kind
        message = f"{self.name} does not say what it declares. Add '$schema' or 'type', or use the command of its kind."
        raise InvalidEntityError(message)

    def entity(self, kind: Kind | None = None) -> Entity:
        """The entity that is declared.

        Raises:
            InvalidEntityError: with every fault; ``details['problems']`` holds ``place``, ``key``, ``message`` and
                ``allowed`` of each.
        """
        wanted = kind or self.kind()
        hint = ""
        declared = kind_by_schema(self.value)
        if declared is not None and declared != wanted:
            hint = f"'$schema' says that this declares a {declared}; a {wanted} was expected."
        return self.part(model_of(wanted, self.value), hint=hint)

    def part(self, model: type[AnyPart], *, hint: str = "") -> AnyPart:
        """The document as any model of ``batchpoint.entities``; raises like ``entity``."""
        value = _with_written_texts(self.value, self.texts)
        try:
            return model.model_validate(value)
        except ValidationError as refused:
            value = _numbers_as_text(value, refused.errors(), self.texts)
        try:
            return model.model_validate(value)
        except ValidationError as refused:
            problems = _problems(model, self, value, refused.errors())
        if hint:
            problems.insert(0, {"place": self.places.get(("$schema",), self.name), "key": "$schema", "message": hint})
        raise _refusal(self.name, problems)

    def located(self, error: InvalidEntityError) -> InvalidEntityError:
        """What a server said about this document, each fault with the file and line of its key."""
        problems = []
        for known in error.details.get("problems") or ():
            key = tuple(int(step) if step.isdigit() else step for step in str(known.get("key", "")).split("."))
            if key[:2] == ("jobs", "command") and "jobs" not in self.value:
                key = key[2:]  # a command by itself was made the one step of a pipeline
            key = _as_written(self.value, key)
            message = known["message"] if _dotted(key) in known["message"] else f"{_dotted(key)}: {known['message']}"
            problems.append({**known, "key": _dotted(key), "place": _place(self, key), "message": message})
        order = {place: position for position, place in reversed([*enumerate(self.places.values())])}
        problems.sort(key=lambda problem: order.get(problem["place"], -1))
        return _refusal(self.name, problems) if problems else error


def read_document(text: str, *, name: str = "document") -> Document:
    """Read YAML (or JSON, which is YAML) text that holds one mapping.

    Raises:
        InvalidEntityError: it is not YAML, not a mapping, or gives one key twice.
    """
    documents = list(_read(text, name))
    if len(documents) > 1:
        raise InvalidEntityError(f"{name} holds {len(documents)} documents; one was expected. 'apply -f' takes many.")
    if not documents:
        raise InvalidEntityError(f"{name} holds nothing; keys were expected.")
    return documents[0]


def read_documents(text: str, *, name: str = "document") -> list[Document]:
    """Read all documents of a YAML text, divided by ``---``; empty ones are left out.

    Raises:
        InvalidEntityError: as ``read_document``.
    """
    return list(_read(text, name))


def read_body(model: type[AnyPart], body: Any, *, name: str = "body") -> AnyPart:
    """A JSON body as a model, with the same messages and suggestions as a file.

    Raises:
        InvalidEntityError: as ``Document.entity``.
    """
    if isinstance(body, bytes):  # a web server leaves a body unread that does not say what it is
        raise InvalidEntityError(f"{name} must be JSON. Send the header 'Content-Type: application/json' with it.")
    if not isinstance(body, Mapping):
        raise InvalidEntityError(f"{name} must be a JSON object, not {_said(body)}.")
    return Document(value=dict(body), name=name).part(model)


def model_of(kind: Kind, value: Any) -> type[Entity]:
    """The class that a document of this kind is read as; of some kinds its ``type`` tells."""
    known = value if isinstance(value, Mapping) else {}
    given = str(known.get("type") or ("command" if "command" in known else "")).lower()
    return _OF_TYPE.get((kind, given), ENTITY_KINDS[kind])


def kind_by_schema(value: Mapping[str, Any]) -> Kind | None:
    """The kind that ``$schema`` names; None without one that is known."""
    match = re.search(r"/(\w+)\.schema\.json$", str(value.get("$schema", "")))
    return _SCHEMAS.get(match[1].lower()) if match else None


def read_assignment(text: str) -> tuple[Key, Any, str]:
    """``a.b[0].c=value`` → the key, the value read as YAML, and the value's text.

    Raises:
        InvalidEntityError: there is no ``=``, or no key before it.
    """
    name, equals, given = text.partition("=")
    keys = [int(part) if part.isdigit() else part for part in re.split(r"[.\[]", name.strip().replace("]", ""))]
    if not equals or "" in keys:
        raise InvalidEntityError(f"--set {text!r}: write it as key=value, or outer.inner=value.")
    try:
        value = yaml.safe_load(given) if given else ""
    except yaml.YAMLError:
        value = given
    return tuple(keys), value, value if isinstance(value, str) else given


def suggestion(given: str, allowed: Iterable[str]) -> str:
    """A sentence that helps with a name that is not allowed: the nearest one, or all of them."""
    names = sorted(allowed)
    nearest = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    if nearest:
        return f"Did you mean '{nearest[0]}'?"
    return f"Known: {', '.join(names)}." if names else ""


def value_at(value: Any, key: Key) -> Any:
    """What stands at a key of a document; None where nothing does."""
    for step in key:
        if isinstance(value, list):
            value = value[step] if isinstance(step, int) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _read(text: str, name: str) -> Iterator[Document]:
    try:
        yield from _parse(text, name)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        message = f"{place}: this is not YAML: {fault.problem or fault.context}."
        raise InvalidEntityError(message) from None
    except yaml.YAMLError as fault:
        raise InvalidEntityError(f"{name}: this is not YAML: {fault}.") from None
    except RecursionError:
        raise InvalidEntityError(f"{name} is nested too deeply to be read.") from None


def _parse(text: str, name: str) -> Iterator[Document]:
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if isinstance(node, yaml.ScalarNode) and node.value == "":
                continue
            if not isinstance(node, yaml.MappingNode):
                raise InvalidEntityError(f"{name} holds a single value or a list; keys were expected.")
            document = Document(value={}, name=name)
            document.value.update(_Reader(loader, document).mapping(node, ()))
            yield document
    finally:
        loader.dispose()


class _Reader:
    """Turns nodes into values, noting places and texts, and refusing what YAML would let pass in silence."""

    def __init__(self, loader: yaml.SafeLoader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._open: set[int] = set()
        self._values = 0

    def mapping(self, node: yaml.MappingNode, at: Key) -> dict[str, Any]:
        self._enter(node)
        self._refuse_duplicates(node)
        self._loader.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            place = (*at, key)
            self._document.places[place] = f"{self._document.name}:{key_node.start_mark.line + 1}"
            result[key] = self._value(value_node, place)
        self._open.discard(id(node))
        return result

    def _value(self, node: yaml.Node, at: Key) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            self._enter(node)
            result = []
            for position, item in enumerate(node.value):
                self._document.places[(*at, position)] = f"{self._document.name}:{item.start_mark.line + 1}"
                result.append(self._value(item, (*at, position)))
            self._open.discard(id(node))
            return result
        self._document.texts[at] = str(node.value)
        return self._loader.construct_object(node, deep=True)

    def _enter(self, node: yaml.MappingNode | yaml.SequenceNode) -> None:
        self._values += len(node.value)
        if self._values > MOST_VALUES:
            problem = f"it holds more than {MOST_VALUES:,} values, counting each alias as what it stands for"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not allowed", problem_mark=node.start_mark)
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="an alias stands inside its own anchor", problem_mark=node.start_mark)
        self._open.add(id(node))

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key_node.value in seen and key_node.value != "<<":
                problem = f"key '{key_node.value}' is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key_node.value)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _assign(root: dict[str, Any], key: Key, given: Any, said: str) -> None:
    current: Any = root
    for step in key[:-1]:
        if isinstance(current, list) and isinstance(step, int) and step < len(current):
            current = current[step]
        elif isinstance(current, dict):
            if current.get(str(step)) is None:
                current[str(step)] = {}
            current = current[str(step)]
        else:
            break
    last = key[-1]
    if isinstance(current, dict):
        current[str(last)] = given
    elif isinstance(current, list) and isinstance(last, int) and last <= len(current):
        current[last : last + 1] = [given]
    else:
        raise InvalidEntityError(f"--set {said!r}: there is no mapping or list at that place to put a value into.")


def _with_written_texts(value: dict[str, Any], texts: Mapping[Key, str]) -> dict[str, Any]:
    """Environment variables are text: ``PORT: 0123`` and ``V: 1.10`` mean what was written, not YAML's numbers."""
    result = value
    for key, text in texts.items():
        known = value_at(value, key)
        if len(key) > 1 and key[-2] == "environment_variables" and known is not None:
            result = _copy(result) if result is value else result
            _assign(result, key, text, text)
    return result


def _numbers_as_text(value: dict[str, Any], errors: list[ErrorDetails], texts: Mapping[Key, str]) -> dict[str, Any]:
    """Where text is wanted and YAML saw a number, a truth value or a date (``version: 1``), take what was written."""
    result: dict[str, Any] = _copy(value)
    for error in errors:
        if error["type"] != "string_type":
            continue
        key, _ = _resolve(value, error["loc"])
        given = value_at(value, key)
        if given is None or isinstance(given, str | Mapping | list):
            continue
        _assign(result, key, texts.get(key, json.dumps(given, default=str)), str(key))
    return result


def _resolve(value: Any, loc: tuple[int | str, ...]) -> tuple[Key, str | None]:
    """Pydantic's place → key in the document as written, and the last step that the document does not have.

    Such steps are names of union branches, a key that is missing, or ``settings`` of a deployment in the legacy form,
    whose keys stand at the root.
    """
    key: list[str | int] = []
    left = None
    if loc[:1] == ("batchpoint",) and len(loc) > 1 and value_at(value, loc) is None:
        flat = ("properties", f"batchpoint.{loc[1]}")
        if value_at(value, flat) is not None:
            return flat, None
    for step in loc:
        current = value_at(value, tuple(key))
        if step in current if isinstance(current, Mapping) else isinstance(current, list) and isinstance(step, int):
            key.append(step)
        else:
            left = str(step)
    return tuple(key), left


def _as_written(value: Any, key: Key) -> Key:
    """A key of a pipeline whose components are taken apart, as the key that its document has."""
    found: list[str | int] = []
    for step in key:
        inner = value.get("component") if isinstance(value, Mapping) else None
        if isinstance(inner, Mapping) and step not in value and step in inner:
            found.append("component")
            value = inner
        found.append(step)
        value = value_at(value, (step,))
    return tuple(found)


def _refusal(name: str, problems: list[dict[str, Any]]) -> InvalidEntityError:
    lines = [f"{problem['place']}: {problem['message']}" for problem in problems]
    head = f"{name} is not valid:" if len(lines) == 1 else f"{name} has {len(lines)} faults:"
    return InvalidEntityError("\n  ".join([head, *lines]), problems=problems)


def _problems(
    model: type[BaseModel], document: Document, value: dict[str, Any], errors: list[ErrorDetails]
) -> list[dict[str, Any]]:
    """Each fault once, with its place; of a union only what fits the shape that was given."""
    found: dict[tuple[Key, str], dict[str, Any]] = {}
    for error in errors:
        key, left = _resolve(value, error["loc"])
        given = value_at(value, key)
        if left is not None and error["type"] != "missing" and not _branch_fits(left, given, error):
            continue
        problem = _problem(model, error, key, str(key[-1]) if left == "[key]" else given, left)
        problem["place"] = _place(document, key)
        found.setdefault((key, problem["message"]), problem)
    if not found:
        key, _ = _resolve(value, errors[0]["loc"])
        message = f"key '{_dotted(key)}' is {_said(value_at(value, key))}, which is not allowed here."
        found[key, message] = {"key": _dotted(key), "message": message, "place": _place(document, key)}
    order = {place: position for position, place in enumerate(document.places)}
    return [found[both] for both in sorted(found, key=lambda both: order.get(both[0], -1))]


def _branch_fits(branch: str, given: Any, error: ErrorDetails) -> bool:
    plain = branch.split("[", 1)[0]
    shapes: dict[str, type[Any]] = {"str": str, "dict": Mapping, "list": list, "bool": bool, "int": int, "float": float}
    if plain in shapes:
        fits: bool = isinstance(given, shapes[plain])
        return fits or not isinstance(given, str | Mapping | list)
    if plain[:1].isupper() and error["type"] in ("model_type", "model_attributes_type"):
        return isinstance(given, Mapping)
    return True


def _problem(model: type[BaseModel], error: ErrorDetails, key: Key, given: Any, missing: str | None) -> dict[str, Any]:
    kind = error["type"]
    if kind == "missing":
        name = _dotted((*key, missing) if missing else key)
        return {"key": name, "message": f"key '{name}' is missing."}
    if kind == "union_tag_not_found":
        name = _dotted((*key, "type"))
        return {"key": name, "message": f"key '{name}' is missing."}
    if kind == "union_tag_invalid":
        choices = re.findall(r"'([^']*)'", error.get("ctx", {})["expected_tags"])
        name, tag = _dotted((*key, "type")), str(value_at(given, ("type",)))
        return {"key": name, "message": f"key '{name}' is {tag!r}. {suggestion(tag, choices)}", "allowed": choices}
    name = _dotted(key)
    if kind == "extra_forbidden":
        allowed = _keys_at(model, error["loc"][:-1])
        message = f"key '{name}' is not known here. {suggestion(str(key[-1]), allowed)}".rstrip()
        return {"key": name, "message": message, "allowed": sorted(allowed)}
    if kind == "value_error":
        words = str(error.get("ctx", {}).get("error", error["msg"]))
        return {"key": name, "message": f"{f'key {name!r}: ' if name else ''}{words.rstrip('.')}."}
    expected = _expected(error)
    if kind == "literal_error" and isinstance(given, str):
        choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
        nearest = difflib.get_close_matches(given.lower(), choices, n=1)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        message = f"key '{name}' is {_said(given)}.{hint} Allowed: {', '.join(choices)}."
        return {"key": name, "message": message, "allowed": choices}
    return {"key": name, "message": f"key '{name}' is {_said(given)}; {expected} is wanted.", "allowed": expected}


def _expected(error: ErrorDetails) -> str:
    """What would have been right, in words."""
    kind, context = error["type"], error.get("ctx", {})
    bounds = {
        "greater_than_equal": ("a number of at least {}", "ge"),
        "greater_than": ("a number above {}", "gt"),
        "less_than_equal": ("a number of at most {}", "le"),
        "less_than": ("a number below {}", "lt"),
        "string_too_short": ("text of at least {} characters", "min_length"),
        "string_too_long": ("text of at most {} characters", "max_length"),
    }
    if kind in bounds:
        words, limit = bounds[kind]
        return words.format(context.get(limit))
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern"))
        return _NAME_RULES.get(pattern, f"text that matches {pattern}")
    if kind == "literal_error":
        return f"one of {context.get('expected')}"
    return _EXPECTED.get(kind.split("_", 1)[0], error["msg"])


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys that a person may write at a place."""
    candidates: list[type[BaseModel]] = [model]
    for step in loc:
        known = next((one.model_fields[str(step)] for one in candidates if str(step) in one.model_fields), None)
        if known is not None:
            candidates = list(_models_in(known.annotation))
        else:  # perhaps the name of a union's branch
            candidates = [one for one in candidates if str(step) in _branch_names(one)] or candidates
    if not candidates:
        return set()
    current = candidates[0]
    keys = {item.alias or name for name, item in current.model_fields.items()}
    if current is BatchDeployment:
        keys |= set(DeploymentSettings.model_fields)
    return keys


def _branch_names(model: type[BaseModel]) -> tuple[str, ...]:
    """What pydantic may call a model as a branch of a union: its name, or what its ``type`` says."""
    kind = model.model_fields.get("type")
    return (model.__name__, *(get_args(kind.annotation) if kind is not None else ()))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _place(document: Document, key: Key) -> str:
    for length in range(len(key), 0, -1):
        if place := document.places.get(key[:length]):
            return place
    return document.name


def _dotted(key: Key) -> str:
    return ".".join(str(step) for step in key)


def _said(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value)
