"""What is made of pipelines: a command as a job by itself, pipelines behind endpoints, published pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from batchpoint.entities.base import AssetName, DeploymentName, EndpointName, Entity, JobName, Part
from batchpoint.entities.endpoints import BatchDeployment, ResourceConfiguration
from batchpoint.entities.jobs import LiteralValue
from batchpoint.entities.pipelines import (
    CommandStep,
    ComponentInPlace,
    DataBinding,
    EnvironmentInPlace,
    InputPort,
    Limits,
    OutputBinding,
    Pipeline,
    PipelineSettings,
    PortName,
)


class CommandJob(Entity):
    """A command as a job by itself: a pipeline of one step. Keys are those of Azure ML's command job files."""

    name: JobName | None = None  # type: ignore[assignment]  # as Azure's files: a job without a name is given one
    type: Literal["command"] = "command"
    display_name: str | None = None
    experiment_name: str | None = None
    component: str | ComponentInPlace | None = None
    """Instead of ``command``, ``code`` and ``environment``: a command component."""
    command: str | None = None
    code: str | None = None
    environment: str | EnvironmentInPlace | None = None
    environment_variables: dict[str, str] = Field(default_factory=dict)
    resources: ResourceConfiguration = Field(default_factory=ResourceConfiguration)
    limits: Limits = Field(default_factory=Limits)
    compute: str | None = None
    identity: dict[str, Any] | None = None
    distribution: dict[str, Any] | None = None
    inputs: dict[PortName, LiteralValue | InputPort | DataBinding] = Field(default_factory=dict)
    outputs: dict[PortName, OutputBinding] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _command_or_component(self) -> CommandJob:
        if (self.command is None) == (self.component is None):
            raise ValueError("give either 'command' or 'component'")
        return self

    def as_pipeline(self) -> Pipeline:
        """The pipeline whose one step, ``command``, is this. Whoever runs a command wants it run: it is not reused."""
        own = {key: getattr(self, key) for key in CommandStep.model_fields.keys() & self.model_fields_set - _JOBS_OWN}
        step = CommandStep(
            **own,
            inputs={name: f"${{{{parent.inputs.{name}}}}}" for name in self.inputs},
            outputs={name: f"${{{{parent.outputs.{name}}}}}" for name in self.outputs},
            is_deterministic=False,
        )
        kept = {key: getattr(self, key) for key in Pipeline.model_fields.keys() & self.model_fields_set & _JOBS_OWN}
        return Pipeline(**kept, jobs={ONLY_STEP: step})


ONLY_STEP = "command"
"""The step of a command job."""


def is_command(steps: Mapping[str, Any]) -> bool:
    """Whether these are the steps of a command job: the one that ``CommandJob.as_pipeline`` makes."""
    if list(steps) != [ONLY_STEP]:
        return False
    step = steps[ONLY_STEP]
    is_bound = all(
        given == f"${{{{parent.{kind}.{name}}}}}"
        for kind in ("inputs", "outputs")
        for name, given in (step.get(kind) or {}).items()
    )
    return is_bound and step.get("is_deterministic") is False and "component" not in step


_JOBS_OWN = frozenset(
    {"name", "display_name", "experiment_name", "description", "tags", "properties", "inputs", "outputs"}
)
"""Keys of a command job that stay with the job and do not belong to its step."""

_NO_VARIABLES = (
    "a pipeline deployment has no environment variables of its own; give them to the steps of its component, under "
    "'environment_variables'"
)


class PipelineDeployment(Entity):
    """A pipeline component behind an endpoint: an invoke starts a pipeline job of it."""

    name: DeploymentName
    endpoint_name: EndpointName
    type: Literal["pipeline"] = "pipeline"
    component: str | ComponentInPlace | None = None
    """``azureml:name:version``, ``name@default``, a component in place, or (in files) a path to one."""
    job_definition: str | Pipeline | None = None
    """Instead of a component: ``azureml:<name of a pipeline job>``, whose pipeline it becomes."""
    settings: PipelineSettings = Field(default_factory=PipelineSettings)
    provisioning_state: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_dropped(cls, value: object) -> object:
        settings = value.get("settings") if isinstance(value, Mapping) else None
        for part in (value, settings):
            if isinstance(part, Mapping) and part.get("environment_variables"):
                raise ValueError(_NO_VARIABLES)
        return value

    @model_validator(mode="after")
    def _one_pipeline(self) -> PipelineDeployment:
        if (self.component is None) == (self.job_definition is None):
            raise ValueError("give either 'component' or 'job_definition'")
        return self

    @property
    def compute_name(self) -> str:
        """The bare name of the compute of steps that name none."""
        return (self.settings.default_compute or "local").removeprefix("azureml:")


AnyDeployment = BatchDeployment | PipelineDeployment


def deployment_of(body: Mapping[str, Any]) -> AnyDeployment:
    """A deployment, of the kind that its ``type`` says, from its stored body."""
    kind = PipelineDeployment if body.get("type") == "pipeline" else BatchDeployment
    return kind.model_validate(body)


class PublishedPipeline(Entity):
    """A pipeline with an address: a POST to it starts a run."""

    name: AssetName
    version: str | None = None
    """Free text. Publishing under the same name again replaces what runs."""
    component: str
    """``azureml:name:version`` of the pipeline component that runs."""
    experiment_name: str | None = None
    settings: PipelineSettings = Field(default_factory=PipelineSettings)
    status: Literal["Active", "Disabled"] = "Active"
    endpoint: str | None = None
    """Address that starts a run. Set by the server."""


class PublishRequest(Part):
    """What is to be published: a pipeline component, a pipeline, or what a job ran."""

    name: AssetName
    version: str | None = None
    description: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    experiment_name: str | None = None
    settings: PipelineSettings | None = None
    """None: those of the pipeline or the job."""
    component: str | ComponentInPlace | None = None
    pipeline: Pipeline | None = None
    job: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> PublishRequest:
        if sum(source is not None for source in (self.component, self.pipeline, self.job)) != 1:
            raise ValueError("give one of 'component', 'pipeline' and 'job'")
        return self


class DataPath(Part):
    """A place in a datastore, as the first SDK of Azure ML writes it."""

    datastore_name: str = Field(alias="DataStoreName")
    relative_path: str = Field(default="", alias="RelativePath")


class RunRequest(Part):
    """What a POST to a published pipeline may say. Keys are those of Azure ML's published pipelines."""

    experiment_name: str | None = Field(default=None, alias="ExperimentName")
    parameter_assignments: dict[str, LiteralValue] = Field(default_factory=dict, alias="ParameterAssignments")
    data_path_assignments: dict[str, str | DataPath] = Field(default_factory=dict, alias="DataPathAssignments")
    """For each data input an address, or ``DataStoreName`` and ``RelativePath``."""
    description: str | None = Field(default=None, alias="Description")
    run_source: str | None = Field(default=None, alias="RunSource")
    tags: dict[str, str] = Field(default_factory=dict, alias="Tags")
