"""Which model scores which key: found by name, tag, folder or mapping file, and frozen at the invoke."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from batchpoint.background.models_file import write_models
from batchpoint.entities.assets import Model
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import Input, InvokeRequest, Job, Overrides, Reason
from batchpoint.entities.scored_models import ModelReport
from batchpoint.errors import InputError, InvalidEntityError, NotFoundError
from batchpoint.operations.model_maps import AS_OF, FOUND
from batchpoint.registry import Registry
from batchpoint.workspace import Workspace

BY_NAME = {"name_pattern": "model_{Device}_{Sensor}"}


def write(path: Path, content: str = "content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def register(workspace: Workspace, folder: Path, name: str, **more: Any) -> Model:
    path = write(folder / "files" / f"{name}.pkl", f"{name} {more}")
    stored = workspace.assets.create_or_update("model", Model.model_validate({"name": name, "path": str(path), **more}))
    assert isinstance(stored, Model)
    return stored


def deployed(workspace: Workspace, model_map: dict[str, Any], **options: Any) -> BatchDeployment:
    workspace.endpoints.create_or_update(BatchEndpoint(name="iot"))
    given = {"partition_keys": ["Device", "Sensor"], "model_map": model_map, **options}
    declared = BatchDeployment.model_validate({"name": "blue", "endpoint_name": "iot", "batchpoint": given})
    return workspace.endpoints.create_or_update_deployment(declared, set_default=True)


def models_found(deployment: BatchDeployment) -> int | None:
    assert deployment.batchpoint.model_map is not None
    return deployment.batchpoint.model_map.models_found


def invoked(workspace: Workspace, folder: Path, **overrides: Any) -> Job:
    data = write(folder / "data.csv", "TS,Device,Sensor,Value\n1,1,1,0.5\n")
    request = InvokeRequest(inputs={"data": Input(path=str(data))}, overrides=Overrides(**overrides))
    return workspace.endpoints.invoke("iot", request)


def models_of(workspace: Workspace, job: Job, folder: Path) -> list[dict[str, Any]]:
    target = folder / "run" / "models.jsonl"
    target.parent.mkdir(exist_ok=True)
    write_models(target, job, workspace)
    return [json.loads(line) for line in target.read_text().splitlines()]


def test_registered_models_are_found_by_name_and_the_job_keeps_the_versions_of_its_invoke(
    workspace: Workspace, tmp_path: Path
) -> None:
    register(workspace, tmp_path, "model_1_1")
    second = register(workspace, tmp_path, "model_1_2")
    register(workspace, tmp_path, "Model_1_3")  # another name, whatever a database's LIKE says
    assert models_found(deployed(workspace, BY_NAME)) == 2
    job = invoked(workspace, tmp_path)
    assert job.properties[FOUND] == "2"
    assert "models for 2 keys" in " ".join(job.notices)
    register(workspace, tmp_path, "model_1_2", description="trained again", tags={"x": "y"})
    newer = workspace.assets.create_or_update(
        "model", Model(name="model_1_2", path=str(write(tmp_path / "again" / "model_1_2.pkl", "again")))
    )
    assert newer.version != second.version
    first_line, second_line = models_of(workspace, job, tmp_path)
    assert first_line["key"] == {"Device": "1", "Sensor": "1"}
    assert second_line["model"] == "model_1_2:1"
    assert Path(second_line["path"]).read_text() == "model_1_2 {}"
    assert second_line["type"] == "custom_model"
    later = models_of(workspace, invoked(workspace, tmp_path), tmp_path)
    assert later[1]["model"] == f"model_1_2:{newer.version}"


def test_failed_items_are_scored_again_by_the_same_versions_or_by_those_of_today(
    workspace: Workspace, tmp_path: Path
) -> None:
    register(workspace, tmp_path, "model_1_1")
    deployed(workspace, BY_NAME)
    job = invoked(workspace, tmp_path)
    claimed = workspace.registry.jobs.claim("server", 30)
    assert claimed is not None
    folder = tmp_path / "jobs" / job.name
    folder.mkdir(parents=True)
    workspace.registry.jobs.update(job.name, folder=str(folder))
    workspace.registry.jobs.finish(job.name, claimed.lease_token, Reason.ALL_ITEMS_FAILED)
    workspace.assets.create_or_update("model", Model(name="model_1_1", path=str(write(tmp_path / "new.pkl", "new"))))
    again = workspace.jobs.retry_failed(job.name)
    assert [line["model"] for line in models_of(workspace, again, tmp_path)] == ["model_1_1:1"]
    claimed = workspace.registry.jobs.claim("server", 30)
    assert claimed is not None
    workspace.registry.jobs.finish(again.name, claimed.lease_token, Reason.CANCELED_BY_USER)
    today = workspace.jobs.retry_failed(job.name, current_deployment=True)
    assert AS_OF not in today.properties
    assert [line["model"] for line in models_of(workspace, today, tmp_path)] == ["model_1_1:2"]


def test_registered_models_are_found_by_their_tags(workspace: Workspace, tmp_path: Path) -> None:
    register(workspace, tmp_path, "pump", tags={"device": "1", "sensor": "2"})
    register(workspace, tmp_path, "other", tags={"device": "1"})
    by_tags = {"tags": {"Device": "device", "Sensor": "sensor"}}
    assert models_found(deployed(workspace, by_tags)) == 1
    (line,) = models_of(workspace, invoked(workspace, tmp_path), tmp_path)
    assert (line["key"], line["model"]) == ({"Device": "1", "Sensor": "2"}, "pump:1")
    register(workspace, tmp_path, "pump2", tags={"device": "1", "sensor": "2"})
    with pytest.raises(InvalidEntityError, match="Two models are given for Device=1, Sensor=2: pump:1 and pump2:1"):
        invoked(workspace, tmp_path)
    workspace.assets.archive("model", "pump")
    assert models_of(workspace, invoked(workspace, tmp_path), tmp_path)[0]["model"] == "pump2:1"


def test_a_folder_holds_the_models_be_they_files_or_mlflow_folders(workspace: Workspace, tmp_path: Path) -> None:
    models = tmp_path / "trained"
    write(models / "model_1_1.pkl")
    write(models / "model_2_1.pkl")
    write(models / "notes.txt")
    stored = deployed(workspace, {"folder": str(models), "file_pattern": "model_{Device}_{Sensor}.pkl"})
    assert models_found(stored) == 2
    assert stored.batchpoint.model_map is not None
    assert stored.batchpoint.model_map.folder == "azureml:iot-blue-models:1"
    lines = models_of(workspace, invoked(workspace, tmp_path), tmp_path)
    assert [line["model"] for line in lines] == ["model_1_1.pkl", "model_2_1.pkl"]
    assert all(Path(line["path"]).is_file() for line in lines)
    write(models / "1" / "5" / "MLmodel", "flavors: {}")
    write(models / "1" / "5" / "model.pkl")
    deployed(workspace, {"folder": str(models), "file_pattern": "{Device}/{Sensor}"})
    (line,) = models_of(workspace, invoked(workspace, tmp_path), tmp_path)
    assert (line["key"], line["type"]) == ({"Device": "1", "Sensor": "5"}, "mlflow_model")
    assert (Path(line["path"]) / "model.pkl").is_file()


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_mapping_file_names_models_or_places(workspace: Workspace, tmp_path: Path, ending: str) -> None:
    register(workspace, tmp_path, "small")
    register(workspace, tmp_path, "large")
    elsewhere = write(tmp_path / "elsewhere.pkl")
    rows = [
        ("1", "1", "azureml:small:1"),
        ("1", "2", "large"),
        ("2", "1", str(elsewhere)),
        ("2", "2", "small:7"),
    ]
    if ending == "csv":
        text = "Device,Sensor,model\n" + "".join(f"{','.join(row)}\n" for row in rows)
    else:
        text = json.dumps([{"Device": int(d), "Sensor": int(s), "model": model} for d, s, model in rows])
    stored = deployed(workspace, {"mapping": str(write(tmp_path / f"map.{ending}", text))})
    assert models_found(stored) == 3  # small:7 does not exist: the rows of its key are told as those without a model
    lines = models_of(workspace, invoked(workspace, tmp_path), tmp_path)
    assert [line["model"] for line in lines] == ["small:1", "large:1", str(elsewhere)]
    assert Path(lines[2]["path"]) == elsewhere


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Device,model\n1,small\n", "Row 1 of the mapping file map.csv has no Sensor"),
        ("Device,Sensor,model\n1,1,\n", "Row 1 of the mapping file map.csv has no model"),
        ("Device,Sensor,model\n1,1,models/a.pkl\n", "Row 1 .*'models/a.pkl' is not a reference.*absolute path"),
        ("Device,Sensor,model\n", "has no rows"),
        ("Device,Sensor,model\n1,1,small\n1,1,large\n", "Two models are given for Device=1, Sensor=1"),
        ("Device,Sensor,model\n1,1,unknown\n", "None of the models"),
    ],
)
def test_a_mapping_file_that_is_wrong_is_refused_by_row(
    workspace: Workspace, tmp_path: Path, text: str, said: str
) -> None:
    register(workspace, tmp_path, "small")
    register(workspace, tmp_path, "large")
    with pytest.raises(InvalidEntityError, match=said):
        deployed(workspace, {"mapping": str(write(tmp_path / "map.csv", text))})


def test_a_map_that_finds_nothing_or_names_nothing_is_refused_at_once(workspace: Workspace, tmp_path: Path) -> None:
    register(workspace, tmp_path, "modell_1_1")
    with pytest.raises(InvalidEntityError, match="No registered model is named as 'model_"):
        deployed(workspace, BY_NAME)
    with pytest.raises(InvalidEntityError, match="No registered model has the tags"):
        deployed(workspace, {"tags": {"Device": "device", "Sensor": "sensor"}})
    with pytest.raises(InputError, match="does not exist"):
        deployed(workspace, {"folder": str(tmp_path / "none"), "file_pattern": "{Device}_{Sensor}"})
    with pytest.raises(NotFoundError, match="no model named gone"):
        deployed(workspace, {**BY_NAME, "on_missing": "default", "default_model": "gone:1"})
    write(tmp_path / "models" / "a.pkl")
    with pytest.raises(InvalidEntityError, match=r"No file in .* such as a\.pkl"):
        deployed(workspace, {"folder": str(tmp_path / "models"), "file_pattern": "{Device}_{Sensor}.pkl"})


def test_what_is_found_at_the_invoke_counts_and_other_keys_than_the_pattern_names_are_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    register(workspace, tmp_path, "model_1_1")
    deployed(workspace, BY_NAME)
    with pytest.raises(InvalidEntityError, match=r"\{Sensor\} in .* is not a partition key"):
        invoked(workspace, tmp_path, partition_keys=["Device"])
    workspace.assets.archive("model", "model_1_1")
    with pytest.raises(InvalidEntityError, match="No registered model is named"):
        invoked(workspace, tmp_path)


def test_a_file_for_each_key_has_the_format_of_the_predictions(workspace: Workspace, tmp_path: Path) -> None:
    register(workspace, tmp_path, "model_1_1")
    with pytest.raises(InvalidEntityError, match="ends as parquet, and the predictions are csv"):
        deployed(workspace, BY_NAME, file_per_key="{Device}_{Sensor}.parquet")
    deployed(workspace, BY_NAME, file_per_key="{Device}_{Sensor}.csv")
    with pytest.raises(InvalidEntityError, match="ends as csv, and the predictions are parquet"):
        invoked(workspace, tmp_path, output_file_name="predictions.parquet")


def test_models_in_another_store_are_fetched_and_what_is_gone_keeps_its_line(
    workspace: Workspace, tmp_path: Path
) -> None:
    import fsspec  # noqa: PLC0415 - only this test needs it

    memory = fsspec.filesystem("memory")
    memory.pipe("/lake/models/1_1.pkl", b"one")
    memory.pipe("/lake/models/1_2.pkl", b"two")
    try:
        deployed(workspace, {"folder": "memory://lake/models", "file_pattern": "{Device}_{Sensor}.pkl"})
        lines = models_of(workspace, invoked(workspace, tmp_path), tmp_path)
        assert [Path(line["path"]).read_bytes() for line in lines] == [b"one", b"two"]
    finally:
        memory.rm("/lake", recursive=True)
    mine = register(workspace, tmp_path, "model_1_1")
    deployed(workspace, BY_NAME)
    job = invoked(workspace, tmp_path)
    workspace.assets.local_path(mine).unlink()
    (line,) = models_of(workspace, job, tmp_path)
    assert not Path(line["path"]).exists()


def test_five_thousand_models_are_found_by_a_few_queries(workspace: Workspace, tmp_path: Path) -> None:
    workspace.endpoints.create_or_update(BatchEndpoint(name="iot"))
    path = "azureml://datastores/workspaceblobstore/paths/models/m.pkl"
    table = workspace.registry.assets
    for number in range(50):
        table.register("model", Model(name=f"model_{number}_0", path=path), "hash", by=None)
    with workspace.registry.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO assets (workspace, kind, name, version, archived, content_hash, body) "
            "SELECT workspace, kind, 'model_' || n || '_1', version, archived, content_hash, "
            "json_set(body, '$.name', 'model_' || n || '_1') FROM assets, "
            "(WITH RECURSIVE counted(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < 4949) "
            "SELECT n FROM counted) WHERE name = 'model_0_0'"
        )
    asked: list[str] = []
    event.listen(workspace.registry.database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    stored = deployed(workspace, BY_NAME)
    lines = models_of(workspace, invoked(workspace, tmp_path), tmp_path)
    assert models_found(stored) == len(lines) == 5000
    assert len(asked) < 80


def reports(count: int, **more: Any) -> list[ModelReport]:
    return [
        ModelReport.model_validate(
            {"key": {"Device": str(n)}, "model": f"model_{n}:1", "rows": 10, "seconds": 0.5, **more}
        )
        for n in range(count)
    ]


def job_of(registry: Registry, name: str) -> None:
    registry.endpoints.put(BatchEndpoint(name="iot"), by=None)
    registry.deployments.put(BatchDeployment(name="blue", endpoint_name="iot"), by=None)
    registry.jobs.enqueue(Job(name=name, endpoint_name="iot", deployment_name="blue"))


def test_the_board_adds_up_what_models_did_and_each_job_once(registry: Registry, clock: Any) -> None:
    job_of(registry, "first")
    job_of(registry, "second")
    board = registry.scored_models
    assert board.add("iot", "blue", "first", reports(3, failed=10, message="no model"))
    clock.move(60)
    assert board.add("iot", "blue", "second", reports(2))
    assert not board.add("iot", "blue", "first", reports(3))
    lines = board.list("iot", "blue")
    assert [(line.rows, line.failed, line.seconds, line.last_job_name) for line in lines] == [
        (20, 10, 1.0, "second"),
        (20, 10, 1.0, "second"),
        (10, 10, 0.5, "first"),
    ]
    assert lines[0].key == {"Device": "0"}
    assert lines[0].message is None
    assert [line.key for line in board.list("iot", "blue", failing=True)] == [{"Device": "2"}]
    assert board.list("iot", "blue", order="last_seen", limit=1)[0].last_job_name == "second"
    assert [line.key["Device"] for line in board.list("iot", "blue", order="rows", limit=2, offset=1)] == ["1", "2"]


def test_the_board_goes_with_its_deployment(registry: Registry) -> None:
    job_of(registry, "first")
    assert registry.scored_models.add("iot", "blue", "first", reports(1))
    registry.deployments.delete("iot", "blue")
    assert registry.scored_models.list("iot", "blue") == []
    job_of(registry, "second")
    registry.deployments.delete("iot", "blue")
    assert not registry.scored_models.add("iot", "blue", "second", reports(1))


def test_long_keys_stay_apart_and_thousands_are_added_at_once(registry: Registry) -> None:
    job_of(registry, "first")
    long = [ModelReport(key={"Device": "x" * 400 + str(n)}, rows=1, message="m" * 5000, failed=1) for n in range(3)]
    assert registry.scored_models.add("iot", "blue", "first", [*reports(5000), *long])
    assert len(registry.scored_models.list("iot", "blue", limit=6000)) == 5003
    assert len(registry.scored_models.list("iot", "blue", failing=True)) == 3


@pytest.mark.parametrize("said", ["half a \udc80 character", "a \x00 in the middle", "a whole one: \U0001f600"])
def test_the_board_takes_whatever_a_model_said(registry: Registry, said: str) -> None:
    job_of(registry, "first")
    keys = ({"Device": said}, {"Device": said * 20})
    said_so = [ModelReport(key=key, model=said, rows=1, failed=1, message=said) for key in keys]
    assert registry.scored_models.add("iot", "blue", "first", said_so)
    shown = said.replace("\udc80", "?").replace("\x00", "?")
    assert [(line.model, line.message) for line in registry.scored_models.list("iot", "blue")] == [(shown, shown)] * 2
