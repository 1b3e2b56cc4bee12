"""Pipelines: look whether one is sound, start it, start it again from its job, resume it where it failed."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from batchpoint.entities.bindings import TRIGGER_TIME, substituted
from batchpoint.entities.components import as_steps, given_value
from batchpoint.entities.documents import suggestion
from batchpoint.entities.jobs import Input, Job, JobStatus, LiteralValue, Output
from batchpoint.entities.pipeline_faults import Fault, faults_of, refuse
from batchpoint.entities.pipelines import (
    Component,
    DataBinding,
    InputPort,
    OutputBinding,
    Pipeline,
    PipelineSettings,
)
from batchpoint.errors import AlreadyExistsError, ConflictError, InvalidEntityError
from batchpoint.operations.assets import Assets
from batchpoint.operations.pipeline_resolver import PipelineResolver
from batchpoint.operations.places import Places
from batchpoint.operations.step_jobs import StepJobs, output_places, resumed
from batchpoint.operations.steps import faults_of_work
from batchpoint.registry import Registry


class Pipelines:
    """What a user may ask about pipelines."""

    def __init__(self, registry: Registry, assets: Assets, places: Places, wake: threading.Event) -> None:
        self._registry = registry
        self._assets = assets
        self._places = places
        self._wake = wake
        self.step_jobs = StepJobs(registry, assets, places)
        """Makes the jobs of steps; for the driver."""

    def validate(self, pipeline: Pipeline) -> None:
        """Look for everything that can be known to fail, without starting or registering anything.

        Raises:
            InvalidEntityError: with every fault; ``details['problems']`` holds ``place``, ``key`` and ``message``.
        """
        resolver = PipelineResolver(self._registry, self._assets, self._places)
        resolved = resolver.resolve(pipeline)
        in_steps = as_steps(resolved)
        whole = [*resolver.faults, *_unknown_names(resolved)]
        if not isinstance(resolved.component, str):
            known = {fault.place for fault in whole}
            whole += [fault for fault in faults_of(in_steps) if fault.place not in known]
        whole = whole or faults_of_work(in_steps.jobs)
        refuse(f"Pipeline {pipeline.name}" if pipeline.name else "The pipeline", whole)

    def submit(
        self,
        pipeline: Pipeline,
        *,
        by: str | None = None,
        idempotency_key: str | None = None,
        endpoint_name: str | None = None,
        deployment_name: str | None = None,
        schedule_name: str | None = None,
        traceparent: str | None = None,
        published_pipeline: str | None = None,
        trigger_time: datetime | None = None,
        request_hash: str | None = None,
    ) -> Job:
        """Start a pipeline. Answers with its queued job, which holds the pipeline with everything in it resolved.

        The same idempotency key with the same pipeline gives the job that was made then. ``trigger_time`` is what
        ``${{creation_context.trigger_time}}`` stands for; now, when nothing is said. ``request_hash`` stands for what
        was asked, where that was not the pipeline itself.

        Raises:
            InvalidEntityError: as ``validate``.
            AlreadyExistsError: a job of that name exists.
            ConflictError: the idempotency key was used for another request.
        """
        asked = f"pipeline {endpoint_name} {deployment_name} {pipeline.model_dump_json(exclude_unset=True)}"
        request_hash = request_hash or hashlib.sha256(asked.encode()).hexdigest()
        if idempotency_key is not None:
            known = self._registry.jobs.find_submitted(idempotency_key, request_hash)
            if known is not None:
                return known
        self.validate(pipeline)
        resolver = PipelineResolver(self._registry, self._assets, self._places, by=by, register=True)
        effective = as_steps(resolver.resolve(pipeline))
        refuse("The pipeline", resolver.faults)
        job = _job_of(effective, trigger_time or datetime.now(UTC))
        job = job.model_copy(
            update={
                "created_by": by,
                "endpoint_name": endpoint_name,
                "deployment_name": deployment_name,
                "schedule_name": schedule_name,
                "traceparent": traceparent,
                "published_pipeline": published_pipeline,
            }
        )
        return self._enqueue(job, idempotency_key, request_hash)

    def from_job(self, name: str) -> Pipeline:
        """The pipeline that a job ran, to be started again or deployed: as it was resolved then, without its name.

        Raises:
            NotFoundError: there is no such job.
            InvalidEntityError: it is no pipeline job.
        """
        job = self._registry.jobs.get(name)
        if job.pipeline is None:
            raise InvalidEntityError(f"Job {name} is of type {job.type}; a pipeline job is wanted.")
        kept = {key: value for key, value in job.pipeline.items() if key != "name"}
        given = {name: data.model_dump(include={"type", "path"}) for name, data in job.inputs.items()}
        # A pipeline inside a pipeline holds what it was given in its job alone.
        return Pipeline.model_validate({**kept, "inputs": given | job.literals | kept.get("inputs", {})})

    def with_inputs(
        self,
        pipeline: Pipeline,
        *,
        inputs: Mapping[str, Input] | None = None,
        literals: Mapping[str, LiteralValue] | None = None,
        outputs: Mapping[str, Output] | None = None,
        settings: PipelineSettings | None = None,
    ) -> Pipeline:
        """The pipeline with other inputs and outputs; what is not named stays as it is, or takes its default.

        Raises:
            InvalidEntityError: a name is not known, or data is given more than one path.
            NotFoundError: the component that it refers to does not exist.
        """
        resolver = PipelineResolver(self._registry, self._assets, self._places)
        if isinstance(pipeline.component, str):
            pipeline = resolver.resolve(pipeline)
        whole = as_steps(pipeline)
        faults = [*resolver.faults, *_unknown(whole.inputs, [*(inputs or {}), *(literals or {})], "inputs")]
        faults += _unknown(whole.outputs, outputs or (), "outputs")
        faults += _wrong_types(whole.inputs, inputs or {})
        faults += [_one_path(name) for name, given in (inputs or {}).items() if given.paths]
        refuse("The request", faults)
        return whole.model_copy(
            update={
                "inputs": whole.inputs
                | {name: _data(whole.inputs[name], given) for name, given in (inputs or {}).items()}
                | {name: _literal(whole.inputs[name], given) for name, given in (literals or {}).items()},
                "outputs": whole.outputs
                | {name: _output(whole.outputs[name], given) for name, given in (outputs or {}).items()},
                "settings": _over(whole.settings, settings),
            }
        )

    def retry_failed(self, job: Job, *, job_name: str | None = None, by: str | None = None) -> Job:
        """Go on with a pipeline job that failed or was canceled: a new job, which takes over what completed in it.

        When it was resumed before, and that failed or was canceled too, the new job goes on from there.

        Raises:
            ConflictError: it is not finished, or completed, at the latest when it was resumed; or it is being resumed.
            AlreadyExistsError: ``job_name`` is taken.
        """
        if not job.status.is_finished:
            raise ConflictError(f"Job {job.name} is {job.status}. Resume it when it is finished.")
        if job.status == JobStatus.COMPLETED:
            raise ConflictError(f"Job {job.name} completed: there is nothing to resume. Start the pipeline again.")
        newest = latest_retry(self._registry, job)
        if newest.status == JobStatus.COMPLETED:
            raise ConflictError(
                f"Job {job.name} was resumed already, by job {newest.name}, which completed: "
                "there is nothing to resume. Start the pipeline again."
            )
        again = resumed(newest, job_name or _new_name(), by)
        stored, _ = self._registry.jobs.enqueue(again)
        self._wake.set()
        return stored

    def _enqueue(self, job: Job, idempotency_key: str | None, request_hash: str) -> Job:
        try:
            stored, _ = self._registry.jobs.enqueue(job, idempotency_key=idempotency_key, request_hash=request_hash)
        except AlreadyExistsError:
            # The same request may have come in twice at once, and the other one's job has the name by now.
            again = self._registry.jobs.find_submitted(idempotency_key, request_hash) if idempotency_key else None
            if again is None:
                raise
            return again
        self._wake.set()
        return stored


def latest_retry(registry: Registry, job: Job) -> Job:
    """The last finished one of the jobs that retried ``job``, that retried that one, …; ``job`` when none did."""
    while found := registry.jobs.list(retry_of=job.name, archived="include", limit=1):
        if not found[0].status.is_finished:
            break  # whoever retries as well is refused when his job is put in
        job = found[0]
    return job


def _job_of(pipeline: Pipeline, trigger_time: datetime) -> Job:
    """The queued job of a pipeline in which everything is resolved."""
    name = pipeline.name or _new_name()
    words = {"name": name, TRIGGER_TIME: trigger_time.isoformat(timespec="seconds")}
    values = {key: given_value(given) for key, given in pipeline.inputs.items()}
    literals = {
        key: substituted(value, words) if isinstance(value, str) else value
        for key, value in values.items()
        if value is not None and not isinstance(value, DataBinding)
    }
    inputs = {
        key: Input(type=value.type, path=substituted(value.path, words))
        for key, value in values.items()
        if isinstance(value, DataBinding)
    }
    outputs = output_places(pipeline.outputs, pipeline.settings, name)
    for output in outputs.values():
        output.path = substituted(output.path or "", words)
    return Job(
        name=name,
        type="pipeline",
        display_name=pipeline.display_name,
        description=pipeline.description,
        tags=pipeline.tags,
        properties=pipeline.properties,
        experiment_name=pipeline.experiment_name,
        pipeline=pipeline.given(),
        literals=literals,
        inputs=inputs,
        outputs=outputs,
    )


def _new_name() -> str:
    return f"pipeline-{uuid.uuid4()}"


def _unknown_names(pipeline: Pipeline) -> list[Fault]:
    """Inputs and outputs that the pipeline's component does not have."""
    component = pipeline.component
    if not isinstance(component, Component):
        return []
    return [
        *_unknown(component.inputs, pipeline.inputs, "inputs"),
        *_unknown(component.outputs, pipeline.outputs, "outputs"),
        *_wrong_types(component.inputs, pipeline.inputs),
    ]


def _unknown(known: Mapping[str, object], given: Iterable[str], kind: str) -> list[Fault]:
    return [
        Fault(f"{kind}.{name}", f"the pipeline has no {kind[:-1]} '{name}'. {suggestion(name, known)}".strip())
        for name in given
        if name not in known
    ]


def _wrong_types(declared: Mapping[str, object], given: Mapping[str, object]) -> list[Fault]:
    """Data of another type than the input takes."""
    faults = []
    for name, data in given.items():
        port = declared.get(name)
        wanted, found = getattr(port, "type", None), getattr(data, "type", None)
        if wanted is not None and found is not None and found != wanted:
            faults.append(Fault(f"inputs.{name}", f"the input takes {wanted}, and {found} was given."))
    return faults


def _one_path(name: str) -> Fault:
    return Fault(f"inputs.{name}", "an input of a pipeline is one file or folder. Give its folder.")


def _data(declared: LiteralValue | InputPort | DataBinding, given: Input) -> DataBinding:
    wanted = declared.type if isinstance(declared, InputPort | DataBinding) else None
    mode = declared.mode if isinstance(declared, InputPort | DataBinding) else None
    return DataBinding.model_validate({"type": given.type or wanted, "path": given.path, "mode": mode})


def _literal(declared: LiteralValue | InputPort | DataBinding, given: LiteralValue) -> LiteralValue | InputPort:
    return declared.model_copy(update={"default": given}) if isinstance(declared, InputPort) else given


def _output(declared: OutputBinding, given: Output) -> OutputBinding:
    changes: dict[str, Any] = {"path": given.path} if given.path else {}
    if given.asset_name:
        changes |= {"name": given.asset_name, "version": given.asset_version}
    return declared.model_copy(update=changes)


def _over(settings: PipelineSettings, given: PipelineSettings | None) -> PipelineSettings:
    return settings.model_copy(update=given.model_dump(exclude_unset=True)) if given else settings
