"""Models, data, environments and code over the wire of Azure ML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.workspace import Workspace
from integration.azure_wire import LONG, SHORT, WS, azure_client, upload

CONDA = "channels:\n- conda-forge\ndependencies:\n- python=3.11\nname: e\n"


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with azure_client(workspace) as opened:
        yield opened


def model_body(path: str = "LocalUpload/abc/model.bin", **properties: Any) -> dict[str, Any]:
    known = {"modelType": "custom_model", "modelUri": f"{LONG}/{path}", "isAnonymous": False, "isArchived": False}
    about = {"description": "first", "tags": {"t": "1"}, "properties": {"p": 2}}
    return {"properties": {**about, **known, **properties}}


def data_body(path: str = "in/a.csv", **properties: Any) -> dict[str, Any]:
    known = {"dataType": "uri_file", "dataUri": f"{SHORT}/{path}", "isArchived": False}
    return {"properties": {"description": "x", "tags": {}, "properties": {}, **known, **properties}}


def environment_body(**properties: Any) -> dict[str, Any]:
    known = {"image": "ubuntu", "condaFile": CONDA, "isArchived": False}
    return {"properties": {**known, **properties}}


def register_model(client: httpx.Client, workspace: Workspace, version: str, content: bytes = b"m") -> None:
    path = f"LocalUpload/{version}/model.bin"
    upload(workspace, path, content)
    made = client.put(f"{WS}/models/churn/versions/{version}", json=model_body(path))
    assert made.status_code == 200, made.text


def base_of(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def names(answered: httpx.Response) -> list[str]:
    return [item["name"] for item in answered.json()["value"]]


def test_a_model_that_was_uploaded_is_registered_where_it_lies(client: httpx.Client, workspace: Workspace) -> None:
    register_model(client, workspace, "1")
    shown = client.get(f"{WS}/models/churn/versions/1", params={"api-version": "x"}).json()
    assert (shown["id"], shown["name"]) == (f"{WS}/models/churn/versions/1", "1")
    assert shown["systemData"]["createdBy"] == "admin-token"
    properties = shown["properties"]
    assert properties["modelUri"] == f"{LONG}/LocalUpload/1/model.bin"
    assert properties["flavors"] == {}
    assert (properties["description"], properties["tags"], properties["properties"]) == (
        "first",
        {"t": "1"},
        {"p": "2"},
    )
    stored = client.get("/api/v1/models/churn").json()
    assert stored["path"] == f"{SHORT}/LocalUpload/1/model.bin"
    root = workspace.settings.home / "datastores" / "workspaceblobstore"
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["model.bin"]


def test_an_mlflow_model_tells_its_flavors(client: httpx.Client, workspace: Workspace) -> None:
    upload(workspace, "LocalUpload/a/model/MLmodel", b"flavors:\n  python_function:\n    env: {conda: conda.yaml}\n")
    body = model_body("LocalUpload/a/model", modelType="mlflow_model")
    shown = client.put(f"{WS}/models/m/versions/1", json=body).json()["properties"]
    assert shown["modelType"] == "mlflow_model"
    assert set(shown["flavors"]) == {"python_function"}
    assert client.put(f"{WS}/models/m/versions/1", json={"properties": shown}).status_code == 200

    upload(workspace, "LocalUpload/b/model/weights", b"")
    body = model_body("LocalUpload/b/model", modelType="mlflow_model")
    refused = client.put(f"{WS}/models/m/versions/2", json=body)
    assert refused.status_code == 422
    assert "MLmodel" in refused.json()["error"]["message"]


def test_the_name_tells_the_latest_and_the_next_version(client: httpx.Client, workspace: Workspace) -> None:
    assert client.get(f"{WS}/models/churn").status_code == 404
    newest = {"$orderBy": "createdtime desc", "$top": 1}
    assert client.get(f"{WS}/models/churn/versions", params=newest).json() == {"value": []}
    for version in ("7", "2", "beta"):
        register_model(client, workspace, version)
    found = client.get(f"{WS}/models/churn").json()
    assert found["id"] == f"{WS}/models/churn"
    assert (found["properties"]["latestVersion"], found["properties"]["nextVersion"]) == ("beta", "8")
    assert names(client.get(f"{WS}/models/churn/versions", params=newest)) == ["beta"]


def test_a_changed_version_is_refused_and_an_equal_one_takes_over_description_and_tags(
    client: httpx.Client, workspace: Workspace
) -> None:
    register_model(client, workspace, "1")
    upload(workspace, "other/model.bin")
    refused = client.put(f"{WS}/models/churn/versions/1", json=model_body("other/model.bin"))
    assert refused.status_code == 409
    error = refused.json()["error"]
    assert error["code"] == "AlreadyExists"
    assert "churn:1 exists already with other content" in error["message"]

    same = model_body("LocalUpload/1/model.bin", description="second", tags={"u": "2"})
    shown = client.put(f"{WS}/models/churn/versions/1", json=same).json()["properties"]
    assert (shown["description"], shown["tags"]) == ("second", {"u": "2"})


def test_a_version_is_archived_and_restored_by_sending_it_back(client: httpx.Client, workspace: Workspace) -> None:
    for version in ("1", "2"):
        register_model(client, workspace, version)
    address = f"{WS}/models/churn/versions/2"
    shown = client.get(address).json()
    shown["properties"]["isArchived"] = True
    assert client.put(address, json=shown).json()["properties"]["isArchived"] is True
    versions = f"{WS}/models/churn/versions?listViewType="
    assert names(client.get(f"{versions}ActiveOnly")) == ["1"]
    assert names(client.get(f"{versions}ArchivedOnly")) == ["2"]
    assert names(client.get(f"{versions}All")) == ["2", "1"]
    assert client.get(f"{WS}/models/churn").json()["properties"]["latestVersion"] == "1"
    assert client.get("/api/v1/models/churn?version=2").json()["archived"] is True
    shown["properties"]["isArchived"] = False
    assert client.put(address, json=shown).status_code == 200
    assert names(client.get(f"{versions}ActiveOnly")) == ["2", "1"]


def test_a_version_whose_files_are_gone_can_still_be_archived(client: httpx.Client, workspace: Workspace) -> None:
    register_model(client, workspace, "1")
    (workspace.settings.home / "datastores/workspaceblobstore/LocalUpload/1/model.bin").unlink()
    shown = client.get(f"{WS}/models/churn/versions/1").json()
    shown["properties"]["isArchived"] = True
    assert client.put(f"{WS}/models/churn/versions/1", json=shown).status_code == 200
    assert names(client.get(f"{WS}/models")) == []


def test_a_name_is_archived_with_all_its_versions(client: httpx.Client, workspace: Workspace) -> None:
    for version in ("1", "2"):
        register_model(client, workspace, version)
    assert names(client.get(f"{WS}/models?listViewType=ActiveOnly")) == ["churn"]
    archived = client.put(f"{WS}/models/churn", json={"properties": {"isArchived": True}}).json()
    assert archived["properties"]["isArchived"] is True
    assert names(client.get(f"{WS}/models")) == []
    assert names(client.get(f"{WS}/models?listViewType=ArchivedOnly")) == ["churn"]
    assert names(client.get(f"{WS}/models/churn/versions")) == []
    assert client.put(f"{WS}/models/churn", json={"properties": {"isArchived": False}}).status_code == 200
    assert names(client.get(f"{WS}/models/churn/versions")) == ["2", "1"]
    assert client.put(f"{WS}/models/nothing", json={"properties": {"isArchived": True}}).status_code == 404


def test_what_another_interface_registered_is_shown_archived_and_not_changed(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "m.bin").write_bytes(b"m")
    workspace.assets.create_or_update("model", Model(name="m", path=str(tmp_path / "m.bin")))
    workspace.assets.create_or_update("data", Data(name="d", path=str(tmp_path)))
    workspace.assets.create_or_update("environment", Environment(name="e", pip_requirements=["numpy"]))
    workspace.assets.create_or_update("code", Code(name="c", path=str(tmp_path)))
    for kind, name in {"models": "m", "data": "d", "environments": "e", "codes": "c"}.items():
        assert names(client.get(f"{WS}/{kind}")) == [name]
        shown = client.get(f"{WS}/{kind}/{name}/versions/1").json()
        shown["properties"]["isArchived"] = True
        assert client.put(f"{WS}/{kind}/{name}/versions/1", json=shown).status_code == 200
        assert names(client.get(f"{WS}/{kind}")) == []
        assert client.get(f"/api/v1/{kind}/{name}?version=1").json()["archived"] is True
    environment = workspace.assets.get("environment", "e", "1")
    assert isinstance(environment, Environment)
    assert environment.pip_requirements == ["numpy"]


def test_names_and_versions_come_page_by_page(client: httpx.Client, workspace: Workspace) -> None:
    upload(workspace, "in/a.csv")
    for name in ("a", "b", "c"):
        client.put(f"{WS}/data/{name}/versions/1", json=data_body())
    page = client.get(f"{WS}/data?count=2").json()
    assert [item["name"] for item in page["value"]] == ["c", "b"]
    assert names(client.get(page["nextLink"])) == ["a"]
    assert "nextLink" not in client.get(f"{WS}/data?$top=2").json()


def test_data_keeps_the_short_address_and_its_type(client: httpx.Client, workspace: Workspace) -> None:
    upload(workspace, "in/a.csv")
    assert client.put(f"{WS}/data/d/versions/1", json=data_body()).status_code == 200
    shown = client.get(f"{WS}/data/d/versions/1").json()["properties"]
    assert (shown["dataUri"], shown["dataType"]) == (f"{SHORT}/in/a.csv", "uri_file")
    container = client.get(f"{WS}/data/d").json()["properties"]
    assert (container["latestVersion"], container["nextVersion"], container["dataType"]) == ("1", "2", "uri_file")
    folder = data_body("in", dataType="uri_folder")
    assert client.put(f"{WS}/data/d/versions/1", json=folder).status_code == 409
    long = data_body(dataUri=f"{LONG}/in/a.csv")
    assert client.put(f"{WS}/data/d/versions/1", json=long).status_code == 200
    table = data_body("in", dataType="mltable", referencedUris=["./a.csv"])
    refused = client.put(f"{WS}/data/t/versions/1", json=table)
    assert (refused.status_code, "MLTable" in refused.text) == (422, True)
    upload(workspace, "in/MLTable", b"paths: [{file: ./a.csv}]")
    assert client.put(f"{WS}/data/t/versions/1", json=table).status_code == 200
    gone = client.put(f"{WS}/data/d/versions/2", json=data_body("in/gone.csv"))
    assert gone.status_code == 422
    assert "in/gone.csv does not exist" in gone.json()["error"]["message"]


def test_an_environment_is_new_only_when_what_it_holds_is(client: httpx.Client, workspace: Workspace) -> None:
    address = f"{WS}/environments/e/versions"
    assert client.put(f"{address}/1", json=environment_body()).status_code == 200
    stored = workspace.assets.get("environment", "e")
    assert isinstance(stored, Environment)
    assert stored.conda_file == {"name": "e", "channels": ["conda-forge"], "dependencies": ["python=3.11"]}
    assert client.get(f"{address}/1").json()["properties"]["condaFile"] == CONDA

    again = client.put(f"{address}/1", json=environment_body(tags={"a": "b"}, description="same"))
    assert again.status_code == 200
    assert again.json()["properties"]["tags"] == {"a": "b"}
    assert client.put(f"{address}/1", json=environment_body(image="debian")).status_code == 409
    changed = environment_body(condaFile=CONDA.replace("3.11", "3.12"))
    assert client.put(f"{address}/1", json=changed).status_code == 409
    built = {"properties": {"build": {"contextUri": f"{base_of(client)}/azureml-blobstore/LocalUpload/a/ctx/"}}}
    assert client.put(f"{address}/1", json=built).status_code == 409
    assert client.put(f"{address}/2", json=built).status_code == 200
    stored = workspace.assets.get("environment", "e", "2")
    assert isinstance(stored, Environment)
    assert stored.build is not None
    assert stored.build.path == f"{SHORT}/LocalUpload/a/ctx/"
    broken = client.put(f"{address}/3", json=environment_body(condaFile="a: ["))
    assert broken.status_code == 422
    assert "not YAML" in broken.json()["error"]["message"]


def test_an_anonymous_environment_can_be_used_again_and_is_not_listed(client: httpx.Client) -> None:
    address = f"{WS}/environments/CliV2AnonymousEnvironment/versions/0a1b"
    for _ in range(2):
        made = client.put(address, json=environment_body(isAnonymous=True))
        assert made.status_code == 200, made.text
        assert made.json()["properties"]["isAnonymous"] is True
    assert names(client.get(f"{WS}/environments")) == []
    assert client.get(address).status_code == 200


def test_code_is_registered_where_it_was_uploaded_and_found_by_its_hash_under_any_name(
    client: httpx.Client, workspace: Workspace
) -> None:
    upload(workspace, "code-uploads/c-1/src/score.py", b"def run(files): ...")
    searched = {"hash": "f00d", "hashVersion": "202208"}
    assert client.get(f"{WS}/codes/made-up/versions", params=searched).json() == {"value": []}
    uri = f"{base_of(client)}/default.blob.core.windows.net/c-1/src"
    hashes = {"hash_sha256": "f00d", "hash_version": 202208}
    body = {"properties": {"codeUri": uri, "isAnonymous": True, "isArchived": False, "properties": hashes}}
    made = client.put(f"{WS}/codes/made-up/versions/1", json=body)
    assert made.status_code == 200, made.text
    assert client.put(f"{WS}/codes/made-up/versions/1", json=body).status_code == 200
    found = client.get(f"{WS}/codes/another/versions", params=searched).json()["value"]
    assert [item["id"] for item in found] == [f"{WS}/codes/made-up/versions/1"]
    shown = client.get(found[0]["id"]).json()["properties"]
    assert shown["codeUri"] == uri
    assert shown["properties"] == {"hash_sha256": "f00d", "hash_version": "202208"}
    assert client.get("/api/v1/codes/made-up/files").json()["value"] == [{"path": "score.py", "size": 19}]


def test_bad_names_bodies_and_views_are_refused_with_a_reason(client: httpx.Client, workspace: Workspace) -> None:
    upload(workspace, "in/a.csv")
    refused = client.put(f"{WS}/data/-d/versions/1", json=data_body())
    assert refused.status_code == 422
    assert "name" in refused.json()["error"]["message"]
    assert client.put(f"{WS}/data/d/versions/1", json=[]).status_code == 422
    assert client.put(f"{WS}/data/d/versions/1", json=data_body(dataUri="https://h:port/a.csv")).status_code == 422
    assert client.put(f"{WS}/data/d/versions/1", json={"properties": {"tags": "none"}}).status_code == 422
    assert client.get(f"{WS}/data?listViewType=Some").status_code == 422
    assert client.get(f"{WS}/data/d/versions/1").json()["error"]["code"] == "NotFound"


def test_a_path_of_some_other_machine_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    with azure_client(workspace, shares_files=False) as client:
        refused = client.put(f"{WS}/data/d/versions/1", json=data_body(dataUri=str(tmp_path / "secret")))
    assert refused.status_code == 422
    assert "is a path of some machine" in refused.json()["error"]["message"]


def test_a_reader_may_look_and_not_register(workspace: Workspace) -> None:
    upload(workspace, "in/a.csv")
    with azure_client(workspace, "reader") as reader:
        assert reader.get(f"{WS}/data").status_code == 200
        assert reader.put(f"{WS}/data/d/versions/1", json=data_body()).status_code == 403


def test_a_dataset_of_the_first_preview_is_data_that_is_found_by_its_label(
    client: httpx.Client, workspace: Workspace
) -> None:
    upload(workspace, "in/a.csv")
    blob = f"{base_of(client)}/default.blob.core.windows.net/azureml-blobstore/in"
    for version, place in (("7", {"folder": blob}), ("8", {"file": f"{SHORT}/in/a.csv"})):
        body = {"properties": {"description": "x", "paths": [place]}}
        assert client.put(f"{WS}/datasets/rows/versions/{version}", json=body).status_code == 200
    shown = [client.get(f"{WS}/data/rows/versions/{version}").json()["properties"] for version in ("7", "8")]
    assert [(each["dataType"], each["dataUri"]) for each in shown] == [
        ("uri_folder", f"{SHORT}/in"), ("uri_file", f"{SHORT}/in/a.csv"),
    ]  # fmt: skip
    latest = "azureml://locations/local/workspaces/default/data/rows/versions/labels/latest"
    assert workspace.assets.resolve("data", latest).version == "8"
    two = {"paths": [{"folder": "a"}, {"folder": "b"}]}
    for wrong in ({}, {"paths": []}, {"paths": ["a"]}, two, {"paths": [{"folder": "a", "file": "b"}]}):
        refused = client.put(f"{WS}/datasets/rows/versions/9", json={"properties": wrong})
        assert refused.status_code == 422
        assert "one" in refused.json()["error"]["message"]
