"""Pipeline jobs: steps start when their inputs are there, each once, whatever dies; on SQLite and PostgreSQL alike.

The driver is stepped by hand; ``Steps`` stands in for the dispatcher and the runs.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batchpoint.background.job_changes import JobChanges
from batchpoint.background.pipeline_driver import PipelineDriver
from batchpoint.entities.assets import Data
from batchpoint.entities.jobs import Input, Job, JobError, JobStatus, Output, Progress, Reason
from batchpoint.entities.pipelines import CommandStep, Component, Pipeline
from batchpoint.entities.resources import Datastore
from batchpoint.errors import ConflictError, InvalidEntityError, LeaseLostError, NotFoundError
from batchpoint.registry.jobs import Jobs as RegistryJobs
from batchpoint.registry.tables import assets_table
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.served import eventually

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests in which it does not matter who writes when."""


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace, once on SQLite and once on PostgreSQL."""
    with Workspace.open(Settings(home=tmp_path / "home", database_url=database_url)) as opened:
        yield opened


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A file to start with."""
    path = tmp_path / "raw.csv"
    path.write_text("a\n1\n")
    return path


class Steps:
    """Runs the jobs of steps in place of the dispatcher: each writes a file into each of its outputs."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.ran: list[str] = []
        """Names of the steps, in the order in which they were run."""

    def claim(self) -> Job | None:
        claimed = self._workspace.registry.jobs.claim("steps", 30, types=("command", "scoring"))
        if claimed is None:
            return None
        self._token = claimed.lease_token
        self._workspace.registry.jobs.transition(claimed.job.name, self._token, JobStatus.RUNNING)
        self.ran.append(claimed.job.step_name or "")
        return claimed.job

    def finish(self, job: Job, *, error: JobError | None = None) -> None:
        jobs, token = self._workspace.registry.jobs, self._token
        if job.cancel_requested or jobs.asked_to_cancel([job.name]):
            jobs.finish(job.name, token, Reason.CANCELED_BY_USER)
        elif error is not None:
            jobs.finish(job.name, token, Reason.COMMAND_FAILED, error=error)
        else:
            outputs = {name: self._write(job, output) for name, output in job.outputs.items()}
            jobs.finish(job.name, token, Reason.COMPLETED, outputs=outputs)

    def run(self, *, failing: tuple[str, ...] = ()) -> bool:
        """Run everything that is queued; whether there was anything."""
        worked = False
        while (job := self.claim()) is not None:
            error = JobError(code="command_failed", message="exit code 3", traceback="Traceback: boom")
            self.finish(job, error=error if job.step_name in failing else None)
            worked = True
        return worked

    def _write(self, job: Job, output: Output) -> dict[str, Any]:
        place = self._workspace.places.resolve(output.path or "")
        folder = Path(place.url)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "part.csv").write_text(job.name)
        uri = f"{folder}/part.csv" if output.type == "uri_file" else str(folder)
        return {"uri": uri, "folder": str(folder), "files": ["part.csv"]}


def driver_of(workspace: Workspace) -> PipelineDriver:
    return PipelineDriver(workspace, JobChanges(), lambda _workspace, _job: None, lambda _workspace, _job: None)


def complete(workspace: Workspace, job: Job, *, failing: tuple[str, ...] = ()) -> tuple[Job, list[str]]:
    """Drive a pipeline job to its end. Answers with it, and the steps that were run."""
    driver, steps = driver_of(workspace), Steps(workspace)
    for _ in range(50):
        worked = driver.drive()
        worked |= steps.run(failing=failing)
        if workspace.jobs.get(job.name).status.is_finished:
            break
        assert worked, "nothing goes on, and the pipeline is not finished"
    driver.stop()
    return workspace.jobs.get(job.name), steps.ran


def command(inputs: dict[str, Any] | None = None, **outputs: Any) -> dict[str, Any]:
    written = outputs or {"out": {"type": "uri_folder"}}
    return {"type": "command", "command": "true", "inputs": inputs or {}, "outputs": written}


def diamond(raw: Path, **changes: Any) -> Pipeline:
    """a → b, c → d; d writes the pipeline's output."""
    jobs = {
        "a": command({"raw": "${{parent.inputs.raw}}", "n": "${{parent.inputs.n}}"}),
        "b": command({"x": "${{parent.jobs.a.outputs.out}}"}) | {"command": "echo b"},
        "c": command({"x": "${{parent.jobs.a.outputs.out}}"}),
        "d": command(
            {"x": "${{parent.jobs.b.outputs.out}}", "y": "${{parent.jobs.c.outputs.out}}"},
            out="${{parent.outputs.result}}",
        ),
    }
    value = {
        "inputs": {"raw": {"type": "uri_file", "path": str(raw)}, "n": 3},
        "outputs": {"result": {"type": "uri_folder"}},
        "jobs": jobs,
    }
    return Pipeline.model_validate(value | changes)


def steps_of(workspace: Workspace, job: Job) -> dict[str, Job]:
    return {each.step_name or "": each for each in workspace.jobs.list(parent=job.name, limit=100)}


def test_steps_run_as_soon_as_their_inputs_are_there_and_outputs_are_passed_on(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw), by="ann")
    driver, steps = driver_of(workspace), Steps(workspace)
    driver.drive()
    assert list(steps_of(workspace, job)) == ["a"]
    first = steps_of(workspace, job)["a"]
    assert (first.name, first.type, first.created_by) == (f"{job.name}-a", "command", "ann")
    assert (first.inputs["raw"], first.literals) == (Input(type="uri_file", path=str(raw)), {"n": 3})
    steps.run()
    driver.drive()
    assert {name for name, each in steps_of(workspace, job).items() if each.status == JobStatus.QUEUED} == {"b", "c"}
    assert workspace.jobs.get(job.name).status == JobStatus.RUNNING
    done = steps_of(workspace, job)["a"]
    assert steps_of(workspace, job)["b"].inputs["x"].path == done.outputs["out"].folder
    driver.stop()
    ended, _ = complete(workspace, job)
    assert (ended.status, ended.reason) == (JobStatus.COMPLETED, Reason.COMPLETED)
    result = ended.outputs["result"]
    assert result.folder == steps_of(workspace, job)["d"].outputs["out"].folder
    assert f"azureml/{job.name}/result" in str(result.folder)
    assert result.files == ["part.csv"]
    assert [each.name for each in workspace.jobs.list()] == [job.name]
    assert ended.progress is not None
    assert (ended.progress.steps_planned, ended.progress.steps_done, ended.progress.phase) == (4, 4, "finished")
    log = workspace.jobs.read_log(job.name, "logs/pipeline.log").decode()
    assert [line.split("  ", 1)[1] for line in log.splitlines()[:2]] == [f"a  queued as job {job.name}-a", "a  started"]
    assert log.endswith("The pipeline completed.\n")


@on_sqlite
@pytest.mark.parametrize(
    ("lenient", "ran", "never_started"), [(True, ["a", "b", "c", "side"], "d"), (False, ["a", "b", "c"], "d, side")]
)
def test_a_failed_step_fails_the_pipeline_with_its_own_error_and_what_does_not_depend_on_it_may_run(
    workspace: Workspace, raw: Path, lenient: bool, ran: list[str], never_started: str
) -> None:
    jobs = diamond(raw).model_dump(exclude_unset=True)["jobs"]
    jobs["side"] = command({"x": "${{parent.jobs.c.outputs.out}}"})
    pipeline = diamond(raw, jobs=jobs, settings={"continue_on_step_failure": lenient})
    job = workspace.pipelines.submit(pipeline)
    ended, really_ran = complete(workspace, job, failing=("b",))
    assert (sorted(really_ran), ended.status, ended.reason) == (ran, JobStatus.FAILED, Reason.STEP_FAILED)
    assert ended.error is not None
    assert ended.error.message == (f"Step b (job {job.name}-b) failed: exit code 3\nNever started: {never_started}.")
    assert (ended.error.code, ended.error.traceback) == ("step_failed", "Traceback: boom")


@on_sqlite
def test_the_errors_of_a_pipeline_are_its_failed_steps_those_of_inner_pipelines_among_them(
    workspace: Workspace, raw: Path
) -> None:
    ended, _ = complete(workspace, workspace.pipelines.submit(diamond(raw)), failing=("b", "c"))
    errors = workspace.jobs.errors(ended.name)
    assert [(error["step"], error["job"]) for error in errors] == [("b", f"{ended.name}-b"), ("c", f"{ended.name}-c")]
    assert errors[0] | {"step": "b", "job": ""} == {
        "step": "b", "job": "", "code": "command_failed", "file": None, "row": None, "exception": None,
        "message": "exit code 3", "traceback": "Traceback: boom",
    }  # fmt: skip
    assert len(workspace.jobs.errors(ended.name, limit=1)) == 1
    ended, _ = complete(workspace, workspace.pipelines.submit(nested(raw)), failing=("two",))
    errors = workspace.jobs.errors(ended.name)
    assert [(error["step"], error["job"]) for error in errors] == [("inner.two", f"{ended.name}-inner-two")]


@on_sqlite
def test_the_errors_of_a_pipeline_name_steps_that_were_canceled_and_what_came_after_the_steps(
    workspace: Workspace, raw: Path
) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    driver_of(workspace).drive()
    workspace.jobs.cancel(f"{job.name}-a")
    assert [(error["code"], error["message"]) for error in workspace.jobs.errors(job.name)] == [
        ("canceled_by_user", "The step was canceled.")
    ]
    broken = workspace.pipelines.submit(diamond(raw))
    claimed = workspace.registry.jobs.claim("server", 30, types=("pipeline",))
    while claimed is not None and claimed.job.name != broken.name:
        claimed = workspace.registry.jobs.claim("server", 30, types=("pipeline",))
    assert claimed is not None
    failure = JobError(code="output_failed", message="An output could not be registered.")
    workspace.registry.jobs.finish(broken.name, claimed.lease_token, Reason.OUTPUT_FAILED, error=failure)
    (error,) = workspace.jobs.errors(broken.name)
    assert (error["step"], error["job"], error["message"]) == (None, broken.name, failure.message)


def test_a_resumed_pipeline_takes_over_what_completed_and_runs_the_rest(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    complete(workspace, job, failing=("b",))
    again = workspace.jobs.retry_failed(job.name, by="ann")
    assert again.retry_of == job.name
    with pytest.raises(ConflictError, match="is being retried already"):
        workspace.jobs.retry_failed(job.name)
    ended, ran = complete(workspace, again)
    assert (ended.status, sorted(ran)) == (JobStatus.COMPLETED, ["b", "d"])
    taken = steps_of(workspace, again)
    assert {name: each.reused_job_name for name, each in taken.items()} == {
        "a": f"{job.name}-a", "b": None, "c": f"{job.name}-c", "d": None,
    }  # fmt: skip
    assert taken["b"].inputs["x"].path == steps_of(workspace, job)["a"].outputs["out"].folder
    assert f"azureml/{job.name}/result" in str(ended.outputs["result"].folder)
    with pytest.raises(ConflictError, match="there is nothing to resume"):
        workspace.jobs.retry_failed(again.name)


@on_sqlite
def test_what_a_resumed_pipeline_never_came_to_is_taken_over_by_the_next(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    complete(workspace, job, failing=("d",))
    between = workspace.jobs.retry_failed(job.name)
    workspace.jobs.cancel(between.name)
    last = workspace.jobs.retry_failed(between.name)
    ended, ran = complete(workspace, last)
    assert (ended.status, ran) == (JobStatus.COMPLETED, ["d"])


def test_a_pipeline_that_was_resumed_and_completed_is_not_resumed_again_and_the_answer_names_the_job_that_did(
    workspace: Workspace, raw: Path
) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    complete(workspace, job, failing=("b",))
    again, _ = complete(workspace, workspace.jobs.retry_failed(job.name))
    with pytest.raises(ConflictError, match=f"{job.name} was resumed already, by job {again.name}, which completed"):
        workspace.jobs.retry_failed(job.name)


def test_a_pipeline_whose_resumed_job_failed_too_goes_on_from_there(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw, settings={"force_rerun": True}))
    complete(workspace, job, failing=("b",))
    between, ran = complete(workspace, workspace.jobs.retry_failed(job.name), failing=("d",))
    assert ran == ["b", "d"]
    last = workspace.jobs.retry_failed(job.name)
    assert last.retry_of == between.name
    with pytest.raises(ConflictError, match=f"is being retried already, by job {last.name}"):
        workspace.jobs.retry_failed(job.name)
    ended, ran = complete(workspace, last)
    assert (ended.status, ran) == (JobStatus.COMPLETED, ["d"])
    with pytest.raises(ConflictError, match=last.name):
        workspace.jobs.retry_failed(job.name)


@on_sqlite
def test_a_step_whose_outputs_are_gone_is_run_again_when_the_pipeline_is_resumed(
    workspace: Workspace, raw: Path
) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    complete(workspace, job, failing=("b",))
    folder = Path(steps_of(workspace, job)["a"].outputs["out"].folder or "")
    (folder / "part.csv").write_text("somebody else's")
    _, ran = complete(workspace, workspace.jobs.retry_failed(job.name))
    assert ran == ["a", "b", "c", "d"]


def test_canceling_a_pipeline_cancels_its_steps_and_starts_no_more(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    driver, steps = driver_of(workspace), Steps(workspace)
    driver.drive()
    steps.run()
    driver.drive()
    running = steps.claim()
    assert running is not None
    workspace.jobs.cancel(job.name)
    driver.drive()
    steps.finish(running)
    driver.drive()
    ended = workspace.jobs.get(job.name)
    assert (ended.status, ended.reason, ended.error) == (JobStatus.CANCELED, Reason.CANCELED_BY_USER, None)
    statuses = {name: each.status for name, each in steps_of(workspace, job).items()}
    assert statuses == {"a": JobStatus.COMPLETED, "b": JobStatus.CANCELED, "c": JobStatus.CANCELED}


@on_sqlite
def test_a_pipeline_canceled_while_it_is_queued_starts_nothing(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    workspace.jobs.cancel(job.name)
    assert not driver_of(workspace).drive()
    assert (workspace.jobs.get(job.name).status, steps_of(workspace, job)) == (JobStatus.CANCELED, {})


def nested(raw: Path) -> Pipeline:
    inner = {
        "type": "pipeline",
        "inputs": {"data": "${{parent.jobs.first.outputs.out}}", "k": "${{parent.inputs.n}}"},
        "outputs": {"rows": "${{parent.outputs.result}}"},
        "jobs": {
            "one": command({"x": "${{parent.inputs.data}}", "k": "${{parent.inputs.k}}"}),
            "two": command({"x": "${{parent.jobs.one.outputs.out}}"}, out="${{parent.outputs.rows}}"),
        },
    }
    jobs = {"first": command({"raw": "${{parent.inputs.raw}}"}), "inner": inner}
    return diamond(raw, jobs=jobs)


@on_sqlite
def test_canceling_reaches_the_steps_of_an_inner_pipeline(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(nested(raw))
    driver, steps = driver_of(workspace), Steps(workspace)
    driver.drive()
    steps.run()
    while driver.drive():
        pass
    running = steps.claim()
    assert running is not None
    assert running.step_name == "one"
    workspace.jobs.cancel(job.name)
    while driver.drive():
        pass
    steps.finish(running)
    while driver.drive():
        pass
    inner = steps_of(workspace, job)["inner"]
    assert [each.status for each in (inner, workspace.jobs.get(job.name))] == [JobStatus.CANCELED] * 2


@on_sqlite
def test_a_pipeline_inside_a_pipeline_is_driven_the_same_way(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(nested(raw))
    ended, ran = complete(workspace, job)
    assert (ended.status, ran) == (JobStatus.COMPLETED, ["first", "one", "two"])
    inner = steps_of(workspace, job)["inner"]
    assert (inner.type, inner.literals) == ("pipeline", {"k": 3})
    two = steps_of(workspace, inner)["two"]
    assert two.name == f"{job.name}-inner-two"
    assert ended.outputs["result"].folder == inner.outputs["rows"].folder == two.outputs["out"].folder


def test_an_inner_step_that_failed_is_named_all_the_way_up_and_resumed_alone(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(nested(raw))
    ended, _ = complete(workspace, job, failing=("two",))
    assert ended.error is not None
    assert ended.error.message == (
        f"Step inner (job {job.name}-inner) failed: Step two (job {job.name}-inner-two) failed: exit code 3"
    )
    again, ran = complete(workspace, workspace.jobs.retry_failed(job.name))
    assert (again.status, ran) == (JobStatus.COMPLETED, ["two"])


def test_a_step_with_the_same_work_is_not_run_again_and_says_whose_outputs_these_are(
    workspace: Workspace, raw: Path
) -> None:
    first, _ = complete(workspace, workspace.pipelines.submit(diamond(raw)))
    second, ran = complete(workspace, workspace.pipelines.submit(diamond(raw)))
    assert (second.status, ran) == (JobStatus.COMPLETED, [])
    assert {each.reused_job_name for each in steps_of(workspace, second).values()} == {
        f"{first.name}-{name}" for name in "abcd"
    }
    assert second.outputs["result"].folder == first.outputs["result"].folder
    third, _ = complete(workspace, workspace.pipelines.submit(diamond(raw)))
    assert {each.reused_job_name for each in steps_of(workspace, third).values()} == {
        f"{first.name}-{name}" for name in "abcd"
    }
    assert "not run: it has the outputs of job" in workspace.jobs.read_log(third.name, "logs/pipeline.log").decode()


@on_sqlite
@pytest.mark.parametrize(
    ("change", "ran"),
    [
        ("nothing", []),
        ("literal", ["a", "b", "c", "d"]),
        ("input file", ["a", "b", "c", "d"]),
        ("output touched", ["b", "d"]),
        ("command of b", ["b", "d"]),
        ("force_rerun", ["a", "b", "c", "d"]),
        ("is_deterministic", ["c", "d"]),
        ("environment variables of c", ["c", "d"]),
    ],
)
def test_what_has_changed_is_run_again_and_what_depends_on_it(
    workspace: Workspace, raw: Path, change: str, ran: list[str]
) -> None:
    first, _ = complete(workspace, workspace.pipelines.submit(diamond(raw)))
    value = diamond(raw).model_dump(exclude_unset=True)
    if change == "literal":
        value["inputs"]["n"] = 4
    if change == "input file":
        raw.write_text("a\n2\n")
    if change == "output touched":
        (Path(steps_of(workspace, first)["b"].outputs["out"].folder or "") / "more.csv").write_text("x")
    if change == "command of b":
        value["jobs"]["b"]["command"] = "false"
    if change == "force_rerun":
        value["settings"] = {"force_rerun": True}
    if change == "is_deterministic":
        value["jobs"]["c"]["is_deterministic"] = False
    if change == "environment variables of c":
        value["jobs"]["c"]["environment_variables"] = {"A": "1"}
    _, really_ran = complete(workspace, workspace.pipelines.submit(Pipeline.model_validate(value)))
    assert really_ran == ran


@on_sqlite
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("chosen", ["path", "default_datastore"])
def test_outputs_that_lie_elsewhere_than_they_are_asked_for_are_not_reused(
    workspace: Workspace, raw: Path, tmp_path: Path, inside: bool, chosen: str
) -> None:
    def placed(name: str) -> Pipeline:
        place = {"type": "uri_folder"} | ({"path": str(tmp_path / name)} if chosen == "path" else {})
        settings = {"default_datastore": name} if chosen == "default_datastore" else {}
        value = (nested(raw) if inside else diamond(raw)).model_dump(exclude_unset=True)
        return Pipeline.model_validate(value | {"outputs": {"result": place}, "settings": settings})

    for name in ("one", "two"):
        store = {"name": name, "type": "local", "path": str(tmp_path / name)}
        workspace.resources.create_or_update("datastore", Datastore.model_validate(store))
        job, ran = complete(workspace, workspace.pipelines.submit(placed(name)))
        assert ran
        assert str(job.outputs["result"].folder).startswith(str(tmp_path / name))
        _, ran = complete(workspace, workspace.pipelines.submit(placed(name)))
        assert ran == []


@on_sqlite
@pytest.mark.parametrize("inside", [False, True])
def test_a_resumed_pipeline_runs_again_what_had_other_data_at_the_same_place(
    workspace: Workspace, raw: Path, inside: bool
) -> None:
    pipeline = nested(raw) if inside else diamond(raw)
    if inside:
        pipeline.jobs["inner"].inputs["data"] = "${{parent.inputs.raw}}"
        pipeline.jobs["last"] = CommandStep.model_validate(command({"x": "${{parent.jobs.inner.outputs.rows}}"}))
    job, _ = complete(workspace, workspace.pipelines.submit(pipeline), failing=("d", "last"))
    raw.write_text("a\n2\n")
    _, ran = complete(workspace, workspace.jobs.retry_failed(job.name))
    assert set(ran) >= ({"one", "two", "last"} if inside else {"a", "b", "c", "d"})


@on_sqlite
@pytest.mark.parametrize("touched", [False, True])
def test_a_step_that_runs_again_may_replace_what_it_wrote_itself_and_nothing_else(
    workspace: Workspace, raw: Path, touched: bool
) -> None:
    jobs = {"a": command({"raw": "${{parent.inputs.raw}}"}, out="${{parent.outputs.result}}")}
    jobs["b"] = command({"x": "${{parent.jobs.a.outputs.out}}"})
    job, _ = complete(workspace, workspace.pipelines.submit(diamond(raw, jobs=jobs)), failing=("b",))
    raw.write_text("a\n2\n")
    if touched:
        (Path(steps_of(workspace, job)["a"].outputs["out"].folder or "") / "more.csv").write_text("somebody else's")
    again = workspace.jobs.retry_failed(job.name)
    complete(workspace, again)
    run = steps_of(workspace, again)["a"]
    assert run.command is not None
    assert run.command.if_exists == ("fail" if touched else "overwrite")


@on_sqlite
def test_what_was_forced_to_run_or_failed_is_never_reused(workspace: Workspace, raw: Path) -> None:
    complete(workspace, workspace.pipelines.submit(diamond(raw, settings={"force_rerun": True})))
    _, ran = complete(workspace, workspace.pipelines.submit(diamond(raw)), failing=("d",))
    assert ran == ["a", "b", "c", "d"]
    _, ran = complete(workspace, workspace.pipelines.submit(diamond(raw)))
    assert ran == ["d"]


@on_sqlite
def test_two_pipelines_at_once_never_share_what_is_not_finished(workspace: Workspace, raw: Path) -> None:
    one, two = (workspace.pipelines.submit(diamond(raw)) for _ in range(2))
    driver, steps = driver_of(workspace), Steps(workspace)
    driver.drive()
    assert [steps_of(workspace, each)["a"].status for each in (one, two)] == [JobStatus.QUEUED] * 2
    for _ in range(20):
        steps.run()
        driver.drive()
    assert [workspace.jobs.get(each.name).status for each in (one, two)] == [JobStatus.COMPLETED] * 2
    folders = {workspace.jobs.get(each.name).outputs["result"].folder for each in (one, two)}
    assert len(folders) == 2


class KilledError(Exception):
    """Stands for the end of the process."""


class Death:
    """Kills a driver at its n-th write to the jobs of the registry, before it is done or just after."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.came = False
        self._left = at
        self._after = after

    def lies_in_wait(self, jobs: RegistryJobs, patch: pytest.MonkeyPatch) -> None:
        for name in ("claim", "update", "transition", "add_step", "renew", "request_cancel", "finish"):
            patch.setattr(jobs, name, self._deadly(getattr(jobs, name)))

    def _deadly(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                self._kill()
            result = write(*arguments, **named)
            if self._left == 0:
                self._kill()
            return result

        return wrapped

    def _kill(self) -> None:
        self.came = True
        raise KilledError


def drive_to_the_end(workspace: Workspace, job: Job, death: Death, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Drive a pipeline, by a second driver once the first was killed. Answers with the steps that were run."""
    driver, steps = driver_of(workspace), Steps(workspace)
    for _ in range(40):
        with monkeypatch.context() as patch:
            if not death.came:
                death.lies_in_wait(workspace.registry.jobs, patch)
            with suppress(KilledError):
                driver.drive()
        if death.came:
            driver = driver_of(workspace)
            workspace.registry.jobs.release_all(driver._owner)
        steps.run()
        if workspace.jobs.get(job.name).status.is_finished:
            break
    return steps.ran


@pytest.mark.parametrize("after", [False, True])
def test_a_driver_killed_between_any_two_writes_is_followed_by_one_that_goes_on(
    workspace: Workspace, raw: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    for write in itertools.count(1):
        death = Death(write, after=after)
        job = workspace.pipelines.submit(diamond(raw, settings={"force_rerun": True}))
        ran = drive_to_the_end(workspace, job, death, monkeypatch)
        assert workspace.jobs.get(job.name).status == JobStatus.COMPLETED, f"killed at write {write}"
        assert (ran[0], sorted(ran[1:3]), ran[3:]) == ("a", ["b", "c"], ["d"]), f"killed at write {write}"
        assert len(steps_of(workspace, job)) == 4
        if not death.came:
            break
    assert write > 10


def test_two_drivers_on_one_registry_run_each_step_once(workspace: Workspace, raw: Path) -> None:
    jobs = [workspace.pipelines.submit(diamond(raw, settings={"force_rerun": True})) for _ in range(4)]
    drivers, steps, over = [driver_of(workspace) for _ in range(2)], Steps(workspace), threading.Event()
    failures: list[Exception] = []

    def drive(driver: PipelineDriver) -> None:
        while not over.is_set():
            try:
                driver.drive()
            except Exception as error:  # noqa: BLE001 -- told by the thread that looks at them
                failures.append(error)
                return

    threads = [threading.Thread(target=drive, args=(driver,)) for driver in drivers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while not all(workspace.jobs.get(job.name).status.is_finished for job in jobs):
        steps.run()
        assert time.monotonic() < deadline
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(steps.ran) == sorted("abcd" * 4)


def test_a_driver_that_lost_its_lease_starts_nothing_more(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    stale, fresh = driver_of(workspace), driver_of(workspace)
    stale.drive()
    drive = stale._held()[0]
    workspace.registry.jobs.release(job.name, drive.lease_token)
    assert fresh.drive()
    workspace.jobs.cancel(job.name)
    fresh.drive()
    fresh.drive()
    assert workspace.jobs.get(job.name).status == JobStatus.CANCELED
    with pytest.raises(LeaseLostError):
        stale._start(drive, "a")
    stale.drive()
    assert list(steps_of(workspace, job)) == ["a"]
    assert stale._held() == []


def test_a_name_that_somebody_took_does_not_stop_a_step(workspace: Workspace, raw: Path) -> None:
    value = diamond(raw).model_copy(update={"name": "nightly"})
    workspace.registry.jobs.enqueue(Job(name="nightly-a", type="pipeline"))
    workspace.jobs.cancel("nightly-a")
    job = workspace.pipelines.submit(value)
    ended, ran = complete(workspace, job)
    assert (ended.status, ran) == (JobStatus.COMPLETED, ["a", "b", "c", "d"])
    first = steps_of(workspace, job)["a"]
    assert first.name.startswith("nightly-a-")
    assert f"azureml/{first.name}/out" in str(first.outputs["out"].folder), "the folder of the other's name is his"


@on_sqlite
def test_a_step_that_cannot_be_started_fails_with_the_reason(workspace: Workspace, raw: Path) -> None:
    workspace.assets.create_or_update("data", Data(name="taxi", type="uri_file", path=str(raw)))
    inputs = {"raw": {"path": "azureml:taxi:1"}, "n": 3}
    job = workspace.pipelines.submit(diamond(raw, inputs=inputs))
    with workspace.registry.database.write() as connection:
        connection.execute(assets_table.delete().where(assets_table.c.kind == "data"))
    ended, ran = complete(workspace, job)
    assert (ended.status, ran) == (JobStatus.FAILED, [])
    assert ended.error is not None
    assert ended.error.message.splitlines() == [
        f"Step a (job {job.name}-a) failed: There is no data named taxi.",
        "Never started: b, c, d.",
    ]


@on_sqlite
def test_outputs_with_a_name_become_data_assets_once_the_pipeline_has_completed(
    workspace: Workspace, raw: Path
) -> None:
    outputs = {"result": {"type": "uri_folder", "name": "scores"}}
    for _ in range(2):
        ended, _ = complete(workspace, workspace.pipelines.submit(diamond(raw, outputs=outputs)))
        assert ended.status == JobStatus.COMPLETED
    assert [asset.version for asset in workspace.assets.list("data", name="scores")] == ["1"]
    asset = workspace.assets.get("data", "scores", "1")
    assert str(asset.model_dump()["path"]).startswith("azureml://datastores/workspaceblobstore/paths/azureml/pipeline-")
    failed = diamond(raw, outputs=outputs, settings={"force_rerun": True})
    complete(workspace, workspace.pipelines.submit(failed), failing=("d",))
    assert [asset.version for asset in workspace.assets.list("data", name="scores")] == ["1"]


@on_sqlite
def test_an_output_that_cannot_be_registered_fails_the_pipeline_and_nothing_has_to_run_again(
    workspace: Workspace, raw: Path
) -> None:
    workspace.assets.create_or_update("data", Data(name="scores", version="1", type="uri_file", path=str(raw)))
    outputs = {"result": {"type": "uri_folder", "name": "scores", "version": "1"}}
    ended, _ = complete(workspace, workspace.pipelines.submit(diamond(raw, outputs=outputs)))
    assert (ended.status, ended.reason) == (JobStatus.FAILED, Reason.OUTPUT_FAILED)
    assert ended.error is not None
    assert "An output could not be registered: " in ended.error.message
    again, ran = complete(workspace, workspace.jobs.retry_failed(ended.name))
    assert (again.reason, ran) == (Reason.OUTPUT_FAILED, [])


@on_sqlite
def test_a_pipeline_sums_up_the_progress_of_its_steps(workspace: Workspace, raw: Path) -> None:
    job = workspace.pipelines.submit(diamond(raw))
    driver, steps = driver_of(workspace), Steps(workspace)
    driver.drive()
    running = steps.claim()
    assert running is not None
    half = Progress(unit="rows", planned_items=10, ok=5, fraction=0.5)
    workspace.registry.jobs.renew(running.name, steps._token, 30, half)
    driver.drive()
    found = workspace.jobs.get(job.name).progress
    assert found is not None
    assert (found.unit, found.ok, found.steps_planned, found.steps_done, found.fraction) == ("rows", 5, 4, 0, 0.125)
    driver.stop()


@on_sqlite
def test_a_pipeline_is_started_again_from_its_job(workspace: Workspace, raw: Path, tmp_path: Path) -> None:
    first, _ = complete(workspace, workspace.pipelines.submit(diamond(raw)))
    pipeline = workspace.pipelines.from_job(first.name)
    other = tmp_path / "other.csv"
    other.write_text("a\n5\n")
    changed = workspace.pipelines.with_inputs(
        pipeline,
        inputs={"raw": Input(path=str(other))},
        literals={"n": 7},
        outputs={"result": Output(path=str(tmp_path / "o"))},
    )
    second, ran = complete(workspace, workspace.pipelines.submit(changed))
    assert ran == ["a", "b", "c", "d"]
    assert (second.inputs["raw"].path, second.literals["n"]) == (str(other), 7)
    assert second.outputs["result"].folder == str(tmp_path / "o")
    with pytest.raises(InvalidEntityError, match=r"inputs.rav: the pipeline has no input 'rav'. Did you mean 'raw'?"):
        workspace.pipelines.with_inputs(pipeline, inputs={"rav": Input(path="x")})
    with pytest.raises(InvalidEntityError, match="the input takes uri_file, and uri_folder was given"):
        workspace.pipelines.with_inputs(pipeline, inputs={"raw": Input(type="uri_folder", path="x")})


@on_sqlite
def test_the_same_idempotency_key_gives_the_same_pipeline_job(workspace: Workspace, raw: Path) -> None:
    one = workspace.pipelines.submit(diamond(raw), idempotency_key="k")
    assert workspace.pipelines.submit(diamond(raw), idempotency_key="k").name == one.name
    with pytest.raises(ConflictError):
        workspace.pipelines.submit(diamond(raw, inputs={"raw": {"path": str(raw)}, "n": 4}), idempotency_key="k")


def test_a_pipeline_job_holds_no_compute_and_holds_back_nobody(workspace: Workspace, raw: Path) -> None:
    workspace.pipelines.submit(diamond(raw))
    jobs: RegistryJobs = workspace.registry.jobs
    assert jobs.claim("a", 30, types=("scoring", "command")) is None
    jobs.enqueue(Job(name="younger"))
    claimed = jobs.claim("a", 30, types=("scoring", "command"))
    assert claimed is not None
    assert claimed.job.name == "younger"


@on_sqlite
def test_everything_that_cannot_be_found_is_told_at_once_and_nothing_is_registered(
    workspace: Workspace, raw: Path, tmp_path: Path
) -> None:
    code = tmp_path / "src"
    code.mkdir()
    (code / "p.py").write_text("def broken(:\n")
    (code / "s.py").write_text("def init():\n    pass\n")
    jobs = {
        "a": command({"raw": "${{parent.inputs.raw}}"}) | {"compute": "azureml:nowhere", "code": str(code)},
        "b": {"component": "azureml:prepare:1", "inputs": {"x": "azureml:taxi:1"}},
        "s": {
            "type": "parallel",
            "input_data": "${{inputs.x}}",
            "inputs": {"x": "${{parent.jobs.a.outputs.out}}"},
            "outputs": {"out": "${{parent.outputs.result}}"},
            "task": {"code": str(code), "entry_script": "s.py", "environment": "azureml:env:1"},
        },
    }
    jobs["a"]["command"] = "python p.py"
    inputs = {"raw": {"type": "uri_file", "path": str(tmp_path / "gone.csv")}}
    pipeline = diamond(raw, jobs=jobs, inputs=inputs, settings={"default_datastore": "elsewhere"})
    with pytest.raises(InvalidEntityError) as raised:
        workspace.pipelines.validate(pipeline)
    problems = {problem["place"]: problem["message"] for problem in raised.value.details["problems"]}
    assert set(problems) == {
        "settings.default_datastore", "inputs.raw", "jobs.a.compute", "jobs.a.code", "jobs.b.component",
        "jobs.s.task.code", "jobs.s.task.environment",
    }  # fmt: skip
    assert problems["jobs.a.code"] == "p.py, line 1: invalid syntax: def broken(:"
    assert "has no function run(mini_batch)" in problems["jobs.s.task.code"]
    assert problems["jobs.a.compute"].startswith("There is no compute named nowhere. There are: local")
    with pytest.raises(InvalidEntityError):
        workspace.pipelines.submit(pipeline)
    assert workspace.assets.list("code") == []
    assert workspace.registry.jobs.list() == []
    with pytest.raises(NotFoundError):
        workspace.pipelines.from_job("nothing")


def scored(raw: Path, code: Path) -> Pipeline:
    """A scoring step over the pipeline's input, and a step that reads what it puts out."""
    code.mkdir()
    (code / "score.py").write_text("def init():\n    pass\n\n\ndef run(mini_batch):\n    return mini_batch\n")
    score = {
        "type": "parallel",
        "input_data": "${{inputs.data}}",
        "inputs": {"data": "${{parent.inputs.raw}}"},
        "outputs": {"rows": "${{parent.outputs.result}}"},
        "task": {"code": str(code), "entry_script": "score.py", "append_row_to": "${{outputs.rows}}"},
    }
    jobs = {"score": score, "after": command({"x": "${{parent.jobs.score.outputs.rows}}"})}
    return diamond(raw, jobs=jobs)


@on_sqlite
def test_a_scoring_step_that_failed_is_resumed_with_the_mini_batches_that_it_has(
    workspace: Workspace, raw: Path, tmp_path: Path
) -> None:
    pipeline = scored(raw, tmp_path / "src")
    job = workspace.pipelines.submit(pipeline)
    driver, steps = driver_of(workspace), Steps(workspace)
    driver.drive()
    running = steps.claim()
    assert running is not None
    assert (running.type, running.input_data, running.append_row_to) == ("scoring", "data", "rows")
    assert running.inputs["data"].recursive, "a step that writes folders is followed by one that finds their files"
    workspace.registry.jobs.update(running.name, folder=str(tmp_path))
    steps.finish(running, error=JobError(code="error_threshold_exceeded", message="1 item failed"))
    driver.drive()
    again = workspace.jobs.retry_failed(job.name)
    driver.drive()
    retried = steps_of(workspace, again)["score"]
    assert retried.retry_of == running.name
    assert retried.outputs == {"rows": Output(type="uri_folder", path=running.outputs["rows"].path)}
    with pytest.raises(ConflictError, match="is being retried already"):
        workspace.jobs.retry_failed(running.name)
    driver.stop()
    ended, ran = complete(workspace, again)
    assert (ended.status, ran) == (JobStatus.COMPLETED, ["score", "after"])
    _, ran = complete(workspace, workspace.pipelines.submit(pipeline))
    assert ran == []


@on_sqlite
def test_a_step_whose_failed_job_somebody_retries_already_starts_anew(
    workspace: Workspace, raw: Path, tmp_path: Path
) -> None:
    job = workspace.pipelines.submit(scored(raw, tmp_path / "src"))
    driver, steps = driver_of(workspace), Steps(workspace)
    driver.drive()
    running = steps.claim()
    assert running is not None
    workspace.registry.jobs.update(running.name, folder=str(tmp_path))
    steps.finish(running, error=JobError(code="error_threshold_exceeded", message="1 item failed"))
    driver.drive()
    workspace.jobs.retry_failed(running.name)
    again = workspace.jobs.retry_failed(job.name)
    driver.drive()
    assert steps_of(workspace, again)["score"].retry_of is None
    driver.stop()


@on_sqlite
def test_the_next_step_starts_within_a_moment_of_the_end_of_the_one_before(workspace: Workspace, raw: Path) -> None:
    changes = JobChanges()
    driver, steps = (
        PipelineDriver(workspace, changes, lambda _workspace, _job: None, lambda _workspace, _job: None),
        Steps(workspace),
    )
    for loop in driver.loops:
        loop.start()
    job = workspace.pipelines.submit(diamond(raw))
    eventually(steps.run)
    time.sleep(1.0)  # the loop waits longer and longer while nothing happens
    done_at = time.monotonic()
    changes.notify()
    eventually(lambda: len(steps_of(workspace, job)) == 3)
    assert time.monotonic() - done_at < 0.5
    for loop in driver.loops:
        loop.stop()
    driver.stop()


PREPARE = {
    "name": "prepare_rows",
    "type": "command",
    "command": "python p.py ${{inputs.raw}} $[[ --n ${{inputs.n}} ]] ${{outputs.rows}}",
    "inputs": {"raw": {"type": "uri_file"}, "n": {"type": "integer", "optional": True}},
    "outputs": {"rows": {"type": "uri_folder"}},
}


@on_sqlite
def test_a_registered_component_is_a_step_and_stays_what_it_was_when_the_pipeline_was_started(
    workspace: Workspace, raw: Path
) -> None:
    workspace.assets.create_or_update("component", Component.model_validate(PREPARE))
    step = {"component": "azureml:prepare_rows@latest", "inputs": {"raw": "${{parent.inputs.raw}}"}}
    pipeline = diamond(raw, jobs={"a": {**step, "outputs": {"rows": "${{parent.outputs.result}}"}}})
    job = workspace.pipelines.submit(pipeline)
    later = {**PREPARE, "command": "echo ${{outputs.rows}}"}
    workspace.assets.create_or_update("component", Component.model_validate(later))
    driver_of(workspace).drive()
    made = steps_of(workspace, job)["a"]
    assert made.command is not None
    assert made.command.command.split() == ["python", "p.py", "${{inputs.raw}}", "${{outputs.rows}}"]


@on_sqlite
def test_what_a_component_takes_when_nothing_is_given_is_settled_when_the_pipeline_is_started(
    workspace: Workspace, raw: Path
) -> None:
    workspace.assets.create_or_update("data", Data(name="taxi", type="uri_file", path=str(raw)))
    port = {"type": "uri_file", "path": "azureml:taxi@latest", "mode": "direct"}
    step = {**PREPARE, "inputs": {"raw": port, "n": {"type": "integer", "default": 4}}}
    jobs = {"a": {"component": step, "outputs": {"rows": "${{parent.outputs.rows}}"}}}
    whole = {"name": "whole", "type": "pipeline", "outputs": {"rows": {"type": "uri_folder"}}, "jobs": jobs}
    whole["inputs"] = {"other": {"type": "uri_file", "path": "azureml:taxi@latest"}}
    job = workspace.pipelines.submit(Pipeline.model_validate({"component": whole}))
    assert job.inputs["other"].path == "azureml:taxi:1"
    raw.write_text("a\n3\n")
    workspace.assets.create_or_update("data", Data(name="taxi", type="uri_file", path=str(raw)))
    driver_of(workspace).drive()
    made = steps_of(workspace, job)["a"]
    first = workspace.assets.get("data", "taxi", "1")
    assert (made.inputs["raw"].path, made.literals) == (first.model_dump()["path"], {"n": 4})
    assert made.command is not None
    assert made.command.direct_inputs == ["raw"]
    missing = {**whole, "inputs": {"other": {"type": "uri_file", "path": "azureml:bus@latest"}}}
    with pytest.raises(InvalidEntityError, match=r"inputs\.other: There is no data named bus"):
        workspace.pipelines.validate(Pipeline.model_validate({"component": missing}))


@on_sqlite
def test_a_step_whose_check_has_nothing_to_compare_with_is_refused_before_anything_runs(
    workspace: Workspace, raw: Path, tmp_path: Path
) -> None:
    (tmp_path / "s.py").write_text("def run(rows):\n    return rows\n")

    def checked(**quality: object) -> Pipeline:
        step = {
            "type": "parallel",
            "input_data": "${{inputs.x}}",
            "inputs": {"x": "${{parent.inputs.raw}}"},
            "outputs": {"out": "${{parent.outputs.result}}"},
            "task": {"code": str(tmp_path), "entry_script": "s.py"},
            "batchpoint": {"quality": quality},
        }
        inner = {"type": "pipeline", "inputs": {"raw": "${{parent.inputs.raw}}"}, "jobs": {"s": step}}
        inner["outputs"] = {"result": "${{parent.outputs.result}}"}
        return diamond(raw, jobs={"inside": inner})

    for check in ("max_drift", "max_missing_change"):
        with pytest.raises(InvalidEntityError, match=r"jobs\.inside\.jobs\.s: .* compares with a reference"):
            workspace.pipelines.submit(checked(**{check: 0.25}))
    with pytest.raises(InvalidEntityError, match=r"s\.batchpoint\.quality\.reference: There is no job named mondya"):
        workspace.pipelines.submit(checked(max_drift=0.25, reference="mondya"))
    assert workspace.registry.jobs.list() == []
    workspace.registry.jobs.enqueue(Job(name="monday"))
    workspace.pipelines.validate(checked(max_drift=0.25, reference="monday"))
    workspace.pipelines.validate(checked(max_failure_rate=0.1))


@on_sqlite
def test_a_component_that_does_not_exist_is_told_with_the_nearest_name(workspace: Workspace, raw: Path) -> None:
    workspace.assets.create_or_update("component", Component.model_validate(PREPARE))
    jobs = {
        "a": {"component": "azureml:prepare_row:1"},
        "b": {"component": "azureml:prepare_rows:7"},
        "c": command({"x": "${{parent.jobs.a.outputs.rows}}"}, out="${{parent.outputs.result}}"),
        "d": {"type": "parallel", "component": "azureml:prepare_rows:1"},
    }
    with pytest.raises(InvalidEntityError) as raised:
        workspace.pipelines.validate(diamond(raw, jobs=jobs))
    assert {problem["place"]: problem["message"] for problem in raised.value.details["problems"]} == {
        "jobs.a.component": "There is no component named prepare_row. Did you mean 'prepare_rows'?",
        "jobs.b.component": "There is no component prepare_rows:7. The newest versions are 1.",
        "jobs.d.type": "the step is of type parallel, and component prepare_rows is of type command.",
    }
