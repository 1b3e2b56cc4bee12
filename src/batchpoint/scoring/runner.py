"""The process that drives a run: it joins plan, state machine, engine, ledger, logs and output.

``python -m batchpoint.scoring.runner`` reads one line of JSON from its standard input (docs/scoring.md) and carries out
the run of that folder. It may be started ahead of time: while no line has come it imports what a run will need. Killed
at any moment, and started again on the same folder, it goes on where the ledger ends. Every failure of its own ends in
an ``outcome.json``; only a stop from outside (SIGTERM, SIGKILL) leaves none, because the run is not over then.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from batchpoint.entities.jobs import JobError, Progress, Reason, Receipt
from batchpoint.entities.quality import Quality, summary
from batchpoint.errors import (
    BatchpointError,
    ConflictError,
    DatastoreError,
    EnvironmentBuildError,
    InputError,
    OutputError,
    ScoringScriptError,
)
from batchpoint.scoring import job_logs, models_report
from batchpoint.scoring.command_runner import CommandRun
from batchpoint.scoring.command_spec import is_command
from batchpoint.scoring.events import (
    CancelRequested,
    Commit,
    Event,
    Finish,
    Instruction,
    KillWorker,
    MiniBatchPlanned,
    PartFailed,
    PartSucceeded,
    PlanEnded,
    RunStarted,
    Score,
    StartWorker,
    TimePassed,
    WorkerInitFailed,
    WorkerKilled,
    WorkerLost,
    WorkerReady,
)
from batchpoint.scoring.gate import CanaryPlan
from batchpoint.scoring.job_logs import JobLogs, PartLog
from batchpoint.scoring.kept_rows import without_failed_keys
from batchpoint.scoring.ledger import FailedItem, Ledger, Record, as_seen_from_elsewhere
from batchpoint.scoring.local_engine import Engine, LocalEngine
from batchpoint.scoring.mini_batches import ErrorInfo, KeySpan, MiniBatch
from batchpoint.scoring.mltable import resolved
from batchpoint.scoring.publication import earlier_runs
from batchpoint.scoring.query_input import as_files, with_table
from batchpoint.scoring.spec import ScoringSpec, ThresholdSpec
from batchpoint.scoring.state_machine import TIMED_OUT, WORKER_LOST, StateMachine
from batchpoint.scoring.step_data import check_places, fetch_inputs, make_room
from batchpoint.storage.datastores import Stores

TICK = 0.05
"""Seconds after which the loop looks around although nothing happened."""
HUNGRY_TICK = 0.005
"""The same while a worker waits for the plan."""
RESERVE = "reserve"
"""File of the run's folder that keeps some room on the disk for the outcome."""
PROGRESS_SECONDS = 0.5
OVERVIEW_SECONDS = 10.0
CODES: dict[Reason, str] = {
    Reason.ERROR_THRESHOLD_EXCEEDED: "error_threshold_exceeded",
    Reason.ALL_ITEMS_FAILED: "mini_batch_failed",
    Reason.SCORING_SCRIPT_FAILED: "scoring_script_failed",
    Reason.INPUT_UNAVAILABLE: "input_unavailable",
    Reason.OUTPUT_FAILED: "output_failed",
    Reason.RECEIPT_UNBALANCED: "output_failed",
    Reason.QUALITY_CHECK_FAILED: "quality_check_failed",
    Reason.COMMAND_FAILED: "command_failed",
    Reason.NO_PROGRESS: "mini_batch_timed_out",
    Reason.WORKERS_LOST: "worker_lost",
    Reason.ENVIRONMENT_FAILED: "environment_failed",
}
"""Code of the job's error for each reason; every other one is ``platform_error``."""


class StoppedError(Exception):
    """The runner was told to stop; the run itself goes on when it is started again."""


def main() -> int:
    """Carry out the run named on standard input; the exit status of ``carry_out``, or 0 when none was named."""
    stop = stop_on_signals()
    if not select.select([sys.stdin], [], [], 0)[0]:
        import_ahead()
    line = _read_line(stop)
    return carry_out(json.loads(line), stop) if line else 0


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set from now on."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def carry_out(request: Mapping[str, Any], stop: threading.Event) -> int:
    """Carry out a run. 0: it is over; 75: it was stopped and can be resumed; 2: not begun.

    ``request`` is what stands on the line that a runner reads: ``folder`` and ``storage_options``.
    """
    try:
        run(Path(request["folder"]), request.get("storage_options"), stop=stop)
    except StoppedError:
        return 75
    except BatchpointError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    return 0


def leave(status: int) -> NoReturn:
    """End the process at once. All is on disk by then, and taking the interpreter apart takes a tenth of a second."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)


def import_ahead() -> None:
    """Import what is imported late otherwise: a waiting runner has the time."""
    import pyarrow.csv  # noqa: PLC0415 -- see above
    import pyarrow.parquet  # noqa: PLC0415, F401 -- see above

    from batchpoint.scoring import output, planning  # noqa: PLC0415, F401 -- see above
    from batchpoint.storage import datastores  # noqa: PLC0415, F401 -- see above


def run(
    folder: Path, storage_options: Mapping[str, Mapping[str, Any]] | None = None, *, stop: threading.Event | None = None
) -> Reason:
    """Carry out the run of a folder, or what is left of it; say how it ended. ``outcome.json`` has it in full.

    Raises:
        ConflictError: another runner is at work in the folder.
        StoppedError: ``stop`` was set; the run can be resumed.
    """
    folder = folder.absolute()  # workers have a folder of their own, and are told where in this one the input lies
    lock = os.open(folder / "runner.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"Another runner is at work in {folder}.") from None
        if (folder / "outcome.json").exists():
            return Reason(json.loads((folder / "outcome.json").read_bytes())["reason"])
        return _guarded(folder, storage_options or {}, stop or threading.Event())
    finally:
        os.close(lock)


def _guarded(folder: Path, storage_options: Mapping[str, Mapping[str, Any]], stop: threading.Event) -> Reason:
    """Whatever goes wrong, a run that is over says so: this is the rim of the process."""
    try:
        if not is_command(folder):
            return _run_of(folder)(folder, storage_options, stop).carry_out()
        reason = CommandRun(folder, storage_options, stop).carry_out()
        if reason is None:
            raise StoppedError
        return reason
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 -- never a silent death: the reason goes into outcome.json
        reason = _reason_of(error)
        text = traceback.format_exc()
        message = error.message if isinstance(error, BatchpointError) else f"{type(error).__name__}: {error}"
        sys.stderr.write(text)
        details = None if isinstance(error, BatchpointError) else text
        code = CODES.get(reason, "platform_error")
        (folder / RESERVE).unlink(missing_ok=True)  # a full disk must not keep the outcome from being told
        job_error = JobError(code=code, message=message, exception=type(error).__name__, traceback=details)
        job_logs.write_outcome(folder, reason=reason, error=job_error)
        return reason


def _run_of(folder: Path) -> type[Run]:
    """What carries out the run: all of it, or a sample."""
    if ScoringSpec.read(folder).sample is None:
        return Run
    from batchpoint.scoring.sample_run import SampleRun  # noqa: PLC0415 -- it is made of what stands here

    return SampleRun


def _reason_of(error: Exception) -> Reason:
    kinds: tuple[tuple[type[Exception], Reason], ...] = (
        (InputError, Reason.INPUT_UNAVAILABLE),
        (DatastoreError, Reason.INPUT_UNAVAILABLE),
        (OutputError, Reason.OUTPUT_FAILED),
        (EnvironmentBuildError, Reason.ENVIRONMENT_FAILED),
        (ScoringScriptError, Reason.SCORING_SCRIPT_FAILED),
    )
    for kind, reason in kinds:
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Reason.OUTPUT_FAILED
    return Reason.INTERNAL_ERROR


class Planner:
    """Plans in a thread of its own, a bounded number of mini-batches ahead, so that reading never holds up scoring."""

    AHEAD = 256

    def __init__(
        self,
        spec: ScoringSpec,
        storage_options: Mapping[str, Mapping[str, Any]],
        folder: Path,
        *,
        narrow: Callable[[Any], Any] | None = None,
    ) -> None:
        """Begin to plan; ``narrow`` makes of the plan the one that is carried out."""
        self._narrow = narrow
        self.plan: Any = None
        self.items_of: dict[str, int] = {}
        """Items of each input file, as planned: what the receipt is checked against."""
        self.spans: dict[int, tuple[KeySpan, ...]] = {}
        """The keys of each mini-batch of a model map."""
        self.key_files: Mapping[int, tuple[tuple[int, str], ...]] = {}
        """What of each mini-batch goes to which file, for a job that writes one for each key."""
        self._spec, self._options, self._folder = spec, storage_options, folder
        self._stopped = threading.Event()
        self._found: deque[MiniBatch | BaseException | None] = deque()
        self._has_room = threading.Event()
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)
        self._thread.start()

    def take(self, number: int) -> list[Event]:
        """Up to ``number`` events of what is planned by now. Raises what planning raised."""
        events: list[Event] = []
        while self._found and len(events) < number:
            found = self._found.popleft()
            if isinstance(found, BaseException):
                raise found
            events.append(PlanEnded() if found is None else MiniBatchPlanned(found))
        if events and len(self._found) < self.AHEAD // 2:
            self._has_room.set()
        return events

    def stop(self) -> None:
        """Give up; what is planned already is dropped."""
        self._stopped.set()
        self._thread.join(1.0)

    def _work(self) -> None:
        try:
            from batchpoint.scoring import planning  # noqa: PLC0415 -- imported beside the start of the workers

            spec = as_files(self._spec, self._folder, self._options)
            whole = planning.plan(spec, Stores(self._options), self._folder)
            self.plan = self._narrow(whole) if self._narrow is not None else whole
            key_files = self._key_files()
            for mini_batch in self.plan:
                self._count(mini_batch)
                if key_files is not None:
                    key_files.add(mini_batch)
                if not self._put(mini_batch):
                    return
            self._put(None)
            from batchpoint.scoring import output  # noqa: PLC0415, F401 -- needed at the end; there is time for it now
        except BaseException as error:  # noqa: BLE001 -- the rim of the thread: the driver raises it again
            self._put(error)

    def _key_files(self) -> Any:
        """Names the files of keys while their mini-batches are found; None for a job that writes none."""
        if self._spec.output.file_per_key is None:
            return None
        from batchpoint.scoring.file_per_key import KeyFiles  # noqa: PLC0415 -- imports Arrow, which others do without

        key_files = KeyFiles(self._spec.output)
        self.key_files = key_files.spans
        return key_files

    def _count(self, mini_batch: MiniBatch) -> None:
        if mini_batch.unreadable is not None or mini_batch.unit == "files":
            for file in mini_batch.files:
                self.items_of[file.name] = self.items_of.get(file.name, 0) + 1
        else:
            if mini_batch.spans:
                self.spans[mini_batch.index] = mini_batch.spans
            for piece in mini_batch.slices:
                self.items_of[piece.file.name] = self.items_of.get(piece.file.name, 0) + piece.rows

    def _put(self, found: MiniBatch | BaseException | None) -> bool:
        """Add to what is found, once there is room; False when nobody wants it any more."""
        while len(self._found) >= self.AHEAD and not self._stopped.is_set():
            self._has_room.clear()
            self._has_room.wait(0.1)
        self._found.append(found)
        return not self._stopped.is_set()


class Run:
    """One run, from its specification to its outcome."""

    def __init__(self, folder: Path, storage_options: Mapping[str, Mapping[str, Any]], stop: threading.Event) -> None:
        """Read the folder; nothing is started yet."""
        self._folder, self._options, self._stop = folder, storage_options, stop
        self._spec = spec = with_table(resolved(ScoringSpec.read(folder)), options=storage_options)
        (folder / RESERVE).write_bytes(bytes(1 << 16))
        self._logs = JobLogs(folder, spec)
        self._ledger = Ledger.open(folder)
        self._machine = StateMachine(
            retry=spec.retry,
            thresholds=self._allowed(spec),
            instances=spec.instances,
            processes_per_instance=spec.processes_per_instance,
            needs_results=spec.output.action == "append_row",
            committed=self._ledger.records,
            previous=_previous(folder, spec),
        )
        self._given: dict[int, tuple[Score, float]] = {}
        self._running: dict[int, deque[int]] = {}
        self._began = monotonic()
        self._rate = Rate()
        self._looked_at = self._wrote_progress_at = self._wrote_overview_at = 0.0
        self._scheduled = False
        self._quality: Quality | None = None
        self._canary: CanaryPlan | None = None

    def carry_out(self) -> Reason:
        """Score, publish, and write the outcome."""
        self._write_progress("starting")
        self._make_ready()
        engine: Engine = LocalEngine(self._spec, self._folder)
        planner = self._planner()
        grace = 0.0
        try:
            finish = self._score_all(engine, planner)
            if finish.reason is Reason.COMPLETED:
                grace = max(5.0, self._spec.retry.task_overhead_timeout)
        finally:
            if self._canary is not None:
                self._canary.close()
            planner.stop()
            cut_short = engine.close(grace=grace, is_hurried=self._is_canceled)
            self._ledger.close()
            self._logs.flush()
            shutil.rmtree(self._folder / "work", ignore_errors=True)
        if finish.reason is Reason.COMPLETED and self._is_canceled():
            finish = Finish(Reason.CANCELED_BY_USER, "The job was canceled.")
        if finish.reason is Reason.COMPLETED:
            return self._publish(planner, _shutdown_notices(cut_short, grace))
        if finish.reason is Reason.QUALITY_CHECK_FAILED and self._quality is not None:
            return self._withhold(planner, self._quality, [])
        self._keep_errors()
        return self._end(finish.reason, self._job_error(finish), planner=planner)

    def _allowed(self, spec: ScoringSpec) -> ThresholdSpec:
        return spec.thresholds

    def _planner(self) -> Planner:
        options = self._spec.quality
        holds_back = options.canary_percent is not None and options.has_checks and self._spec.retry_of is None
        return Planner(self._spec, self._options, self._folder, narrow=self._hold_back if holds_back else None)

    def _hold_back(self, whole: Any) -> CanaryPlan:
        self._canary = CanaryPlan(whole, self._spec.quality.canary_percent or 100)
        return self._canary

    def _is_canceled(self) -> bool:
        return (self._folder / "cancel").exists()

    def _make_ready(self) -> None:
        """Of a step: fetch its other inputs, and make room for its other outputs."""
        fetched, staged = self._spec.fetched_inputs, self._spec.staged_outputs
        if fetched or staged:
            stores = Stores(self._options)
            check_places(self._spec.job, staged, self._folder, stores)
            fetch_inputs(fetched, stores)
            make_room(staged, clean=False)

    # ── scoring ──

    def _score_all(self, engine: Engine, planner: Planner) -> Finish:
        machine = self._machine
        self._apply(engine, RunStarted())
        has_schema = False
        while machine.finished is None:
            planned = planner.take(machine.appetite)
            if planner.plan is not None and not has_schema:
                engine.pin_schema(planner.plan.schema)
                has_schema = True
            wait = 0.0 if planned else HUNGRY_TICK if machine.is_hungry and not machine.counts.planned_all else TICK
            for event in [*planned, *engine.poll(wait, pause=machine.slack), *self._look_around(planner)]:
                self._apply(engine, event)
            self._ledger.flush_if_due()
            if self._canary is not None and not self._let_through(self._canary):
                self._ledger.flush()
                return Finish(Reason.QUALITY_CHECK_FAILED)
        self._ledger.flush()
        return machine.finished

    def _apply(self, engine: Engine, event: Event) -> None:
        """Hand an event to the machine and carry out what it says."""
        self._note(engine, event)
        events: deque[Event] = deque([event])
        while events:
            for instruction in self._machine.handle(events.popleft(), monotonic()):
                answer = self._obey(engine, instruction)
                if answer is not None:
                    self._note(engine, answer)
                    events.append(answer)

    def _obey(self, engine: Engine, instruction: Instruction) -> Event | None:
        match instruction:
            case Score(worker, task, mini_batch, start, stop):
                self._given[task] = (instruction, time.time())
                self._running.setdefault(worker, deque()).append(task)
                engine.score(worker, task, mini_batch, start, stop)
            case Commit(record):
                self._ledger.append(record)
                if record.failures:
                    self._logs.failures(record.mini_batch, record.failures)
            case StartWorker(worker, slot):
                engine.start_worker(worker, slot)
            case KillWorker(worker):
                return WorkerKilled(worker, engine.kill_worker(worker))
            case Finish():
                pass
        return None

    def _look_around(self, planner: Planner) -> list[Event]:
        """What the passing of time brings: limits, a wish to cancel, files to write."""
        now = monotonic()
        if now - self._looked_at < TICK:
            return []
        self._looked_at = now
        if self._stop.is_set():
            raise StoppedError
        if now - self._wrote_progress_at >= PROGRESS_SECONDS:
            self._write_progress("scoring", planner)
            self._logs.sample_resources()
            self._logs.flush()
        counts = self._machine.counts
        if counts.planned_all and not self._scheduled:
            self._scheduled = True
            self._logs.overview(
                f"Scheduling finished. Scheduled {counts.mini_batches_planned} mini batches with "
                f"{counts.planned_items} items in {now - self._began:.3f} seconds."
            )
        if self._is_canceled():
            return [CancelRequested()]
        return [TimePassed()]

    # ── telling ──

    def _note(self, engine: Engine, event: Event) -> None:
        """Write down what happened to a part or a worker."""
        match event:
            case PartSucceeded(worker, task, ok=ok, seconds=seconds):
                self._note_part(engine, worker, task, ok=ok, seconds=seconds)
            case PartFailed(worker, task, error, seconds=seconds):
                self._note_part(engine, worker, task, error=error, seconds=seconds)
            case WorkerReady(worker):
                self._logs.node(engine.describe(worker), "ready")
            case WorkerInitFailed(worker, error):
                self._logs.node(engine.describe(worker), f"init failed: {error.type}: {error.message}")
                self._logs.error(error.traceback or f"{error.type}: {error.message}")
            case WorkerKilled(worker) | WorkerLost(worker):
                self._note_end(engine, event)
            case _:
                pass

    def _note_end(self, engine: Engine, event: WorkerKilled | WorkerLost) -> None:
        if isinstance(event, WorkerKilled):
            error = ErrorInfo(TIMED_OUT, "run() took too long; the worker was killed.", event.stack)
        else:
            error = ErrorInfo(WORKER_LOST, event.message)
        self._logs.node(engine.describe(event.worker), error.message)
        status = "RUN_TIMEOUT" if error.type == TIMED_OUT else "WORKER_LOST"
        self._logs.system_error(engine.describe(event.worker), status, error.message)
        tasks = self._running.pop(event.worker, None)
        if tasks:
            self._running[event.worker] = deque(tasks)
            self._note_part(engine, event.worker, tasks[0], error=error, seconds={})
            for task in self._running.pop(event.worker):
                self._given.pop(task, None)

    def _note_part(
        self,
        engine: Engine,
        worker: int,
        task: int,
        *,
        seconds: Mapping[str, float],
        ok: int = 0,
        error: ErrorInfo | None = None,
    ) -> None:
        given = self._given.pop(task, None)
        if given is None:
            return
        score, began_at = given
        self._running[worker].popleft()
        entry = PartLog(
            mini_batch=score.mini_batch.index,
            start=score.start,
            stop=score.stop,
            attempt=score.attempt,
            worker=engine.describe(worker),
            began_at=began_at,
            elapsed=time.time() - began_at,
            ok=ok,
            seconds=seconds,
            error=error.type if error else "",
            message=error.message if error else "",
        )
        self._logs.part(entry)

    def _write_progress(self, phase: str, planner: Planner | None = None) -> None:
        """Replace ``progress.json``; every ten seconds a line goes to the overview too."""
        now, counts = monotonic(), self._machine.counts
        self._wrote_progress_at = now
        plan = planner.plan if planner else None
        done = counts.ok + counts.failed + counts.skipped
        rate = self._rate.of(now, done)
        fraction = _fraction(counts.planned_items, done, plan, planned_all=counts.planned_all)
        left = None
        if rate and fraction:
            total = counts.planned_items if counts.planned_all else done / fraction
            left = max(0.0, (total - done) / rate)
        progress = Progress(
            unit=plan.unit if plan is not None else "files",
            planned_items=counts.planned_items,
            planned_all=counts.planned_all,
            ok=counts.ok,
            failed=counts.failed,
            skipped=len(plan.skipped) if plan is not None else 0,
            mini_batches_planned=counts.mini_batches_planned,
            mini_batches_done=counts.mini_batches_done,
            mini_batches_failed=counts.mini_batches_failed,
            workers=self._machine.live_workers,
            worker_losses=counts.worker_losses,
            timeouts=counts.timeouts,
            items_per_second=rate,
            seconds_left=left,
            fraction=fraction,
            phase=phase,
            heartbeat_at=datetime.now(UTC),
        )
        job_logs.write_progress(self._folder, progress)
        if now - self._wrote_overview_at >= OVERVIEW_SECONDS:
            self._wrote_overview_at = now
            self._logs.progress(counts, elapsed=now - self._began, seconds_left=left)

    # ── the end ──

    def _publish(self, planner: Planner, notices: list[str]) -> Reason:
        from batchpoint.scoring import output  # noqa: PLC0415 -- imports Arrow, which scoring itself does without

        counts, began = self._machine.counts, monotonic()
        self._write_progress("publishing", planner)
        self._logs.progress(counts, elapsed=began - self._began, seconds_left=0)
        self._logs.overview(f"All {counts.mini_batches_done} mini batches have been processed.")
        segments = list((self._folder / "segments").iterdir())
        size = sum(path.stat().st_size for path in segments) / 2**20
        self._logs.overview(f"There are {len(segments)} temp files to concatenate. Total size is {size:.1f} MB.")
        notices = [*notices, *self._look_at_quality([*self._ledger.in_order()])]
        if self._quality is not None and self._quality.failed_checks:
            return self._withhold(planner, self._quality, notices)
        try:
            published = output.publish(
                self._spec,
                self._folder,
                self._ledger.in_order(),
                planner.plan,
                Stores(self._options),
                planned=planner.items_of,
                key_files=planner.key_files,
            )
        except DatastoreError as refusal:
            raise OutputError(f"The output could not be written: {refusal.message}") from refusal
        self._logs.overview(f"Finished concatenating {len(segments)} files in {monotonic() - began:.3f} seconds.")
        receipt: Receipt = published.receipt
        reason, error = Reason.COMPLETED, None
        if not receipt.balanced:
            reason = Reason.RECEIPT_UNBALANCED
            message = (
                f"The receipt does not add up: {receipt.items} items planned, {receipt.ok} ok, {receipt.failed} "
                f"failed, {receipt.skipped} skipped, {receipt.output_rows} rows written. Do not use this output."
            )
            error = JobError(code=CODES[reason], message=message)
        notices = [*planner.plan.notices, *published.notices, *notices]
        return self._end(reason, error, receipt, published.outputs, notices, planner)

    def _let_through(self, canary: CanaryPlan) -> bool:
        """Check what goes first once it is done, and release the others; False when it does not pass."""
        first = canary.first(self._ledger.records.__contains__)
        if first is None:
            return True
        percent = self._spec.quality.canary_percent
        self._look_at_quality([self._ledger.records[index] for index in first], canary_percent=percent)
        if self._quality is not None and self._quality.failed_checks:
            return False
        canary.release()
        return True

    def _look_at_quality(self, records: list[Record], *, canary_percent: float | None = None) -> list[str]:
        """Write what the columns hold; notices. That it cannot be told costs no prediction, unless it is checked."""
        options = self._spec.quality
        if not self._spec.sketches and not options.has_checks:
            return []
        from batchpoint.scoring import quality  # noqa: PLC0415 -- imports Arrow

        try:
            self._quality = quality.write_quality(self._spec, self._folder, records, canary_percent=canary_percent)
        except (BatchpointError, OSError, ValueError, LookupError) as error:
            if options.has_checks:
                raise
            return [f"What the columns hold could not be told: {type(error).__name__}: {error}"]
        checks_changes = options.max_drift is not None or options.max_missing_change is not None
        if checks_changes and self._quality.reference is None:
            return ["Drift and missing values were not checked: there is no reference yet to compare with."]
        return []

    def _withhold(self, planner: Planner, found: Quality, notices: list[str]) -> Reason:
        """End a run whose checks did not pass: what it would have published lies in its folder."""
        from batchpoint.scoring import output  # noqa: PLC0415 -- imports Arrow

        records = [*self._ledger.in_order()]
        is_whole = found.canary_percent is None
        written = output.withhold(
            self._spec,
            self._folder,
            records,
            planner.plan,
            Stores(self._options),
            planned=planner.items_of if is_whole else _items_of(records),
            key_files=planner.key_files,
        )
        self._keep_errors()
        checks = "; ".join(check.message for check in found.failed_checks)
        scored = "" if is_whole else f" Only {found.canary_percent:g} % of the mini-batches were scored."
        message = (
            f"Nothing was published: {checks}.{scored} The output that did not pass lies in "
            f"{self._folder / output.WITHHELD}; batchpoint job quality -n {self._spec.job} shows all columns."
        )
        error = JobError(code=CODES[Reason.QUALITY_CHECK_FAILED], message=message)
        notices = [*planner.plan.notices, *written.notices, *notices]
        receipt = written.receipt if is_whole else None
        return self._end(Reason.QUALITY_CHECK_FAILED, error, receipt, None, notices, planner)

    def _keep_errors(self) -> None:
        """Nothing is published for a run that did not complete, yet each failed item is named: in the run's folder."""
        from batchpoint.scoring.errors_file import write_errors  # noqa: PLC0415 -- imports Arrow

        unfinished = self._machine.unfinished
        for record in unfinished:
            self._logs.failures(record.mini_batch, record.failures)
        records = heapq.merge(self._ledger.in_order(), unfinished, key=lambda record: record.mini_batch)
        write_errors(records, self._folder / "errors.jsonl", "jsonl")

    def _end(
        self,
        reason: Reason,
        error: JobError | None,
        receipt: Receipt | None = None,
        outputs: Mapping[str, Any] | None = None,
        notices: list[str] | None = None,
        planner: Planner | None = None,
    ) -> Reason:
        (self._folder / RESERVE).unlink(missing_ok=True)
        self._logs.result(reason, self._machine.counts, error)
        self._write_progress("finished", planner)
        report = None
        if self._spec.model_map is not None and planner is not None:
            report = models_report.NAME
            reports = models_report.key_reports(planner.spans, self._ledger.in_order())
            models_report.write_models_report(self._folder, reports)
        job_logs.write_outcome(
            self._folder,
            reason=reason,
            error=error,
            receipt=receipt,
            outputs=outputs,
            notices=notices,
            models_report=report,
            quality=summary(self._quality) if self._quality is not None else None,
        )
        return reason

    def _job_error(self, finish: Finish) -> JobError:
        code = CODES.get(finish.reason, "platform_error")
        if finish.error is not None:
            error = finish.error
            log = "logs/user/error"
            return JobError(
                code=code, message=finish.message, exception=error.type, traceback=error.traceback or None, log=log
            )
        failure = finish.failure
        if failure is None:
            return JobError(code=code, message=finish.message)
        return JobError(
            code=code,
            message=f"{finish.message} The first: {_failure_in_words(failure)}",
            file=failure.file,
            row=failure.row,
            exception=failure.error.type,
            traceback=failure.error.traceback or None,
            log="logs/user/error",
        )


class Rate:
    """Items per second over the last half minute."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._seen: deque[tuple[float, int]] = deque(maxlen=60)

    def of(self, now: float, done: int) -> float | None:
        """Note how many items are done now; the rate, once there is one."""
        if not self._seen or self._seen[0][1] == done:
            self._seen.clear()  # the clock starts with the first finished item, not with the start of the workers
        self._seen.append((now, done))
        (then, before) = self._seen[0]
        return (done - before) / (now - then) if now > then and done > before else None


def _fraction(planned_items: int, done: int, plan: Any, *, planned_all: bool) -> float | None:
    """Done part of the input; by bytes while the plan still grows."""
    if not planned_items:
        return None
    fraction = done / planned_items
    if planned_all:
        return fraction
    if plan is None or not plan.total_bytes:
        return None
    return float(min(1.0, fraction * plan.planned_bytes / plan.total_bytes))


def _failure_in_words(failure: FailedItem) -> str:
    place = failure.file or "an item that is not known"
    if failure.row is not None:
        place += f", row {failure.row}"
    return f"{place}: {failure.error.type}: {failure.error.message}"


def _shutdown_notices(cut_short: int, grace: float) -> list[str]:
    if not cut_short:
        return []
    what = "the shutdown() of one worker was" if cut_short == 1 else f"the shutdown() of {cut_short} workers was"
    return [f"After {grace:g} seconds {what} cut short. The predictions are whole; files that it writes may not be."]


def _items_of(records: Iterable[Record]) -> dict[str, int]:
    """Items of each file, as far as they were scored."""
    counted: dict[str, int] = {}
    for record in records:
        for name, (items, _, _) in record.files.items():
            counted[name] = counted.get(name, 0) + items
    return counted


def _previous(folder: Path, spec: ScoringSpec) -> dict[int, Any] | None:
    """The records of the runs whose failed items are scored again, the latest word on each mini-batch; their scripts'
    own files are taken over too."""
    if spec.retry_of is None:
        return None
    earlier = earlier_runs(spec)
    for name in ("user_output", "step_outputs"):
        ours = folder / name
        theirs = next((old / name for old in earlier if (old / name).is_dir()), None)
        if theirs is not None and not ours.exists():
            partial = folder / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(theirs, partial)
            partial.rename(ours)
    records: dict[int, Any] = {}
    for old in reversed(earlier):
        records |= {index: as_seen_from_elsewhere(record, str(old)) for index, record in Ledger.read(old).items()}
    return without_failed_keys(records, folder) if spec.model_map is not None else records


def _read_line(stop: threading.Event) -> bytes:
    """The line on standard input; empty when it was closed or the runner was stopped before one came."""
    data = b""
    while not data.endswith(b"\n") and not stop.is_set():
        if select.select([sys.stdin], [], [], 0.2)[0]:
            more = os.read(sys.stdin.fileno(), 1 << 16)
            if not more:
                break
            data += more
    return data


if __name__ == "__main__":
    leave(main())
