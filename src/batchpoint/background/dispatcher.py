"""Claims queued jobs, launches their runs, follows their folders, finishes them.

Two loops. The one claims: it wakes when a job is queued, and hands each job to a thread that prepares it (which takes
minutes when an environment is built) and starts its runner. The other follows everything that was claimed: it holds
the leases, passes on progress and cancel requests, and sees a runner end within milliseconds.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchpoint import logs
from batchpoint.background.compute_pool import Claim, claim_of, reason_to_wait
from batchpoint.background.job_changes import JobChanges
from batchpoint.background.launcher import Launcher, RunnerProcess
from batchpoint.background.leased_job import LEASE_SECONDS, RENEW_SECONDS, LeasedJob, owner_of
from batchpoint.background.loop import Loop
from batchpoint.background.scoring_spec import job_folder
from batchpoint.entities.jobs import Job, JobError, JobStatus, Reason, Receipt
from batchpoint.entities.quality import QualitySummary
from batchpoint.errors import (
    BatchpointError,
    DatastoreError,
    EnvironmentBuildError,
    InputError,
    LeaseLostError,
    NotFoundError,
    PlatformError,
    RegistryError,
    ScoringScriptError,
)
from batchpoint.operations.model_maps import of_keys, read_report, without_earlier
from batchpoint.registry.jobs import ClaimedJob
from batchpoint.scoring.command_runner import end_what_is_left
from batchpoint.scoring.job_logs import read_progress
from batchpoint.workspace import Workspace

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
"""Progress is passed on this often at most."""
FOLLOW_SECONDS = 0.1
"""How often the folders of runs are looked at. The end of a runner is seen at once, by its process."""
LISTED_FILES = 1000
"""Files that the receipt in a job's record lists at most: the record is read and written as a whole, and often."""
AGAIN_SECONDS = 1.0
"""How soon a job is begun again whose beginning the database did not answer."""
DEATHS_ALLOWED = 3
"""A runner that dies so often without any progress in between is given up."""


@dataclass
class _Run(LeasedJob):
    """A claimed job, and its runner."""

    claim: Claim
    process: RunnerProcess | None = None
    """None while it is prepared, and for a runner that was started by an earlier server."""
    launched: bool = False
    dropped: bool = False
    """Whether it is no longer ours: finished, or lost to another server."""
    cancel_requested: bool = False
    status: JobStatus = JobStatus.PREPARING
    deaths: int = 0
    ledger_bytes: int = 0
    renewed_at: float = 0.0
    progress_stamp: int = 0
    notices: tuple[str, ...] = ()
    waiting_for: str | None = None


class Dispatcher:
    """Carries out the jobs of one registry, whatever workspace they belong to, on this machine.

    ``ended`` is told of each job that has ended, and of which workspace it is.
    """

    def __init__(
        self, workspace: Workspace, launcher: Launcher, changes: JobChanges, ended: Callable[[str, Job], None]
    ) -> None:
        self._workspace = workspace
        self._jobs = workspace.registry.jobs
        self._launcher = launcher
        self._changes = changes
        self._told_of_end = ended
        self._owner = owner_of(workspace)
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str], _Run] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self.loops = (
            Loop("dispatcher", self.claim_next, interval=0.5, longest_interval=2.0, wake=workspace.job_queued),
            Loop("follower", self.follow, interval=FOLLOW_SECONDS),
        )

    def take_over(self) -> None:
        """Make the jobs of an earlier server of this home, which ended without a goodbye, free to be claimed now.

        Call it before the loops start, by the one server that holds the home.
        """
        self._jobs.release_all(self._owner)

    def held(self) -> list[Claim]:
        """What the jobs that are worked on hold of their computes."""
        with self._lock:
            return [run.claim for run in self._runs.values()]

    def hurry(self, workspace: str, job: str) -> None:
        """Look at a job now: it was asked to cancel."""
        with self._lock:
            if run := self._runs.get((workspace, job)):
                run.renewed_at = 0.0
        self._wake_follower()

    def claim_next(self) -> bool:
        """Claim one job that fits, if there is one, and begin with it; whether there was one."""
        pools, held = self._workspace.registry.resources.pools(), self.held()

        def fits(workspace: str, job: Job) -> str | None:
            return reason_to_wait(claim_of(workspace, job, pools), pools, held)

        claimed = self._jobs.claim(self._owner, LEASE_SECONDS, fits=fits, types=("scoring", "command"))
        if claimed is None:
            return False
        self._begin(claimed, claim_of(claimed.workspace, claimed.job, pools))
        return True

    def follow(self) -> bool:
        """Wait a moment for a runner to end, then look at every run."""
        with self._lock:
            waiting = FOLLOW_SECONDS if self._runs else 1.0
        for key, _ in self._selector.select(waiting):
            if key.fd == self._wake_read:
                os.read(self._wake_read, 4096)
        with self._lock:
            runs = list(self._runs.values())
        failures: list[Exception] = []
        for run in runs:
            with logs.about(workspace=run.work.name, job=run.job.name):
                try:
                    self._look_at(run)
                except LeaseLostError:
                    log.warning("Job %s is worked on by another server now; it is left alone", run.job.name)
                    self._drop(run)
                except Exception as error:  # noqa: BLE001 -- the rim of a run: it must not hold up the others
                    failures.append(error)
        if failures:
            raise failures[0]
        return True

    def stop(self) -> None:
        """Let go of everything: runners keep running, and the next server takes them over at once."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            self._drop(run)
            run.release()
        self._selector.close()
        with self._lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1  # its number is soon that of another file, which a late waker must not write to

    def _begin(self, claimed: ClaimedJob, claim: Claim) -> None:
        job, work = claimed.job, self._workspace.within(claimed.workspace, create=False)
        folder = job_folder(work.folder, job.name)
        if claimed.resumed and job.folder is not None and (Path(job.folder) / "spec.json").is_file():
            folder = Path(job.folder)  # begun by a server with another home: its runner may be at work there
        run = _Run(work, job, claimed.lease_token, folder, claim)
        run.renewed_at = time.monotonic()
        run.status = job.status
        with self._lock:
            self._runs[run.key] = run
        self._changes.notify()
        # A daemon: a server that is told to end does not wait for an environment to be built.
        arguments = {"run": run, "resumed": claimed.resumed}
        threading.Thread(target=self._prepare_it, kwargs=arguments, name=f"prepare-{job.name}", daemon=True).start()

    def _prepare_it(self, run: _Run, *, resumed: bool) -> None:
        with logs.about(workspace=run.work.name, job=run.job.name):
            self._prepare(run, resumed=resumed)

    def _prepare(self, run: _Run, *, resumed: bool) -> None:
        """In a thread of its own: everything between the claim and the start of the runner."""
        try:
            self._until_answered(run, lambda: self._start(run, resumed=resumed))
        except LeaseLostError:
            self._drop(run)
        except BatchpointError as error:
            self._fail_at_last(run, _reason_of(error), JobError(code=error.code, message=error.message))
        except Exception as error:  # the rim of a job: whatever happened belongs into its record
            log.exception("Job %s could not be prepared", run.job.name)
            text = f"The job could not be started: {type(error).__name__}: {error}"
            self._fail_at_last(run, Reason.INTERNAL_ERROR, JobError(code="platform_error", message=text))
        finally:
            self._wake_follower()
            self._launcher.warm_up()

    def _start(self, run: _Run, *, resumed: bool) -> None:
        """Prepare a job and start its runner. Called again after ``RegistryError``, it goes on with what it started."""
        if run.process is None:
            if resumed and (run.folder / "spec.json").is_file():
                if run.job.folder is None:
                    run.jobs.update(run.job.name, folder=str(run.folder))
                if not runner_lives(run.folder) and not (run.folder / "outcome.json").is_file():
                    self._launch(run)
            else:
                run.notices = self._launcher.prepare(
                    run.work, run.job, run.folder, lambda text: self._note_wait(run, text)
                )
                run.jobs.update(run.job.name, folder=str(run.folder), notices=run.notices)
                self._launch(run)
        self._move(run, JobStatus.RUNNING)
        run.launched = True
        logs.jobs.info("Job %s runs", run.job.name)

    def _fail_at_last(self, run: _Run, reason: Reason, error: JobError) -> None:
        """In the thread that prepares, which is not called again: its word is kept until it is written down."""
        self._until_answered(run, lambda: self._fail(run, reason, error))

    def _until_answered(self, run: _Run, step: Callable[[], None]) -> None:
        """Do a step of a job that is being prepared, again and again while the registry cannot be used: that is not
        the job's fault. Until it is no longer ours."""
        while not run.dropped:
            try:
                step()
            except RegistryError as error:
                log.warning("Job %s is not begun yet: %s It is tried again.", run.job.name, error.message)
                self._note_wait(run, f"the registry: {error.message}")
                time.sleep(AGAIN_SECONDS)
            else:
                return

    def _note_wait(self, run: _Run, waiting_for: str) -> None:
        """Say what a job waits for that is being prepared; where that cannot be written down, the next note is.
        What is built is built to its end, whoever wanted it."""
        if waiting_for != run.waiting_for and not run.dropped:
            with suppress(LeaseLostError, RegistryError):
                run.jobs.note_wait(run.job.name, run.lease_token, waiting_for)
                run.waiting_for = waiting_for
            self._changes.notify()

    def _launch(self, run: _Run) -> None:
        if run.dropped:
            return
        run.ledger_bytes = _size(run.folder / "ledger.jsonl")
        process = self._launcher.start(run.work, run.folder)
        if process.pidfd is not None:  # without (not Linux) the end is seen by looking
            self._selector.register(process.pidfd, selectors.EVENT_READ)
        run.process = process
        self._catch_up(run)

    def _catch_up(self, run: _Run) -> None:
        """Do what was asked for while the runner was being started."""
        if run.cancel_requested:
            (run.folder / "cancel").touch()
        if run.dropped:
            self._forget_process(run)

    def _look_at(self, run: _Run) -> None:
        if not run.dropped:
            self._hold(run)
        if run.launched and not run.dropped and self._has_ended(run):
            self._ended(run)

    def _hold(self, run: _Run) -> None:
        """Renew the lease when it is time, with the progress when there is news; pass on a cancel request."""
        now = time.monotonic()
        since = now - run.renewed_at
        stamp = _stamp(run.folder / "progress.json") if run.launched else 0
        if since < RENEW_SECONDS and (stamp == run.progress_stamp or since < PROGRESS_SECONDS):
            return
        progress = read_progress(run.folder) if stamp != run.progress_stamp else None
        run.renewed_at, run.progress_stamp = now, stamp
        cancel = run.renew(progress)
        if progress is not None:
            if progress.phase == "publishing" and run.status == JobStatus.RUNNING:
                self._move(run, JobStatus.FINALIZING)
            self._changes.notify()
        if cancel:  # each time: the registry may not have answered when the job was to end
            # Said before the process is looked for; the thread that launches it does both in the other order.
            run.cancel_requested = True
            if run.launched or run.process is not None:
                (run.folder / "cancel").touch()
            else:
                self._fail(run, Reason.CANCELED_BY_USER, None)

    def _has_ended(self, run: _Run) -> bool:
        if run.process is not None and not run.process.has_ended():
            return False
        self._forget_process(run)
        return not runner_lives(run.folder)

    def _ended(self, run: _Run) -> None:
        outcome = _read_json(run.folder / "outcome.json")
        if outcome is not None:
            self._finish(run, outcome)
            return
        committed = _size(run.folder / "ledger.jsonl")
        run.deaths = 1 if committed > run.ledger_bytes else run.deaths + 1
        if run.deaths >= DEATHS_ALLOWED:
            if run.job.command is not None:
                with suppress(PlatformError):  # what does not even end when it is killed is left to the system
                    end_what_is_left(run.folder)
            message = (
                f"The runner of the job died {run.deaths} times without any progress in between. "
                f"Its own words are at the end of {run.folder / 'logs' / 'runner.log'}."
            )
            self._fail(run, Reason.LOST, JobError(code="worker_lost", message=message, log="logs/runner.log"))
            return
        log.warning("The runner of job %s died (time %d); the job is resumed", run.job.name, run.deaths)
        self._launch(run)

    def _finish(self, run: _Run, outcome: dict[str, Any]) -> None:
        error, receipt = outcome.get("error"), outcome.get("receipt")
        self._note_models(run, outcome.get("models_report"))
        ended = run.jobs.finish(
            run.job.name,
            run.lease_token,
            Reason(outcome["reason"]),
            error=JobError.model_validate(error) if error else None,
            receipt=Receipt.model_validate(_in_brief(receipt)) if receipt else None,
            outputs=_kept_outputs(run, outcome.get("outputs") or {}),
            notices=outcome.get("notices") or (),
            progress=read_progress(run.folder),
            quality=QualitySummary.model_validate(quality) if (quality := outcome.get("quality")) else None,
        )
        self._told_of_end(run.work.name, ended)
        self._drop(run)

    def _note_models(self, run: _Run, report: str | None) -> None:
        """Put what each key's model did on the board of the deployment. Done before the job is finished, for a server
        that dies in between does it again, and a job is added once."""
        job = run.job
        if report is None or job.endpoint_name is None or job.deployment_name is None:
            return
        try:
            models = of_keys(read_report(run.folder / report), job.overrides.keys)
            if job.retry_of is not None:
                before = Path(run.jobs.get(job.retry_of).folder or "") / report
                models = without_earlier(models, read_report(before) if before.is_file() else [])
        except (OSError, ValueError):
            log.exception("The report on the models of job %s cannot be read; it is left out of the board", job.name)
            return
        run.work.registry.scored_models.add(job.endpoint_name, job.deployment_name, job.name, models)

    def _fail(self, run: _Run, reason: Reason, error: JobError | None) -> None:
        with suppress(LeaseLostError):
            ended = run.jobs.finish(run.job.name, run.lease_token, reason, error=error)
            self._told_of_end(run.work.name, ended)
        self._drop(run)

    def _move(self, run: _Run, status: JobStatus) -> None:
        # A resumed job may be further on already than the step that is repeated.
        if run.status == JobStatus.FINALIZING or run.dropped:
            return
        run.jobs.transition(run.job.name, run.lease_token, status)
        run.status = status
        self._changes.notify()

    def _drop(self, run: _Run) -> None:
        run.dropped = True
        with self._lock:
            self._runs.pop(run.key, None)
        self._forget_process(run)
        self._changes.notify()
        self._workspace.job_queued.set()  # what the job held is free now

    def _forget_process(self, run: _Run) -> None:
        with self._lock:
            process, run.process = run.process, None
        if process is not None:
            if process.pidfd is not None:
                self._selector.unregister(process.pidfd)
            process.close()

    def _wake_follower(self) -> None:
        with self._lock, suppress(OSError):  # a full pipe wakes as well; a closed one has nobody to wake
            os.write(self._wake_write, b".")


def runner_lives(folder: Path) -> bool:
    """Whether a runner works in this folder: it holds ``runner.lock`` for as long as it lives."""
    try:
        with (folder / "runner.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _reason_of(error: BatchpointError) -> Reason:
    if isinstance(error, EnvironmentBuildError):
        return Reason.ENVIRONMENT_FAILED
    if isinstance(error, InputError | DatastoreError):
        return Reason.INPUT_UNAVAILABLE
    return Reason.SCORING_SCRIPT_FAILED if isinstance(error, ScoringScriptError) else Reason.INTERNAL_ERROR


def _kept_outputs(run: _Run, published: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the runner says that it published; places in a datastore are kept as addresses of that datastore."""
    places, outputs = run.work.places, run.job.outputs
    kept = {name: dict(found) for name, found in published.items()}
    for name, found in kept.items():
        path = outputs[name].path if name in outputs else None
        with suppress(NotFoundError):  # the datastore was deleted meanwhile: the URLs are what is left to tell
            datastore = places.resolve(path).datastore if path else None
            found.update({key: places.kept(found[key], datastore) for key in ("uri", "folder") if key in found})
    return kept


def _in_brief(receipt: dict[str, Any]) -> dict[str, Any]:
    """The receipt as a job's record keeps it: the files of a long one are left out, but for those with something to
    tell. ``outcome.json`` and the published receipt list them all."""
    files = receipt.get("files") or []
    if len(receipt.get("key_files") or {}) > LISTED_FILES:
        receipt = {**receipt, "key_files": {}}
    if len(files) <= LISTED_FILES:
        return receipt
    kept = [file for file in files if file["ok"] < file["items"] or file.get("reason")][:LISTED_FILES]
    return {**receipt, "files": kept, "files_left_out": len(files) - len(kept)}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _stamp(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
