"""What a user may ask, as stories over a workspace with a real registry and real files."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from pydantic import ValidationError

from batchpoint.entities.assets import Data, Environment, Model
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, EndpointDefaults, RollbackRequest
from batchpoint.entities.jobs import Input, InvokeRequest, Job, JobStatus, Output, Overrides, Reason, Receipt
from batchpoint.entities.resources import Compute, Datastore
from batchpoint.errors import (
    AlreadyExistsError,
    AuthenticationError,
    ConflictError,
    InputError,
    InvalidEntityError,
    NotFoundError,
)
from batchpoint.operations.invoking import asked_again
from batchpoint.workspace import Workspace

SCRIPT = "def init():\n    pass\n\ndef run(mini_batch):\n    return mini_batch\n"


def write(path: Path, content: str = "content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def deployed(workspace: Workspace, folder: Path, **changes: object) -> BatchDeployment:
    """Endpoint ``churn`` with its default deployment ``blue``."""
    write(folder / "code" / "score.py", SCRIPT)
    write(folder / "model.bin")
    workspace.endpoints.create_or_update(BatchEndpoint(name="churn"))
    declared = {
        "name": "blue",
        "endpoint_name": "churn",
        "model": {"path": str(folder / "model.bin")},
        "code_configuration": {"code": str(folder / "code"), "scoring_script": "score.py"},
        **changes,
    }
    return workspace.endpoints.create_or_update_deployment(BatchDeployment.model_validate(declared), set_default=True)


def request(path: object, **more: object) -> InvokeRequest:
    return InvokeRequest.model_validate({"inputs": {"data": Input(path=str(path))}, **more})


def finished(workspace: Workspace, job: Job, folder: Path, *, failed: int, uri: str) -> Job:
    claimed = workspace.registry.jobs.claim("server", 30)
    assert claimed is not None
    workspace.registry.jobs.update(job.name, folder=str(folder))
    receipt = Receipt(
        job=job.name, unit="rows", items=2, ok=2 - failed, failed=failed, skipped=0, output_rows=2, balanced=True
    )
    score = {"uri": uri, "folder": uri, "files": ["errors.jsonl", "predictions.csv"]}
    return workspace.registry.jobs.finish(
        job.name, claimed.lease_token, Reason.COMPLETED, receipt=receipt, outputs={"score": score}
    )


def test_a_local_folder_is_copied_once_whatever_it_is_registered_as(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "model" / "weights" / "w.bin", "weights")
    model = Model(name="m", path=str(tmp_path / "model"))
    first = workspace.assets.create_or_update("model", model)
    second = workspace.assets.create_or_update("model", model)
    assert (first.version, second.version) == ("1", "2")
    path = cast("Model", first).path
    assert path == cast("Model", second).path
    assert path.startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")
    assert path.endswith("/model")
    uploads = workspace.settings.home / "datastores" / "workspaceblobstore" / "LocalUpload"
    assert len(list(uploads.iterdir())) == 1
    local = workspace.assets.local_path(cast("Model", first))
    assert (local / "weights" / "w.bin").read_text() == "weights"
    assert [(file.path, file.size) for file in workspace.assets.files("model", "m")] == [("weights/w.bin", 7)]


def test_the_same_version_is_the_same_only_with_the_same_content(workspace: Workspace, tmp_path: Path) -> None:
    file = write(tmp_path / "d.csv", "a\n1\n")
    data = Data(name="d", version="1", type="uri_file", path=str(file))
    first = workspace.assets.create_or_update("data", data)
    assert workspace.assets.create_or_update("data", data.model_copy()) == first
    file.write_text("a\n2\n")
    with pytest.raises(AlreadyExistsError, match="d:1"):
        workspace.assets.create_or_update("data", data)


@pytest.mark.parametrize(
    ("data_type", "path", "words"),
    [
        ("uri_file", "folder", "is a folder"),
        ("uri_folder", "file.csv", "is a file"),
        ("mltable", "folder", "MLTable"),
        ("uri_file", "*.csv", "is a pattern"),
    ],
)
def test_data_has_to_be_what_it_is_declared_to_be(
    workspace: Workspace, tmp_path: Path, data_type: str, path: str, words: str
) -> None:
    write(tmp_path / "file.csv")
    write(tmp_path / "folder" / "a.csv")
    data = Data.model_validate({"name": "d", "type": data_type, "path": str(tmp_path / path)})
    with pytest.raises(InvalidEntityError, match=words):
        workspace.assets.create_or_update("data", data)


def test_what_is_not_there_or_not_absolute_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such"):
        workspace.assets.create_or_update("model", Model(name="m", path=str(tmp_path / "no-such")))
    with pytest.raises(InvalidEntityError, match="relative"):
        workspace.assets.create_or_update("model", Model(name="m", path="model"))
    path = "azureml://datastores/workspaceblobstore/paths/nothing.csv"
    with pytest.raises(InputError, match=r"nothing\.csv"):
        workspace.assets.create_or_update("data", Data(name="d", path=path))
    with pytest.raises(NotFoundError, match="nowhere"):
        workspace.assets.create_or_update("data", Data(name="d", path="azureml://datastores/nowhere/paths/x"))


def test_data_in_a_datastore_is_referred_to_and_not_copied(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "lake" / "in" / "a.csv")
    workspace.resources.create_or_update("datastore", Datastore(name="lake", path=str(tmp_path / "lake")))
    long = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/lake/paths/in/"
    data = cast("Data", workspace.assets.create_or_update("data", Data(name="d", path=long)))
    assert data.path == "azureml://datastores/lake/paths/in/"
    assert workspace.assets.local_path(data) == tmp_path / "lake" / "in"
    assert not (workspace.settings.home / "datastores" / "workspaceblobstore" / "LocalUpload").exists()


def test_an_mlflow_model_brings_its_flavors(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "m" / "MLmodel", "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n")
    declared = Model(name="m", type="mlflow_model", path=str(tmp_path / "m"))
    model = cast("Model", workspace.assets.create_or_update("model", declared))
    assert model.flavors == {"python_function": {"loader_module": "mlflow.sklearn"}}
    write(tmp_path / "m" / "MLmodel", "artifact_path: model\n")
    with pytest.raises(InvalidEntityError, match="names no flavor; it holds: artifact_path"):
        workspace.assets.create_or_update("model", declared)
    (tmp_path / "m" / "MLmodel").rename(tmp_path / "m" / "other.txt")
    with pytest.raises(InvalidEntityError, match=r"MLmodel at the root.*found: other\.txt"):
        workspace.assets.create_or_update("model", declared)


def test_an_environment_takes_its_packages_in(workspace: Workspace, tmp_path: Path) -> None:
    conda = write(tmp_path / "conda.yml", "dependencies:\n  - python=3.11\n  - pip: [scikit-learn]\n")
    pip = write(tmp_path / "requirements.txt", "# ours\nnumpy  # fast\n\npandas>=2\n")
    stored = workspace.assets.create_or_update("environment", Environment(name="conda", conda_file=str(conda)))
    assert cast("Environment", stored).conda_file == {"dependencies": ["python=3.11", {"pip": ["scikit-learn"]}]}
    stored = workspace.assets.create_or_update("environment", Environment(name="pip", pip_requirements=str(pip)))
    assert cast("Environment", stored).pip_requirements == ["numpy", "pandas>=2"]
    with pytest.raises(InvalidEntityError, match=r"missing\.yml cannot be read"):
        workspace.assets.create_or_update("environment", Environment(name="e", conda_file="/missing.yml"))


def test_only_some_keys_of_a_compute_change(workspace: Workspace) -> None:
    workspace.resources.create_or_update("compute", Compute(name="cpu", size="Standard_DS3_v2"))
    changed = workspace.resources.create_or_update("compute", Compute(name="cpu", max_instances=9))
    assert (changed.max_instances, changed.size) == (9, "Standard_DS3_v2")
    with pytest.raises(ConflictError, match="size cannot be changed"):
        workspace.resources.create_or_update("compute", Compute(name="cpu", size="Standard_D2"))
    workspace.resources.create_or_update("compute", Compute(name="cpu", max_instances=1))
    with pytest.raises(InvalidEntityError, match="min_instances"):
        workspace.resources.create_or_update("compute", Compute(name="cpu", min_instances=2))


def test_what_is_built_in_or_in_use_cannot_be_deleted(workspace: Workspace, tmp_path: Path) -> None:
    for kind, name in (("compute", "local"), ("datastore", "workspaceblobstore")):
        with pytest.raises(ConflictError, match="built in"):
            workspace.resources.delete(kind, name)  # type: ignore[arg-type]  # mypy widens the literals of the loop
    workspace.resources.create_or_update("compute", Compute(name="cpu"))
    deployed(workspace, tmp_path, compute="azureml:cpu")
    with pytest.raises(ConflictError, match="churn/blue"):
        workspace.resources.delete("compute", "cpu")
    job = workspace.endpoints.invoke("churn", request(write(tmp_path / "in.csv")))
    with pytest.raises(ConflictError, match=job.name):
        workspace.resources.delete("compute", "cpu")
    with pytest.raises(ConflictError, match=job.name):
        workspace.endpoints.delete("churn")
    with pytest.raises(ConflictError, match="default of endpoint churn"):
        workspace.endpoints.delete_deployment("churn", "blue")
    workspace.jobs.cancel(job.name)
    workspace.endpoints.delete("churn")
    workspace.resources.delete("compute", "cpu")
    assert workspace.jobs.get(job.name).status == JobStatus.CANCELED


def test_a_deployment_is_stored_with_registered_versions_alone(workspace: Workspace, tmp_path: Path) -> None:
    blue = deployed(workspace, tmp_path, environment={"image": "ubuntu"})
    again = deployed(workspace, tmp_path, environment={"image": "ubuntu"})
    assert blue.model == again.model == "azureml:churn-blue:1"
    assert blue.environment == again.environment == "azureml:churn-blue:1"
    assert blue.code_configuration == again.code_configuration
    assert blue.code_configuration is not None
    assert blue.code_configuration.code.startswith("azureml:")
    stored = workspace.endpoints.get_deployment("churn", "blue")
    assert workspace.endpoints.create_or_update_deployment(stored).model == blue.model
    assert [each.name for each in workspace.endpoints.list_deployments("churn")] == ["blue"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code_configuration": None}, "needs: give code_configuration"),
        ({"code_configuration": None, "model": None}, "neither a model nor a code_configuration"),
        ({"resources": {"instance_count": 3}}, "asks for 3 instances, but compute local has at most 1"),
        ({"model": "azureml:nothing:1"}, "no model named nothing"),
        ({"compute": "azureml:nowhere"}, "no compute named nowhere"),
        ({"environment": "azureml:nothing@latest"}, "no environment named nothing"),
    ],
)
def test_a_deployment_that_could_not_run_is_refused(
    workspace: Workspace, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises((InvalidEntityError, NotFoundError), match=words):
        deployed(workspace, tmp_path, **changes)


def test_an_mlflow_model_without_python_function_needs_a_script(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "m" / "MLmodel", "flavors:\n  sklearn: {}\n")
    with pytest.raises(InvalidEntityError, match="no python_function flavor, only sklearn"):
        deployed(workspace, tmp_path, code_configuration=None, model=str(tmp_path / "m"))
    write(tmp_path / "m" / "MLmodel", "flavors:\n  python_function: {}\n")
    assert deployed(workspace, tmp_path, code_configuration=None, model=str(tmp_path / "m")).model


def test_an_endpoint_takes_twenty_deployments_and_has_no_default_by_itself(
    workspace: Workspace, tmp_path: Path
) -> None:
    blue = deployed(workspace, tmp_path)
    workspace.endpoints.create_or_update(BatchEndpoint(name="churn", defaults=EndpointDefaults()))
    with pytest.raises(NotFoundError, match="No valid deployments to route to"):
        workspace.endpoints.invoke("churn", request(tmp_path / "code"))
    for number in range(19):
        workspace.registry.deployments.put(blue.model_copy(update={"name": f"green-{number}"}), by=None)
    with pytest.raises(ConflictError, match="20 deployments"):
        workspace.endpoints.create_or_update_deployment(blue.model_copy(update={"name": "one-more"}))
    defaults = EndpointDefaults(deployment_name="nobody")
    with pytest.raises(NotFoundError, match="nobody"):
        workspace.endpoints.create_or_update(BatchEndpoint(name="churn", defaults=defaults))


def test_an_endpoint_update_keeps_what_it_does_not_name(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    changed = workspace.endpoints.create_or_update(BatchEndpoint(name="churn", description="words"))
    assert (changed.description, changed.defaults.deployment_name) == ("words", "blue")


def test_invoke_freezes_what_the_job_needs(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path, environment={"image": "ubuntu"})
    write(tmp_path / "in" / "a.csv")
    workspace.assets.create_or_update("data", Data(name="customers", path=str(tmp_path / "in")))
    asked = request("azureml:customers@latest", overrides=Overrides(instance_count=5, mini_batch_size=3))
    job = workspace.endpoints.invoke("churn", asked, by="me")
    assert workspace.job_queued.is_set()
    assert job.name.startswith("batchjob-")
    assert job.created_by == "me"
    assert job.deployment is not None
    assert job.deployment.settings.mini_batch_size == 3
    assert [notice.split()[0] for notice in job.notices] == ["Instances"]
    assert job.inputs["data"].type == "uri_folder"
    assert job.inputs["data"].path.startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")
    assert job.properties == {"input_asset": "azureml:customers:1"}
    assert job.outputs["score"].path == f"azureml://datastores/workspaceblobstore/paths/azureml/{job.name}/score/"
    assert workspace.jobs.get(job.name) == job


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"inputs": {}}, "exactly one input, and none was given"),
        ({"inputs": {"a": {"path": "FILE"}, "b": {"path": "FILE"}}}, "exactly one input, and 2 were given"),
        ({"inputs": {"a": {"path": "azureml://datastores/workspaceblobstore"}}}, "a datastore and no place in it"),
        ({"inputs": {"a": {"path": "/nowhere/a.csv"}}}, "/nowhere/a.csv does not exist"),
        ({"inputs": {"a": {"path": "/nowhere/*.csv"}}}, "No file matches|does not exist"),
        ({"inputs": {"a": {"path": "azureml:nothing:1"}}}, "no data named nothing"),
        ({"inputs": {"a": {"path": "EMPTY"}}}, "holds no file"),
        ({"inputs": {"a": {"path": "FILE", "type": "uri_folder"}}}, "is a file"),
        ({"inputs": {"a": {"path": "FOLDER", "type": "uri_file"}}}, "is a folder"),
        ({"inputs": {"a": {"path": "FOLDER", "include": ["*.json"]}}}, "Check include and exclude"),
        ({"deployment_name": "green"}, "Deployment green not found"),
    ],
)
def test_an_invoke_that_could_not_work_fails_at_once(
    workspace: Workspace, tmp_path: Path, asked: dict[str, object], words: str
) -> None:
    deployed(workspace, tmp_path)
    write(tmp_path / "in" / "a.csv")
    (tmp_path / "empty").mkdir()
    text = json.dumps({"inputs": {"a": {"path": "FILE"}}, **asked})
    for word, path in (("EMPTY", "empty"), ("FILE", "in/a.csv"), ("FOLDER", "in")):
        text = text.replace(word, str(tmp_path / path))
    with pytest.raises((InvalidEntityError, InputError, NotFoundError), match=words):
        workspace.endpoints.invoke("churn", InvokeRequest.model_validate_json(text))
    assert workspace.jobs.list() == []


def test_what_a_job_did_not_change_stays_unsaid_in_its_record(workspace: Workspace, tmp_path: Path) -> None:
    options = {"csv": {"delimiter": ";"}, "quality": {"output_ranges": {"price": {"most": 1}}}}
    deployed(workspace, tmp_path, batchpoint=options)
    said = {"csv": {"encoding": "latin-1"}, "quality": {"max_drift": 1.0}}
    job = workspace.endpoints.invoke("churn", request(write(tmp_path / "in.csv"), overrides=said))
    again = workspace.endpoints.invoke("churn", asked_again(workspace.jobs.get(job.name)))
    assert again.deployment is not None
    assert again.deployment.batchpoint.csv.delimiter == ";"
    assert set(again.deployment.batchpoint.quality.output_ranges) == {"price"}
    assert again.body()["overrides"] == said


def test_a_reference_that_a_check_needs_has_to_be_there(workspace: Workspace, tmp_path: Path) -> None:
    data = write(tmp_path / "in.csv")
    checked = {"quality": {"reference": "mondya", "max_drift": 0.2}}
    refused = r"quality\.reference is mondya, and there is no such job"
    with pytest.raises(InvalidEntityError, match=refused):
        deployed(workspace, tmp_path, batchpoint=checked)
    deployed(workspace, tmp_path, batchpoint={"quality": {"reference": "mondya"}})
    job = workspace.endpoints.invoke("churn", request(data))
    assert workspace.jobs.reference_quality(job) is None, "nothing is checked against it"
    with pytest.raises(InvalidEntityError, match=refused):
        workspace.endpoints.invoke("churn", request(data, overrides=checked))
    checked["quality"]["reference"] = job.name
    later = workspace.endpoints.invoke("churn", request(data, overrides=checked))
    with pytest.raises(InvalidEntityError, match=f"Nothing is known of the columns of job {job.name}"):
        workspace.jobs.reference_quality(later)


def test_globs_and_several_files_are_one_input(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    files = [str(write(tmp_path / "in" / name)) for name in ("a.csv", "b.csv")]
    assert workspace.endpoints.invoke("churn", request(tmp_path / "in" / "*.csv")).inputs["data"].type == "uri_folder"
    several = InvokeRequest(inputs={"data": Input(path=files[0], paths=files[1:])})
    assert workspace.endpoints.invoke("churn", several).inputs["data"].paths == files[1:]


def test_an_existing_output_is_never_overwritten_unasked(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    data = write(tmp_path / "in.csv")
    write(tmp_path / "out" / "mine.csv")
    taken = {"outputs": {"customOutput": Output(path=str(tmp_path / "out" / "mine.csv"))}}
    with pytest.raises(AlreadyExistsError, match=r"mine\.csv exists already"):
        workspace.endpoints.invoke("churn", request(data, **taken))
    job = workspace.endpoints.invoke("churn", request(data, overrides=Overrides(if_exists="overwrite"), **taken))
    assert job.outputs["score"].path == f"{tmp_path}/out/"
    assert job.deployment is not None
    assert job.deployment.settings.output_file_name == "mine.csv"


def test_a_repeated_invoke_gives_the_same_job_even_when_its_output_exists_by_now(
    workspace: Workspace, tmp_path: Path
) -> None:
    deployed(workspace, tmp_path)
    data = write(tmp_path / "in.csv")
    asked = request(data, outputs={"score": Output(path=str(tmp_path / "out") + "/")}, job_name="mine")
    job = workspace.endpoints.invoke("churn", asked, idempotency_key="key")
    write(tmp_path / "out" / "predictions.csv")
    assert workspace.endpoints.invoke("churn", asked, idempotency_key="key") == job
    with pytest.raises(ConflictError, match="another request"):
        workspace.endpoints.invoke("churn", request(data), idempotency_key="key")
    with pytest.raises(AlreadyExistsError, match="mine"):
        workspace.endpoints.invoke("churn", request(data, job_name="mine"))


def test_a_finished_job_shows_its_files_and_nothing_beside_them(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    job = workspace.endpoints.invoke("churn", request(write(tmp_path / "in.csv")))
    folder = tmp_path / "run"
    write(folder / "logs" / "user" / "error.txt", "a line\nanother")
    write(folder / "spec.json", "private")
    (folder / "logs" / "link.txt").symlink_to(folder / "spec.json")
    store = workspace.settings.home / "datastores" / "workspaceblobstore" / "azureml" / job.name / "score"
    write(store / "predictions.csv", "file,row,prediction\n")
    write(store / "errors.jsonl", '{"row": 1}\n{"row": 2}\n')
    assert job.outputs["score"].path is not None
    finished(workspace, job, folder, failed=1, uri=job.outputs["score"].path)
    assert list(workspace.jobs.logs(job.name)) == [("logs/user/error.txt", 14)]
    assert workspace.jobs.read_log(job.name, "logs/user/error.txt", offset=7) == b"another"
    assert workspace.jobs.read_log(job.name, "logs/user/error.txt", offset=-7, limit=3) == b"ano"
    for path in ("spec.json", "logs/../spec.json", "logs/link.txt", "/etc/passwd", "logs/none.txt"):
        with pytest.raises(NotFoundError):
            workspace.jobs.read_log(job.name, path)
    assert list(workspace.jobs.outputs(job.name)) == [("errors.jsonl", 22), ("predictions.csv", 20)]
    with workspace.jobs.open_output(job.name, "predictions.csv") as file:
        assert file.read() == b"file,row,prediction\n"
    for path in ("none.csv", "", "../../x"):
        with pytest.raises((NotFoundError, InvalidEntityError)), workspace.jobs.open_output(job.name, path):
            pass
    assert workspace.jobs.errors(job.name, limit=1) == [{"row": 1}]
    assert workspace.jobs.receipt(job.name).failed == 1
    files = workspace.places.resolve(f"azureml://jobs/{job.name}/outputs/score/paths/predictions.csv")
    assert Path(files.url) == store / "predictions.csv"


def test_failed_items_are_retried_into_the_same_output(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    data = write(tmp_path / "in.csv")
    job = workspace.endpoints.invoke("churn", request(data))
    with pytest.raises(ConflictError, match="is queued"):
        workspace.jobs.retry_failed(job.name)
    (tmp_path / "run").mkdir()
    finished(workspace, job, tmp_path / "run", failed=1, uri="azureml://datastores/workspaceblobstore/paths/x/")
    again = workspace.jobs.retry_failed(job.name, by="me")
    assert (again.retry_of, again.deployment, again.inputs) == (job.name, job.deployment, job.inputs)
    assert again.outputs["score"].path == job.outputs["score"].path
    with pytest.raises(ConflictError, match=again.name):
        workspace.jobs.retry_failed(job.name)
    workspace.jobs.cancel(again.name)

    def retry(_: int) -> str | None:
        try:
            return workspace.jobs.retry_failed(job.name).name
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        at_once = [name for name in pool.map(retry, range(8)) if name is not None]
    assert len(at_once) == 1, "two runs must not write to one output"
    workspace.jobs.cancel(at_once[0])
    clean = workspace.endpoints.invoke("churn", request(data))
    finished(workspace, clean, tmp_path / "run", failed=0, uri="azureml://datastores/workspaceblobstore/paths/y/")
    with pytest.raises(ConflictError, match="nothing to retry"):
        workspace.jobs.retry_failed(clean.name)


def test_a_rollback_withdraws_a_job_together_with_the_retry_that_wrote_into_its_output(
    workspace: Workspace, tmp_path: Path
) -> None:
    deployed(workspace, tmp_path)
    data = write(tmp_path / "in.csv")
    (tmp_path / "run").mkdir()
    store = workspace.settings.home / "datastores" / "workspaceblobstore"
    for name in ("errors.jsonl", "predictions.csv"):
        write(store / "x" / name)
        write(store / "y" / name)
    first, repaired = (workspace.endpoints.invoke("churn", request(data)) for _ in range(2))
    finished(workspace, first, tmp_path / "run", failed=0, uri="azureml://datastores/workspaceblobstore/paths/x/")
    finished(workspace, repaired, tmp_path / "run", failed=1, uri="azureml://datastores/workspaceblobstore/paths/y/")
    again = workspace.jobs.retry_failed(repaired.name)
    finished(workspace, again, tmp_path / "run", failed=0, uri="azureml://datastores/workspaceblobstore/paths/y/")
    with pytest.raises(ConflictError, match=f"repaired by job {again.name}: there is nothing to retry"):
        workspace.jobs.retry_failed(repaired.name)

    assert workspace.jobs.get(repaired.name).repaired_by == again.name
    assert [workspace.jobs.get(name).repaired_by for name in (first.name, again.name)] == [None, None]

    assert workspace.endpoints.latest("churn").name == again.name
    assert workspace.endpoints.rollback("churn", RollbackRequest(), by="ann").name == first.name
    assert workspace.endpoints.latest("churn").name == first.name
    withdrawn = [workspace.jobs.get(name).properties["withdrawn"] for name in (again.name, repaired.name)]
    assert all(word.endswith("ann") for word in withdrawn)
    with pytest.raises(ConflictError, match=again.name):
        workspace.endpoints.rollback("churn", RollbackRequest(job_name=repaired.name))
    workspace.endpoints.rollback("churn", RollbackRequest(job_name=again.name))
    assert workspace.endpoints.latest("churn").name == again.name
    assert not workspace.jobs.get(repaired.name).properties["withdrawn"]


def test_a_job_that_failed_is_not_retried_again_once_a_retry_has_published(
    workspace: Workspace, tmp_path: Path
) -> None:
    deployed(workspace, tmp_path)
    job = workspace.endpoints.invoke("churn", request(write(tmp_path / "in.csv")))
    (tmp_path / "run").mkdir()
    claimed = workspace.registry.jobs.claim("server", 30)
    assert claimed is not None
    workspace.registry.jobs.update(job.name, folder=str(tmp_path / "run"))
    workspace.registry.jobs.finish(job.name, claimed.lease_token, Reason.ERROR_THRESHOLD_EXCEEDED)
    again = workspace.jobs.retry_failed(job.name)
    finished(workspace, again, tmp_path / "run", failed=1, uri="azureml://datastores/workspaceblobstore/paths/x/")
    with pytest.raises(ConflictError, match=f"was retried already, by job {again.name}, which completed"):
        workspace.jobs.retry_failed(job.name)
    assert workspace.jobs.retry_failed(again.name).retry_of == again.name


def test_the_progress_of_a_running_job_is_read_from_its_folder(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    job = workspace.endpoints.invoke("churn", request(write(tmp_path / "in.csv")))
    workspace.registry.jobs.claim("server", 30)
    workspace.registry.jobs.update(job.name, folder=str(tmp_path / "run"))
    assert workspace.jobs.get(job.name).progress is None
    write(tmp_path / "run" / "progress.json", '{"ok": 7}')
    progress = workspace.jobs.get(job.name).progress
    assert progress is not None
    assert progress.ok == 7


def test_a_token_opens_until_it_expires_or_is_revoked(workspace: Workspace) -> None:
    secret, token = workspace.tokens.create("ci", "operator", timedelta(hours=1), by="admin")
    assert workspace.tokens.authenticate(secret).name == token.name
    workspace.tokens.revoke("ci")
    with pytest.raises(AuthenticationError, match="revoked"):
        workspace.tokens.authenticate(secret)
    with pytest.raises(AuthenticationError, match="not known"):
        workspace.tokens.authenticate("bp_guess")
    old, _ = workspace.registry.tokens.create("old", "reader", expires_at=token.created_at - timedelta(days=1))
    with pytest.raises(AuthenticationError, match="expired"):
        workspace.tokens.authenticate(old)
    with pytest.raises(InvalidEntityError, match="expired already"):
        workspace.tokens.create("late", "reader", timedelta(0))
    with pytest.raises(InvalidEntityError, match="roles are"):
        workspace.tokens.create("odd", "king")  # type: ignore[arg-type]  # what an unchecked request may hold


def test_a_workspace_finds_again_what_it_held(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    with Workspace.open(workspace.settings) as again:
        assert again.endpoints.get("churn").defaults.deployment_name == "blue"
        assert [entity.name for entity in again.resources.list("compute")] == ["local"]


@pytest.mark.parametrize(
    "url",
    [
        "local:///etc/hostname",
        "FILE:///etc/hostname",
        "simplecache::file:///etc/hostname",
        "memory://x::file:///etc/hostname",
        "nosuch://x/y",
        "http://[::1/x.csv",
    ],
)
def test_an_address_that_hides_a_path_of_this_machine_or_means_nothing_is_refused(
    workspace: Workspace, url: str
) -> None:
    with pytest.raises(InvalidEntityError, match=r"address|URL"):
        workspace.assets.create_or_update("data", Data(name="d", type="uri_file", path=url))


def test_a_script_can_be_stored_unread(workspace: Workspace, tmp_path: Path) -> None:
    deployment = deployed(workspace, tmp_path)
    write(tmp_path / "code" / "score.py", "def run(")
    code = {"code": str(tmp_path / "code"), "scoring_script": "score.py"}
    changed = BatchDeployment.model_validate({**deployment.body(), "code_configuration": code})
    with pytest.raises(InvalidEntityError, match="line 1"):
        workspace.endpoints.create_or_update_deployment(changed)
    assert workspace.endpoints.create_or_update_deployment(changed, skip_script_validation=True)


def test_the_same_invoke_many_times_at_once_is_one_job_also_under_a_name(workspace: Workspace, tmp_path: Path) -> None:
    deployed(workspace, tmp_path)
    wanted = request(write(tmp_path / "in" / "a.csv"), job_name="mine")
    for attempt in range(5):
        wanted = wanted.model_copy(update={"job_name": f"mine{attempt}"})
        with ThreadPoolExecutor(8) as pool:
            key = f"key{attempt}"
            names = set(
                pool.map(lambda _: workspace.endpoints.invoke("churn", wanted, idempotency_key=key).name, range(8))  # noqa: B023 - used within the turn
            )
        assert names == {f"mine{attempt}"}


def test_a_link_that_leads_in_circles_and_a_pipe_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "model" / "w.bin")
    for name in ("one", "two"):
        (tmp_path / "model" / name).symlink_to(tmp_path / "model")
    with pytest.raises(InvalidEntityError, match="link to a folder that it lies in"):
        workspace.assets.create_or_update("model", Model(name="m", path=str(tmp_path / "model")))
    for name in ("one", "two"):
        (tmp_path / "model" / name).unlink()
    os.mkfifo(tmp_path / "model" / "pipe")
    with pytest.raises(InvalidEntityError, match="neither a file nor a folder"):
        workspace.assets.create_or_update("model", Model(name="m", path=str(tmp_path / "model")))


@pytest.mark.parametrize("version", ["a/b", "a b", "1:2"])
def test_a_version_that_no_reference_could_name_is_refused(version: str) -> None:
    with pytest.raises(ValidationError):
        Model(name="m", version=version, path="/m")
