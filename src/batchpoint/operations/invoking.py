"""What one invoke means: overrides applied to the deployment, the input found, the output's place checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar, cast

from batchpoint.entities.assets import Data, Model
from batchpoint.entities.base import Part
from batchpoint.entities.endpoints import BatchDeployment, DeploymentSettings, ScoringOptions
from batchpoint.entities.jobs import Input, InvokeRequest, Job, Output, Overrides
from batchpoint.entities.quality import QualityOptions, ValueRange
from batchpoint.entities.resources import Compute
from batchpoint.errors import AlreadyExistsError, ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.assets import DEFAULT_DATASTORE, Assets
from batchpoint.operations.model_maps import check_keys
from batchpoint.operations.places import SUPPORTED, Place, Places, asset_reference
from batchpoint.scoring.query_input import columns_of, database_url
from batchpoint.storage.inputs import list_input

P = TypeVar("P", bound=Part)

_WILD = frozenset("*?[")


def effective_deployment(
    deployment: BatchDeployment, overrides: Overrides, compute: Compute
) -> tuple[BatchDeployment, list[str]]:
    """The deployment as one job runs it, and notices about what was capped. What is None stays as declared.

    Raises:
        InvalidEntityError: other partition keys, or another output, do not fit what goes by keys.
    """
    given = overrides.model_dump(exclude_none=True)
    settings = deployment.settings.model_copy(update=_of(given, DeploymentSettings))
    if overrides.retry_settings is not None:
        retries = deployment.settings.retry_settings.model_copy(update=given["retry_settings"])
        settings = settings.model_copy(update={"retry_settings": retries})
    options = _of(given, ScoringOptions)
    if overrides.table is not None:
        options["table"] = overrides.table
    if overrides.csv is not None:
        options["csv"] = _changed(deployment.batchpoint.csv, overrides.csv)
    if overrides.quality is not None:
        options["quality"] = _checks(deployment.batchpoint.quality, overrides.quality)
    wanted = overrides.instance_count or deployment.resources.instance_count
    instances = min(wanted, compute.max_instances)
    notices = []
    if instances < wanted:
        notices.append(
            f"Instances were lowered from {wanted} to {instances}, the most that compute {compute.name} has."
        )
    changes = {
        "settings": settings,
        "batchpoint": deployment.batchpoint.model_copy(update=options),
        "resources": deployment.resources.model_copy(update={"instance_count": instances}),
    }
    effective = deployment.model_copy(update=changes)
    check_keys(effective)
    if overrides.keys is not None:
        notices.append(f"Only rows of {len(overrides.keys):,} keys are scored, as it was asked for.")
    return only_of_keys(effective, overrides), notices


def only_of_keys(deployment: BatchDeployment, overrides: Overrides) -> BatchDeployment:
    """The deployment, with a map that leaves rows out when their key is none of those that were asked for. Pure.

    Raises:
        InvalidEntityError: keys were asked for, and it has no model map, or other partition keys.
    """
    if overrides.keys is None:
        return deployment
    model_map, names = deployment.batchpoint.model_map, deployment.batchpoint.partition_keys
    if model_map is None:
        message = f"Deployment {deployment.name} has no model map, so that it cannot be asked for some keys alone."
        raise InvalidEntityError(f"{message} Leave out 'keys', or give only the data of these keys.")
    if odd := next((key for key in overrides.keys if set(key) != set(names)), None):
        message = f"{odd} is no key of deployment {deployment.name}. Give a value for each of {', '.join(names)}."
        raise InvalidEntityError(message)
    skipping = model_map.model_copy(update={"on_missing": "skip", "default_model": None})
    options = deployment.batchpoint.model_copy(update={"model_map": skipping})
    return deployment.model_copy(update={"batchpoint": options})


def can_run_again(job: Job) -> bool:
    """Whether the same can be asked for once more: of an endpoint, or of a pipeline; not of one of its steps."""
    is_asked = job.type == "pipeline" or (job.type == "scoring" and job.endpoint_name is not None)
    return is_asked and job.parent_job_name is None and job.sample is None


def asked_again(job: Job) -> InvokeRequest:
    """The invoke that a scoring job came from. Its deployment scores as it is now, with the settings of then; an asset
    is the version that it was then. What went to a folder of the job's own goes to one of the new job's.

    Raises:
        ConflictError: nobody can ask for such a job.
    """
    if not can_run_again(job):
        raise ConflictError(f"Job {job.name} came from no invoke: ask for it again where it was asked for.")
    asset = job.properties.get("input_asset")
    inputs = {name: Input(path=asset) if asset else given for name, given in job.inputs.items()}
    own = _default_place(job.name)
    outputs = {
        name: Output(type=given.type, path=given.path)
        for name, given in job.outputs.items()
        if given.path is not None and given.path != own
    }
    named = job.deployment.settings.output_file_name if job.deployment and outputs else None
    overrides = job.overrides.model_copy(update={"output_file_name": named}) if named else job.overrides
    return InvokeRequest(
        inputs=inputs,
        literals=job.literals,
        outputs=outputs,
        deployment_name=job.deployment_name,
        challenger=job.challenger.name if job.challenger else None,
        experiment_name=job.experiment_name,
        description=job.description,
        tags=job.tags,
        overrides=overrides,
    )


def _default_place(job_name: str) -> str:
    return f"azureml://datastores/{DEFAULT_DATASTORE}/paths/azureml/{job_name}/score/"


class InputsAndOutputs:
    """Resolves and checks what an invoke reads and writes."""

    def __init__(self, assets: Assets, places: Places) -> None:
        self._assets = assets
        self._places = places

    def check_inputs(self, inputs: Mapping[str, Input]) -> tuple[dict[str, Input], dict[str, str]]:
        """The one input, resolved to places that exist and can be read; and properties that say which asset it was.

        Raises:
            InvalidEntityError: it is not exactly one, or not of its declared type.
            NotFoundError: it names an asset or datastore that does not exist.
            InputError: nothing lies there, or it may not be read.
            DatastoreError: the store does not answer.
        """
        if len(inputs) != 1:
            given_too = f"{len(inputs)} were given" if inputs else "none was given"
            message = f"A model deployment takes exactly one input, and {given_too}. {SUPPORTED}"
            raise InvalidEntityError(message, on_command_line="--input <file, folder or address>")
        name, given = next(iter(inputs.items()))
        if given.query is not None:
            return {name: self._check_query(given, given.query)}, {}
        properties = {}
        resolved = given
        reference = asset_reference(given.path)
        if reference is not None:
            asset = self._data(given.path)
            asset_type = asset.type if isinstance(asset, Data) else None
            resolved = given.model_copy(update={"path": asset.path, "type": asset_type or given.type})
            properties["input_asset"] = f"azureml:{asset.reference}"
        places = self._places.resolve_all((resolved.path, *resolved.paths))
        kind = self._check_place(resolved, places)
        changes = {"path": places[0].uri, "paths": [place.uri for place in places[1:]], "type": kind}
        return {name: resolved.model_copy(update=changes)}, properties

    def check_outputs(
        self, outputs: Mapping[str, Output], job_name: str, deployment: BatchDeployment
    ) -> tuple[Output, BatchDeployment]:
        """Where the job writes: always a folder, with a trailing slash; and the deployment with the file's name in it.

        Raises:
            InvalidEntityError: more than one output was asked for, or its place is of no known form.
            AlreadyExistsError: the predictions lie there already, and ``if_exists`` is ``fail``.
            DatastoreError: it could not be written there.
        """
        if len(outputs) > 1:
            raise InvalidEntityError(f"A model deployment writes one output, and {len(outputs)} were asked for.")
        given = next(iter(outputs.values()), Output())
        place = self._places.resolve(given.path or _default_place(job_name))
        stores = self._places.stores()
        self.check_table(deployment)
        file_name = PurePosixPath(place.uri).name
        names_file = given.path is not None and given.type == "uri_file" and not place.uri.endswith("/")
        if names_file and PurePosixPath(file_name).suffix and not stores.is_folder(place.url, place.datastore):
            settings = deployment.settings.model_copy(update={"output_file_name": file_name})
            deployment = deployment.model_copy(update={"settings": settings})
            uri, url = place.uri[: -len(file_name)], place.url[: -len(file_name)]
        else:
            uri, url = place.uri.rstrip("/") + "/", place.url.rstrip("/") + "/"
        folder = Place(uri, url, place.datastore)
        self._check_free(folder, deployment)
        stores.check_writable(folder.url, folder.datastore)
        return given.model_copy(update={"path": folder.uri, "uri": None}), deployment

    def check_table(self, deployment: BatchDeployment) -> None:
        """Look whether the table that predictions go to lies in a database that can be named.

        Raises:
            InvalidEntityError: its address is none, or holds a password.
            NotFoundError: its datastore does not exist.
        """
        if deployment.batchpoint.table is not None:
            self._places.resolve_database(deployment.batchpoint.table.url)

    def _check_query(self, given: Input, query: str) -> Input:
        """Ask the database whether it understands the query."""
        if given.paths or given.include or given.exclude or given.type is not None:
            raise InvalidEntityError("An input with a query has a path, the database, and nothing else beside it.")
        place = self._places.resolve_database(given.path)
        columns_of(database_url(place.url, self._places.storage_options()), query)
        return given.model_copy(update={"path": place.uri})

    def _data(self, text: str) -> Data | Model:
        """The data asset that an input names; a model is taken too, as its files are data to whoever asks for them."""
        try:
            return cast("Data", self._assets.resolve("data", text))
        except NotFoundError as missing:
            try:
                return cast("Model", self._assets.resolve("model", text))
            except NotFoundError:
                raise missing from None

    def _check_place(self, given: Input, places: list[Place]) -> Any:
        """Look whether the input is there and what its declared type says. Answers with its type."""
        stores = self._places.stores()
        first = places[0]
        is_glob = any(_WILD & set(place.uri) and not place.uri.startswith("http") for place in places)
        if not is_glob:
            for place in places:
                stores.check_readable(place.url, place.datastore)
        is_folder = not is_glob and stores.is_folder(first.url, first.datastore)
        if given.type == "uri_file" and is_folder:
            raise InvalidEntityError(f"The input {given.path} is declared as uri_file, but it is a folder.")
        if first.url.startswith(("http:", "https:")):
            return "uri_file"  # whatever was declared: nothing can be listed there
        if given.type in {"uri_folder", "mltable"} and not is_folder and not is_glob:
            raise InvalidEntityError(f"The input {given.path} is declared as {given.type}, but it is a file.")
        if given.type != "mltable" and (is_folder or is_glob):
            list_input(  # says so when there is nothing to score
                stores,
                [(place.url, place.datastore) for place in places],
                include=given.include,
                exclude=given.exclude,
                recursive=given.recursive,
            )
        if given.type is not None:
            return given.type
        return "uri_folder" if is_folder or is_glob or len(places) > 1 else "uri_file"

    def _check_free(self, folder: Place, deployment: BatchDeployment) -> None:
        if deployment.batchpoint.if_exists != "fail" or not deployment.batchpoint.one_file:
            return
        stores = self._places.stores()
        file_name = deployment.settings.output_file_name
        if stores.exists(f"{folder.url}{file_name}", folder.datastore):
            raise AlreadyExistsError(
                f"{folder.uri}{file_name} exists already, and outputs are not overwritten unasked. Choose another "
                "place, or say if_exists: overwrite (replace it) or version (write beside it)."
            )


def _checks(before: QualityOptions, asked: QualityOptions) -> QualityOptions:
    """The checks of one job. What is allowed of other columns stays, unless it was said that nothing is checked."""
    if asked.output_ranges:
        known = before.output_ranges
        ranges = {name: _changed(known.get(name, ValueRange()), to) for name, to in asked.output_ranges.items()}
        asked = asked.model_copy(update={"output_ranges": {**known, **ranges}})
    return _changed(before, asked)


def _changed(before: P, asked: P) -> P:
    """A piece with what was said in another; what was left out there stays."""
    return type(before).model_validate({**dict(before), **{key: getattr(asked, key) for key in asked.model_fields_set}})


def _of(given: Mapping[str, Any], part: type[DeploymentSettings | ScoringOptions]) -> dict[str, Any]:
    names = part.model_fields.keys() - {"retry_settings", "csv", "table", "quality", "instance_count"}
    return {key: value for key, value in given.items() if key in names}
