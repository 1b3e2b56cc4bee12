"""Computes: how large each is, what its instances do, and which jobs wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.entities.resources import Compute
from batchpoint.server.studio.rendering import Facts, Page, Visit, Visited, page
from batchpoint.server.waiting import with_place

router = APIRouter(prefix="/computes")

WAITING_SHOWN = 50


class Instance(Facts):
    """One instance of a compute."""

    name: str
    state: str
    job: str | None
    """The job that it works on; None also for one of another workspace."""


class ComputeFacts(Facts):
    """One compute."""

    compute: Compute
    instances: Sequence[Instance]
    waiting: Sequence[Job]


class ComputesPage(Page):
    """All computes."""

    computes: Sequence[ComputeFacts]


@page(router, "", "computes.html")
def computes(visit: Visited) -> ComputesPage:
    """All computes."""
    queued = visit.work.jobs.list(status=JobStatus.QUEUED, limit=WAITING_SHOWN)
    found = [one for one in visit.work.resources.list("compute") if isinstance(one, Compute)]
    return ComputesPage(title="Computes", computes=[_facts(visit, one, queued) for one in found])


def _facts(visit: Visit, compute: Compute, queued: Sequence[Job]) -> ComputeFacts:
    nodes = visit.shared.background.nodes(compute, visit.work.name)
    return ComputeFacts(
        compute=compute,
        instances=[Instance(name=one.node_id, state=one.node_state, job=one.current_job_name) for one in nodes],
        waiting=[
            with_place(visit.work, job) for job in queued if job.compute_name == compute.name and job.type != "pipeline"
        ],
    )
