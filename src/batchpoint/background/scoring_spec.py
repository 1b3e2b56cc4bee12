"""A scoring job, and what it turned out to need on this machine → the specification of its run. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from batchpoint import __version__
from batchpoint.background.step_places import StepPlaces, is_own_folder, location_of
from batchpoint.entities.assets import Model
from batchpoint.entities.endpoints import BatchDeployment, ModelMap, output_format_of
from batchpoint.entities.jobs import Input, Job
from batchpoint.entities.resources import MACHINE, Compute
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.command_line import filled_words
from batchpoint.operations.jobs import collected_output
from batchpoint.operations.places import Place
from batchpoint.scoring.spec import (
    ChallengerSpec,
    InputSpec,
    ModelMapSpec,
    ModelSpec,
    OutputSpec,
    RetrySpec,
    SampleSpec,
    ScoringSpec,
    ScriptSpec,
    SplitSpec,
    ThresholdSpec,
)

TABULAR_ENDINGS = (".csv", ".csv.gz", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
"""Files whose rows can be scored; MLflow models get anything else as paths."""

STAYS_WARM_SECONDS = 30 * 86400.0
"""Idle time of a fork server on a compute that keeps instances (``min_instances``)."""

LEAST_SKETCHED_ROWS = 5_000
"""Rows of a mini-batch below which its columns are not looked at, unless somebody wants it: that would take much of the
time. The same goes for mini-batches of one key, which are small as a rule."""

_IN_WORDS = {"paths": "paths of files", "dataframe": "rows as a DataFrame"}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a job's deployment and input turned out to be on this machine."""

    python: str
    compute: Compute
    pool: str = MACHINE
    """Of instances, that the compute is."""
    home: Path
    worker_source: str = ""
    """Stands for the files of this program that workers are made of. Empty where no warm process outlives the run."""
    output: Place
    """Folder of the predictions."""
    output_file_name: str | None = None
    """Of a step whose output names the file: what the predictions are called."""
    step: StepPlaces = field(default_factory=StepPlaces)
    """What a step's arguments name."""
    model: Model | None = None
    model_path: Path | None = None
    code_dir: Path | None = None
    inputs: tuple[Place, ...] = ()
    """Where the input lies, assets replaced by what they point to."""
    tabular_input: bool = True
    is_table: bool = False
    """Whether the input is a table as such, an MLTable or a query, and not files that hold one."""
    mltable: dict[str, Any] | None = None
    default_model: tuple[Model, Path] | None = None
    """Of a model map: what scores keys without a model of their own."""
    submitted: datetime | None = None
    """When the job was submitted, or the first of those that score its failed items again."""
    retried: Path | None = None
    """Folder of the run whose failed items are scored again."""
    retried_passed: bool = False
    """Whether that run has passed its checks, and published."""
    challenger: Challenging | None = None
    """What the challenger's deployment turned out to be, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Challenging:
    """A challenger's deployment on this machine."""

    python: str
    model: Model | None
    model_path: Path | None
    code_dir: Path | None


def build_spec(job: Job, resolved: Resolved) -> ScoringSpec:
    """The specification of a job's run. Pure.

    Raises:
        InvalidEntityError: the job has no deployment, no input, or names a datastore that is not there.
    """
    deployment = deployment_of_job(job)
    settings, options = deployment.settings, deployment.batchpoint
    script = script_of(deployment, resolved)
    compute = resolved.compute
    instances = min(deployment.resources.instance_count, compute.max_instances)
    workers = instances * settings.max_concurrency_per_instance
    variables = {**deployment.environment_variables, **settings.environment_variables}
    model, split = resolved.model, _split(deployment, script)
    # A retry of some keys keeps the rows of the others, cut out of parts that were looked at whole: what was published
    # was checked then, and of what is scored anew alone drift would tell nothing.
    keeps_checked = resolved.retried_passed and options.model_map is not None
    unchecked = {"max_drift": None, "max_missing_change": None} if keeps_checked else {}
    return ScoringSpec(
        job=job.name,
        endpoint=job.endpoint_name,
        deployment=job.deployment_name,
        python=resolved.python,
        script=script,
        model=_model(model, resolved.model_path) if model and resolved.model_path else None,
        model_map=_model_map(options.model_map, resolved) if options.model_map else None,
        environment_variables=variables,
        input=_input(job, resolved),
        split=split,
        csv=options.csv,
        output=_output(job, deployment, resolved),
        retry=RetrySpec(
            max_retries=settings.retry_settings.max_retries,
            timeout=settings.retry_settings.timeout,
            task_overhead_timeout=options.task_overhead_timeout,
            progress_update_timeout=options.progress_update_timeout,
            max_worker_losses=options.max_worker_losses,
            # What shares a key is scored whole or not at all: half of it would be another result, not a part of it.
            isolate_failures=options.isolate_failures and (not options.partition_keys or options.model_map is not None),
        ),
        thresholds=ThresholdSpec(
            items=settings.error_threshold,
            mini_batches=options.mini_batch_error_threshold,
            percent=options.allowed_failed_percent,
        ),
        instances=instances,
        processes_per_instance=settings.max_concurrency_per_instance,
        logging_level=settings.logging_level,
        fork_server=str(fork_server_folder(resolved, script, variables, workers)),
        fork_server_idle_seconds=STAYS_WARM_SECONDS if compute.min_instances else compute.idle_time_before_scale_down,
        sample=SampleSpec(rows=job.sample.rows, finish_by=job.sample.finish_by) if job.sample else None,
        challenger=_challenger(job, resolved, script),
        sketches=_sketches(job, script, split),
        quality=options.quality.model_copy(update=unchecked),
        keeps_checked=keeps_checked,
        retry_of=str(resolved.retried) if resolved.retried else None,
        mltable=resolved.mltable,
        fetched_inputs=resolved.step.fetched,
        staged_outputs=resolved.step.staged,
    )


def _sketches(job: Job, script: ScriptSpec, split: SplitSpec) -> bool:
    given = deployment_of_job(job).batchpoint
    options = given.quality
    are_small = bool(given.partition_keys) or (split.rows is not None and split.rows < LEAST_SKETCHED_ROWS)
    by_default = (script.takes == "dataframe" and not are_small) or options.checks_columns
    return job.sample is None and (by_default if options.sketches is None else options.sketches)


def job_folder(workspace: Path, job: str) -> Path:
    """The run's folder of a job, in the folder of its workspace."""
    return workspace / "jobs" / job


def fork_server_folder(resolved: Resolved, script: ScriptSpec, variables: Mapping[str, str], workers: int) -> Path:
    """The warm process that may serve this run: shared by runs of the same interpreter, model, code and threads.

    And of the same environment variables: what is imported ahead may read them. One that outlives an upgrade would
    fork workers of the version before, or of both when they import the rest of their files.
    """
    key = json.dumps(
        [
            __version__,
            resolved.worker_source,
            resolved.python,
            resolved.pool,
            resolved.model.reference if resolved.model else None,
            str(resolved.model_path),
            str(resolved.code_dir),
            script.path,
            script.takes,
            sorted(variables.items()),
            workers,
        ]
    )
    return resolved.home / "fork_servers" / hashlib.sha256(key.encode()).hexdigest()[:16]


def deployment_of_job(job: Job) -> BatchDeployment:
    if job.deployment is None:
        raise InvalidEntityError(f"Job {job.name} has no deployment to run.")
    return job.deployment


def scored_input(job: Job) -> Input:
    """The input that is cut into mini-batches."""
    name = job.input_data or next(iter(job.inputs), None)
    if name is None or name not in job.inputs:
        raise InvalidEntityError(f"Job {job.name} has no input{f' {name}' if name else ''}.")
    return job.inputs[name]


def script_of(deployment: BatchDeployment, resolved: Resolved) -> ScriptSpec:
    options = deployment.batchpoint
    code = deployment.code_configuration
    kind: Literal["script", "mlflow", "model_map"] = "script" if code is not None else "mlflow"
    if options.model_map is not None:
        kind = "model_map"
    takes = "dataframe" if kind == "model_map" else options.mini_batch_type
    if takes == "auto":
        by_rows = kind == "mlflow" or options.split in {"rows", "bytes"}  # a path cannot say which rows of the file
        rows = resolved.is_table or (by_rows and resolved.tabular_input)
        takes = "dataframe" if rows else "paths"
    return ScriptSpec(
        kind=kind,
        path=str(resolved.code_dir / code.scoring_script) if code and resolved.code_dir else None,
        code_dir=str(resolved.code_dir) if resolved.code_dir else None,
        arguments=filled_words(options.program_arguments, resolved.step.values),
        takes=takes,
    )


def _challenger(job: Job, resolved: Resolved, champion: ScriptSpec) -> ChallengerSpec | None:
    """The challenger as the run needs it: it is given what the champion is given, paths or rows.

    Raises:
        InvalidEntityError: it could not take that.
    """
    deployment, found = job.challenger, resolved.challenger
    if deployment is None or found is None:
        return None
    script = script_of(deployment, replace(resolved, code_dir=found.code_dir))
    if "model_map" in (champion.kind, script.kind):
        message = f"A model map cannot be compared: {job.deployment_name} or {deployment.name} has one."
        raise InvalidEntityError(message)
    declared = deployment.batchpoint.mini_batch_type
    takes_rows = script.kind == "mlflow" and resolved.tabular_input
    if champion.takes != script.takes and (declared != "auto" or takes_rows):
        raise InvalidEntityError(
            f"The challenger {deployment.name} takes {_IN_WORDS[script.takes]}, but the champion "
            f"{job.deployment_name} takes {_IN_WORDS[champion.takes]}, and both are given the same. "
            "Set batchpoint.mini_batch_type alike in both deployments."
        )
    variables = {**deployment.environment_variables, **deployment.settings.environment_variables}
    return ChallengerSpec(
        deployment=deployment.name,
        python=found.python,
        script=script.model_copy(update={"takes": champion.takes}),
        model=_model(found.model, found.model_path) if found.model and found.model_path else None,
        environment_variables=variables,
        timeout=deployment.settings.retry_settings.timeout,
    )


def _model(model: Model, path: Path) -> ModelSpec:
    # Azure's scripts look for the registered file or folder, under its own name, inside AZUREML_MODEL_DIR.
    return ModelSpec(
        name=model.name, version=model.version or "1", type=model.type, directory=str(path.parent), path=str(path)
    )


def _input(job: Job, resolved: Resolved) -> InputSpec:
    given = scored_input(job)
    return InputSpec(
        type=given.type,
        locations=[location_of(place) for place in resolved.inputs],
        include=given.include,
        exclude=given.exclude,
        recursive=given.recursive,
        query=given.query,
    )


def _model_map(model_map: ModelMap, resolved: Resolved) -> ModelMapSpec:
    default = None
    if resolved.default_model is not None:
        model, path = resolved.default_model
        default = {"name": model.reference, "path": str(path), "type": model.type}
    return ModelMapSpec(
        on_missing=model_map.on_missing,
        default=default,
        cached_models=model_map.cached_models,
        features=model_map.features,
        labels=model_map.labels,
        prediction_column=model_map.prediction_column,
    )


def _split(deployment: BatchDeployment, script: ScriptSpec) -> SplitSpec:
    options, size = deployment.batchpoint, deployment.settings.mini_batch_size
    by = options.split
    if by == "auto":
        by = "files" if script.takes == "paths" else "bytes"
    return SplitSpec(
        by=by,
        files=size,
        rows=size if by == "rows" else None,
        bytes=options.mini_batch_bytes,
        partition_keys=options.partition_keys,
        partition_format=options.partition_format,
    )


def _output(job: Job, deployment: BatchDeployment, resolved: Resolved) -> OutputSpec:
    options, settings, folder = deployment.batchpoint, deployment.settings, resolved.output
    name = collected_output(job)
    file_name = resolved.output_file_name or settings.output_file_name
    owns_folder = is_own_folder(folder.uri, name)
    beside = "" if owns_folder else f"{PurePosixPath(file_name).stem}."
    return OutputSpec(
        name=name,
        action=settings.output_action,
        format=output_format_of(options.output_format, file_name),
        folder=location_of(folder),
        file_name=file_name,
        errors_name=f"{beside}errors.{options.errors_format}",
        receipt_name=f"{beside}receipt.json",
        owns_folder=owns_folder,
        if_exists=options.if_exists,
        table=options.table,
        key_columns=options.key_columns,
        passthrough=options.passthrough,
        row_keys=options.row_keys,
        errors_format=options.errors_format,
        dataframe_header=options.dataframe_header,
        rename=options.rename,
        file_per_key=options.file_per_key,
        one_file=options.one_file,
        submitted=resolved.submitted,
    )
