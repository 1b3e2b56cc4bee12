"""Who may start on a compute, and what the others wait for."""

from __future__ import annotations

from batchpoint.background.compute_pool import Claim, decide, nodes_of
from batchpoint.entities.resources import Compute

POOL = {"cpu": Compute(name="cpu-pool", max_instances=4), "gpu": Compute(name="gpu-pool", max_instances=1)}


def test_jobs_start_while_instances_are_free() -> None:
    decision = decide(POOL, [Claim("a", "cpu", 2)], [Claim("b", "cpu", 1), Claim("c", "cpu", 1)])
    assert decision.starts == ("b", "c")
    assert not decision.waiting_for


def test_a_waiting_job_is_told_who_holds_the_instances_and_its_place_in_the_queue() -> None:
    decision = decide(POOL, [Claim("a", "cpu", 3)], [Claim("b", "cpu", 2), Claim("c", "cpu", 2)])
    assert decision.starts == ()
    assert decision.waiting_for["b"] == (
        "2 instances of compute cpu-pool: 1 of 4 free; held by a (3 instances); position 1 in the queue"
    )
    assert decision.waiting_for["c"].endswith("position 2 in the queue")


def test_a_small_job_does_not_overtake_a_large_one_that_waits_before_it() -> None:
    decision = decide(POOL, [Claim("a", "cpu", 3)], [Claim("large", "cpu", 4), Claim("small", "cpu", 1)])
    assert decision.starts == ()


def test_computes_do_not_wait_for_each_other() -> None:
    decision = decide(POOL, [Claim("a", "cpu", 4)], [Claim("b", "cpu", 1), Claim("c", "gpu", 1)])
    assert decision.starts == ("c",)


def test_a_job_of_a_compute_that_is_gone_starts_and_says_so_itself() -> None:
    assert decide(POOL, [], [Claim("a", "gone", 9)]).starts == ("a",)


def test_nodes_are_those_with_a_job_and_those_kept_warm() -> None:
    compute = Compute(name="cpu", min_instances=1, max_instances=4)
    nodes = nodes_of(compute, [Claim("a", "cpu", 2), Claim("b", "other", 1)], 3)
    assert [(node.node_id, node.state, node.current_job_name) for node in nodes] == [
        ("cpu-0", "running", "a"),
        ("cpu-1", "running", "a"),
        ("cpu-2", "idle", None),
    ]
    assert [node.state for node in nodes_of(compute, [], 0)] == ["idle"]
