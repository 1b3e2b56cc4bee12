"""What a step is once its component is taken into account: its ports and their types, and what it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from batchpoint.entities.bindings import Binding, binding_of
from batchpoint.entities.jobs import LiteralValue
from batchpoint.entities.pipelines import (
    CommandStep,
    Component,
    DataBinding,
    InputPort,
    OutputBinding,
    OutputPort,
    ParallelStep,
    Pipeline,
    PipelineStep,
    Step,
)
from batchpoint.errors import InvalidEntityError

DATA_TYPES = frozenset({"uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"})

STEP_KINDS: dict[str, type[CommandStep | ParallelStep | PipelineStep]] = {
    "command": CommandStep,
    "parallel": ParallelStep,
    "pipeline": PipelineStep,
}

_OF_STEP_ALONE = frozenset(
    {"type", "name", "component", "inputs", "outputs", "compute", "environment_variables", "is_deterministic"}
    | {"description", "tags", "properties", "display_name", "comment"}
)
"""Keys of a step that its component does not fill in as they are."""


def expanded(step: Step) -> Step:
    """The step with what its component says, where the step itself says nothing; its inputs with their defaults.

    A step whose component is a mere reference, or that has none, stays as it is.
    """
    component = step.component
    if not isinstance(component, Component):
        return step
    kind = STEP_KINDS[component.type]
    own = {key: getattr(step, key) for key in step.model_fields_set - {"type"} if key in kind.model_fields}
    shared = (kind.model_fields.keys() & Component.model_fields.keys()) - _OF_STEP_ALONE
    given: dict[str, Any] = {key: getattr(component, key) for key in shared} | own
    given["inputs"] = _defaults(component.inputs) | step.inputs
    given["outputs"] = {name: OutputBinding(type=port.type) for name, port in component.outputs.items()} | step.outputs
    if "environment_variables" in kind.model_fields:
        own_variables = getattr(step, "environment_variables", {})
        given["environment_variables"] = component.environment_variables | own_variables
    if step.is_deterministic is None:
        given["is_deterministic"] = component.is_deterministic
    return kind(**given)


def as_steps(pipeline: Pipeline) -> Pipeline:
    """The pipeline with the steps, inputs and outputs of its component; as it is when it names its steps itself."""
    component = pipeline.component
    if not isinstance(component, Component):
        return pipeline
    inputs: dict[str, LiteralValue | InputPort | DataBinding] = {**component.inputs}
    for name, given in pipeline.inputs.items():
        inputs[name] = _of_port(component.inputs.get(name), given)
    outputs = {name: OutputBinding(type=port.type) for name, port in component.outputs.items()} | pipeline.outputs
    changes = {"component": None, "jobs": component.jobs, "inputs": inputs, "outputs": outputs}
    return pipeline.model_copy(update=changes)


def input_port(step: Step, name: str) -> InputPort | None:
    """The input as the step's component declares it."""
    return step.component.inputs.get(name) if isinstance(step.component, Component) else None


def output_type(step: Step, name: str, of_parent: dict[str, OutputBinding]) -> str:
    """The type of a step's output: as its component says, as it says itself, as the pipeline's output that it is bound
    to says; else a folder.

    The one file that a parallel step collects its rows in may be called a table by the step and a file by the pipeline:
    it is a file then, as on Azure.
    """
    given = step.outputs.get(name)
    bound = binding_of(output_path(given))
    in_parent = of_parent.get(bound.name) if bound is not None and bound.kind == "parent_output" else None
    own = None
    if isinstance(step.component, Component) and name in step.component.outputs:
        own = step.component.outputs[name].type
    elif isinstance(given, OutputBinding) and "type" in given.model_fields_set:
        own = given.type
    if in_parent is None:
        return own or "uri_folder"
    is_called_a_file = in_parent.type == "uri_file" and own == "mltable" and _collects_rows(step, name)
    return in_parent.type if own is None or is_called_a_file else own


def _collects_rows(step: Step, name: str) -> bool:
    """Whether what a parallel step's script returns is collected in this output."""
    task = step.task if isinstance(step, ParallelStep) else None
    return task is not None and (task.append_row_to or "").replace(" ", "") == str(Binding("output", name))


def output_path(given: str | OutputBinding | None) -> str | None:
    """What an output of a step says about its place: a binding, an address or nothing."""
    return given.path if isinstance(given, OutputBinding) else given


def given_value(given: LiteralValue | InputPort | DataBinding) -> LiteralValue | DataBinding | None:
    """What an input of a pipeline is: a literal, data, or None when nothing was given and there is no default."""
    if not isinstance(given, InputPort):
        return given
    if given.path is not None:
        return DataBinding.model_validate({"type": given.type, "path": given.path, "mode": given.mode})
    return given.default


def literal_type(value: LiteralValue) -> str:
    """``boolean``, ``integer``, ``number`` or ``string``."""
    if isinstance(value, bool):
        return "boolean"
    return {int: "integer", float: "number"}.get(type(value), "string")


def as_typed(given: LiteralValue, wanted: str) -> LiteralValue:
    """The same, but a text that is none of the wanted type stays as it is, to be told with the other faults."""
    if not isinstance(given, str) or wanted in DATA_TYPES:
        return given
    try:
        return typed(given, InputPort.model_validate({"type": wanted}))
    except ValueError:
        return given


def typed_by_steps(
    inputs: Mapping[str, LiteralValue | InputPort | DataBinding], steps: Iterable[Step]
) -> dict[str, LiteralValue | InputPort | DataBinding]:
    """The inputs of a pipeline, texts read as what the components that they are bound to take.

    Azure ML's clients send every literal as text. What is a text to one component stays a text for all.
    """
    wanted: dict[str, set[str]] = {}
    for step in steps:
        for name, value in step.inputs.items():
            port, bound = input_port(step, name), _parent_input(value)
            if port is not None and bound is not None:
                wanted.setdefault(bound, set()).add(port.type)
    one = {name: next(iter(types)) for name, types in wanted.items() if len(types) == 1}
    return {
        name: as_typed(given, one[name]) if isinstance(given, str) and name in one else given
        for name, given in inputs.items()
    }


def _parent_input(given: LiteralValue | DataBinding) -> str | None:
    """The input of the pipeline that an input of a step is bound to."""
    try:
        bound = binding_of(given.path if isinstance(given, DataBinding) else given)
    except InvalidEntityError:
        return None  # told by ``pipeline_faults``
    return bound.name if bound is not None and bound.kind == "parent_input" else None


def typed(given: LiteralValue, port: InputPort) -> LiteralValue:
    """A literal as its input declares it; callers may send numbers and truth values as text, and text as either.

    Raises:
        ValueError: it is none of that type; the message says so.
    """
    if port.type in DATA_TYPES:
        raise ValueError(f'the input takes data of type {port.type}, and {given!r} was given; write {{"path": …}}.')
    if port.type == "string":
        return given if isinstance(given, str) else str(given).lower() if isinstance(given, bool) else str(given)
    if not isinstance(given, str):
        return given  # whether it fits is told with the other faults of the pipeline
    try:
        return int(given) if port.type == "integer" else _finite(given) if port.type == "number" else _truth(given)
    except ValueError:
        raise ValueError(f"the input takes a value of type {port.type}, which {given!r} is not.") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _truth(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.strip().lower() not in known:
        raise ValueError(text)
    return known[text.strip().lower()]


def _of_port(
    port: InputPort | None, given: LiteralValue | InputPort | DataBinding
) -> LiteralValue | InputPort | DataBinding:
    """What an input is given, in the type that it is declared with."""
    if port is None or isinstance(given, InputPort):
        return given
    if isinstance(given, DataBinding):
        return given if given.type or port.type not in DATA_TYPES else given.model_copy(update={"type": port.type})
    if port.type in DATA_TYPES and isinstance(given, str):
        return DataBinding.model_validate({"type": port.type, "path": given})
    return port.model_copy(update={"default": as_typed(given, port.type)})


def _defaults(ports: dict[str, InputPort]) -> dict[str, LiteralValue | DataBinding]:
    found = {name: given_value(port) for name, port in ports.items()}
    return {name: value for name, value in found.items() if value is not None}


DECLARED_NAME = "declared_name"
"""The property that holds the name of a component that was declared in place: it is registered under another."""


def declared_name(component: Component) -> str:
    """What a component calls itself."""
    return component.properties.get(DECLARED_NAME, component.name)


def as_component(pipeline: Pipeline, name: str) -> Component:
    """A pipeline component that does what the pipeline does; what the pipeline was given are its defaults."""
    inputs = {key: _port(given) for key, given in pipeline.inputs.items()}
    outputs = {key: OutputPort(type=given.type, mode=given.mode) for key, given in pipeline.outputs.items()}
    return Component(
        name=name,
        type="pipeline",
        display_name=pipeline.display_name,
        description=pipeline.description,
        inputs=inputs,
        outputs=outputs,
        jobs=pipeline.jobs,
    )


def _port(given: LiteralValue | InputPort | DataBinding) -> InputPort:
    if isinstance(given, InputPort):
        return given
    if isinstance(given, DataBinding):
        return InputPort(type=given.type or "uri_folder", path=given.path, mode=given.mode)
    return InputPort.model_validate({"type": literal_type(given), "default": given})


_SAID_ABOUT_IT = frozenset(
    {"name", "version", "description", "tags", "properties", "display_name", "archived"}
    | {"created_at", "modified_at", "created_by"}
)
"""Keys of a component that do not change what it does."""


def definition(component: Component) -> dict[str, Any]:
    """All that decides what the component does, as JSON."""
    body = {key: value for key, value in component.body().items() if key not in _SAID_ABOUT_IT}
    return body | ({"jobs": _definitions(component.jobs)} if component.jobs else {})


def _definitions(jobs: Mapping[str, Step]) -> dict[str, Any]:
    found = {}
    for name, step in jobs.items():
        body = step.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        if isinstance(step.component, Component):
            body["component"] = definition(step.component)
        if isinstance(step, PipelineStep) and step.jobs:
            body["jobs"] = _definitions(step.jobs)
        found[name] = body
    return found
