"""Jobs that a person holds in his hand: they know their server, refresh themselves and show themselves."""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from batchpoint import __version__
from batchpoint.client.connection import Archived, ByteProgress, Connection, address
from batchpoint.client.files import LocalFiles, declared_document
from batchpoint.client.notebook import job_html, progress_line
from batchpoint.client.predictions import Engine, read_table
from batchpoint.entities.comparisons import Comparison
from batchpoint.entities.forecasts import Forecast
from batchpoint.entities.jobs import Job as JobEntity
from batchpoint.entities.jobs import (
    JobStatus,
    Output,
    Progress,
    Receipt,
)
from batchpoint.entities.pipeline_deployments import CommandJob
from batchpoint.entities.pipelines import Pipeline
from batchpoint.entities.quality import Quality
from batchpoint.entities.scored_models import ModelReport
from batchpoint.entities.studio_addresses import Addresses
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
from batchpoint.errors import (
    BY_CODE,
    ConflictError,
    InvalidEntityError,
    NotFoundError,
    PlatformError,
    ScoringError,
    ServerUnavailableError,
)

Asked = TypeVar("Asked")
AnyEntity = TypeVar("AnyEntity", bound=BaseModel)

WAIT_SECONDS = 20.0
"""How long one request waits for the end of a job."""
REFRESH_SECONDS = 0.5
"""How old ``Job.progress`` may be before it is asked for again."""
STREAMED_LINES = 5_000
"""So many lines of logs are looked through for a traceback that was printed already."""


class Job:
    """One piece of work on the server. ``entity`` is the record as it was last seen."""

    def __init__(self, connection: Connection, entity: JobEntity) -> None:
        self._connection = connection
        self.entity = entity
        self._seen_at = time.monotonic()
        self._receipt: Receipt | None = None
        """The whole of it, once asked for, where the record leaves out files."""
        self._streamed: deque[str] = deque(maxlen=STREAMED_LINES)
        """The last lines of logs that ``stream`` printed."""

    def __repr__(self) -> str:
        return f"Job({self.name!r}, {self.entity.status.value})"

    def _repr_html_(self) -> str:
        return job_html(self.entity, self.studio_url)

    @property
    def name(self) -> str:
        """The job's name."""
        return self.entity.name

    @property
    def studio_url(self) -> str:
        """Address of the job's page in the studio."""
        return f"{self._connection.url}{Addresses(self._connection.workspace or DEFAULT_WORKSPACE).job(self.name)}"

    @property
    def status(self) -> JobStatus:
        """Where the job is in its life, at most half a second old."""
        return self._fresh().status

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self.status.is_finished

    @property
    def progress(self) -> Progress:
        """How far the job is, at most half a second old."""
        return self._fresh().progress or Progress()

    @property
    def receipt(self) -> Receipt | None:
        """items = ok + failed + skipped, per file and in total; None until the job has ended."""
        receipt = self._fresh().receipt
        if receipt is None or not receipt.files_left_out:
            return receipt
        if self._receipt is None:
            self._receipt = entity_of(Receipt, self._connection.get(address("jobs", self.name, "receipt")))
        return self._receipt

    @property
    def outputs(self) -> dict[str, Output]:
        """Where everything lies: ``outputs["score"].uri``."""
        return self._fresh().outputs

    @property
    def notices(self) -> list[str]:
        """What a user should know about how the job was run."""
        return self._fresh().notices

    def refresh(self) -> Job:
        """Ask the server for the record again."""
        return self._take(self._connection.get(address("jobs", self.name)))

    def wait(
        self,
        timeout: float | None = None,
        *,
        raise_on_failure: bool = True,
        on_progress: Callable[[JobEntity], None] | None = None,
    ) -> Job:
        """Wait for the end. In a notebook a live bar is shown meanwhile.

        Args:
            timeout: seconds after which to give up; None waits as long as it takes. The job goes on.
            raise_on_failure: whether a failed or canceled job is an error.
            on_progress: called with the record about every second.

        Raises:
            TimeoutError: the job had not finished in time.
            BatchpointError: the job failed; the class fits the cause (mostly a ``ScoringError``), the message holds
                the first failing item's file, row and traceback.
            ConflictError: the job was canceled.
        """
        show = on_progress or _notebook_display(self.studio_url)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.entity.status.is_finished:
            left = WAIT_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            seconds = round(min(1.0 if show else WAIT_SECONDS, left), 3)
            path = address("jobs", self.name, "wait")
            self._take(self._connection.send("GET", path, params={"seconds": seconds}, timeout=seconds + 30))
            if show:
                show(self.entity)
            if deadline is not None and time.monotonic() >= deadline and not self.entity.status.is_finished:
                raise TimeoutError(f"Job {self.name} is {self.entity.status.value} after {timeout:g} s; it goes on.")
        if raise_on_failure:
            self.raise_for_status()
        return self

    def raise_for_status(self) -> None:
        """Raise as ``wait`` does when the job failed or was canceled."""
        job = self.entity
        if job.status is JobStatus.CANCELED:
            raise ConflictError(f"Job {job.name} was canceled. What was committed until then is kept.", job=job.name)
        if job.status is JobStatus.FAILED:
            code = job.error.code if job.error else "scoring_failed"
            raise BY_CODE.get(code, ScoringError)(failure_text(job), job=job.name, reason=job.reason)

    def why_failed(self) -> str:
        """What went wrong in a job that failed; its traceback too, unless ``stream`` has just printed that."""
        error = self.entity.error
        if error is None or not error.traceback or not _holds(self._streamed, error.traceback.splitlines()):
            return failure_text(self.entity)
        return failure_text(self.entity.model_copy(update={"error": error.model_copy(update={"traceback": None})}))

    def events(self) -> Iterator[tuple[str, Any]]:
        """``status``, ``progress``, ``step``, ``log`` and ``end`` events with their data, as they happen."""
        for name, data in self._connection.events(address("jobs", self.name, "events")):
            yield name, data
            if name == "end":
                return

    def stream(self, out: TextIO | None = None, *, raise_on_failure: bool = True) -> Job:
        """Print the job's log and progress until it ends; progress at most every two seconds. Raises like ``wait``."""
        out = out or sys.stdout
        printed_at = float("-inf")
        for name, data in self._events_while_served():
            if name == "progress" and time.monotonic() - printed_at < 2:
                continue
            printed_at = time.monotonic() if name == "progress" else printed_at
            if line := event_line(name, data):
                print(line, file=out, flush=True)
            if name == "log" and isinstance(data, dict):
                self._streamed.append(str(data.get("line", "")))
        # The stream may end before the job does, when the server is stopped or killed: the wait goes on from there.
        return self.refresh().wait(raise_on_failure=raise_on_failure)

    def comparison(self) -> Comparison:
        """How the job's challenger compares with its champion, item by item.

        Raises:
            NotFoundError: the job has no challenger, or has not published a comparison.
        """
        return entity_of(Comparison, self._connection.get(address("jobs", self.name, "comparison")))

    def quality(self) -> Quality:
        """What the job's columns hold, and how far they are from those of the deployment's reference.

        Raises:
            NotFoundError: the columns were not looked at, or the job is not finished.
        """
        return entity_of(Quality, self._connection.get(address("jobs", self.name, "quality")))

    def forecast(self) -> Forecast:
        """What the sample that the job scored says about the whole: see ``endpoints.plan``.

        Raises:
            NotFoundError: the job scored no sample, or is not finished.
        """
        return entity_of(Forecast, self._connection.get(address("jobs", self.name, "forecast")))

    def cancel(self) -> Job:
        """Ask the job to stop. What is committed stays."""
        return self._take(self._connection.send("POST", address("jobs", self.name, "cancel")))

    def retry_failed(self, *, current_deployment: bool = False) -> Job:
        """A new job that scores only the failed items and merges them into the same output.

        It scores with the deployment as it was at the invoke, or, with ``current_deployment``, as it is now.
        """
        query = {"current_deployment": "true"} if current_deployment else None
        body = self._connection.send("POST", address("jobs", self.name, "retry-failed"), params=query)
        return Job(self._connection, entity_of(JobEntity, body))

    def retry(self) -> Job:
        """``retry_failed``; of a failed pipeline, a new job that goes on from its failed steps."""
        return self.retry_failed()

    def steps(self) -> dict[str, Job]:
        """Of a pipeline: the job of each step that was started, by the step's name, in the order of their start."""
        found = [
            entity_of(JobEntity, item) for item in self._connection.pages("/jobs", parent=self.name, archived="include")
        ]
        return {job.step_name or job.name: Job(self._connection, job) for job in reversed(found)}

    def output_files(self, output_name: str | None = None) -> list[dict[str, Any]]:
        """``path`` and ``size`` of each file of an output: the one that is named, the only one, or the predictions."""
        return list(self._connection.pages(address("jobs", self.name, "outputs"), output=output_name))

    def download(
        self,
        path: str | Path | None = None,
        *,
        output_name: str | None = None,
        progress: ByteProgress | None = None,
    ) -> Path:
        """Copy the files of the outputs into a folder, by default one named after the job, and answer with it.

        Of a job with several outputs each is copied into a folder of its name, unless ``output_name`` names one;
        ``<step>.<output>`` names one of a pipeline's step.

        Raises:
            ConflictError: the job has not finished.
            NotFoundError: it has no such step or output, or has published nothing.
        """
        folder = Path(path or self.name)
        if output_name is not None and "." in output_name and output_name not in self.entity.outputs:
            step, _, output = output_name.partition(".")
            return self._step(step).download(folder, output_name=output, progress=progress)
        self._must_be_finished("download")
        names: list[str | None] = [output_name] if output_name else [*self.entity.outputs] or [None]
        found = [(name, file["path"]) for name in names for file in self.output_files(name)]
        if not found:
            why = f": {self.entity.error.message.rstrip('.')}." if self.entity.error else "."
            raise NotFoundError(
                f"Job {self.name} is {self.status} and has published nothing to download{why} "
                f"'batchpoint job download -n {self.name} --all' brings its logs."
            )
        for name, file in found:
            target = inside(folder, f"{name}/{file}" if len(names) > 1 else file)
            self._connection.download(self._file(file, name), target, progress=progress)
        return folder

    def _file(self, path: str, output_name: str | None = None) -> str:
        """The address of a file of an output."""
        place = address("jobs", self.name, "outputs", file=path)
        return f"{place}?output={quote(output_name)}" if output_name else place

    def predictions(self, engine: Engine = "pandas") -> Any:
        """The predictions as a pandas or polars DataFrame, or an Arrow table.

        Raises:
            ConflictError: the job has not finished.
            NotFoundError: it wrote no file of predictions, as with ``summary_only``.
        """
        self._must_be_finished("predictions")
        deployment = self.entity.deployment
        name = self.entity.overrides.output_file_name or (
            deployment.settings.output_file_name if deployment else "predictions.csv"
        )
        format_ = self.entity.overrides.output_format or (deployment.batchpoint.output_format if deployment else "auto")
        names = [file["path"] for file in self.output_files()]
        if name not in names:
            some = ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
            message = f"Job {self.name} has no file {name!r}; its output holds: {some or 'nothing'}."
            raise NotFoundError(message)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / Path(name).name
            self._connection.download(self._file(name), local)
            return read_table(local, engine=engine, azureml=format_ == "azureml")

    def errors(self, limit: int = 100_000) -> list[dict[str, Any]]:
        """One mapping for each failed item: key, file, row, mini_batch, attempt, exception, message, traceback.

        Of a pipeline one for each failed step: step, job, code, file, row, exception, message, traceback.
        """
        return list(self._connection.get(address("jobs", self.name, "errors"), limit=limit)["value"])

    def models(self, *, failing: bool = False) -> Iterator[ModelReport]:
        """What the model of each key did, for a job with a model map; with ``failing`` those with faults alone."""
        query = {"failing": True if failing else None}
        for item in self._connection.pages(address("jobs", self.name, "models"), **query):
            yield entity_of(ModelReport, item)

    def logs(self) -> list[dict[str, Any]]:
        """``path`` and ``size`` of each log file."""
        return list(self._connection.pages(address("jobs", self.name, "logs")))

    def log(self, path: str, *, offset: int = 0) -> str:
        """The text of one log file, from a byte offset."""
        return self._connection.text(address("jobs", self.name, "logs", file=path), offset=offset or None)

    def _step(self, name: str) -> Job:
        steps = self.steps()
        if name not in steps:
            known = ", ".join(steps) or "none was started"
            message = f"Job {self.name} has no step {name}. Its steps: {known}."
            raise NotFoundError(message, kind="step", name=name, job=self.name)
        return steps[name]

    def _events_while_served(self) -> Iterator[tuple[str, Any]]:
        with suppress(ServerUnavailableError):
            yield from self.events()

    def _fresh(self) -> JobEntity:
        if not self.entity.status.is_finished and time.monotonic() - self._seen_at >= REFRESH_SECONDS:
            self.refresh()
        return self.entity

    def _take(self, body: Any) -> Job:
        self.entity = entity_of(JobEntity, body)
        self._seen_at = time.monotonic()
        return self

    def _must_be_finished(self, what: str) -> None:
        if not self._fresh().status.is_finished:
            message = f"Job {self.name} is {self.entity.status.value}; wait() for its end before {what}()."
            raise ConflictError(message, job=self.name)


class Jobs:
    """Jobs by name. Each verb is also a method of the ``Job`` itself."""

    def __init__(self, connection: Connection, files: Callable[[], LocalFiles]) -> None:
        self._connection = connection
        self._files = files

    def create_or_update(
        self,
        job: Pipeline | CommandJob | str | Path,
        *,
        set: Iterable[str] = (),  # noqa: A002 - as --set
        idempotency_key: str | None = None,
        progress: ByteProgress | None = None,
    ) -> Job:
        """Start a pipeline, or a command by itself; answers at once with the job. A job never changes once it is there.

        Args:
            job: the pipeline or command, or the YAML file of one.
            set: ``a.b=c`` for a file, applied before it is checked.
            idempotency_key: the same key with the same job answers with the job that was made then; None makes a new
                key, which keeps a repeated *connection attempt* from starting two jobs.
            progress: called while local files are uploaded.

        Raises:
            InvalidEntityError: with every fault of the pipeline; of a file with its lines.
            AlreadyExistsError: there is a job of that name.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}

        def start(body: dict[str, Any]) -> Job:
            answered = self._connection.send("POST", "/jobs", body=body, headers=headers, timeout=300)
            return Job(self._connection, entity_of(JobEntity, answered))

        return self._with_body(job, set, progress, start)

    def validate(
        self,
        job: Pipeline | CommandJob | str | Path,
        *,
        set: Iterable[str] = (),  # noqa: A002 - as --set
    ) -> None:
        """Look for every fault of a pipeline, or of a command, without storing or starting anything.

        Raises:
            InvalidEntityError: as ``create_or_update``; ``details['problems']`` lists them.
        """

        def check(body: dict[str, Any]) -> None:
            found = self._connection.send("POST", "/jobs/validate", body=body, timeout=300)
            if not found["valid"]:
                raise InvalidEntityError(found["message"], problems=found["problems"])

        self._with_body(job, set, None, check)

    def _with_body(
        self,
        job: Pipeline | CommandJob | str | Path,
        assignments: Iterable[str],
        progress: ByteProgress | None,
        ask: Callable[[dict[str, Any]], Asked],
    ) -> Asked:
        """Ask for something with the body of a job; faults of a file are told with its lines."""
        if isinstance(job, Pipeline | CommandJob):
            return ask(self._files().entity_body("job", job, progress=progress))
        document, kind = declared_document("job", path=job, assignments=assignments)
        entity = document.entity(kind)
        try:
            return ask(self._files().entity_body("job", entity, progress=progress))
        except InvalidEntityError as error:
            raise document.located(error) from None

    def get(self, name: str) -> Job:
        """One job."""
        return Job(self._connection, entity_of(JobEntity, self._connection.get(address("jobs", name))))

    def list(
        self,
        *,
        status: str | None = None,
        endpoint: str | None = None,
        parent: str | None = None,
        schedule: str | None = None,
        archived: Archived = "exclude",
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, the newest first; with ``parent`` the steps of that pipeline job, which are left out otherwise."""
        query = {"status": status, "endpoint": endpoint, "parent": parent, "schedule": schedule, "archived": archived}
        for item in self._connection.pages("/jobs", limit=limit, **query):
            yield Job(self._connection, entity_of(JobEntity, item))

    def update(self, name: str, *, changes: Mapping[str, Any]) -> Job:
        """Change description or tags."""
        body = self._connection.send("PATCH", address("jobs", name), body=dict(changes))
        return Job(self._connection, entity_of(JobEntity, body))

    def cancel(self, name: str) -> Job:
        """Ask a job to stop."""
        return self.get(name).cancel()

    def sweep(self, older_than: timedelta, *, dry_run: bool = False) -> Sequence[Job]:
        """Cancel every unfinished job that was started longer ago (or queued, if it never was); answers with them.

        Each gets the tag ``batchpoint.swept``, which says why it was canceled.
        """
        latest = datetime.now(UTC) - older_than
        active = [job for status in JobStatus if not status.is_finished for job in self.list(status=status.value)]
        swept = [job for job in active if (job.entity.started_at or job.entity.queued_at or latest) < latest]
        for job in [] if dry_run else swept:
            since = job.entity.started_at or job.entity.queued_at
            self.update(job.name, changes={"tags": {"batchpoint.swept": f"active since {since}, over {older_than}"}})
            job.cancel()
        return swept

    def retry_failed(self, name: str, *, current_deployment: bool = False) -> Job:
        """``Job.retry_failed``."""
        return self.get(name).retry_failed(current_deployment=current_deployment)

    def retry(self, name: str) -> Job:
        """``Job.retry``."""
        return self.get(name).retry()

    def wait(self, name: str, timeout: float | None = None, *, raise_on_failure: bool = True) -> Job:
        """``Job.wait``."""
        return self.get(name).wait(timeout, raise_on_failure=raise_on_failure)

    def stream(self, name: str) -> Job:
        """``Job.stream``."""
        return self.get(name).stream()

    def download(self, name: str, path: str | Path | None = None, *, output_name: str | None = None) -> Path:
        """``Job.download``."""
        return self.get(name).download(path, output_name=output_name)

    def archive(self, name: str) -> None:
        """Hide a job from lists."""
        self._connection.send("POST", address("jobs", name, "archive"))

    def restore(self, name: str) -> None:
        """Undo ``archive``."""
        self._connection.send("POST", address("jobs", name, "restore"))


def entity_of(model: type[AnyEntity], body: Any) -> AnyEntity:
    """An answer of the server as an entity.

    Raises:
        PlatformError: it does not fit; server and client are of different versions.
    """
    try:
        return model.model_validate(body)
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = (
            f"The server's answer is not understood ({model.__name__} {place}: {first['msg']}). This client is version "
            f"{__version__}; is the server another one? 'batchpoint status' shows it; restart a local server with "
            "'batchpoint down' and 'batchpoint up'."
        )
        raise PlatformError(message) from None


def failure_text(job: JobEntity) -> str:
    """Why a job failed, with the first failing item's place and traceback."""
    if job.error is None:
        return f"Job {job.name} failed ({job.reason.value if job.reason else 'no reason given'})."
    lines = [f"Job {job.name} failed: {job.error.message}"]
    if job.error.file is not None:
        row = "" if job.error.row is None else f", row {job.error.row}"
        lines.append(f"First failing item: {job.error.file}{row}")
    if job.error.traceback:
        lines.append(job.error.traceback.rstrip())
    if job.error.log:
        lines.append(f"More in {job.error.log}; 'batchpoint job logs -n {job.name}' lists the logs.")
    return "\n".join(lines)


def _holds(printed: Iterable[str], wanted: Sequence[str]) -> bool:
    """Whether the lines that are wanted were printed in this order; those of other steps may stand between them."""
    lines = (line.rstrip() for line in printed)
    return all(line.rstrip() in lines for line in wanted)


def event_line(name: str, data: Any) -> str | None:
    """One event as a line of text; None when there is nothing to say."""
    if name == "log":
        if not isinstance(data, dict):
            return str(data)
        return f"{data['step']}: {data.get('line', '')}" if data.get("step") else str(data.get("line", ""))
    if name == "step" and isinstance(data, dict):
        reused = f" (reused from {data['reused_from']})" if data.get("reused_from") else ""
        return f"Step {data.get('step')}: {data.get('status')}{_waiting(data)}{reused}"
    if name == "status" and isinstance(data, dict):
        return f"{data.get('status', '')}{_waiting(data)}"
    if name == "progress" and isinstance(data, dict):
        return progress_line(entity_of(Progress, data))
    return None


def _waiting(told: Mapping[str, Any]) -> str:
    return f" (waiting for {told['waiting_for']})" if told.get("waiting_for") else ""


def inside(folder: Path, name: str) -> Path:
    """Where a file of the server's list is put: below the folder.

    Raises:
        PlatformError: its name leads out of the folder.
    """
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise PlatformError(f"The server names a file outside its folder: {name!r}.")
    return target


def _notebook_display(page: str) -> Callable[[JobEntity], None] | None:
    """In a notebook, a function that redraws one display; elsewhere None. Never imports IPython by itself."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)  # type: ignore[no-untyped-call]  # IPython has no types

    def show(job: JobEntity) -> None:
        handle.update(HTML(job_html(job, page)))  # type: ignore[no-untyped-call]  # IPython has no types

    return show
