"""A run of a model or script: the loop that joins plan, state machine, engine, ledger, logs and output."""

from __future__ import annotations

import heapq
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from batchpoint.entities.jobs import JobError, Reason, Receipt
from batchpoint.entities.quality import Quality, summary
from batchpoint.errors import BatchpointError, DatastoreError, OutputError
from batchpoint.scoring import job_logs, models_report
from batchpoint.scoring.canary import CanaryPlan
from batchpoint.scoring.events import (
    CancelRequested,
    Commit,
    Event,
    Finish,
    Instruction,
    KillWorker,
    PartFailed,
    PartSucceeded,
    RunStarted,
    Score,
    StartWorker,
    TimePassed,
    WorkerInitFailed,
    WorkerKilled,
    WorkerLost,
    WorkerReady,
)
from batchpoint.scoring.job_logs import JobLogs, PartLog
from batchpoint.scoring.kept_rows import without_failed_keys
from batchpoint.scoring.ledger import Ledger, Record, as_seen_from_elsewhere
from batchpoint.scoring.local_engine import Engine, LocalEngine
from batchpoint.scoring.mini_batches import ErrorInfo
from batchpoint.scoring.mltable import resolved
from batchpoint.scoring.planner import Planner
from batchpoint.scoring.publication import earlier_runs
from batchpoint.scoring.query_input import with_table
from batchpoint.scoring.run_outcome import error_of_checks, error_of_receipt, error_of_run, shutdown_notices
from batchpoint.scoring.run_progress import Rate, done_items, progress_of
from batchpoint.scoring.spec import ScoringSpec, ThresholdSpec
from batchpoint.scoring.state_machine import TIMED_OUT, WORKER_LOST, StateMachine
from batchpoint.scoring.step_data import check_places, fetch_inputs, make_room
from batchpoint.storage.datastores import Stores

if TYPE_CHECKING:
    from batchpoint.scoring.quality import QualityLook

TICK = 0.05
"""Seconds after which the loop looks around although nothing happened."""
HUNGRY_TICK = 0.005
"""The same while a worker waits for the plan."""
RESERVE = "reserve"
"""File of the run's folder that keeps some room on the disk for the outcome."""
PROGRESS_SECONDS = 0.5
OVERVIEW_SECONDS = 10.0


class StoppedError(Exception):
    """The runner was told to stop; the run itself goes on when it is started again."""


class ScoringRun:
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
        if (before := job_logs.read_progress(folder)) is not None:  # of a runner that was interrupted
            self._machine.counts.worker_losses = before.worker_losses
            self._machine.counts.timeouts = before.timeouts
        self._given: dict[int, tuple[Score, float]] = {}
        self._running: dict[int, deque[int]] = {}
        self._began = monotonic()
        self._rate = Rate()
        self._looked_at = self._wrote_progress_at = self._wrote_overview_at = 0.0
        self._scheduled = False
        self._quality: Quality | None = None
        self._canary: CanaryPlan | None = None
        self._look: QualityLook | None = None

    def carry_out(self) -> Reason:
        """Score, publish, and write the outcome."""
        self._write_progress("starting")
        self._make_ready()
        engine: Engine = LocalEngine(self._spec, self._folder)
        planner = self._planner()
        grace = 0.0
        looking: Future[Quality] | None = None
        try:
            finish = self._score_all(engine, planner)
            if finish.reason is Reason.COMPLETED:
                grace = max(5.0, self._spec.retry.task_overhead_timeout)
                if self._look is not None:
                    looking = self._look.finish([*self._ledger.in_order()])  # while the workers end
        finally:
            if self._canary is not None:
                self._canary.close()
            planner.stop()
            cut_short = engine.close(grace=grace, is_hurried=self._is_canceled)
            self._ledger.close()
            self._logs.flush()
            shutil.rmtree(self._folder / "work", ignore_errors=True)
            if self._look is not None and looking is None:
                self._look.close()
        if finish.reason is Reason.COMPLETED and self._is_canceled():
            finish = Finish(Reason.CANCELED_BY_USER, "The job was canceled.")
        if finish.reason is Reason.COMPLETED:
            return self._publish(planner, shutdown_notices(cut_short, grace), looking)
        if self._look is not None:
            self._look.close()
        if finish.reason is Reason.QUALITY_CHECK_FAILED and self._quality is not None:
            return self._withhold(planner, self._quality, [])
        self._keep_errors()
        return self._end(finish.reason, error_of_run(finish), planner=planner)

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
        self._begin_to_look()
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
                if self._look is not None:
                    self._look.note(record)
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
        self._wrote_progress_at = 0.0  # soon, for whoever goes on after an interruption has it from there alone
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
        progress = progress_of(
            counts,
            planner.plan if planner else None,
            rate=self._rate.of(now, done_items(counts)),
            workers=self._machine.live_workers,
            phase=phase,
            heartbeat_at=datetime.now(UTC),
        )
        job_logs.write_progress(self._folder, progress)
        if now - self._wrote_overview_at >= OVERVIEW_SECONDS:
            self._wrote_overview_at = now
            self._logs.progress(counts, elapsed=now - self._began, seconds_left=progress.seconds_left)

    # ── the end ──

    def _publish(self, planner: Planner, notices: list[str], looking: Future[Quality] | None) -> Reason:
        from batchpoint.scoring import output  # noqa: PLC0415 -- imports Arrow, which scoring itself does without

        counts, began = self._machine.counts, monotonic()
        self._write_progress("publishing", planner)
        self._logs.progress(counts, elapsed=began - self._began, seconds_left=0)
        self._logs.overview(f"All {counts.mini_batches_done} mini batches have been processed.")
        segments = list((self._folder / "segments").iterdir())
        size = sum(path.stat().st_size for path in segments) / 2**20
        self._logs.overview(f"There are {len(segments)} temp files to concatenate. Total size is {size:.1f} MB.")
        if looking is not None and self._spec.quality.has_checks:
            notices += self._heed(looking.result)
            looking = None
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
            reason, error = Reason.RECEIPT_UNBALANCED, error_of_receipt(receipt)
        if looking is not None:  # nothing depends on it: it was looked at meanwhile
            notices += self._heed(looking.result)
        notices = [*planner.plan.notices, *published.notices, *notices]
        return self._end(reason, error, receipt, published.outputs, notices, planner)

    def _let_through(self, canary: CanaryPlan) -> bool:
        """Check what goes first once it is done, and release the others; False when it does not pass."""
        first = canary.first(self._ledger.records.__contains__)
        if first is None:
            return True
        from batchpoint.scoring import quality  # noqa: PLC0415 -- imports Arrow

        percent = self._spec.quality.canary_percent or 100
        records = [self._ledger.records[index] for index in first]
        self._heed(lambda: quality.write_quality(self._spec, self._folder, records, canary_percent=percent))
        if self._quality is not None and self._quality.failed_checks:
            return False
        canary.release()
        return True

    def _begin_to_look(self) -> None:
        """Look at what the columns hold, where it is told or checked, from here on. The workers start meanwhile."""
        if self._spec.sketches or self._spec.quality.has_checks:
            from batchpoint.scoring.quality import QualityLook  # noqa: PLC0415 -- imports Arrow

            self._look = QualityLook(self._spec, self._folder)
            for record in self._ledger.in_order():
                self._look.note(record)

    def _heed(self, look: Callable[[], Quality]) -> list[str]:
        """Keep what the columns hold; notices. That it cannot be told costs no prediction, unless it is checked."""
        options = self._spec.quality
        try:
            self._quality = look()
        except (BatchpointError, OSError, ValueError, LookupError) as error:
            if options.has_checks:
                raise
            return [f"What the columns hold could not be told: {type(error).__name__}: {error}"]
        notices = []
        if options.checks_changes and self._quality.reference is None:
            notices.append("Drift and missing values were not checked: there is no reference yet to compare with.")
        if self._quality.left_out:
            notices.append(
                f"{self._quality.left_out:,} columns were not looked at, nor checked: a table's first 256 are, and "
                "those that output_ranges names."
            )
        return notices

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
        error = error_of_checks(found, self._folder / output.WITHHELD)
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
