"""Pipeline and command jobs: what runs, as the wire says it and as we do.

A job is told in camelCase, its steps in snake_case; otherwise they share their words. Every literal travels as text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchpoint.entities.assets import CURATED_ENVIRONMENT
from batchpoint.entities.documents import read_body
from batchpoint.entities.endpoints import OPTION, options_of
from batchpoint.entities.jobs import Job, LiteralValue
from batchpoint.entities.pipeline_deployments import ONLY_STEP, CommandJob, is_command
from batchpoint.entities.pipelines import ANONYMOUS, Pipeline
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.places import asset_reference
from batchpoint.server.azureml.endpoints import OUTPUT_FORMAT
from batchpoint.server.azureml.mapping import DURATION, NUMBER, TEXTS, Field, Form, from_wire, to_wire, words
from batchpoint.server.azureml.wire import Scope, asset_form, name_form
from batchpoint.server.context import Context
from batchpoint.server.given_paths import check_local_paths

Words = tuple[Field, ...]


def submitted(context: Context, scope: Scope, name: str, wire: Mapping[str, Any], *, by: str) -> Job:
    """Start the job that a client put under ``name``. The same once more gives the job that was made then.

    Raises:
        InvalidEntityError: with every fault of it.
        AlreadyExistsError: there is another job of that name.
        ConflictError: the same, and it was put there by a client.
    """
    pipeline = pipeline_of(scope, wire, name=name)
    check_local_paths(context, "job", pipeline)
    asked = json.dumps(wire, sort_keys=True)
    return context.workspace.pipelines.submit(
        pipeline,
        by=by,
        idempotency_key=f"azureml:{name}",
        request_hash=hashlib.sha256(asked.encode()).hexdigest(),
    )


def pipeline_of(scope: Scope, wire: Mapping[str, Any], *, name: str | None = None) -> Pipeline:
    """The pipeline that the definition of a job says; a command is a pipeline of one step.

    Raises:
        InvalidEntityError: it is of another type, or not understood; all faults are named.
    """
    kind = str(wire.get("jobType"))
    named = {} if name is None else {"name": name}
    if kind.lower() == "pipeline":
        return read_body(Pipeline, {**from_wire(_pipeline_words(scope), wire), **named})
    if kind.lower() == "command":
        return read_body(CommandJob, {**from_wire(_command_words(scope), wire), **named}).as_pipeline()
    raise InvalidEntityError(f"jobType is {kind!r}, and such jobs are not run here; known: Pipeline, Command.")


def definition_of(scope: Scope, job: Job) -> dict[str, Any]:
    """What the wire says of what a pipeline job, or a command job, runs: type, steps, inputs, outputs, settings."""
    known = {key: getattr(job, key) for key in ("display_name", "description", "experiment_name", "tags", "properties")}
    return definition(scope, {**(job.pipeline or {}), **known})


def definition(scope: Scope, body: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the body of a pipeline."""
    steps = body.get("jobs") or {}
    if is_command(steps):
        step = {**steps[ONLY_STEP], "inputs": {}, "outputs": {}}
        own = {key: body[key] for key in _JOBS_OWN & body.keys()}
        said = to_wire(_command_words(scope), {**step, **own})
        return {"jobType": "Command", "inputs": {}, "outputs": {}, "tags": {}, "properties": {}, **said}
    said = to_wire(_pipeline_words(scope), body)
    return {"jobType": "Pipeline", "jobs": {}, "inputs": {}, "outputs": {}, "tags": {}, "properties": {}, **said}


def steps_form(scope: Scope) -> Form:
    """Steps by name."""
    return Form(
        lambda steps: {name: _write_step(scope, name, step) for name, step in steps.items()},
        lambda steps: {name: _read_step(scope, step) for name, step in steps.items()},
    )


def job_ports(scope: Scope) -> Words:
    """Inputs and outputs of a job."""
    return _ports(scope, camel)


def camel(fields: Sequence[Field]) -> Words:
    """The same fields for a body whose keys are in camelCase."""
    return tuple(Field(field.ours, _camel(field.wire), field.form) for field in fields)


def whole(number: float) -> float:
    """``1`` for ``1.0``: the client takes no ``1.0`` for a whole number."""
    return int(number) if float(number).is_integer() else number


PARTITION_KEYS = Form(json.dumps, lambda given: json.loads(given) if isinstance(given, str) else given)
"""A list, which the wire carries as JSON in a text."""
MINI_BATCH_SIZE = Form(read=lambda size: None if str(size) == "0" else size)
"""A number or a size; the client writes 0 where there is none, as for a step that is cut by partition keys."""
LOGGING_LEVEL = Form(lambda level: str(level).upper(), lambda level: str(level).lower())

RESOURCES = (
    Field("resources.instance_count", "resources.instance_count", NUMBER),
    Field("resources.instance_type", "resources.instance_type"),
    Field("resources.properties", "resources.properties", Form(read=lambda given: given or None)),
    Field("resources.shm_size", "resources.shm_size"),
    Field("resources.docker_args", "resources.docker_args"),
)
SPLITTING = (
    Field("input_data", "input_data"),
    Field("partition_keys", "partition_keys", PARTITION_KEYS),
    Field("max_concurrency_per_instance", "max_concurrency_per_instance", NUMBER),
    Field("retry_settings.max_retries", "retry_settings.max_retries", NUMBER),
    Field("retry_settings.timeout", "retry_settings.timeout", Form(whole, DURATION.read)),
    Field("error_threshold", "error_threshold", NUMBER),
    Field("mini_batch_error_threshold", "mini_batch_error_threshold", NUMBER),
    Field("logging_level", "logging_level", LOGGING_LEVEL),
)
"""How a parallel step, or a component of one, cuts its data and takes failures."""


def task_words(scope: Scope) -> Words:
    """What a parallel step calls."""
    return (
        Field("task.type", "task.type"),
        Field("task.code", "task.code", prefixed(scope, "codes")),
        Field("task.entry_script", "task.entry_script"),
        Field("task.environment", "task.environment", prefixed(scope, "environments")),
        Field("task.program_arguments", "task.program_arguments"),
        Field("task.append_row_to", "task.append_row_to"),
        Field("task.model", "task.model", prefixed(scope, "models")),
    )


def prefixed(scope: Scope, kind: str) -> Form:
    """A reference to an asset, whose id has ``azureml:`` before it; what is no reference travels as it is."""
    form = asset_form(scope, kind)

    def write(given: Any) -> Any:
        if isinstance(given, Mapping):  # declared in place
            return f"azureml:{scope.id_of(kind, given.get('name', ANONYMOUS), 'versions', given.get('version') or '1')}"
        return given if asset_reference(given) is None else f"azureml:{form.write(given)}"

    def read(given: str) -> Any:
        is_elsewhere = CURATED_ENVIRONMENT.match(given) or asset_reference(given) is None
        return given if is_elsewhere else form.read(given)

    return Form(write, read)


def with_options(body: dict[str, Any], *, is_whole: bool) -> dict[str, Any]:
    """A parallel step or component with the options of ours that its properties hold (``batchpoint.<key>``).

    Its rows are written as Azure ML does unless they say otherwise: readers here expect that. A step with a component
    (``is_whole`` is false) and no options of its own has those of the component.
    """
    properties = body.get("properties", {})
    if body.get("type") != "parallel" or not (is_whole or any(key.startswith(OPTION) for key in properties)):
        return body
    properties = {OUTPUT_FORMAT: "azureml", **properties}
    return {**body, "properties": properties, "batchpoint": options_of({}, properties)}


# ── whole jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────

_JOBS_OWN = frozenset({"display_name", "experiment_name", "description", "tags", "properties", "inputs", "outputs"})
"""Keys of a pipeline that are those of the command job that it stands for."""


def _described() -> Words:
    return (
        Field("display_name", "displayName"),
        Field("description", "description"),
        Field("experiment_name", "experimentName", Form(read=lambda given: given or None)),
        Field("tags", "tags", TEXTS),
        Field("properties", "properties", TEXTS),
    )


def _pipeline_words(scope: Scope) -> Words:
    computes = name_form(scope, "computes")
    return (
        *_described(),
        Field("compute", "computeId", computes),
        Field("component", "componentId", _component(scope)),
        Field("identity", "identity"),
        Field("settings.default_compute", "settings.default_compute", computes),
        Field("settings.default_datastore", "settings.default_datastore", name_form(scope, "datastores")),
        Field("settings.continue_on_step_failure", "settings.continue_on_step_failure"),
        Field("settings.force_rerun", "settings.force_rerun"),
        *job_ports(scope),
        Field("jobs", "jobs", steps_form(scope)),
    )


def _command_words(scope: Scope) -> Words:
    return (
        *_described(),
        Field("compute", "computeId", name_form(scope, "computes")),
        Field("component", "componentId", _component(scope)),
        Field("command", "command"),
        Field("code", "codeId", _plain(prefixed(scope, "codes"))),
        Field("environment", "environmentId", _plain(prefixed(scope, "environments"))),
        Field("environment_variables", "environmentVariables", TEXTS),
        *camel(RESOURCES),
        Field("limits.timeout", "limits.timeout", _WHOLE_DURATION),
        Field("distribution", "distribution"),
        Field("identity", "identity"),
        *job_ports(scope),
    )


# ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _step_words(scope: Scope) -> Words:
    return (
        Field("type", "type"),
        Field("name", "name"),
        Field("display_name", "display_name"),
        Field("comment", "comment"),
        Field("tags", "tags", TEXTS),
        Field("properties", "properties", TEXTS),
        Field("component", "componentId", _component(scope)),
        Field("compute", "computeId", name_form(scope, "computes")),
        *_ports(scope, tuple),
        Field("environment_variables", "environment_variables", TEXTS),
        *RESOURCES,
        Field("limits.timeout", "limits.timeout", _WHOLE_DURATION),
        Field("distribution", "distribution"),
        Field("identity", "identity"),
        Field("mini_batch_size", "mini_batch_size", MINI_BATCH_SIZE),
        *SPLITTING,
        *task_words(scope),
    )


def _read_step(scope: Scope, wire: Any) -> Any:
    if not isinstance(wire, Mapping):
        return wire
    return with_options(from_wire(_step_words(scope), wire), is_whole="componentId" not in wire)


def _write_step(scope: Scope, name: str, step: Mapping[str, Any]) -> dict[str, Any]:
    component = step.get("component") or {"name": ANONYMOUS, "version": name}
    said = to_wire(_step_words(scope), {**step, "name": name, "component": component})
    return {"type": "command", "inputs": {}, "outputs": {}, **said}


def _component(scope: Scope) -> Form:
    """A component by its id; one in place, as a job keeps it, by the version that it is registered as."""
    form = asset_form(scope, "components")

    def write(given: Any) -> str:
        if isinstance(given, Mapping):
            return scope.id_of("components", given["name"], "versions", given.get("version") or "1")
        return str(form.write(given))

    return Form(write, form.read)


# ── inputs and outputs ──────────────────────────────────────────────────────────────────────────────────────────────

_INPUT_MODE = words(
    ro_mount="ReadOnlyMount", download="Download", direct="Direct", eval_mount="EvalMount", eval_download="EvalDownload"
)
_OUTPUT_MODE = words(rw_mount="ReadWriteMount", upload="Upload", direct="Direct")
_OTHER_TYPES = {
    "urifile": "uri_file", "urifolder": "uri_folder", "mlflowmodel": "mlflow_model", "custommodel": "custom_model",
    "tritonmodel": "triton_model",
}  # fmt: skip
_DATA_TYPE = Form(read=lambda given: _OTHER_TYPES.get(str(given).lower(), given))
"""Types have two spellings on the wire."""


def _ports(scope: Scope, spelled: Callable[[Sequence[Field]], Words]) -> Words:
    """Inputs and outputs of a job or a step, with the keys of each in the spelling of their surroundings."""
    data = spelled(
        (
            Field("type", "job_input_type", _DATA_TYPE),
            Field("path", "uri", _data(scope)),
            Field("mode", "mode", _INPUT_MODE),
        )
    )
    is_job = data[0].wire == "jobInputType"
    names = ("assetName", "assetVersion") if is_job else ("name", "version")
    place = spelled(
        (
            Field("type", "job_output_type", _DATA_TYPE),
            Field("path", "uri"),
            Field("mode", "mode", _OUTPUT_MODE),
            Field("name", names[0]),
            Field("version", names[1]),
        )
    )
    return (
        Field("inputs", "inputs", _each(_input(data, data[0].wire))),
        Field("outputs", "outputs", _each(_output(place, place[0].wire))),
    )


def _each(form: Form) -> Form:
    def all_of(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def converted(given: Mapping[str, Any]) -> dict[str, Any]:
            found = {name: convert(value) for name, value in given.items()}
            return {name: value for name, value in found.items() if value is not None}

        return converted

    return Form(all_of(form.write), all_of(form.read))


def _input(fields: Words, type_key: str) -> Form:
    def read(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if str(given.get(type_key)).lower() != "literal":
            return from_wire(fields, given)
        mode = from_wire(fields[2:], given)
        return {"path": given.get("value"), **mode} if mode else given.get("value")

    def write(given: Any) -> dict[str, Any] | None:
        if not isinstance(given, Mapping):
            return {type_key: "literal", "value": text_of(given)}
        path = given.get("path")
        if path is None:  # a literal as it is declared, with its type
            default = given.get("default")
            return None if default is None else {type_key: "literal", "value": text_of(default)}
        if "${{parent." in path:
            return {type_key: "literal", "value": path, **to_wire(fields[2:], given)}
        return {type_key: "uri_folder", **to_wire(fields, given)}

    return Form(write, read)


def _output(fields: Words, type_key: str) -> Form:
    def read(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if str(given.get("type")).lower() != "literal":
            return from_wire(fields, given)
        mode = from_wire(fields[2:3], given)
        return {"path": given.get("value"), **mode} if mode else given.get("value")

    def write(given: Any) -> dict[str, Any]:
        path = given.get("path") if isinstance(given, Mapping) else given
        if "${{parent." in str(path):
            return {"type": "literal", "value": path, **to_wire(fields[2:3], given if path != given else {})}
        return {type_key: "uri_folder", **to_wire(fields, given if path != given else {"path": path})}

    return Form(write, read)


def text_of(value: LiteralValue) -> str:
    """A literal as the client writes it."""
    return value if isinstance(value, str) else str(value)


def _data(scope: Scope) -> Form:
    """The place of data: an asset by its id, any other place as it is."""
    form = asset_form(scope, "data")
    return Form(
        lambda path: path if asset_reference(path) is None else form.write(path),
        lambda path: path if asset_reference(path) is None else form.read(path),
    )


def _plain(form: Form) -> Form:
    """The same id without ``azureml:`` before it."""
    return Form(lambda given: str(form.write(given)).removeprefix("azureml:"), form.read)


_WHOLE_DURATION = Form(DURATION.write, lambda given: int(DURATION.read(given)))


def _camel(path: str) -> str:
    first, *others = path.split("_")
    return first + "".join(other.capitalize() for other in others)
