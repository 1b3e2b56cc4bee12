"""Jobs: one piece of work in the queue, its states, what it reads, what it writes, how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, SerializationInfo, field_serializer, field_validator, model_validator

from batchpoint.entities.base import Entity, JobName, Part
from batchpoint.entities.endpoints import BatchDeployment, CsvOptions, LoggingLevel, OutputTable, size_in_bytes
from batchpoint.entities.file_names import as_text
from batchpoint.entities.quality import QualityOptions, QualitySummary


class JobStatus(StrEnum):
    """Where a job is in its life. *Cancel requested* is a flag on the job, not a status."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in TERMINAL_STATUSES


TERMINAL_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED})

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.PREPARING, JobStatus.FAILED, JobStatus.CANCELED}),
    JobStatus.PREPARING: frozenset({JobStatus.RUNNING, *TERMINAL_STATUSES}),
    JobStatus.RUNNING: frozenset({JobStatus.FINALIZING, *TERMINAL_STATUSES}),
    JobStatus.FINALIZING: TERMINAL_STATUSES,
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELED: frozenset(),
}
"""The allowed moves. Only ``registry/jobs.py`` applies them."""

AZURE_STATUS: dict[JobStatus, str] = {
    JobStatus.QUEUED: "Queued",
    JobStatus.PREPARING: "Preparing",
    JobStatus.RUNNING: "Running",
    JobStatus.FINALIZING: "Finalizing",
    JobStatus.COMPLETED: "Completed",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELED: "Canceled",
}
"""Azure ML's words for our states (its enum also knows NotStarted, Starting, Provisioning, CancelRequested, Paused)."""


class Reason(StrEnum):
    """Why a job ended. The status follows from it; nobody picks a status by hand."""

    COMPLETED = "completed"
    ERROR_THRESHOLD_EXCEEDED = "error_threshold_exceeded"
    ALL_ITEMS_FAILED = "all_items_failed"
    SCORING_SCRIPT_FAILED = "scoring_script_failed"
    ENVIRONMENT_FAILED = "environment_failed"
    INPUT_UNAVAILABLE = "input_unavailable"
    OUTPUT_FAILED = "output_failed"
    RECEIPT_UNBALANCED = "receipt_unbalanced"
    QUALITY_CHECK_FAILED = "quality_check_failed"
    COMMAND_FAILED = "command_failed"
    NO_PROGRESS = "no_progress"
    WORKERS_LOST = "workers_lost"
    STEP_FAILED = "step_failed"
    CANCELED_BY_USER = "canceled_by_user"
    LOST = "lost"
    INTERNAL_ERROR = "internal_error"

    @property
    def status(self) -> JobStatus:
        """The status that a job with this reason ends in."""
        if self is Reason.COMPLETED:
            return JobStatus.COMPLETED
        return JobStatus.CANCELED if self is Reason.CANCELED_BY_USER else JobStatus.FAILED


InputType = Literal["uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"]
OutputType = Literal["uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"]

LiteralValue = bool | int | float | str
"""The value of an input that is no data."""


class Input(Part):
    """What to score."""

    type: InputType | None = None
    """None: found out from what lies there."""
    path: str
    """``azureml:name:version``, ``azureml://datastores/<ds>/paths/<p>``, a URL, or a path or glob of this machine."""
    paths: list[str] = Field(default_factory=list)
    """Further files of the same input."""
    include: list[str] = Field(default_factory=list)
    """Globs of relative paths to take; none takes all."""
    exclude: list[str] = Field(default_factory=list)
    """Globs of relative paths to leave out (counted as skipped)."""
    recursive: bool = False
    """Whether sub-folders are explored. Azure's rule is no."""
    query: str | None = None
    """SQL, asked of the database at ``path`` (``azureml://datastores/<sql datastore>``, ``sqlite:///…``,
    ``postgresql://…``): its rows are what is scored."""


class Output(Part):
    """Where to write. None of it: the default datastore, in a folder named after the job."""

    type: OutputType = "uri_file"
    path: str | None = None
    """A folder or a file: ``azureml://datastores/<ds>/paths/<p>``, an fsspec URL, or a path of this machine."""
    uri: str | None = None
    """Where the predictions lie, once the job has published them. Set by the job."""
    folder: str | None = None
    """The folder that all published files lie in. Set by the job."""
    files: list[str] = Field(default_factory=list)
    """The published files, relative to ``folder``, named as ``file_names.as_text`` writes them. Set by the job."""
    table: str | None = None
    """The database table that the predictions went to. Set by the job."""
    asset_name: str | None = None
    """When given, what was written is registered as a data asset of this name once the job has completed."""
    asset_version: str | None = None

    @field_validator("files")
    @classmethod
    def _names_are_text(cls, value: list[str]) -> list[str]:
        """A name that cannot be written down would break every list that has the job in it."""
        return [as_text(name) for name in value]


class RetryOverrides(Part):
    """Retry settings of one invoke; what is None stays as the deployment has it."""

    max_retries: int | None = Field(default=None, ge=0)
    timeout: float | None = Field(default=None, gt=0, le=259200)


class Overrides(Part):
    """What one invoke may change. What is None stays as the deployment has it."""

    instance_count: int | None = Field(default=None, ge=1)
    max_concurrency_per_instance: int | None = Field(default=None, ge=1)
    mini_batch_size: int | None = Field(default=None, ge=1)
    error_threshold: int | None = Field(default=None, ge=-1)
    retry_settings: RetryOverrides | None = None
    logging_level: LoggingLevel | None = None
    output_file_name: str | None = Field(default=None, pattern=r"^[^/\\\x00]+$")
    output_format: Literal["auto", "csv", "jsonl", "parquet", "azureml"] | None = None
    split: Literal["auto", "files", "rows", "bytes"] | None = None
    mini_batch_bytes: int | None = Field(default=None, ge=1)
    partition_keys: list[str] | None = None
    partition_format: str | None = None
    csv: CsvOptions | None = None
    """Keys that are given here take the place of the deployment's; the others stay."""
    key_columns: list[str] | None = None
    passthrough: list[str] | None = None
    row_keys: bool | None = None
    errors_format: Literal["jsonl", "parquet"] | None = None
    mini_batch_error_threshold: int | None = Field(default=None, ge=-1)
    allowed_failed_percent: float | None = Field(default=None, ge=0, le=100)
    if_exists: Literal["fail", "overwrite", "version"] | None = None
    table: OutputTable | None = None
    quality: QualityOptions | None = None
    """Keys that are given here take the place of the deployment's; the others stay. Ranges do so one by one;
    ``output_ranges: {}`` checks none of them."""
    keys: list[dict[str, str | None]] | None = Field(default=None, min_length=1)
    """With a model map: the values of the partition keys to score. The rows of others are left out (skipped)."""

    @model_validator(mode="before")
    @classmethod
    def _size_in_bytes(cls, value: Any) -> Any:
        """``mini_batch_size: 10MB`` means rows of about so many bytes."""
        size = size_in_bytes(value.get("mini_batch_size")) if isinstance(value, Mapping) else None
        if size is None:
            return value
        others = {key: item for key, item in value.items() if key != "mini_batch_size"}
        return {"split": "bytes", "mini_batch_bytes": size} | others

    @field_serializer("csv", "quality")
    def _what_was_said(self, value: Part | None, info: SerializationInfo) -> Any:
        """Without defaults, which would take the place of the deployment's when the record is read and asked again."""
        return None if value is None else value.model_dump(mode=info.mode, exclude_unset=True)


class InvokeRequest(Part):
    """One invoke of a batch endpoint."""

    inputs: dict[str, Input] = Field(default_factory=dict)
    """Exactly one for a model deployment; its name is free."""
    literals: dict[str, LiteralValue] = Field(default_factory=dict)
    """Inputs of a pipeline deployment that are no data. Also read from ``inputs``, in each of Azure's forms."""
    outputs: dict[str, Output] = Field(default_factory=dict)
    deployment_name: str | None = None
    challenger: str | None = None
    """A second deployment of the endpoint, which scores the same data to be compared with the first."""
    job_name: JobName | None = None
    experiment_name: str | None = None
    description: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    overrides: Overrides = Field(default_factory=Overrides)

    @model_validator(mode="before")
    @classmethod
    def _literals_apart(cls, value: Any) -> Any:
        """Azure's files and tools write literals among the inputs; they move to ``literals``."""
        inputs = value.get("inputs") if isinstance(value, Mapping) else None
        if not isinstance(inputs, Mapping):
            return value
        found = {name: literal for name, given in inputs.items() if (literal := literal_in(given)) is not None}
        if not found:
            return value
        data = {name: given for name, given in inputs.items() if name not in found}
        return {**value, "inputs": data, "literals": {**found, **(value.get("literals") or {})}}


_LITERAL_TYPES = frozenset({"string", "number", "integer", "boolean"})


def literal_in(given: Any) -> LiteralValue | None:
    """The literal that an input is in one of its forms: a plain value, ``{type: string, default: x}`` or
    ``{type: integer, value: 3}``. None for what is data, or no input at all."""
    if isinstance(given, bool | int | float | str):
        return given
    if not isinstance(given, Mapping) or "path" in given or str(given.get("type", "")).lower() not in _LITERAL_TYPES:
        return None
    value = given.get("value", given.get("default"))
    return value if isinstance(value, bool | int | float | str) else None


class Sampling(Part):
    """That a job only scores a sample, to forecast what the whole would take."""

    rows: int | None = None
    finish_by: datetime | None = None


class Progress(Part):
    """How far a job is, counted in items (rows of tabular input, else files)."""

    unit: Literal["rows", "files"] = "files"
    planned_items: int = 0
    """Items found so far; the total once ``planned_all`` is true."""
    planned_all: bool = False
    ok: int = 0
    kept: int = 0
    """Those of ``ok`` that a retry took over from the job that it retries."""
    failed: int = 0
    skipped: int = 0
    mini_batches_planned: int = 0
    mini_batches_done: int = 0
    mini_batches_kept: int = 0
    """Those of ``mini_batches_done`` that a retry took over whole."""
    mini_batches_failed: int = 0
    workers: int = 0
    worker_losses: int = 0
    timeouts: int = 0
    items_per_second: float | None = None
    seconds_left: float | None = None
    fraction: float | None = None
    """Done part of the input between 0 and 1, by bytes while the plan is still growing."""
    phase: str = "starting"
    """starting, scoring, publishing, finished; of a pipeline also running."""
    steps_planned: int | None = None
    """Of a pipeline: how many steps it has. What is counted in items is the sum over its steps."""
    steps_done: int | None = None
    """Of a pipeline: steps that completed."""
    steps_failed: int | None = None
    """Of a pipeline: steps that failed or were canceled."""
    heartbeat_at: datetime | None = None


class FileReceipt(Part):
    """What became of the items of one input file."""

    file: str
    items: int
    ok: int
    failed: int
    skipped: int = 0
    reason: str | None = None
    """Why the file was skipped or could not be read at all."""


class Receipt(Part):
    """The reconciliation: items = ok + failed + skipped, per file and in total, else the job is Failed."""

    job: str
    unit: Literal["rows", "files"]
    items: int
    ok: int
    failed: int
    skipped: int
    output_rows: int
    """Rows in the output; differs from ``ok`` where a script returns more or fewer rows than it was given."""
    balanced: bool
    files: list[FileReceipt] = Field(default_factory=list)
    files_left_out: int = 0
    """Files that the record of a job does not list, for brevity; never any in ``receipt.json``."""
    key_files: dict[str, int] = Field(default_factory=dict)
    """Rows of the file of each key, with ``file_per_key``; left out of the record of a job where they are many."""


class JobError(Part):
    """Why a job failed, and the first failing item's own traceback: never "exit code 42"."""

    code: str
    message: str
    file: str | None = None
    row: int | None = None
    exception: str | None = None
    traceback: str | None = None
    log: str | None = None
    """Where more is to be read, relative to the job's folder."""

    @field_validator("message", "file", "traceback")
    @classmethod
    def _is_text(cls, value: str | None) -> str | None:
        """It may quote the name of a file, which cannot always be written down."""
        return None if value is None else as_text(value)


class Command(Part):
    """What a job of type ``command`` runs, resolved: bindings to inputs and outputs are all that is left open."""

    command: str
    """May hold ``${{inputs.x}}`` and ``${{outputs.y}}``, which become paths and values; run by ``sh -c``."""
    code: str | None = None
    """``azureml:<code>:<version>``: the folder that the command is run in."""
    environment: str | None = None
    environment_variables: dict[str, str] = Field(default_factory=dict)
    compute: str | None = None
    instance_count: int = Field(default=1, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    """Seconds; None means any time."""
    direct_inputs: list[str] = Field(default_factory=list)
    """Names of inputs that the command is given the address of (mode ``direct``), not a path."""
    if_exists: Literal["fail", "overwrite"] = "fail"
    """What to do when an output exists already."""

    @property
    def compute_name(self) -> str:
        """The compute's bare name."""
        return (self.compute or "local").removeprefix("azureml:")


JobType = Literal["scoring", "command", "pipeline"]


WITHDRAWN = "withdrawn"
"""Property of a job whose output does not count any more: when, and on whose word. Empty when it counts again."""


class Job(Entity):
    """One piece of work: a scoring run of a deployment over an input, a command, or a pipeline of such jobs."""

    name: JobName
    type: JobType = "scoring"
    display_name: str | None = None
    parent_job_name: str | None = None
    """The pipeline job that this is a step of."""
    step_name: str | None = None
    """Which step of it."""
    schedule_name: str | None = None
    """The schedule that started it."""
    published_pipeline: str | None = None
    """The published pipeline that it is a run of."""
    status: JobStatus = JobStatus.QUEUED
    reason: Reason | None = None
    cancel_requested: bool = False
    archived: bool = False
    endpoint_name: str | None = None
    deployment_name: str | None = None
    experiment_name: str | None = None
    deployment: BatchDeployment | None = None
    """The effective deployment: as it was at invoke, overrides applied, model and environment resolved to versions."""
    challenger: BatchDeployment | None = None
    """The deployment that is compared with it, as it was at invoke."""
    sample: Sampling | None = None
    """Set when the job only scores a sample, publishes nothing, and answers with a forecast."""
    command: Command | None = None
    """Of a job of type ``command``."""
    pipeline: dict[str, Any] | None = None
    """Of a job of type ``pipeline``: the effective ``entities.pipelines.Pipeline``, components and assets resolved."""
    literals: dict[str, LiteralValue] = Field(default_factory=dict)
    """Inputs that are no data."""
    input_data: str | None = None
    """Of a parallel step: the name of the input that is cut into mini-batches. The others stand beside it as they are,
    for ``program_arguments`` to name."""
    append_row_to: str | None = None
    """Of a parallel step: the name of the output that what ``run()`` returns is written to."""
    inputs: dict[str, Input] = Field(default_factory=dict)
    """As given, with assets resolved to ``azureml:name:version`` and to the place they point to."""
    outputs: dict[str, Output] = Field(default_factory=dict)
    overrides: Overrides = Field(default_factory=Overrides)
    retry_of: str | None = None
    """The job whose failed items this one scores again."""
    repaired_by: str | None = None
    """The retry that completed and left nothing failed: what is said of this job is what it was before. It is looked
    up for each answer about one job, and not stored."""
    reuse_hash: str | None = None
    """Hash of all that determines a step's outputs; None for what is not to be reused."""
    reused_job_name: str | None = None
    """The earlier job whose outputs these are: this one was not run."""
    idempotency_key: str | None = None
    traceparent: str | None = None
    """Where in a trace the request stands that made it, as W3C's header says it. Set where traces are sent."""
    folder: str | None = None
    """The run's folder on the machine of the server. Set by the dispatcher."""
    progress: Progress | None = None
    receipt: Receipt | None = None
    quality: QualitySummary | None = None
    """The greatest changes of its columns from those of the deployment's reference, where they were looked at."""
    error: JobError | None = None
    waiting_for: str | None = None
    """Why a job that is queued, or being prepared, has not started yet."""
    notices: list[str] = Field(default_factory=list)
    """What a user should know: an image that is only recorded, a setting that was capped."""
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @field_validator("reason", mode="before")
    @classmethod
    def _empty_reason(cls, value: Any) -> Any:
        return value or None

    @property
    def compute_name(self) -> str:
        """The bare name of the compute that it runs on."""
        worked = self.deployment or self.command
        return worked.compute_name if worked else "local"

    @property
    def instance_count(self) -> int:
        """How many instances of that compute it takes; a pipeline takes none, its steps do."""
        if self.type == "pipeline":
            return 0
        if self.command is not None:
            return self.command.instance_count
        return self.deployment.resources.instance_count if self.deployment else 1
