"""The pages that belong to nothing in particular: home, signing in and out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from fastapi import APIRouter, Request
from fastapi.responses import Response

from batchpoint.entities.jobs import TERMINAL_STATUSES, Job, JobStatus
from batchpoint.entities.schedules import RunOutcome, Schedule, ScheduleRun
from batchpoint.entities.studio_addresses import ROOT, Addresses
from batchpoint.errors import AuthenticationError, PermissionDeniedError, TooManyRequestsError
from batchpoint.server.studio import sessions
from batchpoint.server.studio.rendering import Page, Visited, html, page, see_other

router = APIRouter()

SHOWN = 10
"""Jobs of each kind on the home page."""
LOOKED_AT = 200
"""Jobs that have ended, among which is looked for those that went wrong."""
LATE = timedelta(hours=24)
"""What happened last night is told of for so long."""


class HomePage(Page):
    """What runs, what failed, what comes next."""

    at_work: Sequence[Job]
    """Not finished, the newest first."""
    went_wrong: Sequence[Job]
    """Ended of late, and failed, or items of them did, and no retry has completed; the newest first."""
    not_started: Sequence[ScheduleRun]
    """Times of schedules, of late, whose job could not be started, or was missed."""
    finished: Sequence[Job]
    """The last that ended in any way."""
    coming: Sequence[Schedule]
    """Enabled schedules, by when they fire next."""


class SignInPage(Page):
    """Where a token is typed in."""

    then: str
    """The page to come back to."""
    refusal: str | None = None


@page(router, "", "home.html")
def home(visit: Visited) -> HomePage:
    """The first page."""
    jobs, schedules, since = visit.work.jobs, visit.work.schedules, visit.work.registry.now() - LATE
    coming = [one for one in schedules.list(enabled=True) if one.next_run_at is not None]
    ended = jobs.list(status=TERMINAL_STATUSES, limit=LOOKED_AT)
    failed = jobs.list(status=JobStatus.FAILED, limit=SHOWN)
    wrong = went_wrong([*failed, *ended], since)
    runs = [run for one in schedules.list() for run in schedules.runs(one.name, limit=SHOWN)]
    return HomePage(
        title="Home",
        at_work=jobs.list(status=set(JobStatus) - TERMINAL_STATUSES, limit=SHOWN),
        went_wrong=list(islice((job for job in wrong if jobs.completed_retry(job) is None), SHOWN)),
        not_started=not_started(runs, since)[:SHOWN],
        finished=ended[:SHOWN],
        coming=sorted(coming, key=lambda one: str(one.next_run_at))[:SHOWN],
    )


def went_wrong(jobs: Iterable[Job], since: datetime) -> list[Job]:
    """Those that ended since then and failed, or in which items failed; each once, the newest first. Pure."""
    found = {
        job.name: job
        for job in jobs
        if job.finished_at is not None
        and job.finished_at >= since
        and (job.status is JobStatus.FAILED or (job.progress is not None and job.progress.failed))
    }
    return sorted(found.values(), key=lambda job: str(job.finished_at), reverse=True)


def not_started(runs: Iterable[ScheduleRun], since: datetime) -> list[ScheduleRun]:
    """The times since then that have no job though they should, the newest first. Pure."""
    found = [run for run in runs if run.outcome in (RunOutcome.FAILED, RunOutcome.MISSED) and run.fire_at >= since]
    return sorted(found, key=lambda run: run.fire_at, reverse=True)


@router.get("/sign-in", name="studio.sign_in", include_in_schema=False)
def sign_in(request: Request, then: str = ROOT) -> Response:
    """Ask for a token."""
    return html(request, "sign_in.html", SignInPage(title="Sign in", then=_inside(then)), at=Addresses())


@router.post("/sign-in", name="studio.signed_in", include_in_schema=False)
def signed_in(request: Request, form: sessions.SignInForm) -> Response:
    """Exchange the token for a session."""
    then = _inside(form.get("then", ROOT))
    answer = see_other(then)
    try:
        sessions.begin(request, answer, form.get("token", "").strip())
    except (AuthenticationError, PermissionDeniedError, TooManyRequestsError) as refusal:
        told = SignInPage(title="Sign in", then=then, refusal=refusal.message)
        return html(request, "sign_in.html", told, at=Addresses(), status=401)
    return answer


@router.post("/sign-out", name="studio.sign_out", include_in_schema=False)
def sign_out(request: Request) -> Response:
    """End the session. Whoever makes another's browser do this gains nothing."""
    answer = see_other(Addresses().sign_in())
    sessions.end(request, answer)
    return answer


def _inside(address: str) -> str:
    """An address of the studio; home for any other, so that nobody is led elsewhere after he signed in."""
    path = address.partition("?")[0]
    return address if path == ROOT or (path.startswith(f"{ROOT}/") and "\\" not in address) else ROOT
