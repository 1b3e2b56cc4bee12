"""A scoring job → what it needs on this machine, found, and the specification of its run in its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, cast

import yaml

from batchpoint.background.environments import Environments, Interpreter, Tell
from batchpoint.background.models_file import write_models
from batchpoint.background.scoring_spec import (
    TABULAR_ENDINGS,
    Challenging,
    Resolved,
    build_spec,
    deployment_of_job,
    job_folder,
    scored_input,
    script_of,
)
from batchpoint.background.step_places import location_of, output_place, places_of_step
from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.entities.resources import Compute, pool_of
from batchpoint.errors import InputError
from batchpoint.operations.jobs import collected_output
from batchpoint.operations.places import Place, asset_reference
from batchpoint.scoring import fork_server_access
from batchpoint.scoring.mltable import location_of_path, reads_rows
from batchpoint.scoring.quality import REFERENCE
from batchpoint.scoring.spec import ScriptSpec
from batchpoint.workspace import Workspace

_PACKAGES_FOR_ROWS = ("pandas", "pyarrow")
"""What reading rows needs in the deployment's environment."""


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
        quality_notices = self._write_reference(job, folder) if spec.sketches else []
        if spec.keeps_checked and deployment_of_job(job).batchpoint.quality.checks_changes:
            kept = f"most rows are kept of job {job.retry_of}, which had passed."
            quality_notices.append(f"Drift and missing values were not checked: {kept}")
        spec.write(folder)
        notices = list(dict.fromkeys(interpreter.notices))
        wanted = deployment_of_job(job).resources.instance_count
        if wanted > spec.instances:
            notices.append(
                f"The job asked for {wanted} instances; compute {resolved.compute.name} has at most {spec.instances}."
            )
        return tuple(notices + quality_notices)

    def _write_reference(self, job: Job, folder: Path) -> list[str]:
        """Lay what the columns of the reference held beside the specification; answers with notices."""
        named = deployment_of_job(job).batchpoint.quality.reference
        found = self._workspace.jobs.reference_quality(job)
        if found is not None:
            shutil.copyfile(found, folder / REFERENCE)
        elif named is not None:
            return [f"Nothing is known of the columns of job {named}, the reference: nothing is compared with it."]
        return []

    def _resolve(self, job: Job, folder: Path) -> tuple[Interpreter, Resolved]:
        deployment = deployment_of_job(job)
        model, model_path = self._model(deployment)
        code_dir = self._code_dir(deployment)
        inputs = tuple(self._input_places(job))
        tabular, mltable = self._look_at_input(job, inputs)
        is_table = scored_input(job).query is not None or (mltable is not None and reads_rows(mltable))
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
            retried_passed=self._has_completed(job.retry_of),
        )
        if job.challenger is not None:
            challenger = self._challenging(job.challenger, script_of(deployment, resolved))
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

    def _has_completed(self, retried: str | None) -> bool:
        return retried is not None and self._workspace.jobs.get(retried).status is JobStatus.COMPLETED

    def _input_places(self, job: Job) -> Iterable[Place]:
        given = scored_input(job)
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
        first, given = inputs[0], scored_input(job)
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
