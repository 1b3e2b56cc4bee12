"""Azure ML's ``ParallelRunConfig`` (SDK v1) as ``save_to_yaml`` writes it: read with its own defaults and words.

It stands for keys of a deployment, or of a parallel step, beside which it is given as ``parallel_run_config:``. What is
said beside it wins.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from batchpoint.entities.assets import Environment
from batchpoint.entities.base import Part

KEY = "parallel_run_config"
DEFAULT_ROWS_BYTES = 1 << 20
"""Size of a mini-batch of rows when the file says nothing; of files it is ten."""
DEFAULT_FILES = "10"


def _lower(value: object) -> object:
    """Either case will do, as in SDK v1."""
    return value.lower() if isinstance(value, str) else value


def _text(value: object) -> object:
    """A bare number is a size as well."""
    return str(value) if isinstance(value, int) else value


class ParallelRunConfig(Part):
    """How a scoring script is run in parallel. Keys and defaults are those of SDK v1."""

    entry_script: str
    source_directory: str | None = None
    environment: str | Environment | None = None
    environment_name: str | None = None
    environment_version: str | None = None
    error_threshold: int = Field(ge=-1)
    """Failed items that a job survives; -1 means any number."""
    output_action: Annotated[Literal["append_row", "summary_only"], BeforeValidator(_lower)]
    compute_target_name: str = Field(alias="compute_target")
    node_count: int = Field(ge=1)
    process_count_per_node: int | None = Field(default=None, ge=1)
    mini_batch_size: Annotated[str, BeforeValidator(_text)] | None = Field(
        default=None, pattern=r"^\d+([kKmMgG][bB])?$"
    )
    """Files of one ``run()`` call, or bytes of rows. None means 10 files, or 1 MB."""
    partition_keys: list[str] | None = None
    description: str | None = None
    logging_level: Annotated[Literal["debug", "info", "warning"], BeforeValidator(_lower)] = "info"
    run_invocation_timeout: int = Field(default=60, gt=0)
    """Seconds that one ``run()`` may take."""
    run_max_try: int = Field(default=3, gt=0)
    """Tries, the first one included."""
    append_row_file_name: str = Field(default="parallel_run_step.txt", pattern=r'^[^~"#%&*:<>?/\\{|}]+$')
    allowed_failed_count: int | None = Field(default=None, ge=-1)
    """Failed mini-batches that a job survives."""
    allowed_failed_percent: float | None = Field(default=None, ge=0, le=100)
    environment_variables: dict[str, str] = Field(default_factory=dict)

    @field_validator("environment", mode="before")
    @classmethod
    def _environment_of_today(cls, value: Any) -> Any:
        """SDK v1 wrote an environment with its conda specification inside ``python``."""
        if not isinstance(value, Mapping):
            return value
        if not isinstance(value.get("python"), Mapping):
            return {"name": KEY, **value}
        declared = {"name": KEY} | {key: value[key] for key in ("name", "version") if value.get(key)}
        conda = value["python"].get("condaDependencies")
        image = (value.get("docker") or {}).get("baseImage")
        return declared | {key: item for key, item in (("conda_file", conda), ("image", image)) if item}

    @model_validator(mode="after")
    def _fits_together(self) -> ParallelRunConfig:
        if self.partition_keys and self.mini_batch_size is not None:
            raise ValueError("give either 'partition_keys' or 'mini_batch_size', not both")
        if self.environment is None and self.environment_name is None:
            raise ValueError("give 'environment' or 'environment_name'")
        return self

    def deployment_keys(self) -> dict[str, Any]:
        """Keys of a batch deployment that mean the same."""
        settings = {
            "mini_batch_size": self._files_or_size,
            "max_concurrency_per_instance": self.process_count_per_node,
            "error_threshold": self.error_threshold,
            "output_action": self.output_action,
            "output_file_name": self.append_row_file_name,
            "retry_settings": self._retry_settings,
            "logging_level": self.logging_level,
        }
        keys = {
            "description": self.description,
            "compute": self.compute_target_name,
            "resources": {"instance_count": self.node_count},
            "environment": self._environment,
            "environment_variables": self.environment_variables,
            "code_configuration": {"code": self.source_directory or ".", "scoring_script": self.entry_script},
            "settings": _without_none(settings),
            "batchpoint": self._options | _without_none({"mini_batch_error_threshold": self.allowed_failed_count}),
        }
        return _without_none(keys)

    def step_keys(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of a parallel step with these outputs that mean the same.

        Raises:
            ValueError: rows are to be collected, and it is not clear in which output.
        """
        task: dict[str, Any] = {
            "type": "run_function",
            "code": self.source_directory or ".",
            "entry_script": self.entry_script,
            "environment": self._environment,
            "program_arguments": f"--append_row_file_name {shlex.quote(self.append_row_file_name)}",
        }
        if self.output_action == "append_row":
            if len(outputs) != 1:
                raise ValueError(f"{KEY} says append_row: give the step one output, or task.append_row_to")
            task["append_row_to"] = f"${{{{outputs.{next(iter(outputs))}}}}}"
        keys = {
            "description": self.description,
            "compute": self.compute_target_name,
            "resources": {"instance_count": self.node_count},
            "mini_batch_size": None if self.partition_keys else self._files_or_size,
            "partition_keys": self.partition_keys,
            "max_concurrency_per_instance": self.process_count_per_node,
            "retry_settings": self._retry_settings,
            "error_threshold": self.error_threshold,
            "mini_batch_error_threshold": self.allowed_failed_count,
            "logging_level": self.logging_level,
            "environment_variables": self.environment_variables,
            "task": task,
            "batchpoint": {key: item for key, item in self._options.items() if key != "partition_keys"},
        }
        return _without_none(keys)

    @property
    def _files_or_size(self) -> str:
        return DEFAULT_FILES if self.mini_batch_size is None else self.mini_batch_size

    @property
    def _retry_settings(self) -> dict[str, Any]:
        return {"max_retries": self.run_max_try - 1, "timeout": self.run_invocation_timeout}

    @property
    def _environment(self) -> Any:
        if self.environment is not None:
            given = self.environment
            return given if isinstance(given, str) else given.model_dump(exclude_unset=True)
        version = f":{self.environment_version}" if self.environment_version else "@latest"
        return f"azureml:{self.environment_name}{version}"

    @property
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "allowed_failed_percent": self.allowed_failed_percent,
            "partition_keys": self.partition_keys,
            "mini_batch_bytes": DEFAULT_ROWS_BYTES if self.mini_batch_size is None else None,
            # Files without an ending of ours are read as Azure writes them: by spaces, without a header.
            "output_format": "azureml" if self.append_row_file_name.endswith(".txt") else None,
        }
        return _without_none(options)


def as_deployment(value: Mapping[str, Any]) -> dict[str, Any]:
    """A deployment as it was written, with what ``parallel_run_config`` stands for in its place.

    One with faults stays where it is, so that they are told with their keys.
    """
    config = _config_of(value)
    if config is None:
        return dict(value)
    keys = config.deployment_keys()
    keys["settings"] = {key: item for key, item in keys["settings"].items() if key not in value}  # the legacy form
    return _beside(keys, {key: item for key, item in value.items() if key != KEY})


def as_step(value: Mapping[str, Any], *, is_component: bool = False) -> dict[str, Any]:
    """The same for a parallel step, or a component of that type, which has no compute."""
    config = _config_of(value)
    if config is None:
        return dict(value)
    given = {key: item for key, item in value.items() if key != KEY}
    task = given.get("task")
    says_where = isinstance(task, Mapping) and task.get("append_row_to")
    keys = config.step_keys({"said": None} if says_where else given.get("outputs") or {})
    if is_component:
        del keys["compute"]
    inputs = given.get("inputs")
    if isinstance(inputs, Mapping) and len(inputs) == 1:  # SDK v1 cuts every input that is no side input
        keys["input_data"] = f"${{{{inputs.{next(iter(inputs))}}}}}"
    if isinstance(task, Mapping) and task.get("program_arguments"):
        arguments = f"{keys['task']['program_arguments']} {task['program_arguments']}"
        given["task"] = {**task, "program_arguments": arguments}
    return _beside(keys, given)


def _config_of(value: Mapping[str, Any]) -> ParallelRunConfig | None:
    given = value.get(KEY)
    if given is None or isinstance(given, ParallelRunConfig):
        return given
    try:
        return ParallelRunConfig.model_validate(given)
    except ValidationError:
        return None


def _beside(keys: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given wins; of parts, key by key."""
    result = dict(keys)
    for key, item in given.items():
        inner = result.get(key)
        result[key] = {**inner, **item} if isinstance(inner, dict) and isinstance(item, Mapping) else item
    return result


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in values.items() if item is not None}
