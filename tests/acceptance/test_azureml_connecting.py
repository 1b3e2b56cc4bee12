"""The official client connects: a fresh shell, one command of set-up, certificates verified."""

from __future__ import annotations

import filecmp
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import certifi
import pytest

from azure_client import CURRENT, OLDER, PREAMBLE, AzureClient
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
    done = subprocess.run(  # a Python of its own, as in a fresh shell
        [client.python, "-c", PREAMBLE + FIRST_STEPS], cwd=client.folder, env=client.environment(),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, came_back = json.loads(done.stdout)

    assert came_back
    assert first == second
    path = first.partition("/paths/")[2]
    assert path.startswith("LocalUpload/")
    uploaded = shipped.home / "datastores" / "workspaceblobstore" / path
    assert (uploaded / "a+b 1.csv").read_text() == "x\n1\n"
    assert (uploaded / "ä" / "empty.csv").read_text() == ""
    assert [shown["version"] for shown in shipped.json("data", "list", "-n", "input")] == ["2", "1"]


def test_the_config_of_a_workspace_elsewhere_is_never_overwritten(shared: Shipped, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    shared.ok("azureml-env", "--config", config)
    shared.ok("azureml-env", "--config", config)  # its own
    of_azure = '{"subscription_id": "1234", "resource_group": "prod", "workspace_name": "prod"}'
    config.write_text(of_azure)
    refused = shared.run("azureml-env", "--config", config)
    assert refused.returncode != 0
    assert f"{config} names a workspace that is not of this server" in refused.stderr
    assert config.read_text() == of_azure


def test_the_ways_to_connect_that_the_page_shows_do(shared: Shipped, tmp_path: Path) -> None:
    client = AzureClient(shared, tmp_path / "notebook")
    fences = re.findall(
        r"^```python\n(.*?)^```", (CHECKOUT / "docs" / "azureml.md").read_text(), re.DOTALL | re.MULTILINE
    )
    fences = [fence for fence in fences if "MLClient" in fence]
    assert len(fences) == 2
    # In one environment with the client, as `pip install batchpoint` leaves it; the client's own packages come first.
    beside = [str(SOURCE), *(path for path in sys.path if path.endswith("site-packages"))]
    unset = [name for name in client.variables if name != "BATCHPOINT_HOME"]
    client.variables["BATCHPOINT_HOME"] = str(shared.home)
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
    client = AzureClient(shipped, tmp_path / "notebook", os.environ.get("LARGE_MODEL_CLIENT", CURRENT))
    before = resident_mebibytes(shipped)
    client.ok(LARGE.replace("{mebibytes}", str(mebibytes)), timeout=600)
    assert filecmp.cmp(client.folder / "model.bin", client.folder / "back" / "large" / "model.bin", shallow=False)
    assert resident_mebibytes(shipped) - before < 150


def resident_mebibytes(shipped: Shipped) -> float:
    """The most that the server ever had in memory."""
    status = Path(f"/proc/{shipped.server()['pid']}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1024


STEPS = [
    "variables", "credential", "home", "server", "address", "certificates", "TLS", "token", "workspace", "discovery",
    "blobs",
]  # fmt: skip


def check(shipped: Shipped, **variables: str | None) -> tuple[int, list[str], dict[str, str], str]:
    """``azureml-env --check`` with other variables (None unsets one): exit code, the steps that are well, what is told
    of the others, and the last line."""
    before = shipped.variables
    shipped.variables = {name: text for name, text in {**before, **variables}.items() if text is not None}
    done = shipped.run("azureml-env", "--check")
    shipped.variables = before
    *lines, last = done.stdout.splitlines()
    told = [line[5:].split(": ", 1) for line in lines if line.startswith("NOT  ")]
    well = [line[5:].split(": ", 1)[0] for line in lines if line.startswith("ok   ")]
    return done.returncode, well, dict(told), last


def test_check_tells_what_is_wrong_with_the_shell_and_what_to_do(shipped: Shipped, tmp_path: Path) -> None:
    set_up = 'eval "$(batchpoint azureml-env)"'
    code, _, told, last = check(shipped)
    assert (code, last) == (1, "2 things are wrong.")
    assert told["variables"].startswith("AZUREML_DEV_URL_MFE, IDENTITY_ENDPOINT, IDENTITY_HEADER")
    assert set_up in told["variables"]
    assert told["server"].startswith(f"no server of {shipped.home} runs")
    assert shipped.processes("batchpoint.server") == []  # it starts none

    shipped.variables = AzureClient(shipped, tmp_path / "notebook").variables
    code, well, told, last = check(shipped)
    assert (code, well, told) == (0, STEPS, {})
    assert last.startswith("Everything is in order")
    steps = shipped.json("azureml-env", "--check")
    assert [(step["name"], step["is_well"]) for step in steps] == [(name, True) for name in STEPS]

    _, _, told, last = check(shipped, BATCHPOINT_WORKSPACE="risk")
    assert (set(told), last) == ({"workspace"}, "1 thing is wrong.")
    assert "no workspace named risk" in told["workspace"]
    assert [each["name"] for each in shipped.json("workspace", "list")] == ["default"]  # it makes none
    shipped.ok("workspace", "create", "-n", "risk")
    steps = shipped.json("azureml-env", "--check", "--workspace-name", "risk")
    assert [step["told"] for step in steps if step["name"] == "workspace"] == ["risk"]
    assert "risk.blob.core.windows.net" in steps[-1]["told"]

    code, _, told, last = check(shipped, IDENTITY_HEADER="another", AZURE_TOKEN_CREDENTIALS="dev")
    assert (code, set(told), last) == (1, {"credential", "token"}, "2 things are wrong.")
    assert "none of this server's" in told["token"]
    assert set_up in told["token"]
    url = "https://localhost:1"
    _, _, told, last = check(shipped, AZUREML_DEV_URL_MFE=url, IDENTITY_ENDPOINT=f"{url}/azureml/msi/token")
    assert (set(told), last) == ({"address"}, "1 thing is wrong.")
    assert f"names {url}, and the server speaks TLS at port " in told["address"]
    assert set(check(shipped, AZUREML_DEV_URL_MFE=url)[2]) == {"variables"}
    for bundle, why in ((certifi.where(), "does not hold the authority"), (str(tmp_path / "none.pem"), "is not there")):
        _, _, told, _ = check(shipped, REQUESTS_CA_BUNDLE=bundle)
        assert set(told) == {"certificates"}
        assert why in told["certificates"]
    _, _, told, _ = check(shipped, HTTPS_PROXY="http://proxy.example:3128", NO_PROXY="a.example", no_proxy=None)
    assert set(told) == {"variables"}
    assert "NO_PROXY" in told["variables"]

    secret = shipped.json("token", "create", "-n", "mine", "--role", "operator")["secret"]
    assert check(shipped, IDENTITY_HEADER=secret)[0] == 0
    shipped.ok("token", "revoke", "-n", "mine", "--yes")
    assert "mine was revoked" in check(shipped, IDENTITY_HEADER=secret)[2]["token"]

    _, _, told, last = check(shipped, BATCHPOINT_HOME=str(tmp_path / "other"))
    assert (set(told), last) == ({"home"}, "1 thing is wrong.")
    assert f"was set up for {shipped.home}, and here the home folder is {tmp_path / 'other'}" in told["home"]
    assert not (tmp_path / "other").exists()

    shipped.ok("down")
    _, _, told, last = check(shipped)
    assert (set(told), last) == ({"server"}, "1 thing is wrong.")
    assert set_up in told["server"]
    assert shipped.processes("batchpoint.server") == []


@pytest.mark.parametrize("version", [CURRENT, OLDER])
def test_the_client_itself_prints_why_its_token_is_refused_and_what_to_do(
    shared: Shipped, tmp_path: Path, version: str
) -> None:
    client = AzureClient(shared, tmp_path / "notebook", version)
    name = f"mine-{version.replace('.', '-')}"  # tokens are the server's
    secret = shared.json("token", "create", "-n", name, "--role", "operator")["secret"]
    shared.ok("token", "revoke", "-n", name, "--yes")
    for header, why in (("bp_unknown", "none of this server's"), (secret, f"Token {name} was revoked.")):
        client.variables["IDENTITY_HEADER"] = header
        done = client.run("print([model.name for model in ml_client.models.list()])")
        assert done.returncode != 0
        lines = [line for line in done.stderr.splitlines() if "ManagedIdentityCredential:" in line]
        assert lines
        for line in lines:
            assert why in line
            assert 'Set this shell up again: eval "$(batchpoint azureml-env)"' in line


def in_bash(shipped: Shipped, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script that ends at the first command that fails, with ``batchpoint`` at hand."""
    command = f'batchpoint() {{ "{sys.executable}" -m batchpoint "$@"; }}\n{script}'
    return subprocess.run(
        ["bash", "-euc", command], env={**shipped.environment(), **variables}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "variables", "why"),
    [
        ("", {"BATCHPOINT_HOME": "/dev/null/home"}, "cannot be used as the home folder"),
        ("", {"BATCHPOINT_URL": "http://127.0.0.1:1", "BATCHPOINT_TOKEN": "t"}, "No server answers"),
        (" --prot 8443", {}, "No such option"),
    ],
)
def test_a_script_does_not_go_on_when_its_shell_could_not_be_set_up(
    shipped: Shipped, options: str, variables: dict[str, str], why: str
) -> None:
    done = in_bash(shipped, f'eval "$(batchpoint azureml-env{options})"\necho went on', **variables)
    assert done.returncode != 0
    assert done.stdout == ""
    assert why in done.stderr


def test_a_script_goes_on_when_its_shell_is_set_up(shared: Shipped) -> None:
    used = "batchpoint model list >/dev/null"  # by which its workspace begins to exist
    done = in_bash(shared, f'eval "$(batchpoint azureml-env)"\n{used}\nbatchpoint azureml-env --check')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything is in order" in done.stdout


@contextmanager
def started(shipped: Shipped, command: str) -> Iterator[None]:
    """The server, started by ``up``, or in the foreground by ``server``."""
    if command == "up":
        shipped.ok("up")
        yield
        return
    with subprocess.Popen(
        [sys.executable, "-m", "batchpoint", command], env=shipped.environment(), stderr=subprocess.DEVNULL
    ) as process:
        try:
            while process.poll() is None and shipped.run("status").returncode != 0:
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


ENVIRONMENT_OF_A_STEP = "type: command\ncommand: env\n"


@pytest.mark.parametrize("start", ["up", "server"])
def test_a_server_and_its_jobs_know_nothing_of_the_shell_that_it_was_started_from(
    shipped: Shipped, tmp_path: Path, start: str
) -> None:
    own = tmp_path / "own.pem"
    own.write_text(Path(certifi.where()).read_text())
    shipped.variables = {"REQUESTS_CA_BUNDLE": str(own)}
    client = AzureClient(shipped, tmp_path / "notebook")
    assert client.variables["REQUESTS_CA_BUNDLE"] != str(own)
    shipped.ok("down")
    shipped.variables = {**client.variables, "https_proxy": "http://proxy.example:3128", "OWN_IDENTITY": "kept"}
    (tmp_path / "job.yml").write_text(ENVIRONMENT_OF_A_STEP)
    with started(shipped, start):
        shipped.ok("job", "create", "-f", tmp_path / "job.yml", "-n", "shows", "--stream")
    printed = (shipped.home / "jobs" / "shows-command" / "logs" / "user" / "std_log.txt").read_text()
    found = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    assert {"AZUREML_DEV_URL_MFE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"}.isdisjoint(found)
    assert client.variables["IDENTITY_HEADER"] not in printed
    assert found["REQUESTS_CA_BUNDLE"] == str(own)
    assert (found["https_proxy"], found["OWN_IDENTITY"]) == ("http://proxy.example:3128", "kept")


def test_the_address_stays_the_same_when_the_server_starts_again(shipped: Shipped, tmp_path: Path) -> None:
    client = AzureClient(shipped, tmp_path / "notebook")
    shipped.ok("down")
    shipped.ok("up")
    assert client.json("print(json.dumps(ml_client.workspaces.get(ml_client.workspace_name).name))") == "default"
