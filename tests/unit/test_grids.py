"""The grid of a schedule: what a key's cell says, and what a backfill of a rectangle starts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.grids import MISSING, WHOLE, Attempt, Cell, Grid, key_of
from batchpoint.entities.jobs import Overrides
from batchpoint.entities.schedules import Schedule
from batchpoint.entities.scored_models import ModelReport
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.backfills import times_until
from batchpoint.operations.invoking import only_of_keys
from batchpoint.operations.model_maps import of_keys

A, B, C = (key_of({"sensor": name}) for name in "abc")
MONDAY, TUESDAY = datetime(2026, 11, 23, 2, tzinfo=UTC), datetime(2026, 11, 24, 2, tzinfo=UTC)


def ended(job: str, keys: dict[str, bool], *, went_well: bool = True, asked_for: set[str] | None = None) -> Attempt:
    return Attempt(job, True, went_well, keys, None if asked_for is None else frozenset(asked_for))


def grid(*monday: Attempt) -> Grid:
    return Grid([MONDAY, TUESDAY], [A, B, C], {MONDAY: monday, TUESDAY: ()})


def test_a_job_says_what_became_of_each_key_and_nothing_of_one_that_it_had_no_row_of() -> None:
    made = grid(ended("j1", {A: True, B: False}))
    assert [made.cell(key, MONDAY) for key in (A, B, C)] == [Cell("done", "j1"), Cell("failed", "j1"), MISSING]
    assert made.cell(A, TUESDAY) == MISSING


def test_a_later_job_for_some_keys_says_nothing_of_the_others() -> None:
    made = grid(ended("j1", {A: True, B: False}), ended("j2", {B: True}, asked_for={B}))
    assert made.cell(A, MONDAY) == Cell("done", "j1")
    assert made.cell(B, MONDAY) == Cell("done", "j2")


def test_what_is_done_stays_done_when_a_later_job_fails_and_runs_while_one_scores_it_again() -> None:
    failed = ended("j2", {}, went_well=False)
    assert grid(ended("j1", {A: True}), failed).cell(A, MONDAY) == Cell("done", "j1")
    assert grid(ended("j1", {A: False}), failed).cell(A, MONDAY) == Cell("failed", "j2")
    running = Attempt("j3", False, False, {})
    assert grid(ended("j1", {A: True}), running).cell(A, MONDAY) == Cell("running", "j3")


def test_a_job_that_failed_before_it_came_to_any_key_failed_for_all_of_them() -> None:
    made = grid(ended("j1", {}, went_well=False))
    assert {made.cell(key, MONDAY).state for key in (A, B, C)} == {"failed"}


def test_where_jobs_know_no_keys_the_job_itself_decides() -> None:
    made = Grid([MONDAY], [WHOLE], {MONDAY: [ended("j1", {}, went_well=False), ended("j2", {})]})
    assert made.cell(WHOLE, MONDAY) == Cell("done", "j2")


def test_a_backfill_of_a_rectangle_leaves_out_what_is_done_or_being_done_unless_told_otherwise() -> None:
    made = grid(ended("j1", {A: True, B: False}), Attempt("j2", False, False, {}, frozenset({C})))
    assert made.rectangle([MONDAY], [A, B, C], only_gaps=True) == {MONDAY: [B]}
    assert made.rectangle([MONDAY], [A, B], only_gaps=False) == {MONDAY: [A, B]}
    assert made.rectangle([MONDAY, TUESDAY], [A], only_gaps=True) == {TUESDAY: [A]}


def test_a_time_of_which_all_is_missing_is_asked_for_whole() -> None:
    assert grid().rectangle([TUESDAY], [], only_gaps=True) == {TUESDAY: None}


@pytest.mark.parametrize("count", [1, 3])
def test_the_times_of_a_grid_go_back_beyond_the_day_the_schedule_was_made(count: int) -> None:
    schedule = Schedule.model_validate(
        {
            "name": "nightly",
            "trigger": {"type": "cron", "expression": "0 2 * * *"},
            "create_job": {"type": "invoke", "endpoint_name": "sensors", "inputs": {"data": {"path": "/in.csv"}}},
            "anchored_at": datetime(2026, 11, 24, 12, tzinfo=UTC),
        }
    )
    times = [datetime(2026, 11, 22, 2, tzinfo=UTC), MONDAY, TUESDAY]
    assert times_until(schedule, TUESDAY, count) == times[-count:]


def deployment(**batchpoint: object) -> BatchDeployment:
    mapped = {"partition_keys": ["sensor"], "model_map": {"name_pattern": "m_{sensor}"}} | batchpoint
    given = {"name": "blue", "endpoint_name": "sensors", "batchpoint": mapped}
    return BatchDeployment.model_validate(given)


def test_a_job_of_some_keys_leaves_the_rows_of_others_out_whatever_the_map_says_of_missing_models() -> None:
    declared = deployment(model_map={"name_pattern": "m_{sensor}", "on_missing": "default", "default_model": "m:1"})
    asked = only_of_keys(declared, Overrides(keys=[{"sensor": "a"}])).batchpoint.model_map
    assert asked is not None
    assert (asked.on_missing, asked.default_model) == ("skip", None)
    assert only_of_keys(declared, Overrides()) is declared


def test_keys_that_a_deployment_does_not_have_are_refused() -> None:
    with pytest.raises(InvalidEntityError, match="Give a value for each of sensor"):
        only_of_keys(deployment(), Overrides(keys=[{"turbine": "a"}]))
    with pytest.raises(InvalidEntityError, match="has no model map"):
        only_of_keys(
            BatchDeployment(name="blue", endpoint_name="sensors", model="m:1"), Overrides(keys=[{"sensor": "a"}])
        )


def test_the_report_of_a_job_of_some_keys_tells_of_these_alone() -> None:
    reports = [ModelReport(key={"sensor": name}) for name in "ab"]
    assert of_keys(reports, [{"sensor": "b"}]) == reports[1:]
    assert of_keys(reports, None) == reports
