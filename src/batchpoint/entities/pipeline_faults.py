"""What is wrong with a pipeline, told all at once and before anything runs. Pure: components are in place already.

What only the registry and the file system know (assets, computes, scripts) is looked for in ``operations/pipelines.py``
and told in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchpoint.entities.bindings import TRIGGER_TIME, Binding, binding_of, references, required
from batchpoint.entities.components import (
    DATA_TYPES,
    expanded,
    given_value,
    input_port,
    literal_type,
    output_path,
    output_type,
)
from batchpoint.entities.documents import suggestion
from batchpoint.entities.endpoints import size_in_bytes
from batchpoint.entities.jobs import LiteralValue
from batchpoint.entities.pipelines import (
    CommandStep,
    Component,
    DataBinding,
    InputPort,
    OutputBinding,
    ParallelStep,
    Pipeline,
    PipelineStep,
    Step,
    cycle_of,
)
from batchpoint.errors import InvalidEntityError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    place: str
    """Keys from the root of the pipeline: ``jobs.score.inputs.data``."""
    message: str
    """What is wrong, and what is allowed there."""


@dataclass(frozen=True)
class _Scope:
    """What the steps of one pipeline may refer to."""

    at: str
    """Place of the pipeline; empty for the outermost."""
    inputs: Mapping[str, str | None]
    """Name of each input → its type; None where it is not known."""
    values: Mapping[str, LiteralValue]
    """Of those that are literals, what they are, as far as it is known."""
    unset: frozenset[str]
    """Optional inputs that were not given."""
    outputs: dict[str, OutputBinding]
    jobs: Mapping[str, Step]


def faults_of(pipeline: Pipeline) -> list[Fault]:
    """Every fault in how the steps are joined and described. The pipeline names its steps itself (``as_steps``)."""
    values = {name: given_value(given) for name, given in pipeline.inputs.items()}
    return [*_input_faults(pipeline), *_scope_faults(_outermost(pipeline, values))]


def faults_of_component(component: Component) -> list[Fault]:
    """The same for a pipeline component, whatever it will be given."""
    given = {
        name: port if port.optional else port.model_copy(update=_anything(port))
        for name, port in component.inputs.items()
    }
    outputs = {name: OutputBinding(type=port.type) for name, port in component.outputs.items()}
    return list(_scope_faults(_outermost(Pipeline(inputs=given, outputs=outputs, jobs=component.jobs), {})))


def _outermost(pipeline: Pipeline, values: Mapping[str, object]) -> _Scope:
    inputs = {name: _type_given(given) for name, given in pipeline.inputs.items()}
    unset = frozenset(name for name, given in pipeline.inputs.items() if given_value(given) is None)
    steps = {name: expanded(step) for name, step in pipeline.jobs.items()}
    return _Scope("", inputs, _literals(values), unset, pipeline.outputs, steps)


def _literals(values: Mapping[str, object]) -> dict[str, LiteralValue]:
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}


def _anything(port: InputPort) -> dict[str, Any]:
    if port.type in DATA_TYPES:
        return {"path": port.path or "given"}
    samples: dict[str, LiteralValue] = {"string": "", "integer": 0, "number": 0.0, "boolean": False}
    return {"default": samples[port.type] if port.default is None else port.default}


def refuse(name: str, faults: Iterable[Fault]) -> None:
    """Raise what was found, if anything was.

    Raises:
        InvalidEntityError: with every fault; ``details['problems']`` holds ``place``, ``key`` and ``message`` of each.
    """
    problems = [{"place": fault.place, "key": fault.place, "message": fault.message} for fault in faults]
    if not problems:
        return
    head = f"{name} is not valid:" if len(problems) == 1 else f"{name} has {len(problems)} faults:"
    lines = [f"{problem['place']}: {problem['message']}" for problem in problems]
    raise InvalidEntityError("\n  ".join([head, *lines]), problems=problems)


def _input_faults(pipeline: Pipeline) -> Iterator[Fault]:
    """What is wrong with what the pipeline as a whole is given."""
    for name, given in pipeline.inputs.items():
        if not isinstance(given, InputPort):
            continue
        value = given_value(given)
        if value is None and not given.optional:
            wanted = "a path" if given.type in DATA_TYPES else "a value"
            yield Fault(f"inputs.{name}", f"the input is required, and {wanted} was not given.")
        elif value is not None and not isinstance(value, DataBinding) and (wrong := _wrong_value(value, given)):
            yield Fault(f"inputs.{name}", wrong)


def _scope_faults(scope: _Scope) -> Iterator[Fault]:
    yield from _cycle_faults(scope)
    for name, step in scope.jobs.items():
        at = f"{scope.at}jobs.{name}"
        yield from _content_faults(step, at)
        yield from _ports_faults(step, at)
        for port, given in step.inputs.items():
            yield from _refused(f"{at}.inputs.{port}", _step_input_faults, scope, name, port, given)
        yield from _output_faults(scope, name, at)
        if isinstance(step, PipelineStep):
            yield from _inner_faults(scope, step, at)
    yield from _written_faults(scope)


def _refused(place: str, check: Callable[..., Iterator[str]], *arguments: Any) -> Iterator[Fault]:
    """What a check finds, or the message that it raises."""
    try:
        yield from [Fault(place, message) for message in check(*arguments)]
    except InvalidEntityError as error:
        yield Fault(place, error.message)


def _cycle_faults(scope: _Scope) -> Iterator[Fault]:
    try:
        cycle = cycle_of(scope.jobs)
    except InvalidEntityError:
        return  # a binding that cannot be read is told at its own place
    if cycle:
        order = " → ".join(cycle)
        message = f"the steps wait for each other in a circle: {order}. Take one of these bindings away."
        yield Fault(f"{scope.at}jobs.{cycle[0]}", message)


def _step_input_faults(scope: _Scope, step_name: str, name: str, given: LiteralValue | DataBinding) -> Iterator[str]:
    port = input_port(scope.jobs[step_name], name)
    bound = binding_of(given.path if isinstance(given, DataBinding) else given)
    if bound is None:
        yield from _plain_faults(given, port)
    elif bound.kind == "parent_input":
        if bound.name not in scope.inputs:
            yield f"{bound} names no input of the pipeline. {_known(bound.name, scope.inputs, 'inputs')}"
        elif bound.name in scope.unset:
            if port is not None and not port.optional and port.default is None:
                yield f"{bound} is an optional input that was not given, and the step requires it."
        elif wrong := [*_mismatch(str(bound), scope.inputs[bound.name], port, given)]:
            yield from wrong
        elif port is not None and port.type not in DATA_TYPES and bound.name in scope.values:
            refused = _wrong_value(scope.values[bound.name], port)
            yield from [f"{bound}: {refused}"] if refused else []
    elif bound.kind == "step_output":
        yield from _edge_faults(scope, step_name, bound, port, given)
    else:
        yield f"{bound} is an output. Bind it to ${{{{parent.inputs.…}}}} or to the output of a step."


def _plain_faults(given: LiteralValue | DataBinding, port: InputPort | None) -> Iterator[str]:
    """Of an input that is given as it is, not bound."""
    text = given.path if isinstance(given, DataBinding) else given
    if isinstance(text, str) and (macros := [each for each in references(text) if each.kind == "macro"]):
        yield _no_macro(macros[0])
    if isinstance(given, DataBinding):
        yield from _mismatch(given.path, given.type, port, None)
    elif port is not None and (wrong := _wrong_value(given, port)):
        yield wrong


def _edge_faults(
    scope: _Scope, step_name: str, bound: Binding, port: InputPort | None, given: LiteralValue | DataBinding
) -> Iterator[str]:
    assert bound.step is not None, "an output of a step names the step"
    source = scope.jobs.get(bound.step)
    if source is None:
        yield f"{bound} names no step. {_known(bound.step, set(scope.jobs) - {step_name}, 'steps')}"
    elif isinstance(source.component, str):
        return  # it could not be found, and nobody knows what it puts out
    elif bound.name not in source.outputs:
        yield f"step {bound.step} has no output '{bound.name}'. {_known(bound.name, source.outputs, 'outputs')}"
    else:
        yield from _mismatch(str(bound), output_type(source, bound.name, scope.outputs), port, given)


def _mismatch(
    said: str, found: str | None, port: InputPort | None, given: LiteralValue | DataBinding | None
) -> Iterator[str]:
    """Of the type that comes, against the types that the step's component and the binding itself declare."""
    declared = given.type if isinstance(given, DataBinding) else None
    for wanted in dict.fromkeys((declared, port.type if port else None)):
        if wanted is not None and found is not None and not _fits(found, wanted):
            yield f"{said} is {_article(found)}, and the input takes {_article(wanted)}."


def _fits(found: str, wanted: str) -> bool:
    if found == wanted or (found, wanted) in {("integer", "number"), ("mltable", "uri_folder")}:
        return True
    # A model is a folder, or a file, to whoever asks for one; its own kinds are told apart.
    return found in {"mlflow_model", "custom_model", "triton_model"} and wanted in {"uri_folder", "custom_model"}


def _article(type_name: str) -> str:
    kind = "data of type" if type_name in DATA_TYPES else "a literal of type"
    return f"{kind} {type_name}"


def _wrong_value(value: LiteralValue, port: InputPort) -> str | None:
    """Why a literal cannot be what a port declares; None when it can."""
    if port.type in DATA_TYPES:
        if isinstance(value, str):
            return None  # a path, or a reference to an asset, in the short form
        return f"{value!r} is {_article(literal_type(value))}, and the input takes {_article(port.type)}."
    found = literal_type(value)
    if found != port.type and (found, port.type) != ("integer", "number") and port.type != "string":
        return f"{value!r} is {_article(found)}, and the input takes {_article(port.type)}."
    if port.enum is not None and value not in port.enum:
        return f"{value!r} is not allowed. Allowed: {', '.join(map(str, port.enum))}."
    if isinstance(value, int | float) and not isinstance(value, bool):
        if port.min is not None and value < port.min:
            return f"{value} is below the least that is allowed, {port.min:g}."
        if port.max is not None and value > port.max:
            return f"{value} is above the most that is allowed, {port.max:g}."
    return None


def _ports_faults(step: Step, at: str) -> Iterator[Fault]:
    """What the step's component asks for and was not given, or does not know."""
    component = step.component
    if not isinstance(component, Component):
        return
    called = component.name if component.version is None else component.reference
    for name in step.inputs.keys() - component.inputs.keys():
        message = f"component {called} has no input '{name}'. {_known(name, component.inputs, 'inputs')}"
        yield Fault(f"{at}.inputs.{name}", message)
    for name in step.outputs.keys() - component.outputs.keys():
        message = f"component {called} has no output '{name}'. {_known(name, component.outputs, 'outputs')}"
        yield Fault(f"{at}.outputs.{name}", message)
    for name, port in component.inputs.items():
        if name not in step.inputs and not port.optional:
            message = f"component {called} requires this input of type {port.type}, and it was not given."
            yield Fault(f"{at}.inputs.{name}", message)


def _output_faults(scope: _Scope, step_name: str, at: str) -> Iterator[Fault]:
    step = scope.jobs[step_name]

    def check(name: str) -> Iterator[str]:
        path = output_path(step.outputs[name])
        bound = binding_of(path)
        if bound is None:
            if TRIGGER_TIME in {each.name for each in references(path or "")}:
                yield f"{Binding('macro', TRIGGER_TIME)} has no meaning here. Write it in an output of the pipeline."
        elif bound.kind != "parent_output":
            yield f"{bound} is no output of the pipeline. Bind it to ${{{{parent.outputs.…}}}}, or give a path."
        elif bound.name not in scope.outputs:
            yield f"{bound} names no output of the pipeline. {_known(bound.name, scope.outputs, 'outputs')}"
        else:
            wanted, found = scope.outputs[bound.name], output_type(step, name, scope.outputs)
            if "type" in wanted.model_fields_set and not _fits(found, wanted.type):
                yield f"the step writes {_article(found)}, and {bound} is {_article(wanted.type)}."

    for name in step.outputs:
        yield from _refused(f"{at}.outputs.{name}", check, name)


def _written_faults(scope: _Scope) -> Iterator[Fault]:
    """Every output of the pipeline is written by one step."""
    writers: dict[str, list[str]] = {name: [] for name in scope.outputs}
    for step_name, step in scope.jobs.items():
        for given in step.outputs.values():
            try:
                bound = binding_of(output_path(given))
            except InvalidEntityError:
                continue  # told at its own place
            if bound is not None and bound.kind == "parent_output" and bound.name in writers:
                writers[bound.name].append(step_name)
    for name, found in writers.items():
        binding = f"${{{{parent.outputs.{name}}}}}"
        if not found:
            yield Fault(f"{scope.at}outputs.{name}", f"no step writes it. Bind an output of a step to {binding}.")
        if len(found) > 1:
            message = f"several steps write it: {', '.join(found)}. Bind one of them alone to {binding}."
            yield Fault(f"{scope.at}outputs.{name}", message)


def _inner_faults(scope: _Scope, step: PipelineStep, at: str) -> Iterator[Fault]:
    """The faults of a pipeline inside the pipeline."""
    ports = step.component.inputs if isinstance(step.component, Component) else {}
    inputs = {name: _type_in(scope, given) for name, given in step.inputs.items()}
    inputs |= {name: port.type for name, port in ports.items()}
    values = _literals({name: _value_in(scope, given) for name, given in step.inputs.items()})
    unset = frozenset(ports.keys() - step.inputs.keys())
    outputs = {
        name: OutputBinding.model_validate({"type": output_type(step, name, scope.outputs)}) for name in step.outputs
    }
    jobs = {name: expanded(each) for name, each in step.jobs.items()}
    yield from _scope_faults(_Scope(f"{at}.", inputs, values, unset, outputs, jobs))


def _type_in(scope: _Scope, given: LiteralValue | DataBinding) -> str | None:
    """The type of what a step is given, as far as it can be known."""
    try:
        bound = binding_of(given.path if isinstance(given, DataBinding) else given)
    except InvalidEntityError:
        return None
    if bound is None:
        return _type_given(given)
    if bound.kind == "parent_input":
        return scope.inputs.get(bound.name)
    source = scope.jobs.get(bound.step or "")
    return output_type(source, bound.name, scope.outputs) if source and bound.name in source.outputs else None


def _value_in(scope: _Scope, given: LiteralValue | DataBinding) -> LiteralValue | DataBinding | None:
    """What a step is given, where it is known before anything has run."""
    try:
        bound = binding_of(given.path if isinstance(given, DataBinding) else given)
    except InvalidEntityError:
        return None
    return given if bound is None else scope.values.get(bound.name) if bound.kind == "parent_input" else None


def _type_given(given: LiteralValue | InputPort | DataBinding) -> str | None:
    return given.type if isinstance(given, InputPort | DataBinding) else literal_type(given)


def _content_faults(step: Step, at: str) -> Iterator[Fault]:
    """What a step of its kind needs, and what its texts refer to."""
    if isinstance(step.component, str):
        return  # it could not be found, which is told there
    if isinstance(step, CommandStep):
        if not step.command:
            yield Fault(f"{at}.command", "the step has no command. Give 'command', or a 'component' that has one.")
        else:
            yield from _refused(f"{at}.command", _text_faults, step, step.command)
    elif isinstance(step, ParallelStep):
        yield from _parallel_faults(step, at)
    elif not step.jobs:
        yield Fault(f"{at}.jobs", "the pipeline has no steps. Give 'jobs', or a 'component' of type pipeline.")


def _parallel_faults(step: ParallelStep, at: str) -> Iterator[Fault]:
    task = step.task
    if task is None:
        yield Fault(f"{at}.task", "the step has no task. Give 'task' with 'code' and 'entry_script'.")
    else:
        if step.batchpoint.model_map is not None:
            yield Fault(f"{at}.batchpoint.model_map", "only a deployment has a model map. Invoke its endpoint instead.")
        needs_script = task.type != "model" or task.model is None
        for key in ("code", "entry_script"):
            if needs_script and not getattr(task, key):
                yield Fault(
                    f"{at}.task.{key}", f"key '{key}' is missing: the script that is called for each mini-batch."
                )
        if task.program_arguments:
            yield from _refused(f"{at}.task.program_arguments", _text_faults, step, task.program_arguments)
        if task.append_row_to:
            place = f"{at}.task.append_row_to"
            yield from _refused(place, _one_of, task.append_row_to, "output", step.outputs)
    if not step.input_data:
        yield Fault(f"{at}.input_data", "key 'input_data' is missing: write ${{inputs.<name>}} of the input to cut.")
    else:
        yield from _refused(f"{at}.input_data", _one_of, step.input_data, "input", step.inputs)
    yield from _refused(f"{at}.mini_batch_size", _size_faults, step.mini_batch_size)


def _one_of(text: str, kind: str, ports: Mapping[str, object]) -> Iterator[str]:
    """Of a text that has to be one binding to an input, or an output, of the step."""
    found = references(text)
    if len(found) != 1 or found[0].kind != kind or str(found[0]) != text.replace(" ", ""):
        yield f"{text!r} is not the binding of an {kind}. Write ${{{{{kind}s.<name>}}}}."
    elif found[0].name not in ports:
        yield f"{found[0]} names no {kind} of the step. {_known(found[0].name, ports, f'{kind}s')}"
    elif kind == "input" and _is_literal(ports[found[0].name]):
        yield f"{found[0]} is a literal, and only data can be cut into mini-batches."


def _is_literal(given: object) -> bool:
    return not isinstance(given, str | DataBinding)


def _size_faults(size: str | int | None) -> Iterator[str]:
    if size is None or size_in_bytes(size):
        return
    text = str(size).strip()
    if not text.isdigit() or int(text) == 0:
        yield f"{size!r} is no size of a mini-batch. Write a number of files such as 10, or a size such as 10mb."


def _text_faults(step: Step, text: str) -> Iterator[str]:
    """What a command or its arguments name that the step does not have."""
    component = step.component if isinstance(step.component, Component) else None
    ports = component.inputs if component else {}
    declared = {*step.inputs, *ports}
    unset = {name for name, port in ports.items() if port.optional and name not in step.inputs}
    outside = {each.name for each in required(text) if each.kind == "input"}
    for each in dict.fromkeys(references(text)):
        if each.kind == "input" and each.name not in declared:
            yield f"{each} names no input of the step. {_known(each.name, declared, 'inputs')}"
        elif each.kind == "input" and each.name in unset & outside:
            yield f"{each} is optional and was not given. Write it in an optional segment: $[[ … {each} ]]."
        elif each.kind == "output" and each.name not in step.outputs:
            yield f"{each} names no output of the step. {_known(each.name, step.outputs, 'outputs')}"
        elif each.kind == "macro":
            yield _no_macro(each)
        elif each.kind not in {"input", "output"}:
            yield f"{each} speaks of the pipeline. Bind it to an input of the step, and name that one here."


def _no_macro(macro: Binding) -> str:
    return f"{macro} has no meaning here. Write it in an input of the pipeline, and bind one of the step to that."


def _known(given: str, names: Iterable[str], kind: str) -> str:
    return suggestion(given, names) or f"It has no {kind}."
