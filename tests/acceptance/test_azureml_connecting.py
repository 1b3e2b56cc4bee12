"""The official client connects: a fresh shell, one command of set-up, certificates verified."""

from __future__ import annotations

import filecmp
import os
import re
import sys
from pathlib import Path

import pytest

from azure_client import CURRENT, OLDER, AzureClient
from console_fences import CHECKOUT
from shipped import SOURCE, Shipped

FIRST_STEPS = """
from azure.ai.ml.entities import Data, Model
assert [model.name for model in ml_client.models.list()] == []
folder = Path("input files")
(folder / "ä").mkdir(parents=True)
(folder / "a+b 1.csv").write_text("x\\n1\\n")
(folder / "ä" / "empty.csv").write_text("")
data = ml_client.data.create_or_update(Data(name="input", version="1", path=str(folder), type="uri_folder"))
again = ml_client.data.create_or_update(Data(name="input", version="2", path=str(folder), type="uri_folder"))
Path("model.bin").write_bytes(b"m" * 1000)
ml_client.models.create_or_update(Model(name="churn", version="1", path="model.bin", type="custom_model"))
ml_client.models.download("churn", "1", download_path="back")
print(json.dumps([data.path, again.path, Path("back/churn/model.bin").read_bytes() == b"m" * 1000]))
"""


@pytest.mark.parametrize("version", [CURRENT, OLDER])
def test_one_command_in_a_fresh_shell_lets_the_client_connect_with_certificates_verified(
    shipped: Shipped, tmp_path: Path, version: str
) -> None:
    client = AzureClient(shipped, tmp_path / "notebook", version)
    first, second, came_back = client.json(FIRST_STEPS)

    assert came_back
    assert first == second
    path = first.partition("/paths/")[2]
    assert path.startswith("LocalUpload/")
    uploaded = shipped.home / "datastores" / "workspaceblobstore" / path
    assert (uploaded / "a+b 1.csv").read_text() == "x\n1\n"
    assert (uploaded / "ä" / "empty.csv").read_text() == ""
    assert [shown["version"] for shown in shipped.json("data", "list", "-n", "input")] == ["2", "1"]


def test_the_ways_to_connect_that_the_page_shows_do(shipped: Shipped, tmp_path: Path) -> None:
    client = AzureClient(shipped, tmp_path / "notebook")
    fences = re.findall(
        r"^```python\n(.*?)^```", (CHECKOUT / "docs" / "azureml.md").read_text(), re.DOTALL | re.MULTILINE
    )
    fences = [fence for fence in fences if "MLClient" in fence]
    assert len(fences) == 2
    # In one environment with the client, as `pip install batchpoint` leaves it; the client's own packages come first.
    beside = [str(SOURCE), *(path for path in sys.path if path.endswith("site-packages"))]
    unset = [name for name in client.variables if name != "BATCHPOINT_HOME"]
    client.variables["BATCHPOINT_HOME"] = str(shipped.home)
    own = f"sys.path += {beside}\nfor name in {unset}: os.environ.pop(name)\n"
    assert client.ok(fences[0]) == "[]\n"
    assert client.ok(own + fences[1]) == "[]\n"


LARGE = """
import time
from azure.ai.ml.entities import Model
chunk = os.urandom(1 << 20)
with Path("model.bin").open("wb") as file:
    for number in range({mebibytes}):
        file.write(number.to_bytes(8, "little") + chunk[8:])
ml_client.models.create_or_update(Model(name="large", version="1", path="model.bin", type="custom_model"))
ml_client.models.download("large", "1", download_path="back")
"""


def test_a_large_model_goes_up_in_blocks_and_comes_back_and_the_server_never_holds_it(
    shipped: Shipped, tmp_path: Path
) -> None:
    mebibytes = int(os.environ.get("LARGE_MODEL_MIB", "200"))
    client = AzureClient(shipped, tmp_path / "notebook")
    before = resident_mebibytes(shipped)
    client.ok(LARGE.replace("{mebibytes}", str(mebibytes)), timeout=600)
    assert filecmp.cmp(client.folder / "model.bin", client.folder / "back" / "large" / "model.bin", shallow=False)
    assert resident_mebibytes(shipped) - before < 150


def resident_mebibytes(shipped: Shipped) -> float:
    """The most that the server ever had in memory."""
    status = Path(f"/proc/{shipped.server()['pid']}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1024


def test_without_the_set_up_the_certificate_is_not_trusted_and_check_says_what_to_do(
    shipped: Shipped, tmp_path: Path
) -> None:
    client = AzureClient(shipped, tmp_path / "notebook")
    fresh = shipped.run("azureml-env", "--check")
    assert fresh.returncode == 1
    assert 'Run: eval "$(batchpoint azureml-env)"' in fresh.stdout

    shipped.variables = client.variables
    steps = shipped.json("azureml-env", "--check")
    assert [(step["name"], step["is_well"]) for step in steps] == [
        (name, True) for name in ("variables", "credential", "TLS", "token", "workspace", "discovery", "blobs")
    ]
    shipped.variables = {**client.variables, "IDENTITY_HEADER": "another", "AZURE_TOKEN_CREDENTIALS": "dev"}
    lines = shipped.run("azureml-env", "--check").stdout.splitlines()
    assert [line[:16].split(":")[0] for line in lines[:2]] == ["NOT  variables", "NOT  credential"]


def test_the_address_stays_the_same_when_the_server_starts_again(shipped: Shipped, tmp_path: Path) -> None:
    client = AzureClient(shipped, tmp_path / "notebook")
    shipped.ok("down")
    shipped.ok("up")
    assert client.json("print(json.dumps(ml_client.workspaces.get(ml_client.workspace_name).name))") == "default"
