"""What jobs made, as blobs at places where clients look for it and no files lie. It is only read.

* ``ExperimentRun/dcid.<job>/logs/user/error.txt``: the logs of a job, in a container of their own. What a command
  prints is there as Azure ML calls it, ``user_logs/std_log.txt``.
* ``azureml/<job>/<output>/<file>``: what a job has published elsewhere, in the default datastore. Older clients do not
  understand what the run history says of outputs, and look there.
* ``azureml/<job>/score/logs/user/error.txt``: the logs once more, of a scoring job that ended and published nothing.
  Every client looks there for an output that it is told nothing of; it would end with nothing, and without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchpoint.entities.file_names import as_named
from batchpoint.entities.jobs import Job
from batchpoint.errors import NotFoundError
from batchpoint.operations.assets import DEFAULT_DATASTORE
from batchpoint.operations.jobs import SCORE
from batchpoint.operations.places import Place
from batchpoint.server.azureml.containers import ARTIFACT_DATASTORE, container_of
from batchpoint.server.azureml.jobs import OWN_STD_LOG, STD_LOG, logged, run_of
from batchpoint.workspace import Workspace

LOGS = container_of(ARTIFACT_DATASTORE)
"""The container of the logs."""
_OUTPUTS = container_of(DEFAULT_DATASTORE)

_LOG = re.compile(r"^(?P<folder>ExperimentRun/dcid\.(?P<run>[^/]+)/)(?P<path>.*)$")
_OUTPUT = re.compile(r"^(?P<folder>azureml/(?P<run>[^/]+)/(?P<output>[^/]+)/)(?P<path>.*)$")


def names_below(work: Workspace, container: str, prefix: str) -> Iterator[tuple[str, int]] | None:
    """Names and sizes of the blobs that a prefix means; None where files of that place are meant.

    Raises:
        NotFoundError: it names a job that does not exist.
    """
    if container == LOGS:
        return _logs_below(work, prefix)
    if (found := _not_at_its_place(work, container, prefix)) is None:
        return None
    job, match = found
    files = work.jobs.outputs(job.name, match["output"]) if _folder_of(job, match) else work.jobs.logs(job.name)
    return ((f"{match['folder']}{path}", size) for path, size in files)


def place_of(work: Workspace, container: str, name: str) -> Place | None:
    """Where what a blob stands for lies; None where the file of that place is meant.

    Raises:
        NotFoundError: there is no such job or log; also for files of a job's folder that are no logs.
    """
    if container == LOGS:
        if (log := _LOG.match(name)) is None:
            raise NotFoundError(f"There is no file {name}.", kind="file", name=name)
        path = OWN_STD_LOG if log["path"] == STD_LOG else log["path"]
        return _log(work, logged(work, run_of(work, log["run"]).job), path)
    if (found := _not_at_its_place(work, container, name)) is None:
        return None
    job, match = found
    if (folder := _folder_of(job, match)) is None:
        return _log(work, job, match["path"])
    if match["path"] not in job.outputs[match["output"]].files:
        return None
    return work.places.below(work.places.resolve(folder), as_named(match["path"]))


def _log(work: Workspace, job: Job, path: str) -> Place:
    file = str(work.jobs.log_file(job.name, path))
    return Place(file, file)


def _logs_below(work: Workspace, prefix: str) -> Iterator[tuple[str, int]]:
    match = _LOG.match(prefix)
    if match is not None:
        logs = work.jobs.logs(logged(work, run_of(work, match["run"]).job).name)
        for path, size in sorted((STD_LOG if path == OWN_STD_LOG else path, size) for path, size in logs):
            yield f"{match['folder']}{path}", size


def _not_at_its_place(work: Workspace, container: str, name: str) -> tuple[Job, re.Match[str]] | None:
    """The job, and the match of ``_OUTPUT``, when a blob means what does not lie where its name says."""
    match = _OUTPUT.match(name) if container == _OUTPUTS else None
    if match is None:
        return None
    try:
        job = run_of(work, match["run"]).job
    except NotFoundError:
        return None
    if (folder := _folder_of(job, match)) is None:
        has_logs_alone = job.type == "scoring" and job.status.is_finished and match["output"] == SCORE
        return (job, match) if has_logs_alone else None
    own = f"azureml://datastores/{DEFAULT_DATASTORE}/paths/{match['folder']}".rstrip("/")
    return None if (work.places.in_datastore(folder) or "").rstrip("/") == own else (job, match)


def _folder_of(job: Job, match: re.Match[str]) -> str | None:
    """Where the output that a match of ``_OUTPUT`` names was published."""
    output = job.outputs.get(match["output"])
    return None if output is None else output.folder
