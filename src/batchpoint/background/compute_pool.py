"""Instances of a compute: whether a job may start, who it waits for, what state each instance is in.

Every instance is a logical node of this machine, so the pool is a count: a job of N instances starts when N are free.
The queue is first come, first served for each compute: a small job never overtakes a large one that waits before it,
or the large one might wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute


@dataclass(frozen=True)
class Claim:
    """What a job holds or wants of a compute."""

    job: str
    compute: str
    instances: int


@dataclass(frozen=True)
class Node:
    """One instance of a compute. The states are words of Azure ML's ``list-nodes``."""

    node_id: str
    node_state: str
    """``running`` (with a job), ``idle`` (warm, without one)."""
    current_job_name: str | None = None


def claim_of(job: Job, computes: Mapping[str, Compute]) -> Claim:
    """What a job wants; never more instances than its compute can have."""
    name, wanted = job.compute_name, job.instance_count
    compute = computes.get(name)
    return Claim(job.name, name, min(wanted, compute.max_instances) if compute else wanted)


def reason_to_wait(claim: Claim, computes: Mapping[str, Compute], held: Iterable[Claim]) -> str | None:
    """Why the first job in a compute's queue cannot start beside those who hold instances; None when it can.

    A job of a compute that no longer exists may start: it will say so itself.
    """
    compute = computes.get(claim.compute)
    if compute is None:
        return None
    holding = [other for other in held if other.compute == claim.compute]
    free = compute.max_instances - sum(other.instances for other in holding)
    if claim.instances <= free:
        return None
    names = ", ".join(f"{other.job} ({_instances(other.instances)})" for other in holding[:3])
    more = f" and {len(holding) - 3} more" if len(holding) > 3 else ""
    return (
        f"First in the queue for {_instances(claim.instances)} of compute {compute.name}: {max(free, 0)} of "
        f"{compute.max_instances} free; held by {names}{more}"
    )


def place_in_queue(job: Job, queued: Iterable[Job]) -> str:
    """What a job that is not the first of its compute's queue waits for. ``queued`` is in the queue's order."""
    compute = job.compute_name
    same = [other for other in queued if other.compute_name == compute]
    ahead = next((index for index, other in enumerate(same) if other.name == job.name), len(same))
    first = same[0] if same else job
    return f"Position {ahead + 1} in the queue for compute {compute}; {first.name} is first" + (
        f" and waits: {first.waiting_for}" if first.waiting_for else ""
    )


def nodes_of(compute: Compute, held: Iterable[Claim], warm_instances: int) -> list[Node]:
    """The instances of a compute that exist: those with a job, and the warm ones without.

    ``warm_instances`` is how many instances have a living fork server, with a job or without.
    """
    holding = [claim.job for claim in held if claim.compute == compute.name for _ in range(claim.instances)]
    count = max(len(holding), compute.min_instances, min(warm_instances, compute.max_instances))
    return [
        Node(f"{compute.name}-{index}", "running", holding[index])
        if index < len(holding)
        else Node(f"{compute.name}-{index}", "idle")
        for index in range(count)
    ]


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"
