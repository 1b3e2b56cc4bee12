"""Where the pages of the studio are, for its own links and for who prints them. No address is spelled anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from batchpoint.entities.base import Asset, Entity
from batchpoint.entities.endpoints import BatchEndpoint
from batchpoint.entities.jobs import Job
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.entities.resources import Compute, Datastore
from batchpoint.entities.schedules import Schedule
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE

ROOT = "/studio"


@dataclass(frozen=True)
class Addresses:
    """The addresses of pages within one workspace."""

    workspace: str = DEFAULT_WORKSPACE

    @property
    def is_named(self) -> bool:
        """Whether addresses have to name the workspace."""
        return self.workspace != DEFAULT_WORKSPACE

    def page_of(self, entity: Entity) -> str | None:
        """The page that shows an entity; a deployment is shown on its endpoint's. None: there is none."""
        match entity:
            case Job():
                return self.job(entity.name)
            case BatchEndpoint():
                return self.endpoint(entity.name)
            case Schedule():
                return self.schedule(entity.name)
            case Asset():
                kind = next((kind for kind, known in ASSET_KINDS.items() if isinstance(entity, known)), None)
                return self.asset(kind, entity.name, version=entity.version) if kind else None
            case Datastore():
                return self.files(("datastores", entity.name))
            case Compute():
                return self.computes()
        endpoint = getattr(entity, "endpoint_name", None)
        return self.endpoint(endpoint) if endpoint else None

    def home(self) -> str:
        """What runs, what failed, what comes next."""
        return self._at("")

    def home_live(self) -> str:
        """The same as it changes, as server-sent events."""
        return self._at("/live")

    def endpoints(self) -> str:
        """All endpoints."""
        return self._at("/endpoints")

    def endpoint(self, name: str) -> str:
        """One endpoint, its deployments and jobs."""
        return self._at("/endpoints", name)

    def default_deployment(self, name: str) -> str:
        """Takes the form that sets an endpoint's default deployment."""
        return self._at("/endpoints", name, "default")

    def invoke(self, name: str, **filled: str | int | None) -> str:
        """The form that starts a job of an endpoint; ``path`` or ``plan`` fill it in."""
        return self._at("/endpoints", name, "invoke", **filled)

    def plan(self, name: str) -> str:
        """Takes the same form, to score a sample and forecast the whole."""
        return self._at("/endpoints", name, "plan")

    def board(self, endpoint: str, deployment: str, **query: str | int | None) -> str:
        """What the models of a deployment's map did, over all jobs."""
        return self._at("/endpoints", endpoint, "deployments", deployment, "models", **query)

    def job_board(self, name: str, **query: str | int | None) -> str:
        """What the models of a map did in one job."""
        return self._at("/jobs", name, "models", **query)

    def jobs(self, **filters: str | int | None) -> str:
        """Jobs, those that the filters leave."""
        return self._at("/jobs", **filters)

    def job(self, name: str) -> str:
        """One job."""
        return self._at("/jobs", name)

    def job_live(self, name: str) -> str:
        """What changes on the page of a job, as server-sent events."""
        return self._at("/jobs", name, "live")

    def job_quality(self, name: str) -> str:
        """What the columns of a job hold."""
        return self._at("/jobs", name, "quality")

    def job_action(self, name: str, action: str) -> str:
        """Takes the form that cancels a job, or scores again what failed in it."""
        return self._at("/jobs", name, action)

    def log(self, name: str, path: str, **query: str | int | None) -> str:
        """A log file of a job, to be read in the browser."""
        return self._at("/jobs", name, "logs", *path.split("/"), **query)

    def log_tail(self, name: str, path: str, **query: str | int | None) -> str:
        """What is added to a log file, as server-sent events."""
        return self._at("/jobs", name, "tail", *path.split("/"), **query)

    def errors(self, name: str, **query: str | int | None) -> str:
        """The items that failed in a job, those of a group or all."""
        return self._at("/jobs", name, "errors", **query)

    def picture(self, name: str, output: str, path: str) -> str:
        """A published picture, to be shown on a page."""
        return self._at("/jobs", name, "pictures", output, *path.split("/"))

    def log_file(self, name: str, path: str) -> str:
        """A log file of a job as it is."""
        return self._at("/jobs", name, "files", *path.split("/"))

    def output_file(self, name: str, output: str, path: str) -> str:
        """A published file of a job."""
        return self._at("/jobs", name, "outputs", output, *path.split("/"))

    def schedules(self) -> str:
        """All schedules."""
        return self._at("/schedules")

    def schedule(self, name: str) -> str:
        """One schedule."""
        return self._at("/schedules", name)

    def grid(self, name: str, **query: str | int | None) -> str:
        """What became of each key at each time of a schedule."""
        return self._at("/schedules", name, "grid", **query)

    def backfill(self, name: str) -> str:
        """Takes the form that starts the jobs of times that are over."""
        return self._at("/schedules", name, "backfill")

    def schedule_change(self, name: str, change: str) -> str:
        """Takes the form that enables, disables or triggers a schedule."""
        return self._at("/schedules", name, change)

    def assets(self, kind: str = "model", **query: str | int | None) -> str:
        """The assets of a kind."""
        return self._at("/assets", kind, **query)

    def asset(self, kind: str, name: str, **query: str | int | None) -> str:
        """One asset; its newest version, unless ``version`` names another."""
        return self._at("/assets", kind, name, **query)

    def datastores(self) -> str:
        """All datastores."""
        return self._at("/datastores")

    def files(self, root: Sequence[str], path: str = "", **query: str | int | None) -> str:
        """A folder or file of ``("datastores", name)`` or ``("assets", kind, name)``, to be looked at."""
        return self._at(f"/{root[0]}", *root[1:], "files", *(step for step in path.split("/") if step), **query)

    def content(self, root: Sequence[str], path: str = "", **query: str | int | None) -> str:
        """A file as it is; with ``shown`` an image among a page's own."""
        return self._at(f"/{root[0]}", *root[1:], "content", *(step for step in path.split("/") if step), **query)

    def computes(self) -> str:
        """All computes."""
        return self._at("/computes")

    def tokens(self) -> str:
        """All tokens; takes the form that makes one."""
        return self._at("/tokens")

    def token_revoked(self, name: str) -> str:
        """Takes the form that makes a token invalid."""
        return self._at("/tokens", name, "revoke")

    def audit(self, **query: str | int | None) -> str:
        """Who did what, the newest first."""
        return self._at("/audit", **query)

    def sign_in(self, then: str | None = None) -> str:
        """Where a token becomes a session; ``then`` is the page to come back to."""
        return self._at("/sign-in", then=then)

    def sign_out(self) -> str:
        """Takes the form that ends a session."""
        return self._at("/sign-out")

    def static(self, name: str) -> str:
        """A file of the pages' own."""
        return f"{ROOT}/static/{quote(name)}"

    def _at(self, first: str, *steps: str, **query: str | int | None) -> str:
        path = "/".join([ROOT + first, *(quote(step, safe="") for step in steps)])
        told = {name: value for name, value in query.items() if value is not None and value != ""}
        if self.is_named:
            told["workspace"] = self.workspace
        return f"{path}?{urlencode(told)}" if told else path
