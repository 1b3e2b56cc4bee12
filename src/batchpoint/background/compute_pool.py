"""Instances of a compute: whether a job may start, who it waits for, what state each instance is in.

Every instance is a logical node of this machine, so the pool is a count: a job of N instances starts when N are free.
The queue is first come, first served for each compute: a small job never overtakes a large one that waits before it,
or the large one might wait for ever. The machine's own compute has one queue for the jobs of all workspaces; they are
told of each other's numbers, and not of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute, pool_of
from batchpoint.registry.jobs import QueuedJob


@dataclass(frozen=True)
class Claim:
    """What a job holds or wants of a pool of instances."""

    workspace: str
    job: str
    pool: str
    instances: int


@dataclass(frozen=True)
class Node:
    """One instance of a compute. The states are words of Azure ML's ``list-nodes``."""

    node_id: str
    node_state: str
    """``running`` (with a job), ``idle`` (warm, without one)."""
    current_job_name: str | None = None
    """None also for a job of another workspace."""


def claim_of(workspace: str, job: Job, pools: Mapping[str, Compute]) -> Claim:
    """What a job wants; never more instances than its compute can have."""
    pool, wanted = pool_of(workspace, job.compute_name), job.instance_count
    compute = pools.get(pool)
    return Claim(workspace, job.name, pool, min(wanted, compute.max_instances) if compute else wanted)


def reason_to_wait(claim: Claim, pools: Mapping[str, Compute], held: Iterable[Claim]) -> str | None:
    """Why the first job in a pool's queue cannot start beside those who hold instances; None when it can.

    A job of a compute that no longer exists may start: it will say so itself.
    """
    compute = pools.get(claim.pool)
    if compute is None:
        return None
    holding = [other for other in held if other.pool == claim.pool]
    free = compute.max_instances - sum(other.instances for other in holding)
    if claim.instances <= free:
        return None
    own = [other for other in holding if other.workspace == claim.workspace]
    holders = [f"{other.job} ({_instances(other.instances)})" for other in own[:3]]
    if elsewhere := sum(other.instances for other in holding if other.workspace != claim.workspace):
        holders.append(f"jobs of other workspaces ({_instances(elsewhere)})")
    more = f" and {len(own) - 3} more" if len(own) > 3 else ""
    return (
        f"First in the queue for {_instances(claim.instances)} of compute {compute.name}: {max(free, 0)} of "
        f"{compute.max_instances} free; held by {', '.join(holders)}{more}"
    )


def place_in_queue(job: Job, queue: Sequence[QueuedJob]) -> str | None:
    """What a job waits for that is not the first of its compute's queue."""
    ahead = next((index for index, other in enumerate(queue) if other.name == job.name), len(queue))
    if ahead == 0:
        return None
    first = queue[0].name or "a job of another workspace"
    why = f" and waits: {queue[0].waiting_for}" if queue[0].name and queue[0].waiting_for else ""
    return f"Position {ahead + 1} in the queue for compute {job.compute_name}; {first} is first{why}"


def nodes_of(compute: Compute, workspace: str, held: Iterable[Claim], warm_instances: int) -> list[Node]:
    """The instances of a compute that exist: those with a job, and the warm ones without. As seen from a workspace.

    ``warm_instances`` is how many instances have a living fork server, with a job or without.
    """
    pool = pool_of(workspace, compute.name)
    holding = [
        claim.job if claim.workspace == workspace else None
        for claim in held
        if claim.pool == pool
        for _ in range(claim.instances)
    ]
    count = max(len(holding), compute.min_instances, min(warm_instances, compute.max_instances))
    return [
        Node(f"{compute.name}-{index}", "running", holding[index])
        if index < len(holding)
        else Node(f"{compute.name}-{index}", "idle")
        for index in range(count)
    ]


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"
