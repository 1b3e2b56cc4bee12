"""Computes: how large each is, what its instances do, and which jobs wait for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fastapi import APIRouter

from batchpoint.entities.jobs import Job
from batchpoint.entities.resources import Compute
from batchpoint.errors import NotFoundError
from batchpoint.server.studio.rendering import Facts, Page, Visit, Visited, page
from batchpoint.server.waiting import next_of

router = APIRouter(prefix="/computes")

WAITING_SHOWN = 50


class Instance(Facts):
    """One instance of a compute."""

    name: str
    state: str
    job: str | None
    """The job that it works on; None also for one of another workspace."""
    doing: str | None
    """What the job is, and how far."""


class ComputeFacts(Facts):
    """One compute."""

    compute: Compute
    instances: Sequence[Instance]
    states: Mapping[str, int]
    """How many instances are in which state."""
    waiting: Sequence[Job]
    """Jobs and steps of pipelines that come next."""
    waiting_found: int
    """How many wait, also those that are not shown."""


class ComputesPage(Page):
    """All computes."""

    computes: Sequence[ComputeFacts]


@page(router, "", "computes.html")
def computes(visit: Visited) -> ComputesPage:
    """All computes."""
    found = [one for one in visit.work.resources.list("compute") if isinstance(one, Compute)]
    return ComputesPage(title="Computes", computes=[_facts(visit, one) for one in found])


def _facts(visit: Visit, compute: Compute) -> ComputeFacts:
    nodes = visit.shared.background.nodes(compute, visit.work.name)
    waiting, waiting_found = next_of(visit.work, compute.name, WAITING_SHOWN)
    doing = {name: _doing(visit, name) for name in {node.current_job_name for node in nodes} if name is not None}
    return ComputeFacts(
        compute=compute,
        instances=[
            Instance(
                name=one.node_id,
                state=one.node_state,
                job=one.current_job_name,
                doing=doing.get(one.current_job_name or ""),
            )
            for one in nodes
        ],
        states=Counter(one.node_state for one in nodes),
        waiting=waiting,
        waiting_found=waiting_found,
    )


def _doing(visit: Visit, name: str) -> str | None:
    try:
        return in_words(visit.work.jobs.get(name))
    except NotFoundError:
        return None  # deleted a moment ago


def in_words(job: Job) -> str:
    """What a job is, and how far: ``churn / blue, running, 42 %``. Pure."""
    what = f"{job.endpoint_name} / {job.deployment_name}" if job.endpoint_name else job.step_name or job.type
    far = job.progress.fraction if job.progress else None
    return ", ".join([what, str(job.status), *([f"{far:.0%}".replace("%", " %")] if far is not None else [])])
