"""ScoringSpec: all that a run needs, already resolved; written as ``spec.json`` into the run's folder.

Secrets are not in it: the runner gets the storage options of datastores with credentials on its standard input.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from batchpoint.entities.endpoints import CsvOptions, OutputTable
from batchpoint.entities.quality import QualityOptions


class SpecPart(BaseModel):
    """A piece of the specification."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Location(SpecPart):
    """A place that storage can open: an absolute local path or an fsspec URL."""

    url: str
    datastore: str | None = None
    """Name under which the runner was handed the storage options for this place."""


class InputSpec(SpecPart):
    """What to score: files, folders (trailing slash or ``uri_folder``), globs or an MLTable."""

    type: Literal["uri_file", "uri_folder", "mltable"] | None = None
    locations: list[Location]
    include: list[str] = Field(default_factory=list)
    exclude: list[str] = Field(default_factory=list)
    recursive: bool = False
    query: str | None = None
    """SQL, asked of the database that the one location names: its rows are what is scored."""


class TableShape(SpecPart):
    """Which rows and columns of a table are scored: what an MLTable says beyond paths and reader."""

    skip: int = 0
    """Rows left out at the beginning of the whole table."""
    take: int | None = None
    """Rows scored after those; None scores all."""
    keep: list[str] | None = None
    """The columns that ``run()`` receives; None keeps all."""
    drop: list[str] = Field(default_factory=list)
    types: dict[str, str] = Field(default_factory=dict)
    """Arrow type names of columns that are converted: a value that does not convert fails its row."""
    only_text: bool = False
    """Whether columns without a type of their own stay text."""
    path_column: str | None = None
    """A column that holds the name of each row's file."""
    partition_pattern: str | None = None
    """A regular expression on file names, whose groups are the values of ``partition_columns``."""
    partition_columns: list[str] = Field(default_factory=list)


class ScriptSpec(SpecPart):
    """What scores: a person's script, or the one supplied for MLflow models."""

    kind: Literal["script", "mlflow", "model_map"]
    path: str | None = None
    """Absolute path of the script; None for those that are supplied."""
    code_dir: str | None = None
    """Folder put on the script's ``sys.path``."""
    arguments: list[str] = Field(default_factory=list)
    takes: Literal["paths", "dataframe"] = "paths"
    """What ``run()`` receives."""


class ModelSpec(SpecPart):
    """The model's files on this machine."""

    name: str
    version: str
    type: str
    directory: str
    """``AZUREML_MODEL_DIR``: the folder that holds the registered file or folder under its own name."""
    path: str
    """``MODEL_PATH``: the registered file or folder itself."""


class ModelMapSpec(SpecPart):
    """A model for each key: which, and what is done with what they answer."""

    models_file: str = "models.jsonl"
    """File of the run's folder with a line for each known key: ``key``, ``model``, ``path`` and ``type``."""
    on_missing: Literal["fail", "skip", "default"] = "fail"
    default: dict[str, str] | None = None
    """``path``, ``type`` and ``name`` of the model for keys that have none, with ``on_missing`` ``default``."""
    cached_models: int = 64
    """Models that a worker keeps in memory."""
    features: list[str] | None = None
    labels: dict[str, Any] = Field(default_factory=dict)
    """The text of a prediction → what is written instead."""
    prediction_column: str = "prediction"


class ChallengerSpec(SpecPart):
    """A second deployment that scores each mini-batch after the first one, to be compared with it."""

    deployment: str
    python: str
    """Interpreter of its environment."""
    script: ScriptSpec
    model: ModelSpec | None = None
    environment_variables: dict[str, str] = Field(default_factory=dict)
    timeout: float = 30
    """Seconds that one of its ``run()`` may take."""


class SampleSpec(SpecPart):
    """That only a sample is scored, and nothing published: see ``scoring/sample.py``."""

    rows: int | None = None
    """Items to score at most."""
    seconds: float = 3.0
    """Time that the sample should take each worker, about."""
    finish_by: datetime | None = None
    """Until when the whole should be done: the forecast says whether it would."""


class RetrySpec(SpecPart):
    """Tries and time limits. Times are in seconds."""

    max_retries: int = 3
    timeout: float = 30
    task_overhead_timeout: float = 30
    progress_update_timeout: float | None = None
    max_worker_losses: int = 3
    isolate_failures: bool = True


class ThresholdSpec(SpecPart):
    """How much may fail. -1 means any number."""

    items: int = -1
    mini_batches: int = -1
    percent: float = 100


class SplitSpec(SpecPart):
    """How the input is cut into mini-batches."""

    by: Literal["files", "rows", "bytes"]
    files: int = 10
    """Files of a mini-batch when cut by files."""
    rows: int | None = None
    """Rows of a mini-batch when cut by rows."""
    bytes: int | None = None
    """Approximate bytes of a mini-batch when cut by bytes; None chooses from the size of the input."""
    partition_keys: list[str] = Field(default_factory=list)
    """When given, a mini-batch holds what has the same values of these keys, all of it."""
    partition_format: str | None = None
    """Names for the parts of file names, such as ``{store}/{day}.csv``."""


class OutputSpec(SpecPart):
    """Where and how predictions are written."""

    name: str = "score"
    """Under which the job's record has it."""
    action: Literal["append_row", "summary_only"] = "append_row"
    format: Literal["csv", "jsonl", "parquet", "azureml"] = "csv"
    folder: Location
    """Final folder. Predictions, what scripts wrote themselves, errors and receipt all appear in it."""
    file_name: str = "predictions.csv"
    errors_name: str = "errors.jsonl"
    receipt_name: str = "receipt.json"
    owns_folder: bool = True
    """Whether the folder belongs to this job alone and may be published by one rename."""
    if_exists: Literal["fail", "overwrite", "version"] = "fail"
    table: OutputTable | None = None
    key_columns: list[str] = Field(default_factory=list)
    passthrough: list[str] = Field(default_factory=list)
    row_keys: bool = True
    errors_format: Literal["jsonl", "parquet"] = "jsonl"
    rename: dict[str, str] = Field(default_factory=dict)
    """Other names for columns."""
    file_per_key: str | None = None
    """Name of the file of each key, with placeholders for the keys' values and for ``submitted``."""
    one_file: bool = True
    """Whether ``file_name`` is written beside files for each key."""
    submitted: datetime | None = None
    """When the job was submitted; of one that scores failed items again, the first job's."""
    dataframe_header: bool = False
    """With the format ``azureml``: whether the first line holds the names of a DataFrame's columns."""


class FetchedInput(SpecPart):
    """Data that lies elsewhere and that a step is given the path of: fetched before the step begins."""

    location: Location
    path: str
    """Where it is to lie on this machine."""


class StagedOutput(SpecPart):
    """An output that a step writes by itself: below the run's folder first, at its final place when all went well."""

    name: str
    path: str
    """What the step is told: a folder that is there, or a file whose folder is there."""
    folder: Location
    """The final folder."""
    file_name: str | None = None
    """Of an output that is one file: what it is called in the final folder."""
    owns_folder: bool = True
    if_exists: Literal["fail", "overwrite"] = "fail"


class ScoringSpec(SpecPart):
    """One run, whole. The folder it lies in is the run's folder and the only conversation with the control plane."""

    job: str
    endpoint: str | None = None
    deployment: str | None = None
    python: str
    """Interpreter of the deployment's environment."""
    script: ScriptSpec
    model: ModelSpec | None = None
    model_map: ModelMapSpec | None = None
    """A model for each key, with a ``script`` of kind ``model_map``."""
    environment_variables: dict[str, str] = Field(default_factory=dict)
    input: InputSpec
    split: SplitSpec
    csv: CsvOptions = Field(default_factory=CsvOptions)
    output: OutputSpec
    retry: RetrySpec = Field(default_factory=RetrySpec)
    thresholds: ThresholdSpec = Field(default_factory=ThresholdSpec)
    instances: int = 1
    processes_per_instance: int = 1
    logging_level: Literal["debug", "info", "warning"] = "info"
    fork_server: str | None = None
    """Folder of the warm fork server that may serve this run; None starts one for this run alone."""
    fork_server_idle_seconds: float = 0
    """Seconds that the fork server stays after its last run."""
    challenger: ChallengerSpec | None = None
    sample: SampleSpec | None = None
    sketches: bool = False
    """Whether workers sketch the columns of what they read and predict."""
    quality: QualityOptions = Field(default_factory=QualityOptions)
    """What has to be true before the output appears."""
    keeps_checked: bool = False
    """Whether the rows kept of the run whose failed items are scored again have passed its checks, so that nobody has
    to look at them again."""
    retry_of: str | None = None
    """Folder of the run whose failed items are scored again and merged into the same output."""
    mltable: dict[str, Any] | None = None
    """Parsed MLTable, for inputs of that type."""
    table: TableShape | None = None
    """What the MLTable says of rows and columns; set when it is resolved."""
    fetched_inputs: list[FetchedInput] = Field(default_factory=list)
    """Of a step: its other inputs that lie elsewhere."""
    staged_outputs: list[StagedOutput] = Field(default_factory=list)
    """Of a step: its other outputs."""

    @classmethod
    def read(cls, folder: Path) -> ScoringSpec:
        """Read ``spec.json`` of a run's folder."""
        return cls.model_validate_json((folder / "spec.json").read_bytes())

    def write(self, folder: Path) -> None:
        """Write ``spec.json`` into a run's folder, whole or not at all, readable by its owner alone."""
        write_spec(folder, self)


def write_spec(folder: Path, spec: SpecPart) -> None:
    """Write ``spec.json`` into a run's folder, whole or not at all, readable by its owner alone."""
    partial = folder / "spec.json.partial"
    partial.touch(mode=0o600)
    partial.write_text(spec.model_dump_json(indent=1))
    partial.replace(folder / "spec.json")
