"""The official client keeps computes, datastores, models, data and environments here."""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_client import CURRENT, OLDER, AzureClient
from shipped import Shipped


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


@pytest.fixture(params=[CURRENT, OLDER])
def client(request: pytest.FixtureRequest, shipped: Shipped, tmp_path: Path) -> AzureClient:
    return AzureClient(shipped, tmp_path / "notebook", request.param)


def test_computes_and_datastores_are_made_changed_listed_and_deleted(client: AzureClient, shipped: Shipped) -> None:
    shipped.ok("compute", "create", "-n", "ours", "--max-instances", "2")
    found = client.json("""
from azure.ai.ml.entities import AccountKeyConfiguration, AmlCompute, AzureBlobDatastore
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

found = {"workspace": ml_client.workspaces.get(ml_client.workspace_name).location}
cluster = AmlCompute(name="cpu", size="Standard_DS3_v2", min_instances=0, max_instances=4, tier="low_priority",
    idle_time_before_scale_down=120, description="small", tags={"a": "b"})
made = ml_client.compute.begin_create_or_update(cluster).result()
found["made"] = [made.provisioning_state, made.size, made.tier, made.max_instances, made.idle_time_before_scale_down]
again = ml_client.compute.get("cpu")
again.max_instances = 6
ml_client.compute.begin_create_or_update(again).result()
ml_client.compute.begin_create_or_update(AmlCompute(name="ours", max_instances=3)).result()
found["listed"] = {each.name: each.max_instances for each in ml_client.compute.list()}
for name in ("cpu", "cpu", "never"):
    ml_client.compute.begin_delete(name).result()
try:
    ml_client.compute.get("cpu")
except ResourceNotFoundError as error:
    found["gone"] = error.error.message

store = AzureBlobDatastore(name="lake", account_name="acct", container_name="c", tags={"a": "b"},
    credentials=AccountKeyConfiguration(account_key="c2VjcmV0"))
ml_client.datastores.create_or_update(store)
found["default"] = ml_client.datastores.get_default().name
found["stores"] = sorted(each.name for each in ml_client.datastores.list())
lake = ml_client.datastores.get("lake")
found["lake"] = [lake.container_name, lake.tags, lake.credentials.type]
lake.description = "changed"
ml_client.datastores.create_or_update(lake)
try:
    ml_client.datastores.delete("workspaceblobstore")
except HttpResponseError as error:
    found["refused"] = [error.status_code, error.error.message]
print(json.dumps(found))
""")
    assert found["workspace"] == "local"
    assert found["made"] == ["Succeeded", "Standard_DS3_v2", "low_priority", 4, 120]
    assert found["listed"] == {"cpu": 6, "local": found["listed"]["local"], "ours": 3}
    assert "There is no compute named cpu" in found["gone"]
    assert found["default"] == "workspaceblobstore"
    assert found["stores"] == ["lake", "workspaceartifactstore", "workspaceblobstore"]
    container, tags, credentials = found["lake"]
    assert (container, tags, credentials.lower().replace("_", "")) == ("c", {"a": "b"}, "accountkey")
    assert found["refused"] == [409, "The datastore workspaceblobstore is built in and cannot be deleted."]
    lake = shipped.json("datastore", "show", "-n", "lake")
    assert (lake["has_credentials"], lake["description"]) == (True, "changed")


def test_assets_that_lie_in_a_datastore_are_registered_labelled_archived_and_never_changed(
    client: AzureClient, shipped: Shipped
) -> None:
    root = shipped.place / "datastores" / "workspaceblobstore"
    for name in ("old/model.bin", "new/model.bin", "in/a.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    shipped.ok("data", "create", "-n", "theirs", "--type", "uri_folder", "--path", root / "in")
    found = client.json("""
from azure.ai.ml.entities import Data, Environment, Model
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

STORE = "azureml://datastores/workspaceblobstore/paths"
found = {}
for kind in ("old", "new"):
    made = ml_client.models.create_or_update(Model(name="churn", path=f"{STORE}/{kind}/model.bin", description=kind,
        tags={"is": kind}, properties={"p": "1"}))
    found[kind] = [made.version, made.tags, made.properties["p"], made.path.rpartition("/paths/")[2]]
found["latest"] = ml_client.models.get("churn", label="latest").version
try:
    ml_client.models.create_or_update(Model(name="churn", version="1", path=f"{STORE}/new/model.bin"))
except ResourceExistsError as error:
    found["changed"] = error.error.message
ml_client.models.archive("churn", version="2")
found["without 2"] = [each.version for each in ml_client.models.list("churn")]
found["latest without 2"] = ml_client.models.get("churn", label="latest").version
ml_client.models.restore("churn", version="2")
found["with 2"] = [each.version for each in ml_client.models.list("churn")]
ml_client.models.archive("churn")
found["archived"] = [each.name for each in ml_client.models.list()]
ml_client.models.restore("churn")
found["restored"] = [[each.name, each.latest_version] for each in ml_client.models.list()]
try:
    ml_client.models.get("churn", version="9")
except ResourceNotFoundError as error:
    found["missing"] = error.error.message

data = ml_client.data.create_or_update(Data(name="new-data", path=f"{STORE}/in/", type="uri_folder", description="d"))
found["data"] = [data.version, data.type, data.path, ml_client.data.get("new-data", label="latest").version]
found["theirs"] = ml_client.data.get("theirs", version="1").type
found["all data"] = sorted(each.name for each in ml_client.data.list())
ml_client.data.archive("theirs", label="latest")
found["data left"] = [each.name for each in ml_client.data.list()]

conda = {"name": "e", "channels": ["conda-forge"], "dependencies": ["python=3.11"]}
Path("conda.yml").write_text(json.dumps(conda))
versions = []
for image in ("ubuntu", "ubuntu", "debian"):
    made = ml_client.environments.create_or_update(Environment(name="env", image=image, conda_file="conda.yml"))
    versions.append(made.version)
found["environments"] = versions
found["conda"] = ml_client.environments.get("env", label="latest").conda_file == conda
ml_client.environments.archive("env")
found["environments left"] = [each.name for each in ml_client.environments.list()]
print(json.dumps(found))
""")
    assert found["old"] == ["1", {"is": "old"}, "1", "old/model.bin"]
    assert found["new"] == ["2", {"is": "new"}, "1", "new/model.bin"]
    assert found["latest"] == "2"
    assert "Model churn:1 exists already with other content" in found["changed"]
    assert (found["without 2"], found["latest without 2"], found["with 2"]) == (["1"], "1", ["2", "1"])
    assert (found["archived"], found["restored"]) == ([], [["churn", "2"]])
    assert "There is no model churn:9" in found["missing"]
    version, kind, path, latest = found["data"]
    assert (version, kind, latest) == ("1", "uri_folder", "1")
    assert path.endswith("datastores/workspaceblobstore/paths/in/")
    assert (found["theirs"], found["all data"]) == ("uri_folder", ["new-data", "theirs"])
    assert found["data left"] == ["new-data"]
    assert found["environments"] == ["1", "1", "2"]
    assert found["conda"] is True
    assert found["environments left"] == []
    shown = shipped.json("model", "show", "-n", "churn", "-v", "1")
    assert (shown["path"], shown["description"]) == (
        "azureml://datastores/workspaceblobstore/paths/old/model.bin",
        "old",
    )
    assert not (root / "LocalUpload" / "old").exists()


def test_local_folders_are_uploaded_once_and_come_back_byte_for_byte(
    client: AzureClient, shipped: Shipped, tmp_path: Path
) -> None:
    contents = {"weights.bin": bytes(range(256)) * 300, "inner/größe 1.txt": b"a b\n", "inner/empty": b""}
    for name, content in contents.items():
        for folder in (client.folder / "model", tmp_path / "ours"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    (client.folder / "a.csv").write_text("a\n1\n")
    (client.folder / "ctx").mkdir()
    (client.folder / "ctx" / "Dockerfile").write_text("FROM ubuntu\n")
    (client.folder / "src").mkdir()
    (client.folder / "src" / "score.py").write_text("def run(files): ...\n")
    shipped.ok("model", "create", "-n", "ours", "--path", tmp_path / "ours")
    found = client.json("""
from azure.ai.ml._artifacts._artifact_utilities import download_artifact_from_aml_uri
from azure.ai.ml.entities import BuildContext, Data, Environment, Model
from azure.ai.ml.entities._assets import Code

found = {}
made = [ml_client.models.create_or_update(Model(name="theirs", path="model")) for _ in range(2)]
found["models"] = [[each.version, each.path.rpartition("/paths/")[2]] for each in made]
ml_client.models.download("theirs", version="1", download_path="back")
ml_client.models.download("ours", version="1", download_path="back")
data = ml_client.data.create_or_update(Data(name="rows", path="a.csv", type="uri_file"))
found["data"] = data.path
download_artifact_from_aml_uri(uri=data.path, destination="back", datastore_operation=ml_client.datastores)
codes = [ml_client._code.create_or_update(Code(path="src")) for _ in range(2)]
found["codes"] = [each.id for each in codes]
ml_client._code.download(codes[0].name, codes[0].version, "back/code")
build = BuildContext(path="ctx")
found["build"] = ml_client.environments.create_or_update(Environment(name="built", build=build)).build.path
print(json.dumps(found))
""")
    uploaded = found["models"][0][1]
    assert found["models"] == [["1", uploaded], ["2", uploaded]]
    for back in (client.folder / "back" / "theirs" / "model", client.folder / "back" / "ours" / "ours"):
        read = {path.relative_to(back).as_posix(): path.read_bytes() for path in back.rglob("*") if path.is_file()}
        assert read == contents
    assert (client.folder / "back" / "a.csv").read_text() == "a\n1\n"
    assert found["data"].endswith("/a.csv")
    assert found["codes"][0] == found["codes"][1]
    assert (client.folder / "back" / "code" / "score.py").exists()
    assert "/LocalUpload/" in found["build"]
    shipped.ok("model", "download", "-n", "theirs", "-v", "1", "--download-path", tmp_path / "shipped")
    assert [path.read_bytes() for path in (tmp_path / "shipped").rglob("weights.bin")] == [contents["weights.bin"]]
    context = shipped.json("environment", "show", "-n", "built", "-v", "1")["build"]["path"]
    assert context.startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload/")
    uploads = shipped.place / "datastores" / "workspaceblobstore" / "LocalUpload"
    assert len([*uploads.rglob("weights.bin")]) == 2, "one of each: registering copies nothing"
