"""What the steps of a pipeline are as jobs: a parallel step as a deployment, a command step as a command. Pure.

Meaning and defaults are those of Azure ML's parallel and command jobs, driver arguments included.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from batchpoint.entities.components import expanded
from batchpoint.entities.endpoints import (
    BatchDeployment,
    CodeConfiguration,
    DeploymentSettings,
    ScoringOptions,
    size_in_bytes,
)
from batchpoint.entities.jobs import Command, InputType, Job
from batchpoint.entities.pipeline_faults import Fault
from batchpoint.entities.pipelines import (
    CommandStep,
    DataBinding,
    OutputBinding,
    ParallelStep,
    ParallelTask,
    PipelineStep,
    Step,
)
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.command_line import BINDING, with_segments, words_of

_ENDINGS = {"jsonl": ".jsonl", "parquet": ".parquet", "azureml": ".txt"}
"""Endings of a file that has no name but that of its output, by its format."""


def scored_input(step: ParallelStep) -> str | None:
    """The name of the input that is cut into mini-batches: the one that ``input_data`` names, or the only one."""
    if step.input_data is not None:
        return _bound_name(step.input_data, "inputs", "input_data")
    data = [name for name, given in step.inputs.items() if isinstance(given, DataBinding)]
    return data[0] if len(data) == 1 else None


def collected_output(step: ParallelStep) -> str | None:
    """The name of the output that what ``run()`` returns is written to; None when nothing is collected."""
    target = step.task.append_row_to if step.task else None
    return _bound_name(target, "outputs", "append_row_to") if target else None


def deployment_of(step: ParallelStep, *, name: str, cores: int, input_type: InputType | None = None) -> BatchDeployment:
    """A parallel step, its component merged in, as the deployment that scores it.

    Args:
        step: The step. References in it stay as they are.
        name: What the step is called in its pipeline.
        cores: Of one instance: as many workers it has when the step does not say.
        input_type: Of the input that is cut. A bare number is bytes for an ``mltable``, files else.

    Raises:
        InvalidEntityError: the step has no task, one of its values cannot be read, or a check has nothing to compare
            with.
    """
    task, quality = step.task, step.batchpoint.quality
    if task is None:
        raise InvalidEntityError(f"Step {name} of type parallel has no task. Give it one, or a component.")
    if quality.checks_changes and quality.reference is None:
        raise InvalidEntityError(
            f"Step {name} compares with a reference (quality.max_drift, max_missing_change), and a step has none by "
            "itself: only the jobs of an endpoint do. Name a job in quality.reference: one of this step, run once "
            "without these checks; or leave them out."
        )
    arguments = _read_arguments(task, step.inputs)
    settings, options = _settings_and_options(
        step, task, _mini_batch_size(step, name, is_table=input_type == "mltable")
    )
    settings = settings.model_copy(update={"max_concurrency_per_instance": step.max_concurrency_per_instance or cores})
    facts = {
        "name": _deployment_name(name),
        "endpoint_name": "pipeline",
        "model": task.model,
        "code_configuration": CodeConfiguration(code=task.code or "", scoring_script=task.entry_script)
        if task.entry_script
        else None,
        "environment": task.environment,
        "environment_variables": step.environment_variables,
        "compute": step.compute,
        "resources": step.resources,
        "settings": settings,
        "batchpoint": options,
    }
    try:
        deployment = BatchDeployment.model_validate(facts)
    except ValidationError as refused:
        raise InvalidEntityError(f"Step {name}: {refused.errors()[0]['msg'].removeprefix('Value error, ')}.") from None
    return _obeying(deployment, arguments)


def command_of(step: CommandStep) -> Command:
    """A command step, its component merged in, as the command that its job runs.

    Optional segments (``$[[ … ]]``) are kept when every input that they name is there, else left out.

    Raises:
        InvalidEntityError: the step has no command.
    """
    if step.command is None:
        raise InvalidEntityError("A step of type command has no command. Give it one, or a component.")
    return Command(
        command=with_segments(step.command, step.inputs),
        code=step.code,
        environment=step.environment if isinstance(step.environment, str) else None,
        environment_variables=step.environment_variables,
        compute=step.compute,
        instance_count=step.resources.instance_count,
        timeout=step.limits.timeout,
        if_exists=_if_exists(step),
        direct_inputs=sorted(
            name for name, given in step.inputs.items() if isinstance(given, DataBinding) and given.mode == "direct"
        ),
    )


def faults_of_work(jobs: Mapping[str, Step], at: str = "jobs") -> list[Fault]:
    """What is wrong with what the steps of a sound pipeline, and of those inside it, run: arguments and options that
    do not fit together."""
    faults = []
    for name, declared in jobs.items():
        step = expanded(declared)
        try:
            if isinstance(step, PipelineStep):
                faults += faults_of_work(step.jobs, f"{at}.{name}.jobs")
            elif isinstance(step, ParallelStep):
                deployment_of(step, name=name, cores=1)
            else:
                command_of(step)
        except InvalidEntityError as error:
            faults.append(Fault(f"{at}.{name}", error.message))
    return faults


def reuse_hash(
    job: Job,
    *,
    code_hash: str | None = None,
    environment_hash: str | None = None,
    input_fingerprints: Mapping[str, str] | None = None,
) -> str | None:
    """A hash of all that determines what a step's job puts out; None for a job that is no step.

    Source: what Azure ML compares before it reuses a step: code, environment, command or task, inputs, literals,
    outputs and run settings, compute and number of instances among them.

    Args:
        job: The job, everything in it resolved.
        code_hash: Of the content of its code; without it, the reference counts.
        environment_hash: Of the definition of its environment; without it, the reference counts.
        input_fingerprints: For each data input what its identity is; without it, its address.
    """
    if job.type == "pipeline":
        return None
    fingerprints = input_fingerprints or {}
    work = _what_counts(job, code_hash, environment_hash)
    work["inputs"] = {
        name: [
            fingerprints.get(name, given.path),
            *given.paths,
            given.model_dump(mode="json", exclude={"path", "paths"}),
        ]
        for name, given in job.inputs.items()
    }
    work["literals"] = {name: [type(value).__name__, value] for name, value in job.literals.items()}
    work["outputs"] = {name: [output.type, _without_job(output.path, job.name)] for name, output in job.outputs.items()}
    work["bound"] = [job.type, job.input_data, job.append_row_to]
    text = json.dumps(work, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _if_exists(step: CommandStep) -> Literal["fail", "overwrite"]:
    given = step.properties.get("batchpoint.if_exists", "fail")
    if given not in {"fail", "overwrite"}:
        raise InvalidEntityError(f"properties: batchpoint.if_exists is {given!r}. Write fail or overwrite.")
    return "overwrite" if given == "overwrite" else "fail"


class _Size(NamedTuple):
    settings: dict[str, Any]
    options: dict[str, Any]


def _mini_batch_size(step: ParallelStep, name: str, *, is_table: bool) -> _Size:
    """``10`` is a number of files, ``10kb`` a size; partition keys make both meaningless.

    Of a table a bare number is bytes, unless it turns out to be a list of files: then it is their number.
    """
    if step.partition_keys:
        return _Size({}, {"partition_keys": step.partition_keys})
    text = str(step.mini_batch_size).strip() if step.mini_batch_size is not None else ""
    if not text:
        return _Size({} if is_table else {"mini_batch_size": 1}, {})
    size = size_in_bytes(text)
    if size is not None:
        return _Size({}, {"split": "bytes", "mini_batch_bytes": size})
    if not text.isdecimal() or int(text) < 1:
        raise InvalidEntityError(
            f"mini_batch_size of step {name} is {step.mini_batch_size!r}. Give a number of files, such as 10, or a "
            "size, such as 100kb or 10mb."
        )
    by_bytes = is_table and step.batchpoint.mini_batch_bytes is None
    return _Size({"mini_batch_size": int(text)}, {"split": "bytes", "mini_batch_bytes": int(text)} if by_bytes else {})


def _settings_and_options(
    step: ParallelStep, task: ParallelTask, sizes: _Size
) -> tuple[DeploymentSettings, ScoringOptions]:
    settings = DeploymentSettings(
        error_threshold=step.error_threshold,
        retry_settings=step.retry_settings,
        logging_level=step.logging_level,
        output_action="append_row" if task.append_row_to else "summary_only",
        output_file_name=_rows_file(step),
        **sizes.settings,
    )
    options = step.batchpoint.model_dump(exclude_unset=True) | sizes.options
    if "mini_batch_error_threshold" in step.model_fields_set:
        options["mini_batch_error_threshold"] = step.mini_batch_error_threshold
    return settings, ScoringOptions.model_validate(options)


def _rows_file(step: ParallelStep) -> str:
    """The file that rows are collected in: as the output's path names it, else called after the output."""
    output = collected_output(step)
    if output is None:
        return "predictions.csv"
    given = step.outputs.get(output)
    path = given.path if isinstance(given, OutputBinding) and given.type == "uri_file" else None
    last = (path or "").rpartition("/")[2]
    if last and "." in last and "{{" not in last:
        return last
    return f"{output}{_ENDINGS.get(step.batchpoint.output_format, '.csv')}"


def _deployment_name(step: str) -> str:
    """A step's name as one that deployments may have; it is only shown."""
    name = re.sub(r"[^a-zA-Z0-9]+", "-", step).strip("-")[:24].strip("-")
    return name if re.match(r"^[a-zA-Z]..", name) else f"step-{name}".strip("-")


def _bound_name(text: str, side: str, key: str) -> str:
    found = BINDING.fullmatch(text.strip())
    if found is None or found["side"] != side:
        raise InvalidEntityError(f"{key} is {text!r}. Write ${{{{{side}.<name>}}}}.")
    return found["name"]


# ── arguments that are meant for the driver ─────────────────────────────────────────────────────────────────────────


class _Arguments(NamedTuple):
    script: list[str]
    settings: dict[str, Any]
    retry: dict[str, Any]
    options: dict[str, Any]


def _is_true(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def _retries(text: str) -> int:
    return int(text) - 1  # Azure's argument counts tries


def _none_of_them(text: str) -> int:
    if int(text) > 0:
        raise ValueError("mini-batches without data are not known here")
    return 0


_DRIVER: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "--error_threshold": ("settings", "error_threshold", int),
    "--logging_level": ("settings", "logging_level", str),
    "--process_count_per_node": ("settings", "max_concurrency_per_instance", int),
    "--append_row_file_name": ("settings", "output_file_name", str),
    "--run_invocation_timeout": ("retry", "timeout", float),
    "--run_max_try": ("retry", "max_retries", _retries),
    "--allowed_failed_count": ("options", "mini_batch_error_threshold", int),
    "--mini_batch_error_threshold": ("options", "mini_batch_error_threshold", int),
    "--allowed_failed_percent": ("options", "allowed_failed_percent", float),
    "--task_overhead_timeout": ("options", "task_overhead_timeout", float),
    "--progress_update_timeout": ("options", "progress_update_timeout", float),
    "--append_row_dataframe_header": ("options", "dataframe_header", _is_true),
    "--rank_mini_batch_count": ("", "", _none_of_them),
    **dict.fromkeys(
        (
            "--first_task_creation_timeout", "--resource_monitor_interval", "--copy_logs_to_parent", "--nice",
            "--push_metrics_to_parent", "--metrics_name_prefix", "--profiling_module",
        ),
        ("", "", str),
    ),
}  # fmt: skip
"""Arguments of Azure ML's driver: what each sets. Those that set nothing have no meaning here, nor for the script."""


def _read_arguments(task: ParallelTask, given: Collection[str]) -> _Arguments:
    """``program_arguments``, split as a shell does: what the driver obeys, and the rest, which is the script's."""
    read = _Arguments([], {}, {}, {})
    words = words_of(with_segments(task.program_arguments or "", given))
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in _DRIVER:
            read.script.append(word)
            continue
        part, key, meaning = _DRIVER[name]
        value = value if equals else next(rest, "")
        try:
            understood = meaning(value)
        except ValueError:
            raise InvalidEntityError(f"program_arguments: {name} cannot be {value!r} here.") from None
        if part:
            getattr(read, part)[key] = understood
    return read


def _obeying(deployment: BatchDeployment, arguments: _Arguments) -> BatchDeployment:
    """The deployment with what its driver arguments say; they win over what stands beside them."""
    body = deployment.model_dump(exclude_unset=True)
    settings = body["settings"] | arguments.settings
    settings["retry_settings"] = deployment.settings.retry_settings.model_dump() | arguments.retry
    options = body["batchpoint"] | arguments.options
    if arguments.script:
        options["program_arguments"] = [*arguments.script, *deployment.batchpoint.program_arguments]
    try:
        changes = {
            "settings": DeploymentSettings.model_validate(settings),
            "batchpoint": ScoringOptions.model_validate(options),
        }
    except ValidationError as refused:
        first = refused.errors()[0]
        raise InvalidEntityError(f"program_arguments: {first['loc'][-1]}: {first['msg']}.") from None
    return deployment.model_copy(update=changes)


# ── reuse ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_NOT_OF_THE_WORK = {
    "name", "endpoint_name", "description", "tags", "properties", "created_at", "modified_at", "created_by",
    "provisioning_state",
}  # fmt: skip
"""What a deployment is called, and when it was made, changes none of its predictions."""


def _what_counts(job: Job, code_hash: str | None, environment_hash: str | None) -> dict[str, Any]:
    """The command or the task, with hashes in place of the references that they are known for."""
    if job.command is not None:
        command = job.command.model_dump(mode="json")
        command["code"] = code_hash or job.command.code
        command["environment"] = environment_hash or job.command.environment
        return {"command": command}
    if job.deployment is None:
        return {}
    task = job.deployment.model_dump(mode="json", exclude=_NOT_OF_THE_WORK)
    code = job.deployment.code_configuration
    if code is not None:
        task["code_configuration"] = [code_hash or code.code, code.scoring_script]
    task["environment"] = environment_hash or task["environment"]
    return {"task": task}


def _without_job(path: str | None, job: str) -> str | None:
    """An output's place; one that is called after the job is no choice of anybody's."""
    return path.replace(job, "${{name}}") if path else None
