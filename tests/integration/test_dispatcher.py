"""Jobs are claimed, launched, followed and finished, whatever dies in between. The runner is a stand-in."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from batchpoint.background import dispatcher
from batchpoint.background.dispatcher import runner_lives
from batchpoint.background.environments import Tell
from batchpoint.background.launcher import RunnerProcess
from batchpoint.background.service import Background
from batchpoint.entities.jobs import Job, JobStatus, Reason
from batchpoint.entities.resources import Compute
from batchpoint.errors import RegistryError
from batchpoint.registry.jobs import Jobs
from batchpoint.scoring import fork_server, fork_server_access
from batchpoint.scoring.spec import ScoringSpec
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, eventually, invoke, make_input

pytestmark = pytest.mark.usefixtures("churn")


def starts_of(workspace: Workspace, job: str) -> list[str]:
    path = workspace.settings.home / "jobs" / job / "starts"
    return path.read_text().splitlines() if path.exists() else []


def is_finished(workspace: Workspace, job: str) -> bool:
    return workspace.jobs.get(job).status.is_finished


def test_a_job_goes_from_queued_to_completed(workspace: Workspace, background: Background, tmp_path: Path) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    eventually(lambda: is_finished(workspace, job.name))
    done = workspace.jobs.get(job.name)
    assert done.status is JobStatus.COMPLETED, done.error
    assert done.receipt is not None
    assert done.receipt.balanced
    assert done.outputs["score"].uri is not None
    assert "from the runner" in done.notices
    assert [event.event for event in workspace.jobs.events(job.name)] == [
        "queued", "preparing", "running", "completed",
    ]  # fmt: skip
    assert not background.dispatcher.held()


def test_the_record_of_a_job_over_many_files_lists_those_with_something_to_tell(
    workspace: Workspace, background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LISTED_FILES", 1)
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    eventually(lambda: is_finished(workspace, job.name))
    kept = workspace.jobs.get(job.name).receipt
    assert kept is not None
    assert ([file.file for file in kept.files], kept.files_left_out) == (["b.csv"], 1)
    assert [file.file for file in workspace.jobs.receipt(job.name).files] == ["a.csv", "b.csv"]


def test_a_job_begins_at_once_because_a_runner_waits(
    workspace: Workspace, background: Background, tmp_path: Path
) -> None:
    path = make_input(tmp_path / "in", "complete")
    first = invoke(workspace, path)
    eventually(lambda: is_finished(workspace, first.name))
    time.sleep(0.5)  # the next runner gets ready
    asked_at = time.time()
    job = invoke(workspace, path)
    eventually(lambda: starts_of(workspace, job.name))
    assert float(starts_of(workspace, job.name)[0].split()[1]) - asked_at < 1.0


def test_a_job_waits_for_its_compute_and_says_for_whom(
    workspace: Workspace, background: Background, tmp_path: Path
) -> None:
    first = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: starts_of(workspace, first.name))
    second = invoke(workspace, make_input(tmp_path / "more", "complete"))
    eventually(lambda: workspace.jobs.get(second.name).waiting_for)
    assert first.name in (workspace.jobs.get(second.name).waiting_for or "")
    (workspace.settings.home / "jobs" / first.name / "go").touch()
    eventually(lambda: is_finished(workspace, second.name))
    assert workspace.jobs.get(second.name).status is JobStatus.COMPLETED


def test_a_canceled_job_stops_within_two_seconds(workspace: Workspace, background: Background, tmp_path: Path) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: workspace.jobs.get(job.name).status is JobStatus.RUNNING)
    workspace.jobs.cancel(job.name)
    background.dispatcher.hurry("default", job.name)
    eventually(lambda: is_finished(workspace, job.name), seconds=2.0)
    assert workspace.jobs.get(job.name).reason is Reason.CANCELED_BY_USER


def test_a_job_canceled_in_the_moment_of_its_launch_does_not_run_on(
    workspace: Workspace, background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = background.dispatcher._launcher
    start, entered, leave = launcher.start, threading.Event(), threading.Event()

    def slowly(work: Workspace, folder: Path) -> RunnerProcess:
        entered.set()
        leave.wait(10)
        return start(work, folder)

    monkeypatch.setattr(launcher, "start", slowly)
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    assert entered.wait(10)
    workspace.jobs.cancel(job.name)
    background.dispatcher.hurry("default", job.name)
    eventually(lambda: is_finished(workspace, job.name), seconds=2.0)
    leave.set()
    folder = workspace.settings.home / "jobs" / job.name
    eventually((folder / "outcome.json").exists, seconds=5.0)
    assert '"canceled_by_user"' in (folder / "outcome.json").read_text()
    eventually(lambda: len(background.dispatcher._selector.get_map()) == 1)


def test_one_run_that_cannot_be_looked_at_does_not_hold_up_the_others(
    workspace: Workspace, background: Background, tmp_path: Path
) -> None:
    broken = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: starts_of(workspace, broken.name))
    (workspace.settings.home / "jobs" / broken.name / "progress.json").write_text('{"ok": "many"}')
    workspace.resources.create_or_update("compute", Compute(name="second"))
    deployment = workspace.endpoints.get_deployment("churn", "blue").model_copy(update={"compute": "second"})
    workspace.endpoints.create_or_update_deployment(deployment)
    other = invoke(workspace, make_input(tmp_path / "more", "complete"))
    eventually(lambda: is_finished(workspace, other.name), seconds=5.0)
    (workspace.settings.home / "jobs" / broken.name / "progress.json").unlink()
    (workspace.settings.home / "jobs" / broken.name / "go").touch()
    eventually(lambda: is_finished(workspace, broken.name))


def test_a_runner_that_dies_is_started_again_in_the_same_folder(
    workspace: Workspace, background: Background, tmp_path: Path
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "die once"))
    eventually(lambda: is_finished(workspace, job.name))
    assert workspace.jobs.get(job.name).status is JobStatus.COMPLETED
    assert len(starts_of(workspace, job.name)) == 2


def test_a_runner_that_always_dies_is_given_up(workspace: Workspace, background: Background, tmp_path: Path) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "die"))
    eventually(lambda: is_finished(workspace, job.name))
    lost = workspace.jobs.get(job.name)
    assert lost.reason is Reason.LOST
    assert lost.error is not None
    assert "died 3 times" in lost.error.message
    assert len(starts_of(workspace, job.name)) == 3


def silent(monkeypatch: pytest.MonkeyPatch, *methods: str, times: int) -> None:
    """Have the database not answer the first calls of each of these methods of jobs."""

    def instead_of(method: str) -> None:
        answer, left = getattr(Jobs, method), iter(range(times))

        def unanswered(*arguments: Any, **named: Any) -> Any:
            if next(left, None) is not None:
                raise RegistryError("The registry database does not answer.")
            return answer(*arguments, **named)

        monkeypatch.setattr(Jobs, method, unanswered)

    for method in methods:
        instead_of(method)


def test_a_runner_is_followed_although_the_database_did_not_answer_when_it_started(
    workspace: Workspace, background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(monkeypatch, "update", "transition", times=1)
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: starts_of(workspace, job.name))
    eventually(lambda: workspace.jobs.get(job.name).status is not JobStatus.PREPARING)
    assert workspace.jobs.get(job.name).status is JobStatus.RUNNING
    (workspace.settings.home / "jobs" / job.name / "go").touch()
    eventually(lambda: is_finished(workspace, job.name))
    assert workspace.jobs.get(job.name).status is JobStatus.COMPLETED
    assert len(starts_of(workspace, job.name)) == 1


def test_a_database_that_does_not_answer_a_note_does_not_stop_what_the_note_is_about(
    workspace: Workspace, background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = background.dispatcher._launcher
    prepare, waits = launcher.prepare, []

    def telling(work: Workspace, job: Job, folder: Path, tell: Tell) -> tuple[str, ...]:
        for _ in range(2):
            tell("environment greeter")
            waits.append(work.jobs.get(job.name).waiting_for)
        return prepare(work, job, folder, tell)

    monkeypatch.setattr(launcher, "prepare", telling)
    silent(monkeypatch, "note_wait", times=1)
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    eventually(lambda: is_finished(workspace, job.name))
    assert waits == [None, "environment greeter"]


def test_a_job_that_cannot_be_prepared_says_so_as_soon_as_the_database_answers(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    shutil.rmtree(workspace.settings.home / "datastores" / "workspaceblobstore" / "LocalUpload")
    silent(monkeypatch, "finish", times=1)
    background = Background(workspace, runner_parent=FAKE_RUNNER)
    background.start()
    try:
        eventually(lambda: is_finished(workspace, job.name))
        eventually(lambda: not background.dispatcher.held())
    finally:
        background.stop()


def test_a_cancel_is_carried_out_although_the_database_did_not_answer_at_first(
    workspace: Workspace, background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave = threading.Event()
    prepare = background.dispatcher._launcher.prepare

    def slowly(work: Workspace, job: Job, folder: Path, tell: Tell) -> tuple[str, ...]:
        leave.wait(20)
        return prepare(work, job, folder, tell)

    monkeypatch.setattr(background.dispatcher._launcher, "prepare", slowly)
    silent(monkeypatch, "finish", times=1)
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    eventually(lambda: workspace.jobs.get(job.name).status is JobStatus.PREPARING)
    workspace.jobs.cancel(job.name)
    background.dispatcher.hurry("default", job.name)
    try:
        eventually(lambda: is_finished(workspace, job.name))
    finally:
        leave.set()


def test_a_job_that_waits_for_the_registry_says_so(
    workspace: Workspace, background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(monkeypatch, "transition", times=1)
    monkeypatch.setattr(dispatcher, "AGAIN_SECONDS", 3.0)
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    eventually(lambda: workspace.jobs.get(job.name).waiting_for)
    assert workspace.jobs.get(job.name).waiting_for == "the registry: The registry database does not answer."


def test_what_cannot_be_prepared_ends_the_job_with_a_reason(workspace: Workspace, tmp_path: Path) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    shutil.rmtree(workspace.settings.home / "datastores" / "workspaceblobstore" / "LocalUpload")
    background = Background(workspace, runner_parent=FAKE_RUNNER)
    background.start()
    eventually(lambda: is_finished(workspace, job.name))
    background.stop()
    failed = workspace.jobs.get(job.name)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert "does not exist" in failed.error.message


def test_the_jobs_of_a_server_that_was_killed_are_taken_over_at_once(workspace: Workspace, tmp_path: Path) -> None:
    first = Background(workspace, runner_parent=FAKE_RUNNER)
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    first.dispatcher.take_over()
    owner = first.dispatcher._owner
    assert workspace.registry.jobs.claim(owner, 3600) is not None  # and then it is killed
    second = Background(workspace, runner_parent=FAKE_RUNNER)
    second.start()
    eventually(lambda: is_finished(workspace, job.name))
    second.stop()
    first.dispatcher.stop()
    assert workspace.jobs.get(job.name).status is JobStatus.COMPLETED


def test_a_runner_outlives_its_server_and_the_next_one_takes_it_over(workspace: Workspace, tmp_path: Path) -> None:
    first = Background(workspace, runner_parent=FAKE_RUNNER)
    first.start()
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: workspace.jobs.get(job.name).status is JobStatus.RUNNING)
    folder = workspace.settings.home / "jobs" / job.name
    eventually(lambda: runner_lives(folder))
    first.stop()
    assert runner_lives(folder)
    second = Background(workspace, runner_parent=FAKE_RUNNER)
    second.start()
    eventually(second.dispatcher.held)
    (folder / "go").touch()
    eventually(lambda: is_finished(workspace, job.name))
    second.stop()
    assert workspace.jobs.get(job.name).status is JobStatus.COMPLETED
    assert len(starts_of(workspace, job.name)) == 1


def test_a_run_whose_runner_died_without_a_server_is_resumed_by_the_next(workspace: Workspace, tmp_path: Path) -> None:
    first = Background(workspace, runner_parent=FAKE_RUNNER)
    first.start()
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: workspace.jobs.get(job.name).status is JobStatus.RUNNING)
    eventually(lambda: starts_of(workspace, job.name))
    first.stop()
    os.kill(int(starts_of(workspace, job.name)[0].split()[0]), signal.SIGKILL)
    second = Background(workspace, runner_parent=FAKE_RUNNER)
    second.start()
    eventually(lambda: len(starts_of(workspace, job.name)) == 2)
    (workspace.settings.home / "jobs" / job.name / "go").touch()
    eventually(lambda: is_finished(workspace, job.name))
    second.stop()
    assert workspace.jobs.get(job.name).status is JobStatus.COMPLETED


def test_a_runner_that_was_about_to_begin_when_its_server_was_killed_is_followed(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next server looks before the runner has its lock, and starts a second one, which finds the place taken."""
    first = Background(workspace, runner_parent=FAKE_RUNNER)
    first.start()
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    folder = workspace.settings.home / "jobs" / job.name
    eventually(lambda: starts_of(workspace, job.name))
    eventually(lambda: workspace.jobs.get(job.name).status is JobStatus.RUNNING)
    first.stop()
    looks = iter([False])
    monkeypatch.setattr(dispatcher, "runner_lives", lambda folder: next(looks, None) is None and runner_lives(folder))
    second = Background(workspace, runner_parent=FAKE_RUNNER)
    second.start()
    eventually(lambda: second.dispatcher._runs and next(iter(second.dispatcher._runs.values())).launched)
    time.sleep(1.0)  # enough for three more deaths
    (folder / "go").touch()
    eventually(lambda: is_finished(workspace, job.name))
    second.stop()
    assert workspace.jobs.get(job.name).status is JobStatus.COMPLETED
    assert len(starts_of(workspace, job.name)) == 1


def test_a_job_is_taken_over_in_the_folder_in_which_it_was_begun(workspace: Workspace, tmp_path: Path) -> None:
    """Two servers with folders of their own work on one database: the run of the lost one is not begun anew."""
    first = Background(workspace, runner_parent=FAKE_RUNNER)
    first.start()
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    folder = workspace.settings.home / "jobs" / job.name
    eventually(lambda: starts_of(workspace, job.name))
    eventually(lambda: workspace.jobs.get(job.name).status is JobStatus.RUNNING)
    first.stop()
    settings = Settings(home=tmp_path / "other", database_url=f"sqlite:///{workspace.settings.home / 'registry.db'}")
    with Workspace.open(settings) as other:
        second = Background(other, runner_parent=FAKE_RUNNER)
        second.start()
        eventually(second.dispatcher.held)
        (folder / "go").touch()
        eventually(lambda: is_finished(workspace, job.name))
        second.stop()
    assert workspace.jobs.get(job.name).status is JobStatus.COMPLETED
    assert len(starts_of(workspace, job.name)) == 1
    assert not (tmp_path / "other" / "jobs" / job.name).exists()


def test_a_job_whose_server_was_killed_before_it_noted_the_folder_has_its_logs(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = Background(workspace, runner_parent=FAKE_RUNNER)
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    claimed = workspace.registry.jobs.claim(first.dispatcher._owner, 3600)
    assert claimed is not None
    folder = workspace.settings.home / "jobs" / job.name
    first.dispatcher._launcher.prepare(workspace, claimed.job, folder, lambda _: None)  # and then it is killed
    first.dispatcher.stop()
    second = Background(workspace, runner_parent=FAKE_RUNNER)
    second.start()
    eventually(lambda: is_finished(workspace, job.name))
    second.stop()
    assert workspace.jobs.get(job.name).folder == str(folder)


def test_a_warm_process_that_outlived_an_upgrade_in_place_serves_no_later_job(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads some of its neighbours late, and would find those of another version."""
    installed = shutil.copytree(Path(fork_server.__file__).parent, tmp_path / "installed")
    monkeypatch.setattr(fork_server_access, "FORK_SERVER", installed / "fork_server.py")
    background = Background(workspace, runner_parent=FAKE_RUNNER)
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))

    def warm_process() -> str:
        background.dispatcher._launcher.prepare(workspace, job, tmp_path / "run", lambda _: None)
        return ScoringSpec.read(tmp_path / "run").fork_server or ""

    before = warm_process()
    assert warm_process() == before
    with (installed / "slices.py").open("a") as neighbour:
        neighbour.write("# of the next version\n")
    assert warm_process() != before
    background.dispatcher.stop()


def test_a_wish_that_comes_after_the_end_is_written_into_no_other_file(workspace: Workspace) -> None:
    """The pipe that wakes the follower is closed by then, and its number may be that of somebody's connection."""
    ended = Background(workspace, runner_parent=FAKE_RUNNER)
    ended.start()
    ended.stop()
    others = [end for _ in range(20) for end in socket.socketpair()]
    ended.dispatcher.hurry("default", "nobody")
    readable, _, _ = select.select(others, [], [], 0)
    for end in others:
        end.close()
    assert readable == []
