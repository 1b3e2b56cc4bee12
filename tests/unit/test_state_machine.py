"""Stimulus → instructions. No process, no clock: the tests say what time it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

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
from batchpoint.scoring.ledger import Part, Record, as_seen_from_elsewhere
from batchpoint.scoring.mini_batches import ErrorInfo, InputFile, KeySpan, MiniBatch, Slice
from batchpoint.scoring.spec import RetrySpec, ThresholdSpec
from batchpoint.scoring.state_machine import StateMachine

BOOM = ErrorInfo("ValueError", "boom", "Traceback…")


def files(index: int, count: int = 1) -> MiniBatch:
    names = [f"{index}-{number}.txt" for number in range(count)]
    return MiniBatch(index, "files", tuple(InputFile(name, f"/in/{name}", 1) for name in names))


def rows(index: int, *counts: int, first: int = 0) -> MiniBatch:
    slices = []
    for number, count in enumerate(counts):
        file = InputFile(f"{index}-{number}.csv", f"/in/{index}-{number}.csv", 100)
        slices.append(Slice(file, "csv", 0, 100, first, count))
    return MiniBatch(index, "rows", slices=tuple(slices))


def machine(
    *, retry: RetrySpec | None = None, thresholds: ThresholdSpec | None = None, **options: object
) -> StateMachine:
    return StateMachine(retry=retry or RetrySpec(), thresholds=thresholds or ThresholdSpec(), **options)  # type: ignore[arg-type]  # options are named by each test


class Play:
    """A machine, and workers that answer at once: ``verdict`` says what ``run()`` does with a part."""

    def __init__(self, made: StateMachine, verdict: Callable[[Score], str] = lambda _: "ok") -> None:
        self.machine, self.verdict = made, verdict
        self.now = 0.0
        self.records: list[Record] = []
        self.given: list[Score] = []
        self.lost = 0

    def run(self, mini_batches: Iterable[MiniBatch], limit: int = 100_000) -> Finish:
        events: list[Event] = [RunStarted(), *map(MiniBatchPlanned, mini_batches), PlanEnded()]
        for _ in range(limit):
            if not events:
                break
            for instruction in self.tell(events.pop(0)):
                events += self.answer(instruction)
        assert self.machine.finished is not None, "the run never ends"
        return self.machine.finished

    def tell(self, event: Event) -> list[Instruction]:
        self.now += 0.001
        out = self.machine.handle(event, self.now)
        self.machine.check_invariants()
        return out

    def answer(self, instruction: Instruction) -> list[Event]:
        match instruction:
            case StartWorker(worker):
                return [WorkerReady(worker)]
            case Commit(record):
                self.records.append(record)
            case Score(worker, task, _, start, stop):
                self.given.append(instruction)
                match self.verdict(instruction):
                    case "ok":
                        return [PartSucceeded(worker, task, f"s{worker}", 0, 1, stop - start, stop - start)]
                    case "lost":
                        return [WorkerLost(worker, "signal 11")]
                    case "hang":
                        self.now += 61
                        return [TimePassed()]
                    case "unread":
                        gone = ErrorInfo("FileNotFoundError", "No such file or directory")
                        return [PartFailed(worker, task, gone, is_unread=True)]
                    case error:
                        kind, _, message = error.rpartition(": ")
                        return [PartFailed(worker, task, ErrorInfo(kind or "ValueError", message))]
            case KillWorker(worker):
                return [WorkerKilled(worker, "the stack")]
            case _:
                pass
        return []

    def failed(self) -> list[tuple[str | None, int | None, int, str]]:
        return [
            (failure.file, failure.row, failure.attempt, failure.error.type)
            for record in sorted(self.records, key=lambda record: record.mini_batch)
            for failure in record.failures
        ]


def bad_row(row: int, how: str = "bad") -> Callable[[Score], str]:
    return lambda score: how if score.start <= row < score.stop else "ok"


def test_a_clean_run_commits_every_mini_batch_once_and_completes() -> None:
    play = Play(machine(processes_per_instance=2))
    assert play.run(files(index, 3) for index in range(7)).reason is Reason.COMPLETED
    assert sorted(record.mini_batch for record in play.records) == list(range(7))
    assert play.machine.counts.ok == 21


def test_one_bad_row_is_found_by_halving_and_the_rest_is_kept() -> None:
    play = Play(machine(), bad_row(37))
    assert play.run([rows(0, 60, 40, first=1000)]).reason is Reason.COMPLETED
    assert play.failed() == [("0-0.csv", 1037, 7, "ValueError")]
    (record,) = play.records
    assert (record.ok, record.failed) == (99, 1)
    assert record.files == {"0-0.csv": (60, 59, 1), "0-1.csv": (40, 40, 0)}
    assert [part.start for part in record.parts] == sorted(part.start for part in record.parts)


def test_an_error_that_names_its_row_leaves_nothing_to_search_for() -> None:
    made = machine(retry=RetrySpec(max_retries=0))
    for event in (RunStarted(), MiniBatchPlanned(rows(0, 1_000)), PlanEnded()):
        made.handle(event, 0)
    (first,) = [one for one in made.handle(WorkerReady(0), 0) if isinstance(one, Score)]
    given = made.handle(PartFailed(0, first.id, BOOM, item=700), 1)
    made.check_invariants()
    for at in (2, 3):
        last = [one for one in given if isinstance(one, Score)][-1]
        size = last.stop - last.start
        given += made.handle(PartSucceeded(0, last.id, "s", 0, 1, size, size), at)
    assert [(one.start, one.stop) for one in given if isinstance(one, Score)] == [(0, 700), (700, 701), (701, 1_000)]


def test_a_bad_file_is_tried_one_time_more_than_it_may_be_tried_again() -> None:
    play = Play(machine(retry=RetrySpec(max_retries=3)), lambda _: "bad")
    finish = play.run([files(0)])
    assert len(play.given) == 4
    assert [score.attempt for score in play.given] == [1, 2, 3, 4]
    assert play.failed() == [("0-0.txt", None, 4, "ValueError")]
    assert finish.reason is Reason.ALL_ITEMS_FAILED
    assert finish.failure is not None
    assert finish.failure.file == "0-0.txt"


def test_without_isolation_a_part_is_tried_again_whole_and_then_all_its_items_fail() -> None:
    play = Play(machine(retry=RetrySpec(max_retries=1, isolate_failures=False)), bad_row(1))
    play.run([files(0, 3), files(1, 1)])
    assert [(score.start, score.stop) for score in play.given if score.mini_batch.index == 0] == [(0, 3), (0, 3)]
    assert [file for file, *_ in play.failed()] == ["0-0.txt", "0-1.txt", "0-2.txt"]


def test_a_part_that_cannot_be_read_is_tried_again_whole_and_then_each_of_its_rows_is_named() -> None:
    play = Play(
        machine(retry=RetrySpec(max_retries=2)), lambda score: "unread" if score.mini_batch.index == 1 else "ok"
    )
    assert play.run([rows(0, 40), rows(1, 40, first=100), rows(2, 40)]).reason is Reason.COMPLETED
    assert [(score.start, score.stop) for score in play.given if score.mini_batch.index == 1] == [(0, 40)] * 3
    assert play.failed() == [("1-0.csv", row, 3, "FileNotFoundError") for row in range(100, 140)]
    assert (play.machine.counts.ok, play.machine.counts.failed) == (80, 40)


def test_of_a_part_with_several_files_only_those_that_cannot_be_read_fail() -> None:
    unread = bad_row(45, "unread")
    play = Play(machine(retry=RetrySpec(max_retries=3)), unread)
    assert play.run([rows(0, 10, 10, 10, 20, 10)]).reason is Reason.COMPLETED
    assert play.failed() == [("0-3.csv", row, 4, "FileNotFoundError") for row in range(20)]
    assert [(score.start, score.stop) for score in play.given if unread(score) == "unread"] == [
        (0, 60), (30, 60), (30, 50), (30, 50),
    ]  # fmt: skip


def test_runs_of_rows_of_one_file_that_cannot_be_read_are_not_told_apart() -> None:
    (piece,) = rows(0, 10).slices
    spans = tuple(KeySpan((("store", str(number)),), None, 10) for number in range(3))
    mini_batch = MiniBatch(0, "rows", slices=(piece,) * 3, spans=spans)
    play = Play(machine(retry=RetrySpec(max_retries=0)), lambda _: "unread")
    play.run([mini_batch])
    assert [(score.start, score.stop) for score in play.given] == [(0, 30)]
    assert [failure.key for failure in play.records[0].failures[::10]] == [
        {"store": str(number)} for number in range(3)
    ]


def test_a_part_that_can_be_read_the_second_time_leaves_no_failure() -> None:
    play = Play(machine(), lambda score: "unread" if score.attempt == 1 else "ok")
    assert play.run([rows(0, 40)]).reason is Reason.COMPLETED
    assert (play.failed(), len(play.given)) == ([], 2)


def test_a_flaky_part_that_succeeds_later_leaves_no_failure() -> None:
    seen: list[int] = []
    play = Play(machine(), lambda score: "bad" if not seen and not seen.append(score.id) else "ok")  # type: ignore[func-returns-value]  # append marks the first call
    assert play.run([files(0, 4)]).reason is Reason.COMPLETED
    assert play.failed() == []


def test_a_lost_worker_is_replaced_and_its_part_given_to_another_without_counting_as_a_failure() -> None:
    losses = iter(["lost", "lost", "lost"])
    play = Play(machine(), lambda _: next(losses, "ok"))
    assert play.run([files(0, 4)]).reason is Reason.COMPLETED
    assert play.machine.counts.worker_losses == 3
    assert play.failed() == []
    assert {(score.start, score.stop) for score in play.given} == {(0, 4)}


def test_an_item_that_kills_its_worker_each_time_fails_as_worker_lost_and_the_others_are_kept() -> None:
    play = Play(machine(retry=RetrySpec(max_worker_losses=1)), bad_row(2, "lost"))
    assert play.run([files(0, 4)]).reason is Reason.COMPLETED
    assert play.failed() == [("0-2.txt", None, 6, "WorkerLost")]
    assert play.records[0].ok == 3


def keyed(index: int, *counts: int) -> MiniBatch:
    """A mini-batch of a model map: so many rows for each key."""
    spans = tuple(KeySpan((("k", str(at)),), None, count) for at, count in enumerate(counts))
    return replace(rows(index, sum(counts)), spans=spans)


@pytest.mark.parametrize("how", ["lost", "hang"])
def test_a_model_that_ends_or_hangs_its_worker_for_every_row_costs_a_few_workers_and_its_own_key(how: str) -> None:
    def verdict(score: Score) -> str:
        return how if score.start < 11_000 and score.stop > 1_000 else "ok"

    play = Play(machine(processes_per_instance=2), verdict)
    assert play.run([keyed(0, 400, 600, 10_000, 17, 300)]).reason is Reason.COMPLETED
    assert [row for _, row, _, _ in sorted(play.failed())] == list(range(1_000, 11_000))
    assert play.machine.counts.ok == 1_317
    assert {str(failure.key) for record in play.records for failure in record.failures} == {"{'k': '2'}"}
    assert play.machine.counts.worker_losses + play.machine.counts.timeouts < 100


@pytest.mark.parametrize("count", [1, 2, 9, 16, 17, 23, 1_000])
@pytest.mark.parametrize("how", ["lost", "hang"])
def test_a_key_of_any_size_whose_model_ends_or_hangs_its_worker_fails_whole(count: int, how: str) -> None:
    play = Play(machine(processes_per_instance=3), lambda score: how if score.stop > 50 else "ok")
    assert play.run([keyed(0, 50, count)]).reason is Reason.COMPLETED
    assert [row for _, row, _, _ in sorted(play.failed())] == list(range(50, 50 + count))


@pytest.mark.parametrize("seed", range(5))
def test_single_rows_that_end_their_worker_are_found_in_a_key_whatever_the_number_of_workers(seed: int) -> None:
    bad = set(random.Random(seed).sample(range(100, 1_100), 5))

    def verdict(score: Score) -> str:
        return "lost" if bad & set(range(score.start, score.stop)) else "ok"

    for workers in (1, 2, 4):
        play = Play(machine(processes_per_instance=workers), verdict)
        play.run([keyed(0, 100, 1_000, 50)])
        assert {row for _, row, _, _ in play.failed()} == bad


def test_what_a_lost_worker_only_had_in_stock_loses_nothing() -> None:
    made = machine(retry=RetrySpec(max_worker_losses=0))
    made.handle(RunStarted(), 0)
    for index in range(4):
        made.handle(MiniBatchPlanned(files(index)), 0)
    (first,) = [i for i in made.handle(WorkerReady(0), 0) if isinstance(i, Score)]
    out = made.handle(PartSucceeded(0, first.id, "s", 0, 1, 1, 1), 0.001)
    stock = [i for i in out if isinstance(i, Score)]
    assert len(stock) == 3, "short parts are given ahead"
    out = made.handle(WorkerLost(0, "signal 9"), 0.002)
    failed = [i.record for i in out if isinstance(i, Commit)]
    assert [record.mini_batch for record in failed] == [1]
    (start,) = [i for i in out if isinstance(i, StartWorker)]
    again = [i for i in made.handle(WorkerReady(start.worker), 0.003) if isinstance(i, Score)]
    assert [(score.mini_batch.index, score.attempt) for score in again][:2] == [(2, 1), (3, 1)]


def test_a_part_that_takes_too_long_has_its_worker_killed_and_counts_as_an_attempt() -> None:
    play = Play(machine(retry=RetrySpec(max_retries=1)), bad_row(1, "hang"))
    assert play.run([files(0, 2)]).reason is Reason.COMPLETED
    ((file, _, attempt, kind),) = play.failed()
    assert (file, attempt, kind) == ("0-1.txt", 2, "MiniBatchTimeout")
    assert play.records[0].failures[0].error.traceback == "the stack"
    assert play.machine.counts.timeouts == 2


def test_the_time_of_the_challenger_is_not_counted_as_the_champions() -> None:
    made = machine(retry=RetrySpec(timeout=10, task_overhead_timeout=0, progress_update_timeout=15))
    made.handle(RunStarted(), 0)
    made.handle(WorkerReady(0), 0)
    made.handle(MiniBatchPlanned(files(0)), 0)
    made.handle(MiniBatchPlanned(files(1)), 0)
    assert made.handle(ChampionDone(0, 1, within=100), 5) == []
    assert made.handle(TimePassed(), 90) == []
    made.handle(PartSucceeded(0, 1, "s", 0, 0, 1, 1), 95)
    assert KillWorker(0) not in made.handle(TimePassed(), 104), "the next part has all of its time"
    assert KillWorker(0) in made.handle(TimePassed(), 106)


def test_the_time_limit_counts_for_the_part_being_run_and_not_for_those_in_stock() -> None:
    made = machine(retry=RetrySpec(timeout=10, task_overhead_timeout=0))
    made.handle(RunStarted(), 0)
    for index in range(5):
        made.handle(MiniBatchPlanned(files(index)), 0)
    made.handle(WorkerReady(0), 0)
    made.handle(PartSucceeded(0, 1, "s", 0, 1, 1, 1), 0.001)
    assert made.handle(TimePassed(), 9.9) == []
    made.handle(PartSucceeded(0, 2, "s", 0, 1, 1, 1), 9.95)
    assert made.handle(TimePassed(), 19.9) == []
    assert made.handle(TimePassed(), 19.96) == [KillWorker(0)]
    assert made.handle(PartSucceeded(0, 3, "s", 0, 1, 1, 1), 19.97) == [], "a worker being killed is not listened to"


@pytest.mark.parametrize(
    ("thresholds", "bad", "reason"),
    [
        (ThresholdSpec(items=2), 3, Reason.ERROR_THRESHOLD_EXCEEDED),
        (ThresholdSpec(items=3), 3, Reason.COMPLETED),
        (ThresholdSpec(mini_batches=2), 3, Reason.ERROR_THRESHOLD_EXCEEDED),
        (ThresholdSpec(mini_batches=3), 3, Reason.COMPLETED),
        (ThresholdSpec(percent=29), 3, Reason.ERROR_THRESHOLD_EXCEEDED),
        (ThresholdSpec(percent=30), 3, Reason.COMPLETED),
    ],
)
def test_any_threshold_that_is_exceeded_ends_the_run(thresholds: ThresholdSpec, bad: int, reason: Reason) -> None:
    play = Play(machine(thresholds=thresholds), lambda score: "bad" if score.mini_batch.index < bad else "ok")
    finish = play.run(files(index) for index in range(10))
    assert finish.reason is reason
    if reason is not Reason.COMPLETED:
        assert "Exceeded error threshold" in finish.message
        assert play.tell(TimePassed()) == []


def test_percent_is_not_looked_at_before_everything_is_planned() -> None:
    made = machine(thresholds=ThresholdSpec(percent=50), retry=RetrySpec(max_retries=0))
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(files(0)), 0)
    made.handle(WorkerReady(0), 0)
    made.handle(PartFailed(0, 1, BOOM), 0)
    assert made.finished is None
    made.handle(MiniBatchPlanned(files(1)), 0)
    made.handle(PartSucceeded(0, 2, "s", 0, 1, 1, 1), 0)
    made.handle(PlanEnded(), 0)
    assert made.finished is not None
    assert made.finished.reason is Reason.COMPLETED


def test_every_item_failed_is_failed_although_any_number_may_fail() -> None:
    play = Play(machine(), lambda _: "bad")
    finish = play.run([files(0, 2), files(1, 2)])
    assert finish.reason is Reason.ALL_ITEMS_FAILED
    assert len(play.failed()) == 4


def test_a_script_that_is_at_fault_itself_ends_the_run_after_a_few_calls_instead_of_halving_on() -> None:
    play = Play(machine(), lambda _: "NameError: name 'modle' is not defined")
    finish = play.run([rows(0, 1_000), rows(1, 1_000)])
    assert finish.reason is Reason.ALL_ITEMS_FAILED
    assert finish.failure is not None
    assert (finish.failure.file, finish.failure.row, finish.failure.error.type) == ("0-0.csv", 0, "NameError")
    assert len(play.given) < 60
    assert play.records == []


@pytest.mark.parametrize("remainder", [0, 3, 6])
def test_looking_whether_anything_can_succeed_changes_nothing_when_something_does(remainder: int) -> None:
    def verdict(score: Score) -> str:
        alone = score.stop - score.start == 1
        return "ok" if alone and score.start % 7 == remainder else "KeyError: 'kind'"

    play = Play(machine(retry=RetrySpec(max_retries=0)), verdict)
    assert play.run([rows(0, 210)]).reason is Reason.COMPLETED
    (record,) = play.records
    assert (record.ok, record.failed) == (30, 180)
    assert [part.start for part in record.parts] == list(range(remainder, 210, 7))


def test_a_short_result_is_not_tried_again_and_names_the_missing_items_when_they_are_known() -> None:
    made = machine()
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(files(0, 3)), 0)
    made.handle(WorkerReady(0), 0)
    (commit,) = [i for i in made.handle(PartSucceeded(0, 1, "s", 0, 1, 2, 2, missing=(1,)), 0) if isinstance(i, Commit)]
    (failure,) = commit.record.failures
    assert (failure.item, failure.file, failure.attempt, failure.error.type) == (1, "0-1.txt", 1, "MissingResult")
    assert commit.record.files == {"0-0.txt": (1, 1, 0), "0-1.txt": (1, 0, 1), "0-2.txt": (1, 1, 0)}


def test_a_short_result_of_unknown_items_counts_their_number_and_still_adds_up_by_file() -> None:
    made = machine()
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(rows(0, 3, 2)), 0)
    made.handle(WorkerReady(0), 0)
    out = made.handle(PartSucceeded(0, 1, "s", 0, 1, 1, 1, missing=None), 0)
    (record,) = [i.record for i in out if isinstance(i, Commit)]
    assert [failure.item for failure in record.failures] == [-1] * 4
    assert record.files == {"0-0.csv": (3, 1, 2), "0-1.csv": (2, 0, 2)}
    assert (record.ok, record.failed) == (1, 4)


def test_summary_only_may_return_nothing_at_all() -> None:
    for needs_results, reason in ((False, Reason.COMPLETED), (True, Reason.ALL_ITEMS_FAILED)):
        made = machine(needs_results=needs_results)
        made.handle(RunStarted(), 0)
        made.handle(MiniBatchPlanned(files(0)), 0)
        made.handle(PlanEnded(), 0)
        made.handle(WorkerReady(0), 0)
        made.handle(PartSucceeded(0, 1, "s", 0, 0, 0, 0, missing=(0,)), 0)
        assert made.finished is not None
        assert made.finished.reason is reason


@pytest.mark.parametrize(("needs_results", "reason"), [(False, Reason.COMPLETED), (True, Reason.ALL_ITEMS_FAILED)])
def test_a_job_has_not_failed_because_one_mini_batch_did_and_the_others_returned_nothing(
    needs_results: bool, reason: Reason
) -> None:
    thresholds = ThresholdSpec(mini_batches=2)
    made = machine(needs_results=needs_results, retry=RetrySpec(max_retries=0), thresholds=thresholds)
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(files(0)), 0)
    made.handle(MiniBatchPlanned(files(1)), 0)
    made.handle(PlanEnded(), 0)
    made.handle(WorkerReady(0), 0)
    made.handle(PartSucceeded(0, 1, "s", 0, 0, 0, 0, missing=(0,)), 0)
    made.handle(PartFailed(0, 2, BOOM), 0)
    assert made.finished is not None
    assert made.finished.reason is reason


@pytest.mark.parametrize(
    ("needs_results", "allowed", "reason"),
    [
        (False, ThresholdSpec(mini_batches=0), Reason.COMPLETED),
        (False, ThresholdSpec(mini_batches=0, items=5), Reason.ERROR_THRESHOLD_EXCEEDED),
        (True, ThresholdSpec(mini_batches=0), Reason.ERROR_THRESHOLD_EXCEEDED),
    ],
)
def test_a_mini_batch_without_results_has_failed_where_results_are_collected_or_counted(
    needs_results: bool, allowed: ThresholdSpec, reason: Reason
) -> None:
    made = machine(needs_results=needs_results, thresholds=allowed)
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(files(0)), 0)
    made.handle(PlanEnded(), 0)
    made.handle(WorkerReady(0), 0)
    made.handle(PartSucceeded(0, 1, "s", 0, 0, 0, 0, missing=(0,)), 0)
    assert made.finished is not None
    assert made.finished.reason is reason


def test_an_unreadable_file_fails_at_once_without_a_worker() -> None:
    broken = MiniBatch(1, "rows", (InputFile("b.parquet", "/b", 1),), unreadable=ErrorInfo("ArrowInvalid", "cut short"))
    play = Play(machine())
    assert play.run([rows(0, 5), broken]).reason is Reason.COMPLETED
    assert play.failed() == [("b.parquet", None, 0, "ArrowInvalid")]
    assert all(score.mini_batch.index == 0 for score in play.given)


def test_an_init_that_always_fails_ends_the_run_with_its_own_traceback() -> None:
    made = machine(processes_per_instance=2)
    out = made.handle(RunStarted(), 0)
    for index in range(4):
        out += made.handle(MiniBatchPlanned(files(index)), 0)
    starts = 0
    while made.finished is None:
        start = next(i for i in out if isinstance(i, StartWorker))
        out.remove(start)
        starts += 1
        out += made.handle(WorkerInitFailed(start.worker, BOOM), 0)
        made.check_invariants()
    assert starts == 6
    assert made.finished.reason is Reason.SCORING_SCRIPT_FAILED
    assert made.finished.error == BOOM


def test_a_worker_that_dies_before_it_is_ready_counts_as_a_failed_start() -> None:
    made = machine()
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(files(0)), 0)
    for worker in range(3):
        assert made.finished is None
        made.handle(WorkerLost(worker, "signal 11"), 0)
    assert made.finished is not None
    assert made.finished.reason is Reason.WORKERS_LOST
    assert made.counts.worker_losses == 0


def test_no_more_workers_are_started_than_there_is_work_for() -> None:
    made = machine(instances=2, processes_per_instance=4)
    assert made.handle(RunStarted(), 0) == [StartWorker(0, 0)], "one starts before anything is planned"
    assert made.handle(MiniBatchPlanned(files(0)), 0) == []
    assert made.handle(MiniBatchPlanned(files(1)), 0) == [StartWorker(1, 1)]


def test_a_run_without_progress_ends() -> None:
    made = machine(retry=RetrySpec(progress_update_timeout=100, timeout=1000))
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(files(0)), 0)
    made.handle(WorkerReady(0), 50)
    assert made.handle(TimePassed(), 149) == []
    (finish,) = made.handle(TimePassed(), 150)
    assert isinstance(finish, Finish)
    assert finish.reason is Reason.NO_PROGRESS


def test_waiting_for_the_plan_is_not_a_lack_of_progress() -> None:
    made = machine(retry=RetrySpec(progress_update_timeout=1))
    made.handle(RunStarted(), 0)
    made.handle(WorkerReady(0), 0)
    assert made.handle(TimePassed(), 10_000) == []


def test_a_full_disk_ends_the_run_and_blames_no_item() -> None:
    made = machine()
    made.handle(RunStarted(), 0)
    made.handle(MiniBatchPlanned(files(0)), 0)
    made.handle(WorkerReady(0), 0)
    (finish,) = made.handle(PartFailed(0, 1, ErrorInfo("DiskFull", "No space left on device")), 0)
    assert isinstance(finish, Finish)
    assert finish.reason is Reason.OUTPUT_FAILED
    assert made.counts.failed == 0


def test_cancel_ends_the_run_at_once() -> None:
    made = machine()
    made.handle(RunStarted(), 0)
    (finish,) = made.handle(CancelRequested(), 0)
    assert isinstance(finish, Finish)
    assert finish.reason is Reason.CANCELED_BY_USER


def test_a_resumed_run_scores_only_what_is_not_committed_and_counts_the_rest() -> None:
    first = Play(machine(), bad_row(0))
    first.run(files(index, 2) for index in range(4))
    kept = {record.mini_batch: record for record in first.records if record.mini_batch != 2}
    second = Play(machine(committed=kept), bad_row(0))
    assert second.run(files(index, 2) for index in range(4)).reason is Reason.COMPLETED
    assert [record.mini_batch for record in second.records] == [2]
    assert second.records[0].failures == next(r.failures for r in first.records if r.mini_batch == 2)
    assert second.machine.counts.failed == 4
    assert second.machine.counts.mini_batches_done == 4


def test_a_resumed_run_whose_input_has_changed_says_so() -> None:
    first = Play(machine())
    first.run([files(0, 2)])
    play = Play(machine(committed={0: first.records[0]}))
    finish = play.run([files(0, 3)])
    assert finish.reason is Reason.INPUT_UNAVAILABLE
    assert "changed" in finish.message


def test_scoring_failed_items_again_keeps_the_old_rows_and_scores_only_the_gaps() -> None:
    first = Play(machine(), lambda score: "bad" if any(score.start <= at < score.stop for at in (2, 5)) else "ok")
    first.run([rows(0, 8), rows(1, 8)])
    old = {record.mini_batch: as_seen_from_elsewhere(record, "/old") for record in first.records}
    del old[1]
    again = Play(machine(previous=old))
    assert again.run([rows(0, 8), rows(1, 8)]).reason is Reason.COMPLETED
    scored = [(score.mini_batch.index, score.start, score.stop) for score in again.given]
    assert sorted(scored) == [(0, 2, 3), (0, 5, 6), (1, 0, 8)]
    merged = next(record for record in again.records if record.mini_batch == 0)
    assert (merged.ok, merged.failed) == (8, 0)
    assert [(part.start, part.stop) for part in merged.parts] == sorted(
        (part.start, part.stop) for part in merged.parts
    )
    assert sum(part.segment.startswith("/old/segments/") for part in merged.parts) == len(merged.parts) - 2


def test_a_part_with_missing_results_is_scored_again_whole() -> None:
    part = Part(0, 4, "s", 0, 9, 3, 3, "csv", missing=None)
    old = Record(0, 4, 3, 1, (part,), (), {"0-0.csv": (4, 3, 1)})
    again = Play(machine(previous={0: old}))
    again.run([rows(0, 4)])
    assert [(score.start, score.stop) for score in again.given] == [(0, 4)]


def test_what_is_not_scored_again_is_counted_as_kept_also_after_an_interruption() -> None:
    first = Play(machine(), bad_row(2))
    first.run([rows(0, 8), rows(1, 2), rows(2, 8)])
    old = {record.mini_batch: as_seen_from_elsewhere(record, "/old") for record in first.records}
    again = Play(machine(previous=old), bad_row(2))
    again.run([rows(0, 8), rows(1, 2), rows(2, 8)])
    counts = again.machine.counts
    assert (counts.ok, counts.kept) == (16, 16)
    assert (counts.mini_batches_done, counts.mini_batches_kept) == (3, 1)
    half = {record.mini_batch: record for record in again.records if record.mini_batch < 2}
    resumed = Play(machine(previous=old, committed=half))
    resumed.run([rows(0, 8), rows(1, 2), rows(2, 8)])
    counts = resumed.machine.counts
    assert (counts.ok, counts.kept) == (17, 16)
    assert (counts.mini_batches_done, counts.mini_batches_kept) == (3, 1)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_the_workers_the_verdicts_are_the_same(seed: int) -> None:
    def bad(score: Score) -> bool:
        return any((score.mini_batch.index * 7 + item) % 31 == 0 for item in range(score.start, score.stop))

    def plan() -> list[MiniBatch]:
        return [rows(index, 5, 11) for index in range(6)]

    calm = Play(machine(), lambda score: "bad" if bad(score) else "ok")
    calm.run(plan())
    chance = random.Random(seed)
    options = {"processes_per_instance": 1 + seed % 4, "retry": RetrySpec(max_worker_losses=50)}
    stormy = Play(
        machine(**options),  # type: ignore[arg-type]  # two options of different types
        lambda score: "lost" if chance.random() < 0.3 else "bad" if bad(score) else "ok",
    )
    stormy.run(plan())
    assert stormy.failed() == calm.failed()
    assert stormy.machine.counts.worker_losses > 0
    assert [(r.mini_batch, r.ok, r.files) for r in sorted(stormy.records, key=lambda r: r.mini_batch)] == [
        (r.mini_batch, r.ok, r.files) for r in sorted(calm.records, key=lambda r: r.mini_batch)
    ]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_first_mini_batch_that_fails_whole_does_not_end_a_run_whose_others_are_good(workers: int) -> None:
    play = Play(
        machine(processes_per_instance=workers, retry=RetrySpec(max_retries=0)),
        lambda score: "KeyError: 'age'" if score.mini_batch.index == 0 else "ok",
    )
    assert play.run([rows(0, 100), rows(1, 100), rows(2, 100)]).reason is Reason.COMPLETED
    assert (play.machine.counts.ok, play.machine.counts.failed) == (200, 100)
