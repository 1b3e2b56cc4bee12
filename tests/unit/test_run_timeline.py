"""The timeline of a run: of bounded size, and nothing gets lost when it is drawn together."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from batchpoint.operations.run_timeline import MOST_WORKERS, SHORTEST, STRETCHES, Attempts, Timeline

BEGAN = 1_700_000_000.0


def attempts(*given: tuple[str, float, float], ok: int = 10, failed: int = 0) -> Attempts:
    """Each a worker, when it began (after ``BEGAN``), and for how long it was at it."""
    workers = list(dict.fromkeys(worker for worker, _, _ in given))
    spent = np.array([seconds for _, _, seconds in given])
    return Attempts(
        workers=workers,
        worker=np.array([workers.index(worker) for worker, _, _ in given]),
        end=BEGAN + np.array([start + seconds for _, start, seconds in given]),
        spent=spent,
        run=spent * 0.5,
        read=spent * 0.25,
        ok=np.full(len(given), ok),
        failed=np.full(len(given), failed),
        is_failed=np.full(len(given), failed > 0),
    )


def test_nothing_is_told_before_anything_has_happened() -> None:
    assert Timeline().report(started_at=None, is_whole=True) is None


def test_a_worker_is_busy_in_the_stretches_that_it_worked_in() -> None:
    timeline = Timeline()
    timeline.add(attempts(("node-0/a", 0.0, 2 * SHORTEST), ("node-0/b", 3 * SHORTEST, SHORTEST / 2)))
    report = timeline.report(started_at=None, is_whole=True)
    assert report is not None
    assert [worker.busy for worker in report.workers] == [[1, 1, 0, 0], [0, 0, 0, pytest.approx(0.5, abs=0.01)]]
    assert report.stretch == SHORTEST
    assert sum(report.items) == 20


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_long_run_takes_no_more_room_and_its_sums_stay_true(pieces: int) -> None:
    generator = np.random.default_rng(1)
    many = [(f"node-0/{at % 3}", (at // 3) * 1.5, float(generator.uniform(0.1, 1.4))) for at in range(6000)]
    timeline = Timeline()
    for piece in range(pieces):
        timeline.add(attempts(*many[piece::pieces], ok=2, failed=1))
    report = timeline.report(started_at=datetime.fromtimestamp(BEGAN - 5, UTC), is_whole=True)
    assert report is not None
    assert len(report.items) <= STRETCHES
    assert (sum(report.items), sum(report.failed), report.attempts, report.failed_attempts) == (
        12_000,
        6000,
        6000,
        6000,
    )
    seconds = sum(share for worker in report.workers for share in worker.busy) * report.stretch
    whole = sum(seconds for _, _, seconds in many)
    assert seconds == pytest.approx(whole, rel=0.01)
    spent = report.spent
    assert (spent.run, spent.read, spent.write) == pytest.approx((whole / 2, whole / 4, whole / 4))
    assert spent.start_up == pytest.approx(15.0)
    assert spent.wait == pytest.approx(3 * 3000 - whole, rel=0.01)


def test_many_workers_share_one_line() -> None:
    timeline = Timeline()
    timeline.add(attempts(*((f"node-0/process{at:03}", 0.0, SHORTEST) for at in range(MOST_WORKERS + 6))))
    report = timeline.report(started_at=None, is_whole=True)
    assert report is not None
    assert (len(report.workers), report.workers_seen) == (MOST_WORKERS, MOST_WORKERS + 6)
    assert report.others is not None
    assert (report.others.worker, report.others.busy[0]) == ("6 more", pytest.approx(1, abs=0.01))


def test_workers_are_named_in_the_order_of_their_numbers() -> None:
    timeline = Timeline()
    timeline.add(attempts(*((f"node-{at}/p", 0.0, SHORTEST) for at in (10, 2, 0))))
    report = timeline.report(started_at=None, is_whole=True)
    assert report is not None
    assert [worker.worker for worker in report.workers] == ["node-0/p", "node-2/p", "node-10/p"]


def test_what_is_reported_late_is_counted_all_the_same() -> None:
    timeline = Timeline()
    timeline.add(attempts(("a", 10.0, 1.0)))
    timeline.add(attempts(("a", 4.0, 1.0)))
    report = timeline.report(started_at=None, is_whole=True)
    assert report is not None
    assert sum(report.items) == 20
    assert sum(report.workers[0].busy) * report.stretch >= 1.0
