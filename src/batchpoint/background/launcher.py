"""A job → its ScoringSpec and a running process. The only reader of both halves of the house."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import yaml

from batchpoint import __version__
from batchpoint.background.command_launcher import CommandPreparation
from batchpoint.background.environments import Environments, Interpreter, Tell
from batchpoint.background.models_file import write_models
from batchpoint.background.step_places import (
    StepPlaces,
    is_own_folder,
    location_of,
    output_place,
    places_of_step,
)
from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.endpoints import BatchDeployment, ModelMap, output_format_of
from batchpoint.entities.jobs import Input, Job, JobStatus
from batchpoint.entities.resources import MACHINE, Compute, pool_of
from batchpoint.errors import InputError, InvalidEntityError, PlatformError
from batchpoint.operations.command_line import filled_words
from batchpoint.operations.jobs import collected_output
from batchpoint.operations.places import Place, asset_reference
from batchpoint.scoring import fork_server_access
from batchpoint.scoring.mltable import location_of_path, reads_rows
from batchpoint.scoring.quality import REFERENCE
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
from batchpoint.workspace import Workspace

TABULAR_ENDINGS = (".csv", ".csv.gz", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
"""Files whose rows can be scored; MLflow models get anything else as paths."""

RUNNER_PARENT = (sys.executable, "-m", "batchpoint.scoring.runner_parent")
"""The command that starts a runner for each line on its standard input."""

STAYS_WARM_SECONDS = 30 * 86400.0
"""Idle time of a fork server on a compute that keeps instances (``min_instances``)."""

LEAST_SKETCHED_ROWS = 5_000
"""Rows of a mini-batch below which its columns are not looked at, unless somebody wants it: that would take much of the
time. The same goes for mini-batches of one key, which are small as a rule."""

_PACKAGES_FOR_ROWS = ("pandas", "pyarrow")
"""What reading rows needs in the deployment's environment."""

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
    deployment = _deployment_of(job)
    settings, options = deployment.settings, deployment.batchpoint
    script = _script(deployment, resolved)
    compute = resolved.compute
    instances = min(deployment.resources.instance_count, compute.max_instances)
    workers = instances * settings.max_concurrency_per_instance
    variables = {**deployment.environment_variables, **settings.environment_variables}
    model, split = resolved.model, _split(deployment, script)
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
        quality=_deployment_of(job).batchpoint.quality,
        retry_of=str(resolved.retried) if resolved.retried else None,
        mltable=resolved.mltable,
        fetched_inputs=resolved.step.fetched,
        staged_outputs=resolved.step.staged,
    )


def _sketches(job: Job, script: ScriptSpec, split: SplitSpec) -> bool:
    given = _deployment_of(job).batchpoint
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


class RunnerProcess:
    """A runner that was started. It is a child of the runner parent, not ours, so it is followed by its id."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd: int | None = None
        """Becomes readable when the runner ends; None where the system has none (not Linux), and once it is gone."""
        with suppress(AttributeError, OSError):
            self.pidfd = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        """Whether the runner is gone."""
        if self.pidfd is not None:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            return bool(poll.poll(0))
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def close(self) -> None:
        """Follow it no longer."""
        pidfd, self.pidfd = self.pidfd, None
        if pidfd is not None:
            os.close(pidfd)


class Launcher:
    """Prepares runs and starts their runners, which are forked from a warm parent, so that a job begins at once."""

    def __init__(self, workspace: Workspace, *, runner_parent: Sequence[str] = RUNNER_PARENT) -> None:
        self._command = list(runner_parent)
        self._home = workspace.settings.home
        self._environments = Environments(self._home)
        self._lock = threading.Lock()
        self._parent: subprocess.Popen[bytes] | None = None
        self._closed = False

    def prepare(self, work: Workspace, job: Job, folder: Path, tell: Tell) -> tuple[str, ...]:
        """Write the run's specification into its folder; answers with notices. Takes minutes when packages are built,
        and ``tell`` is told how that goes on.

        ``work`` is the workspace that the job belongs to.

        Raises:
            EnvironmentBuildError: the environment cannot be built.
            InputError, DatastoreError: the input is not there.
            NotFoundError, InvalidEntityError: something that the job names is gone or unfit.
        """
        preparation = CommandPreparation if job.command is not None else ScoringPreparation
        return preparation(work, self._environments, tell).prepare(job, folder)

    def start(self, work: Workspace, folder: Path) -> RunnerProcess:
        """Start, or resume, the run in this folder, with the datastores of its workspace at hand.

        Its runner is a process of its own, which outlives this one.

        Raises:
            PlatformError: no runner can be started.
        """
        line = json.dumps({"folder": str(folder), "storage_options": work.places.storage_options()}).encode() + b"\n"
        with self._lock:
            answer = self._ask_parent(line) or self._ask_parent(line)  # one that has died is replaced once
        if not answer:
            raise PlatformError(f"No runner could be started. The end of {self._log_path} says why.")
        return RunnerProcess(json.loads(answer)["pid"])

    def warm_up(self) -> None:
        """Start the parent of runners, unless it lives."""
        with self._lock:
            if not self._closed:
                self._living_parent()

    def close(self) -> None:
        """End the parent of runners and every fork server that no runner uses. The runners go on."""
        with self._lock:
            self._closed = True
            parent, self._parent = self._parent, None
        if parent is not None:
            _end(parent)
        for folder in (self._home / "fork_servers").glob("*/"):
            fork_server_access.retire(folder)

    def warm_instances(self, pool: str) -> int:
        """How many instances of a pool have a living fork server."""
        return max(self._living_fork_servers(pool), default=0)

    def _ask_parent(self, line: bytes) -> bytes:
        """The answer of the parent of runners; empty when it has died."""
        parent = self._living_parent()
        assert parent.stdin is not None
        assert parent.stdout is not None
        with suppress(BrokenPipeError):
            parent.stdin.write(line)
            parent.stdin.flush()
        answer = parent.stdout.readline()
        if not answer:
            _end(parent)
        return answer

    def _living_parent(self) -> subprocess.Popen[bytes]:
        if self._parent is None or self._parent.poll() is not None:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            with self._log_path.open("ab") as log:
                self._parent = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=self._home,
                    start_new_session=True,
                )
        return self._parent

    @property
    def _log_path(self) -> Path:
        return self._home / "logs" / "runner_parent.log"

    def _living_fork_servers(self, pool: str) -> Iterable[int]:
        for described in (self._home / "fork_servers").glob("*/compute.json"):
            facts = json.loads(described.read_text())
            if facts["compute"] == pool and (described.parent / "socket").exists():
                yield facts["instances"]


class ScoringPreparation:
    """Finds what a deployment needs on this machine. Within the workspace that its job belongs to."""

    def __init__(self, workspace: Workspace, environments: Environments, tell: Tell) -> None:
        self._workspace = workspace
        self._environments = environments
        self._tell = tell

    def prepare(self, job: Job, folder: Path) -> tuple[str, ...]:
        """Write the run's specification into its folder; answers with notices. Raises as ``Launcher.prepare``."""
        interpreter, resolved = self._resolve(job, folder)
        spec = build_spec(job, resolved)
        folder.mkdir(parents=True, exist_ok=True)
        if spec.model_map is not None:
            fork_server_access.warm_up(spec)  # to look up thousands of models takes a while
            write_models(folder / spec.model_map.models_file, job, self._workspace)
        if spec.fork_server:
            _describe_fork_server(Path(spec.fork_server), resolved.pool, spec.instances)
        spec, quality_notices = self._checked_once(job, spec)
        quality_notices += self._write_reference(job, folder) if spec.sketches else []
        spec.write(folder)
        notices = list(dict.fromkeys(interpreter.notices))
        wanted = _deployment_of(job).resources.instance_count
        if wanted > spec.instances:
            notices.append(
                f"The job asked for {wanted} instances; compute {resolved.compute.name} has at most {spec.instances}."
            )
        return tuple(notices + quality_notices)

    def _checked_once(self, job: Job, spec: ScoringSpec) -> tuple[ScoringSpec, list[str]]:
        """A retry of some keys keeps the rows of all others, cut out of parts that were looked at whole.

        Of what it scores anew alone, drift would tell nothing. So what the job before has published stays as it is.
        """
        if job.retry_of is None or spec.model_map is None or not spec.quality.checks_columns:
            return spec, []
        if self._workspace.jobs.get(job.retry_of).status is not JobStatus.COMPLETED:
            return spec, []
        kept = spec.quality.model_copy(update={"max_drift": None, "max_missing_change": None})
        told = f"Drift and missing values were not checked: most rows are kept of job {job.retry_of}, which had passed."
        return spec.model_copy(update={"quality": kept, "keeps_checked": True}), (
            [told] if spec.quality.checks_changes else []
        )

    def _write_reference(self, job: Job, folder: Path) -> list[str]:
        """Lay what the columns of the reference held beside the specification; answers with notices."""
        named = _deployment_of(job).batchpoint.quality.reference
        found = self._workspace.jobs.reference_quality(job)
        if found is not None:
            shutil.copyfile(found, folder / REFERENCE)
        elif named is not None:
            return [f"Nothing is known of the columns of job {named}, the reference: nothing is compared with it."]
        return []

    def _resolve(self, job: Job, folder: Path) -> tuple[Interpreter, Resolved]:
        deployment = _deployment_of(job)
        model, model_path = self._model(deployment)
        code_dir = self._code_dir(deployment)
        inputs = tuple(self._input_places(job))
        tabular, mltable = self._look_at_input(job, inputs)
        is_table = _scored(job).query is not None or (mltable is not None and reads_rows(mltable))
        interpreter = self._interpreter(deployment, model, model_path, tabular=tabular, is_table=is_table)
        output, file_name = output_place(job, collected_output(job), self._workspace.places)
        resolved = Resolved(
            python=interpreter.python,
            compute=cast("Compute", self._workspace.resources.get("compute", deployment.compute_name)),
            pool=pool_of(self._workspace.name, deployment.compute_name),
            home=self._workspace.settings.home,
            worker_source=fork_server_access.source_stamp(),
            output=output,
            output_file_name=file_name,
            step=places_of_step(job, folder, self._workspace),
            model=model,
            model_path=model_path,
            code_dir=code_dir,
            inputs=inputs,
            tabular_input=tabular,
            is_table=is_table,
            mltable=mltable,
            default_model=self._default_model(deployment),
            submitted=self._submitted(job),
            retried=job_folder(self._workspace.folder, job.retry_of) if job.retry_of else None,
        )
        if job.challenger is not None:
            challenger = self._challenging(job.challenger, _script(deployment, resolved))
            resolved = replace(resolved, challenger=challenger)
        return interpreter, resolved

    def _challenging(self, deployment: BatchDeployment, champion: ScriptSpec) -> Challenging:
        model, model_path = self._model(deployment)
        takes_rows = champion.takes == "dataframe"
        interpreter = self._interpreter(deployment, model, model_path, tabular=takes_rows, is_table=takes_rows)
        code_dir = self._code_dir(deployment)
        return Challenging(python=interpreter.python, model=model, model_path=model_path, code_dir=code_dir)

    def _code_dir(self, deployment: BatchDeployment) -> Path | None:
        code, assets = deployment.code_configuration, self._workspace.assets
        return assets.local_path(cast("Code", assets.resolve("code", code.code))) if code else None

    def _model(self, deployment: BatchDeployment) -> tuple[Model | None, Path | None]:
        if deployment.model is None:
            return None, None
        assets, given = self._workspace.assets, deployment.model
        model = given if isinstance(given, Model) else cast("Model", assets.resolve("model", given))
        return model, assets.local_path(model)

    def _default_model(self, deployment: BatchDeployment) -> tuple[Model, Path] | None:
        given = deployment.batchpoint.model_map
        model = self._workspace.model_maps.default(given) if given else None
        return None if model is None else (model, self._workspace.assets.local_path(model))

    def _submitted(self, job: Job) -> datetime | None:
        while job.retry_of is not None:
            job = self._workspace.jobs.get(job.retry_of)
        return job.queued_at

    def _input_places(self, job: Job) -> Iterable[Place]:
        given = _scored(job)
        if given.query is not None:
            yield self._workspace.places.resolve_database(given.path)
            return
        for path in (given.path, *given.paths):
            reference = asset_reference(path)
            data = self._workspace.assets.resolve("data", reference) if reference else None
            yield self._workspace.places.resolve(cast("Data", data).path if data else path)

    def _look_at_input(self, job: Job, inputs: tuple[Place, ...]) -> tuple[bool, dict[str, Any] | None]:
        """Whether the input's first file holds rows, and the parsed MLTable of an input of that type."""
        stores = self._workspace.places.stores()
        first, given = inputs[0], _scored(job)
        if given.query is not None:
            return True, None
        if given.type == "mltable":
            with stores.open_read(f"{first.url.rstrip('/')}/MLTable", first.datastore) as file:
                parsed = yaml.safe_load(file)
            if not isinstance(parsed, dict):
                raise InputError(f"The MLTable file of {first.uri} is not a mapping.")
            table = {**parsed, "paths": [self._table_path(entry) for entry in parsed.get("paths") or ()]}
            if reads_rows(table) or not table["paths"]:
                return True, table
            place = location_of_path(table["paths"][0], location_of(first))
            return self._holds_rows(place.url, place.datastore, recursive=given.recursive), table
        return self._holds_rows(first.url, first.datastore, recursive=given.recursive), None

    def _holds_rows(self, url: str, datastore: str | None, *, recursive: bool) -> bool:
        stores = self._workspace.places.stores()
        name = url
        if stores.is_folder(url, datastore):
            name = next((file.path for file in stores.list(url, datastore, recursive=recursive)), "")
        return name.lower().endswith(TABULAR_ENDINGS) or not PurePosixPath(name).suffix

    def _table_path(self, entry: Any) -> dict[str, str | None]:
        """A path that an MLTable names; the address of a datastore becomes the place that it means."""
        if not isinstance(entry, dict) or len(entry) != 1:
            raise InputError(f"The MLTable's path {entry!r} is not one of file, folder and pattern.")
        kind, path = next(iter(entry.items()))
        if not str(path).startswith("azureml:"):
            return {kind: str(path)}
        place = self._workspace.places.resolve(str(path))
        return {kind: place.url, "datastore": place.datastore}

    def _interpreter(
        self,
        deployment: BatchDeployment,
        model: Model | None,
        model_path: Path | None,
        *,
        tabular: bool,
        is_table: bool,
    ) -> Interpreter:
        takes = deployment.batchpoint.mini_batch_type
        reads_rows = deployment.code_configuration is None or takes == "dataframe" or (takes == "auto" and is_table)
        also = _PACKAGES_FOR_ROWS if reads_rows and tabular else ()
        environment = deployment.environment
        if isinstance(environment, str):
            environment = cast("Environment", self._workspace.assets.resolve("environment", environment))
        if environment is not None:
            return self._environments.for_environment(environment, also=also, tell=self._tell)
        if model is not None and model.type == "mlflow_model" and model_path is not None:
            flavors = tuple(model.flavors or ())
            return self._environments.for_mlflow_model(model_path, flavors=flavors, also=also, tell=self._tell)
        return self._environments.default()


def _describe_fork_server(folder: Path, pool: str, instances: int) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "compute.json").write_text(json.dumps({"compute": pool, "instances": instances}))


def _end(parent: subprocess.Popen[bytes]) -> None:
    """End a parent of runners, or bury one that has died: it ends with its standard input."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    with suppress(BrokenPipeError):
        parent.stdin.close()
    parent.stdout.close()
    parent.wait()


def _deployment_of(job: Job) -> BatchDeployment:
    if job.deployment is None:
        raise InvalidEntityError(f"Job {job.name} has no deployment to run.")
    return job.deployment


def _scored(job: Job) -> Input:
    """The input that is cut into mini-batches."""
    name = job.input_data or next(iter(job.inputs), None)
    if name is None or name not in job.inputs:
        raise InvalidEntityError(f"Job {job.name} has no input{f' {name}' if name else ''}.")
    return job.inputs[name]


def _script(deployment: BatchDeployment, resolved: Resolved) -> ScriptSpec:
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
    script = _script(deployment, replace(resolved, code_dir=found.code_dir))
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
    given = _scored(job)
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
