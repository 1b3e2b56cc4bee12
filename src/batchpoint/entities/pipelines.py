"""Pipelines: steps, components, what they read and write, and how the output of one is the input of another.

Keys and defaults are those of Azure ML's YAML files (CLI v2 pipeline job, command, parallel and pipeline component
schemas). Our own keys of a parallel step live under ``batchpoint:``, as in a deployment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from batchpoint.entities.assets import Environment, Model
from batchpoint.entities.base import Asset, Entity, JobName, Part
from batchpoint.entities.bindings import binding_of
from batchpoint.entities.endpoints import (
    LoggingLevel,
    ResourceConfiguration,
    RetrySettings,
    ScoringOptions,
)
from batchpoint.entities.jobs import InputType, JobStatus, LiteralValue, OutputType
from batchpoint.entities.parallel_run_config import ParallelRunConfig, as_step

StepName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,254}$")]
"""Lower letters, digits and underscores; the first is no digit. Source: Azure ML's names of pipeline nodes."""

PortName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,254}$")]
"""Name of an input or output: letters, digits and underscores."""

ANONYMOUS = "azureml_anonymous"
"""Name of what is declared in place without one. Source: Azure ML."""


def _named(value: Any) -> Any:
    """What is declared in place needs no name."""
    return {"name": ANONYMOUS, **value} if isinstance(value, Mapping) else value


EnvironmentInPlace = Annotated[Environment, BeforeValidator(_named)]
ModelInPlace = Annotated[Model, BeforeValidator(_named)]

LiteralType = Literal["string", "number", "integer", "boolean"]

InputMode = Literal["ro_mount", "download", "direct", "eval_mount", "eval_download"]
OutputMode = Literal["rw_mount", "mount", "upload", "direct"]


class InputPort(Part):
    """An input that a component, or a pipeline as a whole, declares."""

    type: InputType | LiteralType
    description: str | None = None
    optional: bool = False
    default: LiteralValue | None = None
    """Of a literal: what it is when nothing is given."""
    min: float | None = None
    max: float | None = None
    enum: list[LiteralValue] | None = None
    path: str | None = None
    """Of data, on a pipeline: what it is when nothing else is given."""
    mode: InputMode | None = None


class OutputPort(Part):
    """An output that a component declares."""

    type: OutputType = "uri_folder"
    description: str | None = None
    mode: OutputMode | None = None


class DataBinding(Part):
    """Data that a step, or a pipeline, is given."""

    type: InputType | None = None
    path: str
    """An address, a reference to an asset, or a binding such as ``${{parent.inputs.x}}``."""
    mode: InputMode | None = None


class OutputBinding(Part):
    """Where an output goes. Without a path: the default datastore, in a folder named after the job."""

    type: OutputType = "uri_folder"
    path: str | None = None
    """An address, or a binding such as ``${{parent.outputs.x}}``."""
    mode: OutputMode | None = None
    name: str | None = None
    """When given, the output is registered as a data asset of this name once its job has completed."""
    version: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _may_say_nothing(cls, value: object) -> object:
        """``prepared_data:`` alone goes where outputs go. Source: Azure ML's examples."""
        return {} if value is None else value


class Limits(Part):
    """How long a step may take."""

    timeout: int | None = Field(default=None, gt=0)
    """Seconds; None means any time."""


class ParallelTask(Part):
    """What a parallel step calls for each mini-batch."""

    type: Literal["run_function", "function", "model"] = "run_function"
    code: str | None = None
    entry_script: str | None = None
    environment: str | EnvironmentInPlace | None = None
    program_arguments: str | None = None
    """One text, split as a shell does; may hold ``${{inputs.x}}`` and ``${{outputs.y}}``."""
    append_row_to: str | None = None
    """``${{outputs.y}}``: the output that what ``run()`` returns is written to; without it nothing is collected."""
    model: str | ModelInPlace | None = None


class _Step(Part):
    """What every kind of step has."""

    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    comment: str | None = None
    component: str | ComponentInPlace | None = None
    """``azureml:name:version``, ``azureml:name@default``, a component in place, or (in files) a path to one."""
    inputs: dict[PortName, LiteralValue | DataBinding] = Field(default_factory=dict)
    """A literal, a binding in text, or data."""
    outputs: dict[PortName, str | OutputBinding] = Field(default_factory=dict)
    """A binding in text, or a place."""
    compute: str | None = None
    is_deterministic: bool | None = None
    """Whether the same code, inputs, settings and environment give the same outputs; None: as its component says."""

    @model_validator(mode="before")
    @classmethod
    def _component_is_of_its_type(cls, value: Any) -> Any:
        """A component in place needs no type: it is of the type of the step. Source: Azure ML's examples."""
        component = _of(value, "component")
        if not isinstance(value, Mapping) or not isinstance(component, Mapping):
            return value
        return {**value, "component": {"type": value.get("type", "command"), **component}}


class CommandStep(_Step):
    """A command line, run once on one instance."""

    type: Literal["command"] = "command"
    command: str | None = None
    """May hold ``${{inputs.x}}``, ``${{outputs.y}}`` and optional segments ``$[[ --flag ${{inputs.opt}} ]]``."""
    code: str | None = None
    environment: str | EnvironmentInPlace | None = None
    environment_variables: dict[str, str] = Field(default_factory=dict)
    resources: ResourceConfiguration = Field(default_factory=ResourceConfiguration)
    limits: Limits = Field(default_factory=Limits)
    identity: dict[str, Any] | None = None
    distribution: dict[str, Any] | None = None

    def model_post_init(self, _context: Any, /) -> None:
        """A step that says no type is of its component's, which may be known by its reference only."""

    @model_validator(mode="before")
    @classmethod
    def _is_of_known_type(cls, value: Any) -> Any:
        given = str(_of(value, "type") or "command").lower()
        if given not in _CLASS_OF_TYPE:
            raise ValueError(f"steps of type '{given}' are not run here; known: {', '.join(_CLASS_OF_TYPE)}")
        return value


class ParallelStep(_Step):
    """A scoring script, run over the mini-batches of one of the step's inputs."""

    type: Literal["parallel"] = "parallel"
    input_data: str | None = None
    """``${{inputs.x}}``: the input that is cut into mini-batches."""
    mini_batch_size: str | int | None = None
    """Files of one ``run()`` call, or a size such as ``10mb`` for rows. None means 1 file."""
    partition_keys: list[str] = Field(default_factory=list)
    resources: ResourceConfiguration = Field(default_factory=ResourceConfiguration)
    max_concurrency_per_instance: int | None = Field(default=None, ge=1)
    """None means one worker for each core."""
    retry_settings: RetrySettings = Field(default_factory=lambda: RetrySettings(max_retries=2, timeout=60))
    error_threshold: int = Field(default=-1, ge=-1)
    mini_batch_error_threshold: int = Field(default=-1, ge=-1)
    logging_level: LoggingLevel = "info"
    environment_variables: dict[str, str] = Field(default_factory=dict)
    identity: dict[str, Any] | None = None
    task: ParallelTask | None = None
    batchpoint: ScoringOptions = Field(default_factory=ScoringOptions)
    parallel_run_config: ParallelRunConfig | None = Field(default=None, exclude=True)
    """Other keys in the words of SDK v1. Read, and never kept."""

    @model_validator(mode="before")
    @classmethod
    def _in_words_of_today(cls, value: object) -> object:
        return as_step(value) if isinstance(value, Mapping) else value


class PipelineStep(_Step):
    """A pipeline inside a pipeline."""

    type: Literal["pipeline"] = "pipeline"
    jobs: dict[StepName, Step] = Field(default_factory=dict)


_CLASS_OF_TYPE = {"command": "CommandStep", "parallel": "ParallelStep", "pipeline": "PipelineStep"}


def _step_class(value: Any) -> str:
    """The class of the type that is given, else that of the component in place, else a command.

    One of no known type is read as a command, which says so.
    """
    given = _of(value, "type") or _of(_of(value, "component"), "type") or "command"
    return _CLASS_OF_TYPE.get(str(given).lower(), "CommandStep")


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)


Step = Annotated[
    Annotated[CommandStep, Tag("CommandStep")]
    | Annotated[ParallelStep, Tag("ParallelStep")]
    | Annotated[PipelineStep, Tag("PipelineStep")],
    Discriminator(_step_class),
]
"""A step without a type is a command. Source: Azure ML's examples."""


class PipelineSettings(Part):
    """How a pipeline's steps are run."""

    default_compute: str | None = None
    default_datastore: str | None = None
    continue_on_step_failure: bool = True
    """Whether steps that do not depend on a failed one still run. The pipeline fails either way."""
    force_rerun: bool = False
    """Whether every step is run, even where the outputs of an earlier job could be reused."""


class Component(Asset):
    """A step, or a whole pipeline, to be used by name. Versioned and immutable like every asset."""

    type: Literal["command", "parallel", "pipeline"]
    display_name: str | None = None
    is_deterministic: bool = True
    inputs: dict[PortName, InputPort] = Field(default_factory=dict)
    outputs: dict[PortName, OutputPort] = Field(default_factory=dict)
    command: str | None = None
    code: str | None = None
    environment: str | EnvironmentInPlace | None = None
    environment_variables: dict[str, str] = Field(default_factory=dict)
    resources: ResourceConfiguration = Field(default_factory=ResourceConfiguration)
    limits: Limits = Field(default_factory=Limits)
    distribution: dict[str, Any] | None = None
    input_data: str | None = None
    mini_batch_size: str | int | None = None
    partition_keys: list[str] = Field(default_factory=list)
    max_concurrency_per_instance: int | None = Field(default=None, ge=1)
    retry_settings: RetrySettings = Field(default_factory=lambda: RetrySettings(max_retries=2, timeout=60))
    error_threshold: int = Field(default=-1, ge=-1)
    mini_batch_error_threshold: int = Field(default=-1, ge=-1)
    logging_level: LoggingLevel = "info"
    task: ParallelTask | None = None
    batchpoint: ScoringOptions = Field(default_factory=ScoringOptions)
    parallel_run_config: ParallelRunConfig | None = Field(default=None, exclude=True)
    """Other keys in the words of SDK v1. Read, and never kept."""
    jobs: dict[StepName, Step] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _in_words_of_today(cls, value: object) -> object:
        return as_step(value, is_component=True) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Component:
        needed = {"command": "command", "parallel": "task", "pipeline": "jobs"}[self.type]
        if not getattr(self, needed):
            raise ValueError(f"a component of type {self.type} needs '{needed}'")
        return self

    def body(self) -> dict[str, Any]:
        """As of every entity, without defaults: a step takes from its component whatever it does not say itself."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


ComponentInPlace = Annotated[Component, BeforeValidator(_named)]


class Pipeline(Entity):
    """A pipeline job as it is declared: steps, joined by what they read and write."""

    name: JobName | None = None  # type: ignore[assignment]  # as Azure's files: a job without a name is given one
    type: Literal["pipeline"] = "pipeline"
    display_name: str | None = None
    experiment_name: str | None = None
    compute: str | None = None
    identity: dict[str, Any] | None = None
    settings: PipelineSettings = Field(default_factory=PipelineSettings)
    inputs: dict[PortName, LiteralValue | InputPort | DataBinding] = Field(default_factory=dict)
    """A literal, a declared literal (``{type: integer, default: 3}``), or data."""
    outputs: dict[PortName, OutputBinding] = Field(default_factory=dict)
    jobs: dict[StepName, Step] = Field(default_factory=dict)
    component: str | ComponentInPlace | None = None
    """Instead of ``jobs``: a pipeline component."""

    @model_validator(mode="after")
    def _jobs_or_component(self) -> Pipeline:
        if bool(self.jobs) == (self.component is not None):
            raise ValueError("give either 'jobs' or 'component'")
        return self


_Step.model_rebuild()
CommandStep.model_rebuild()
ParallelStep.model_rebuild()
PipelineStep.model_rebuild()
Component.model_rebuild()
Pipeline.model_rebuild()


def dependencies(step: Step) -> set[str]:
    """The steps whose outputs a step reads.

    Raises:
        InvalidEntityError: a binding is of no known form.
    """
    texts = [given.path if isinstance(given, DataBinding) else given for given in step.inputs.values()]
    bound = [binding_of(text) for text in texts]
    return {each.step for each in bound if each is not None and each.step is not None}


def ready_steps(
    jobs: Mapping[str, Step], statuses: Mapping[str, JobStatus], *, continue_on_step_failure: bool
) -> list[str]:
    """The steps to start now: not started, and every step that they read from has completed.

    ``statuses`` has the steps that were started. After a step has failed nothing else is started, or, with
    ``continue_on_step_failure``, only what does not depend on it.
    """
    if not continue_on_step_failure and has_failed(statuses.values()):
        return []
    completed = {name for name, status in statuses.items() if status == JobStatus.COMPLETED}
    return [name for name, step in jobs.items() if name not in statuses and dependencies(step) <= completed]


def has_failed(statuses: Iterable[JobStatus]) -> bool:
    """Whether one of the steps ended other than well."""
    return any(status in {JobStatus.FAILED, JobStatus.CANCELED} for status in statuses)


def cycle_of(jobs: Mapping[str, Step]) -> list[str]:
    """Steps that wait for each other in a circle, the first one again at the end; empty when there is none."""
    waits_for = {name: sorted(dependencies(step) & jobs.keys()) for name, step in jobs.items()}
    try:
        TopologicalSorter(waits_for).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][:0:-1]
        first = min(range(len(circle)), key=lambda at: list(jobs).index(circle[at]))
        return [*circle[first:], *circle[:first], circle[first]]
    return []
