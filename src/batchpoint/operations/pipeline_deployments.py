"""Pipelines that others start: behind an endpoint, or published under an address of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from batchpoint.entities.components import DATA_TYPES, as_component, typed
from batchpoint.entities.documents import suggestion
from batchpoint.entities.jobs import Input, InvokeRequest, Job, LiteralValue, Output
from batchpoint.entities.pipeline_deployments import (
    DataPath,
    PipelineDeployment,
    PublishedPipeline,
    PublishRequest,
    RunRequest,
)
from batchpoint.entities.pipelines import Component, Pipeline, PipelineSettings
from batchpoint.errors import ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.assets import Assets
from batchpoint.operations.pipelines import Pipelines
from batchpoint.registry import Registry
from batchpoint.registry.changes import repeated


class PipelineDeployments:
    """Pipelines behind endpoints: made sound when declared, started when invoked."""

    def __init__(self, assets: Assets, pipelines: Pipelines) -> None:
        self._assets = assets
        self._pipelines = pipelines

    def resolve(self, deployment: PipelineDeployment, *, by: str | None) -> PipelineDeployment:
        """The deployment with a registered pipeline component, whatever it was declared with.

        Raises:
            InvalidEntityError: what it refers to is no pipeline, or not a sound one.
            NotFoundError: it refers to something that does not exist.
        """
        name = f"{deployment.endpoint_name}-{deployment.name}"
        source: str | Component | Pipeline | None = deployment.component
        settings = deployment.settings
        if isinstance(deployment.job_definition, str):
            source = self._pipelines.from_job(deployment.job_definition.removeprefix("azureml:"))
        elif deployment.job_definition is not None:
            source = deployment.job_definition
        if isinstance(source, Pipeline):
            settings = source.settings.model_copy(update=settings.model_dump(exclude_unset=True))
        assert source is not None, "the entity has one of the two"
        component = registered_pipeline(self._assets, self._pipelines, source, name, by=by)
        return deployment.model_copy(
            update={
                "component": f"azureml:{component.reference}",
                "job_definition": None,
                "settings": settings,
                "provisioning_state": "Succeeded",
            }
        )

    def invoke(
        self,
        deployment: PipelineDeployment,
        request: InvokeRequest,
        *,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
        schedule_name: str | None = None,
        traceparent: str | None = None,
        by: str | None = None,
    ) -> Job:
        """Start a pipeline job of the deployment's component.

        Raises:
            InvalidEntityError: an input or output is none of the component's, is missing, or of another type.
            NotFoundError: something that the pipeline refers to does not exist any more.
            AlreadyExistsError: the job's name is taken.
            ConflictError: the idempotency key was used for another request.
        """
        if changed := sorted(request.overrides.model_fields_set):
            raise InvalidEntityError(
                f"A pipeline deployment has no setting {changed[0]!r} to change at invoke: its steps have their own. "
                "Give it as an input of the component."
            )
        pipeline = Pipeline(
            name=request.job_name,
            component=deployment.component,
            settings=deployment.settings,
            description=request.description,
            tags=request.tags,
            experiment_name=request.experiment_name,
        )
        component = cast("Component", self._assets.resolve("component", cast("str", deployment.component)))
        return self._pipelines.submit(
            with_given(self._pipelines, component, pipeline, request.inputs, request.literals, request.outputs),
            by=by,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
            endpoint_name=deployment.endpoint_name,
            deployment_name=deployment.name,
            schedule_name=schedule_name,
            traceparent=traceparent,
        )


class PublishedPipelines:
    """What a user may ask about published pipelines."""

    def __init__(self, registry: Registry, assets: Assets, pipelines: Pipelines) -> None:
        self._registry = registry
        self._assets = assets
        self._pipelines = pipelines

    def publish(self, request: PublishRequest, *, by: str | None = None) -> PublishedPipeline:
        """Give a pipeline an address. Under a name that was published before, it takes the place of what ran there.

        Raises:
            InvalidEntityError: it is no pipeline, or not a sound one.
            NotFoundError: it refers to something that does not exist.
        """
        source: str | Component | Pipeline | None = request.component or request.pipeline
        if request.job is not None:
            source = self._pipelines.from_job(request.job.removeprefix("azureml:"))
        assert source is not None, "the entity has one of the three"
        component = registered_pipeline(self._assets, self._pipelines, source, request.name, by=by)
        own = source.settings if isinstance(source, Pipeline) else PipelineSettings()
        published = PublishedPipeline(
            name=request.name,
            version=request.version,
            description=request.description,
            tags=request.tags,
            experiment_name=request.experiment_name
            or (source.experiment_name if isinstance(source, Pipeline) else None),
            settings=request.settings or own,
            component=f"azureml:{component.reference}",
        )
        return cast("PublishedPipeline", self._registry.resources.put("published_pipeline", published, by=by))

    def get(self, name: str) -> PublishedPipeline:
        """One of them. Raises ``NotFoundError``."""
        return cast("PublishedPipeline", self._registry.resources.get("published_pipeline", name))

    def list(self, *, limit: int | None = None, offset: int = 0) -> Sequence[PublishedPipeline]:
        """All of them, by name."""
        found = self._registry.resources.list("published_pipeline", limit=limit, offset=offset)
        return cast("Sequence[PublishedPipeline]", found)

    def set_active(self, name: str, *, active: bool, by: str | None = None) -> PublishedPipeline:
        """Let it be started, or let every POST be refused. Raises ``NotFoundError``."""

        def change() -> PublishedPipeline:
            before = self.get(name)
            changed = before.model_copy(update={"status": "Active" if active else "Disabled"})
            stored = self._registry.resources.put("published_pipeline", changed, by=by, seen=before)
            return cast("PublishedPipeline", stored)

        return repeated(change)

    def delete(self, name: str) -> None:
        """Take its address away. Its component and the jobs that it started stay. Raises ``NotFoundError``."""
        self._registry.resources.delete("published_pipeline", name)

    def as_pipeline(self, name: str) -> Pipeline:
        """What a run of it runs, with the settings, tags and experiment that it was published with.

        Raises:
            NotFoundError: there is no such published pipeline.
            ConflictError: it is disabled.
        """
        published = self.get(name)
        if published.status != "Active":
            raise ConflictError(f"The published pipeline {name} is disabled. Enable it to start runs.")
        return Pipeline(
            component=published.component,
            settings=published.settings,
            tags=published.tags,
            experiment_name=published.experiment_name,
        )

    def run(self, name: str, request: RunRequest, *, by: str | None = None) -> Job:
        """Start a run.

        Raises:
            NotFoundError: there is no such published pipeline.
            ConflictError: it is disabled.
            InvalidEntityError: a parameter is none of the pipeline's, is missing, or of another type.
        """
        published = self.as_pipeline(name)
        component = cast("Component", self._assets.resolve("component", cast("str", published.component)))
        pipeline = published.model_copy(
            update={
                "description": request.description,
                "tags": published.tags | request.tags,
                "properties": {"run_source": request.run_source} if request.run_source else {},
                "experiment_name": request.experiment_name or published.experiment_name,
            }
        )
        inputs = {key: Input(path=_address(path)) for key, path in request.data_path_assignments.items()}
        whole = with_given(self._pipelines, component, pipeline, inputs, request.parameter_assignments, {})
        return self._pipelines.submit(whole, by=by, published_pipeline=name)

    def runs(self, name: str, *, limit: int = 50, offset: int = 0) -> Sequence[Job]:
        """The jobs that were started by it, the newest first. Raises ``NotFoundError``."""
        self.get(name)
        return self._registry.jobs.list(published_pipeline=name, archived="include", limit=limit, offset=offset)

    def get_run(self, name: str, job_name: str) -> Job:
        """One of them. Raises ``NotFoundError`` for a job that it did not start."""
        job = self._registry.jobs.get(job_name)
        if job.published_pipeline != name:
            message = f"Job {job_name} is no run of the published pipeline {name}."
            raise NotFoundError(message, kind="run", name=job_name, pipeline=name)
        return job


def registered_pipeline(
    assets: Assets, pipelines: Pipelines, source: str | Component | Pipeline, name: str, *, by: str | None = None
) -> Component:
    """The registered pipeline component that ``source`` is, refers to, or becomes under ``name``.

    Raises:
        InvalidEntityError: it is a component of another type, or not a sound one.
        NotFoundError: it refers to something that does not exist.
    """
    if isinstance(source, str):
        component = cast("Component", assets.resolve("component", source))
    else:
        declared = source if isinstance(source, Component) else as_component(pipelines.with_inputs(source), name)
        component = cast("Component", assets.register_unless_known("component", declared, by=by))
    if component.type != "pipeline":
        raise InvalidEntityError(
            f"Component {component.reference} is of type {component.type}; a pipeline is wanted. Make it a step of one."
        )
    return component


def with_given(
    pipelines: Pipelines,
    component: Component,
    pipeline: Pipeline,
    inputs: Mapping[str, Input],
    literals: Mapping[str, LiteralValue],
    outputs: Mapping[str, Output],
) -> Pipeline:
    """The pipeline of a component with what a caller gives it.

    Raises:
        InvalidEntityError: with every name that the component does not have, and every value that does not fit.
    """
    values: dict[str, LiteralValue] = {}
    problems = []
    for name, given in literals.items():
        port = component.inputs.get(name)
        try:
            values[name] = given if port is None else typed(given, port)
        except ValueError as fault:
            problems.append((f"inputs.{name}", str(fault)))
    for name in inputs:
        port = component.inputs.get(name)
        if port is not None and port.type not in DATA_TYPES:
            problems.append((f"inputs.{name}", f"the input takes a value of type {port.type}, and data was given."))
    if unknown := [name for name in (*inputs, *literals) if name not in component.inputs]:
        hints = [f"{component.name} has no input '{name}'. {suggestion(name, component.inputs)}" for name in unknown]
        problems += [(f"inputs.{name}", hint.strip()) for name, hint in zip(unknown, hints, strict=True)]
    if problems:
        said = "\n  ".join(["The request does not fit the pipeline:", *(f"{key}: {text}" for key, text in problems)])
        details = [{"place": key, "key": key, "message": text} for key, text in problems]
        raise InvalidEntityError(said, problems=details)
    return pipelines.with_inputs(pipeline, inputs=inputs, literals=values, outputs=outputs)


def _address(given: str | DataPath) -> str:
    if isinstance(given, str):
        return given
    return f"azureml://datastores/{given.datastore_name}/paths/{given.relative_path.lstrip('/')}"
