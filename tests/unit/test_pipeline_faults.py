"""Broken pipelines: every fault is told at once, at its place, with what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from batchpoint.entities.components import as_steps, output_type
from batchpoint.entities.pipeline_faults import faults_of, faults_of_component, refuse
from batchpoint.entities.pipelines import Component, Pipeline
from batchpoint.errors import InvalidEntityError


def whole() -> dict[str, Any]:
    """A sound pipeline of two steps."""
    return {
        "inputs": {"raw": {"type": "uri_file", "path": "azureml:taxi:1"}, "n": 20},
        "outputs": {"scores": {"type": "uri_file"}},
        "jobs": {
            "prepare": {
                "type": "command",
                "command": "python p.py ${{inputs.raw}} ${{inputs.n}} ${{outputs.rows}}",
                "inputs": {"raw": "${{parent.inputs.raw}}", "n": "${{parent.inputs.n}}"},
                "outputs": {"rows": {"type": "uri_folder"}},
            },
            "score": {
                "type": "parallel",
                "input_data": "${{inputs.data}}",
                "inputs": {"data": "${{parent.jobs.prepare.outputs.rows}}"},
                "outputs": {"out": "${{parent.outputs.scores}}"},
                "task": {"code": "src", "entry_script": "s.py", "append_row_to": "${{outputs.out}}"},
            },
        },
    }


COMPONENT = {
    "name": "count",
    "version": "3",
    "type": "command",
    "command": "count ${{inputs.data}} ${{inputs.n}} $[[ --m ${{inputs.m}} ]]",
    "inputs": {
        "data": {"type": "uri_folder"},
        "n": {"type": "integer", "min": 1, "max": 9},
        "m": {"type": "string", "optional": True, "enum": ["a", "b"]},
    },
    "outputs": {"rows": {"type": "uri_folder"}},
}


def changed(changes: dict[str, Any]) -> Pipeline:
    value = whole()
    for key, given in changes.items():
        *path, last = key.split(".")
        part = value
        for each in path:
            part = part[each]
        if given is None:
            del part[last]
        else:
            part[last] = given
    return Pipeline.model_validate(value)


def test_a_sound_pipeline_has_no_fault() -> None:
    assert faults_of(changed({})) == []


TABLE = {"type": "mltable", "path": "${{parent.outputs.scores}}"}


def test_the_one_file_that_a_step_collects_its_rows_in_may_be_called_a_table() -> None:
    pipeline = changed({"jobs.score.outputs.out": TABLE})
    assert faults_of(pipeline) == []
    assert output_type(pipeline.jobs["score"], "out", pipeline.outputs) == "uri_file"
    unspecified = changed({"jobs.score.outputs.out": TABLE, "outputs.scores": {}})
    assert output_type(unspecified.jobs["score"], "out", unspecified.outputs) == "mltable"


@pytest.mark.parametrize(
    "changes",
    [
        {"jobs.score.task": {"code": "src", "entry_script": "s.py"}},
        {"jobs.score": {"type": "command", "command": "echo ${{outputs.out}}", "outputs": {}}},
    ],
    ids=["what a script writes", "what a command writes"],
)
def test_a_table_that_a_script_writes_is_no_file(changes: dict[str, Any]) -> None:
    pipeline = changed({**changes, "jobs.score.outputs.out": TABLE})
    assert [fault.message for fault in faults_of(pipeline)] == [
        "the step writes data of type mltable, and ${{parent.outputs.scores}} is data of type uri_file."
    ]


@pytest.mark.parametrize("kind", ["custom_model", "mltable"])
def test_a_model_or_a_table_is_a_folder_to_an_output_that_is_one(kind: str) -> None:
    made = {"rows": {"type": kind, "path": "${{parent.outputs.made}}"}}
    pipeline = changed({"outputs.made": {"type": "uri_folder"}, "jobs.prepare.outputs": made})
    assert [fault.place for fault in faults_of(pipeline) if "made" in fault.message] == []


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        (
            {"jobs.score.inputs.data": "${{parent.jobs.prepare.outputs.rowz}}"},
            "jobs.score.inputs.data",
            "step prepare has no output 'rowz'. Did you mean 'rows'?",
        ),
        (
            {"jobs.score.inputs.data": "${{parent.jobs.perpare.outputs.rows}}"},
            "jobs.score.inputs.data",
            "${{parent.jobs.perpare.outputs.rows}} names no step. Did you mean 'prepare'?",
        ),
        (
            {"jobs.prepare.inputs.raw": "${{parent.inputs.ray}}"},
            "jobs.prepare.inputs.raw",
            "${{parent.inputs.ray}} names no input of the pipeline. Did you mean 'raw'?",
        ),
        (
            {"jobs.prepare.inputs.raw": "${{parent.inputs.a.b}}"},
            "jobs.prepare.inputs.raw",
            "${{parent.inputs.a.b}} names a member of a group. Groups are not known here: give each by itself.",
        ),
        (
            {"jobs.prepare.inputs.raw": "${{parent.outputs.scores}}"},
            "jobs.prepare.inputs.raw",
            "${{parent.outputs.scores}} is an output. Bind it to ${{parent.inputs.…}} or to the output of a step.",
        ),
        (
            {"jobs.prepare.inputs.raw": {"type": "uri_folder", "path": "${{parent.inputs.raw}}"}},
            "jobs.prepare.inputs.raw",
            "${{parent.inputs.raw}} is data of type uri_file, and the input takes data of type uri_folder.",
        ),
        (
            {"jobs.prepare.command": "python p.py ${{inputs.row}} ${{outputs.rows}}"},
            "jobs.prepare.command",
            "${{inputs.row}} names no input of the step. Did you mean 'raw'?",
        ),
        (
            {"jobs.prepare.command": "p ${{outputs.x}}"},
            "jobs.prepare.command",
            "${{outputs.x}} names no output of the step. Known: rows.",
        ),
        (
            {"jobs.prepare.command": "p ${{parent.inputs.raw}}"},
            "jobs.prepare.command",
            "${{parent.inputs.raw}} speaks of the pipeline. Bind it to an input of the step, and name that one here.",
        ),
        (
            {"jobs.prepare.command": None},
            "jobs.prepare.command",
            "the step has no command. Give 'command', or a 'component' that has one.",
        ),
        (
            {"jobs.score.task": None},
            "jobs.score.task",
            "the step has no task. Give 'task' with 'code' and 'entry_script'.",
        ),
        (
            {"jobs.score.task.entry_script": None},
            "jobs.score.task.entry_script",
            "key 'entry_script' is missing: the script that is called for each mini-batch.",
        ),
        (
            {"jobs.score.input_data": "${{inputs.date}}"},
            "jobs.score.input_data",
            "${{inputs.date}} names no input of the step. Did you mean 'data'?",
        ),
        (
            {"jobs.score.input_data": "data"},
            "jobs.score.input_data",
            "'data' is not the binding of an input. Write ${{inputs.<name>}}.",
        ),
        (
            {"jobs.score.input_data": None},
            "jobs.score.input_data",
            "key 'input_data' is missing: write ${{inputs.<name>}} of the input to cut.",
        ),
        (
            {"jobs.score.task.append_row_to": "${{outputs.outt}}"},
            "jobs.score.task.append_row_to",
            "${{outputs.outt}} names no output of the step. Did you mean 'out'?",
        ),
        (
            {"jobs.score.mini_batch_size": "-3"},
            "jobs.score.mini_batch_size",
            "'-3' is no size of a mini-batch. Write a number of files such as 10, or a size such as 10mb.",
        ),
        (
            {"outputs.more": {}},
            "outputs.more",
            "no step writes it. Bind an output of a step to ${{parent.outputs.more}}.",
        ),
        (
            {"jobs.prepare.outputs.rows": "${{parent.outputs.scores}}"},
            "outputs.scores",
            "several steps write it: prepare, score. Bind one of them alone to ${{parent.outputs.scores}}.",
        ),
        (
            {"jobs.score.outputs.extra": "${{parent.outputs.score}}"},
            "jobs.score.outputs.extra",
            "${{parent.outputs.score}} names no output of the pipeline. Did you mean 'scores'?",
        ),
        (
            {"jobs.score.outputs.out": {"type": "uri_folder", "path": "${{parent.outputs.scores}}"}},
            "jobs.score.outputs.out",
            "the step writes data of type uri_folder, and ${{parent.outputs.scores}} is data of type uri_file.",
        ),
        (
            {"jobs.prepare.inputs.back": "${{parent.jobs.score.outputs.out}}"},
            "jobs.prepare",
            "the steps wait for each other in a circle: prepare → score → prepare. Take one of these bindings away.",
        ),
        (
            {"inputs.m": {"type": "integer", "default": "two"}},
            "inputs.m",
            "'two' is a literal of type string, and the input takes a literal of type integer.",
        ),
        (
            {"inputs.m": {"type": "string"}},
            "inputs.m",
            "the input is required, and a value was not given.",
        ),
        (
            {"jobs.prepare.command": "echo ${{name}}"},
            "jobs.prepare.command",
            "${{name}} has no meaning here. Write it in an input of the pipeline, and bind one of the step to that.",
        ),
        (
            {"jobs.prepare.inputs.at": "on ${{name}}"},
            "jobs.prepare.inputs.at",
            "${{name}} has no meaning here. Write it in an input of the pipeline, and bind one of the step to that.",
        ),
        (
            {"jobs.prepare.outputs.rows": {"path": "/tmp/${{creation_context.trigger_time}}/"}},
            "jobs.prepare.outputs.rows",
            "${{creation_context.trigger_time}} has no meaning here. Write it in an output of the pipeline.",
        ),
    ],
)
def test_a_fault_is_told_at_its_place_with_what_would_be_right(
    changes: dict[str, Any], place: str, message: str
) -> None:
    assert [(fault.place, fault.message) for fault in faults_of(changed(changes))] == [(place, message)]


@pytest.mark.parametrize(
    ("inputs", "place", "message"),
    [
        ({"n": 3}, "data", "component count:3 requires this input of type uri_folder, and it was not given."),
        (
            {"n": 3, "data": "${{parent.inputs.raw}}"},
            "data",
            "${{parent.inputs.raw}} is data of type uri_file, and the input takes data of type uri_folder.",
        ),
        (
            {"n": 3, "data": "${{parent.inputs.n}}"},
            "data",
            "${{parent.inputs.n}} is a literal of type integer, and the input takes data of type uri_folder.",
        ),
        (
            {"n": "${{parent.inputs.raw}}", "data": "d"},
            "n",
            "${{parent.inputs.raw}} is data of type uri_file, and the input takes a literal of type integer.",
        ),
        (
            {"n": 2.5, "data": "d"},
            "n",
            "2.5 is a literal of type number, and the input takes a literal of type integer.",
        ),
        ({"n": 0, "data": "d"}, "n", "0 is below the least that is allowed, 1."),
        ({"n": 10, "data": "d"}, "n", "10 is above the most that is allowed, 9."),
        ({"n": 3, "data": "d", "m": "c"}, "m", "'c' is not allowed. Allowed: a, b."),
        ({"n": 3, "data": 4}, "data", "4 is a literal of type integer, and the input takes data of type uri_folder."),
        ({"n": 3, "data": "d", "nn": 4}, "nn", "component count:3 has no input 'nn'. Did you mean 'n'?"),
    ],
)
def test_what_a_component_declares_is_what_its_step_has_to_give(
    inputs: dict[str, Any], place: str, message: str
) -> None:
    step = {"type": "command", "component": COMPONENT, "inputs": inputs}
    found = faults_of(changed({"jobs.count": step}))
    assert [(fault.place, fault.message) for fault in found] == [(f"jobs.count.inputs.{place}", message)]


def test_a_value_is_looked_at_where_it_arrives_however_far_it_was_passed_on() -> None:
    step = {"component": COMPONENT, "inputs": {"data": "/data", "n": "${{parent.inputs.k}}"}}
    inner = {"type": "pipeline", "inputs": {"k": "${{parent.inputs.times}}"}, "jobs": {"leaf": step}}
    direct = {**step, "inputs": {"data": "/data", "n": "${{parent.inputs.times}}"}}
    whole = {"inputs": {"times": 10}, "jobs": {"inner": inner, "direct": direct}}
    assert {(fault.place, fault.message) for fault in faults_of(Pipeline.model_validate(whole))} == {
        ("jobs.inner.jobs.leaf.inputs.n", "${{parent.inputs.k}}: 10 is above the most that is allowed, 9."),
        ("jobs.direct.inputs.n", "${{parent.inputs.times}}: 10 is above the most that is allowed, 9."),
    }
    assert faults_of(Pipeline.model_validate({**whole, "inputs": {"times": 9}})) == []
    ports = {"times": {"type": "integer"}}
    open_ = {"name": "open", "type": "pipeline", "inputs": ports, "jobs": whole["jobs"]}
    assert faults_of_component(Component.model_validate(open_)) == []


def test_an_optional_input_that_is_not_given_may_stand_in_an_optional_segment_alone() -> None:
    step = {"type": "command", "component": COMPONENT, "inputs": {"n": 3, "data": "d"}}
    assert faults_of(changed({"jobs.count": step})) == []
    bare = {**COMPONENT, "command": "count ${{inputs.m}}"}
    found = faults_of(changed({"jobs.count": {**step, "component": bare}}))
    assert [fault.message for fault in found] == [
        "${{inputs.m}} is optional and was not given. Write it in an optional segment: $[[ … ${{inputs.m}} ]]."
    ]


def test_the_steps_of_a_pipeline_inside_a_pipeline_are_looked_at_too() -> None:
    inner = {
        "type": "pipeline",
        "inputs": {"data": "${{parent.inputs.raw}}"},
        "outputs": {"rows": {"type": "uri_folder"}},
        "jobs": {"count": {"type": "command", "component": COMPONENT, "inputs": {"data": "${{parent.inputs.date}}"}}},
    }
    found = {fault.place: fault.message for fault in faults_of(changed({"jobs.inner": inner}))}
    assert found == {
        "jobs.inner.jobs.count.inputs.data": (
            "${{parent.inputs.date}} names no input of the pipeline. Did you mean 'data'?"
        ),
        "jobs.inner.jobs.count.inputs.n": (
            "component count:3 requires this input of type integer, and it was not given."
        ),
        "jobs.inner.outputs.rows": "no step writes it. Bind an output of a step to ${{parent.outputs.rows}}.",
    }


def test_all_faults_are_told_at_once() -> None:
    broken = changed({"jobs.score.task": None, "jobs.prepare.command": None, "outputs.more": {}})
    with pytest.raises(InvalidEntityError) as raised:
        refuse("Pipeline nightly", faults_of(broken))
    assert raised.value.message.splitlines()[0] == "Pipeline nightly has 3 faults:"
    assert [problem["place"] for problem in raised.value.details["problems"]] == [
        "jobs.prepare.command", "jobs.score.task", "outputs.more",
    ]  # fmt: skip


def test_a_pipeline_of_a_component_takes_its_defaults_and_misses_what_it_requires() -> None:
    component = {
        "name": "whole",
        "type": "pipeline",
        "inputs": {"raw": {"type": "uri_file"}, "n": {"type": "integer", "default": 3}},
        "outputs": {"scores": {"type": "uri_file"}},
        "jobs": whole()["jobs"],
    }
    pipeline = as_steps(Pipeline.model_validate({"component": component}))
    assert [(fault.place, fault.message) for fault in faults_of(pipeline)] == [
        ("inputs.raw", "the input is required, and a path was not given.")
    ]
    given = as_steps(Pipeline.model_validate({"component": component, "inputs": {"raw": {"path": "azureml:taxi:1"}}}))
    assert faults_of(given) == []
