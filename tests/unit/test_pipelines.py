"""Steps in their order, what a component makes of a step, and what a pipeline job tells about its steps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from batchpoint.background.pipeline_report import failure_of, history, progress_of
from batchpoint.entities.base import Part
from batchpoint.entities.components import as_steps, expanded, output_type
from batchpoint.entities.jobs import Job, JobError, JobStatus, Progress
from batchpoint.entities.pipelines import (
    CommandStep,
    Component,
    DataBinding,
    OutputBinding,
    ParallelStep,
    Pipeline,
    cycle_of,
    dependencies,
    ready_steps,
)
from batchpoint.registry.jobs import StepJob

C, F, R, Q, X = (
    JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.CANCELED,
)  # fmt: skip


def step(*sources: str) -> CommandStep:
    inputs: dict[str, Any] = {f"i{n}": f"${{{{parent.jobs.{name}.outputs.o}}}}" for n, name in enumerate(sources)}
    return CommandStep(command="true", inputs=inputs)


DIAMOND = {"a": step(), "b": step("a"), "c": step("a"), "d": step("b", "c"), "alone": step()}


@pytest.mark.parametrize(
    ("statuses", "lenient", "strict"),
    [
        ({}, ["a", "alone"], ["a", "alone"]),
        ({"a": R, "alone": Q}, [], []),
        ({"a": C, "alone": R}, ["b", "c"], ["b", "c"]),
        ({"a": C, "b": C, "c": R, "alone": C}, [], []),
        ({"a": C, "b": C, "c": C, "alone": C}, ["d"], ["d"]),
        ({"a": F}, ["alone"], []),
        ({"a": C, "b": F, "alone": R}, ["c"], []),
        ({"a": C, "b": X, "c": C}, ["alone"], []),
        ({"alone": F, "a": C}, ["b", "c"], []),
    ],
)
def test_a_step_is_ready_when_all_that_it_reads_from_has_completed(
    statuses: dict[str, JobStatus], lenient: list[str], strict: list[str]
) -> None:
    assert ready_steps(DIAMOND, statuses, continue_on_step_failure=True) == lenient
    assert ready_steps(DIAMOND, statuses, continue_on_step_failure=False) == strict


def test_only_the_outputs_of_steps_make_one_step_wait_for_another() -> None:
    data = DataBinding(path="${{parent.jobs.b.outputs.o}}")
    given = CommandStep(inputs={"x": "${{parent.inputs.a}}", "y": data, "z": 3, "w": "a"})
    assert dependencies(given) == {"b"}


def test_a_cycle_is_named_from_its_first_step_round() -> None:
    assert cycle_of(DIAMOND) == []
    assert cycle_of({"a": step("b"), "b": step("c"), "c": step("b")}) == ["b", "c", "b"]
    assert cycle_of({"a": step("a")}) == ["a", "a"]
    assert cycle_of({"a": step("c"), "b": step("a"), "c": step("b")}) == ["a", "c", "b", "a"]


def test_a_pipeline_may_be_as_long_as_one_likes() -> None:
    assert cycle_of({f"s{i}": step(f"s{i + 1}") for i in range(2000)} | {"s2000": step()}) == []


COMPONENT = Component.model_validate(
    {
        "name": "score", "version": "2", "type": "parallel", "is_deterministic": False,
        "inputs": {"data": {"type": "uri_folder"}, "k": {"type": "integer", "default": 5}},
        "outputs": {"out": {"type": "uri_file"}, "more": {"type": "uri_folder"}},
        "input_data": "${{inputs.data}}", "mini_batch_size": "10mb", "error_threshold": 3,
        "environment_variables": {"A": "1", "B": "1"},
        "task": {"code": "azureml:c:1", "entry_script": "s.py"},
    }
)  # fmt: skip


def test_a_step_has_what_its_component_says_where_it_says_nothing_itself() -> None:
    given = ParallelStep(
        component=COMPONENT,
        inputs={"data": "${{parent.inputs.x}}"},
        outputs={"out": "${{parent.outputs.y}}"},
        error_threshold=7,
        environment_variables={"B": "2"},
    )
    whole = expanded(given)
    assert isinstance(whole, ParallelStep)
    assert whole.inputs == {"data": "${{parent.inputs.x}}", "k": 5}
    assert whole.outputs == {"out": "${{parent.outputs.y}}", "more": OutputBinding(type="uri_folder")}
    assert (whole.mini_batch_size, whole.error_threshold, whole.is_deterministic) == ("10mb", 7, False)
    assert whole.environment_variables == {"A": "1", "B": "2"}
    assert output_type(whole, "out", {}) == "uri_file"


def test_a_step_survives_being_kept_as_json() -> None:
    pipeline = Pipeline(jobs={"score": ParallelStep(component=COMPONENT, inputs={"data": "x"})})
    again = Pipeline.model_validate_json(pipeline.model_dump_json(exclude_unset=True))
    assert expanded(again.jobs["score"]) == expanded(pipeline.jobs["score"])


def test_a_step_without_a_type_is_of_the_type_of_its_component_in_place() -> None:
    step_of = {"component": {"type": "parallel", "task": {"entry_script": "s.py", "environment": {"image": "i"}}}}
    found = Pipeline.model_validate({"jobs": {"a": step_of, "b": {"command": "true"}}})
    assert [type(each) for each in found.jobs.values()] == [ParallelStep, CommandStep]


def test_a_pipeline_of_a_component_has_its_steps_inputs_and_outputs() -> None:
    component = Component.model_validate(
        {
            "name": "p", "type": "pipeline", "jobs": {"a": {"command": "true"}},
            "inputs": {"raw": {"type": "uri_file"}, "n": {"type": "integer", "default": 2}},
            "outputs": {"z": {"type": "mltable"}},
        }
    )  # fmt: skip
    whole = as_steps(Pipeline(component=component, inputs={"raw": "azureml:taxi:1", "n": 3}))
    assert list(whole.jobs) == ["a"]
    assert whole.inputs["raw"] == DataBinding(type="uri_file", path="azureml:taxi:1")
    assert getattr(whole.inputs["n"], "default", None) == 3
    assert whole.outputs["z"].type == "mltable"


START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job_of(name: str, status: JobStatus, at: float = 0, *, reused: str | None = None, **progress: Any) -> StepJob:
    begun = START + timedelta(seconds=at)
    return StepJob(
        name=f"p-{name}",
        parent_job_name="p",
        step_name=name,
        type="command",
        status=status,
        waiting_for=None,
        progress=Progress(**progress) if progress else None,
        reused_job_name=reused,
        queued_at=begun,
        started_at=begun + timedelta(seconds=1) if status != Q else None,
        finished_at=begun + timedelta(seconds=3) if status.is_finished else None,
    )


def test_the_log_follows_from_the_steps_jobs_in_the_order_of_time() -> None:
    steps = [job_of("a", C), job_of("longer", F, 3.5), job_of("b", C, 9, reused="old-b")]
    assert history(["a", "longer", "b"], steps).splitlines() == [
        "2026-01-01T12:00:00.000Z  a       queued as job p-a",
        "2026-01-01T12:00:01.000Z  a       started",
        "2026-01-01T12:00:03.000Z  a       completed after 2.0 s",
        "2026-01-01T12:00:03.500Z  longer  queued as job p-longer",
        "2026-01-01T12:00:04.500Z  longer  started",
        "2026-01-01T12:00:06.500Z  longer  failed after 2.0 s",
        "2026-01-01T12:00:09.000Z  b       not run: it has the outputs of job old-b (job p-b)",
    ]


def test_progress_counts_steps_and_sums_up_their_items() -> None:
    steps = [
        job_of("a", C, unit="rows", ok=10, planned_items=10),
        job_of("b", R, ok=5, failed=1, planned_items=12, fraction=0.5),
        job_of("c", F),
    ]
    found = progress_of(4, steps)
    assert (found.unit, found.ok, found.failed, found.planned_items) == ("rows", 15, 1, 22)
    assert (found.steps_planned, found.steps_done, found.steps_failed) == (4, 1, 1)
    assert (found.phase, found.fraction) == ("running", 0.375)
    assert progress_of(1, steps[:1]).phase == "finished"


def ended(name: str, status: JobStatus, error: JobError | None = None) -> Job:
    return Job(name=f"p-{name}", status=status, error=error)


def test_a_failed_pipeline_names_its_failed_steps_and_carries_the_first_ones_traceback() -> None:
    assert failure_of({"a": ended("a", C)}, []) is None
    boom = JobError(code="command_failed", message="exit code 3", traceback="Traceback …", log="logs/x")
    one = failure_of({"a": ended("a", C), "b": ended("b", F, boom)}, ["c", "d"])
    assert one == JobError(
        code="step_failed",
        message="Step b (job p-b) failed: exit code 3\nNever started: c, d.",
        traceback="Traceback …",
    )
    two = failure_of({"x": ended("x", X), "b": ended("b", F, boom)}, [])
    assert two is not None
    assert two.message == ("2 steps failed:\n  Step x (job p-x) was canceled.\n  Step b (job p-b) failed: exit code 3")


def test_whatever_is_told_by_its_type_says_it_but_for_a_step_that_is_what_its_component_is() -> None:
    silent = {
        kind.__name__
        for kind in all_parts(Part)
        if (field := kind.model_fields.get("type")) is not None
        and get_args(field.annotation) == (field.default,)
        and "type" not in kind.model_construct().model_fields_set
    }
    assert silent == {"CommandStep"}


def all_parts(kind: type[Part]) -> Iterator[type[Part]]:
    for below in kind.__subclasses__():
        yield below
        yield from all_parts(below)
