"""``ParallelRunConfig`` of SDK v1: its words, its defaults, and what it means by tries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchpoint.client.files import load
from batchpoint.entities.documents import Document
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.pipelines import Component, ParallelStep, Pipeline
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.steps import deployment_of

LEAST: dict[str, Any] = {
    "entry_script": "score.py",
    "environment": "azureml:taxi:1",
    "error_threshold": 10,
    "output_action": "append_row",
    "compute_target_name": "amlcompute-ad",
    "node_count": 2,
}


def deployment(config: dict[str, Any], **beside: Any) -> BatchDeployment:
    value = {"name": "blue", "endpoint_name": "taxi", "parallel_run_config": config, **beside}
    return Document(value=value, name="taxi.yml").part(BatchDeployment)


def step(config: dict[str, Any], **beside: Any) -> ParallelStep:
    value = {"type": "parallel", "outputs": {"fares": {"type": "uri_folder"}}, "parallel_run_config": config, **beside}
    return Document(value=value, name="taxi.yml").part(ParallelStep)


def test_a_deployment_has_the_defaults_of_the_sdk() -> None:
    found = deployment(LEAST, model="azureml:fares:3")
    settings = found.settings
    assert (settings.mini_batch_size, found.batchpoint.mini_batch_bytes) == (10, 1 << 20)
    assert (settings.retry_settings.max_retries, settings.retry_settings.timeout) == (2, 60), "three tries"
    assert (settings.error_threshold, settings.output_action) == (10, "append_row")
    assert (settings.output_file_name, found.batchpoint.output_format) == ("parallel_run_step.txt", "azureml")
    assert (found.compute, found.resources.instance_count) == ("amlcompute-ad", 2)
    assert (found.model, found.environment) == ("azureml:fares:3", "azureml:taxi:1")
    assert found.parallel_run_config is None, "nothing of it is kept"


def test_a_deployment_has_what_the_file_says() -> None:
    config = LEAST | {
        "mini_batch_size": "10MB",
        "process_count_per_node": 2,
        "run_invocation_timeout": 240,
        "run_max_try": 5,
        "append_row_file_name": "fares.csv",
        "allowed_failed_count": 3,
        "allowed_failed_percent": 12.5,
        "logging_level": "DEBUG",
        "environment_variables": {"A": "b"},
    }
    found = deployment(config, mini_batch_size=7, batchpoint={"output_format": "jsonl"})
    assert (found.settings.mini_batch_size, found.settings.max_concurrency_per_instance) == (7, 2), "beside it wins"
    assert (found.settings.retry_settings.max_retries, found.settings.retry_settings.timeout) == (4, 240)
    assert (found.batchpoint.mini_batch_error_threshold, found.batchpoint.allowed_failed_percent) == (3, 12.5)
    assert (found.settings.output_file_name, found.batchpoint.output_format) == ("fares.csv", "jsonl")
    assert (found.settings.logging_level, found.environment_variables) == ("debug", {"A": "b"})


def test_a_step_runs_as_the_file_says() -> None:
    config = LEAST | {"mini_batch_size": "10MB", "allowed_failed_count": 3, "append_row_file_name": "nyc fares.txt"}
    task = {"program_arguments": "--model_name nyc"}
    found = deployment_of(step(config, task=task), name="inference", cores=4)
    assert found.batchpoint.program_arguments == ["--model_name", "nyc"]
    assert found.settings.output_file_name == "nyc fares.txt"
    assert (found.batchpoint.split, found.batchpoint.mini_batch_bytes) == ("bytes", 10 << 20)
    assert found.settings.max_concurrency_per_instance == 4, "one worker per core"
    assert (found.batchpoint.mini_batch_error_threshold, found.settings.error_threshold) == (3, 10)
    assert found.settings.retry_settings.max_retries == 2


def test_without_a_size_a_step_takes_ten_files_or_a_megabyte_of_rows() -> None:
    for_files = deployment_of(step(LEAST), name="s", cores=1)
    assert (for_files.settings.mini_batch_size, for_files.batchpoint.split) == (10, "auto")
    for_rows = deployment_of(step(LEAST), name="s", cores=1, input_type="mltable")
    assert (for_rows.batchpoint.split, for_rows.batchpoint.mini_batch_bytes) == ("auto", 1 << 20)


def test_a_component_is_made_from_the_file_too() -> None:
    value = {"name": "score", "type": "parallel", "outputs": {"fares": {}}, "parallel_run_config": LEAST}
    found = Component.model_validate(value)
    assert found.task is not None
    assert (found.task.entry_script, found.task.append_row_to) == ("score.py", "${{outputs.fares}}")


def test_an_environment_as_the_sdk_wrote_it_keeps_its_packages() -> None:
    conda = {"dependencies": ["python=3.8", {"pip": ["scikit-learn==0.24.1"]}]}
    written = {"name": "taxi", "version": "2", "python": {"condaDependencies": conda}, "docker": {"baseImage": "m/i"}}
    found = deployment(LEAST | {"environment": written}).environment
    assert not isinstance(found, str)
    assert found is not None
    assert (found.name, found.version, found.conda_file, found.image) == ("taxi", "2", conda, "m/i")
    by_name = {key: item for key, item in LEAST.items() if key != "environment"} | {"environment_name": "taxi"}
    assert deployment(by_name).environment == "azureml:taxi@latest"


@pytest.mark.parametrize(
    ("fault", "key", "words"),
    [
        ({"node_count": "two"}, "node_count", "a whole number is wanted"),
        ({"error_threshold": -2}, "error_threshold", "at least -1"),
        ({"mini_batch_size": "10 apples"}, "mini_batch_size", "10 apples"),
        ({"output_action": "appendrow"}, "output_action", "Did you mean 'append_row'?"),
        ({"run_max_try": 0}, "run_max_try", "above 0"),
        ({"append_row_file_name": "a/b.txt"}, "append_row_file_name", "a/b.txt"),
        ({"allowed_failed_percent": 101}, "allowed_failed_percent", "at most 100"),
        ({"node_counts": 2}, "node_counts", "Did you mean 'node_count'?"),
        ({"partition_keys": ["a"], "mini_batch_size": 3}, "", "either 'partition_keys' or 'mini_batch_size'"),
        ({"environment": None}, "", "'environment' or 'environment_name'"),
    ],
)
def test_a_fault_is_named_with_its_key(fault: dict[str, Any], key: str, words: str) -> None:
    for make in (deployment, step):
        with pytest.raises(InvalidEntityError, match="not valid") as refused:
            make(LEAST | fault)
        problems = [problem for problem in refused.value.details["problems"] if words in problem["message"]]
        assert [problem["key"] for problem in problems] == [f"parallel_run_config.{key}".rstrip(".")], refused.value


def test_keys_that_are_required_are_asked_for() -> None:
    with pytest.raises(InvalidEntityError) as refused:
        deployment({"entry_script": "score.py", "environment": "e"})
    missing = [problem["key"].rpartition(".")[2] for problem in refused.value.details["problems"]]
    assert missing == ["error_threshold", "output_action", "compute_target", "node_count"]


def test_rows_of_a_step_with_several_outputs_need_to_be_told_where_to_go() -> None:
    outputs = {"a": {}, "b": {}}
    with pytest.raises(InvalidEntityError, match="give the step one output"):
        step(LEAST, outputs=outputs)
    task = step(LEAST, outputs=outputs, task={"append_row_to": "${{outputs.b}}"}).task
    assert task is not None
    assert task.append_row_to == "${{outputs.b}}"


def test_a_file_of_its_own_is_read_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    inner = tmp_path / "configs"
    (inner / "scripts").mkdir(parents=True)
    lines = [*(f"  {key}: {value}" for key, value in LEAST.items()), "  source_directory: scripts"]
    (inner / "taxi.yml").write_text("\n".join(["parallel_run_config:", *lines]))
    (tmp_path / "deployment.yml").write_text(
        "name: blue\nendpoint_name: taxi\nparallel_run_config: configs/taxi.yml\nmodel: azureml:fares:1\n"
    )
    found = load(tmp_path / "deployment.yml")
    assert isinstance(found, BatchDeployment)
    assert found.code_configuration is not None
    assert found.code_configuration.code == str(inner / "scripts")
    whole = load(inner / "taxi.yml", set=["name=blue", "endpoint_name=taxi", "model=azureml:fares:1"])
    assert isinstance(whole, BatchDeployment)
    assert whole.code_configuration == found.code_configuration


def test_a_step_of_a_pipeline_names_the_file(tmp_path: Path) -> None:
    lines = [*(f"  {key}: {value}" for key, value in LEAST.items()), "  source_directory: scripts"]
    (tmp_path / "taxi.yml").write_text("\n".join(["parallel_run_config:", *lines]))
    (tmp_path / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  score:\n    type: parallel\n    parallel_run_config: taxi.yml\n"
        "    inputs: {data: {path: azureml:taxi:1}}\n    outputs: {fares: {type: uri_file}}\n"
    )
    found = load(tmp_path / "pipeline.yml")
    assert isinstance(found, Pipeline)
    score = found.jobs["score"]
    assert isinstance(score, ParallelStep)
    assert score.task is not None
    assert score.task.code == str(tmp_path / "scripts")
    assert (score.mini_batch_size, score.input_data) == ("10", "${{inputs.data}}")
