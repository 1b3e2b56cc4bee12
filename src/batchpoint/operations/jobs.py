"""Jobs: show, list, cancel, retry what failed, logs, outputs, errors, receipt."""

from __future__ import annotations

import builtins
import json
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet
from pydantic import ValidationError

from batchpoint.entities.comparisons import Comparison
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.file_names import as_named
from batchpoint.entities.forecasts import Forecast
from batchpoint.entities.job_queries import JobListing, JobQuery
from batchpoint.entities.jobs import Job, JobError, JobStatus, Output, Progress, Receipt
from batchpoint.entities.pipeline_deployments import is_command
from batchpoint.entities.pipelines import has_failed
from batchpoint.entities.quality import Quality, summary
from batchpoint.entities.run_reports import ErrorGroups, ErrorPage, Histograms, LogPiece, LogSearch, RunReport
from batchpoint.entities.scored_models import ModelReport
from batchpoint.errors import ConflictError, InvalidEntityError, NotFoundError
from batchpoint.operations.error_groups import Grouping, is_of
from batchpoint.operations.histograms import histograms_of
from batchpoint.operations.invoking import only_of_keys
from batchpoint.operations.latest_outputs import WrittenOutput, address, written_files
from batchpoint.operations.log_lines import piece_from, piece_until, search
from batchpoint.operations.model_maps import AS_OF, FOUND, of_keys, read_report
from batchpoint.operations.pipelines import Pipelines, latest_retry
from batchpoint.operations.places import Place, Places
from batchpoint.operations.recent import Recent
from batchpoint.operations.run_reports import RunReports
from batchpoint.registry import JobEvent, Registry
from batchpoint.registry.jobs import Archived

QUALITY = "quality.json"
"""File of a run's folder with what its columns held."""
NAME_ANOTHER = (
    "Name a job that was scored with sketches, or leave quality.reference out: the first good job is taken then."
)
MOST_GROUPED = 100_000
"""Failed items that are looked at to group them, or to find those of a group."""
MOST_LOOKED_FOR = 100
"""Files of an output that are looked for: of one with a file for each of thousands of keys not all."""
MODELS_REPORT = "models_report.jsonl"
"""File of a run's folder with what each key's model did."""
SCORE = "score"
"""Name of the output of a job that is no step, and of a step's that collects nothing: errors and receipt lie there."""


def collected_output(job: Job) -> str:
    """The name of the output that a scoring job's predictions, errors and receipt belong to."""
    return job.append_row_to or SCORE


COMPARISON = "comparison.json"
"""How the name of the published comparison ends, but for the number of a version."""


class Jobs:
    """What a user may ask about jobs."""

    def __init__(
        self,
        registry: Registry,
        places: Places,
        job_queued: threading.Event,
        pipelines: Pipelines,
        pipeline_changed: threading.Event,
    ) -> None:
        self._registry = registry
        self._places = places
        self._job_queued = job_queued
        self._pipelines = pipelines
        self._pipeline_changed = pipeline_changed
        self._reports = RunReports()
        self._groups: Recent[ErrorGroups] = Recent()
        self._histograms: Recent[Histograms | None] = Recent()

    def get(self, name: str) -> Job:
        """One job, with the progress of this moment, and the retry that repaired it.

        Raises:
            NotFoundError: there is none of that name.
        """
        job = _with_progress(self._registry.jobs.get(name))
        retry = self.completed_retry(job)
        is_repaired = retry is not None and not _has_failures(retry)
        return job.model_copy(update={"repaired_by": retry.name}) if retry and is_repaired else job

    def list(
        self,
        *,
        status: JobStatus | Collection[JobStatus] | None = None,
        endpoint: str | None = None,
        deployment: str | None = None,
        published_pipeline: str | None = None,
        parent: str | None = None,
        schedule: str | None = None,
        archived: Archived = "exclude",
        limit: int = 50,
        offset: int = 0,
    ) -> Sequence[Job]:
        """Jobs, the newest first. The steps of a pipeline are listed by their ``parent`` alone."""
        found = self._registry.jobs.list(
            status=status,
            endpoint=endpoint,
            deployment=deployment,
            published_pipeline=published_pipeline,
            parent=parent,
            top_level=parent is None,
            schedule=schedule,
            archived=archived,
            limit=limit,
            offset=offset,
        )
        return [_with_progress(job) for job in found]

    def find(self, query: JobQuery) -> JobListing:
        """A page of jobs that are no steps, filtered, searched and sorted.

        Raises:
            NotFoundError: there is no job of the name that the page begins or ends at.
        """
        listing = self._registry.jobs.find(query)
        return replace(listing, jobs=[_with_progress(job) for job in listing.jobs])

    def cancel(self, name: str) -> tuple[Job, bool]:
        """Ask for a job to be canceled; what it has committed stays. Answers with the job, and whether it has ended by
        this: it waited in the queue.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it has completed or failed already.
        """
        asked = self._registry.jobs.request_cancel(name)
        self._job_queued.set()
        self._pipeline_changed.set()
        return asked

    def retry_failed(
        self, name: str, *, job_name: str | None = None, current_deployment: bool = False, by: str | None = None
    ) -> Job:
        """Score again what failed, or was not reached, in a finished job; merged into the same output.

        The job's own deployment scores, as it was at its invoke. With ``current_deployment`` model, script,
        environment, tries and thresholds are those of today; how the input is cut and the output written stays.

        A pipeline job that failed or was canceled is resumed: steps that completed are taken over, the others run.

        Raises:
            NotFoundError: there is no job, or no longer a deployment, of that name.
            ConflictError: the job is a command, is not finished, is being retried, has nothing left to score, lost its
                folder, failed and was retried by one that completed, or a later job wrote to the same place.
            AlreadyExistsError: ``job_name`` is taken.
        """
        job = self.get(name)
        if job.type == "pipeline":
            return self._pipelines.retry_failed(job, job_name=job_name, by=by)
        _check_retryable(job)
        if job.repaired_by is not None:
            raise ConflictError(f"Job {name} was repaired by job {job.repaired_by}: there is nothing to retry.")
        self._check_place_free(job)
        self._check_nothing_newer(job)
        deployment, notices = self._deployment_of_retry(job, current=current_deployment)
        of_then = {AS_OF, FOUND} if current_deployment else ()  # today's deployment scores with today's models
        properties = {key: value for key, value in job.properties.items() if key not in of_then}
        again = Job(
            name=job_name or f"batchjob-{uuid.uuid4()}",
            description=job.description,
            tags=job.tags,
            properties=properties,
            created_by=by,
            endpoint_name=job.endpoint_name,
            deployment_name=job.deployment_name,
            experiment_name=job.experiment_name,
            deployment=deployment,
            challenger=job.challenger,
            notices=[*notices],
            inputs=job.inputs,
            input_data=job.input_data,
            literals=job.literals,
            append_row_to=job.append_row_to,
            outputs={key: Output(type=output.type, path=output.path) for key, output in job.outputs.items()},
            overrides=job.overrides,
            retry_of=name,
        )
        stored, _ = self._registry.jobs.enqueue(again)
        self._job_queued.set()
        return stored

    def retries(self, name: str) -> Sequence[Job]:
        """The jobs that scored again what failed in this one, the newest first."""
        return self._registry.jobs.list(retry_of=name, archived="include")

    def written_by(self, first: Job) -> WrittenOutput:
        """The output of a job that retried none, with all that were to write it anew."""
        found = [first]
        for job in found:  # grows by those that retried a retry
            found += self._registry.jobs.list(retry_of=job.name, archived="include", limit=None)
        return WrittenOutput(tuple(found))

    def written_over(self, output: WrittenOutput) -> Job | None:
        """The job of the same endpoint that wrote to the files of a published output after it, if one did."""
        return self._newest_writer(output, output.completed[-1], written_files(output.completed[-1]))

    def missing_file(self, job: Job) -> str | None:
        """A file of those that a job published that is not there any more, of very many looked for among the first.

        Raises:
            DatastoreError: the store does not answer.
        """
        stores = self._places.stores()
        for file in islice(sorted(written_files(job)), MOST_LOOKED_FOR):
            place = self._places.resolve(file)
            if not stores.exists(place.url, place.datastore):
                return file
        return None

    def completed_retry(self, job: Job) -> Job | None:
        """The last retry of a finished job that failed, or in which items did, once it has completed."""
        if not job.status.is_finished or not _has_failures(job):
            return None
        newest = latest_retry(self._registry, job)
        return newest if newest.name != job.name and newest.status == JobStatus.COMPLETED else None

    def archive(self, name: str) -> Job:
        """Hide a job from lists. Raises ``NotFoundError``."""
        return self._registry.jobs.archive(name)

    def restore(self, name: str) -> Job:
        """Undo ``archive``. Raises ``NotFoundError``."""
        return self._registry.jobs.restore(name)

    def update(
        self,
        name: str,
        *,
        description: str | None = None,
        display_name: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Job:
        """Change what a person says of a job; None leaves it as it is. Raises ``NotFoundError``.

        Tags and properties are merged into those before; None takes a tag away.
        """
        kept = {**self._registry.jobs.get(name).properties, **properties} if properties else None
        return self._registry.jobs.update(
            name, description=description, display_name=display_name, tags=tags, properties=kept
        )

    def events(self, name: str) -> Sequence[JobEvent]:
        """Every change of a job, the oldest first. Raises ``NotFoundError``."""
        return self._registry.jobs.events(name)

    def logs(self, name: str) -> Sequence[tuple[str, int]]:
        """The job's log files: path relative to the job's folder, and size in bytes. None before it has started.

        Those of a command job are its step's, too: what the command printed.

        Raises:
            NotFoundError: there is no such job.
        """
        return sorted(file for job in self._logged(name) for file in _log_files(job))

    def read_log(self, name: str, path: str, offset: int = 0, limit: int = 2**20) -> bytes:
        """Bytes of a log file from ``offset``; fewer than ``limit`` at its end. A negative offset counts from the end.

        Raises:
            NotFoundError: there is no such job or log.
        """
        file = self.log_file(name, path)
        with file.open("rb") as log:
            size = file.stat().st_size
            log.seek(max(size + offset, 0) if offset < 0 else offset)
            return log.read(limit)

    def log_piece(
        self, name: str, path: str, *, start: int = 0, until: int | None = None, limit: int = 2**17
    ) -> LogPiece:
        """Whole lines of a log file from ``start`` on (negative: from the end), or up to ``until``.

        Raises:
            NotFoundError: there is no such job or log.
        """
        path_here = self.log_file(name, path)
        with path_here.open("rb") as file:
            size = path_here.stat().st_size
            return piece_from(file, start, size, limit) if until is None else piece_until(file, until, size, limit)

    def search_log(self, name: str, path: str, wanted: str, *, start: int = 0) -> LogSearch:
        """Lines of a log file from ``start`` on that hold a text.

        Raises:
            NotFoundError: there is no such job or log.
        """
        path_here = self.log_file(name, path)
        with path_here.open("rb") as file:
            return search(file, wanted, start, path_here.stat().st_size)

    def log_file(self, name: str, path: str) -> Path:
        """Where one of the job's log files lies on the machine of the server.

        Raises:
            NotFoundError: there is no such job or log.
        """
        for folder in [Path(job.folder) for job in self._logged(name) if job.folder is not None and "\x00" not in path]:
            file = (folder / path).resolve()
            if file.is_relative_to((folder / "logs").resolve()) and file.is_file():
                return file
        raise NotFoundError(f"Job {name} has no log {path}.", kind="log", name=path, job=name)

    def _logged(self, name: str) -> builtins.list[Job]:
        """The jobs whose logs are shown as those of a job: itself, and of a command job its one step."""
        job = self._registry.jobs.get(name)
        if job.pipeline is None or not is_command(job.pipeline.get("jobs") or {}):
            return [job]
        return [job, *self._registry.jobs.list(parent=name, archived="include", limit=1)]

    def outputs(self, name: str, output: str | None = None, *, limit: int | None = None) -> Sequence[tuple[str, int]]:
        """The files of one of the job's outputs, or the first of them: path relative to it, and size in bytes.

        ``output`` names it; without, it is the only one, or the one with the predictions.

        Raises:
            NotFoundError: there is no such job or output, or it has several and none was named.
            DatastoreError: the store does not answer.
        """
        found = _output_of(self._registry.jobs.get(name), output)
        if found is None or found.folder is None:
            return []
        folder, stores = self._places.resolve(found.folder), self._places.stores()
        places = ((file, self._places.below(folder, as_named(file))) for file in found.files[:limit])
        return [(file, stores.size(place.url, place.datastore)) for file, place in places]

    @contextmanager
    def open_output(self, name: str, path: str, output: str | None = None) -> Iterator[IO[bytes]]:
        """One file that the job has published, to read from; ``output`` as for ``outputs``.

        Raises:
            NotFoundError: there is no such job, output or file.
            DatastoreError: the store does not answer.
        """
        place = self._published(self._registry.jobs.get(name), path, output)
        with self._places.stores().open_read(place.url, place.datastore) as file:
            yield file

    def output_size(self, name: str, path: str, output: str | None = None) -> int:
        """Bytes of such a file; 0 where the store does not tell.

        Raises:
            NotFoundError: there is no such job, output or file.
            DatastoreError: the store does not answer.
        """
        place = self._published(self._registry.jobs.get(name), path, output)
        return self._places.stores().size(place.url, place.datastore)

    def _published(self, job: Job, path: str, output: str | None) -> Place:
        found = _output_of(job, output)
        if found is None or found.folder is None:
            raise NotFoundError(f"Job {job.name} has published nothing.", kind="output", name=path, job=job.name)
        place = self._places.below(self._places.resolve(found.folder), as_named(path))
        if path not in found.files or not self._places.stores().exists(place.url, place.datastore):
            raise NotFoundError(f"Job {job.name} has published no file {path}.", kind="output", name=path, job=job.name)
        return place

    def errors(self, name: str, limit: int = 1000) -> Sequence[dict[str, Any]]:
        """The items that failed, in input order: the lines of the errors file. None while the job runs.

        A job that did not complete publishes nothing; what failed in it by then is in the errors file of its folder.
        Of a pipeline, the steps that failed so far, in the order of their start, each with its own error.

        Raises:
            NotFoundError: there is no such job.
        """
        job = self._registry.jobs.get(name)
        with self._errors_from(job, 0) as lines:
            return [item for _, item in islice(lines, limit)]

    @contextmanager
    def _errors_from(self, job: Job, start: int) -> Iterator[Iterator[tuple[int, dict[str, Any]]]]:
        """The lines of the errors file from a place on, each with the place of the next: bytes, or rows of parquet."""
        if job.type == "pipeline":
            steps = [*islice(self._failed_steps(job), MOST_GROUPED)] or _own_error(job)
            yield ((start + at + 1, item) for at, item in enumerate(steps[start:]))
            return
        collected = collected_output(job)
        output = job.outputs.get(collected)
        for path in output.files if output is not None else ():
            if path.endswith(("errors.jsonl", "errors.parquet")):
                with self.open_output(job.name, path, collected) as file:
                    yield _error_lines(file, path, start)
                return
        kept = Path(job.folder) / "errors.jsonl" if job.folder and job.status.is_finished else None
        if kept is None or not kept.is_file():
            yield iter(())
            return
        with kept.open("rb") as file:
            yield _error_lines(file, kept.name, start)

    def histograms(self, job: Job, path: str, output: str) -> Histograms | None:
        """How the numbers of a published file are distributed, its predictions first; None where it holds none.

        Raises:
            NotFoundError: the job has no such output or file.
            DatastoreError: the store does not answer.
        """

        def made() -> Histograms | None:
            with self.open_output(job.name, path, output) as file:
                return histograms_of(file, path, keys, beside)

        keys, beside = _columns_that_lead(job)
        place = self._published(job, path, output)
        written = self._places.stores().fingerprint(place.url, place.datastore)
        # A retry may write the file anew, which belongs to a job that ended long ago.
        return self._histograms.of((job.name, job.queued_at, output, path, written), made) if written else made()

    def run_report(self, job: Job) -> RunReport | None:
        """The timeline of a job's mini-batches, as far as its run has reported; None when it has none."""
        return self._reports.of(job)

    def error_groups(self, name: str) -> ErrorGroups:
        """What failed, by exception and kind of message; of a very large number the first ones.

        Raises:
            NotFoundError: there is no such job.
            DatastoreError: the store does not answer.
        """
        job = self._registry.jobs.get(name)
        if not job.status.is_finished:
            return self._grouped(job)
        return self._groups.of((name, job.queued_at), lambda: self._grouped(job))

    def _grouped(self, job: Job) -> ErrorGroups:
        grouping, is_whole = Grouping(), True
        with self._errors_from(job, 0) as lines:
            for count, (_, item) in enumerate(lines):
                if count == MOST_GROUPED:
                    is_whole = False
                    break
                grouping.add(item)
        return grouping.groups(is_whole=is_whole)

    def error_page(
        self, name: str, *, exception: str = "", pattern: str = "", start: int = 0, limit: int = 100
    ) -> ErrorPage:
        """Failed items in input order, of one group or of all; ``start`` is 0 or where the page before says.

        Raises:
            NotFoundError: there is no such job.
            InvalidEntityError: no page begins there.
            DatastoreError: the store does not answer.
        """
        found: list[dict[str, Any]] = []
        following = None
        with self._errors_from(self._registry.jobs.get(name), start) as lines:
            for count, (after, item) in enumerate(lines):
                if is_of(item, exception, pattern):
                    found.append(item)
                if len(found) == limit or count == MOST_GROUPED:
                    following = after if next(lines, None) is not None else None
                    break
        return ErrorPage(items=found, following=following)

    def models(self, name: str, *, failing: bool = False) -> Sequence[ModelReport]:
        """What the model of each key did in a job with a model map, in the order of the input. None while it runs.

        With ``failing`` only those of which something failed or was skipped.

        Raises:
            NotFoundError: there is no such job.
        """
        job = self._registry.jobs.get(name)
        path = Path(job.folder) / MODELS_REPORT if job.folder and job.status.is_finished else None
        if path is None or not path.is_file():
            return []
        reports = of_keys(read_report(path), job.overrides.keys)
        return [report for report in reports if not failing or report.failed or report.skipped]

    def comparison(self, name: str) -> Comparison:
        """How the challenger of a job compares with its champion.

        Raises:
            NotFoundError: there is no such job, it has no challenger, or it has published no comparison.
            DatastoreError: the store does not answer.
        """
        job = self._registry.jobs.get(name)
        output = job.outputs.get(SCORE)
        path = next((path for path in output.files if path.endswith(COMPARISON)), None) if output else None
        if path is None:
            why = f"it is {job.status}" if job.challenger else "it was invoked without a challenger"
            raise NotFoundError(f"Job {name} has no comparison: {why}.", kind="comparison", name=name)
        with self.open_output(name, path) as file:
            return Comparison.model_validate_json(file.read())

    def quality(self, name: str) -> Quality:
        """What the columns of a job hold, and how far they are from those of its deployment's reference.

        Raises:
            NotFoundError: there is no such job, its columns were not looked at, or its run's folder is gone.
        """
        job = self._registry.jobs.get(name)
        file = _quality_file(job.folder)
        if file is None:
            why = "its columns were not looked at" if job.status.is_finished else f"it is {job.status}"
            raise NotFoundError(f"Job {name} tells nothing of its columns: {why}.", kind="quality", name=name)
        return Quality.model_validate_json(file.read_bytes())

    def reference_quality(self, job: Job) -> Path | None:
        """The file that tells what the columns held of the job to compare this one with; None where nothing is known.

        It is the one that the deployment names, else the first job of this endpoint that saw columns, completed with
        the same model, and was not withdrawn.

        Raises:
            InvalidEntityError: a check needs the one that is named, and nothing is known of it.
        """
        options = job.deployment.batchpoint.quality if job.deployment else None
        if options is not None and options.reference is not None:
            exists = self._registry.jobs.exists(options.reference)
            named = _quality_file(self._registry.jobs.get(options.reference).folder) if exists else None
            if named is not None and summary(Quality.model_validate_json(named.read_bytes())).columns == 0:
                named = None
            if named is None and options.checks_changes:
                message = f"Nothing is known of the columns of job {options.reference}, the reference of the checks."
                raise InvalidEntityError(f"{message} {NAME_ANOTHER}")
            return named
        if job.deployment is None or job.endpoint_name is None or job.deployment_name is None:
            return None
        model = job.deployment.model if isinstance(job.deployment.model, str) else None
        folders = self._registry.jobs.folders_of_completed(
            job.endpoint_name, job.deployment_name, model, since=self._created(job.endpoint_name)
        )
        return next((file for folder in folders if (file := _quality_file(folder)) is not None), None)

    def forecast(self, name: str) -> Forecast:
        """What the sample of a job says about the whole.

        Raises:
            NotFoundError: there is no such job, it is none that scores a sample, or it is not finished.
        """
        job = self._registry.jobs.get(name)
        file = Path(job.folder or "") / "forecast.json"
        if job.sample is None or job.folder is None or not file.is_file():
            why = f"it is {job.status}" if job.sample else "it scores its whole input"
            raise NotFoundError(f"Job {name} has no forecast: {why}.", kind="forecast", name=name)
        return Forecast.model_validate_json(file.read_bytes())

    def receipt(self, name: str) -> Receipt:
        """The reconciliation of a finished job, with all files as long as its run's folder is there.

        Raises:
            NotFoundError: there is no such job, or it has no receipt.
        """
        job = self._registry.jobs.get(name)
        if job.receipt is None:
            message = f"Job {name} has no receipt: it is {job.status}. Receipts are written at the end of scoring."
            raise NotFoundError(message, kind="receipt", name=name)
        outcome = Path(job.folder) / "outcome.json" if job.folder and job.receipt.files_left_out else None
        if outcome is None or not outcome.is_file():
            return job.receipt
        return Receipt.model_validate(json.loads(outcome.read_bytes())["receipt"])

    def _created(self, endpoint: str) -> datetime | None:
        """Since when there is the endpoint of this name; None where there is none any more."""
        try:
            return self._registry.endpoints.get(endpoint).created_at
        except NotFoundError:
            return None

    def _failed_steps(self, job: Job, inside: str = "") -> Iterator[dict[str, Any]]:
        """A line for each; of an inner pipeline its failed steps, as far as it came to any."""
        for found in self._registry.jobs.steps([job.name]):
            if not has_failed([found.status]):
                continue
            step, name = self._registry.jobs.get(found.name), f"{inside}{found.step_name}"
            inner = [*self._failed_steps(step, f"{name}.")] if step.type == "pipeline" else []
            yield from inner or [_failed_step(name, step)]

    def _check_nothing_newer(self, job: Job) -> None:
        """A retry writes in the place of the job; what another has put there since would be replaced by older data."""
        first = job
        while first.retry_of is not None:
            first = self._registry.jobs.get(first.retry_of)
        output = self.written_by(first)
        before = output.completed[-1] if output.completed else first
        newer = self._newest_writer(output, before, self._files_replaced(before))
        if newer is not None:
            raise ConflictError(
                f"Job {newer.name} has written to the place of job {before.name} since: a retry would put older data "
                f"there. Score the input of job {job.name} again, to another place."
            )

    def _newest_writer(self, output: WrittenOutput, job: Job, files: set[str]) -> Job | None:
        """The last job of the endpoint that wrote to one of these files after ``job`` had ended, which is one of those
        of ``output``; None when no other did."""
        if job.endpoint_name is None or not files:
            return None
        later = self._registry.jobs.list(
            endpoint=job.endpoint_name,
            status=JobStatus.COMPLETED,
            finished_after=job.finished_at,
            archived="include",
            limit=None,
        )
        own = {each.name for each in output.jobs}
        return next((each for each in later if each.name not in own and files & written_files(each)), None)

    def _files_replaced(self, job: Job) -> set[str]:
        """What a retry of a job would write over: what it has published, or else would have."""
        output, deployment = job.outputs.get(SCORE), job.deployment
        if (found := written_files(job)) or output is None or output.path is None or deployment is None:
            return found
        if deployment.batchpoint.if_exists != "overwrite":
            return set()  # what lies there is left alone
        place = self._places.resolve(output.path)
        return {address(self._places.kept(place.url, place.datastore), deployment.settings.output_file_name)}

    def _check_place_free(self, job: Job) -> None:
        """A job that failed has published nothing that a retry could replace, but another retry of it may have."""
        if job.status == JobStatus.COMPLETED or job.deployment is None:
            return
        newest = latest_retry(self._registry, job)
        if newest.status == JobStatus.COMPLETED and job.deployment.batchpoint.if_exists == "fail":
            raise ConflictError(
                f"Job {job.name} was retried already, by job {newest.name}, which completed. "
                "Retry that one if items failed in it.",
                on_command_line=f"batchpoint job retry -n {newest.name}",
            )

    def _deployment_of_retry(self, job: Job, *, current: bool) -> tuple[BatchDeployment | None, Sequence[str]]:
        """The deployment that scores failed items again, and what the user should know about it."""
        then = job.deployment
        if then is None or job.endpoint_name is None or job.deployment_name is None:
            return then, []
        try:
            now = self._registry.deployments.get(job.endpoint_name, job.deployment_name)
        except NotFoundError:
            if current:
                raise
            return then, []
        if not isinstance(now, BatchDeployment):
            if current:
                raise ConflictError(f"Deployment {now.name} is a pipeline now, and job {job.name} was none.")
            return then, []
        if current:
            today = only_of_keys(as_of_today(then, now), job.overrides)
            return today, [f"Scored with deployment {now.name} as it is now."]
        if (then.code_configuration, then.environment) == (now.code_configuration, now.environment):
            return then, []
        notice = (
            f"Deployment {now.name} has changed since job {job.name}. Its items are scored again with the deployment "
            "as it was; a retry with the current deployment (current_deployment) takes it as it is now."
        )
        return then, [notice]


def as_of_today(then: BatchDeployment, now: BatchDeployment) -> BatchDeployment:
    """What scores is that of ``now``; how the input is cut and the output written is that of ``then``."""
    settings = {
        key: getattr(now.settings, key)
        for key in ("retry_settings", "error_threshold", "environment_variables", "logging_level")
    }
    changes = {
        key: getattr(now, key) for key in ("model", "code_configuration", "environment", "environment_variables")
    }
    changes["batchpoint"] = then.batchpoint.model_copy(update={"model_map": now.batchpoint.model_map})
    return then.model_copy(update={**changes, "settings": then.settings.model_copy(update=settings)})


def _columns_that_lead(job: Job) -> tuple[Collection[str], Collection[str]]:
    """Columns of the job's output that are no predictions: those that name an item, and those of the input that stand
    beside it; ``*`` means all."""
    if job.deployment is None:
        return (), ()
    told = job.deployment.batchpoint
    names = {"file", "row", *told.key_columns}
    renamed = {told.rename.get(name, name) for name in (*names, *(f"input_{name}" for name in names))}
    return renamed, {told.rename.get(name, name) for name in told.passthrough}


def _quality_file(folder: str | None) -> Path | None:
    path = Path(folder) / QUALITY if folder else None
    return path if path is not None and path.is_file() else None


def _output_of(job: Job, wanted: str | None) -> Output | None:
    """The output that was asked for; None when the job has none at all."""
    if wanted is None and collected_output(job) in job.outputs:
        return job.outputs[collected_output(job)]
    if wanted is None and len(job.outputs) <= 1:
        return next(iter(job.outputs.values()), None)
    if wanted is not None and wanted in job.outputs:
        return job.outputs[wanted]
    known = ", ".join(job.outputs) or "none"
    message = f"Job {job.name} has no output {wanted}." if wanted else f"Job {job.name} has several outputs: name one."
    raise NotFoundError(f"{message} Known: {known}.", kind="output", name=wanted or "", job=job.name)


def _with_progress(job: Job) -> Job:
    """The job with what its run last wrote about its progress."""
    if job.folder is None or job.status.is_finished:
        return job
    try:
        text = (Path(job.folder) / "progress.json").read_bytes()
        return job.model_copy(update={"progress": Progress.model_validate_json(text)})
    except (OSError, ValidationError):
        return job  # not written yet: what the registry knows is the newest


def _has_failures(job: Job) -> bool:
    return job.status != JobStatus.COMPLETED or (job.receipt is not None and job.receipt.failed > 0)


def _check_retryable(job: Job) -> None:
    if job.sample is not None:
        raise ConflictError(f"Job {job.name} only scored a sample. Invoke the endpoint to score all.")
    if job.type == "command":
        message = f"Job {job.name} is a command, which has no items to retry."
        if job.parent_job_name is None:
            raise ConflictError(message)
        raise ConflictError(
            f"{message} Resume its pipeline instead: retry job {job.parent_job_name}.",
            on_command_line=f"batchpoint job retry -n {job.parent_job_name}",
        )
    if not job.status.is_finished:
        raise ConflictError(f"Job {job.name} is {job.status}. Retry what failed when it is finished.")
    if job.receipt is not None and job.status == JobStatus.COMPLETED and job.receipt.failed == 0:
        raise ConflictError(f"Job {job.name} has no failed items: there is nothing to retry.")
    if job.folder is None or not Path(job.folder).is_dir():
        raise ConflictError(f"Job {job.name} never started, or its folder is gone. Invoke the endpoint again instead.")


def _log_files(job: Job) -> Iterator[tuple[str, int]]:
    if job.folder is None:
        return
    root = Path(job.folder)
    for path in (root / "logs").rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not path.is_symlink() and _is_text(name):  # no address can name any other
            yield name, path.stat().st_size


def _is_text(name: str) -> bool:
    """Whether a file's name can be written down: systems allow any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _own_error(job: Job) -> list[dict[str, Any]]:
    """The line of a pipeline that failed although no step of it did."""
    return [_failed_step(None, job)] if job.error is not None else []


def _failed_step(name: str | None, job: Job) -> dict[str, Any]:
    error = job.error or JobError(code=str(job.reason), message=f"The step was {job.status}.")
    told = error.model_dump(include={"code", "file", "row", "exception", "message", "traceback"})
    return {"step": name, "job": job.name, **told}


def _error_lines(file: IO[bytes], name: str, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
    if name.endswith(".parquet"):
        row = 0
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024):
            for item in batch.slice(max(start - row, 0)).to_pylist() if row + batch.num_rows > start else ():
                start += 1
                yield start, item
            row += batch.num_rows
        return
    file.seek(start)
    for line in file:
        start += len(line)
        try:
            item = json.loads(line)
        except ValueError:
            raise InvalidEntityError(f"No line of {name} begins at byte {start - len(line)}.") from None
        yield start, item
