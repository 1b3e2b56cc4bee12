"""Schedules on both databases, with a clock that the test moves: one job for each time, whatever happens in between."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchpoint.background.scheduler import Scheduler
from batchpoint.entities.assets import Data
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, CodeConfiguration
from batchpoint.entities.jobs import Job, JobStatus, Reason
from batchpoint.entities.pipeline_deployments import PublishRequest
from batchpoint.entities.pipelines import Pipeline
from batchpoint.entities.resources import Datastore
from batchpoint.entities.schedules import MOST_WAITING, RunOutcome, Schedule, ScheduleRun
from batchpoint.errors import ConflictError, DatastoreError, InvalidEntityError, NotFoundError
from batchpoint.operations.schedules import MOST_BROKEN_TRIES
from batchpoint.registry import schedules as registry_of_schedules
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.conftest import Clock

LANDING = "azureml://datastores/workspaceblobstore/paths/landing"


@pytest.fixture
def clock() -> Clock:
    """The clock that schedules fire by; noon in spring, two days before Berlin's clocks change."""
    moved = Clock()
    moved.time = datetime(2026, 3, 27, 12, tzinfo=UTC)
    return moved


def opened(home: Path, database_url: str, clock: Clock) -> Workspace:
    return Workspace.open(Settings(home=home, database_url=database_url), now=clock)


@pytest.fixture
def workspace(database_url: str, tmp_path: Path, clock: Clock) -> Iterator[Workspace]:
    """A workspace with the endpoint ``churn``, that nothing works for but what a test steps by hand."""
    with opened(tmp_path / "home", database_url, clock) as workspace:
        code = tmp_path / "code"
        code.mkdir()
        (code / "score.py").write_text("def run(mini_batch):\n    return list(mini_batch)\n")
        (tmp_path / "data.csv").write_text("a\n1\n")
        workspace.endpoints.create_or_update(BatchEndpoint(name="churn"))
        deployment = BatchDeployment(
            name="blue",
            endpoint_name="churn",
            code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
        )
        workspace.endpoints.create_or_update_deployment(deployment, set_default=True)
        yield workspace


def schedule(workspace: Workspace, trigger: dict[str, Any], *, job: Any = None, **changes: Any) -> Schedule:
    """Declare a schedule that scores ``data.csv``."""
    path = workspace.settings.home.parent / "data.csv"
    invoke = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": str(path)}}}
    if trigger["type"] == "file":
        del invoke["inputs"]
    declared = {"name": "nightly", "trigger": trigger, "create_job": job or invoke, **changes}
    return workspace.schedules.create_or_update(Schedule.model_validate(declared))


def daily(workspace: Workspace, **changes: Any) -> Schedule:
    trigger = {"type": "cron", "expression": "30 2 * * *", "time_zone": "Europe/Berlin"}
    return schedule(workspace, trigger, **changes)


def step(workspace: Workspace) -> None:
    """Let the scheduler do all that is due."""
    scheduler = Scheduler(workspace)
    while scheduler.step():
        pass


def step_together(*servers: Workspace) -> None:
    """Let the schedulers of several servers do all that is due, at the same time."""
    together = threading.Barrier(len(servers))
    failures: list[Exception] = []

    def work(mine: Workspace) -> None:
        try:
            together.wait()
            step(mine)
        except Exception as failure:  # noqa: BLE001 -- told by the assertion below
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(each,)) for each in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def pass_time(workspace: Workspace, clock: Clock, until: datetime, every: timedelta = timedelta(minutes=5)) -> None:
    while clock.time < until:
        clock.time = min(clock.time + every, until)
        step(workspace)


def runs(workspace: Workspace, name: str = "nightly") -> list[tuple[str, datetime]]:
    """Outcome and time of each run, the oldest first."""
    return [(str(run.outcome), run.fire_at) for run in reversed(workspace.schedules.runs(name))]


def job_of(workspace: Workspace, number: int = -1) -> Job:
    """The job of one run, the oldest first."""
    job_name = list(reversed(workspace.schedules.runs("nightly")))[number].job_name
    assert job_name is not None
    return workspace.jobs.get(job_name)


def finish(workspace: Workspace, job: Job) -> None:
    """Carry a job through to its end."""
    jobs = workspace.registry.jobs
    claimed = jobs.claim("test", 30)
    assert claimed is not None
    assert claimed.job.name == job.name
    jobs.transition(job.name, claimed.lease_token, JobStatus.RUNNING)
    jobs.finish(job.name, claimed.lease_token, Reason.COMPLETED)


def utc(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def test_a_schedule_fires_once_a_day_across_the_change_of_the_clock(workspace: Workspace, clock: Clock) -> None:
    daily(workspace)
    pass_time(workspace, clock, utc(31, 12))
    fired = [utc(28, 1, 30), utc(29, 1), utc(30, 0, 30), utc(31, 0, 30)]
    assert runs(workspace) == [("started", at) for at in fired]
    names = [job.name for job in reversed(workspace.jobs.list(schedule="nightly"))]
    assert names == [f"nightly-{at:%Y%m%dT%H%M%SZ}" for at in fired]
    job = workspace.jobs.get(names[1])
    assert (job.schedule_name, job.experiment_name, job.tags) == ("nightly", "nightly", {"schedule": "nightly"})
    run = workspace.schedules.runs("nightly")[2]
    assert (run.window_start, run.window_end, run.cause) == (utc(28, 1, 30), utc(29, 1), "tick")


def test_a_recurrence_without_a_start_runs_at_once_and_its_times_survive_an_unchanged_update(
    workspace: Workspace, clock: Clock
) -> None:
    trigger = {"type": "recurrence", "frequency": "hour", "interval": 1}
    schedule(workspace, trigger)
    step(workspace)
    assert runs(workspace) == [("started", utc(27, 12))]
    clock.move(1800)
    again = schedule(workspace, trigger, description="the same times")
    assert (again.next_run_at, again.description) == (utc(27, 13), "the same times")
    step(workspace)
    other = schedule(workspace, {**trigger, "interval": 2})
    assert other.next_run_at == utc(27, 14, 30)
    assert len(runs(workspace)) == 1


def test_the_window_of_a_time_is_in_every_text_of_its_job(workspace: Workspace, clock: Clock) -> None:
    folder = workspace.settings.home / "datastores" / "workspaceblobstore" / "2026" / "03"
    folder.mkdir(parents=True)
    (folder / "27.csv").write_text("a\n1\n")
    job = {
        "type": "invoke",
        "endpoint_name": "churn",
        "inputs": {"data": {"path": "azureml://datastores/workspaceblobstore/paths/{{window_start:%Y/%m/%d}}.csv"}},
        "outputs": {"score": {"path": "azureml://datastores/workspaceblobstore/paths/out/${{name}}/"}},
        "tags": {"from": "{{window_start}}", "until": "{{window_end}}"},
    }
    daily(workspace, job=job)
    pass_time(workspace, clock, utc(28, 2))
    made = job_of(workspace)
    assert made.inputs["data"].path == "azureml://datastores/workspaceblobstore/paths/2026/03/27.csv"
    assert made.outputs["score"].path == f"azureml://datastores/workspaceblobstore/paths/out/{made.name}/"
    assert made.tags["from"] == "2026-03-27T01:30:00Z"
    assert made.tags["until"] == "2026-03-28T01:30:00Z"


def test_two_schedulers_on_one_database_make_one_job_for_each_time(
    workspace: Workspace, database_url: str, tmp_path: Path, clock: Clock
) -> None:
    for number in range(3):
        schedule(workspace, {"type": "recurrence", "frequency": "minute", "interval": 1}, name=f"often-{number}")
    step(workspace)
    with opened(tmp_path / "home", database_url, clock) as other:
        for _ in range(8):
            clock.move(60)
            step_together(workspace, other)
    for number in range(3):
        fired = [run.fire_at for run in workspace.schedules.runs(f"often-{number}")]
        made = workspace.jobs.list(schedule=f"often-{number}")
        assert len(made) == len(fired) == len(set(fired)) == 9
        assert {str(run.outcome) for run in workspace.schedules.runs(f"often-{number}")} == {"started"}


def test_a_time_whose_claimer_died_before_the_job_was_made_is_taken_over_once(
    workspace: Workspace, clock: Clock
) -> None:
    daily(workspace)
    clock.time = utc(28, 1, 30)
    claimed = workspace.registry.schedules.claim_due()  # and then it dies
    assert claimed is not None
    assert len(claimed.runs) == 1
    step(workspace)
    assert runs(workspace) == [("pending", utc(28, 1, 30))]
    clock.move(registry_of_schedules.SUBMIT_SECONDS)
    step(workspace)
    step(workspace)
    assert runs(workspace) == [("started", utc(28, 1, 30))]
    assert len(workspace.jobs.list(schedule="nightly")) == 1


def test_a_time_whose_claimer_died_after_the_job_was_made_keeps_that_job(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(workspace)
    clock.time = utc(28, 1, 30)
    claimed = workspace.registry.schedules.claim_due()
    assert claimed is not None
    (run,) = claimed.runs
    made = workspace.schedules._job_of(workspace.schedules.get("nightly"), run, by=None)  # and then it dies
    daily(workspace, description="changed in between")
    clock.move(registry_of_schedules.SUBMIT_SECONDS)
    step(workspace)
    assert runs(workspace) == [("started", utc(28, 1, 30))]
    assert [job.name for job in workspace.jobs.list(schedule="nightly")] == [made.name]


def test_missed_times_are_left_out_with_a_record(workspace: Workspace, clock: Clock) -> None:
    daily(workspace)
    clock.time = utc(30, 9)
    step(workspace)
    assert runs(workspace) == [("missed", utc(28, 1, 30))]
    message = workspace.schedules.runs("nightly")[0].message
    assert message is not None
    assert "from 2026-03-28T01:30:00Z to 2026-03-30T00:30:00Z" in message
    assert workspace.jobs.list(schedule="nightly") == []
    assert workspace.schedules.get("nightly").next_run_at == utc(31, 0, 30)


@pytest.mark.parametrize(("policy", "expected"), [("run_once", 1), ("run_all", 3)])
def test_missed_times_are_made_up_for_when_asked(
    workspace: Workspace, clock: Clock, policy: str, expected: int
) -> None:
    daily(workspace, batchpoint={"missed": policy})
    clock.time = utc(30, 9)
    step(workspace)
    made = workspace.schedules.runs("nightly")
    assert [run.outcome for run in made] == [RunOutcome.STARTED] * expected
    assert (made[-1].window_start, made[0].window_end) == (utc(27, 1, 30), utc(30, 0, 30))


def test_a_time_is_left_out_while_an_earlier_job_runs_and_says_which(workspace: Workspace, clock: Clock) -> None:
    daily(workspace, batchpoint={"overlap": "skip"})
    pass_time(workspace, clock, utc(29, 2))
    assert runs(workspace) == [("started", utc(28, 1, 30)), ("skipped", utc(29, 1))]
    first = job_of(workspace, 0)
    assert first.name in (workspace.schedules.runs("nightly")[0].message or "")
    finish(workspace, first)
    pass_time(workspace, clock, utc(30, 2))
    assert runs(workspace)[-1] == ("started", utc(30, 0, 30))


def test_times_wait_for_their_turn_in_order(workspace: Workspace, clock: Clock) -> None:
    daily(workspace, batchpoint={"overlap": "queue"})
    pass_time(workspace, clock, utc(30, 2))
    assert [outcome for outcome, _ in runs(workspace)] == ["started", "pending", "pending"]
    assert job_of(workspace, 0).name in (workspace.schedules.runs("nightly")[1].message or "")
    for number in (0, 1):
        finish(workspace, job_of(workspace, number))
        clock.move(10)
        step(workspace)
        started = [outcome for outcome, _ in runs(workspace)].count("started")
        assert started == number + 2
    assert MOST_WAITING > 2


def test_a_disabled_schedule_fires_no_more_and_an_enabled_one_makes_nothing_up(
    workspace: Workspace, clock: Clock
) -> None:
    daily(workspace)
    assert workspace.schedules.disable("nightly").next_run_at is None
    pass_time(workspace, clock, utc(29, 12), timedelta(hours=1))
    assert runs(workspace) == []
    assert [one.name for one in workspace.schedules.list(enabled=False)] == ["nightly"]
    assert not daily(workspace, description="still off").is_enabled
    assert workspace.schedules.enable("nightly").next_run_at == utc(30, 0, 30)
    pass_time(workspace, clock, utc(30, 1))
    assert runs(workspace) == [("started", utc(30, 0, 30))]


def test_an_enabled_schedule_is_not_deleted_by_accident_and_its_jobs_stay(workspace: Workspace) -> None:
    daily(workspace)
    run = workspace.schedules.trigger("nightly")
    with pytest.raises(ConflictError, match="Disable it first"):
        workspace.schedules.delete("nightly")
    workspace.schedules.delete("nightly", force=True)
    with pytest.raises(NotFoundError):
        workspace.schedules.get("nightly")
    assert workspace.jobs.get(run.job_name or "").schedule_name == "nightly"


def test_trigger_now_starts_a_job_at_once_whatever_is_enabled_or_runs(workspace: Workspace, clock: Clock) -> None:
    daily(workspace, batchpoint={"overlap": "skip"}, is_enabled=False)
    first, second = workspace.schedules.trigger("nightly"), None
    clock.move(0.5)
    second = workspace.schedules.trigger("nightly")
    assert (first.cause, first.outcome) == ("manual", RunOutcome.STARTED)
    assert (first.window_start, first.window_end) == (utc(27, 1, 30), utc(27, 12))
    assert first.job_name != second.job_name
    assert workspace.schedules.get("nightly").next_run_at is None


def test_a_job_that_cannot_be_started_is_recorded_as_failed_and_the_next_time_comes(
    workspace: Workspace, clock: Clock
) -> None:
    daily(workspace)
    data = workspace.settings.home.parent / "data.csv"
    data.unlink()
    pass_time(workspace, clock, utc(28, 2))
    assert runs(workspace) == [("failed", utc(28, 1, 30))]
    assert "does not exist" in (workspace.schedules.runs("nightly")[0].message or "")
    with pytest.raises(Exception, match="does not exist"):
        workspace.schedules.trigger("nightly")
    data.write_text("a\n1\n")
    pass_time(workspace, clock, utc(29, 2))
    assert runs(workspace)[-1] == ("started", utc(29, 1))


def test_what_may_work_later_is_tried_again(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(workspace)
    clock.time = utc(28, 1, 30)
    with monkeypatch.context() as broken:

        def refuse(*_: object, **__: object) -> Job:
            raise DatastoreError("the store does not answer")

        broken.setattr(workspace.schedules, "_job_of", refuse)
        step(workspace)
    assert runs(workspace) == [("pending", utc(28, 1, 30))]
    assert workspace.schedules.runs("nightly")[0].message == "the store does not answer"
    clock.move(31)
    step(workspace)
    assert runs(workspace) == [("started", utc(28, 1, 30))]


def test_a_missed_time_is_tried_again_as_long_as_one_in_time(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(workspace, batchpoint={"missed": "run_once"})
    clock.time = utc(31, 12)
    with monkeypatch.context() as broken:

        def refuse(*_: object, **__: object) -> None:
            raise DatastoreError("the store does not answer")

        broken.setattr(workspace.schedules, "_job_of", refuse)
        step(workspace)
    assert [outcome for outcome, _ in runs(workspace)] == ["pending"]
    pass_time(workspace, clock, utc(31, 13))
    assert [outcome for outcome, _ in runs(workspace)] == ["started"]


def broken(*_: object, **__: object) -> Job:
    raise KeyError("of nobody's")


def test_a_time_whose_job_breaks_off_unexpectedly_is_given_up_and_the_next_is_started(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    daily(workspace, batchpoint={"overlap": "queue"})
    clock.time = utc(28, 1, 30)
    with monkeypatch.context() as breaking:
        breaking.setattr(workspace.schedules, "_job_of", broken)
        step(workspace)
        (run,) = workspace.schedules.runs("nightly")
        assert (run.outcome, run.broken_tries) == (RunOutcome.PENDING, 1)
        assert run.message is not None
        assert 'KeyError: "of nobody\'s"' in run.message
        assert f"try 1 of {MOST_BROKEN_TRIES}" in run.message
        pass_time(workspace, clock, utc(28, 2), every=timedelta(seconds=30))
    (run,) = workspace.schedules.runs("nightly")
    assert (run.outcome, run.broken_tries) == (RunOutcome.FAILED, MOST_BROKEN_TRIES)
    assert run.message is not None
    assert run.message.startswith(f"Given up after {MOST_BROKEN_TRIES} tries. The job could not be started")
    assert sum("could not be started" in record.message for record in caplog.records) == MOST_BROKEN_TRIES
    pass_time(workspace, clock, utc(29, 2))
    assert [outcome for outcome, _ in runs(workspace)] == ["failed", "started"]


def test_what_breaks_off_once_is_started_by_the_next_try_and_holds_up_no_other_schedule(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(workspace)
    daily(workspace, name="other")
    submit = workspace.schedules._job_of
    clock.time = utc(28, 1, 30)

    def refuse(schedule: Schedule, run: ScheduleRun, *, by: str | None) -> Job:
        return broken() if schedule.name == "nightly" else submit(schedule, run, by=by)

    with monkeypatch.context() as breaking:
        breaking.setattr(workspace.schedules, "_job_of", refuse)
        step(workspace)
    assert runs(workspace, "other") == [("started", utc(28, 1, 30))]
    assert runs(workspace) == [("pending", utc(28, 1, 30))]
    clock.move(31)
    step(workspace)
    assert runs(workspace) == [("started", utc(28, 1, 30))]


def test_a_job_that_was_made_before_its_start_broke_off_is_kept(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(workspace)
    clock.time = utc(28, 1, 30)
    finish, calls = workspace.registry.schedules.finish, iter(range(9))

    def break_once(*args: Any, **kwargs: Any) -> ScheduleRun:
        if next(calls) == 0:
            broken()
        return finish(*args, **kwargs)

    monkeypatch.setattr(workspace.registry.schedules, "finish", break_once)
    step(workspace)
    assert runs(workspace) == [("started", utc(28, 1, 30))]
    assert len(workspace.jobs.list(schedule="nightly")) == 1


def test_trigger_now_that_breaks_off_is_recorded_and_not_tried_again(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(workspace)
    with monkeypatch.context() as breaking:
        breaking.setattr(workspace.schedules, "_job_of", broken)
        with pytest.raises(KeyError):
            workspace.schedules.trigger("nightly")
    clock.move(registry_of_schedules.SUBMIT_SECONDS)
    step(workspace)
    (run,) = workspace.schedules.runs("nightly")
    assert (run.outcome, "KeyError" in (run.message or "")) == (RunOutcome.FAILED, True)


def test_the_job_of_an_endpoint_is_done_again_by_its_name(workspace: Workspace, clock: Clock) -> None:
    daily(workspace, name="first")
    earlier = workspace.schedules.trigger("first").job_name
    daily(workspace, job=f"azureml:{earlier}")
    pass_time(workspace, clock, utc(28, 2))
    again = job_of(workspace)
    assert again.inputs == workspace.jobs.get(earlier or "").inputs
    assert again.outputs["score"].path != workspace.jobs.get(earlier or "").outputs["score"].path
    with pytest.raises(NotFoundError, match="no job named nope"):
        daily(workspace, name="third", job="azureml:nope")


@pytest.mark.parametrize(
    ("trigger", "complaint"),
    [
        ({"type": "cron", "expression": "0 0 30 2 *"}, "there is no day that fits '0 0 30 2 \\*'"),
        ({"type": "cron", "expression": "0 0 * * *", "end_time": "2026-01-01"}, "its end_time, .*, is over"),
        (
            {"type": "cron", "expression": "0 0 1 1 *", "start_time": "2027-02-01", "end_time": "2027-03-01"},
            "none of its times lies between",
        ),
        (
            {"type": "recurrence", "frequency": "month", "interval": 12, "start_time": "2026-02-01",
             "schedule": {"hours": [0], "minutes": [0], "month_days": [30]}},
            "no day fits its frequency",
        ),
    ],
)  # fmt: skip
def test_a_schedule_that_would_never_fire_is_refused_and_not_stored(
    workspace: Workspace, trigger: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidEntityError, match=complaint):
        schedule(workspace, trigger)
    assert workspace.schedules.list() == []


def test_a_schedule_whose_job_could_never_start_is_refused_and_not_stored(workspace: Workspace) -> None:
    for invoke, complaint in (
        ({"endpoint_name": "nope"}, "no batch endpoint named nope"),
        ({"endpoint_name": "churn", "deployment_name": "green"}, "Deployment green not found"),
        ({"endpoint_name": "churn", "inputs": {"a": {"path": "azureml:nope:1"}}}, "no data asset named nope|nope"),
        ({"endpoint_name": "churn", "inputs": {"a": {"path": "azureml://datastores/x/paths/y"}}}, "datastore named x"),
        ({"endpoint_name": "churn", "outputs": {"a": {"path": "azureml://datastores/x/paths/y"}}}, "datastore named x"),
    ):
        with pytest.raises(NotFoundError, match=complaint):
            daily(workspace, job={"type": "invoke", **invoke})
    assert workspace.schedules.list() == []


def test_the_next_times_are_told_with_those_of_the_wall(workspace: Workspace) -> None:
    daily(workspace)
    told = workspace.schedules.upcoming("nightly", 3)
    assert [time.fire_time for time in told] == [utc(28, 1, 30), utc(29, 1), utc(30, 0, 30)]
    assert [time.local_time.isoformat() for time in told][1:] == [
        "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00",
    ]  # fmt: skip
    assert told[0].window_start == utc(27, 1, 30)
    assert len(workspace.schedules.upcoming("nightly")) == 10


def watching(workspace: Workspace, **changes: Any) -> Path:
    """A schedule for new files, and the folder that they come to."""
    trigger = {"type": "file", "path": LANDING, "poll_seconds": 10, "settle_seconds": 15, **changes}
    schedule(workspace, trigger)
    folder = workspace.settings.home / "datastores" / "workspaceblobstore" / "landing"
    folder.mkdir(exist_ok=True)
    return folder


def look(workspace: Workspace, clock: Clock, times: int) -> None:
    pass_time(workspace, clock, clock.time + timedelta(seconds=10 * times), timedelta(seconds=10))


def taken(workspace: Workspace) -> list[list[str]]:
    """The files of each job of the schedule, the oldest first."""
    made = [workspace.jobs.get(run.job_name or "") for run in reversed(workspace.schedules.runs("nightly"))]
    return [[Path(path).name for job in [each] for given in job.inputs.values() for path in (given.path, *given.paths)]
            for each in made]  # fmt: skip


def test_a_file_that_is_still_being_written_is_taken_when_it_is_whole_and_then_once(
    workspace: Workspace, clock: Clock
) -> None:
    folder = watching(workspace)
    (folder / "b.csv").write_text("a\n")
    for number in range(5):
        look(workspace, clock, 1)
        with (folder / "b.csv").open("a") as growing:
            growing.write(f"{number}\n")
    assert taken(workspace) == []
    (folder / "c.csv.partial").write_text("a\n")
    (folder / ".d.csv").write_text("a\n")
    look(workspace, clock, 5)
    assert taken(workspace) == [["b.csv"]]
    (folder / "c.csv.partial").rename(folder / "c.csv")
    (folder / "a b#.csv").write_text("a\n")
    look(workspace, clock, 5)
    assert taken(workspace) == [["b.csv"], ["a b#.csv", "c.csv"]]
    run = workspace.schedules.runs("nightly")[0]
    assert (run.cause, run.files) == ("files", 2)


def test_a_changed_file_counts_as_new_and_one_that_comes_again_unchanged_does_not(
    workspace: Workspace, clock: Clock
) -> None:
    folder = watching(workspace)
    (folder / "a.csv").write_text("a\n1\n")
    look(workspace, clock, 4)
    known = (folder / "a.csv").stat()
    (folder / "a.csv").unlink()
    look(workspace, clock, 4)
    (folder / "a.csv").write_text("a\n1\n")
    os.utime(folder / "a.csv", ns=(known.st_atime_ns, known.st_mtime_ns))
    look(workspace, clock, 4)
    assert taken(workspace) == [["a.csv"]]
    (folder / "a.csv").write_text("a\n1\n2\n")
    look(workspace, clock, 4)
    assert taken(workspace) == [["a.csv"], ["a.csv"]]


@pytest.mark.parametrize(("existing", "expected"), [(False, [["new.csv"]]), (True, [["new.csv", "old.csv"]])])
def test_files_that_were_there_before_are_taken_only_when_asked(
    workspace: Workspace, clock: Clock, existing: bool, expected: list[list[str]]
) -> None:
    folder = workspace.settings.home / "datastores" / "workspaceblobstore" / "landing"
    folder.mkdir()
    (folder / "old.csv").write_text("a\n1\n")
    watching(workspace, existing=existing)
    (folder / "new.csv").write_text("a\n1\n")
    look(workspace, clock, 4)
    assert taken(workspace) == expected


def found(workspace: Workspace, clock: Clock) -> ScheduleRun:
    """A run over the new files that its server has taken, but started no job for yet."""
    clock.move(20)
    claimed = workspace.registry.schedules.claim_look()
    assert claimed is not None
    run = workspace.schedules.look_for_files(claimed.schedule, claimed.until)
    assert run is not None
    return run


def test_a_file_that_is_gone_or_written_again_when_its_job_is_started_does_not_cost_the_others(
    workspace: Workspace, clock: Clock
) -> None:
    folder = watching(workspace, settle_seconds=0)
    for name in ("gone.csv", "kept.csv", "written again.csv"):
        (folder / name).write_text("a\n1\n")
    run = found(workspace, clock)
    (folder / "gone.csv").rename(folder / "renamed.csv")
    (folder / "written again.csv").write_text("a\n1\n2\n")
    workspace.schedules.start(run)
    assert taken(workspace) == [["kept.csv"]]
    look(workspace, clock, 3)
    assert taken(workspace) == [["kept.csv"], ["renamed.csv", "written again.csv"]]


@pytest.mark.parametrize("name", [b"not utf-8 \xff.csv", b"two\nlines.csv", b"back\\slash.csv"])
def test_a_file_whose_name_cannot_be_told_is_reported_once_and_the_others_are_taken(
    workspace: Workspace, clock: Clock, name: bytes
) -> None:
    folder = watching(workspace, settle_seconds=0)
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("a\n1\n")
    for number in range(3):
        (folder / f"{number}.csv").write_text("a\n1\n")
        look(workspace, clock, 3)
    told = [(str(run.outcome), run.files) for run in reversed(workspace.schedules.runs("nightly"))]
    assert told == [("failed", None), ("started", 1), ("started", 1), ("started", 1)]
    assert "cannot be taken" in (workspace.schedules.runs("nightly")[-1].message or "")


def test_odd_names_are_taken_as_they_are(workspace: Workspace, clock: Clock) -> None:
    folder = watching(workspace, settle_seconds=0)
    names = ["%41.csv", "{{files}}.csv", "${{name}}.csv", "a b#.csv", "c:d.csv", "q?.csv", "x*[1].csv", "é.csv"]
    for name in names:
        (folder / name).write_text("a\n1\n")
    look(workspace, clock, 3)
    assert [sorted(job) for job in taken(workspace)] == [sorted(names)]


def test_files_that_a_lost_server_had_taken_wait_until_a_disabled_schedule_is_enabled(
    workspace: Workspace, clock: Clock
) -> None:
    folder = watching(workspace, settle_seconds=0)
    (folder / "a.csv").write_text("a\n1\n")
    found(workspace, clock)
    workspace.schedules.disable("nightly")
    clock.move(registry_of_schedules.SUBMIT_SECONDS + 1)
    step(workspace)
    assert [outcome for outcome, _ in runs(workspace)] == ["skipped"]
    workspace.schedules.enable("nightly")
    look(workspace, clock, 3)
    assert [outcome for outcome, _ in runs(workspace)] == ["skipped", "started"]


def test_files_that_a_lost_server_had_taken_start_no_job_of_another_trigger(workspace: Workspace, clock: Clock) -> None:
    folder = watching(workspace, settle_seconds=0)
    (folder / "a.csv").write_text("a\n1\n")
    found(workspace, clock)
    daily(workspace)
    clock.move(registry_of_schedules.SUBMIT_SECONDS + 1)
    step(workspace)
    run = workspace.schedules.runs("nightly")[0]
    assert (run.outcome, run.job_name) == (RunOutcome.SKIPPED, None)
    assert "trigger was changed" in (run.message or "")


def test_two_servers_that_watch_one_folder_take_each_file_once(
    workspace: Workspace, database_url: str, tmp_path: Path, clock: Clock
) -> None:
    folder = watching(workspace, poll_seconds=5, settle_seconds=0)
    with opened(tmp_path / "home", database_url, clock) as other:
        for number in range(6):
            (folder / f"{number}.csv").write_text("a\n1\n")
            clock.move(10)
            step_together(workspace, other)
    assert sorted(name for names in taken(workspace) for name in names) == [f"{number}.csv" for number in range(6)]


def test_new_files_wait_while_an_earlier_job_runs_unless_that_is_allowed(workspace: Workspace, clock: Clock) -> None:
    folder = workspace.settings.home / "datastores" / "workspaceblobstore" / "landing"
    trigger = {"type": "file", "path": LANDING, "poll_seconds": 10, "settle_seconds": 0}
    schedule(workspace, trigger, batchpoint={"overlap": "skip"})
    folder.mkdir()
    (folder / "a.csv").write_text("a\n1\n")
    look(workspace, clock, 3)
    (folder / "b.csv").write_text("a\n1\n")
    look(workspace, clock, 3)
    assert taken(workspace) == [["a.csv"]]
    finish(workspace, job_of(workspace))
    look(workspace, clock, 3)
    assert taken(workspace) == [["a.csv"], ["b.csv"]]


def test_trigger_now_takes_new_files_at_once_and_those_whose_job_could_not_be_started(
    workspace: Workspace, clock: Clock
) -> None:
    folder = watching(workspace)
    with pytest.raises(ConflictError, match="no new files"):
        workspace.schedules.trigger("nightly")
    (folder / "a.csv").write_text("a\n1\n")
    assert workspace.schedules.trigger("nightly").files == 1
    assert taken(workspace) == [["a.csv"]]
    workspace.registry.endpoints.delete("churn")
    (folder / "b.csv").write_text("a\n1\n")
    look(workspace, clock, 4)
    assert [outcome for outcome, _ in runs(workspace)] == ["started", "failed"]
    workspace.endpoints.create_or_update(BatchEndpoint(name="churn"))
    code = workspace.settings.home.parent / "code"
    deployment = BatchDeployment(
        name="blue", endpoint_name="churn",
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
    )  # fmt: skip
    workspace.endpoints.create_or_update_deployment(deployment, set_default=True)
    clock.move(1)
    run = workspace.schedules.trigger("nightly")
    assert (run.outcome, run.files) == (RunOutcome.STARTED, 1)


def test_a_folder_that_cannot_be_read_is_told_once_and_looked_at_again(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = watching(workspace)
    with monkeypatch.context() as broken:

        def refuse(*_: object) -> None:
            raise DatastoreError("the store does not answer")

        broken.setattr(workspace.schedules._files, "seen", refuse)
        look(workspace, clock, 5)
    told = [(str(run.outcome), run.message) for run in workspace.schedules.runs("nightly")]
    assert told == [("failed", "the store does not answer")]
    (folder / "a.csv").write_text("a\n1\n")
    look(workspace, clock, 4)
    assert [outcome for outcome, _ in runs(workspace)] == ["failed", "started"]


def test_a_data_asset_may_be_what_a_schedule_scores(workspace: Workspace, clock: Clock) -> None:
    path = str(workspace.settings.home.parent / "data.csv")
    workspace.assets.create_or_update("data", Data(name="rows", path=path, type="uri_file"))
    job = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": "azureml:rows@latest"}}}
    daily(workspace, job=job)
    pass_time(workspace, clock, utc(28, 2))
    assert job_of(workspace).status is JobStatus.QUEUED
    assert job_of(workspace).properties["input_asset"] == "azureml:rows:1"


PIPELINE = {
    "type": "pipeline",
    "inputs": {
        "since": "never",
        "rows": {"type": "uri_file", "path": "azureml://datastores/workspaceblobstore/paths/x"},
    },
    "jobs": {
        "count": {
            "command": "echo ${{inputs.since}} ${{inputs.rows}}",
            "environment": {"name": "plain", "conda_file": {"dependencies": ["python"]}},
            "inputs": {"since": "${{parent.inputs.since}}", "rows": "${{parent.inputs.rows}}"},
        }
    },
    "tags": {"team": "risk"},
}


def rows(workspace: Workspace) -> None:
    (workspace.settings.home / "datastores" / "workspaceblobstore" / "x").write_text("1")


def test_a_pipeline_in_place_is_started_with_the_window_of_its_time(workspace: Workspace, clock: Clock) -> None:
    rows(workspace)
    daily(workspace, job={"type": "pipeline", "job": PIPELINE, "inputs": {"since": "{{window_start}}"}})
    pass_time(workspace, clock, utc(28, 2))
    made = job_of(workspace)
    assert (made.type, made.name, made.schedule_name) == ("pipeline", "nightly-20260328T013000Z", "nightly")
    assert made.literals == {"since": "2026-03-27T01:30:00Z"}
    assert made.tags == {"team": "risk", "schedule": "nightly"}
    assert [job.name for job in workspace.jobs.list(schedule="nightly")] == [made.name]


def test_the_job_of_a_pipeline_is_done_again_with_other_inputs_and_settings(workspace: Workspace, clock: Clock) -> None:
    rows(workspace)
    earlier = workspace.pipelines.submit(Pipeline.model_validate({**PIPELINE, "name": "earlier"}))
    job = {
        "job": f"azureml:{earlier.name}",
        "inputs": {"since": "{{fire_time:%d.%m.}}"},
        "settings": {"force_rerun": True},
    }
    daily(workspace, job=job)
    pass_time(workspace, clock, utc(28, 2))
    made = job_of(workspace)
    assert made.literals == {"since": "28.03."}
    assert made.pipeline is not None
    assert made.pipeline["settings"]["force_rerun"] is True
    with pytest.raises(InvalidEntityError, match=r"has no input 'sinse'\. Did you mean 'since'"):
        daily(workspace, job={**job, "inputs": {"sinse": "x"}}, name="other")
    with pytest.raises(InvalidEntityError, match="but it is of type pipeline"):
        daily(workspace, job={**job, "type": "scoring"}, name="other")
    assert [one.name for one in workspace.schedules.list()] == ["nightly"]


def test_a_published_pipeline_is_run_as_it_is_published_then_and_lists_what_the_schedule_starts(
    workspace: Workspace, clock: Clock
) -> None:
    rows(workspace)
    publish = workspace.published_pipelines.publish
    publish(PublishRequest(name="counting", pipeline=Pipeline.model_validate(PIPELINE), experiment_name="counts"))
    plan = {"type": "pipeline", "published_pipeline": "counting", "inputs": {"since": "{{window_start}}"}}
    daily(workspace, job=plan)
    publish(
        PublishRequest(
            name="counting", pipeline=Pipeline.model_validate({**PIPELINE, "settings": {"force_rerun": True}})
        )
    )
    pass_time(workspace, clock, utc(28, 2))
    (made,) = workspace.published_pipelines.runs("counting")
    assert (made.name, made.schedule_name) == ("nightly-20260328T013000Z", "nightly")
    assert made.literals == {"since": "2026-03-27T01:30:00Z"}
    assert made.pipeline is not None
    assert made.pipeline["settings"]["force_rerun"] is True

    workspace.published_pipelines.set_active("counting", active=False)
    pass_time(workspace, clock, utc(29, 2))
    assert workspace.schedules.runs("nightly")[0].message == (
        "The published pipeline counting is disabled. Enable it to start runs."
    )
    workspace.published_pipelines.delete("counting")
    pass_time(workspace, clock, utc(30, 2))
    assert "There is no published_pipeline named counting" in (workspace.schedules.runs("nightly")[0].message or "")
    assert workspace.jobs.get(made.name).published_pipeline == "counting", "its jobs stay"
    with pytest.raises(NotFoundError):
        daily(workspace, job=plan)


def test_a_pipeline_is_started_for_each_new_file(workspace: Workspace, clock: Clock) -> None:
    job = {"type": "pipeline", "job": PIPELINE, "inputs": {"rows": {"path": "{{files}}"}}}
    schedule(workspace, {"type": "file", "path": LANDING, "poll_seconds": 10, "settle_seconds": 15}, job=job)
    folder = workspace.settings.home / "datastores" / "workspaceblobstore" / "landing"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text("1")
    look(workspace, clock, 5)
    assert taken(workspace) == [["a"], ["b"], ["c"]]


BERLIN = {"time_zone": "Europe/Berlin"}
TEXTS = "ts >= '{{window_start:%Y-%m-%d %H:%M:%S}}' and ts < '{{window_end:%Y-%m-%d %H:%M:%S}}'"
WITH_T = "ts >= '{{window_start}}' and ts < '{{window_end}}'"
SECONDS = "ts >= {{window_start:%s}} and ts < {{window_end:%s}}"


def readings(path: Path, form: str) -> list[Any]:
    """Readings of five days, every seven minutes and at each full quarter of an hour, in a table of SQLite."""
    begin = utc(27, 0)
    minutes = sorted({*range(0, 5 * 1440, 7), *range(0, 5 * 1440, 15)})
    times = [begin + timedelta(minutes=minute) for minute in minutes]
    kept = [int(at.timestamp()) if form == "%s" else at.strftime(form) for at in times]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE readings (ts)")
        connection.executemany("INSERT INTO readings VALUES (?)", [(each,) for each in kept])
    return kept


@pytest.mark.parametrize(
    ("trigger", "form", "condition", "missed"),
    [
        ({"type": "cron", "expression": "30 2 * * *", **BERLIN}, "%Y-%m-%d %H:%M:%S", TEXTS, "run_all"),
        ({"type": "cron", "expression": "0 */3 * * *", **BERLIN}, "%Y-%m-%dT%H:%M:%SZ", WITH_T, "run_once"),
        ({"type": "cron", "expression": "0 * * * *", **BERLIN}, "%s", SECONDS, "run_all"),
        ({"type": "recurrence", "frequency": "minute", "interval": 45}, "%Y-%m-%d %H:%M:%S", TEXTS, "run_once"),
    ],
    ids=["daily", "every third hour", "hourly", "45 minutes"],
)
def test_each_row_of_a_database_lies_in_the_window_of_one_time_though_times_were_missed_and_clocks_changed(
    workspace: Workspace, clock: Clock, trigger: dict[str, Any], form: str, condition: str, missed: str
) -> None:
    database = workspace.settings.home / "readings.db"
    kept = readings(database, form)
    workspace.resources.create_or_update(
        "datastore", Datastore(name="readings", type="sql", url=f"sqlite:///{database}")
    )
    query = f"select ts from readings where {condition} order by ts"
    asked = {"path": "azureml://datastores/readings", "query": query}
    job = {"type": "invoke", "endpoint_name": "churn", "inputs": {"rows": asked}}
    schedule(workspace, trigger, job=job, batchpoint={"missed": missed})

    pass_time(workspace, clock, utc(28, 3), timedelta(minutes=30))
    clock.time = utc(30, 4, 20)
    pass_time(workspace, clock, utc(31, 9), timedelta(minutes=30))

    made = list(reversed(workspace.schedules.runs("nightly", limit=1000)))
    assert {run.outcome for run in made} == {RunOutcome.STARTED}
    scored: list[Any] = []
    with closing(sqlite3.connect(database)) as connection:
        for run in made:
            asked_for = workspace.jobs.get(run.job_name or "").inputs["rows"].query or ""
            scored += [ts for (ts,) in connection.execute(asked_for)]
    first, last = kept.index(scored[0]), kept.index(scored[-1])
    assert scored == kept[first : last + 1]
    assert len(scored) > 800
