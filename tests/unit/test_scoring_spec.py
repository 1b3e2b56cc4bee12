"""A job and what it resolved to → the specification of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchpoint.background.scoring_spec import Resolved, build_spec
from batchpoint.entities.assets import Model
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.jobs import Input, Job, Output
from batchpoint.entities.resources import Compute
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.places import Place

MODEL = Model(name="churn", version="3", type="mlflow_model", path="azureml://datastores/ds/paths/m/model")
SCRIPT = {"code_configuration": {"code": "azureml:code:1", "scoring_script": "src/score.py"}}


def make_job(**deployment: Any) -> Job:
    given = {"name": "blue", "endpoint_name": "churn", **deployment}
    return Job(
        name="j1",
        endpoint_name="churn",
        deployment_name="blue",
        deployment=BatchDeployment.model_validate(given),
        inputs={"data": Input(path="/in", type="uri_folder", exclude=["*.md"])},
        outputs={"score": Output(path="azureml://datastores/ds/paths/azureml/j1/score/")},
    )


def resolved(**changes: Any) -> Resolved:
    folder = "azureml/j1/score/"
    given: dict[str, Any] = {
        "python": "/env/bin/python",
        "compute": Compute(name="cpu", max_instances=2),
        "home": Path("/home"),
        "worker_source": "1",
        "output": Place(f"azureml://datastores/ds/paths/{folder}", f"/store/{folder}", "ds"),
        "model": MODEL,
        "model_path": Path("/store/m/model"),
        "code_dir": Path("/store/c/code"),
        "inputs": (Place("/in", "/in"),),
    }
    return Resolved(**{**given, **changes})


def test_an_mlflow_model_without_a_script_takes_rows_cut_by_bytes() -> None:
    spec = build_spec(make_job(), resolved(code_dir=None))
    assert (spec.script.kind, spec.script.takes, spec.script.path) == ("mlflow", "dataframe", None)
    assert (spec.split.by, spec.split.rows) == ("bytes", None)


def test_an_mlflow_model_takes_images_as_paths() -> None:
    spec = build_spec(make_job(), resolved(code_dir=None, tabular_input=False))
    assert (spec.script.takes, spec.split.by) == ("paths", "files")


def test_a_script_takes_paths_cut_by_files_as_azure_does() -> None:
    spec = build_spec(make_job(mini_batch_size=7, **SCRIPT), resolved())
    assert (spec.script.kind, spec.script.takes) == ("script", "paths")
    assert spec.script.path == "/store/c/code/src/score.py"
    assert spec.script.code_dir == "/store/c/code"
    assert (spec.split.by, spec.split.files) == ("files", 7)


def test_a_script_that_asks_for_rows_gets_as_many_as_the_mini_batch_size_says() -> None:
    options = {"mini_batch_type": "dataframe", "split": "rows"}
    spec = build_spec(make_job(mini_batch_size=500, batchpoint=options, **SCRIPT), resolved())
    assert (spec.script.takes, spec.split.by, spec.split.rows) == ("dataframe", "rows", 500)


@pytest.mark.parametrize(
    ("rows", "quality", "sketched"),
    [
        (4_999, {}, False),
        (5_000, {}, True),
        (10, {"sketches": True}, True),
        (10, {"max_drift": 0.25}, True),
        (10, {"max_failure_rate": 0.1}, False),
        (5_000, {"sketches": False}, False),
    ],
)
def test_columns_of_small_mini_batches_are_looked_at_where_somebody_wants_it(
    rows: int, quality: dict[str, Any], *, sketched: bool
) -> None:
    options = {"mini_batch_type": "dataframe", "split": "rows", "quality": quality}
    assert build_spec(make_job(mini_batch_size=rows, batchpoint=options, **SCRIPT), resolved()).sketches is sketched
    assert build_spec(make_job(batchpoint={"quality": quality}), resolved()).sketches is not (
        quality.get("sketches") is False
    ), "parts cut by bytes are large"


@pytest.mark.parametrize(("mapped", "passed", "kept"), [(True, True, True), (True, False, False), (False, True, False)])
def test_a_retry_of_some_keys_checks_what_it_scores_anew_where_the_rest_has_passed(
    *, mapped: bool, passed: bool, kept: bool
) -> None:
    quality = {"max_drift": 0.2, "max_missing_change": 0.1, "max_failure_rate": 0.5}
    model_map = {"model_map": {"name_pattern": "m_{store}"}, "partition_keys": ["store"]} if mapped else {}
    job = make_job(batchpoint={"quality": quality, **model_map})
    spec = build_spec(job, resolved(retried=Path("/before"), retried_passed=passed))
    assert spec.keeps_checked is kept
    changes = (spec.quality.max_drift, spec.quality.max_missing_change)
    assert changes == ((None, None) if kept else (0.2, 0.1))
    assert spec.quality.max_failure_rate == 0.5


def test_the_model_lies_under_its_own_name_in_the_models_folder() -> None:
    model = build_spec(make_job(), resolved()).model
    assert model is not None
    assert (model.directory, model.path) == ("/store/m", "/store/m/model")


@pytest.mark.parametrize(
    ("name", "wanted", "format_"),
    [
        ("predictions.csv", "auto", "csv"),
        ("p.jsonl", "auto", "jsonl"),
        ("p.parquet", "auto", "parquet"),
        ("p.txt", "auto", "csv"),
        ("p.csv", "azureml", "azureml"),
    ],
)
def test_the_output_format_goes_by_the_files_ending(name: str, wanted: str, format_: str) -> None:
    spec = build_spec(make_job(output_file_name=name, batchpoint={"output_format": wanted}), resolved())
    assert (spec.output.format, spec.output.file_name) == (format_, name)


def test_only_the_jobs_own_folder_is_published_by_one_rename() -> None:
    assert build_spec(make_job(), resolved()).output.owns_folder
    elsewhere = build_spec(make_job(), resolved(output=Place("/shared/", "/shared/")))
    assert not elsewhere.output.owns_folder
    assert elsewhere.output.folder.url == "/shared/"


def test_instances_are_capped_by_the_compute_and_warmth_follows_it() -> None:
    job = make_job(resources={"instance_count": 9}, max_concurrency_per_instance=3)
    spec = build_spec(job, resolved())
    assert (spec.instances, spec.processes_per_instance, spec.fork_server_idle_seconds) == (2, 3, 120)
    kept = build_spec(job, resolved(compute=Compute(name="cpu", min_instances=1)))
    assert kept.fork_server_idle_seconds > 86400


def test_a_warm_process_is_shared_by_runs_of_the_same_model_code_variables_and_interpreter_only() -> None:
    first = build_spec(make_job(), resolved()).fork_server
    assert build_spec(make_job(error_threshold=5), resolved()).fork_server == first
    assert build_spec(make_job(environment_variables={"MODE": "other"}), resolved()).fork_server != first
    others = [
        resolved(python="/other/python"),
        resolved(worker_source="2"),
        resolved(pool="risk/cpu"),
        resolved(model_path=Path("/store/other/model")),
        resolved(code_dir=Path("/store/other/code")),
    ]
    assert first not in [build_spec(make_job(), other).fork_server for other in others]


def test_settings_become_budgets() -> None:
    spec = build_spec(
        make_job(
            error_threshold=3,
            retry_settings={"max_retries": 1, "timeout": 9},
            environment_variables={"A": "1"},
            batchpoint={"allowed_failed_percent": 5, "mini_batch_error_threshold": 2, "max_worker_losses": 1},
        ),
        resolved(),
    )
    assert (spec.thresholds.items, spec.thresholds.mini_batches, spec.thresholds.percent) == (3, 2, 5)
    assert (spec.retry.max_retries, spec.retry.timeout, spec.retry.max_worker_losses) == (1, 9, 1)
    assert spec.environment_variables == {"A": "1"}


def test_a_job_without_a_deployment_is_refused() -> None:
    with pytest.raises(InvalidEntityError, match="no deployment"):
        build_spec(Job(name="j1"), resolved())
