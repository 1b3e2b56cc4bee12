"""The official client in two workspaces of one server, with the same names in both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from azure_client import CURRENT, OLDER, AzureClient
from shipped import Shipped

SCRIPT = """
def init():
    pass

def run(mini_batch):
    return [open(path).read().strip() + " of {name}" for path in mini_batch]
"""

BOTH = """
from azure.ai.ml.entities import BatchEndpoint, CodeConfiguration, Data, Environment, ModelBatchDeployment
from azure.ai.ml.entities import ModelBatchDeploymentSettings
from azure.core.exceptions import HttpResponseError

def within(name):
    return MLClient(DefaultAzureCredential(), ml_client.subscription_id, ml_client.resource_group_name, name)

def scored(client, name):
    client.data.create_or_update(Data(name="rows", version="1", path=f"{name}/rows.txt", type="uri_file"))
    client.batch_endpoints.begin_create_or_update(BatchEndpoint(name="hearts")).result()
    code = CodeConfiguration(code=f"{name}/code", scoring_script="score.py")
    client.batch_deployments.begin_create_or_update(ModelBatchDeployment(
        name="script", endpoint_name="hearts", compute="azureml:local", code_configuration=code,
        environment=Environment(name="plain", image="python:3.11"),
        settings=ModelBatchDeploymentSettings(mini_batch_size=10))).result()
    job = client.batch_endpoints.invoke(endpoint_name="hearts", deployment_name="script", job_name="nightly",
        input=Input(type="uri_file", path="azureml:rows:1"))
    client.jobs.stream(job.name)
    client.jobs.download(name=job.name, download_path=f"{name}/got", output_name="score")
    return next(Path(f"{name}/got").rglob("predictions.csv")).read_text().splitlines()

found = {name: scored(within(name), name) for name in ("risk", "Sales")}
found["names"] = sorted(each.name for each in ml_client.workspaces.list())
found["jobs"] = [each.name for each in within("risk").jobs.list()]
found["default"] = [each.name for each in ml_client.batch_endpoints.list()]
try:
    ml_client.data.get("rows", version="1")
except HttpResponseError as refused:
    found["refused"] = refused.status_code
print(json.dumps(found))
"""


@pytest.fixture(scope="module", params=[CURRENT, OLDER])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureClient]:
    """A version of the client, and a home for its stories."""
    folder = tmp_path_factory.mktemp("both")
    shipped = Shipped(folder / "home")
    yield AzureClient(shipped, folder / "notebook", request.param)
    shipped.stop()


def test_the_same_names_in_two_workspaces_are_two_endpoints_with_their_own_predictions(client: AzureClient) -> None:
    shipped = client.shipped
    for name in ("risk", "Sales"):
        (client.folder / name / "code").mkdir(parents=True)
        (client.folder / name / "code" / "score.py").write_text(SCRIPT.format(name=name))
        (client.folder / name / "rows.txt").write_text(f"rows {name}\n")
    found = client.json(BOTH, timeout=240)
    assert found == {
        "risk": ["rows risk of risk"],
        "Sales": ["rows Sales of Sales"],
        "names": ["Sales", "default", "risk"],
        "jobs": ["nightly"],
        "default": [],
        "refused": 404,
    }
    assert (shipped.home / "workspaces" / "sales" / "jobs" / "nightly").is_dir()
    assert (
        shipped.ok("-w", "sales", "job", "show", "-n", "nightly", "--query", "name", "-o", "tsv").strip() == "nightly"
    )
    assert shipped.ok("job", "list", "-o", "tsv").strip() == ""


LIFE = """
from azure.ai.ml.entities import BatchEndpoint, Workspace
from azure.core.exceptions import HttpResponseError, ResourceExistsError

found = {"before": sorted(each.name for each in ml_client.workspaces.list())}
made = ml_client.workspaces.begin_create(Workspace(name="planned", display_name="Planned", tags={"a": "b"})).result()
found["made"] = [made.name, made.display_name, made.tags["a"]]
made.description = "for later"
changed = ml_client.workspaces.begin_update(made).result()
found["changed"] = [changed.description, changed.display_name]
within = MLClient(DefaultAzureCredential(), ml_client.subscription_id, ml_client.resource_group_name, "planned")
within.batch_endpoints.begin_create_or_update(BatchEndpoint(name="hearts")).result()

def deleted(name, **how):
    try:
        ml_client.workspaces.begin_delete(name, delete_dependent_resources=True, **how).result()
    except (ResourceExistsError, HttpResponseError) as refused:
        return [type(refused).__name__, refused.message]
    return sorted(each.name for each in ml_client.workspaces.list())

found["holds"] = deleted("planned")
found["permanently"] = deleted("planned", permanently_delete=True)
found["default"] = deleted("default", permanently_delete=True)
print(json.dumps(found))
"""


def test_the_client_creates_changes_and_deletes_a_workspace(client: AzureClient) -> None:
    found = client.json(LIFE)
    assert found["made"] == ["planned", "Planned", "b"]
    assert found["changed"] == ["for later", "Planned"]
    assert found["holds"][0] == "ResourceExistsError"
    assert "it holds endpoints" in found["holds"][1]
    assert found["permanently"] == found["before"]
    assert "built in" in found["default"][1]
    assert not (client.shipped.home / "workspaces" / "planned").exists()
