"""Times of a schedule that are over, started again: on both databases, with a clock that the test moves."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batchpoint.background.models_file import write_models
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.grids import WHOLE, key_of
from batchpoint.entities.jobs import Job, JobStatus, Reason
from batchpoint.entities.schedules import BackfillRequest, Schedule, ScheduleRun
from batchpoint.errors import ConflictError, InvalidEntityError
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.conftest import Clock

DAYS = [datetime(2026, 3, day, 2, tzinfo=UTC) for day in (25, 26, 27)]
EAST, WEST = key_of({"store": "east"}), key_of({"store": "west"})


@pytest.fixture
def clock() -> Clock:
    """Noon of the last of ``DAYS``."""
    moved = Clock()
    moved.time = datetime(2026, 3, 27, 12, tzinfo=UTC)
    return moved


@pytest.fixture
def workspace(database_url: str, tmp_path: Path, clock: Clock) -> Iterator[Workspace]:
    """A workspace with an endpoint ``sales``, a model for each of two stores, and a nightly schedule."""
    with Workspace.open(Settings(home=tmp_path / "home", database_url=database_url), now=clock) as workspace:
        (tmp_path / "models").mkdir()
        for store in ("east", "west"):
            (tmp_path / "models" / f"sales_{store}.pkl").write_bytes(pickle.dumps(store))
        for day in DAYS:
            (tmp_path / f"{day:%m-%d}.csv").write_text("store,day\neast,1\nwest,1\n")
        model_map = {"folder": str(tmp_path / "models"), "file_pattern": "sales_{store}.pkl"}
        options = {"partition_keys": ["store"], "model_map": model_map}
        declared = {"name": "blue", "endpoint_name": "sales", "batchpoint": options}
        workspace.endpoints.create_or_update(BatchEndpoint(name="sales"))
        workspace.endpoints.create_or_update_deployment(BatchDeployment.model_validate(declared), set_default=True)
        nightly(workspace)
        yield workspace


def nightly(workspace: Workspace, **changes: Any) -> None:
    folder = workspace.settings.home.parent
    job = {
        "type": "invoke",
        "endpoint_name": "sales",
        "inputs": {"data": {"path": f"{folder}/{{{{fire_time:%m-%d}}}}.csv"}},
        "outputs": {"score": {"path": f"{folder}/out/{{{{fire_time:%m-%d}}}}/"}},
    }
    declared = {"name": "nightly", "trigger": {"type": "cron", "expression": "0 2 * * *"}, "create_job": job}
    workspace.schedules.create_or_update(Schedule.model_validate({**declared, "is_enabled": False, **changes}))


def ended(workspace: Workspace, run: ScheduleRun, *reports: str) -> Job:
    """Carry the job of a run to its end, with this report on its models."""
    jobs = workspace.registry.jobs
    claimed = jobs.claim("test", 30)
    assert claimed is not None
    assert claimed.job.name == run.job_name
    folder = workspace.settings.home / "jobs" / claimed.job.name
    folder.mkdir(parents=True)
    (folder / "models_report.jsonl").write_text("".join(f"{line}\n" for line in reports))
    jobs.update(claimed.job.name, folder=str(folder))
    jobs.transition(claimed.job.name, claimed.lease_token, JobStatus.RUNNING)
    return jobs.finish(claimed.job.name, claimed.lease_token, Reason.COMPLETED)


def states(workspace: Workspace) -> dict[str, list[str]]:
    grid = workspace.backfills.grid("nightly", count=3)
    assert list(grid.times) == DAYS
    return {key: [grid.cell(key, day).state for day in DAYS] for key in grid.keys}


def test_a_time_that_is_over_gets_a_job_with_its_own_data_also_of_a_schedule_that_is_disabled(
    workspace: Workspace, tmp_path: Path
) -> None:
    run = workspace.schedules.backfill("nightly", DAYS[0], by="ada")
    job = workspace.jobs.get(str(run.job_name))
    assert (run.cause, run.window_end, run.keys) == ("backfill", DAYS[0], None)
    assert job.inputs["data"].path == str(tmp_path / "03-25.csv")
    assert (job.schedule_name, job.created_by, job.overrides.keys) == ("nightly", "ada", None)
    assert job.name.startswith("nightly-20260325T020000Z-")


def test_what_is_no_time_of_the_schedule_that_is_over_is_refused(workspace: Workspace) -> None:
    for wrong in (DAYS[0].replace(hour=3), datetime(2026, 3, 28, 2, tzinfo=UTC)):
        with pytest.raises(InvalidEntityError, match="no time of schedule nightly that is over"):
            workspace.schedules.backfill("nightly", wrong)


def test_the_grid_tells_of_each_store_and_day_and_only_the_gaps_are_backfilled(
    workspace: Workspace, tmp_path: Path
) -> None:
    assert states(workspace) == {EAST: ["missing"] * 3, WEST: ["missing"] * 3}
    first = workspace.schedules.backfill("nightly", DAYS[0])
    assert states(workspace)[EAST][0] == "running"
    ended(workspace, first, '{"key":{"store":"east"},"rows":1}', '{"key":{"store":"west"},"failed":1}')
    assert states(workspace) == {EAST: ["done", "missing", "missing"], WEST: ["failed", "missing", "missing"]}

    again, second = workspace.backfills.start("nightly", DAYS[:2], [], only_gaps=True, by="ada")
    assert (again.window_end.replace(microsecond=0), again.keys) == (DAYS[0], [{"store": "west"}])
    assert (second.window_end, second.keys) == (DAYS[1], None)
    job = workspace.jobs.get(str(again.job_name))
    assert job.overrides.if_exists == "version"  # the predictions of all stores lie there
    write_models(tmp_path / "models.jsonl", job, workspace)
    assert "west" in (tmp_path / "models.jsonl").read_text()
    assert "east" not in (tmp_path / "models.jsonl").read_text()

    ended(workspace, again, '{"key":{"store":"east"},"skipped":1}', '{"key":{"store":"west"},"rows":1}')
    assert states(workspace) == {EAST: ["done", "running", "missing"], WEST: ["done", "running", "missing"]}
    assert [report.key["store"] for report in workspace.jobs.models(job.name)] == ["west"]
    with pytest.raises(ConflictError, match="nothing to do"):
        workspace.backfills.start("nightly", DAYS[:2], [], only_gaps=True)


def test_times_are_chosen_by_the_first_and_last_day_and_keys_in_any_order(workspace: Workspace) -> None:
    wanted = {"first": "2026-03-25", "last": "2026-03-26T12:00", "keys": [{"store": "west"}]}
    request = BackfillRequest.model_validate(wanted)
    runs = workspace.backfills.start_between("nightly", request)
    assert [(run.window_end, run.keys) for run in runs] == [(day, [{"store": "west"}]) for day in DAYS[:2]]
    with pytest.raises(InvalidEntityError, match="is no key of schedule nightly"):
        workspace.backfills.start_between("nightly", request.model_copy(update={"keys": [{"store": "north"}]}))
    with pytest.raises(ConflictError, match="more than 31 times"):
        workspace.backfills.start_between("nightly", request.model_copy(update={"first": DAYS[0].replace(year=2020)}))
    with pytest.raises(InvalidEntityError, match="none of the 31 times"):
        workspace.backfills.start("nightly", [DAYS[0].replace(year=2020), DAYS[1]], [], only_gaps=True)
    with pytest.raises(ConflictError, match="Choose 1 to 31 times"):
        workspace.backfills.start_between("nightly", request.model_copy(update={"first": DAYS[1].replace(hour=3)}))


def test_a_run_whose_server_was_lost_keeps_its_keys(workspace: Workspace) -> None:
    keys = [{"store": "west"}]
    run = workspace.registry.schedules.record_backfill("nightly", DAYS[0], DAYS[0], [dict(key) for key in keys])
    assert workspace.schedules.runs("nightly")[0].keys == keys
    workspace.schedules.start(run)
    started = workspace.schedules.runs("nightly")[0]
    assert workspace.jobs.get(str(started.job_name)).overrides.keys == keys


def test_the_job_that_made_up_for_missed_times_is_told_at_each_of_them(workspace: Workspace) -> None:
    run = workspace.registry.schedules.record_backfill("nightly", DAYS[2], DAYS[0], None)
    workspace.schedules.start(run)
    assert states(workspace)[EAST] == ["missing", "running", "running"]


def test_a_backfill_that_ends_before_it_begins_is_refused_in_these_words(workspace: Workspace) -> None:
    with pytest.raises(InvalidEntityError, match=r"until 2026-03-25 02:00:00.* lies before from 2026-03-27 02:00:00"):
        workspace.backfills.start_between("nightly", BackfillRequest(first=DAYS[2], last=DAYS[0]))


def test_a_schedule_for_files_has_no_grid_and_one_without_keys_a_single_line(
    workspace: Workspace, tmp_path: Path
) -> None:
    plain = {"type": "invoke", "endpoint_name": "sales", "inputs": {"data": {"path": str(tmp_path / "03-25.csv")}}}
    code = tmp_path / "code"
    code.mkdir()
    (code / "score.py").write_text("def run(mini_batch):\n    return list(mini_batch)\n")
    script = {"code": str(code), "scoring_script": "score.py"}
    declared = {"name": "plain", "endpoint_name": "sales", "code_configuration": script}
    workspace.endpoints.create_or_update_deployment(BatchDeployment.model_validate(declared))
    nightly(workspace, create_job={**plain, "deployment_name": "plain"})
    ended(workspace, workspace.backfills.start("nightly", DAYS[:1], [WHOLE], only_gaps=True)[0])
    assert states(workspace) == {WHOLE: ["done", "missing", "missing"]}
    landing = {"type": "file", "path": str(tmp_path / "landing")}
    waiting = {"name": "landed", "trigger": landing, "create_job": {"type": "invoke", "endpoint_name": "sales"}}
    workspace.schedules.create_or_update(Schedule.model_validate(waiting))
    with pytest.raises(ConflictError, match="no times"):
        workspace.backfills.grid("landed")
