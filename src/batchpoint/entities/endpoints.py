"""Batch endpoints and their deployments.

Keys and defaults are those of Azure ML's YAML files (CLI v2 batch endpoint and batch deployment schemas). Keys of our
own live under ``batchpoint:``, or in ``properties`` as ``batchpoint.<key>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, field_validator, model_validator

from batchpoint.entities.assets import Environment, Model
from batchpoint.entities.base import DeploymentName, EndpointName, Entity, Part
from batchpoint.entities.key_patterns import SUBMITTED, KeyPattern
from batchpoint.entities.parallel_run_config import ParallelRunConfig, as_deployment
from batchpoint.entities.quality import QualityOptions


class EndpointDefaults(Part):
    """What answers an invoke that names no deployment."""

    deployment_name: str | None = None


class BatchEndpoint(Entity):
    """A stable address behind which one default deployment, and others by name, score data."""

    name: EndpointName
    auth_mode: Literal["aad_token", "key", "aml_token"] = "aad_token"
    defaults: EndpointDefaults = Field(default_factory=EndpointDefaults)
    identity: dict[str, Any] | None = None
    location: str | None = None
    scoring_uri: str | None = None
    """Address that an invoke is posted to. Set by the server."""
    openapi_uri: str | None = None
    provisioning_state: str | None = None

    @field_validator("defaults", mode="before")
    @classmethod
    def _defaults_may_be_null(cls, value: object) -> object:
        return {} if value is None else value


class PromoteRequest(Part):
    """Which deployment is to answer by default, and what has to be true before."""

    deployment_name: str
    job_name: str | None = None
    """The job whose comparison speaks for it; none takes the newest one that compared it with the present default."""
    if_agreement: float | None = Field(default=None, ge=0, le=1)
    """The share of the champion's results that the challenger has to agree with; none asks for no comparison."""


class RollbackRequest(Part):
    """Which output is to be the endpoint's latest again."""

    job_name: str | None = None
    """The job whose output it is; none takes the one before the present."""


class CodeConfiguration(Part):
    """The scoring script and the folder it lies in."""

    code: str
    """Local folder when declared; ``azureml:<code>:<version>`` once stored."""
    scoring_script: str
    """Path of the script inside ``code``."""


class RetrySettings(Part):
    """How often, and for how long, a mini-batch is tried."""

    max_retries: int = Field(default=3, ge=0)
    """Goes after the first: an item is tried ``1 + max_retries`` times before it counts as failed."""
    timeout: float = Field(default=30, gt=0, le=259200)
    """Seconds that one ``run()`` may take."""


class ResourceConfiguration(Part):
    """How many instances of the compute a job takes."""

    instance_count: int = Field(default=1, ge=1)
    instance_type: str | None = None
    properties: dict[str, Any] | None = None
    shm_size: str | None = None
    docker_args: str | None = None
    locations: list[str] | None = None
    max_instance_count: int | None = None


def _lower(value: object) -> object:
    """Azure's samples write logging levels and output actions in either case."""
    return value.lower() if isinstance(value, str) else value


LoggingLevel = Annotated[Literal["debug", "info", "warning"], BeforeValidator(_lower)]
OutputActionName = Annotated[Literal["append_row", "summary_only"], BeforeValidator(_lower)]


class DeploymentSettings(Part):
    """How a deployment's jobs are cut, tried and written. Azure's keys and defaults."""

    max_concurrency_per_instance: int = Field(default=1, ge=1)
    mini_batch_size: int = Field(default=10, ge=1)
    """Files of one ``run()`` call; rows when ``batchpoint.split`` is ``rows``. ``10MB`` sets ``mini_batch_bytes``."""
    error_threshold: int = Field(default=-1, ge=-1)
    """Failed items (files, or rows of tabular input) that a job survives; -1 means any number."""
    output_action: OutputActionName = "append_row"
    output_file_name: str = Field(default="predictions.csv", pattern=r"^[^/\\\x00]+$")
    retry_settings: RetrySettings = Field(default_factory=RetrySettings)
    logging_level: LoggingLevel = "info"
    environment_variables: dict[str, str] = Field(default_factory=dict)
    instance_count: int | None = Field(default=None, ge=1)
    """Instead of ``resources.instance_count``; not both."""

    @field_validator("environment_variables", mode="before")
    @classmethod
    def _text_values(cls, value: object) -> object:
        return _as_text(value)


class CsvOptions(Part):
    """How csv input is read."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    header: bool = True
    """Whether the first line of each file names the columns; without, they are ``0``, ``1``, …"""
    column_names: list[str] | None = None
    """Names for headerless files."""
    null_values: list[str] = Field(default_factory=lambda: [""])
    """Unquoted texts that mean "missing" in a text column. Number columns also take NaN, nan, NA, N/A, null, NULL."""


class OutputTable(Part):
    """A database table that predictions are written to, exactly once, in one transaction."""

    url: str
    """``azureml://datastores/<datastore of type sql>``, ``sqlite:///path`` or ``postgresql://user@host/database``."""
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$")


class ModelMap(Part):
    """A model for each combination of values of the partition keys, found by one of four ways. No script is needed."""

    name_pattern: str | None = None
    """Registered models by name, as ``model_{Device}_{Sensor}``: of each its latest version."""
    tags: dict[str, str] | None = None
    """Registered models by tags: key column → name of the tag that holds its value. Of each its latest version."""
    folder: str | None = None
    """A registered model or data asset, a local folder or an address that holds all models; see ``file_pattern``."""
    file_pattern: str | None = None
    """Names of files, or of MLflow models' folders, in ``folder``: ``model_{Device}_{Sensor}.pkl``."""
    mapping: str | None = None
    """A csv or json file with the key columns and a column ``model``: a registered model, or an address."""
    on_missing: Literal["fail", "skip", "default"] = "fail"
    """What becomes of rows whose key has no model: they fail, are left out, or are scored by ``default_model``."""
    default_model: str | Model | None = None
    """Scores keys without a model of their own, with ``on_missing: default``."""
    cached_models: int = Field(default=64, ge=1)
    """Models that a worker keeps in memory; the one that was used longest ago makes room."""
    features: list[str] | None = None
    """Columns that models are given, in this order; none: those of its training, else all but the keys."""
    labels: dict[str, Any] = Field(default_factory=dict)
    """What is written instead of a prediction: ``{"-1": 1, "1": 0}``."""
    prediction_column: str = Field(default="prediction", min_length=1)
    """Name of the column of predictions."""
    models_found: int | None = None
    """How many models were found when the deployment was declared. Set by the server."""

    @field_validator("tags", "labels", mode="before")
    @classmethod
    def _keys_are_text(cls, value: object) -> object:
        return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _one_way(self) -> ModelMap:
        ways = ("name_pattern", "tags", "folder", "mapping")
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of {', '.join(ways)}; found {found}")
        if (self.folder is None) != (self.file_pattern is None):
            raise ValueError("give folder and file_pattern together: which folder, and the names of models in it")
        if (self.on_missing == "default") != (self.default_model is not None):
            raise ValueError("give on_missing: default and default_model together, or neither")
        return self

    def check_keys(self, keys: list[str]) -> None:
        """Check the map against the partition keys.

        Raises:
            ValueError: there are none, or a pattern or tag does not fit them.
        """
        if not keys:
            raise ValueError("a model_map needs partition_keys: the columns that say which model scores a row")
        for pattern in (self.name_pattern, self.file_pattern):
            if pattern is not None:
                KeyPattern(pattern).check_fields(keys)
        if self.tags is not None and set(self.tags) != set(keys):
            raise ValueError(f"tags names {', '.join(self.tags)}, and the partition_keys are {', '.join(keys)}")


class ScoringOptions(Part):
    """Our own options of a deployment, also accepted at invoke. The defaults keep the meaning of Azure's files."""

    output_format: Literal["auto", "csv", "jsonl", "parquet", "azureml"] = "auto"
    """``auto`` goes by the ending of ``output_file_name``; ``azureml`` writes Azure's exact bytes."""
    split: Literal["auto", "files", "rows", "bytes"] = "auto"
    """What a mini-batch is cut by. ``auto``: files for scripts that take paths, bytes for tabular input."""
    mini_batch_bytes: int | None = Field(default=None, ge=1)
    """Approximate size of a mini-batch when split by bytes; none chooses one from the size of the input."""
    partition_keys: list[str] = Field(default_factory=list)
    """One mini-batch for each combination of values of these columns (or parts of file names), never cut in two."""
    partition_format: str | None = None
    """Names the parts of file names, as ``{store}/{day}.csv``; with DataFrames they are columns too."""
    mini_batch_type: Literal["auto", "paths", "dataframe"] = "auto"
    """What ``run()`` receives: a list of paths, or a pandas DataFrame of rows."""
    csv: CsvOptions = Field(default_factory=CsvOptions)
    key_columns: list[str] = Field(default_factory=list)
    """Input columns written in place of ``file`` and ``row``."""
    passthrough: list[str] = Field(default_factory=list)
    """Input columns repeated beside each prediction; ``["*"]`` means all."""
    row_keys: bool = True
    """Whether ``file`` and ``row`` (or the key columns) stand before each prediction."""
    errors_format: Literal["jsonl", "parquet"] = "jsonl"
    isolate_failures: bool = True
    """Whether a failing mini-batch of several items is halved until the bad items stand alone."""
    mini_batch_error_threshold: int = Field(default=-1, ge=-1)
    """Failed mini-batches that a job survives; -1 means any number."""
    allowed_failed_percent: float = Field(default=100, ge=0, le=100)
    """Percent of mini-batches that may fail, looked at once all are planned; 100 means any number."""
    max_worker_losses: int = Field(default=3, ge=0)
    """Times that a mini-batch may lose its worker (crash, out of memory) before it is halved or, alone, fails."""
    task_overhead_timeout: float = Field(default=30, ge=0)
    """Seconds granted beside ``timeout`` for reading the mini-batch and writing its result."""
    progress_update_timeout: float | None = Field(default=None, gt=0)
    """Seconds without any finished mini-batch after which the job fails; none means 3 x (timeout + overhead)."""
    if_exists: Literal["fail", "overwrite", "version"] = "fail"
    """What to do when the output exists already."""
    table: OutputTable | None = None
    program_arguments: list[str] = Field(default_factory=list)
    """Arguments on the script's ``sys.argv``."""
    dataframe_header: bool = False
    """With ``output_format: azureml``: whether the names of a DataFrame's columns stand in the first line."""
    model_map: ModelMap | None = None
    """A model for each combination of the partition keys, instead of ``model`` and a script."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Other names for columns of the output, ``{Value: Val}``."""
    file_per_key: str | None = Field(default=None, pattern=r"^[^/\\\x00]+$")
    """Predictions of each combination of the partition keys in a file of their own, named by this pattern."""
    one_file: bool = True
    """Whether all predictions are written to the one file too, with ``file_per_key``."""
    quality: QualityOptions = Field(default_factory=QualityOptions)
    """What is looked at in the columns of input and predictions, and what has to be true of them."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> ScoringOptions:
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("rename gives one name to two columns")
        return self

    def check_keys(self) -> None:
        """Check what goes by partition keys, which an invoke may change.

        Raises:
            ValueError: a pattern or tag does not fit the partition keys.
        """
        if self.model_map is not None:
            self.model_map.check_keys(self.partition_keys)
        if self.file_per_key is None:
            if not self.one_file:
                raise ValueError("one_file: false needs file_per_key, or no file would be written")
            return
        if not self.partition_keys:
            raise ValueError("file_per_key needs partition_keys: the columns that say which file a row goes to")
        KeyPattern(self.file_per_key).check_fields(self.partition_keys, also=[SUBMITTED])


class BatchDeployment(Entity):
    """A model, how it is scored, and where. Both of Azure's YAML forms are read: with ``settings:``, and without."""

    name: DeploymentName
    endpoint_name: EndpointName
    type: Literal["model"] = "model"
    model: str | Model | None = None
    """``azureml:name:version``, ``name@latest``, a local path, or a model declared in place."""
    code_configuration: CodeConfiguration | None = None
    environment: str | Environment | None = None
    environment_variables: dict[str, str] = Field(default_factory=dict)
    compute: str | None = None
    """``azureml:<name>`` or ``<name>``; none means ``local``."""
    resources: ResourceConfiguration = Field(default_factory=ResourceConfiguration)
    settings: DeploymentSettings = Field(default_factory=DeploymentSettings)
    batchpoint: ScoringOptions = Field(default_factory=ScoringOptions)
    parallel_run_config: ParallelRunConfig | None = Field(default=None, exclude=True)
    """Other keys in the words of SDK v1. Read, and never kept."""
    provisioning_state: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, value: object) -> object:
        return _normal_deployment(as_deployment(value)) if isinstance(value, Mapping) else value

    @field_validator("environment_variables", mode="before")
    @classmethod
    def _text_values(cls, value: object) -> object:
        return _as_text(value)

    @model_validator(mode="after")
    def _keys_fit(self) -> BatchDeployment:
        self.batchpoint.check_keys()
        if self.batchpoint.model_map is None:
            return self
        for key in ("model", "code_configuration"):
            if getattr(self, key) is not None:
                raise ValueError(f"give either '{key}' or batchpoint.model_map, not both")
        return self

    @property
    def compute_name(self) -> str:
        """The compute's bare name."""
        return (self.compute or "local").removeprefix("azureml:")


LEGACY_KEYS = frozenset(DeploymentSettings.model_fields) - {"environment_variables"}
"""Keys of ``settings`` that the legacy form has at the root."""


def deployment_change(change: Mapping[str, Any]) -> dict[str, Any]:
    """A change of a stored deployment, with keys of the legacy form where the stored one has them."""
    result = {key: value for key, value in change.items() if key not in LEGACY_KEYS}
    moved = {key: value for key, value in change.items() if key in LEGACY_KEYS}
    settings = result.get("settings")
    if isinstance(settings, Mapping) or (moved and settings is None):
        settings = {**(settings or {}), **moved}
        if (count := settings.pop("instance_count", None)) is not None:
            resources = result.get("resources")
            result["resources"] = {**(resources if isinstance(resources, Mapping) else {}), "instance_count": count}
        result["settings"] = settings
    return result


def output_format_of(wanted: str, file_name: str) -> Literal["csv", "jsonl", "parquet", "azureml"]:
    """The format of the predictions: the one that is asked for or, for ``auto``, that of the file's ending."""
    if wanted != "auto":
        return cast("Literal['csv', 'jsonl', 'parquet', 'azureml']", wanted)
    ending = file_name.lower().rpartition(".")[2]
    return {"jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet", "pq": "parquet"}.get(ending, "csv")  # type: ignore[return-value]  # a mapping of texts


def size_in_bytes(text: object) -> int | None:
    """``10MB`` and the like, as Azure ML writes the size of a mini-batch of rows; 1 KB is 1024 bytes. Else None."""
    match = re.fullmatch(r"(\d+)\s*([kmg])b", text.strip(), re.IGNORECASE) if isinstance(text, str) else None
    return None if match is None else int(match[1]) << {"k": 10, "m": 20, "g": 30}[match[2].lower()]


def _as_text(value: object) -> object:
    """YAML reads ``FLAG: 1`` as a number; an environment variable is text."""
    if isinstance(value, Mapping):
        return {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}
    return value


def _normal_deployment(given: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the legacy form (settings at the root) and ``properties: batchpoint.*`` into the one form.

    A model or environment declared in place needs no name; it is called after the endpoint and the deployment.

    Raises:
        ValueError: the instance count was given twice.
    """
    value = dict(given)
    for key in ("model", "environment"):
        if isinstance(value.get(key), Mapping):  # declared in place: Azure's files may leave the name out
            value[key] = {"name": f"{value.get('endpoint_name')}-{value.get('name')}", **value[key]}
    settings = dict(value.pop("settings", None) or {})
    for key in LEGACY_KEYS & value.keys():
        at_root = value.pop(key)
        if settings.setdefault(key, at_root) != at_root:
            raise ValueError(f"'{key}' is given twice, at the root and under 'settings'")
    options = options_of(value.pop("batchpoint", None) or {}, value.get("properties") or {})
    if (size := size_in_bytes(settings.get("mini_batch_size"))) is not None:
        del settings["mini_batch_size"]
        options = {"split": "bytes", "mini_batch_bytes": size} | options
    if settings.get("instance_count") is not None:
        if value.get("resources"):
            raise ValueError("Can't set instance_count when resources is provided.")
        value["resources"] = {"instance_count": settings.pop("instance_count")}
    value["settings"], value["batchpoint"] = settings, options
    return value


OPTION = "batchpoint."
"""What properties begin with that are options of ours."""


def as_properties(options: Mapping[str, Any]) -> dict[str, str]:
    """Options of ours as properties, from which ``options_of`` reads them back."""
    return {f"{OPTION}{key}": item if isinstance(item, str) else json.dumps(item) for key, item in options.items()}


def options_of(given: Mapping[str, Any], properties: Mapping[Any, Any]) -> dict[str, Any]:
    """Our own options: what stands under ``batchpoint:``, then what properties say."""
    options = dict(given)
    for key, item in properties.items():
        if str(key).startswith(OPTION):
            options.setdefault(str(key).removeprefix(OPTION), _option_value(item))
    return options


def _option_value(text: object) -> object:
    """Properties are text; lists and numbers in them are written as JSON, which has neither NaN nor half characters."""
    if not isinstance(text, str):
        return text
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return text
    return value
