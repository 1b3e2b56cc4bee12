"""Events in, instructions out: assign, retry, halve, time out, give up, finish. No clock, no file, no process.

The machine sees what happened (past tense) and says what to do (imperative). Its budgets are kept apart: errors of
``run()`` and time-outs make an item fail after ``1 + max_retries`` of them, lost workers have a budget of their own for
each part. What a run commits depends on the input and the settings alone: never on the number of workers, on which of
them was lost, or on how often the run was resumed.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

from batchpoint.entities.jobs import Reason
from batchpoint.scoring.events import (
    CancelRequested,
    ChampionDone,
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
from batchpoint.scoring.ledger import FailedItem, Part, Record
from batchpoint.scoring.mini_batches import ErrorInfo, MiniBatch
from batchpoint.scoring.model_outcomes import ModelOutcomes
from batchpoint.scoring.spec import RetrySpec, ThresholdSpec

MISSING_RESULT = "MissingResult"
"""Error type of an item for which ``run()`` returned nothing."""
WORKER_LOST = "WorkerLost"
"""Error type of an item whose worker was lost too often."""
TIMED_OUT = "MiniBatchTimeout"
"""Error type of an item whose ``run()`` took too long."""
DISK_FULL = "DiskFull"
"""Error type of a part whose rows found no room: the fault of no item."""

STARTING_LIMIT = 600.0
"""Seconds that the first worker may take to become ready, whatever the progress time-out is."""


DOUBTFUL_SHARE = 8
"""Parts of a key's rows, all of which end or hang the worker, after which its model is taken to do so for every row."""
PROBES = 30
"""Items taken alone to find out whether anything can succeed, when the first mini-batch failed whole."""
GOLDEN_SECTION = 0.6180339887498949
"""Steps of this part of the whole spread evenly and never fall in with a period of the data."""
PROBED_AHEAD = 8
"""Untouched mini-batches that are probed too; fewer only when the plan has no more."""
FAULTS_OF_CODE = frozenset(
    {
        "AttributeError",
        "ImportError",
        "KeyError",
        "ModuleNotFoundError",
        "NameError",
        "NotImplementedError",
        "TypeError",
    }
)
"""Error types that a script raises for every item alike when it is itself at fault."""


# ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Counts:
    """How far the run is, in items and mini-batches. ``ok`` and ``failed`` are verdicts given, committed or not."""

    planned_items: int = 0
    planned_all: bool = False
    ok: int = 0
    kept: int = 0
    """Those of ``ok`` that an earlier run scored, whose failed items are scored again."""
    failed: int = 0
    skipped: int = 0
    """Items that the model map leaves out."""
    missing: int = 0
    """Those of ``failed`` that only lack a result."""
    mini_batches_planned: int = 0
    mini_batches_done: int = 0
    mini_batches_kept: int = 0
    """Those of ``mini_batches_done`` of which nothing is scored again."""
    mini_batches_failed: int = 0
    worker_losses: int = 0
    timeouts: int = 0


@dataclass(slots=True)
class _Open:
    """A mini-batch in work."""

    mini_batch: MiniBatch
    left: int
    parts: list[Part] = field(default_factory=list)
    failures: list[FailedItem] = field(default_factory=list)
    doubtful: list[_Task] = field(default_factory=list)
    """Parts of keys whose models may be at fault themselves: see ``_doubt``."""
    bounds: list[int] = field(default_factory=list)
    """Where the keys of a model map begin, and the end of the last; empty without one."""

    def __post_init__(self) -> None:
        if self.mini_batch.spans:
            self.bounds = [0, *accumulate(span.rows for span in self.mini_batch.spans)]

    def values_at(self, item: int) -> dict[str, object] | None:
        """The key that an item belongs to, as people know it; None without a model map."""
        return dict(self.mini_batch.spans[bisect_right(self.bounds, item) - 1].key) if self.bounds else None

    def key_of(self, task: _Task) -> tuple[int, int] | None:
        """First row and end of the key that a part belongs to; None when that is not one key of a model map."""
        at = bisect_right(self.bounds, task.start)
        return (self.bounds[at - 1], self.bounds[at]) if self.bounds and task.stop <= self.bounds[at] else None


@dataclass(slots=True)
class _Task:
    """A part to score, or being scored."""

    open: _Open
    start: int
    stop: int
    attempts: int = 0
    """``run()`` calls with these items that raised or timed out."""
    losses: int = 0
    """Workers lost over this very part."""
    losses_before: int = 0
    """Workers lost over larger parts that it was a piece of."""
    id: int = 0
    is_probe: bool = False
    """Whether its result is only looked at, never kept: see ``_Probing``."""

    @property
    def items(self) -> int:
        return self.stop - self.start

    @property
    def order(self) -> tuple[int, int, int]:
        """Earlier mini-batches first; within one, the least tried: half of a bad part is good, and that is progress."""
        if self.is_probe:
            return -1, 0, self.start
        return self.open.mini_batch.index, self.attempts + self.losses + self.losses_before, self.start


@dataclass(slots=True)
class _Probing:
    """Halving a mini-batch costs two calls for each bad item: hopeless when a script fails for every one of them.

    So when a mini-batch fails whole, with an error as faulty code raises it and before anything has succeeded, some of
    its items and of those planned after it, spread evenly, are scored alone as well. If each fails with the very same
    error, the run ends. Any other answer ends the probing. Probes are neither results nor attempts, so what a run
    commits does not depend on them.
    """

    error: ErrorInfo
    left: int
    failure: tuple[int, FailedItem] | None = None
    """Mini-batch and failure of the first of the items."""

    def confirms(self, error: ErrorInfo) -> bool:
        return (error.type, error.message) == (self.error.type, self.error.message)


@dataclass(slots=True)
class _Worker:
    slot: int
    started: float
    is_ready: bool = False
    is_being_killed: bool = False
    tasks: deque[_Task] = field(default_factory=deque)
    """In the order given; the first is the one being run."""
    head_since: float = 0.0
    challenger_until: float = 0.0
    """Until when the part being run is the challenger's, who has limits of its own."""


class StateMachine:
    """What a run does next. ``handle`` takes an event and the time in seconds and answers with instructions."""

    def __init__(
        self,
        *,
        retry: RetrySpec,
        thresholds: ThresholdSpec,
        instances: int = 1,
        processes_per_instance: int = 1,
        needs_results: bool = True,
        committed: Mapping[int, Record] | None = None,
        previous: Mapping[int, Record] | None = None,
    ) -> None:
        """Begin.

        Args:
            retry: tries and time limits.
            thresholds: how much may fail.
            instances: nodes of the run.
            processes_per_instance: workers of each node.
            needs_results: whether items without a result alone make "every item failed" (append_row).
            committed: records that this run wrote before it was interrupted; they are not scored again.
            previous: records of the run whose failed items are scored again; None when this is no such run.
        """
        self.counts = Counts()
        self.finished: Finish | None = None
        self._retry = retry
        self._thresholds = thresholds
        self._slots = instances * processes_per_instance
        self._processes = processes_per_instance
        self._needs_results = needs_results
        self._committed = dict(committed or {})
        self._previous = previous
        self._workers: dict[int, _Worker] = {}
        self._next_worker = 0
        self._next_task = 0
        self._fresh: deque[_Task] = deque()
        self._again: list[tuple[tuple[int, int, int], _Task]] = []
        self._open: dict[int, _Open] = {}
        self._failed_starts: dict[int, int] = {}
        self._start_error: ErrorInfo | None = None
        self._ever_ready = False
        self._progress_at = 0.0
        self._mean_seconds: float | None = None
        self._first_failure: tuple[int, FailedItem] | None = None
        self._probing: _Probing | None = None
        self._has_probed = False
        self._out: list[Instruction] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            RunStarted: self._on_start,
            MiniBatchPlanned: self._on_planned,
            PlanEnded: self._on_plan_ended,
            WorkerReady: self._on_ready,
            WorkerInitFailed: self._on_init_failed,
            PartSucceeded: self._on_succeeded,
            ChampionDone: self._on_champion_done,
            PartFailed: self._on_failed,
            WorkerKilled: self._on_killed,
            WorkerLost: self._on_lost,
            TimePassed: self._on_time,
            CancelRequested: self._on_cancel,
        }
        for record in self._committed.values():
            self._count_verdicts(record.mini_batch, record.ok, record.failures)
            self._count_done(record)
            self.counts.skipped += record.skipped
            old = (previous or {}).get(record.mini_batch)
            if old is not None and record.ok:  # else it could no longer be read, and nothing was kept
                self._count_kept(record.items, _whole_parts(old))

    # ── what the runner asks ──

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in an event; answer with what to do, in order. After ``Finish`` the answer is always empty."""
        if self.finished is not None:
            return []
        self._out = []
        self._handlers[type(event)](event, now)
        if self.finished is None:
            self._check_thresholds()
        if self.finished is None:
            self._check_end()
        if self.finished is None:
            self._hand_out(now)
            self._start_workers(now)
        return self._out

    @property
    def appetite(self) -> int:
        """How many more mini-batches are worth planning now, so that no worker waits and memory stays flat."""
        return max(0, 8 + self._slots * 10 - len(self._fresh))

    @property
    def is_hungry(self) -> bool:
        """Whether a worker has nothing to do until more is planned."""
        return any(worker.is_ready and not worker.tasks for worker in self._workers.values())

    @property
    def slack(self) -> float:
        """Seconds for which no worker needs the driver: it may sleep it and find several events at once."""
        stock = [len(worker.tasks) for worker in self._workers.values() if worker.is_ready]
        if not stock or not self._mean_seconds:
            return 0.0
        return max(0.0, min(0.01, (min(stock) - 1) * self._mean_seconds / 2))

    @property
    def live_workers(self) -> int:
        """Workers that are starting or working."""
        return len(self._workers)

    @property
    def first_failure(self) -> FailedItem | None:
        """The first failed item in input order, of those known by now."""
        return self._first_failure[1] if self._first_failure else None

    @property
    def unfinished(self) -> list[Record]:
        """The mini-batches in work of which items have failed for good, as far as they are, in the input's order."""
        entries = [entry for _, entry in sorted(self._open.items()) if entry.failures]
        return [replace(_record(entry), ok=0, parts=(), files={}) for entry in entries]

    def check_invariants(self) -> None:
        """Raise AssertionError when the state contradicts itself."""
        assert len(self._workers) <= self._slots, "more workers than slots"
        assert len({worker.slot for worker in self._workers.values()}) == len(self._workers), "two workers in a slot"
        spans: dict[int, list[tuple[int, int]]] = {}
        for task in self._all_tasks():
            if task.is_probe:
                continue
            spans.setdefault(task.open.mini_batch.index, []).append((task.start, task.stop))
        for index, entry in self._open.items():
            assert index not in self._committed, f"mini-batch {index} is open and committed"
            waiting = sorted(spans.pop(index, []))
            if self.finished is None:
                assert sum(stop - start for start, stop in waiting) == entry.left, f"items of {index} went astray"
            assert all(a[1] <= b[0] for a, b in pairwise(waiting)), f"parts of {index} overlap"
        assert not spans, f"parts of mini-batches that are not open: {sorted(spans)}"
        for worker in self._workers.values():
            assert worker.is_ready or not worker.tasks, "a worker that is not ready has work"

    def _all_tasks(self) -> Iterator[_Task]:
        yield from self._live_tasks()
        for entry in self._open.values():
            yield from entry.doubtful

    def _live_tasks(self) -> Iterator[_Task]:
        """What is being scored, or will be."""
        yield from self._fresh
        yield from (task for _, task in self._again)
        for worker in self._workers.values():
            yield from worker.tasks

    # ── planning ──

    def _on_start(self, _event: RunStarted, now: float) -> None:
        self._progress_at = now
        self._start_worker(now)  # before anything is planned: starting takes longest

    def _on_planned(self, event: MiniBatchPlanned, _now: float) -> None:
        mini_batch = event.mini_batch
        self.counts.mini_batches_planned += 1
        self.counts.planned_items += mini_batch.items
        old = self._previous.get(mini_batch.index) if self._previous is not None else None
        for record in (self._committed.get(mini_batch.index), old):
            if record is not None and not _is_same(record, mini_batch):
                self._input_changed(mini_batch)
                return
        if mini_batch.index in self._committed:
            return
        entry = _Open(mini_batch, mini_batch.items)
        self._open[mini_batch.index] = entry
        if mini_batch.unreadable is not None:
            self._fail_items(_Task(entry, 0, mini_batch.items), mini_batch.unreadable)
        elif old is None and mini_batch.items:
            self._fresh.append(_Task(entry, 0, mini_batch.items))
        elif old is not None:
            self._fresh.extend(self._score_again(entry, old))
        self._commit_if_whole(entry)

    def _score_again(self, entry: _Open, old: Record) -> Iterator[_Task]:
        """Keep the whole parts of an earlier run; yield what has to be scored again: the gaps between them."""
        keep = _whole_parts(old)
        entry.parts.extend(keep)
        entry.left -= sum(part.ok for part in keep)
        self._count_verdicts(entry.mini_batch.index, sum(part.ok for part in keep), ())
        self._count_kept(entry.mini_batch.items, keep)
        at = 0
        for start, stop in [*((part.start, part.stop) for part in keep), (entry.mini_batch.items,) * 2]:
            if start > at:
                yield _Task(entry, at, start)
            at = max(at, stop)

    def _input_changed(self, mini_batch: MiniBatch) -> None:
        names = ", ".join(sorted({*_names(mini_batch)})[:3])
        self._finish(
            Reason.INPUT_UNAVAILABLE,
            f"The input has changed since mini-batch {mini_batch.index} ({names}) was scored: its items are not the "
            "same any more. Submit a new job over the input as it is now.",
        )

    def _on_plan_ended(self, _event: PlanEnded, _now: float) -> None:
        self.counts.planned_all = True

    # ── workers ──

    def _on_ready(self, event: WorkerReady, now: float) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return
        if not self._ever_ready:
            self._progress_at = now
        worker.is_ready = self._ever_ready = True
        self._failed_starts[self._instance(worker)] = 0

    def _on_init_failed(self, event: WorkerInitFailed, _now: float) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is not None:
            self._start_failed(worker, event.error)

    def _start_failed(self, worker: _Worker, error: ErrorInfo) -> None:
        """Count a failed start: an instance has three in a row for each of its workers, as with Azure ML."""
        if self._start_error is None or self._start_error.type == WORKER_LOST:
            self._start_error = error
        instance = self._instance(worker)
        self._failed_starts[instance] = failed = self._failed_starts.get(instance, 0) + 1
        if failed < 3 * self._processes:
            return
        first = self._start_error
        if first.type == WORKER_LOST:
            message = f"No worker became ready in {failed} starts: {first.message}"
            self._finish(Reason.WORKERS_LOST, message, error=first)
        else:
            message = f"The scoring script failed before it was ready, {failed} times. {first.type}: {first.message}"
            self._finish(Reason.SCORING_SCRIPT_FAILED, message, error=first)

    def _on_lost(self, event: WorkerLost, now: float) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is None:
            return
        error = ErrorInfo(WORKER_LOST, event.message)
        if not worker.is_ready:
            self._start_failed(worker, error)
            return
        self.counts.worker_losses += 1
        head = self._take_tasks_back(worker)
        if head is None or head.is_probe:
            return
        head.losses += 1
        if head.losses <= self._retry.max_worker_losses:
            self._push(head)
        elif head.items > 1 and self._retry.isolate_failures:
            self._doubt(head, error, now)
        else:
            head.attempts += head.losses_before + head.losses
            self._fail_items(head, error)
            self._progress_at = now
            self._commit_if_whole(head.open)

    def _on_killed(self, event: WorkerKilled, now: float) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is None:
            return
        self.counts.timeouts += 1
        head = self._take_tasks_back(worker)
        if head is not None and not head.is_probe:
            message = f"run() took longer than {self._time_limit:g} seconds; its worker was killed."
            error = ErrorInfo(TIMED_OUT, message, event.stack)
            self._attempt_failed(head, PartFailed(event.worker, head.id, error), now)

    def _take_tasks_back(self, worker: _Worker) -> _Task | None:
        """The part that a worker was running; those that it only had in stock go back as they are."""
        head = worker.tasks.popleft() if worker.tasks else None
        if head is not None and head.is_probe:
            self._probing = None
        while worker.tasks:
            self._push(worker.tasks.popleft())
        return head

    def _instance(self, worker: _Worker) -> int:
        return worker.slot // self._processes

    # ── results ──

    def _on_succeeded(self, event: PartSucceeded, now: float) -> None:
        task = self._head_done(event.worker, event.id, now)
        if task is None:
            return
        self._progress_at = now
        if task.is_probe:
            self._probing = None
            return
        entry, ok = task.open, min(event.ok, task.items)
        part = Part(
            start=task.start,
            stop=task.stop,
            segment=event.segment,
            offset=event.offset,
            length=event.length,
            rows=event.rows,
            ok=ok,
            encoding=event.encoding,
            columns=event.columns,
            missing=event.missing if ok < task.items else (),
            models=replace(event.models, failed=()) if event.models is not None else None,
            challenge=event.challenge,
            sketched=event.sketched,
        )
        entry.parts.append(part)
        entry.left -= task.items
        if event.models is not None:
            failures = _failed_by_models(task, event.models)
            self.counts.skipped += event.models.skipped_items
        else:
            failures = _missing_results(task, part) if ok < task.items else []
            self.counts.missing += len(failures)
        entry.failures.extend(failures)
        self._count_verdicts(entry.mini_batch.index, ok, failures, count_missing=False)
        if entry.doubtful:
            self._trust(entry, task)
        self._commit_if_whole(entry)

    def _on_champion_done(self, event: ChampionDone, now: float) -> None:
        worker = self._workers.get(event.worker)
        if worker is not None and worker.tasks and worker.tasks[0].id == event.id:
            worker.challenger_until = now + event.within
            self._progress_at = max(self._progress_at, worker.challenger_until)

    def _on_failed(self, event: PartFailed, now: float) -> None:
        task = self._head_done(event.worker, event.id, now)
        if task is not None and event.error.type == DISK_FULL:
            self._push(task)
            message = f"{event.error.message}. Make room and submit the job again."
            self._finish(Reason.OUTPUT_FAILED, message, event.error)
        elif task is not None and task.is_probe:
            self._probe_failed(task, event.error)
        elif task is not None:
            self._begin_to_probe(task, event.error)
            self._attempt_failed(task, event, now)

    def _head_done(self, worker_id: int, task_id: int, now: float) -> _Task | None:
        """Take the finished part from its worker; None when the answer comes from a worker already given up."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.is_being_killed or not worker.tasks or worker.tasks[0].id != task_id:
            return None
        seconds = now - worker.head_since
        self._mean_seconds = seconds if self._mean_seconds is None else 0.8 * self._mean_seconds + 0.2 * seconds
        worker.head_since, worker.challenger_until = now, 0.0
        return worker.tasks.popleft()

    def _attempt_failed(self, task: _Task, event: PartFailed, now: float) -> None:
        task.attempts += 1
        isolates = task.items > 1 and self._retry.isolate_failures
        if isolates and event.error.type == TIMED_OUT:
            self._doubt(task, event.error, now)
        elif isolates and (cuts := self._between_files(task) if event.is_unread else self._around(task, event.item)):
            self._divide(task, *cuts)
        elif task.attempts <= self._retry.max_retries:
            self._push(task)
        else:
            self._progress_at = now
            self._fail_items(task, event.error, event.key)
            self._commit_if_whole(task.open)

    def _begin_to_probe(self, task: _Task, error: ErrorInfo) -> None:
        hopeful = self.counts.ok or self._has_probed or error.type not in FAULTS_OF_CODE
        if hopeful or task.items <= PROBES or not self._retry.isolate_failures:
            return
        if not self.counts.planned_all and len(self._fresh) < PROBED_AHEAD:
            return  # one mini-batch, a bad file perhaps, tells nothing of the others
        self._has_probed = True
        self._probing = _Probing(error, PROBES)
        probed = [task, *self._fresh]
        ends = list(accumulate(part.items for part in probed))
        for number in range(PROBES):
            place = int(number * GOLDEN_SECTION % 1 * ends[-1])
            at = bisect_right(ends, place)
            part = probed[at]
            item = part.stop - (ends[at] - place)
            self._push(_Task(part.open, item, item + 1, is_probe=True))

    def _probe_failed(self, task: _Task, error: ErrorInfo) -> None:
        probing = self._probing
        if probing is None or not probing.confirms(error) or self.counts.ok:
            self._probing = None
            return
        mini_batch = task.open.mini_batch
        failure = FailedItem(task.start, *_place(mini_batch, task.start), attempt=1, error=error)
        first = probing.failure
        if first is None or (mini_batch.index, task.start) < (first[0], first[1].item):
            probing.failure = (mini_batch.index, failure)
        probing.left -= 1
        if not probing.left:
            self._first_failure = probing.failure
            self._finish(
                Reason.ALL_ITEMS_FAILED,
                f"Stopped early: nothing has succeeded, and {PROBES} items spread over a mini-batch, scored one by "
                "one, all failed with the same error. Mend the script, deploy it and retry the job.",
            )

    def _doubt(self, task: _Task, error: ErrorInfo, now: float) -> None:
        """Halve a part over which a worker was lost or time ran out, unless that is hopeless.

        A model that ends or hangs its process does so for every row, and halving would cost workers for each of them.
        So small parts of a key wait for the verdicts on the others of the key. Once one succeeds, they are halved;
        when none does, all of them fail. Either way the result does not depend on which worker was the first.
        """
        entry, key = task.open, task.open.key_of(task)
        if key is not None:
            self._progress_at = now  # there is an end to it: the key's rows get their verdict after a few of these
        is_small = key is not None and task.items * DOUBTFUL_SHARE <= key[1] - key[0]
        if key is None or not is_small or any(key[0] < part.stop and part.start < key[1] for part in entry.parts):
            self._divide(task, self._middle(task))
            return
        entry.doubtful.append(task)
        self._condemn(entry, key, error)
        self._commit_if_whole(entry)

    def _condemn(self, entry: _Open, key: tuple[int, int], error: ErrorInfo) -> None:
        """Fail the waiting parts of a key when nothing of it is left that could succeed."""
        tried = (task for task in self._live_tasks() if task.open is entry and not task.is_probe)
        if any(task.start < key[1] and key[0] < task.stop for task in tried):
            return
        doubted = [one for one in entry.doubtful if entry.key_of(one) == key]
        entry.doubtful = [one for one in entry.doubtful if entry.key_of(one) != key]
        for task in doubted:
            task.attempts += task.losses_before + task.losses
            self._fail_items(task, error)

    def _trust(self, entry: _Open, succeeded: _Task) -> None:
        """Halve the parts that waited for a success of their key."""
        waiting, entry.doubtful = entry.doubtful, []
        for task in waiting:
            first, last = entry.key_of(task) or (0, 0)
            if first < succeeded.stop and succeeded.start < last:
                self._divide(task, self._middle(task))
            else:
                entry.doubtful.append(task)

    def _middle(self, task: _Task) -> int:
        """Where a part is halved: between keys as long as it holds several, for the fault is one model's."""
        middle = (task.start + task.stop) // 2
        between = [bound for bound in task.open.bounds if task.start < bound < task.stop]
        return min(between, key=lambda bound: abs(bound - middle), default=middle)

    def _around(self, task: _Task, item: int | None) -> tuple[int, ...]:
        """Where to divide a failed part: around the item at fault when it is known, else in the middle."""
        if item is None or not task.start <= item < task.stop:
            return (self._middle(task),)
        return tuple(cut for cut in (item, item + 1) if task.start < cut < task.stop)

    def _between_files(self, task: _Task) -> tuple[int, ...]:
        """Where to divide a part that could not be read: it is no row that is at fault, but a file may be."""
        slices = task.open.mini_batch.slices
        begins = accumulate(piece.rows for piece in slices)
        cuts = [at for at, (one, next_) in zip(begins, pairwise(slices), strict=False) if one.file != next_.file]
        middle = (task.start + task.stop) // 2
        between = [at for at in cuts if task.start < at < task.stop]
        return (min(between, key=lambda at: abs(at - middle)),) if between else ()

    def _divide(self, task: _Task, *cuts: int) -> None:
        lost = task.losses_before + task.losses
        for start, stop in pairwise((task.start, *cuts, task.stop)):
            self._push(_Task(task.open, start, stop, task.attempts, 0, lost))

    def _fail_items(self, task: _Task, error: ErrorInfo, key: dict[str, object] | None = None) -> None:
        mini_batch = task.open.mini_batch
        failures = [
            FailedItem(item, *place, attempt=task.attempts, error=error, key=key or task.open.values_at(item))
            for item, place in enumerate(_places(mini_batch, task.start, task.stop), task.start)
        ]
        task.open.failures.extend(failures)
        task.open.left -= task.items
        if task.open.doubtful and (its_key := task.open.key_of(task)):
            self._condemn(task.open, its_key, error)
        self._count_verdicts(mini_batch.index, 0, failures)

    def _commit_if_whole(self, entry: _Open) -> None:
        if entry.left or entry.mini_batch.index not in self._open:
            return
        record = _record(entry)
        del self._open[record.mini_batch]
        self._committed[record.mini_batch] = record
        self._count_done(record)
        self._out.append(Commit(record))

    def _count_verdicts(
        self, index: int, ok: int, failures: list[FailedItem] | tuple[FailedItem, ...], *, count_missing: bool = True
    ) -> None:
        self.counts.ok += ok
        self.counts.failed += len(failures)
        for failure in failures:
            if count_missing and failure.error.type == MISSING_RESULT:
                self.counts.missing += 1
            first = self._first_failure
            if first is None or (index, failure.item) < (first[0], first[1].item):
                self._first_failure = (index, failure)

    def _count_kept(self, items: int, parts: list[Part]) -> None:
        kept = sum(part.ok for part in parts)
        self.counts.kept += kept
        self.counts.mini_batches_kept += 0 < items == kept

    def _count_done(self, record: Record) -> None:
        self.counts.mini_batches_done += 1
        self.counts.mini_batches_failed += record.failed > 0 and (self._counts_missing or _has_errors(record))

    @property
    def _counts_missing(self) -> bool:
        """Whether a mini-batch fails by missing results alone: not where none are collected and none are counted.

        Source: Azure ML's example of many models trains one for each mini-batch and returns nothing.
        """
        return self._needs_results or self._thresholds.items >= 0

    # ── giving out ──

    @property
    def _depth(self) -> int:
        """Parts that a worker holds at once: more when they are so short that it would wait for the driver."""
        mean = self._mean_seconds
        if mean is None or mean > 0.25:
            return 1
        return min(16, 2 + int(0.04 / mean)) if mean else 16

    def _hand_out(self, now: float) -> None:
        if not self._again and not self._fresh:
            return
        depth = self._depth
        takers = [
            (number, worker)
            for number, worker in self._workers.items()
            if worker.is_ready and len(worker.tasks) < depth and not worker.is_being_killed
        ]
        while takers:
            taker = number, worker = min(takers, key=_stock)
            task = self._pop()
            if task is None:
                return
            if not worker.tasks:
                worker.head_since = now
            self._next_task += 1
            task.id = self._next_task
            worker.tasks.append(task)
            self._out.append(Score(number, task.id, task.open.mini_batch, task.start, task.stop, task.attempts + 1))
            if len(worker.tasks) >= depth:
                takers.remove(taker)

    def _push(self, task: _Task) -> None:
        heapq.heappush(self._again, (task.order, task))

    def _pop(self) -> _Task | None:
        while self._again:
            task = heapq.heappop(self._again)[1]
            if not task.is_probe or self._probing is not None:
                return task
        return self._fresh.popleft() if self._fresh else None

    def _start_workers(self, now: float) -> None:
        """Start as many workers as there are parts without one, as far as there are slots."""
        if len(self._workers) == self._slots:
            return
        starting = sum(not worker.is_ready for worker in self._workers.values())
        idle = sum(worker.is_ready and not worker.tasks for worker in self._workers.values())
        needed = len(self._again) + len(self._fresh) - starting - idle
        if not self._workers and (not self.counts.planned_all or self._open):
            needed = max(needed, 1)
        for _ in range(min(needed, self._slots - len(self._workers))):
            self._start_worker(now)

    def _start_worker(self, now: float) -> None:
        taken = {worker.slot for worker in self._workers.values()}
        slot = next(slot for slot in range(self._slots) if slot not in taken)
        self._workers[self._next_worker] = _Worker(slot, now)
        self._out.append(StartWorker(self._next_worker, slot))
        self._next_worker += 1

    # ── time and the end ──

    @property
    def _time_limit(self) -> float:
        return self._retry.timeout + self._retry.task_overhead_timeout

    @property
    def _progress_limit(self) -> float:
        """One item that hangs each time must not end the run, hence the default's ``2 + max_retries``."""
        return self._retry.progress_update_timeout or max(3, 2 + self._retry.max_retries) * self._time_limit

    def _on_time(self, _event: TimePassed, now: float) -> None:
        for number, worker in self._workers.items():
            is_late = now - worker.head_since >= self._time_limit and now >= worker.challenger_until
            if worker.tasks and not worker.is_being_killed and is_late:
                worker.is_being_killed = True
                self._out.append(KillWorker(number))
        if not self._open and self._ever_ready:
            self._progress_at = now  # it is the plan that is waited for
        limit = self._progress_limit if self._ever_ready else max(self._progress_limit, STARTING_LIMIT)
        if now - self._progress_at >= limit:
            what = "No item was finished" if self._ever_ready else "No worker became ready"
            message = f"{what} in {limit:g} seconds. See logs/user/stdout and logs/user/error, or raise the time-outs."
            self._finish(Reason.NO_PROGRESS, message)

    def _on_cancel(self, _event: CancelRequested, _now: float) -> None:
        self._finish(Reason.CANCELED_BY_USER, "The job was canceled.")

    def _check_thresholds(self) -> None:
        counts, allowed = self.counts, self._thresholds
        if 0 <= allowed.items < counts.failed:
            self._exceeded(f"{counts.failed} items failed; the job allows {allowed.items}.")
        elif 0 <= allowed.mini_batches < counts.mini_batches_failed:
            self._exceeded(f"{counts.mini_batches_failed} mini-batches failed; the job allows {allowed.mini_batches}.")
        elif counts.planned_all and counts.mini_batches_failed:
            percent = 100 * counts.mini_batches_failed / counts.mini_batches_planned
            if percent > allowed.percent:
                self._exceeded(f"{percent:.1f} % of the mini-batches failed; the job allows {allowed.percent:g} %.")

    def _exceeded(self, what: str) -> None:
        self._finish(Reason.ERROR_THRESHOLD_EXCEEDED, f"Exceeded error threshold. {what}")

    def _check_end(self) -> None:
        counts = self.counts
        if not counts.planned_all or self._open:
            return
        # Items for which run() returned nothing have not failed where nothing is collected.
        has_succeeded = counts.ok or (counts.missing and not self._needs_results)
        if counts.failed and not has_succeeded:
            self._finish(Reason.ALL_ITEMS_FAILED, f"All items failed: {counts.failed} of {counts.planned_items}.")
        else:
            self._finish(Reason.COMPLETED)

    def _finish(self, reason: Reason, message: str = "", error: ErrorInfo | None = None) -> None:
        failure = self.first_failure if reason.status.value == "failed" and error is None else None
        self.finished = Finish(reason, message, failure, error)
        self._out.append(self.finished)


def _stock(entry: tuple[int, _Worker]) -> int:
    return len(entry[1].tasks)


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _names(mini_batch: MiniBatch) -> Iterator[str]:
    yield from (file.name for file in mini_batch.files)
    yield from (piece.file.name for piece in mini_batch.slices)


def _is_same(record: Record, mini_batch: MiniBatch) -> bool:
    return record.items == mini_batch.items and set(record.files) == set(_names(mini_batch))


def _place(mini_batch: MiniBatch, item: int) -> tuple[str, int | None]:
    """File of an item, and its row within the file when items are rows."""
    return next(_places(mini_batch, item, item + 1))


def _places(mini_batch: MiniBatch, start: int, stop: int) -> Iterator[tuple[str, int | None]]:
    """File of each of the items ``start`` to ``stop``, and its row within the file when items are rows."""
    if mini_batch.unreadable is not None or mini_batch.unit == "files":
        yield from ((file.name, None) for file in mini_batch.files[start:stop])
        return
    begin = 0
    for piece in mini_batch.slices:
        first, last = max(start - begin, 0), min(stop - begin, piece.rows)
        if first < last:
            yield from ((piece.file.name, row) for row in piece.row_numbers(first, last))
        begin += piece.rows


def _whole_parts(record: Record) -> list[Part]:
    """The parts of an earlier run of which every item has its result: they are not scored again."""
    return [part for part in record.parts if part.missing == () and part.ok == part.stop - part.start]


def _has_errors(record: Record) -> bool:
    return any(failure.error.type != MISSING_RESULT for failure in record.failures)


def _missing_results(task: _Task, part: Part) -> list[FailedItem]:
    """The items without a result as failed items; nameless ones when only their number is known."""
    mini_batch, attempt = task.open.mini_batch, task.attempts + 1
    short = task.items - part.ok
    said = f"run() returned {part.rows} results for {task.items} items"
    if part.missing is not None and len(part.missing) == short:
        error = ErrorInfo(MISSING_RESULT, f"{said}, and none for this one.")
        return [
            FailedItem(item, *_place(mini_batch, item), attempt=attempt, error=error) for item in sorted(part.missing)
        ]
    error = ErrorInfo(MISSING_RESULT, f"{said}; which ones have none is not known.")
    file = _place(mini_batch, task.start)[0]
    only = file if _place(mini_batch, task.stop - 1)[0] == file else None
    return [FailedItem(-1, only, None, attempt=attempt, error=error)] * short


def _failed_by_models(task: _Task, models: ModelOutcomes) -> list[FailedItem]:
    mini_batch, attempt = task.open.mini_batch, task.attempts + 1
    return [
        FailedItem(span.start + at, *place, attempt=attempt, error=span.error, key=span.key)
        for span in models.failed
        for at, place in enumerate(_places(mini_batch, span.start, span.stop))
    ]


def _record(entry: _Open) -> Record:
    mini_batch, failures = entry.mini_batch, entry.failures
    parts = entry.parts
    if len(parts) > 1:
        parts.sort(key=lambda part: part.start)
    failures.sort(key=lambda failure: failure.item)
    items = mini_batch.items
    return Record(
        mini_batch=mini_batch.index,
        items=items,
        ok=items - len(failures) - sum(part.models.skipped_items for part in parts if part.models is not None),
        failed=len(failures),
        parts=tuple(parts),
        failures=tuple(failures),
        files=_by_file(entry),
    )


def _by_file(entry: _Open) -> dict[str, tuple[int, int, int]]:
    """Items, ok and failed of each file. Failures without a name go to the last files of the mini-batch."""
    mini_batch = entry.mini_batch
    items: dict[str, int] = {}
    if mini_batch.unreadable is not None or mini_batch.unit == "files":
        for file in mini_batch.files:
            items[file.name] = items.get(file.name, 0) + 1
    else:
        for piece in mini_batch.slices:
            items[piece.file.name] = items.get(piece.file.name, 0) + piece.rows
    skipped = [span for part in entry.parts if part.models is not None for span in part.models.skipped]
    if not entry.failures and not skipped:
        return {name: (number, number, 0) for name, number in items.items()}
    failed = dict.fromkeys(items, 0)
    left_out = dict.fromkeys(items, 0)
    nameless = 0
    for failure in entry.failures:
        if failure.item < 0 and failure.file is None:
            nameless += 1
        else:
            failed[str(failure.file)] += 1
    for name in reversed(items):
        taken = min(nameless, items[name] - failed[name])
        failed[name] += taken
        nameless -= taken
    for span in skipped:
        for name, _ in _places(mini_batch, span.start, span.stop):
            left_out[name] += 1
    return {name: (number, number - failed[name] - left_out[name], failed[name]) for name, number in items.items()}
