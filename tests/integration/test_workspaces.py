"""Workspaces of one server: what is in one is not there for the other; on SQLite and PostgreSQL alike."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Insert, Table

from batchpoint.background.scheduler import Scheduler
from batchpoint.background.service import Background
from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import InvokeRequest, Job, JobStatus
from batchpoint.entities.pipeline_deployments import PublishRequest, RunRequest
from batchpoint.entities.pipelines import Component, Pipeline
from batchpoint.entities.resources import Compute, Datastore
from batchpoint.entities.schedules import Schedule
from batchpoint.entities.scored_models import ModelReport
from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.errors import ConflictError, InvalidEntityError, NotFoundError
from batchpoint.registry import Registry
from batchpoint.registry.database import Database
from batchpoint.registry.schedules import DueRuns, Schedules
from batchpoint.registry.scope import Scope
from batchpoint.registry.workspaces import Workspaces as WorkspaceRows
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.azure_wire import WS
from integration.conftest import Clock
from integration.served import FAKE_RUNNER, eventually, served

SCRIPT = """
import pathlib, time
MARK = "{mark}"
def init():
    pass
def run(files):
    here = pathlib.Path("{meeting}")
    (here / MARK).touch()
    until = time.monotonic() + 30
    while len(list(here.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return [f"{{MARK}} beside {{len(list(here.iterdir())) - 1}}" for _ in files]
"""
"""Waits for the other workspace's run: both are scored at once."""


@pytest.fixture
def server(database_url: str, tmp_path: Path, clock: Clock) -> Iterator[Workspace]:
    """The default workspace of a server, whose clock the test moves; once on SQLite and once on PostgreSQL."""
    with Workspace.open(Settings(home=tmp_path / "home", database_url=database_url), now=clock) as opened:
        yield opened


def fill(work: Workspace, folder: Path, *, script: str = "def run(files):\n    return files\n") -> None:
    """Make one of everything in a workspace. Names are the same in all; what they say is the workspace's name."""
    mark = work.name
    source = folder / f"sources-{mark}"
    (source / "code").mkdir(parents=True)
    (source / "code" / "score.py").write_text(script)
    (source / "rows.csv").write_text(f"a\n{mark}\n")
    said: dict[str, Any] = {"description": mark}
    version: dict[str, Any] = {**said, "version": "1"}
    work.resources.create_or_update("compute", Compute(name="cpu-two", max_instances=2, **said))
    lake = Datastore(name="lake", path=str(source), credentials={"account_key": mark}, **said)  # type: ignore[arg-type]  # read as a body
    work.resources.create_or_update("datastore", lake)
    work.assets.create_or_update("model", Model(name="risk", path=str(source / "rows.csv"), **version))
    data = Data(name="rows", type="uri_file", path=str(source / "rows.csv"), **version)
    work.assets.create_or_update("data", data)
    work.assets.create_or_update("code", Code(name="code", path=str(source / "code"), **version))
    work.assets.create_or_update("environment", Environment(name="plain", conda_file={"name": mark}, **version))
    step = {"name": "count", "type": "command", "command": f"echo {mark}", **version}
    work.assets.create_or_update("component", Component.model_validate(step))
    work.endpoints.create_or_update(BatchEndpoint(name="churn", **said))
    deployment = {
        "name": "blue", "endpoint_name": "churn", "model": "azureml:risk:1",
        "code_configuration": {"code": "azureml:code:1", "scoring_script": "score.py"}, **said,
    }  # fmt: skip
    declared = BatchDeployment.model_validate(deployment)
    work.endpoints.create_or_update_deployment(declared, set_default=True)
    request = {"inputs": {"data": {"path": "azureml:rows:1"}}, "job_name": "nightly", **said}
    work.endpoints.invoke("churn", InvokeRequest.model_validate(request), idempotency_key="once")
    report = ModelReport(key={"store": mark}, rows=1)
    assert work.registry.scored_models.add("churn", "blue", "nightly", [report])
    pipeline = Pipeline.model_validate({"jobs": {"count": {"type": "command", "component": "azureml:count:1"}}})
    work.published_pipelines.publish(PublishRequest(name="counting", pipeline=pipeline, **said))
    work.pipelines.submit(pipeline.model_copy(update={"name": "prep", **said}), idempotency_key="p")
    invoke = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": "azureml:rows:1"}}}
    trigger = {"type": "cron", "expression": "0 * * * *"}
    daily = {"name": "hourly", "trigger": trigger, "create_job": {**invoke, "description": mark}, **said}
    work.schedules.create_or_update(Schedule.model_validate(daily))


def seen(work: Workspace) -> dict[str, list[str]]:
    """All that a workspace shows, as name and description."""
    lists: dict[str, Any] = {
        **{kind: work.assets.list(kind) for kind in ("model", "data", "environment", "code", "component")},  # type: ignore[arg-type]  # the kinds
        "compute": work.resources.list("compute"),
        "datastore": work.resources.list("datastore"),
        "endpoint": work.endpoints.list(),
        "deployment": work.registry.deployments.list(),
        "schedule": work.schedules.list(),
        "published pipeline": work.published_pipelines.list(),
        "job": work.jobs.list(),
    }
    found = {kind: [f"{each.name} {each.description}" for each in each_list] for kind, each_list in lists.items()}
    found["board"] = [str(line.key) for line in work.registry.scored_models.list("churn", "blue")]
    return found


EMPTY = {
    **{kind: list[str]() for kind in ("model", "data", "environment", "code", "component", "endpoint", "deployment")},
    **{kind: list[str]() for kind in ("schedule", "published pipeline", "job", "board")},
    "compute": ["local None"],
    "datastore": ["workspaceblobstore None"],
}


def test_what_has_the_same_name_in_two_workspaces_is_two_things(server: Workspace, tmp_path: Path) -> None:
    risk, sales = server.within("risk"), server.within("sales")
    fill(risk, tmp_path)
    assert seen(sales) == seen(server) == EMPTY
    fill(sales, tmp_path)
    for work in (risk, sales):
        mark = work.name
        assert {kind: names for kind, names in seen(work).items() if kind != "board"} == {
            "model": [f"risk {mark}"],
            "data": [f"rows {mark}"],
            "environment": [f"plain {mark}"],
            "code": [f"code {mark}"],
            "component": ["counting None", f"count {mark}"],
            "compute": [f"cpu-two {mark}", "local None"],
            "datastore": [f"lake {mark}", "workspaceblobstore None"],
            "endpoint": [f"churn {mark}"],
            "deployment": [f"blue {mark}"],
            "schedule": [f"hourly {mark}"],
            "published pipeline": [f"counting {mark}"],
            "job": [f"prep {mark}", f"nightly {mark}"],
        }
        assert seen(work)["board"] == [str({"store": mark})]
        file = work.assets.local_path(work.assets.get("data", "rows"))  # type: ignore[arg-type]  # it is data
        assert file.read_text() == f"a\n{mark}\n"
        assert file.is_relative_to(work.folder / "datastores" / "workspaceblobstore")
        credentials = work.registry.resources.credentials("lake")
        assert credentials is not None
        assert credentials.account_key is not None
        assert credentials.account_key.get_secret_value() == mark
        assert work.places.resolve("azureml://datastores/lake/paths/rows.csv").url.endswith(f"sources-{mark}/rows.csv")
        for job in work.jobs.list():
            assert job.description == work.jobs.get(job.name).description == mark
            assert len(work.jobs.events(job.name)) == (2 if job.name == "nightly" else 1)  # it is on the board
    assert seen(server) == EMPTY


CHANGES: dict[str, Callable[[Workspace], object]] = {
    "a model is described": lambda work: work.assets.update("model", "risk", description="changed"),
    "data is archived": lambda work: work.assets.archive("data", "rows"),
    "a compute is changed": lambda work: work.resources.create_or_update(
        "compute", Compute(name="cpu-two", description="changed")
    ),
    "a compute is deleted": lambda work: work.resources.delete("compute", "cpu-two"),
    "a datastore is deleted": lambda work: work.resources.delete("datastore", "lake"),
    "a deployment is changed": lambda work: work.endpoints.update_deployment(
        "churn", "blue", lambda before: before.model_copy(update={"description": "changed"})
    ),
    "a schedule is disabled": lambda work: work.schedules.disable("hourly"),
    "a schedule is deleted": lambda work: work.schedules.delete("hourly", force=True),
    "a published pipeline is deleted": lambda work: work.published_pipelines.delete("counting"),
    "a job is described": lambda work: work.jobs.update("nightly", description="changed"),
    "a job is canceled": lambda work: work.jobs.cancel("nightly"),
    "a pipeline is canceled": lambda work: work.jobs.cancel("prep"),
    "a job is archived": lambda work: work.jobs.archive("nightly"),
    "an endpoint is deleted": lambda work: work.endpoints.delete("churn"),
}


def test_what_is_changed_in_one_workspace_stays_as_it_is_in_the_other(server: Workspace, tmp_path: Path) -> None:
    risk, sales = server.within("risk"), server.within("sales")
    fill(risk, tmp_path)
    fill(sales, tmp_path)
    before = whole(sales)
    for what, change in CHANGES.items():
        own = whole(risk)
        change(risk)
        assert whole(risk) != own, what
        assert whole(sales) == before, what


def whole(work: Workspace) -> object:
    """All that a workspace shows, in full."""
    jobs = work.jobs.list(archived="include")
    return (
        seen(work),
        [work.assets.list(kind) for kind in ("model", "data")],  # type: ignore[arg-type]  # the kinds
        [entity.body() for kind in ("compute", "datastore") for entity in work.resources.list(kind)],  # type: ignore[arg-type]  # the kinds
        [(job, work.jobs.events(job.name)) for job in jobs],
        [entity.body() for entity in work.schedules.list()],
    )


def test_names_of_one_workspace_mean_nothing_in_another(server: Workspace, tmp_path: Path) -> None:
    fill(server.within("risk"), tmp_path)
    sales = server.within("sales")
    lookups: list[Callable[[], object]] = [
        lambda: sales.assets.get("model", "risk", "1"),
        lambda: sales.resources.get("compute", "cpu-two"),
        lambda: sales.places.resolve("azureml://datastores/lake/paths/x"),
        lambda: sales.places.resolve("azureml://jobs/nightly/outputs/score"),
        lambda: sales.endpoints.get_deployment("churn", "blue"),
        lambda: sales.endpoints.invoke("churn", InvokeRequest.model_validate({"inputs": {"data": {"path": "/x"}}})),
        lambda: sales.jobs.get("nightly"),
        lambda: sales.jobs.cancel("nightly"),
        lambda: sales.jobs.logs("nightly"),
        lambda: sales.jobs.retry_failed("nightly"),
        lambda: sales.pipelines.from_job("prep"),
        lambda: sales.schedules.trigger("hourly"),
        lambda: sales.published_pipelines.get("counting"),
    ]
    for look in lookups:
        with pytest.raises(NotFoundError):
            look()


def made(registry: Registry, name: str) -> Registry:
    """The registry, seen from a new workspace."""
    registry.workspaces.put(NamedWorkspace(name=name), by=None)
    return registry.within(name)


def test_the_queue_is_one_and_says_whose_each_job_is(registry: Registry, clock: Clock) -> None:
    risk, sales = made(registry, "risk"), made(registry, "sales")
    for number, jobs in enumerate((risk.jobs, sales.jobs, risk.jobs)):
        jobs.enqueue(Job(name=f"job-{number}"))
    assert [each.name for each in sales.jobs.queue("local")] == [None, "job-1", None]
    claimed = [registry.jobs.claim("me", 30) for _ in range(3)]
    assert [(each.workspace, each.job.name) for each in claimed if each] == [
        ("risk", "job-0"), ("sales", "job-1"), ("risk", "job-2"),
    ]  # fmt: skip
    assert registry.jobs.counts_by_status()[JobStatus.PREPARING] == 3
    clock.move(31)
    again = sales.jobs.claim("other", 30)
    assert again is not None
    assert (again.workspace, again.job.name, again.resumed) == ("risk", "job-0", True)
    assert [event.event for event in risk.jobs.events("job-0")] == ["queued", "preparing", "lease_taken_over"]


def test_computes_of_one_name_have_a_queue_each_and_the_machine_has_one(registry: Registry) -> None:
    risk, sales = made(registry, "risk"), made(registry, "sales")
    for workspace in (risk, sales):
        workspace.resources.put("compute", Compute(name="cpu-two", max_instances=2), by=None)
        for compute in ("cpu-two", "local"):
            command = {"command": "true", "compute": f"azureml:{compute}"}
            workspace.jobs.enqueue(Job.model_validate({"name": compute, "type": "command", "command": command}))
    registry.resources.put("compute", Compute(name="local"), by=None)
    assert sorted(risk.resources.pools()) == ["local", "risk/cpu-two", "sales/cpu-two"]
    tried: list[tuple[str, str]] = []

    def full(workspace: str, job: Job) -> str:
        tried.append((workspace, job.name))
        return "full"

    assert registry.jobs.claim("me", 30, fits=full) is None
    assert tried == [
        ("risk", "cpu-two"),
        ("risk", "local"),
        ("sales", "cpu-two"),
    ]  # sales/local waits behind risk/local
    sales.resources.put("compute", Compute(name="local", max_instances=7), by=None)
    assert risk.resources.get("compute", "local") == sales.resources.get("compute", "local")


def test_a_schedule_makes_its_jobs_within_its_workspace(server: Workspace, clock: Clock, tmp_path: Path) -> None:
    risk, sales = server.within("risk"), server.within("sales")
    fill(risk, tmp_path)
    fill(sales, tmp_path)
    clock.move(timedelta(hours=1).total_seconds())
    scheduler = Scheduler(server)
    while scheduler.step():
        pass
    for work in (risk, sales):
        (run,) = work.schedules.runs("hourly")
        (job,) = work.jobs.list(schedule="hourly")
        assert (run.job_name, job.description) == (job.name, work.name)
    assert server.jobs.list(archived="include") == []


def test_two_jobs_of_one_name_are_run_at_once_and_have_their_own_predictions(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "meeting").mkdir()
    settings = Settings(home=tmp_path / "home", database_url=database_url, default_compute_instances=2)
    with Workspace.open(settings) as server:
        works = [server.within("risk"), server.within("sales")]
        for work in works:
            fill(work, tmp_path, script=SCRIPT.format(mark=work.name, meeting=tmp_path / "meeting"))
        background = Background(server)
        background.start()
        try:
            eventually(lambda: all(ended(work) for work in works), seconds=60)
        finally:
            background.stop()
        for work in works:
            job = work.jobs.get("nightly")
            assert job.status is JobStatus.COMPLETED, job.error
            assert job.folder == str(tmp_path / "home" / "workspaces" / work.name / "jobs" / "nightly")
            with work.jobs.open_output("nightly", "predictions.csv") as file:
                assert f"{work.name} beside 1" in file.read().decode()
            assert work.jobs.get("prep").status is JobStatus.COMPLETED
            (step,) = work.jobs.list(parent="prep")
            assert step.reused_job_name is None
            told = b"".join(work.jobs.read_log(step.name, path) for path, _ in work.jobs.logs(step.name))
            assert work.name.encode() in told
        assert server.jobs.list() == []


def ended(work: Workspace) -> bool:
    return all(job.status.is_finished for job in work.jobs.list())


def test_a_workspace_exists_when_it_was_created_or_used_and_its_name_has_no_case(
    server: Workspace, database_url: str
) -> None:
    server.workspaces.create_or_update(NamedWorkspace(name="Planned", description="for later"))
    assert server.within("Used") is server.within("used") is server.within("planned").within("USED")
    assert server.within("DEFAULT") is server
    assert [each.name for each in server.workspaces.list()] == ["default", "Planned", "Used"]
    changed = server.workspaces.create_or_update(NamedWorkspace(name="planned", tags={"a": "b"}))
    assert (changed.name, changed.description, changed.tags) == ("Planned", "for later", {"a": "b"})
    with Workspace.open(Settings(home=server.settings.home, database_url=database_url)) as again:
        assert again.within("used", create=False).name == "used"
        with pytest.raises(NotFoundError, match=r"no workspace named never.*when an operator"):
            again.within("never", create=False)


@pytest.mark.parametrize("name", ["ab", "-abc", "a" * 34, "a/b/c", "..", "a b c", "", "abc\n"])
def test_no_workspace_is_called_what_could_be_a_path(server: Workspace, name: str) -> None:
    with pytest.raises(InvalidEntityError, match="3 to 33"):
        server.within(name)


def test_a_workspace_that_holds_something_is_deleted_only_permanently_and_then_with_all_of_it(
    server: Workspace, tmp_path: Path
) -> None:
    risk, sales = server.within("risk"), server.within("sales")
    fill(risk, tmp_path)
    fill(sales, tmp_path)
    before = whole(sales)
    with pytest.raises(ConflictError, match=r"computes, datastores, assets, endpoints, schedules, jobs.*permanently"):
        server.delete("risk")
    with pytest.raises(ConflictError, match=r"job .* is not over"):
        server.delete("risk", permanently=True)
    for job in risk.jobs.list():
        risk.jobs.cancel(job.name)
    server.within("sales").delete("Risk", permanently=True)
    assert not risk.folder.exists()
    with pytest.raises(NotFoundError):
        server.within("risk", create=False)
    with pytest.raises(NotFoundError):
        server.delete("risk")
    assert whole(sales) == before
    assert [each.name for each in server.workspaces.list()] == ["default", "sales"]
    assert seen(server.within("risk")) == EMPTY
    (tmp_path / "again").mkdir()
    fill(server.within("risk"), tmp_path / "again")
    assert [job.name for job in server.within("risk").jobs.list()] == ["prep", "nightly"]


def test_an_empty_workspace_is_deleted_and_the_default_one_never(server: Workspace) -> None:
    used = server.within("used")
    uploaded = used.folder / "datastores" / "workspaceblobstore" / "in" / "a.csv"
    uploaded.parent.mkdir()
    uploaded.write_text("a")
    with pytest.raises(ConflictError, match="it holds files"):
        server.delete("used")
    uploaded.unlink()
    server.delete("USED")
    for permanently in (False, True):
        with pytest.raises(ConflictError, match="built in"):
            used.delete("Default", permanently=permanently)
    assert [each.name for each in server.workspaces.list()] == ["default"]


def test_what_is_made_while_a_workspace_is_being_deleted_is_not_lost(
    server: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    risk = server.within("risk")
    delete = WorkspaceRows.delete

    def made_just_before(*given: Any, **named: Any) -> None:
        risk.endpoints.create_or_update(BatchEndpoint(name="churn"))
        delete(*given, **named)

    monkeypatch.setattr(WorkspaceRows, "delete", made_just_before)
    with pytest.raises(ConflictError, match=r"risk cannot be deleted: it holds endpoints\. .*permanently"):
        server.delete("risk")
    assert [endpoint.name for endpoint in server.within("risk").endpoints.list()] == ["churn"]
    assert [datastore.name for datastore in risk.resources.list("datastore")] == ["workspaceblobstore"]


LATE_WRITES: dict[str, Callable[[Workspace], object]] = {
    **CHANGES,
    "an endpoint is made": lambda work: work.endpoints.create_or_update(BatchEndpoint(name="late")),
    "a deployment is made": lambda work: work.endpoints.create_or_update_deployment(
        work.registry.deployments.get("churn", "blue").model_copy(update={"name": "late"})  # type: ignore[arg-type]  # a batch deployment
    ),
    "an environment is made": lambda work: work.assets.create_or_update(
        "environment", Environment(name="late", conda_file={"name": "late"})
    ),
    "an endpoint is invoked": lambda work: work.endpoints.invoke(
        "churn", InvokeRequest.model_validate({"inputs": {"data": {"path": "azureml:rows:1"}}})
    ),
    "a pipeline is started": lambda work: work.published_pipelines.run("counting", RunRequest()),
    "a schedule is triggered": lambda work: work.schedules.trigger("hourly"),
    "a model is noted on the board": lambda work: work.registry.scored_models.add("churn", "blue", "nightly", []),
}


@pytest.mark.parametrize("made_anew", [False, True], ids=["gone", "made anew"])
def test_a_write_that_began_before_its_workspace_was_deleted_is_refused(
    server: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_anew: bool
) -> None:
    write = Database.write
    found: list[object] = []
    for number, (what, change) in enumerate(LATE_WRITES.items()):
        risk = server.within("risk")
        fill(risk, tmp_path / f"{number}")
        for job in risk.jobs.list():
            risk.jobs.cancel(job.name)
        between = [number]

        def deleted_first(database: Database, between: list[int] = between) -> AbstractContextManager[Connection]:
            if between:
                again = tmp_path / f"again-{between.pop()}"
                server.delete("risk", permanently=True)
                if made_anew:
                    fill(server.within("risk"), again)
                    found[:] = [whole(server.within("risk"))]
            return write(database)

        with monkeypatch.context() as patched:
            patched.setattr(Database, "write", deleted_first)
            with pytest.raises(NotFoundError, match=r"no workspace named risk any more.*deleted since") as refused:
                change(risk)
        assert (what, refused.value.details) == (what, {"kind": "workspace", "name": "risk"})
        assert not between, what
        if made_anew:
            assert whole(server.within("risk")) == found[0], what
            for job in server.within("risk").jobs.list():
                server.within("risk").jobs.cancel(job.name)
            server.delete("risk", permanently=True)
        else:
            assert [each.name for each in server.workspaces.list()] == ["default"], what
            assert seen(server.within("risk")) == EMPTY, what


def test_a_workspace_is_not_deleted_between_the_look_and_the_write_of_another(
    server: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    risk = server.within("risk")
    refused: list[ConflictError] = []

    def delete() -> None:
        try:
            server.delete("risk")
        except ConflictError as error:
            refused.append(error)

    deletion = threading.Thread(target=delete, daemon=True)

    def asked_meanwhile(self: Scope, table: Table) -> Insert:
        deletion.start()
        deletion.join(0.5)  # it waits for the transaction that is under way
        return insert(self, table)

    insert = Scope.insert
    with monkeypatch.context() as patched:
        patched.setattr(Scope, "insert", asked_meanwhile)
        risk.endpoints.create_or_update(BatchEndpoint(name="churn"))
    deletion.join(30)
    assert [str(error) for error in refused if "it holds endpoints" in str(error)]
    assert [endpoint.name for endpoint in server.within("risk").endpoints.list()] == ["churn"]


def test_a_schedule_that_was_due_in_a_deleted_workspace_does_not_make_it_anew(
    server: Workspace, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    risk = server.within("risk")
    fill(risk, tmp_path)
    for job in risk.jobs.list():
        risk.jobs.cancel(job.name)
    clock.move(timedelta(hours=1).total_seconds())
    claim = Schedules.claim_due

    def deleted_after(schedules: Schedules) -> DueRuns | None:
        claimed = claim(schedules)
        if claimed is not None:
            server.delete("risk", permanently=True)
        return claimed

    monkeypatch.setattr(Schedules, "claim_due", deleted_after)
    scheduler = Scheduler(server)
    while scheduler.step():
        pass
    assert [each.name for each in server.workspaces.list()] == ["default"]


def test_the_folder_of_a_deleted_workspace_is_gone_at_once_whoever_still_writes_in_it(
    server: Workspace, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in (server.settings.home / "workspaces").iterdir())

    def written_to(*_: Any, **__: Any) -> None:
        other = threading.Thread(target=server.within, args=["other"], daemon=True)
        other.start()
        other.join(30)
        assert not other.is_alive(), "another workspace waits for the files of this one"
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    risk = server.within("risk")
    (risk.folder / "datastores" / "workspaceblobstore" / "a.csv").write_text("a")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", written_to)
        server.delete("risk", permanently=True)
    assert not risk.folder.exists()
    left, other = names()
    assert (left.startswith(".deleted-"), other) == (True, "other")
    server.within("third")
    server.delete("third")
    assert names() == ["other"]
    (server.settings.home / "workspaces" / left / "in").mkdir(parents=True)
    with Workspace.open(Settings(home=server.settings.home, database_url=database_url)):
        assert names() == ["other"]


def test_another_server_notices_that_a_workspace_is_deleted(server: Workspace, database_url: str) -> None:
    with Workspace.open(Settings(home=server.settings.home, database_url=database_url)) as second:
        known = second.within("risk")
        assert second.within("risk") is known
        server.delete("risk")

        def noticed() -> bool:
            try:
                second.within("risk", create=False)
            except NotFoundError:
                return True
            return False

        eventually(noticed)
        again = second.within("risk")
        assert again is not known
        assert seen(again) == EMPTY
        server.delete("risk")
        eventually(lambda: second.within("risk") is not again)
        assert seen(second.within("risk")) == EMPTY


def test_what_is_built_in_stays_in_every_workspace(server: Workspace) -> None:
    risk = server.within("risk")
    for kind, name in (("compute", "local"), ("datastore", "workspaceblobstore")):
        with pytest.raises(ConflictError, match="built in"):
            risk.resources.delete(kind, name)  # type: ignore[arg-type]  # the kinds
    store = risk.resources.get("datastore", "workspaceblobstore")
    assert isinstance(store, Datastore)
    assert store.path == str(server.settings.home / "workspaces" / "risk" / "datastores" / "workspaceblobstore")
    assert store.is_default


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    with Workspace.open(Settings(home=tmp_path / "home")) as workspace:
        background = Background(workspace, runner_parent=FAKE_RUNNER)
        yield Context(workspace, background, server_id="s1", shares_files=True)
        background.dispatcher.stop()


@contextmanager
def client_of(context: Context, role: Any) -> Iterator[httpx.Client]:
    secret, _ = context.workspace.tokens.create(f"{role}-token", role)
    with served(context, secret) as client:
        yield client


RISK = {"X-Batchpoint-Workspace": "risk"}


def test_a_request_is_about_the_workspace_that_its_header_or_its_address_names(context: Context) -> None:
    with client_of(context, "admin") as client:
        made = client.put("/api/v1/endpoints/churn", json={"description": "of risk"}, headers=RISK).json()
        assert made["scoring_uri"].endswith("/api/v1/endpoints/churn/invoke?workspace=risk")
        assert client.get("/api/v1/endpoints/churn").status_code == 404
        assert client.get("/api/v1/endpoints/churn?workspace=risk").json()["description"] == "of risk"
        client.put("/api/v1/endpoints/churn", json={"description": "of default"})
        listed = client.get("/api/v1/endpoints").json()["value"]
        assert [each["description"] for each in listed] == ["of default"]
        assert listed[0]["scoring_uri"].endswith("/api/v1/endpoints/churn/invoke")
        upload = "/api/v1/datastores/workspaceblobstore/files/a.txt"
        client.put(upload, content=b"risk", headers=RISK)
        assert client.get(upload, headers=RISK).text == "risk"
        assert client.get(upload).status_code == 404
        assert [each["name"] for each in client.get("/api/v1/workspaces").json()["value"]] == ["default", "risk"]
        client.put("/api/v1/workspaces/planned", json={"description": "for later"})
        assert client.get("/api/v1/workspaces/planned").json()["description"] == "for later"
        assert client.get("/api/v1/jobs", headers={"X-Batchpoint-Workspace": "../x"}).status_code == 422
        audited = client.get("/api/v1/audit").json()["value"]
        assert [record["details"].get("workspace") for record in audited] == [None, "risk", None, "risk"]


def test_who_only_reads_makes_no_workspace_by_naming_it(context: Context) -> None:
    with client_of(context, "reader") as client:
        refused = client.get("/api/v1/jobs", headers=RISK)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        nobody = client.get("/api/v1/jobs", headers={**RISK, "Authorization": ""})
        assert nobody.status_code == 401
        context.workspace.within("risk")
        assert client.get("/api/v1/jobs", headers=RISK).status_code == 200
    assert [each.name for each in context.workspace.workspaces.list()] == ["default", "risk"]


def test_a_workspace_in_an_address_of_azures_dialect_is_the_same_one(context: Context) -> None:
    azure = f"{WS.removesuffix('default')}Risk"
    with client_of(context, "operator") as client:
        assert client.get(f"{azure}/datastores/workspaceblobstore").status_code == 200  # used for the first time
        client.put("/api/v1/endpoints/churn", json={}, headers=RISK)
        assert client.get(f"{azure}/batchEndpoints/churn").status_code == 200
        assert client.get(f"{WS}/batchEndpoints/churn").status_code == 404
        written = client.put("/Risk.blob.core.windows.net/azureml-blobstore/a.txt", content=b"risk")
        assert written.status_code == 201
        assert client.get("/api/v1/datastores/workspaceblobstore/files/a.txt", headers=RISK).text == "risk"
        assert client.get("/default.blob.core.windows.net/azureml-blobstore/a.txt").status_code == 404
        listed = client.get(WS.rpartition("/")[0]).json()["value"]
        assert [each["name"] for each in listed] == ["default", "Risk"]
        assert client.get(azure, headers={"Authorization": ""}).status_code == 401
        assert client.get(f"{WS.removesuffix('default')}never", headers={"Authorization": ""}).status_code == 401
    assert [each.name for each in context.workspace.workspaces.list()] == ["default", "Risk"]


def test_workspaces_are_stored_and_deleted_in_azures_dialect_too(context: Context) -> None:
    azure = f"{WS.removesuffix('default')}risk"
    about = {"friendlyName": "Risk", "description": "of risk", "hbiWorkspace": False}
    with client_of(context, "admin") as client:
        made = client.put(azure, json={"location": "west", "tags": {"a": "b"}, "properties": about}).json()
        assert (made["name"], made["tags"], made["properties"]["provisioningState"]) == (
            "risk",
            {"a": "b"},
            "Succeeded",
        )
        client.patch(azure, json={"properties": {"description": "changed"}})
        shown = client.get(azure).json()
        assert (shown["properties"]["friendlyName"], shown["properties"]["description"]) == ("Risk", "changed")
        assert shown["tags"] == {"a": "b"}
        again = client.put(azure, json={"location": "west"}).json()
        assert (again["tags"], again["properties"]["friendlyName"]) == ({}, "risk")
        client.put(f"{azure}/batchEndpoints/churn", json={"properties": {}})
        refused = client.delete(azure, params={"forceToPurge": "false"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "Conflict")
        assert client.delete(azure, params={"forceToPurge": "true"}).status_code == 200
        assert client.delete(azure, params={"forceToPurge": "true"}).status_code == 204
        assert client.delete(WS, params={"forceToPurge": "true"}).status_code == 409
        assert client.put(f"{WS.removesuffix('default')}ab", json={}).status_code == 422
        client.put("/api/v1/workspaces/planned", json={})
        assert client.delete("/api/v1/workspaces/planned").status_code == 204
        assert client.delete("/api/v1/workspaces/planned").status_code == 404
    with client_of(context, "operator") as client:
        client.put(azure, json={})
        assert client.delete(azure).status_code == 403
        assert client.delete("/api/v1/workspaces/risk").status_code == 403
