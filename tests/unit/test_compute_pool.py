"""Who may start on a compute, and what the others wait for."""

from __future__ import annotations

from batchpoint.background.compute_pool import Claim, claim_of, nodes_of, place_in_queue, reason_to_wait
from batchpoint.entities.endpoints import BatchDeployment, ResourceConfiguration
from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute
from batchpoint.registry.jobs import QueuedJob

POOL = {
    "risk/cpu": Compute(name="cpu", max_instances=4),
    "risk/gpu": Compute(name="gpu", max_instances=1),
    "local": Compute(name="local", max_instances=4),
}


def make_job(name: str, *, compute: str = "cpu", instances: int = 1) -> Job:
    deployment = BatchDeployment(
        name="blue",
        endpoint_name="churn",
        compute=f"azureml:{compute}",
        resources=ResourceConfiguration(instance_count=instances),
    )
    return Job(name=name, deployment=deployment)


def test_a_job_starts_while_enough_instances_are_free() -> None:
    assert (
        reason_to_wait(
            Claim("risk", "b", "risk/cpu", 2),
            POOL,
            [Claim("risk", "a", "risk/cpu", 2), Claim("risk", "x", "risk/gpu", 1)],
        )
        is None
    )


def test_a_waiting_job_is_told_who_holds_the_instances() -> None:
    assert reason_to_wait(Claim("risk", "b", "risk/cpu", 2), POOL, [Claim("risk", "a", "risk/cpu", 3)]) == (
        "First in the queue for 2 instances of compute cpu: 1 of 4 free; held by a (3 instances)"
    )


def test_many_holders_are_counted_not_listed() -> None:
    held = [Claim("risk", name, "risk/cpu", 1) for name in "abcd"]
    reason = reason_to_wait(Claim("risk", "e", "risk/cpu", 1), POOL, held)
    assert reason is not None
    assert reason.endswith("held by a (1 instance), b (1 instance), c (1 instance) and 1 more")


def test_a_job_of_a_compute_that_is_gone_starts_and_says_so_itself() -> None:
    assert reason_to_wait(Claim("risk", "a", "risk/gone", 9), POOL, []) is None


def test_a_job_never_wants_more_instances_than_its_compute_can_have() -> None:
    assert claim_of("risk", make_job("a", instances=9), POOL) == Claim("risk", "a", "risk/cpu", 4)


def test_a_waiting_job_is_told_its_place_in_the_queue_and_what_the_first_waits_for() -> None:
    queue = [QueuedJob("a", "1 free"), QueuedJob("c", None)]
    assert (
        place_in_queue(make_job("c"), queue) == "Position 2 in the queue for compute cpu; a is first and waits: 1 free"
    )
    assert place_in_queue(make_job("a"), queue) is None


def test_the_machine_is_shared_by_all_workspaces_and_none_learns_the_names_of_anothers_jobs() -> None:
    held = [Claim("risk", "secret", "local", 3), Claim("sales", "mine", "local", 1)]
    assert reason_to_wait(claim_of("sales", make_job("b", compute="local"), POOL), POOL, held) == (
        "First in the queue for 1 instance of compute local: 0 of 4 free; "
        "held by mine (1 instance), jobs of other workspaces (3 instances)"
    )
    queue = [QueuedJob(None, "held by secret"), QueuedJob("b", None)]
    waiting = make_job("b", compute="local")
    assert place_in_queue(waiting, queue) == (
        "Position 2 in the queue for compute local; a job of another workspace is first"
    )
    nodes = nodes_of(POOL["local"], "sales", held, 0)
    assert [node.current_job_name for node in nodes] == [None, None, None, "mine"]


def test_computes_of_one_name_in_two_workspaces_are_two_pools() -> None:
    pools = {**POOL, "sales/cpu": Compute(name="cpu", max_instances=1)}
    held = [Claim("risk", "a", "risk/cpu", 4)]
    assert reason_to_wait(claim_of("sales", make_job("b"), pools), pools, held) is None
    assert reason_to_wait(claim_of("risk", make_job("b"), pools), pools, held) is not None


def test_nodes_are_those_with_a_job_and_those_kept_warm() -> None:
    compute = Compute(name="cpu", min_instances=1, max_instances=4)
    nodes = nodes_of(compute, "risk", [Claim("risk", "a", "risk/cpu", 2), Claim("risk", "b", "risk/other", 1)], 3)
    assert [(node.node_id, node.node_state, node.current_job_name) for node in nodes] == [
        ("cpu-0", "running", "a"),
        ("cpu-1", "running", "a"),
        ("cpu-2", "idle", None),
    ]
    assert [node.node_state for node in nodes_of(compute, "risk", [], 0)] == ["idle"]
