"""Where a step's inputs lie and its outputs go, on this machine and in the end; and what its command line is told."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

from batchpoint.entities.assets import Data, Model
from batchpoint.entities.jobs import Input, Job, Output
from batchpoint.operations.assets import DEFAULT_DATASTORE
from batchpoint.operations.jobs import collected_output
from batchpoint.operations.places import Place, Places, asset_reference
from batchpoint.scoring.spec import FetchedInput, Location, StagedOutput
from batchpoint.storage.datastores import Stores
from batchpoint.workspace import Workspace


@dataclass(frozen=True)
class StepPlaces:
    """What the bindings of a step stand for, and what has to be brought and taken away for that."""

    values: dict[str, str] = field(default_factory=dict)
    """By ``inputs.<name>`` and ``outputs.<name>``: a path of this machine, an address, or a literal as text."""
    fetched: list[FetchedInput] = field(default_factory=list)
    staged: list[StagedOutput] = field(default_factory=list)


def places_of_step(job: Job, folder: Path, workspace: Workspace) -> StepPlaces:
    """The places of a job's inputs and outputs, but for what is cut into mini-batches and what is collected.

    Raises:
        NotFoundError, InvalidEntityError: an input or output names what is not there.
    """
    places = StepPlaces()
    direct = job.command.direct_inputs if job.command else ()
    cut = None if job.command else job.input_data or next(iter(job.inputs), None)  # an endpoint's job has one input
    for name, given in job.inputs.items():
        _add_input(places, name, given, folder, workspace, direct, is_scored=name == cut)
    for name, value in job.literals.items():
        places.values[f"inputs.{name}"] = str(value)
    collected = None if job.command else collected_output(job)
    for name, output in job.outputs.items():
        if name == collected:
            places.values[f"outputs.{name}"] = str(folder / "user_output")
        else:
            staged = _staged(job, name, output, folder, workspace.places)
            places.values[f"outputs.{name}"] = staged.path
            places.staged.append(staged)
    return places


def output_place(job: Job, name: str, places: Places) -> tuple[Place, str | None]:
    """The folder of a job's output, and the file's name in it when the output's path names a file.

    Without a path: a folder named after the job and the output, in the default datastore. Azure ML's layout.
    """
    output = job.outputs.get(name, Output())
    place = places.resolve(output.path or f"azureml://datastores/{DEFAULT_DATASTORE}/paths/azureml/{job.name}/{name}/")
    if output.type != "uri_file" or place.uri.endswith("/"):
        return place, None
    file_name = PurePosixPath(place.uri).name
    return Place(place.uri[: -len(file_name)], place.url[: -len(file_name)], place.datastore), file_name


def is_own_folder(uri: str, output: str) -> bool:
    """Whether a folder belongs to one job, and to those that score its failed items again: it is named after it."""
    return re.search(rf"/azureml/[^/]+/{re.escape(output)}$", uri.rstrip("/")) is not None


def location_of(place: Place) -> Location:
    """A place as a run's specification has it."""
    return Location(url=place.url, datastore=place.datastore)


def _add_input(
    places: StepPlaces,
    name: str,
    given: Input,
    folder: Path,
    workspace: Workspace,
    direct: Collection[str],
    *,
    is_scored: bool,
) -> None:
    place = _place_of(given, workspace)
    local = Stores.local_path(place.url)
    key = f"inputs.{name}"
    if name in direct:
        places.values[key] = place.uri
    elif local is not None:
        places.values[key] = str(local)
    elif is_scored:  # its files are fetched as they are scored
        places.values[key] = place.url
    else:
        target = folder / "inputs" / "step" / name / PurePosixPath(place.url.rstrip("/")).name
        places.values[key] = str(target)
        places.fetched.append(FetchedInput(location=location_of(place), path=str(target)))


def _place_of(given: Input, workspace: Workspace) -> Place:
    if given.query is not None:
        return workspace.places.resolve_database(given.path)
    reference = asset_reference(given.path)
    if reference is None:
        return workspace.places.resolve(given.path)
    if (given.type or "").endswith("_model"):
        model = cast("Model", workspace.assets.resolve("model", reference))
        return workspace.places.resolve(model.path)
    return workspace.places.resolve(cast("Data", workspace.assets.resolve("data", reference)).path)


def _staged(job: Job, name: str, output: Output, folder: Path, places: Places) -> StagedOutput:
    place, file_name = output_place(job, name, places)
    is_file = output.type == "uri_file"
    own = is_own_folder(place.uri, name)
    path = folder / "step_outputs" / name
    replaces = job.retry_of is not None or (job.command is not None and job.command.if_exists == "overwrite")
    return StagedOutput(
        name=name,
        path=str(path / (file_name or name)) if is_file else str(path),
        folder=location_of(place),
        file_name=(file_name or name) if is_file else None,
        owns_folder=own or not is_file,
        if_exists="overwrite" if replaces else "fail",
    )
