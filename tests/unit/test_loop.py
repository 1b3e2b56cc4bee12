"""A loop outlives its failures, reports them, and wakes at once."""

from __future__ import annotations

import threading

from batchpoint.background.loop import Loop


def test_setting_wake_ends_the_wait_at_once() -> None:
    stepped = threading.Semaphore(0)

    def step() -> bool:
        stepped.release()
        return False

    loop = Loop("test", step, interval=3600)
    loop.start()
    assert stepped.acquire(timeout=5)
    loop.wake.set()
    assert stepped.acquire(timeout=5)
    assert loop.stop()
    assert not loop.health().alive


def test_a_loop_goes_on_at_once_while_there_is_work() -> None:
    left = [1, 2, 3]
    done = threading.Event()

    def step() -> bool:
        if left:
            left.pop()
            return True
        done.set()
        return False

    loop = Loop("test", step, interval=3600)
    loop.start()
    assert done.wait(5)
    loop.stop()


def test_a_failing_step_is_reported_and_tried_again_until_it_works() -> None:
    failing = threading.Event()
    failing.set()
    steps = threading.Semaphore(0)

    def step() -> bool:
        steps.release()
        if failing.is_set():
            raise RuntimeError("no database")
        return False

    loop = Loop("test", step, interval=0.001, longest_interval=0.002)
    loop.start()
    for _ in range(5):
        assert steps.acquire(timeout=5)
    health = loop.health()
    assert not health.is_well
    assert health.last_error == "RuntimeError: no database"
    failing.clear()
    for _ in range(10):
        assert steps.acquire(timeout=5)
    assert loop.health().is_well
    loop.stop()


def test_a_loop_waits_no_longer_than_until_something_is_due() -> None:
    steps = threading.Semaphore(0)

    def step() -> bool:
        steps.release()
        return False

    loop = Loop("test", step, interval=3600, until_due=lambda: 0.001)
    loop.start()
    for _ in range(3):
        assert steps.acquire(timeout=5)
    assert loop.stop()
