"""Who may start on a compute, and what the others wait for."""

from __future__ import annotations

from batchpoint.background.compute_pool import Claim, claim_of, nodes_of, place_in_queue, reason_to_wait
from batchpoint.entities.endpoints import BatchDeployment, ResourceConfiguration
from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute

POOL = {"cpu": Compute(name="cpu", max_instances=4), "gpu": Compute(name="gpu", max_instances=1)}


def make_job(name: str, *, compute: str = "cpu", instances: int = 1, waiting_for: str | None = None) -> Job:
    deployment = BatchDeployment(
        name="blue",
        endpoint_name="churn",
        compute=f"azureml:{compute}",
        resources=ResourceConfiguration(instance_count=instances),
    )
    return Job(name=name, deployment=deployment, waiting_for=waiting_for)


def test_a_job_starts_while_enough_instances_are_free() -> None:
    assert reason_to_wait(Claim("b", "cpu", 2), POOL, [Claim("a", "cpu", 2), Claim("x", "gpu", 1)]) is None


def test_a_waiting_job_is_told_who_holds_the_instances() -> None:
    assert reason_to_wait(Claim("b", "cpu", 2), POOL, [Claim("a", "cpu", 3)]) == (
        "First in the queue for 2 instances of compute cpu: 1 of 4 free; held by a (3 instances)"
    )


def test_many_holders_are_counted_not_listed() -> None:
    held = [Claim(name, "cpu", 1) for name in "abcd"]
    reason = reason_to_wait(Claim("e", "cpu", 1), POOL, held)
    assert reason is not None
    assert reason.endswith("held by a (1 instance), b (1 instance), c (1 instance) and 1 more")


def test_a_job_of_a_compute_that_is_gone_starts_and_says_so_itself() -> None:
    assert reason_to_wait(Claim("a", "gone", 9), POOL, []) is None


def test_a_job_never_wants_more_instances_than_its_compute_can_have() -> None:
    assert claim_of(make_job("a", instances=9), POOL) == Claim("a", "cpu", 4)


def test_the_place_in_the_queue_counts_only_jobs_of_the_same_compute() -> None:
    queued = [make_job("a", waiting_for="1 free"), make_job("b", compute="gpu"), make_job("c")]
    assert place_in_queue(queued[2], queued) == "Position 2 in the queue for compute cpu; a is first and waits: 1 free"


def test_nodes_are_those_with_a_job_and_those_kept_warm() -> None:
    compute = Compute(name="cpu", min_instances=1, max_instances=4)
    nodes = nodes_of(compute, [Claim("a", "cpu", 2), Claim("b", "other", 1)], 3)
    assert [(node.node_id, node.node_state, node.current_job_name) for node in nodes] == [
        ("cpu-0", "running", "a"),
        ("cpu-1", "running", "a"),
        ("cpu-2", "idle", None),
    ]
    assert [node.node_state for node in nodes_of(compute, [], 0)] == ["idle"]
