"""Pages from typed contexts: as HTML, or the same facts as JSON. What stands in them is never run.

Templates escape whatever is put into them, and the browser is told to run no script but our one file: a log line, a
file's name or a prediction stays text.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict

from batchpoint import __version__
from batchpoint.entities.secrets import masked, masked_in, without_secrets
from batchpoint.entities.studio_addresses import ROOT, Addresses
from batchpoint.entities.tokens import Token
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE
from batchpoint.errors import AuthenticationError, BatchpointError
from batchpoint.server.context import Context, context_of
from batchpoint.server.studio import plots, sessions
from batchpoint.workspace import Workspace

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every page."""


class Facts(BaseModel):
    """What is shown, or a part of it."""

    model_config = ConfigDict(frozen=True)


class Page(Facts):
    """What one page shows."""

    title: str


class ErrorPage(Page):
    """Something that was asked for could not be done."""

    status: int
    message: str
    request_id: str | None = None


@dataclass(frozen=True)
class Visit:
    """One look at a page: who looks, within which workspace."""

    request: Request
    visitor: Token
    shared: Context

    @property
    def work(self) -> Workspace:
        """The operations of the workspace."""
        return self.shared.workspace

    @property
    def at(self) -> Addresses:
        """The addresses of its pages."""
        return Addresses(self.work.name)

    def rendered(self, template: str, page: Page) -> Response:
        """The page: HTML, or JSON for whoever asks for ``?format=json``, which holds no secret either."""
        if wants_json(self.request):
            told = without_secrets(page.model_dump(mode="json", exclude_none=True))
            return JSONResponse(told, headers=HEADERS)
        return html(self.request, template, page, at=self.at, visitor=self.visitor)

    def fragment(self, template: str, page: Page) -> str:
        """A part of a page, as HTML."""
        return _environment().get_template(template).render(page=page, at=self.at, now=datetime.now(UTC))


def _visit(request: Request, visitor: sessions.Visitor, workspace: str = DEFAULT_WORKSPACE) -> Visit:
    """A look into a workspace, which is not made by being looked at. Raises ``NotFoundError``."""
    context = context_of(request)
    found = context.workspace.within(workspace, create=False)
    request.scope["workspace"] = found.name
    return Visit(request, visitor, replace(context, workspace=found))


Visited = Annotated[Visit, Depends(_visit)]

View = TypeVar("View", bound=Callable[..., Page])


def page(router: APIRouter, path: str, template: str) -> Callable[[View], View]:
    """Show what a function answers with at a path; the function takes a ``visit: Visited`` among its arguments."""

    def register(view: View) -> View:
        @functools.wraps(view)
        def show(**given: Any) -> Response:
            visit: Visit = given["visit"]
            return visit.rendered(template, view(**given))

        router.get(path, name=f"studio.{view.__name__}", include_in_schema=False)(show)
        return view

    return register


def html(
    request: Request,
    template: str,
    page: Page,
    *,
    at: Addresses,
    visitor: Token | None = None,
    status: int = 200,
    **more: Any,
) -> Response:
    """A whole page."""
    text = (
        _environment()
        .get_template(template)
        .render(
            page=page,
            at=at,
            visitor=visitor,
            proof=sessions.proof(request),
            here=_here(request),
            twin=str(request.url.include_query_params(format="json")),
            now=datetime.now(UTC),
            version=__version__,
            **more,
        )
    )
    return HTMLResponse(text, status_code=status, headers=HEADERS)


def see_other(address: str) -> Response:
    """After a form: the page to look at."""
    return RedirectResponse(address, status_code=303, headers=HEADERS)


def wants_json(request: Request) -> bool:
    """Whether a program asks."""
    return request.query_params.get("format") == "json"


def is_shown(request: Request) -> bool:
    """Whether the answer is a page of the studio, which a person reads."""
    path = request.url.path
    return (path == ROOT or path.startswith(f"{ROOT}/")) and not wants_json(request)


def error_page(request: Request, error: BatchpointError, status: int) -> Response:
    """An error, told to a person; whoever is not signed in is asked to, and comes back afterwards."""
    at = Addresses(request.scope.get("workspace", DEFAULT_WORKSPACE))
    if isinstance(error, AuthenticationError) and request.method == "GET":
        answer = see_other(at.sign_in(then=_here(request)))
        sessions.forget(request, answer)
        return answer
    told = ErrorPage(
        title=f"Error {status}",
        status=status,
        message=masked_in(error.message),
        request_id=request.scope.get("request_id"),
    )
    visitor = sessions.known_visitor(request)
    return html(request, "error.html", told, at=at, visitor=visitor, status=status)


def _here(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("batchpoint.server.studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    environment.globals["plots"] = plots
    return environment


# ── how facts are put into words ──


def duration(seconds: float | None) -> str:
    """Seconds for people: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``, ``4 d 3 h``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    left = int(seconds)
    words: list[str] = []
    for unit, size in units:
        if (count := left // size) and len(words) < 2:
            words.append(f"{count} {unit}")
        left %= size
    return " ".join(words)


def tick(seconds: float, length: float) -> str:
    """A place on an axis of so many seconds, with as many digits as tell it from its neighbours a quarter away."""
    if not 0 < length < 4:
        return duration(seconds)
    return f"{seconds:.{math.ceil(-math.log10(length / 4))}f} s"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def number(value: float | None) -> str:
    """A number with its thousands apart."""
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"


def value(of: float) -> str:
    """A number that may be of any size, with as many digits as tell something."""
    return f"{of:,.6g}"


def moment(at: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def declared(value: object) -> str:
    """Nested values as JSON for people. Jinja's own filter writes ``\\u003e`` for ``>``, as scripts need it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


_FILTERS: Mapping[str, Callable[..., str]] = {
    "duration": duration,
    "tick": tick,
    "size": size,
    "number": number,
    "value": value,
    "moment": moment,
    "declared": declared,
    "masked": masked,
    "masked_in": masked_in,
}
