"""The official client deploys, invokes, watches and downloads, as notebooks do."""

from __future__ import annotations

import json
import pickle
import re
from ast import literal_eval
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression

from azure_client import CURRENT, OLDER, AzureClient
from console_fences import CHECKOUT
from shipped import Shipped


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


@pytest.fixture(params=[CURRENT, OLDER])
def client(request: pytest.FixtureRequest, shipped: Shipped, tmp_path: Path) -> AzureClient:
    return AzureClient(shipped, tmp_path / "notebook", request.param)


def write_model(folder: Path) -> LinearRegression:
    """An MLflow model of scikit-learn, y = 2 a + b."""
    frame = pd.DataFrame({"a": [0.0, 1.0, 0.0, 2.0], "b": [0.0, 0.0, 1.0, 5.0]})
    model = LinearRegression().fit(frame, 2 * frame["a"] + frame["b"])
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    flavors = {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl", "predict_fn": "predict"},
        "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "code": None},
    }
    inputs = [{"name": name, "type": "double", "required": True} for name in ("a", "b")]
    (folder / "MLmodel").write_text(json.dumps({"flavors": flavors, "signature": {"inputs": json.dumps(inputs)}}))
    return model


def write_data(folder: Path, files: int = 3) -> pd.DataFrame:
    """Files of five rows each, and all their rows."""
    folder.mkdir()
    frames = []
    for number in range(files):
        frame = pd.DataFrame({"a": [number + row / 2 for row in range(5)], "b": [float(row) for row in range(5)]})
        frame.to_csv(folder / f"part-{number}.csv", index=False)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def test_an_mlflow_model_is_deployed_without_a_script_and_its_predictions_downloaded(client: AzureClient) -> None:
    model = write_model(client.folder / "model")
    rows = write_data(client.folder / "data")
    found = client.json("""
from azure.ai.ml.constants import AssetTypes, BatchDeploymentOutputAction
from azure.ai.ml.entities import BatchEndpoint, BatchRetrySettings, Data, Model, ModelBatchDeployment
from azure.ai.ml.entities import ModelBatchDeploymentSettings

model = ml_client.models.create_or_update(Model(name="sums", path="model", type=AssetTypes.MLFLOW_MODEL))
data = ml_client.data.create_or_update(Data(name="rows", version="1", path="data", type=AssetTypes.URI_FOLDER))
endpoint = BatchEndpoint(name="sums-endpoint", description="sums", tags={"a": "b"})
ml_client.batch_endpoints.begin_create_or_update(endpoint).result()
settings = ModelBatchDeploymentSettings(
    max_concurrency_per_instance=2, mini_batch_size=1, output_action=BatchDeploymentOutputAction.APPEND_ROW,
    output_file_name="sums.csv", retry_settings=BatchRetrySettings(max_retries=3, timeout=300), logging_level="info")
deployment = ModelBatchDeployment(
    name="mlflow", endpoint_name="sums-endpoint", model=model, compute="local", settings=settings)
ml_client.batch_deployments.begin_create_or_update(deployment).result()
endpoint = ml_client.batch_endpoints.get("sums-endpoint")
endpoint.defaults.deployment_name = "mlflow"
ml_client.batch_endpoints.begin_create_or_update(endpoint).result()
endpoint = ml_client.batch_endpoints.get("sums-endpoint")
deployment = ml_client.batch_deployments.get("mlflow", "sums-endpoint")

asked = Input(type=AssetTypes.URI_FOLDER, path=data.id)
job = ml_client.batch_endpoints.invoke(endpoint_name="sums-endpoint", input=asked)
ml_client.jobs.stream(job.name)
done = ml_client.jobs.get(job.name)
(child,) = ml_client.jobs.list(parent_job_name=job.name)
ml_client.jobs.download(name=job.name, download_path="named", output_name="score")
ml_client.jobs.download(name=child.name, download_path="logs")
last = child.creation_context.last_modified_at - child.creation_context.created_at
print(json.dumps({
    "endpoint": [endpoint.defaults.deployment_name, endpoint.auth_mode, endpoint.tags, endpoint.provisioning_state],
    "deployment": [deployment.output_file_name, deployment.mini_batch_size, deployment.retry_settings.timeout,
        deployment.logging_level, deployment.instance_count, deployment.properties],
    "job": [done.status, done.experiment_name, done.display_name == job.name],
    "child": [child.name == job.name + "-score", child.display_name, child.properties["azureml.moduleName"],
        ml_client.jobs.get(child.name).status],
    "lasted": last.total_seconds(),
    "listed": [[each.name == job.name for each in listed] for listed in (
        ml_client.batch_endpoints.list_jobs("sums-endpoint"),
        ml_client.batch_deployments.list_jobs(endpoint_name="sums-endpoint", name="mlflow"),
        ml_client.jobs.list())],
}))
""")
    assert found["endpoint"] == ["mlflow", "aad_token", {"a": "b"}, "Succeeded"]
    assert found["deployment"][5].pop("AzureAsyncOperationUri").endswith("/operations/done")
    assert found["deployment"] == ["sums.csv", 1, 300, "info", 1, {"batchpoint.output_format": "azureml"}]
    assert found["job"] == ["Completed", "sums-endpoint", True]
    assert found["child"] == [True, "batchscoring", "batchscoring", "Completed"]
    assert found["lasted"] > 0
    assert found["listed"] == [[True], [True], [True]]
    (predictions,) = (client.folder / "named").rglob("sums.csv")
    read = [literal_eval(line) for line in predictions.read_text().splitlines()]  # as readers of Azure's files do
    assert [file for file, _ in read] == [f"part-{number}.csv" for number in range(3) for _ in range(5)]
    assert [round(float(value), 6) for _, value in read] == model.predict(rows).round(6).tolist()
    assert (predictions.parent / "receipt.json").exists()
    assert "completed" in (client.folder / "logs" / "artifacts" / "logs" / "user" / "job_result.txt").read_text()


def test_the_page_leads_from_a_model_to_predictions_with_their_rows(client: AzureClient) -> None:
    page = (CHECKOUT / "docs" / "azureml.md").read_text()
    (fence,) = re.findall(r"^```python\n((?:(?!^```).)*batch_endpoints\.invoke.*?)^```", page, re.DOTALL | re.MULTILINE)
    model, rows = write_model(client.folder / "model"), write_data(client.folder / "data")
    client.ok(fence)
    scored = pd.read_csv(client.folder / "scored" / "predictions.csv")
    assert list(scored.columns)[:2] == ["file", "row"]
    assert scored["file"].tolist() == [f"part-{number}.csv" for number in range(3) for _ in range(5)]
    assert scored["row"].tolist() == [row for _ in range(3) for row in range(5)]
    assert scored.iloc[:, 2].round(6).tolist() == model.predict(rows).round(6).tolist()


SCRIPT = """
import os
import time
from pathlib import Path

def init():
    print("model:", os.environ["AZUREML_MODEL_DIR"], os.environ["COLOUR"])

def run(mini_batch):
    if Path(mini_batch[0]).name.startswith("table"):
        import pandas as pd
        return pd.DataFrame({"file": [Path(path).name for path in mini_batch], "score": 0.5, "risk": ["high", None]})
    found = []
    for path in mini_batch:
        if Path(path).name.startswith("bad"):
            while not Path(os.environ["WATCHED"]).exists():
                time.sleep(0.05)
            raise ValueError("no such heart")
        if Path(path).name.startswith("slow"):
            time.sleep(60)
        found.append(f"{Path(path).name}: {len(mini_batch)}")
    return found
"""

DEPLOYED = """
from azure.ai.ml.constants import AssetTypes
from azure.ai.ml.entities import BatchEndpoint, CodeConfiguration, Environment, Model, ModelBatchDeployment
from azure.ai.ml.entities import ModelBatchDeploymentSettings

model = Model(name="heart", path="model.pkl", type=AssetTypes.CUSTOM_MODEL)
ml_client.batch_endpoints.begin_create_or_update(BatchEndpoint(name="hearts")).result()
variables = {"COLOUR": "red", "WATCHED": str(Path("watched").absolute())}
settings = ModelBatchDeploymentSettings(mini_batch_size=2, error_threshold=0, environment_variables=variables)
ml_client.batch_deployments.begin_create_or_update(ModelBatchDeployment(
    name="script", endpoint_name="hearts", model=ml_client.models.create_or_update(model), compute="azureml:local",
    code_configuration=CodeConfiguration(code="code", scoring_script="score.py"), settings=settings,
    environment=Environment(name="plain", image="python:3.11"))).result()
endpoint = ml_client.batch_endpoints.get("hearts")
endpoint.defaults.deployment_name = "script"
ml_client.batch_endpoints.begin_create_or_update(endpoint).result()

def scored(name="predictions.csv", **asked):
    job = ml_client.batch_endpoints.invoke(endpoint_name="hearts", **asked)
    ml_client.jobs.stream(job.name)
    folder = Path("got") / job.name
    ml_client.jobs.download(name=job.name, download_path=folder, output_name="score")
    return next(folder.rglob(name)).read_text().splitlines()
"""
"""A scoring script behind the endpoint ``hearts``, and ``scored``, which invokes it and reads what it wrote."""


@pytest.fixture
def notebook(client: AzureClient) -> AzureClient:
    """The client in a folder with a model, a script and data."""
    for name, text in {
        "model.pkl": "a heart",
        "code/score.py": SCRIPT,
        "data/a.csv": "1\n",
        "data/b.csv": "2\n",
        "data/c.csv": "3\n",
        "tables/table 1.csv": "6\n",
        "tables/table 2.csv": "7\n",
        "bad/bad.csv": "4\n",
        "slow/slow.csv": "5\n",
    }.items():
        (client.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (client.folder / name).write_text(text)
    return client


def test_a_script_scores_inputs_of_each_kind_and_takes_what_an_invoke_changes(notebook: AzureClient) -> None:
    found = notebook.json(
        DEPLOYED
        + """
from azure.ai.ml.entities import Data
STORE = "azureml://datastores/workspaceblobstore/paths"
data = ml_client.data.create_or_update(Data(name="hearts", version="1", path="data", type=AssetTypes.URI_FOLDER))
folder = scored(input=Input(type="uri_folder", path="data"))
print(json.dumps({
    "folder": folder,
    "tables": scored(input=Input(type="uri_folder", path="tables")),
    "file": scored(input=Input(type="uri_file", path="data/b.csv")),
    "asset": scored(input=Input(type="uri_folder", path="azureml:hearts:1")) == folder,
    "latest": scored(input=Input(type="uri_folder", path="azureml:hearts@latest")) == folder,
    "named": scored(inputs={"hearts": Input(type="uri_folder", path=data.path)}) == folder,
    "changed": scored("x.csv", input=Input(type="uri_folder", path="data"), params_override=[
        {"mini_batch_size": "3"}, {"compute.instance_count": "1"}, {"error_threshold": 5},
        {"retry_settings.max_retries": 2}, {"retry_settings.timeout": 30}, {"output_file_name": "x.csv"}]),
    "place": scored("mine.csv", inputs={"hearts": Input(type="uri_folder", path="data")},
        outputs={"score": Output(type="uri_file", path=f"{STORE}/out/mine.csv")}),
    "first": ml_client.batch_endpoints.invoke(endpoint_name="hearts", job_name="chosen", experiment_name="nightly",
        input=Input(type="uri_folder", path="data")).name,
    "experiment": ml_client.jobs.get("chosen").experiment_name,
}))
""",
        timeout=240,
    )
    assert found["folder"] == ["a.csv: 2", "b.csv: 2", "c.csv: 1"]
    assert found["file"] == ["b.csv: 1"]
    table = pd.read_csv(StringIO("\n".join(found["tables"])), sep=" ", header=None)
    assert table.fillna("").to_numpy().tolist() == [["table 1.csv", 0.5, "high"], ["table 2.csv", 0.5, ""]]
    assert (found["asset"], found["latest"], found["named"]) == (True, True, True)
    assert found["changed"] == ["a.csv: 3", "b.csv: 3", "c.csv: 3"]
    assert found["place"] == found["folder"]
    assert (found["first"], found["experiment"]) == ("chosen", "nightly")


def test_failures_cancellation_and_wrong_requests_raise_the_clients_own_exceptions(notebook: AzureClient) -> None:
    done = notebook.ok(
        DEPLOYED
        + """
import threading
from azure.ai.ml.exceptions import JobException, MlException, ValidationException
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

found = {}
def told(name, kind, function, *arguments, **named):
    try:
        function(*arguments, **named)
    except kind as error:
        found[name] = str(error)

class Watched:
    # Lets the script fail once its job is watched: of a job that has ended the client prints no log.
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        if text.startswith("RunId"):
            threading.Timer(2, Path("watched").touch).start()
        return self.stream.write(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)

failing = ml_client.batch_endpoints.invoke(endpoint_name="hearts", input=Input(type="uri_folder", path="bad"))
sys.stdout = Watched(sys.stdout)
told("failed", JobException, ml_client.jobs.stream, failing.name)
sys.stdout = sys.stdout.stream
found["status"] = ml_client.jobs.get(failing.name).status
ml_client.jobs.download(failing.name, download_path="why")
found["why"] = (Path("why") / "logs" / "user" / "job_error.txt").read_text()

slow = ml_client.batch_endpoints.invoke(endpoint_name="hearts", input=Input(type="uri_folder", path="slow"))
told("running", JobException, ml_client.jobs.download, slow.name)
ml_client.jobs.begin_cancel(slow.name).result()
found["canceled"] = ml_client.jobs.get(slow.name).status

data = Input(type="uri_folder", path="azureml://datastores/workspaceblobstore/paths/nowhere/")
invoke = ml_client.batch_endpoints.invoke
told("endpoint", ResourceNotFoundError, invoke, endpoint_name="nobody", input=data)
told("deployment", (ValidationException, MlException), invoke, endpoint_name="hearts", deployment_name="no", input=data)
told("input", HttpResponseError, invoke, endpoint_name="hearts", input=data)
told("second", HttpResponseError, invoke, endpoint_name="hearts", inputs={"a": data, "b": data})
told("job", ResourceNotFoundError, ml_client.jobs.get, "nobody")

class Stranger:
    def get_token(self, *scopes, **named):
        return AccessToken("nonsense", 9999999999)
other = MLClient.from_config(Stranger(), path="config.json")
told("stranger", ClientAuthenticationError, other.batch_endpoints.get, "hearts")

ml_client.jobs.archive(failing.name)
found["archived"] = [failing.name in {job.name for job in ml_client.jobs.list()}]
ml_client.jobs.restore(failing.name)
found["archived"].append(failing.name in {job.name for job in ml_client.jobs.list()})
ml_client.batch_endpoints.begin_delete("hearts").result()
told("deleted", ResourceNotFoundError, ml_client.batch_endpoints.get, "hearts")
ml_client.batch_endpoints.begin_delete("hearts").result()
print(json.dumps(found))
""",
        timeout=240,
    )
    *printed, last = done.strip().splitlines()
    found = json.loads(last)
    assert found["status"] == "Failed"
    assert "no such heart" in found["failed"]
    assert "ErrorThresholdExceeded" in found["failed"]
    assert "no such heart" in found["why"]
    assert any("bad.csv" in line and "no such heart" in line for line in printed)
    assert "Download is allowed only in states" in found["running"]
    assert found["canceled"] == "Canceled"
    assert "There is no batch endpoint named nobody" in found["endpoint"]
    assert "no not found for this endpoint" in found["deployment"]
    assert "nowhere" in found["input"]
    assert "exactly one input, and 2 were given" in found["second"]
    assert "nobody" in found["job"]
    assert "token" in found["stranger"]
    assert found["archived"] == [False, True]
    assert "hearts" in found["deleted"]


CENTRES = """
import numpy as np

class NearestCentre:
    def __init__(self, centres):
        self.centres = centres

    def __call__(self, pixels):
        near = -((self.centres - pixels.ravel()) ** 2).sum(axis=1) / 1000
        weights = np.exp(near - near.max())
        return weights / weights.sum()
"""
READ_DIGITS = """
import glob
import os
from os.path import basename

import numpy as np
import pandas as pd
from PIL import Image

from centres import NearestCentre

def init():
    global model
    model_path = os.environ["AZUREML_MODEL_DIR"]
    model = NearestCentre(np.load(glob.glob(f"{model_path}/*/*.npy")[-1]))

def run(mini_batch):
    print(f"Executing run method over batch of {len(mini_batch)} files.")
    results = []
    for image_path in mini_batch:
        probabilities = model(np.asarray(Image.open(image_path), dtype=np.float32))
        results.append({
            "file": basename(image_path), "class": probabilities.argmax(), "probability": probabilities.max(),
            "of": len(mini_batch),
        })
    return pd.DataFrame(results)
"""
DIGITS = """
from azure.ai.ml.constants import AssetTypes, BatchDeploymentOutputAction
from azure.ai.ml.entities import AmlCompute, BatchEndpoint, BatchRetrySettings, CodeConfiguration, Environment, Model
from azure.ai.ml.entities import ModelBatchDeployment, ModelBatchDeploymentSettings

if not any(found.name == "batch-cluster" for found in ml_client.compute.list()):
    cluster = AmlCompute(name="batch-cluster", min_instances=0, max_instances=2)
    ml_client.compute.begin_create_or_update(cluster).result()
ml_client.begin_create_or_update(BatchEndpoint(name="digits", tags={"type": "deep-learning"})).result()
env = Environment(name="digits", conda_file="environment/conda.yaml", image="mcr.microsoft.com/azureml/openmpi4.1.0")

def deployed(name):
    ml_client.models.create_or_update(Model(name=name, path=f"{name}/model/", type=AssetTypes.CUSTOM_MODEL))
    made = ml_client.begin_create_or_update(ModelBatchDeployment(
        name=name, endpoint_name="digits", model=ml_client.models.get(name=name, label="latest"), environment=env,
        code_configuration=CodeConfiguration(code="code/", scoring_script="batch_driver.py"), compute="batch-cluster",
        settings=ModelBatchDeploymentSettings(max_concurrency_per_instance=2, mini_batch_size=10, instance_count=2,
            output_action=BatchDeploymentOutputAction.APPEND_ROW, output_file_name="predictions.csv",
            retry_settings=BatchRetrySettings(max_retries=3, timeout=30), logging_level="info"))).result()
    return made

def default_is(name):
    endpoint = ml_client.batch_endpoints.get("digits")
    endpoint.defaults.deployment_name = name
    ml_client.batch_endpoints.begin_create_or_update(endpoint).result()

def scored(folder, **asked):
    job = ml_client.batch_endpoints.invoke(
        endpoint_name="digits", input=Input(path=Path("data"), type=AssetTypes.URI_FOLDER), **asked)
    ml_client.jobs.stream(job.name)
    child = list(ml_client.jobs.list(parent_job_name=job.name))[0]
    ml_client.jobs.download(name=child.name, download_path=folder, output_name="score")
    return child.status

first = deployed("even")
default_is(first.name)
found = [scored("first", deployment_name=first.name)]
store = ml_client.datastores.get_default()
found.append(scored("placed", params_override=[
    {"output_dataset.datastore_id": f"azureml:{store.id}"}, {"output_dataset.path": "/digits/"},
    {"output_file_name": "mine.csv"}, {"mini_batch_size": "25"}, {"compute.instance_count": "1"}]))
second = deployed("odd")
found.append(scored("second", deployment_name="odd"))
default_is(second.name)
found.append(scored("default"))
ml_client.batch_deployments.begin_delete(endpoint_name="digits", name=first.name).result()
left = [each.name for each in ml_client.batch_deployments.list("digits")]
ml_client.batch_endpoints.begin_delete(name="digits").result()
print("\\n" + json.dumps([found, left, [each.name for each in ml_client.batch_endpoints.list()]]))
"""


def test_images_are_read_by_two_models_of_one_endpoint_with_a_module_beside_the_script(client: AzureClient) -> None:
    pixels, digits = load_digits(return_X_y=True)
    grey = (pixels * 15).astype("uint8")
    for name, rows in (("even", slice(0, None, 2)), ("odd", slice(1, None, 2))):
        (client.folder / name / "model").mkdir(parents=True)
        centres = [grey[rows][digits[rows] == digit].mean(axis=0) for digit in range(10)]
        np.save(client.folder / name / "model" / "centres.npy", np.stack(centres))
    conda = {"channels": ["conda-forge"], "dependencies": ["python>=3.11", "pip", {"pip": ["pandas", "pillow"]}]}
    for file, text in {
        "code/batch_driver.py": READ_DIGITS, "code/centres.py": CENTRES, "environment/conda.yaml": json.dumps(conda)
    }.items():  # fmt: skip
        (client.folder / file).parent.mkdir(exist_ok=True)
        (client.folder / file).write_text(text)
    (client.folder / "data").mkdir()
    for number, image in enumerate(grey[:60]):
        Image.fromarray(image.reshape(8, 8)).save(client.folder / "data" / f"{number:02}.png")

    found = client.json(DIGITS, timeout=240)

    assert found == [["Completed"] * 4, ["odd"], []]
    truth: list[int] = digits[:60].tolist()
    for folder, model, file, sizes in (
        ("first", "even", "predictions.csv", {10}), ("placed", "even", "mine.csv", {25, 10}),
        ("second", "odd", "predictions.csv", {10}), ("default", "odd", "predictions.csv", {10}),
    ):  # fmt: skip
        (written,) = (client.folder / folder).rglob(file)
        scores = pd.read_csv(written, header=None, names=["file", "class", "probability", "of"], sep=" ")
        assert scores["file"].tolist() == [f"{number:02}.png" for number in range(60)]
        assert set(scores["of"]) == sizes
        centres = np.load(client.folder / model / "model" / "centres.npy")
        distances = ((grey[:60, None, :].astype("float32") - centres) ** 2).sum(axis=2)
        assert scores["class"].tolist() == distances.argmin(axis=1).tolist()
        assert sum(scores["class"] == truth) > 50
        assert scores["probability"].between(0.1, 1).all()
