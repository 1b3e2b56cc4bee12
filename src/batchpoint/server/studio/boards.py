"""The many-models board: what the model of each key did, over all jobs of a deployment, and in one job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, get_args

from fastapi import APIRouter, Query

from batchpoint.entities.scored_models import ModelReport
from batchpoint.registry.scored_models import Order
from batchpoint.server.studio.rendering import Facts, Page, Visited, page

router = APIRouter()

ON_A_PAGE = 100
ORDERS: Sequence[Order] = get_args(Order)

Offset = Annotated[int, Query(ge=0, le=2**53)]


class BoardLine(Facts):
    """What the model of one key did."""

    key: Mapping[str, str | None]
    model: str | None
    rows: int
    """Predicted."""
    failed: int
    seconds: float
    skipped: int | None = None
    """Told of one job alone."""
    last_seen_at: datetime | None = None
    last_job: str | None = None
    message: str | None = None
    """Why rows failed, or were left out."""


class BoardPage(Page):
    """Some lines of a board."""

    endpoint: str
    deployment: str
    job: str | None
    """The job that it tells of; None of the board of the deployment."""
    lines: Sequence[BoardLine]
    order: Order
    orders: Sequence[Order]
    failing: bool
    before: int | None
    following: int | None
    """Where the pages before and after begin; None where there is none."""


@page(router, "/endpoints/{name}/deployments/{deployment}/models", "board.html")
def board(
    visit: Visited, name: str, deployment: str, order: Order = "key", offset: Offset = 0, *, failing: bool = False
) -> BoardPage:
    """The board of a deployment."""
    found = visit.work.endpoints.models(
        name, deployment, failing=failing, order=order, limit=ON_A_PAGE + 1, offset=offset
    )
    return BoardPage(
        title=f"Models of {name} / {deployment}",
        endpoint=name,
        deployment=deployment,
        job=None,
        lines=[
            BoardLine(
                key=one.key,
                model=one.model,
                rows=one.rows,
                failed=one.failed,
                seconds=one.seconds,
                last_seen_at=one.last_seen_at,
                last_job=one.last_job_name,
                message=one.message,
            )
            for one in found[:ON_A_PAGE]
        ],
        order=order,
        orders=ORDERS,
        failing=failing,
        **_beside(offset, len(found)),
    )


@page(router, "/jobs/{name}/models", "board.html")
def job_board(
    visit: Visited, name: str, order: Order = "key", offset: Offset = 0, *, failing: bool = False
) -> BoardPage:
    """The board of one job; it has lines when the job is finished."""
    job = visit.work.jobs.get(name)
    found = sorted_by(visit.work.jobs.models(name, failing=failing), order)[offset : offset + ON_A_PAGE + 1]
    return BoardPage(
        title=f"Models of {job.display_name or name}",
        endpoint=job.endpoint_name or "",
        deployment=job.deployment_name or "",
        job=name,
        lines=[
            BoardLine(**one.model_dump(include={"key", "model", "rows", "failed", "seconds", "skipped", "message"}))
            for one in found[:ON_A_PAGE]
        ],
        order=order,
        orders=[each for each in ORDERS if each != "last_seen"],
        failing=failing,
        **_beside(offset, len(found)),
    )


def sorted_by(reports: Sequence[ModelReport], order: Order) -> Sequence[ModelReport]:
    """The lines of a job as the board of a deployment sorts its own: numbers from the greatest down. Pure."""
    if order in ("failed", "rows", "seconds"):
        return sorted(reports, key=lambda one: -getattr(one, order))
    return sorted(reports, key=lambda one: [value or "" for value in one.key.values()])


def _beside(offset: int, found: int) -> dict[str, int | None]:
    """Where the pages before and after one begin that found so many lines, one more than it shows."""
    return {
        "before": max(offset - ON_A_PAGE, 0) if offset else None,
        "following": offset + ON_A_PAGE if found > ON_A_PAGE else None,
    }
