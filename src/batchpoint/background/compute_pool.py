"""Instances of a compute: which waiting job may start, who waits for whom, what state each instance is in.

Every instance is a logical node of this machine, so the pool is a count: a job of N instances starts when N are free,
first come, first served for each compute (a small job never overtakes a large one that waits before it, or the large
one might wait for ever).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute


@dataclass(frozen=True)
class Claim:
    """What a job holds or wants of a compute."""

    job: str
    compute: str
    instances: int


@dataclass(frozen=True)
class Decision:
    """Who may start now, and what the others wait for."""

    starts: tuple[str, ...] = ()
    waiting_for: Mapping[str, str] = field(default_factory=dict)
    """For each job that may not start: why, in words."""


@dataclass(frozen=True)
class Node:
    """One instance of a compute. The states are words of Azure ML's ``list-nodes``."""

    node_id: str
    state: str
    """``running`` (with a job), ``idle`` (warm, without one)."""
    current_job_name: str | None = None


def claim_of(job: Job, computes: Mapping[str, Compute]) -> Claim:
    """What a job wants; never more instances than its compute can have."""
    deployment = job.deployment
    name = deployment.compute_name if deployment else "local"
    wanted = deployment.resources.instance_count if deployment else 1
    compute = computes.get(name)
    return Claim(job.name, name, min(wanted, compute.max_instances) if compute else wanted)


def decide(computes: Mapping[str, Compute], held: Iterable[Claim], waiting: Sequence[Claim]) -> Decision:
    """Who of ``waiting`` (in the order of the queue) may start beside those who hold instances.

    A job of a compute that no longer exists may start: it will say so itself.
    """
    holders: dict[str, list[Claim]] = {}
    for claim in held:
        holders.setdefault(claim.compute, []).append(claim)
    queues: dict[str, int] = {}
    starts: list[str] = []
    waiting_for: dict[str, str] = {}
    for claim in waiting:
        compute = computes.get(claim.compute)
        ahead = queues.get(claim.compute, 0)
        holding = holders.setdefault(claim.compute, [])
        free = (compute.max_instances if compute else claim.instances) - sum(other.instances for other in holding)
        if compute is None or (ahead == 0 and claim.instances <= free):
            starts.append(claim.job)
            holding.append(claim)
        else:
            waiting_for[claim.job] = _why(claim, compute, max(free, 0), holding, ahead)
            queues[claim.compute] = ahead + 1
    return Decision(tuple(starts), waiting_for)


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


def _why(claim: Claim, compute: Compute, free: int, holding: Sequence[Claim], ahead: int) -> str:
    wants = _instances(claim.instances)
    text = f"{wants} of compute {compute.name}: {free} of {compute.max_instances} free"
    if holding:
        names = ", ".join(f"{other.job} ({_instances(other.instances)})" for other in holding[:3])
        more = f" and {len(holding) - 3} more" if len(holding) > 3 else ""
        text += f"; held by {names}{more}"
    return f"{text}; position {ahead + 1} in the queue"


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"
