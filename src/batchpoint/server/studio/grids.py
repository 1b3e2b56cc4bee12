"""The grid of a schedule: times by keys, with what is done, failed or missing; and the backfill of what is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from batchpoint.entities.grids import WHOLE, CellState, Grid, Key, values_of
from batchpoint.errors import BatchpointError, InvalidEntityError
from batchpoint.server.studio.rendering import Facts, Page, Visit, Visited, html, page, see_other
from batchpoint.server.studio.sessions import SentForm

router = APIRouter(prefix="/schedules")

TIMES_SHOWN = 14
KEYS_ON_A_PAGE = 50
"""A form that names them all stays below the limit of a form's fields."""


class GridCell(Facts):
    """What became of a key at a time."""

    state: CellState
    job: str | None


class GridLine(Facts):
    """One key."""

    id: Key
    key: Mapping[str, str | None]
    cells: Sequence[GridCell]


class GridPage(Page):
    """Some lines of a grid."""

    schedule: str
    times: Sequence[datetime]
    """The columns, UTC."""
    counts: Sequence[Mapping[CellState, int]]
    """For each time, how many keys are in which state."""
    lines: Sequence[GridLine]
    keys: int
    """How many lines there are on all pages."""
    is_whole: bool
    """Whether the jobs know no keys, so that there is but one line."""
    search: str
    gaps: bool
    until: str | None
    earlier: str | None
    """The ``until`` of the times before these."""
    before: int | None
    following: int | None
    """Where the pages of keys before and after begin; None where there is none."""
    refusal: str | None = None


@page(router, "/{name}/grid", "grid.html")
def grid(
    visit: Visited,
    name: str,
    until: str = "",
    search: str = "",
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    *,
    gaps: bool = False,
) -> GridPage:
    """The grid of a schedule: its last times, or those until another one."""
    return _grid(visit, name, until=until, search=search, offset=offset, gaps=gaps)


@router.post("/{name}/backfill", name="schedules.backfill", include_in_schema=False)
def backfill(visit: Visited, name: str, form: SentForm) -> Response:
    """Start the jobs of what was chosen, and show what becomes of it."""
    until = str(form.get("until", ""))
    try:
        visit.work.backfills.start(
            name,
            {_moment(str(time)) for time in form.getlist("time")},
            {str(key) for key in form.getlist("key")},
            only_gaps=form.get("all") is None,
            by=visit.visitor.name,
        )
    except BatchpointError as refusal:
        shown = _grid(visit, name, until=until, refusal=refusal.message)
        return html(visit.request, "grid.html", shown, at=visit.at, visitor=visit.visitor, status=422)
    return see_other(visit.at.grid(name, until=until))


def shown_keys(grid: Grid, *, search: str, gaps: bool) -> Sequence[Key]:
    """The keys in which a text occurs; with ``gaps`` those of which something failed or is missing. Pure."""
    wanted = search.strip().lower()
    found = [key for key in grid.keys if any(wanted in (value or "").lower() for value in values_of(key).values())]
    found = list(grid.keys) if not wanted else found
    if not gaps:
        return found
    with_gaps = {key for some in grid.gaps(grid.times, found).values() for key in some}
    return [key for key in found if key in with_gaps]


def _grid(
    visit: Visit,
    name: str,
    *,
    until: str,
    search: str = "",
    offset: int = 0,
    gaps: bool = False,
    refusal: str | None = None,
) -> GridPage:
    made = visit.work.backfills.grid(name, until=_moment(until) if until else None, count=TIMES_SHOWN + 1)
    times = made.times[-TIMES_SHOWN:]
    keys = shown_keys(Grid(times, made.keys, made.attempts), search=search, gaps=gaps)
    following = offset + KEYS_ON_A_PAGE
    cells = {key: [made.cell(key, time) for time in times] for key in made.keys}
    return GridPage(
        title=f"Grid of {name}",
        schedule=name,
        times=times,
        counts=[Counter(cells[key][column].state for key in made.keys) for column in range(len(times))],
        lines=[
            GridLine(id=key, key=values_of(key), cells=[GridCell(state=one.state, job=one.job) for one in cells[key]])
            for key in keys[offset:following]
        ],
        keys=len(keys),
        is_whole=list(made.keys) == [WHOLE],
        search=search,
        gaps=gaps,
        until=until or None,
        earlier=_said(made.times[0]) if len(made.times) > TIMES_SHOWN else None,
        before=max(offset - KEYS_ON_A_PAGE, 0) if offset else None,
        following=following if following < len(keys) else None,
        refusal=refusal,
    )


def _moment(text: str) -> datetime:
    """A time as the grid says it. Raises ``InvalidEntityError`` for another text."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidEntityError(f"{text!r} is no time. Give one such as 2026-11-23T02:00:00Z.") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _said(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
