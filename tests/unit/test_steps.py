"""What steps are as jobs: Azure's settings of parallel steps, driver arguments, command lines, the hash for reuse."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.jobs import Input, InputType, Job, Output
from batchpoint.entities.pipelines import CommandStep, ParallelStep, Pipeline
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.command_line import filled_command, filled_words
from batchpoint.operations.steps import (
    collected_output,
    command_of,
    deployment_of,
    faults_of_work,
    reuse_hash,
    scored_input,
)


def parallel(**changes: Any) -> ParallelStep:
    task = {"code": "azureml:c:1", "entry_script": "score.py", **changes.pop("task", {})}
    inputs = {"data": {"path": "/data"}, "names": {"path": "/names"}}
    value = {"type": "parallel", "inputs": inputs, "input_data": "${{inputs.data}}", "task": task, **changes}
    return ParallelStep.model_validate(value)


def deployed(*, input_type: InputType | None = None, **changes: Any) -> BatchDeployment:
    return deployment_of(parallel(**changes), name="score_it", cores=4, input_type=input_type)


def test_a_parallel_step_has_azures_defaults() -> None:
    found = deployed()
    assert found.settings.mini_batch_size == 1
    assert found.settings.max_concurrency_per_instance == 4, "one worker per core"
    assert (found.settings.retry_settings.max_retries, found.settings.retry_settings.timeout) == (2, 60)
    assert (found.settings.error_threshold, found.batchpoint.mini_batch_error_threshold) == (-1, -1)
    assert found.settings.output_action == "summary_only", "nothing says where rows should go"
    assert (found.name, found.settings.logging_level) == ("score-it", "info")


@pytest.mark.parametrize(
    ("size", "input_type", "files", "split", "in_bytes"),
    [
        ("10", "uri_folder", 10, "auto", None),
        (10, None, 10, "auto", None),
        ("10kb", None, 10, "bytes", 10 << 10),
        ("100MB", "mltable", 10, "bytes", 100 << 20),
        ("10240", "mltable", 10240, "bytes", 10240),  # files, when the table is but a list of them
        (None, "mltable", 10, "auto", None),
    ],
)
def test_the_size_of_a_mini_batch_is_files_or_bytes(
    size: Any, input_type: InputType, files: int, split: str, in_bytes: int | None
) -> None:
    found = deployed(mini_batch_size=size, input_type=input_type)
    sizes = (found.settings.mini_batch_size, found.batchpoint.split, found.batchpoint.mini_batch_bytes)
    assert sizes == (files, split, in_bytes)


def test_partition_keys_win_over_a_size() -> None:
    found = deployed(partition_keys=["store"], mini_batch_size="0")
    assert (found.batchpoint.partition_keys, found.settings.mini_batch_size) == (["store"], 10)


@pytest.mark.parametrize("size", ["ten", "0", "-1", "10 apples"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(InvalidEntityError, match=f"mini_batch_size of step score_it is '{size}'"):
        deployed(mini_batch_size=size)


@pytest.mark.parametrize(
    ("output", "options", "name"),
    [
        ({"type": "uri_file"}, {}, "scored.csv"),
        ({"type": "uri_file"}, {"output_format": "parquet"}, "scored.parquet"),
        ({"type": "uri_file", "path": "azureml://datastores/d/paths/fares.jsonl"}, {}, "fares.jsonl"),
        ({"type": "uri_folder", "path": "azureml://datastores/d/paths/v1.2"}, {}, "scored.csv"),
        ("${{parent.outputs.all}}", {"output_format": "azureml"}, "scored.txt"),
    ],
)
def test_rows_are_collected_in_the_output_that_is_bound(output: Any, options: dict[str, Any], name: str) -> None:
    task = {"append_row_to": "${{ outputs.scored }}"}
    step = parallel(task=task, outputs={"scored": output}, batchpoint=options)
    assert collected_output(step) == "scored"
    found = deployment_of(step, name="s", cores=1).settings
    assert (found.output_action, found.output_file_name) == ("append_row", name)


def test_driver_arguments_are_obeyed_and_the_rest_is_the_scripts() -> None:
    arguments = (
        "--model 'a b' --allowed_failed_percent 10 --names ${{ inputs.names }} --progress_update_timeout=600 "
        "--task_overhead_timeout 5 --error_threshold 7 --run_max_try 4 --run_invocation_timeout 90 "
        "--append_row_dataframe_header True --allowed_failed_count 2 --resource_monitor_interval 20 -v"
    )
    found = deployed(task={"program_arguments": arguments}, error_threshold=3)
    options = found.batchpoint
    assert options.program_arguments == ["--model", "a b", "--names", "${{inputs.names}}", "-v"]
    assert (options.allowed_failed_percent, options.mini_batch_error_threshold) == (10, 2)
    assert (options.progress_update_timeout, options.task_overhead_timeout) == (600, 5)
    assert options.dataframe_header
    assert found.settings.error_threshold == 7
    assert (found.settings.retry_settings.max_retries, found.settings.retry_settings.timeout) == (3, 90)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--error_threshold many", "--error_threshold cannot be 'many'"),
        ("--task_overhead_timeout", "--task_overhead_timeout cannot be ''"),
        ("--append_row_dataframe_header perhaps", "cannot be 'perhaps'"),
        ("--rank_mini_batch_count 3", "--rank_mini_batch_count cannot be '3'"),
        ("--allowed_failed_percent 101", "allowed_failed_percent"),
        ("--name 'it", "cannot be split into words"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(arguments: str, words: str) -> None:
    with pytest.raises(InvalidEntityError, match=words):
        deployed(task={"program_arguments": arguments})


def test_the_input_that_is_cut_is_named_or_the_only_one() -> None:
    assert scored_input(parallel()) == "data"
    assert scored_input(parallel(input_data=None, inputs={"rows": {"path": "/r"}, "n": 3})) == "rows"
    assert scored_input(parallel(input_data=None)) is None
    with pytest.raises(InvalidEntityError, match="input_data is 'data'"):
        scored_input(parallel(input_data="data"))


def test_a_command_keeps_its_optional_segments_when_their_inputs_are_there() -> None:
    text = "python a.py --x ${{inputs.x}} $[[--y ${{inputs.y}}]] $[[ --z ${{inputs.z}} ]] end"
    inputs = {"x": 1, "y": {"path": "/y", "mode": "direct"}}
    step = {"command": text, "inputs": inputs, "limits": {"timeout": 9}, "resources": {"instance_count": 2}}
    found = command_of(CommandStep.model_validate(step))
    assert found.command == "python a.py --x ${{inputs.x}} --y ${{inputs.y}}  end"
    assert (found.direct_inputs, found.timeout, found.instance_count) == (["y"], 9, 2)
    assert found.if_exists == "fail"
    overwriting = CommandStep.model_validate({**step, "properties": {"batchpoint.if_exists": "overwrite"}})
    assert command_of(overwriting).if_exists == "overwrite"
    with pytest.raises(InvalidEntityError, match=r"batchpoint\.if_exists is 'maybe'"):
        command_of(CommandStep.model_validate({**step, "properties": {"batchpoint.if_exists": "maybe"}}))


@pytest.mark.parametrize(
    "value", ["plain", "two words", "it's", '"$HOME" `id` \\ $(id)', "a\nb", "*.csv; rm -rf /", ""]
)
@pytest.mark.parametrize(
    "place",
    [
        *("{}", '"{}"', "'{}'", "it\\'s={}", "# don't\nx={}", '"it\'s {}"', "--a={}/b", "a\\({}\\)"),
        *('"$(printf %s {})"', '"$(printf "(%s)" "{}")"', "\"$(printf ')' 1) {}\"", '"\\$(a {}"'),
    ],
)
def test_whatever_a_value_holds_the_command_sees_it_as_that_value(value: str, place: str) -> None:
    def lines(text: str) -> str:
        printed = "printf '<%s>' "
        command = text if text.startswith("#") else printed + text
        command = command.replace("\nx=", f"\n{printed} x=")
        return subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout

    filled = lines(filled_command(place.format("${{inputs.v}}"), {"inputs.v": value}))
    assert filled == lines(place.format("plain")).replace("plain", value)


def test_a_binding_to_what_is_not_there_is_named() -> None:
    with pytest.raises(
        InvalidEntityError, match=r"\$\{\{inputs\.y\}\} names what the step does not have. Known: inputs"
    ):
        filled_command("cat ${{inputs.y}}", {"inputs.x": "1"})
    assert filled_words(["--a=${{inputs.x}}/b", "c"], {"inputs.x": "two words"}) == ["--a=two words/b", "c"]


def scoring_job(**changes: Any) -> Job:
    step = changes.pop("step", {})
    job: dict[str, Any] = {
        "name": "p-score",
        "deployment": deployed(**{"task": {"append_row_to": "${{outputs.scored}}"}, **step}),
        "inputs": {"data": Input(path="/data"), "names": Input(path="/names")},
        "literals": {"n": 1, "m": 2},
        "outputs": {"scored": Output(type="uri_file", path="azureml://datastores/d/paths/azureml/p-score/scored/")},
        "input_data": "data",
        "append_row_to": "scored",
    }
    return Job(**(job | changes))


def command_job(**changes: Any) -> Job:
    step = {"command": "python a.py", "code": "azureml:c:1", "environment": "azureml:e:1", **changes.pop("step", {})}
    return Job(name="p-prepare", type="command", command=command_of(CommandStep.model_validate(step)), **changes)


def test_the_hash_is_the_same_for_the_same_work_under_another_name() -> None:
    one = scoring_job()
    two = one.model_copy(update={
        "name": "q-score",
        "inputs": dict(reversed(one.inputs.items())),
        "literals": dict(reversed(one.literals.items())),
        "outputs": {"scored": Output(type="uri_file", path="azureml://datastores/d/paths/azureml/q-score/scored/")},
        "tags": {"a": "b"},
        "description": "another",
    })  # fmt: skip
    assert reuse_hash(one) == reuse_hash(two) != reuse_hash(command_job())
    assert reuse_hash(Job(name="p", type="pipeline")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"data": Input(path="/other"), "names": Input(path="/names")}},
        {"inputs": {"data": Input(path="/data", recursive=True), "names": Input(path="/names")}},
        {"literals": {"n": 2, "m": 2}},
        {"literals": {"n": "1", "m": 2}},
        {"outputs": {"scored": Output(type="uri_folder")}},
        {"outputs": {"scored": Output(type="uri_file", path="/elsewhere")}},
        {"input_data": "names"},
        {"append_row_to": None},
        {"step": {"environment_variables": {"A": "b"}}},
        {"step": {"mini_batch_size": "2"}},
        {"step": {"compute": "azureml:big"}},
        {"step": {"resources": {"instance_count": 2}}},
        {"step": {"error_threshold": 1}},
        {"step": {"task": {"append_row_to": "${{outputs.scored}}", "program_arguments": "-v"}}},
        {"step": {"task": {"append_row_to": "${{outputs.scored}}", "entry_script": "other.py"}}},
        {"step": {"task": {"append_row_to": "${{outputs.scored}}", "model": "azureml:m:2"}}},
        {"step": {"task": {"append_row_to": "${{outputs.scored}}", "environment": "azureml:e:2"}}},
    ],
    ids=str,
)
def test_each_ingredient_of_a_parallel_step_changes_the_hash(changes: dict[str, Any]) -> None:
    assert reuse_hash(scoring_job(**changes)) != reuse_hash(scoring_job())


@pytest.mark.parametrize(
    "changes",
    [
        {"step": {"command": "python b.py"}},
        {"step": {"code": "azureml:c:2"}},
        {"step": {"environment": "azureml:e:2"}},
        {"step": {"environment_variables": {"A": "b"}}},
        {"step": {"compute": "azureml:big"}},
        {"outputs": {"table": Output(type="uri_folder")}},
        {"literals": {"n": 1}},
    ],
    ids=str,
)
def test_each_ingredient_of_a_command_changes_the_hash(changes: dict[str, Any]) -> None:
    assert reuse_hash(command_job(**changes)) != reuse_hash(command_job())


def test_content_counts_where_its_hash_is_known() -> None:
    renamed = command_job(step={"code": "azureml:c:2", "environment": "azureml:e:2"})
    known = {"code_hash": "c", "environment_hash": "e"}
    assert reuse_hash(command_job(), **known) == reuse_hash(renamed, **known)
    assert reuse_hash(command_job(), code_hash="c") != reuse_hash(command_job(), code_hash="d")
    job = scoring_job()
    same, other = ({"data": text, "names": "n"} for text in ("a", "b"))
    assert reuse_hash(job, input_fingerprints=same) != reuse_hash(job, input_fingerprints=other)


def test_what_a_step_cannot_run_is_told_before_it_is_run_wherever_it_stands() -> None:
    base = {"type": "parallel", "inputs": {"d": {"path": "x"}}, "input_data": "${{inputs.d}}"}
    task = {"code": "c", "entry_script": "s.py"}
    inner = {"b": {**base, "task": {**task, "program_arguments": "--error_threshold many"}}}
    jobs = {
        "a": {**base, "task": {**task, "program_arguments": "--run_max_try 0"}},
        "in": {"type": "pipeline", "jobs": inner},
        "c": {"command": "true", "properties": {"batchpoint.if_exists": "maybe"}},
        "d": {**base, "task": task, "batchpoint": {"output_format": "parquet"}},
    }
    faults = faults_of_work(Pipeline.model_validate({"jobs": jobs}).jobs)
    assert [fault.place for fault in faults] == ["jobs.a", "jobs.in.jobs.b", "jobs.c"]
    assert faults[1].message == "program_arguments: --error_threshold cannot be 'many' here."
