"""What the columns of a job hold, and how far they are from the reference."""

from __future__ import annotations

from fastapi import APIRouter

from batchpoint.entities.quality import Quality
from batchpoint.server.studio.rendering import Page, Visited, page

router = APIRouter(prefix="/jobs")


class QualityPage(Page):
    """The columns of one job."""

    job: str
    quality: Quality


@page(router, "/{name}/quality", "quality.html")
def job_quality(visit: Visited, name: str) -> QualityPage:
    """The columns of one job."""
    return QualityPage(title=f"Columns of {name}", job=name, quality=visit.work.jobs.quality(name))
