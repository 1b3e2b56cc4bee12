"""Schedules: what is declared, what becomes of missed times, placeholders."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from batchpoint.entities.documents import read_document
from batchpoint.entities.local_paths import local_paths
from batchpoint.entities.schedules import (
    CATCH_UP,
    MOST_WAITING,
    HeldBack,
    RunOutcome,
    Schedule,
    ScheduledInvoke,
    ScheduledJob,
    ScheduleRun,
    Tick,
    due_times,
    filled,
    held_back,
    outdated,
)
from batchpoint.entities.triggers import FileTrigger, RecurrenceTrigger
from batchpoint.errors import InvalidEntityError

MADE = datetime(2026, 1, 1, tzinfo=UTC)
INVOKE = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": "azureml:d:1"}}}


def at(day: int, hour: int = 4, minute: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def daily(missed: str = "skip", **changes: Any) -> Schedule:
    declared = {
        "name": "nightly",
        "trigger": {"type": "cron", "expression": "0 4 * * *"},
        "create_job": INVOKE,
        "batchpoint": {"missed": missed},
        "anchored_at": MADE,
    }
    return Schedule.model_validate({**declared, **changes})


def outcomes(schedule: Schedule, due_at: datetime, now: datetime) -> list[tuple[str, datetime, datetime]]:
    return [(str(due.outcome), due.window_start, due.fire_at) for due in due_times(schedule, due_at, now)]


@pytest.mark.parametrize("missed", ["skip", "run_once", "run_all"])
def test_a_time_that_has_just_come_is_acted_on_whatever_the_policy(missed: str) -> None:
    assert outcomes(daily(missed), at(2), at(2, 4, 1)) == [("pending", at(1), at(2))]


def test_missed_times_are_left_out_and_said_in_one_record() -> None:
    due = due_times(daily("skip"), at(2), at(5, 9))
    assert [(one.outcome, one.fire_at) for one in due] == [(RunOutcome.MISSED, at(2))]
    assert due[0].message is not None
    assert "the times from 2026-01-02T04:00:00Z to 2026-01-05T04:00:00Z" in due[0].message


def test_the_last_time_still_runs_when_it_is_not_late() -> None:
    assert outcomes(daily("skip"), at(2), at(4, 4, 5)) == [("missed", at(1), at(2)), ("pending", at(3), at(4))]
    assert outcomes(daily("skip"), at(4), at(4, 4, 6)) == [("missed", at(3), at(4))]
    patient = daily(batchpoint={"late_seconds": 3600})
    assert outcomes(patient, at(4), at(4, 4, 6)) == [("pending", at(3), at(4))]


def test_one_job_makes_up_for_all_missed_times_and_its_window_covers_them() -> None:
    assert outcomes(daily("run_once"), at(2), at(5, 9)) == [("pending", at(1), at(5))]


def test_a_job_for_each_missed_time_but_not_without_end() -> None:
    assert outcomes(daily("run_all"), at(2), at(4, 9)) == [
        ("pending", at(1), at(2)), ("pending", at(2), at(3)), ("pending", at(3), at(4)),
    ]  # fmt: skip
    due = due_times(daily("run_all"), at(2), at(2) + timedelta(days=1000))
    assert [one.outcome for one in due] == [RunOutcome.MISSED, *[RunOutcome.PENDING] * CATCH_UP]
    assert due[-1].fire_at == at(2) + timedelta(days=1000)


def test_times_after_the_end_are_none() -> None:
    ending = daily("run_all", trigger={"type": "cron", "expression": "0 4 * * *", "end_time": "2026-01-03T05:00:00"})
    assert outcomes(ending, at(2), at(20)) == [("pending", at(1), at(2)), ("pending", at(2), at(3))]
    assert ending.next_time(at(3)) is None


def test_placeholders_say_the_window_in_every_text() -> None:
    zone = daily(trigger={"type": "cron", "expression": "0 4 * * *", "time_zone": "Asia/Tokyo"}).trigger
    tick = Tick("nightly", at(2, 19), at(1, 19), at(2, 19), "nightly-x", zone)
    given = {
        "path": "azureml://datastores/d/paths/{{window_start:%Y/%m/%d}}/",
        "tags": {"from": "{{ window_start }}", "to": "{{window_end}}", "local": "{{window_end.local:%d %H:%M}}"},
        "list": ["${{name}}", "{{schedule_name}} at ${{creation_context.trigger_time}}", 5, None],
        "since 1970": "{{window_end:%s}} {{window_end.local:%s %%s}}",
        "kept": "${{inputs.data}} {not one} {{files}}",
    }
    assert filled(given, tick) == {
        "path": "azureml://datastores/d/paths/2026/01/01/",
        "tags": {"from": "2026-01-01T19:00:00Z", "to": "2026-01-02T19:00:00Z", "local": "03 04:00"},
        "list": ["nightly-x", "nightly at 2026-01-02T19:00:00Z", 5, None],
        "since 1970": "1767380400 1767380400 %s",
        "kept": "${{inputs.data}} {not one} {{files}}",
    }


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"create_job": {**INVOKE, "tags": {"a": "{{windowstart}}"}}}, "{{windowstart}} is not known. Known: "),
        ({"create_job": {**INVOKE, "job_name": "mine"}}, "job_name is given by the schedule"),
        ({"create_job": {**INVOKE, "inputs": {"d": {"path": "{{files}}"}}}}, "only with a trigger of type 'file'"),
        ({"trigger": {"type": "file", "path": "azureml://datastores/d/paths/p"}}, "no input of create_job takes"),
        ({"name": "a/b"}, "String should match pattern"),
        ({"create_job": {**INVOKE, "overrides": {"output_file_name": "{{fire_time:%D}}"}}}, "once its placeholders"),
    ],
)  # fmt: skip
def test_a_schedule_that_could_not_work_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as refused:
        daily(**changes)
    assert complaint in str(refused.value)


def test_new_files_are_the_input_of_an_invoke_that_has_none() -> None:
    watching = daily(
        trigger={"type": "file", "path": "azureml://datastores/d/paths/p"},
        create_job={"type": "invoke", "endpoint_name": "churn"},
    )
    assert watching.create_job.inputs["input"].path == "{{files}}"
    assert isinstance(watching.trigger, FileTrigger)
    assert Schedule.model_validate(watching.body()) == watching.model_copy(update={"properties": {}})


def test_azures_short_forms_are_read() -> None:
    again = daily(create_job="azureml:job1").create_job
    assert isinstance(again, ScheduledJob)
    assert again.job_name == "job1"
    pipeline = daily(create_job={"type": "pipeline", "jobs": {"a": {}}}).create_job
    assert isinstance(pipeline, ScheduledJob)
    assert (pipeline.type, pipeline.job_name, pipeline.job) == (
        "pipeline",
        None,
        {"type": "pipeline", "jobs": {"a": {}}},
    )


def test_every_fault_of_a_file_is_told_with_its_line() -> None:
    text = """\
name: nightly
trigger:
  type: cron
  expression: "0 25 * * *"
  time_zone: Europe/Berln
create_job:
  type: invoke
  endpoint: churn
batchpoint:
  missed: never
"""
    document = read_document(text, name="s.yml")
    assert document.kind() == "schedule"
    with pytest.raises(InvalidEntityError) as refused:
        document.entity()
    told = str(refused.value)
    for line in (
        "s.yml:4: key 'trigger.expression': the hour 25 is not within 0 to 23.",
        "s.yml:5: key 'trigger.time_zone': 'Europe/Berln' is not a known time zone. Did you mean 'Europe/Berlin'?",
        "s.yml:8: key 'create_job.endpoint' is not known here. Did you mean 'endpoint_name'?",
        "s.yml:10: key 'batchpoint.missed' is 'never'.",
    ):
        assert line in told
    wrong = read_document("name: n\ntrigger:\n  type: crn\ncreate_job: azureml:j\n", name="s.yml")
    with pytest.raises(InvalidEntityError, match=r"key 'trigger.type' is 'crn'. Did you mean 'cron'\?"):
        wrong.entity("schedule")


def test_local_paths_of_a_schedule_are_found() -> None:
    declared = {
        "trigger": {"type": "file", "path": "./landing"},
        "create_job": {"inputs": {"a": {"path": "{{files}}"}, "b": {"path": "ref.csv"}}, "job": "./job.yml"},
    }
    assert [(found.key[-1], found.path, found.holds) for found in local_paths("schedule", declared)] == [
        ("job", "./job.yml", "document"), ("path", "./landing", "path"), ("path", "ref.csv", "path"),
    ]  # fmt: skip


def test_a_schedule_made_in_python_says_what_its_trigger_and_its_job_are() -> None:
    trigger = RecurrenceTrigger(frequency="hour", interval=1)
    made = Schedule(name="hourly", trigger=trigger, create_job=ScheduledInvoke(endpoint_name="churn"))
    assert made.given()["trigger"] == {"type": "recurrence", "frequency": "hour", "interval": 1}
    assert made.given()["create_job"] == {"type": "invoke", "endpoint_name": "churn"}
    assert Schedule.model_validate(made.given()) == made


def test_a_schedule_runs_a_job_or_a_published_pipeline_and_not_both() -> None:
    published = ScheduledJob(type="pipeline", published_pipeline="counting")
    assert (published.job_name, published.published_pipeline) == (None, "counting")
    for wrong in ({}, {"job": "azureml:j", "published_pipeline": "p"}, {"type": "scoring", "published_pipeline": "p"}):
        with pytest.raises(ValidationError, match=r"either 'job' or 'published_pipeline'|is of type 'pipeline'"):
            ScheduledJob.model_validate(wrong)


def test_a_time_that_overlaps_is_skipped_or_waits_for_its_turn_as_the_policy_says() -> None:
    assert held_back("skip", None, 0) is None
    assert held_back("queue", None, 0) is None
    skipped = HeldBack(False, "Skipped: job a is running. The policy for overlap is 'skip'.")
    assert held_back("skip", "job a is running", 0) == skipped
    assert held_back("queue", "job a is running", 3) == HeldBack(True, "Waits for its turn: job a is running.")
    assert held_back("queue", None, 1) == HeldBack(True, "Waits for its turn: an earlier time waits for its turn.")
    too_many = held_back("queue", None, MOST_WAITING)
    assert too_many is not None
    assert not too_many.waits


def test_a_run_is_outdated_once_its_schedule_fires_no_longer_or_for_something_else() -> None:
    given = {"id": 1, "schedule_name": "nightly", "cause": "tick", "outcome": "pending"}
    run = ScheduleRun.model_validate({**given, "fire_at": at(2), "window_start": at(1), "window_end": at(2)})
    assert outdated(daily(), run) is None
    disabled = daily(is_enabled=False)
    assert outdated(disabled, run) == "the schedule was disabled"
    assert outdated(disabled, run.model_copy(update={"cause": "manual"})) is None
    assert outdated(disabled, run.model_copy(update={"cause": "backfill"})) is None
    assert outdated(daily(), run.model_copy(update={"files": 2})) == "the schedule's trigger was changed"
