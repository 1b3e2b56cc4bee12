"""The jobs that the steps of a pipeline job become: what they read and write, and whether they have to run at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from batchpoint.entities.assets import Code, Environment
from batchpoint.entities.bindings import binding_of, substituted, without_unset
from batchpoint.entities.components import expanded, input_port, output_path, output_type
from batchpoint.entities.jobs import Input, Job, JobStatus, LiteralValue, Output, Reason
from batchpoint.entities.pipelines import (
    CommandStep,
    DataBinding,
    OutputBinding,
    ParallelStep,
    Pipeline,
    PipelineSettings,
    PipelineStep,
    Step,
)
from batchpoint.errors import BatchpointError, InvalidEntityError
from batchpoint.operations.assets import DEFAULT_DATASTORE, Assets
from batchpoint.operations.pipeline_resolver import compute_name, find_data
from batchpoint.operations.places import Place, Places, asset_reference
from batchpoint.operations.steps import collected_output, command_of, deployment_of, reuse_hash, scored_input
from batchpoint.registry import Registry

FINGERPRINT = "batchpoint.outputs"
"""Property of a step's job: the fingerprint of its outputs as they were when it completed."""

DEFAULT_PLACE = "azureml://datastores/${{default_datastore}}/paths/azureml/${{name}}/${{output_name}}/"
"""Where an output goes when nobody has said so. Source: Azure ML."""

LONGEST_NAME = 255


class StepJob(NamedTuple):
    """A step's job, not yet stored."""

    job: Job
    reason: Reason | None
    """``completed`` when the outputs of an earlier job are taken over; None when it is to run."""


class StepJobs:
    """Makes the jobs of steps, and knows which earlier ones have the same outputs."""

    def __init__(self, registry: Registry, assets: Assets, places: Places) -> None:
        self._registry = registry
        self._assets = assets
        self._places = places

    def make(
        self,
        parent: Job,
        step_name: str,
        earlier: Mapping[str, Job],
        before: Job | None = None,
        *,
        job_name: str | None = None,
    ) -> StepJob:
        """The job of a step whose inputs are there.

        Args:
            parent: the pipeline job.
            step_name: which of its steps.
            earlier: the completed jobs of the steps that it reads from.
            before: the job of the same step in the pipeline job that this one resumes.
            job_name: what the job is called; None calls it after the pipeline job and the step.

        Raises:
            InvalidEntityError: the step cannot be made a job.
            NotFoundError: something that it names is gone.
            InputError, DatastoreError: an input is gone, or its store does not answer.
        """
        pipeline = Pipeline.model_validate(parent.pipeline)
        step = expanded(pipeline.jobs[step_name])
        given = _bound_inputs(step, parent, earlier)
        job = _draft(parent, step_name, step, job_name or step_job_name(parent.name, step_name))
        job.inputs = {name: self._found(value) for name, value in given.items() if isinstance(value, Input)}
        job.literals = {name: value for name, value in given.items() if not isinstance(value, Input)}
        job.outputs = _outputs(step, pipeline, parent, job.name)
        job = _with_work(job, step, _closed(step, job, pipeline), pipeline)
        if step.is_deterministic is not False and not pipeline.settings.force_rerun:
            job = job.model_copy(update={"reuse_hash": self._reuse_hash(job, step, pipeline, given)})
        if before is not None:
            if (again := self._resumed(job, before)) is not None:
                return again
            job = self._replacing(job, before)
        return self._reused(job)

    def remember_outputs(self, job: Job) -> None:
        """Note what the outputs of a completed job look like now, so that a change of them is noticed later."""
        found = self._outputs_fingerprint(job)
        if found is not None and FINGERPRINT not in job.properties:
            self._registry.jobs.update(job.name, properties={**job.properties, FINGERPRINT: found})

    def _found(self, given: Input) -> Input:
        """Data with the place that it lies at; assets are replaced by what they point to."""
        if asset_reference(given.path) is None:
            return given.model_copy(update={"path": self._places.resolve(given.path).uri})
        asset = find_data(self._assets, given.path)
        return given.model_copy(update={"path": asset.path, "type": given.type or asset.type})

    def _resumed(self, job: Job, before: Job) -> StepJob | None:
        """What becomes of a step that was there in the pipeline job that is resumed; None when it starts anew."""
        same = (job.type, job.inputs, job.literals) == (before.type, before.inputs, before.literals)
        if not same or job.outputs.keys() != before.outputs.keys():
            return None
        if job.type == "pipeline":  # completed or not: its steps know best whether they have to run again
            again = resumed(before, job.name, job.created_by)
            kept = {"parent_job_name": job.parent_job_name, "step_name": job.step_name}
            return StepJob(again.model_copy(update=kept), None)
        if job.reuse_hash and before.reuse_hash and job.reuse_hash != before.reuse_hash:
            return None  # what lies at the places of its inputs is not what it was
        if before.status == JobStatus.COMPLETED:
            return self._taken_over(job, before) if self._is_untouched(before) else None
        if job.type == "scoring" and before.folder is not None and Path(before.folder).is_dir():
            outputs = {key: Output(type=each.type, path=each.path) for key, each in before.outputs.items()}
            return StepJob(job.model_copy(update={"retry_of": before.name, "outputs": outputs}), None)
        return None

    def _replacing(self, job: Job, before: Job) -> Job:
        """The job; what the step wrote to the same places before, and nobody has changed since, it may replace."""
        is_its_own = before.status == JobStatus.COMPLETED and before.reused_job_name is None
        if not is_its_own or FINGERPRINT not in before.properties or not self._is_untouched(before):
            return job
        if job.command is not None:
            return job.model_copy(update={"command": job.command.model_copy(update={"if_exists": "overwrite"})})
        if job.deployment is not None:
            options = job.deployment.batchpoint.model_copy(update={"if_exists": "overwrite"})
            return job.model_copy(update={"deployment": job.deployment.model_copy(update={"batchpoint": options})})
        return job

    def _reused(self, job: Job) -> StepJob:
        """The job, or what an earlier one with the same work has put out already."""
        for candidate in self._registry.jobs.find_reusable(job.reuse_hash) if job.reuse_hash else ():
            if FINGERPRINT in candidate.properties and self._is_untouched(candidate):
                return self._taken_over(job, candidate)
        return StepJob(job, None)

    def _taken_over(self, job: Job, source: Job) -> StepJob:
        now = self._outputs_fingerprint(source) or ""
        outputs = {
            name: source.outputs[name].model_copy(
                update={"asset_name": output.asset_name, "asset_version": output.asset_version}
            )
            for name, output in job.outputs.items()
        }
        changes = {
            "outputs": outputs,
            "receipt": source.receipt,
            "progress": source.progress,
            "folder": source.folder,
            "reuse_hash": source.reuse_hash,
            "reused_job_name": source.reused_job_name or source.name,
            "properties": job.properties | {FINGERPRINT: now},
        }
        return StepJob(job.model_copy(update=changes), Reason.COMPLETED)

    def _is_untouched(self, job: Job) -> bool:
        """Whether the outputs of a completed job are still there, as it wrote them."""
        now = self._outputs_fingerprint(job)
        return now is not None and job.properties.get(FINGERPRINT, now) == now

    def _outputs_fingerprint(self, job: Job) -> str | None:
        found = []
        for name, output in sorted(job.outputs.items()):
            if output.folder is None and output.uri is None:
                return None
            told = self._fingerprint(self._places.resolve(output_place(output)))
            found.append(f"{name} {told}")
            if told is None:
                return None
        return _hash("\n".join(found))

    def _fingerprint(self, place: Place) -> str | None:
        """Of the files at a place; None when nothing is there, or it cannot be told."""
        try:
            return self._places.stores().fingerprint(place.url, place.datastore)
        except BatchpointError:
            return None  # gone, or a store that does not answer: then nothing is reused, which is always right

    def _reuse_hash(
        self, job: Job, step: Step, pipeline: Pipeline, given: Mapping[str, Input | LiteralValue]
    ) -> str | None:
        """Hash of all that determines what the job puts out; None when something of it cannot be told."""
        identities = {}
        for name, found in job.inputs.items():
            told = self._fingerprint(self._places.resolve(found.path))
            if told is None:
                return None
            source = given[name]
            identities[name] = f"{source.path if isinstance(source, Input) else found.path} {told}"
        # A place that is called after the job is no choice of anybody's; the words for it stand for themselves.
        datastore = {"default_datastore": _default_datastore(pipeline.settings)}
        outputs = {
            name: output.model_copy(
                update={"path": substituted(_chosen_path(step, pipeline, name) or DEFAULT_PLACE, datastore)}
            )
            for name, output in job.outputs.items()
        }
        return reuse_hash(
            job.model_copy(update={"outputs": outputs}),
            code_hash=self._code_hash(job),
            environment_hash=self._environment_hash(job),
            input_fingerprints=identities,
        )

    def _code_hash(self, job: Job) -> str | None:
        code = job.command.code if job.command else None
        if job.deployment is not None and job.deployment.code_configuration is not None:
            code = job.deployment.code_configuration.code
        found = self._assets.resolve("code", code) if code else None
        return found.content_hash if isinstance(found, Code) else None

    def _environment_hash(self, job: Job) -> str | None:
        given = job.command.environment if job.command else job.deployment.environment if job.deployment else None
        if not isinstance(given, str):
            return None
        found = self._assets.resolve("environment", given)
        content = {"image", "conda_file", "pip_requirements", "build"}
        return _hash(found.model_dump_json(include=content)) if isinstance(found, Environment) else None


def step_key(parent: str, step: str) -> str:
    """The idempotency key of a step's job: however often it is asked for, there is one."""
    key = f"step:{parent}:{step}"
    return key if len(key) <= LONGEST_NAME else f"step:{_hash(key)}"


def step_job_name(parent: str, step: str) -> str:
    """What the job of a step is called."""
    name = f"{parent}-{step}"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 17]}-{_hash(name)[:16]}"


def another_name(name: str) -> str:
    """A name for a step's job whose own is taken by somebody's."""
    return f"{name[: LONGEST_NAME - 9]}-{secrets.token_hex(4)}"


def output_place(output: Output) -> str:
    """Where what a job put out is read from: the file itself, or the folder."""
    if output.type == "uri_file" and output.uri:
        return output.uri
    return output.folder or output.uri or output.path or ""


def resumed(job: Job, name: str, by: str | None = None) -> Job:
    """The job that goes on with a pipeline job. It writes to the same places."""
    kept = ("description", "tags", "properties", "display_name", "experiment_name", "endpoint_name", "deployment_name")
    outputs = {
        key: Output(
            type=output.type, path=output.path, asset_name=output.asset_name, asset_version=output.asset_version
        )
        for key, output in job.outputs.items()
    }
    return Job(
        name=name,
        type="pipeline",
        created_by=by,
        pipeline=job.pipeline,
        literals=job.literals,
        inputs=job.inputs,
        outputs=outputs,
        retry_of=job.name,
        **{key: getattr(job, key) for key in kept},
    )


def output_places(outputs: Mapping[str, OutputBinding], settings: PipelineSettings, job: str) -> dict[str, Output]:
    """Where the outputs of a job of this name go: as their paths say, else into a folder named after the job. Pure.

    Source of the folder: Azure ML's default path of an output.
    """
    found = {}
    for name, output in outputs.items():
        words = {"name": job, "default_datastore": _default_datastore(settings), "output_name": name}
        found[name] = Output(
            type=output.type,
            path=substituted(output.path or DEFAULT_PLACE, words),
            asset_name=output.name,
            asset_version=output.version,
        )
    return found


def _default_datastore(settings: PipelineSettings) -> str:
    return (settings.default_datastore or DEFAULT_DATASTORE).removeprefix("azureml:")


_TYPES: dict[str, Literal["command", "scoring", "pipeline"]] = {
    "command": "command",
    "parallel": "scoring",
    "pipeline": "pipeline",
}


def _draft(parent: Job, step_name: str, step: Step, name: str) -> Job:
    """The job without what it reads, writes and does."""
    return Job(
        name=name,
        type=_TYPES[step.type],
        display_name=step.display_name or step_name,
        description=step.description,
        tags=step.tags,
        properties=step.properties,
        created_by=parent.created_by,
        experiment_name=parent.experiment_name,
        parent_job_name=parent.name,
        step_name=step_name,
    )


def _bound_inputs(step: Step, parent: Job, earlier: Mapping[str, Job]) -> dict[str, Input | LiteralValue]:
    """What a step is given, bindings replaced by what they stand for; without what was not given to the pipeline."""
    found: dict[str, Input | LiteralValue] = {}
    for name, given in step.inputs.items():
        bound = binding_of(given.path if isinstance(given, DataBinding) else given)
        if bound is None:
            found[name] = Input(type=given.type, path=given.path) if isinstance(given, DataBinding) else given
        elif bound.step is not None:
            output = earlier[bound.step].outputs[bound.name]
            found[name] = Input(type=output.type, path=output_place(output))
        elif bound.name in parent.inputs:
            found[name] = parent.inputs[bound.name]
        elif bound.name in parent.literals:
            found[name] = parent.literals[bound.name]
        elif (port := input_port(step, name)) is not None and port.default is not None:
            found[name] = port.default
    return found


def _outputs(step: Step, pipeline: Pipeline, parent: Job, job_name: str) -> dict[str, Output]:
    """Where a step writes: to an output of the pipeline, to a place of its choice, or below the default datastore."""
    own: dict[str, OutputBinding] = {}
    found: dict[str, Output] = {}
    for name, given in step.outputs.items():
        kind = output_type(step, name, pipeline.outputs)
        bound = binding_of(output_path(given))
        if bound is not None:
            found[name] = Output.model_validate({"type": kind, "path": parent.outputs[bound.name].path})
            continue
        declared = given.model_dump(exclude_unset=True) if isinstance(given, OutputBinding) else {"path": given}
        own[name] = OutputBinding.model_validate({**declared, "type": kind})
    return output_places(own, pipeline.settings, job_name) | found


def _chosen_path(step: Step, pipeline: Pipeline, name: str) -> str | None:
    """What somebody has said about the place of an output, before words in it were replaced."""
    path = output_path(step.outputs[name])
    bound = binding_of(path)
    return pipeline.outputs[bound.name].path if bound is not None else path


def _closed(step: Step, job: Job, pipeline: Pipeline) -> Step:
    """The step as its job knows it: inputs as they are, outputs at their places, optional segments settled."""
    given = {*job.inputs, *job.literals}
    inputs: dict[str, LiteralValue | DataBinding] = {**job.literals}
    for name, data in job.inputs.items():
        before, port = step.inputs[name], input_port(step, name)
        own = before.mode if isinstance(before, DataBinding) else None
        inputs[name] = DataBinding(type=data.type, path=data.path, mode=own or (port.mode if port else None))
    outputs: dict[str, str | OutputBinding] = {
        name: OutputBinding(type=output.type, path=output.path) for name, output in job.outputs.items()
    }
    changes: dict[str, object] = {"inputs": inputs, "outputs": outputs}
    if not isinstance(step, PipelineStep):
        wanted = step.compute or pipeline.settings.default_compute or pipeline.compute
        changes["compute"] = f"azureml:{compute_name(wanted)}"
    if isinstance(step, CommandStep) and step.command is not None:
        changes["command"] = without_unset(step.command, given)
    if isinstance(step, ParallelStep) and step.task is not None and step.task.program_arguments:
        arguments = without_unset(step.task.program_arguments, given)
        changes["task"] = step.task.model_copy(update={"program_arguments": arguments})
    return step.model_copy(update=changes)


def _with_work(job: Job, outer: Step, step: Step, pipeline: Pipeline) -> Job:
    """The job with what it runs: ``step`` is the closed one, ``outer`` the same as its pipeline has it."""
    if isinstance(step, CommandStep):
        return job.model_copy(update={"command": command_of(step)})
    if isinstance(step, ParallelStep):
        scored = scored_input(step)
        if scored is None or scored not in job.inputs:
            raise InvalidEntityError(
                f"Step {job.step_name} names no data to score. Write input_data: ${{{{inputs.…}}}}."
            )
        deployment = deployment_of(
            step, name=str(job.step_name), cores=os.cpu_count() or 1, input_type=job.inputs[scored].type
        )
        # Source: Azure ML's parallel jobs find the files of all folders below; its endpoints look into none.
        inputs = job.inputs | {scored: job.inputs[scored].model_copy(update={"recursive": True})}
        bound = {"input_data": scored, "append_row_to": collected_output(step), "inputs": inputs}
        return job.model_copy(update={"deployment": deployment, **bound})
    inner = Pipeline.model_validate(
        {
            "settings": pipeline.settings.model_dump(exclude_unset=True),
            "compute": step.compute or pipeline.compute,
            "outputs": {
                # The place is chosen outside, in words that the steps are compared by before they are reused.
                name: {"type": output.type, "path": _chosen_path(outer, pipeline, name)}
                for name, output in job.outputs.items()
            },
            "jobs": {name: each.model_dump(mode="json", exclude_unset=True) for name, each in step.jobs.items()},
        }
    )
    return job.model_copy(update={"pipeline": inner.given()})


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
