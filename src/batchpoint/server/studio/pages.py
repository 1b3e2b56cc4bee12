"""The pages that belong to nothing in particular: home, signing in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import Response

from batchpoint.entities.job_queries import JobQuery
from batchpoint.entities.jobs import TERMINAL_STATUSES, Job, JobStatus
from batchpoint.entities.schedules import Schedule, ScheduleRun
from batchpoint.entities.studio_addresses import ROOT, Addresses
from batchpoint.errors import AuthenticationError, PermissionDeniedError, TooManyRequestsError
from batchpoint.server.streams import HoldingResponse
from batchpoint.server.studio import sessions
from batchpoint.server.studio.live import LiveParts, Parts, still_here, stream
from batchpoint.server.studio.rendering import HEADERS, Page, Visit, Visited, html, page, see_other

router = APIRouter()

SHOWN = 10
"""Jobs of each kind on the home page."""
LIVE = ("home_as_of", "home_at_work", "home_wrong", "home_next", "home_ended")
"""Parts of the page: a template, and an element of the page, for each."""
APART_SECONDS = 10.0
"""How often they are made anew: among 100,000 jobs that takes a quarter of a second."""
LOOK_SECONDS = 5.0
"""How soon it is noticed that a reader is gone, who holds a place among those who wait."""
LATE = timedelta(hours=24)
"""What happened last night is told of for so long."""


class HomePage(Page):
    """What runs, what failed, what comes next."""

    at_work: Sequence[Job]
    """Not finished, the newest first."""
    went_wrong: Sequence[Job]
    """Ended of late, and failed, or items of them did, and no retry has completed; the last ended first."""
    went_wrong_found: int
    """How many did, also those that are not shown."""
    since: datetime
    """What is of late ended after it."""
    not_started: Sequence[ScheduleRun]
    """Times of schedules, of late, whose job could not be started, or was missed."""
    not_started_found: int
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
    return _home(visit)


@router.get("/live", name="studio.home_live", include_in_schema=False)
def live(visit: Visited) -> HoldingResponse:
    """The parts of the first page, every few seconds."""
    live_parts: LiveParts = visit.request.app.state.live_parts
    allowed, closing = still_here(visit), visit.shared.closing

    def make() -> tuple[Mapping[str, str], bool]:
        made = _home(visit)
        return {part: visit.fragment(f"_{part}.html", made) for part in LIVE}, False

    def parts() -> tuple[Parts, bool]:
        return live_parts.of((visit.work.name,), make, apart=APART_SECONDS)

    def wait(_: float) -> bool:
        closing.wait(LOOK_SECONDS)
        return allowed()

    place = visit.shared.take_waiting_place()
    return HoldingResponse(stream(parts, wait), place, media_type="text/event-stream", headers=HEADERS)


def _home(visit: Visit) -> HomePage:
    jobs, schedules, since = visit.work.jobs, visit.work.schedules, visit.work.registry.now() - LATE
    coming = [one for one in schedules.list(enabled=True) if one.next_run_at is not None]
    wrong = jobs.find(JobQuery(went_wrong=True, ended_since=since, sort="finished", limit=SHOWN))
    runs, runs_found = schedules.not_started(since, limit=SHOWN)
    last = jobs.find(JobQuery(sort="finished", limit=SHOWN)).jobs  # those that go on come after all that ended
    return HomePage(
        title="Home",
        at_work=jobs.list(status=set(JobStatus) - TERMINAL_STATUSES, limit=SHOWN),
        went_wrong=wrong.jobs,
        went_wrong_found=wrong.found,
        since=since,
        not_started=runs,
        not_started_found=runs_found,
        finished=[job for job in last if job.status.is_finished],
        coming=sorted(coming, key=lambda one: str(one.next_run_at))[:SHOWN],
    )


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
