"""What a step reads and writes beside mini-batches: inputs fetched, outputs staged, then published, each at once.

A step writes below its run's folder and nowhere else. Only when all went well does each output appear at its final
place, whole, by one rename where that is possible; so whoever else looks there never sees half of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from batchpoint.errors import DatastoreError, InputError, OutputError
from batchpoint.scoring.publication import (
    PlaceTakenError,
    Stores,
    check_free,
    child,
    choose_destination,
    files_under,
    forget_destination,
    link_files,
    place,
    staging_folder,
)
from batchpoint.scoring.spec import FetchedInput, Location, OutputSpec, StagedOutput
from batchpoint.storage import datastores

MARKERS = "publishing"
"""Folder in a run's folder: for each output, where it was settled that it goes."""


@dataclass(frozen=True)
class _Publishing:
    """One staged output as ``publication`` wants it described."""

    job: str
    output: OutputSpec
    retry_of: str | None = None


def fetch_inputs(inputs: Sequence[FetchedInput], stores: datastores.Stores) -> None:
    """Bring what lies elsewhere to this machine; what an earlier process of the run has fetched stays.

    Raises:
        InputError: it is not there, or its names lead out of their folder.
        DatastoreError: the store does not answer.
    """
    for wanted in inputs:
        target, url, datastore = Path(wanted.path), wanted.location.url, wanted.location.datastore
        if target.exists():
            continue
        if not stores.is_folder(url, datastore):
            stores.fetch(url, target, datastore)
            continue
        draft = target.with_name(f"{target.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for found in stores.list(url, datastore, recursive=True):
            if ".." in PurePosixPath(found.path).parts:
                raise InputError(f"{found.url} leads out of its folder. Rename it.", url=found.url)
            stores.fetch(found.url, draft / found.path, datastore)
        draft.rename(target)


def make_room(outputs: Sequence[StagedOutput], *, clean: bool) -> None:
    """Make the folders that a step writes into. With ``clean``, what an earlier process wrote there is gone."""
    for output in outputs:
        folder = _staging(output)
        if clean:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)


def check_places(job: str, outputs: Sequence[StagedOutput], run_folder: Path, stores: datastores.Stores) -> None:
    """Check before anything is run that each output's place can be written, and is free or may be replaced.

    Raises:
        OutputError: naming what lies there and which option helps, or why it cannot be written.
    """
    for output in outputs:
        check_free(_publishing(job, output), stores, run_folder / MARKERS / output.name)
        try:
            stores.check_writable(output.folder.url, output.folder.datastore)
        except DatastoreError as refusal:
            raise _refused(output, refusal) from refusal


def publish_outputs(
    job: str, outputs: Sequence[StagedOutput], run_folder: Path, stores: Stores
) -> dict[str, dict[str, Any]]:
    """Let every output appear at its final place; may be called again after it was interrupted anywhere.

    Returns:
        For ``outcome.json``: for each output ``uri``, ``folder`` and ``files``.

    Raises:
        OutputError: a file was not written, another has taken its place meanwhile, or the disk is full.
    """
    for output in outputs:
        if output.file_name is not None and not Path(output.path).is_file():
            raise OutputError(
                f"The output {output.name} was not written: ${{{{outputs.{output.name}}}}} stands for the path of a "
                "file, and none was made there. Write it, or declare the output as uri_folder."
            )
    published = {}
    for output in outputs:
        try:
            published[output.name] = _publish(job, output, run_folder, stores)
        except (OSError, DatastoreError) as refusal:
            raise _refused(output, refusal) from refusal
    return published


def _refused(output: StagedOutput, refusal: Exception) -> OutputError:
    return OutputError(f"The output {output.name} cannot be written to {output.folder.url}: {refusal}")


def _publish(job: str, output: StagedOutput, run_folder: Path, stores: Stores) -> dict[str, Any]:
    publishing, markers = _publishing(job, output), run_folder / MARKERS / output.name
    markers.mkdir(parents=True, exist_ok=True)
    source = _staging(output)
    names = [output.file_name] if output.file_name is not None else files_under(source)
    destination = choose_destination(publishing, markers, stores)
    staging = staging_folder(publishing, destination, markers)
    try:
        link_files(source, staging, skip=sorted(set(files_under(source)) - set(names)))
        for name in names:
            _sync(staging / name)
        place(publishing, destination, staging, stores)
    except PlaceTakenError:
        forget_destination(markers)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    folder = destination.folder
    uri = child(folder, output.file_name) if output.file_name is not None else folder
    return {"uri": uri.url, "folder": folder.url, "files": names}


def _publishing(job: str, output: StagedOutput) -> _Publishing:
    name = output.file_name or "."
    spec = OutputSpec(
        folder=Location(url=output.folder.url.rstrip("/"), datastore=output.folder.datastore),
        file_name=name,
        errors_name=name,
        receipt_name=name,
        owns_folder=output.owns_folder,
        if_exists=output.if_exists,
    )
    return _Publishing(job, spec)


def _staging(output: StagedOutput) -> Path:
    path = Path(output.path)
    return path.parent if output.file_name is not None else path


def _sync(path: Path) -> None:
    """To disk: what is published must not be lost with the machine's power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
