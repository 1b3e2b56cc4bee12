"""Drives pipeline jobs: finished steps → ready steps → their jobs, which the dispatcher runs like all others.

What is decided follows from the registry alone (the pipeline, frozen in its job, and the jobs of its steps), and each
step's job is put in under a key of its own and the lease of the pipeline. So a driver that is killed anywhere is
followed by one that goes on where it was, and of two at once each step has one job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchpoint import logs
from batchpoint.background.job_changes import JobChanges
from batchpoint.background.leased_job import LEASE_SECONDS, RENEW_SECONDS, LeasedJob, owner_of
from batchpoint.background.loop import Loop
from batchpoint.background.pipeline_report import failure_of, history, progress_of
from batchpoint.background.scoring_spec import job_folder
from batchpoint.entities.assets import Data, Model
from batchpoint.entities.bindings import binding_of
from batchpoint.entities.components import expanded, output_path
from batchpoint.entities.jobs import Job, JobError, JobStatus, Output, Progress, Reason
from batchpoint.entities.pipelines import Pipeline, Step, dependencies, has_failed, ready_steps
from batchpoint.errors import (
    AlreadyExistsError,
    BatchpointError,
    ConflictError,
    DatastoreError,
    InputError,
    LeaseLostError,
    RegistryError,
)
from batchpoint.operations.places import Places
from batchpoint.operations.step_jobs import StepJob as NewStep
from batchpoint.operations.step_jobs import another_name, output_place, step_job_name, step_key
from batchpoint.registry.jobs import ClaimedJob, Jobs, StepJob
from batchpoint.workspace import Workspace

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
"""Progress is passed on this often at most, unless a step begins or ends."""
MOST_STEPS = 10_000
LOG = "logs/pipeline.log"
"""Of a pipeline job, relative to its folder."""


@dataclass
class _Drive(LeasedJob):
    """A claimed pipeline job."""

    pipeline: Pipeline
    steps: Mapping[str, Step]
    """As they run: components merged in."""
    before: Mapping[str, Job]
    """The jobs of the steps of the pipeline job that this one resumes."""
    ended: dict[str, Job] = field(default_factory=dict)
    asked_to_cancel: set[str] = field(default_factory=set)
    """The steps' jobs that were told."""
    told: tuple[str, Progress | None] = ("", None)
    """Log and progress as they were last passed on."""
    told_at: float = 0.0


class PipelineDriver:
    """Drives the pipeline jobs of one registry, whatever workspace they belong to.

    ``hurry`` makes the dispatcher look at a job of a workspace that is to be canceled, ``ended`` is told of one that
    has ended.
    """

    def __init__(
        self,
        workspace: Workspace,
        changes: JobChanges,
        hurry: Callable[[str, str], None],
        ended: Callable[[str, Job], None],
    ) -> None:
        self._workspace = workspace
        self._jobs = workspace.registry.jobs
        self._changes = changes
        self._hurry = hurry
        self._told_of_end = ended
        self._owner = owner_of(workspace)
        self._lock = threading.Lock()
        self._drives: dict[tuple[str, str], _Drive] = {}
        wake = workspace.pipeline_changed
        changes.also_set(wake)
        self.loops = (
            Loop("pipelines", self.drive, interval=0.5, longest_interval=2.0, wake=wake),
            Loop("pipeline-leases", self.hold, interval=RENEW_SECONDS),
        )

    def drive(self) -> bool:
        """Claim what there is, look at every pipeline once, and do what is to be done; whether there was anything."""
        worked = False
        while (claimed := self._jobs.claim(self._owner, LEASE_SECONDS, types=("pipeline",))) is not None:
            self._begin(claimed)
            worked = True
        drives = self._held()
        if not drives:
            return worked
        canceled, steps = _looked_up(drives)
        failures: list[Exception] = []
        for drive in drives:
            with logs.about(workspace=drive.work.name, job=drive.job.name):
                try:
                    worked |= self._look_at(drive, steps.get(drive.key, []), cancel=drive.key in canceled)
                except LeaseLostError:
                    log.warning("Pipeline job %s is driven by another server now; it is left alone", drive.job.name)
                    self._drop(drive)
                except Exception as error:  # noqa: BLE001 -- the rim of a pipeline: it must not hold up the others
                    failures.append(error)
        if failures:
            raise failures[0]
        return worked

    def hold(self) -> bool:
        """Renew every lease. Apart from ``drive``, which may have to wait for a slow store."""
        for drive in self._held():
            try:
                drive.renew()
            except LeaseLostError:
                self._drop(drive)
        return False

    def stop(self) -> None:
        """Let go of everything: the next server drives on at once."""
        for drive in self._held():
            self._drop(drive)
            drive.release()

    def _held(self) -> list[_Drive]:
        with self._lock:
            return list(self._drives.values())

    def _drop(self, drive: _Drive) -> None:
        with self._lock:
            if self._drives.get(drive.key) is drive:
                del self._drives[drive.key]

    def _begin(self, claimed: ClaimedJob) -> None:
        job, token, work = claimed.job, claimed.lease_token, self._workspace.within(claimed.workspace, create=False)
        jobs, folder = work.registry.jobs, job_folder(work.folder, job.name)
        try:
            pipeline = Pipeline.model_validate(job.pipeline)
        except ValueError as error:
            message = f"What the job holds is no pipeline: {error}"
            error_of = JobError(code="error", message=message)
            self._told_of_end(work.name, jobs.finish(job.name, token, Reason.INTERNAL_ERROR, error=error_of))
            return
        steps = {name: expanded(step) for name, step in pipeline.jobs.items()}
        if job.folder is not None and Path(job.folder).is_dir():
            folder = Path(job.folder)  # begun by a server with another home
        (folder / LOG).parent.mkdir(parents=True, exist_ok=True)
        jobs.update(job.name, folder=str(folder))
        jobs.transition(job.name, token, JobStatus.RUNNING)
        drive = _Drive(work, job, token, folder, pipeline, steps, _steps_before(job, jobs))
        with self._lock:
            self._drives[drive.key] = drive
        self._changes.notify()

    def _look_at(self, drive: _Drive, steps: Sequence[StepJob], *, cancel: bool) -> bool:
        """Do for one pipeline what is to be done now; whether there was anything."""
        statuses = {step.step_name: step.status for step in steps}
        for step in steps:
            if step.status.is_finished and step.step_name not in drive.ended:
                self._end_step(drive, step)
        self._tell(drive, steps)
        told = False
        if cancel:
            told = self._cancel_steps(drive, [step.name for step in steps if not step.status.is_finished])
            ready = []
        else:
            lenient = drive.pipeline.settings.continue_on_step_failure
            ready = ready_steps(drive.steps, statuses, continue_on_step_failure=lenient)
        for name in ready:
            self._start(drive, name)
        if not ready and all(status.is_finished for status in statuses.values()):
            self._finish(drive, statuses, cancel=cancel)
            return True
        return bool(ready) or told

    def _end_step(self, drive: _Drive, step: StepJob) -> None:
        job = drive.jobs.get(step.name)
        if job.status == JobStatus.COMPLETED and job.reused_job_name is None:
            drive.work.pipelines.step_jobs.remember_outputs(job)
        drive.ended[step.step_name] = job

    def _cancel_steps(self, drive: _Drive, names: Sequence[str]) -> bool:
        """Tell those steps that were not told yet; whether there were any."""
        new = [name for name in names if name not in drive.asked_to_cancel]
        for name in new:
            with suppress(ConflictError):  # it ended just now
                job, has_ended = drive.jobs.request_cancel(name)
                if has_ended:
                    self._told_of_end(drive.work.name, job)
                elif not job.status.is_finished:
                    self._hurry(drive.work.name, name)
            drive.asked_to_cancel.add(name)
        if new:
            self._workspace.job_queued.set()
            self._changes.notify()
        return bool(new)

    def _start(self, drive: _Drive, name: str) -> None:
        earlier = {each: drive.ended[each] for each in dependencies(drive.steps[name])}
        new = self._made(drive, name, earlier)
        key = step_key(drive.job.name, name)
        try:
            drive.jobs.add_step(new.job, drive.lease_token, key=key, reason=new.reason)
        except (AlreadyExistsError, ConflictError):
            # Somebody's job has that name, or retries the same failed one: this step has a job of its own, whose name
            # its outputs are called after too.
            anew = new.job.retry_of is not None
            other = self._made(drive, name, earlier, job_name=another_name(new.job.name), anew=anew)
            drive.jobs.add_step(other.job, drive.lease_token, key=key, reason=other.reason)
        self._workspace.job_queued.set()
        self._changes.notify()

    def _made(
        self,
        drive: _Drive,
        name: str,
        earlier: Mapping[str, Job],
        *,
        job_name: str | None = None,
        anew: bool = False,
    ) -> NewStep:
        """The job of a step; one that has failed already when it cannot be made."""
        try:
            before = None if anew else drive.before.get(name)
            return drive.work.pipelines.step_jobs.make(drive.job, name, earlier, before, job_name=job_name)
        except RegistryError:
            raise  # nothing is known about the step: it is tried again
        except BatchpointError as error:
            reason = Reason.INPUT_UNAVAILABLE if isinstance(error, InputError | DatastoreError) else None
            return _failed(drive, name, job_name, reason, JobError(code=error.code, message=error.message))
        except Exception as error:  # the rim of a step: whatever happened belongs into its record
            log.exception("Step %s of pipeline job %s could not be started", name, drive.job.name)
            message = f"The step could not be started: {type(error).__name__}: {error}"
            return _failed(drive, name, job_name, None, JobError(code="platform_error", message=message))

    def _tell(self, drive: _Drive, steps: Sequence[StepJob]) -> None:
        """Write log and progress, when there is news."""
        text, progress = history(list(drive.steps), steps), progress_of(len(drive.steps), steps)
        if (text, progress) == drive.told:
            return
        now = time.monotonic()
        if text == drive.told[0] and now - drive.told_at < PROGRESS_SECONDS:
            return
        _write(drive.folder / LOG, text)
        drive.renew(progress)
        drive.told, drive.told_at = (text, progress), now
        self._changes.notify()

    def _finish(self, drive: _Drive, statuses: Mapping[str, JobStatus], *, cancel: bool) -> None:
        never_started = [name for name in drive.steps if name not in statuses]
        error = failure_of(drive.ended, never_started)
        reason = Reason.STEP_FAILED if error else Reason.COMPLETED
        if cancel and (never_started or has_failed(statuses.values())):
            reason, error = Reason.CANCELED_BY_USER, None
        outputs = _outputs(drive, lie_there=reason is Reason.COMPLETED)
        if reason is Reason.COMPLETED:
            try:
                self._register(drive, outputs)
            except BatchpointError as refused:
                reason = Reason.OUTPUT_FAILED
                error = JobError(code=refused.code, message=f"An output could not be registered: {refused.message}")
        verdict = "was canceled" if reason.status == JobStatus.CANCELED else str(reason.status)
        _write(drive.folder / LOG, f"{drive.told[0]}The pipeline {verdict}.{f' {error.message}' if error else ''}\n")
        ended = drive.jobs.finish(drive.job.name, drive.lease_token, reason, error=error, outputs=outputs)
        self._told_of_end(drive.work.name, ended)
        self._drop(drive)
        self._changes.notify()

    def _register(self, drive: _Drive, outputs: Mapping[str, Mapping[str, Any]]) -> None:
        """Make assets of the outputs that are to be some: those of the pipeline, and those of its steps alone."""
        for name, output in drive.job.outputs.items():
            self._register_output(output.model_copy(update=dict(outputs.get(name, {}))), drive)
        for job in drive.ended.values():
            for output in job.outputs.values() if job.type != "pipeline" else ():
                self._register_output(output, drive)

    def _register_output(self, output: Output, drive: _Drive) -> None:
        if output.asset_name is None:
            return
        facts: dict[str, Any] = {"name": output.asset_name, "version": output.asset_version, "type": output.type}
        facts |= {"path": _address(output, drive.work.places), "properties": {"job": drive.job.name}}
        assets, by = drive.work.assets, drive.job.created_by
        if output.type in {"mlflow_model", "custom_model", "triton_model"}:
            assets.register_unless_known("model", Model.model_validate(facts), by=by)
        else:
            assets.register_unless_known("data", Data.model_validate(facts), by=by)


def _looked_up(drives: Sequence[_Drive]) -> tuple[set[tuple[str, str]], dict[tuple[str, str], list[StepJob]]]:
    """Which pipelines are asked to cancel, and the steps' jobs of each; asked once for each workspace."""
    by_workspace: dict[str, list[_Drive]] = {}
    for drive in drives:
        by_workspace.setdefault(drive.work.name, []).append(drive)
    canceled: set[tuple[str, str]] = set()
    steps: dict[tuple[str, str], list[StepJob]] = {}
    for workspace, some in by_workspace.items():
        jobs, names = some[0].jobs, [drive.job.name for drive in some]
        canceled |= {(workspace, name) for name in jobs.asked_to_cancel(names)}
        for step in jobs.steps(names):
            steps.setdefault((workspace, step.parent_job_name), []).append(step)
    return canceled, steps


def _steps_before(job: Job, jobs: Jobs) -> dict[str, Job]:
    """The steps' jobs of the pipeline job that this one resumes; where that never came to a step, of the one that it
    resumed itself."""
    found: dict[str, Job] = {}
    resumed = job.retry_of
    while resumed is not None:
        for step in jobs.list(parent=resumed, archived="include", limit=MOST_STEPS):
            found.setdefault(step.step_name or "", step)
        resumed = jobs.get(resumed).retry_of
    return found


def _address(output: Output, places: Places) -> str:
    """Where an output lies, by its datastore where it has one: what lies in a datastore is registered there, what lies
    on this machine alone would be copied."""
    found = output_place(output)
    root = places.resolve(output.path).url.rstrip("/") if output.path else ""
    if not output.path or not f"{found}/".startswith(f"{root}/"):
        return found
    return output.path.rstrip("/") + found.removeprefix(root)


def _failed(drive: _Drive, name: str, job_name: str | None, reason: Reason | None, error: JobError) -> NewStep:
    """The job of a step that failed before it could be one."""
    kinds = {"command": "command", "parallel": "scoring", "pipeline": "pipeline"}
    job = Job.model_validate(
        {
            "name": job_name or step_job_name(drive.job.name, name),
            "type": kinds[drive.steps[name].type],
            "parent_job_name": drive.job.name,
            "step_name": name,
            "created_by": drive.job.created_by,
        }
    )
    return NewStep(job.model_copy(update={"error": error}), reason or Reason.INTERNAL_ERROR)


def _outputs(drive: _Drive, *, lie_there: bool) -> dict[str, dict[str, Any]]:
    """Where the outputs of the pipeline lie, as far as the steps that write them have completed.

    With ``lie_there`` their own place is that one too: the outputs of a reused step lie elsewhere. A pipeline that is
    to be resumed keeps its own places.
    """
    facts = {"uri", "folder", "files", "table"} | ({"path"} if lie_there else set())
    found: dict[str, dict[str, Any]] = {}
    for step_name, job in drive.ended.items():
        if job.status != JobStatus.COMPLETED:
            continue
        for name, given in drive.steps[step_name].outputs.items():
            bound = binding_of(output_path(given))
            if bound is not None and bound.kind == "parent_output":
                found[bound.name] = job.outputs[name].model_dump(include=facts)
    return found


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
