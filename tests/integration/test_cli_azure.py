"""Lines of scripts for Azure's command line, as ``az() { shift; batchpoint "$@"; }`` hands them over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_server import FakeServer
from integration.conftest import CommandLine

JOB = {"name": "one", "status": "completed", "endpoint_name": "churn", "outputs": {"score": {"type": "uri_file"}}}
WORKSPACE = "-g group -w workspace --subscription 1"


@pytest.fixture
def az(batchpoint: CommandLine) -> CommandLine:
    """The function: it takes the first word away."""
    return lambda line, *more: batchpoint(line.partition(" ")[2], *more)


def asked(fake: FakeServer, route: str) -> Any:
    return fake.asked(route)[-1].body


@pytest.mark.parametrize(
    "line",
    [
        "login",
        "login --identity",
        "login --service-principal --username u --password p --tenant t",
        "account set --subscription 1",
        "account set -s 1",
        "extension add -n ml -y",
        "extension add --name ml --upgrade",
        "extension remove -n azure-cli-ml",
        "group create --name g --location l",
    ],
)
def test_what_a_script_prepares_is_taken_and_means_nothing(az: CommandLine, fake: FakeServer, line: str) -> None:
    said = az(line)

    assert said.code == 0, said.err
    assert fake.requests == []


def test_other_extensions_are_refused(az: CommandLine) -> None:
    assert az("extension add -n aks-preview").code == 2


def test_defaults_are_kept_in_the_home_and_are_the_last_to_say_which_workspace_is_meant(
    az: CommandLine, batchpoint: CommandLine, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.routes["GET /workspaces/risk"] = {"name": "risk"}
    fake.routes["GET /models/m"] = {"name": "m", "version": "1", "path": "azureml://datastores/d/paths/p"}

    def asked_within(line: str) -> str | None:
        assert az(line).code == 0
        return fake.asked("GET /models/m")[-1].headers.get("x-batchpoint-workspace")

    assert asked_within("ml model show -n m") is None
    said = az("configure --defaults group=team workspace=risk location=west")
    assert (said.code, said.out) == (0, "")
    assert "within this workspace from now on: risk" in said.err
    assert asked_within("ml model show -n m") == "risk"
    assert asked_within("ml model show -n m -w sales") == "sales"
    monkeypatch.setenv("BATCHPOINT_WORKSPACE", "planned")
    assert asked_within("ml model show -n m") == "planned"
    monkeypatch.delenv("BATCHPOINT_WORKSPACE")
    assert az("ml workspace show --query [name,resource_group] -o tsv").out == "risk\nteam\n"
    assert az("configure -l --query", "[?name=='workspace'].value", "-o", "tsv").out == "risk\n"
    assert az("configure --defaults workspace= --only-show-errors").err == ""
    assert asked_within("ml model show -n m") is None
    listed = json.loads(batchpoint("configure --list-defaults").out)
    assert {each["name"]: each["value"] for each in listed} == {"group": "team", "location": "west"}
    assert batchpoint("configure").out == batchpoint("configure --list-defaults").out
    for wrong in ("workspace", "workspace=a/b"):
        assert batchpoint(f"configure --defaults {wrong}").code == 2
    Path(listed[0]["source"]).write_text("[]")
    refused = az("ml model show -n m")
    assert (refused.code, "Delete it" in refused.err) == (2, True)


def test_an_account_and_a_token_are_there_for_requests(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["GET /azureml/msi/token"] = {"access_token": "signed", "expires_on": "1800000000"}
    assert az("account list --query [?isDefault].state -o tsv").out == "Enabled\n"
    assert az("account show --query id -o tsv").out.count("-") == 4
    line = "account get-access-token --resource https://ml.azure.com --query accessToken -o tsv"
    assert az(line).out == "signed\n"


def test_workspaces_are_created_shown_and_listed(az: CommandLine, fake: FakeServer, tmp_path: Path) -> None:
    fake.routes["GET /workspaces/risk"] = {"name": "risk"}
    fake.routes["GET /workspaces"] = {"value": [{"name": "default"}, {"name": "risk"}], "next": None}
    fake.routes["PUT /workspaces/risk"] = lambda request: request.body
    assert az("ml workspace show -n risk -g g --query [name,resource_group] -o tsv").out == "risk\ng\n"
    assert az("ml workspace show -w risk --query name -o tsv").out == "risk\n"
    assert az("ml workspace list --query [].name -o tsv").out == "default\nrisk\n"
    (tmp_path / "ws.yml").write_text("name: risk\ndescription: of a file\nhbi_workspace: false\n")
    said = az(f"ml workspace create -f {tmp_path}/ws.yml --tags a=b -g g --query description -o tsv")
    assert said.out == "of a file\n"
    assert "does not count here (hbi_workspace)" in said.err
    assert asked(fake, "PUT /workspaces/risk") == {"name": "risk", "description": "of a file", "tags": {"a": "b"}}
    assert az("ml workspace create -n no -g g").code == 2


def test_a_workspace_is_deleted_once_it_is_confirmed(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["DELETE /workspaces/risk"] = {}
    assert az("ml workspace delete -n risk -g g").code == 2
    assert az("ml workspace delete -n risk -g g --yes").code == 0
    assert az("ml workspace delete -w risk --permanently-delete --all-resources --no-wait -y").code == 0
    queries = [request.query for request in fake.asked("DELETE /workspaces/risk")]
    assert [query.get("permanently") for query in queries] == [None, "true"]


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("--set tags.a=1 tags.b=2", {"tags": {"a": 1, "b": 2}}),
        ("--tags a=1 b=2", {"tags": {"a": "1", "b": "2"}}),
        ("--add tags a=1 b=2", {"tags": {"a": 1, "b": 2}}),
        ("--remove tags.a description", {"tags": {"a": None}, "description": None}),
        ("--desc x", {"description": "x"}),
    ],
)
def test_an_option_takes_several_values_and_may_be_cut_short(
    az: CommandLine, fake: FakeServer, line: str, given: Any
) -> None:
    fake.routes["PATCH /endpoints/churn"] = {"name": "churn"}

    assert az(f"ml batch-endpoint update --name churn {line} {WORKSPACE} --no-wait").code == 0
    assert asked(fake, "PATCH /endpoints/churn") == given


def test_an_option_that_may_be_two_has_to_be_written_out(az: CommandLine) -> None:
    said = az("ml batch-endpoint invoke -n churn --out tsv")
    assert said.code == 2
    assert "'--out' may be" in said.err
    assert "--output-path" in said.err


def test_a_job_is_told_in_azures_words(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["GET /jobs/one"] = JOB
    fake.routes["GET /jobs"] = {"value": [JOB, {"name": "two", "status": "failed"}], "next": None}

    assert az("ml job show -n one --query status -o tsv").out == "Completed\n"
    assert az("ml job show -n one --query id -o tsv").out == "azureml:one\n"
    address = f"{fake.url}/studio/jobs/one\n"
    assert az("ml job show -n one --query services.Studio.endpoint -o tsv").out == address
    assert az("ml job show -n one --query interaction_endpoints.studio -o tsv").out == address
    assert az("ml job show-services -n one --query Studio.endpoint -o tsv").out == address
    assert address.strip() in az("ml job show -n one --web").err
    assert az("ml job list -r 5 --query", "[?contains(display_name, 'tw')].status", "-o", "tsv").out == "Failed\n"
    assert az("ml job list --status Completed").code == 0
    assert fake.requests[-1].query["status"] == "completed"


def test_records_answer_queries_in_the_words_that_az_prints(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["GET /endpoints/churn"] = {
        "name": "churn", "defaults": {"deployment_name": "blue"}, "scoring_uri": "http://here/invoke",
    }  # fmt: skip
    fake.routes["GET /endpoints/churn/deployments/blue"] = {
        "name": "blue", "endpoint_name": "churn", "settings": {"mini_batch_size": 7}, "created_by": "me",
        "created_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    fake.routes["GET /models/m"] = {"name": "m", "version": "3", "path": "azureml://datastores/d/paths/p"}

    assert az("ml batch-endpoint show -n churn --query defaults.deployment_name -o tsv").out == "blue\n"
    assert az("ml batch-endpoint show -n churn --query scoring_uri -o tsv").out.endswith("/batchEndpoints/churn/jobs\n")
    assert az("ml endpoint show -n churn -t batch --query traffic.blue -o tsv").out == "100\n"
    show = "ml batch-deployment show -n blue --endpoint churn -o tsv --query"
    assert az(f"{show} mini_batch_size").out == "7\n"
    assert az(f"{show} retry_settings.max_retries").out == "3\n"
    assert az(f"{show} not_there").out == ""
    assert az("ml batch-deployment show -n blue -e churn --query not_there").out == "", "not even null, as with az"
    assert az(f"{show} creation_context.created_by").out == "me\n"
    assert az("ml model show -n m -l latest --query id -o tsv").out == "azureml:m:3\n"
    shown = json.loads(az("ml batch-deployment show -n blue -e churn").out)
    assert "mini_batch_size" not in shown, "what says the same twice is there for queries alone"


@pytest.mark.parametrize("line", ["model show -n m", "job show -n j", "batch-endpoint show -n e", "compute show -n c"])
def test_what_is_not_there_ends_with_exit_code_3(az: CommandLine, line: str) -> None:
    assert az(f"ml {line} {WORKSPACE}").code == 3


def test_the_shell_completes_azures_names(
    az: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_BATCHPOINT_COMPLETE", "bash_complete")
    for line, found in {"batch-dep": "batch-deployment", "batch-endpoint inv": "invoke", "job lo": "log"}.items():
        words = ["batchpoint", *line.split()]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        with pytest.raises(SystemExit):  # click ends the program when it has completed
            az("ml")
        assert f"plain,{found}" in capsys.readouterr().out.splitlines()


def test_what_would_not_count_is_named(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["PUT /computes/cpu"] = lambda request: request.body

    said = az(
        "ml compute create -n cpu --type AmlCompute --min-instances 0 --max-instances 2 --tier low_priority -d 60 "
        "--size STANDARD_DS3_v2 --vnet-name v --admin-username me --ssh-public-access-enabled false "
        "--identity-type user_assigned --user-assigned-identities a b"
    )

    assert said.code == 0, said.err
    assert asked(fake, "PUT /computes/cpu")["max_instances"] == 2
    for option in ("--vnet-name", "--admin-username", "--identity-type", "--user-assigned-identities"):
        assert f"{option} does not count here" in said.err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("compute start -n c", "instances start with jobs"),
        ("model share -n m", "there is one registry"),
        ("data import -f d.yml", "--input-query"),
        ("job connect-ssh -n j", "'job logs'"),
        ("job strem -n j", "Did you mean 'stream'?"),
        ("endpoint create --type online -n e", "'online' is not"),
    ],
)
def test_a_command_that_is_not_here_says_what_to_do(az: CommandLine, line: str, hint: str) -> None:
    said = az(f"ml {line}")
    assert (said.code, hint in said.err) == (2, True), said.err


def test_things_that_azure_deletes_without_asking_are_deleted_in_scripts(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["DELETE /datastores/d"] = fake.routes["DELETE /schedules/s"] = {}
    assert az("ml datastore delete -n d").code == 0
    assert az("ml schedule delete -n s").code == 0
    assert az("ml compute delete -n c").code == 2


def test_an_environment_keeps_the_folder_that_an_image_would_be_built_from(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["POST /environments"] = lambda request: (201, {**request.body, "version": "1"})
    assert az("ml environment create -n e -b ./context -d Other").code == 2, "the folder is not there"
    Path("context").mkdir()
    assert az("ml environment create -n e -b ./context -d Other").code == 0
    assert asked(fake, "POST /environments")["build"] == {
        "path": str(Path("context").absolute()),
        "dockerfile_path": "Other",
    }


def test_an_invoke_sets_inputs_and_outputs_by_key(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["POST /endpoints/churn/invoke"] = (202, JOB)

    said = az(
        "ml batch-endpoint invoke -n churn --set inputs.heart.type=uri_folder inputs.heart.path=azureml:heart:1 "
        "outputs.score.path=azureml://datastores/d/paths/p error_threshold=3 --query name -o tsv"
    )

    assert said.out == "one\n"
    body = asked(fake, "POST /endpoints/churn/invoke")
    assert body["inputs"] == {"heart": {"type": "uri_folder", "path": "azureml:heart:1"}} | body["inputs"]
    assert body["outputs"]["score"]["path"] == "azureml://datastores/d/paths/p"
    assert body["overrides"]["error_threshold"] == 3


def test_a_download_lies_where_azures_readers_look_too(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["GET /jobs/one"] = JOB
    fake.routes["GET /jobs/one/outputs"] = {"value": [{"path": "predictions.csv", "size": 1}], "next": None}
    fake.routes["GET /jobs/one/outputs/predictions.csv"] = b"x"

    assert az("ml job download --name one --output-name score --download-path ./got").code == 0
    assert Path("got/predictions.csv").read_text() == "x"
    assert Path("got/named-outputs/score/predictions.csv").samefile("got/predictions.csv")
    assert az("ml job download -n one --output-name score").code == 0
    assert Path("named-outputs/score/predictions.csv").read_text() == "x"
    assert az("ml job download -n one -p plain").code == 0
    assert not Path("plain/named-outputs").exists()
    fake.routes["GET /jobs/one"] = {key: value for key, value in JOB.items() if key != "endpoint_name"}
    fake.routes["GET /jobs/one/logs"] = {"value": [], "next": None}
    assert az("ml job download -n one --output-name score -p pipeline").code == 0
    assert not Path("pipeline/named-outputs").exists()
    assert az("ml job download -n one --all -p pipeline").code == 0
    assert Path("pipeline/named-outputs/score/predictions.csv").exists()


def test_a_job_is_saved_and_followed_by_its_old_name_too(az: CommandLine, fake: FakeServer) -> None:
    Path("job.yml").write_text("command: ls\n")
    fake.routes["POST /jobs"] = fake.routes["GET /jobs/one"] = {**JOB, "type": "command"}
    fake.routes["GET /jobs/one/events"] = b"event: end\ndata: {}\n\n"

    assert az("ml job create -f job.yml --save-as made.yml --web").code == 0
    assert yaml.safe_load(Path("made.yml").read_text())["status"] == "Completed"
    assert az("ml job log -n one").code == 0


PREVIEW_PLACES = {
    "--input-data azureml:d:1": {"path": "azureml:d:1"},
    "--input-dataset azureml:d@latest": {"path": "azureml:d@latest"},
    "--input-path https://host/a.csv": {"path": "https://host/a.csv"},
    "--input-path folder:https://host/a": {"path": "https://host/a", "type": "uri_folder"},
    "--input-path file:https://host/a": {"path": "https://host/a", "type": "uri_file"},
    "--input-datastore azureml:d --input-path a/b": {"path": "azureml://datastores/d/paths/a/b"},
    "--input-datastore d": {"path": "azureml://datastores/d/paths/"},
}


@pytest.mark.parametrize("options", PREVIEW_PLACES)
def test_an_input_in_the_words_of_the_preview(az: CommandLine, fake: FakeServer, options: str) -> None:
    fake.routes["POST /endpoints/churn/invoke"] = (202, JOB)

    said = az(f"ml endpoint invoke -n churn --type batch {options} --output-datastore azureml:o --output-path p")

    assert said.code == 0, said.err
    body = asked(fake, "POST /endpoints/churn/invoke")
    assert body["inputs"]["input"] == PREVIEW_PLACES[options] | body["inputs"]["input"]
    assert {key: body["inputs"]["input"].get(key) for key in PREVIEW_PLACES[options]} == PREVIEW_PLACES[options]
    assert body["outputs"]["score"]["path"] == "azureml://datastores/o/paths/p"


def test_local_data_of_the_preview_goes_to_the_datastore_that_is_named(az: CommandLine, fake: FakeServer) -> None:
    Path("data/more").mkdir(parents=True)
    Path("data/a.csv").write_text("a")
    Path("data/more/b.csv").write_text("b")
    fake.routes["PUT /datastores/d/files/in/a.csv"] = fake.routes["PUT /datastores/d/files/in/more/b.csv"] = {}
    fake.routes["POST /endpoints/churn/invoke"] = (202, JOB)

    said = az("ml endpoint invoke -n churn -t batch --input-local-path data --input-datastore d --input-path in")

    assert said.code == 0, said.err
    assert fake.asked("PUT /datastores/d/files/in/more/b.csv")[0].content == b"b"
    path = asked(fake, "POST /endpoints/churn/invoke")["inputs"]["input"]["path"]
    assert path == "azureml://datastores/d/paths/in/"
    assert az("ml endpoint invoke -n churn -t batch --input-local-path data").code == 0
    assert asked(fake, "POST /endpoints/churn/invoke")["inputs"]["input"]["path"] == str(Path("data").absolute())
    two = az("ml endpoint invoke -n churn -t batch --input-local-path data --input-data azureml:d:1")
    assert (two.code, "are two" in two.err) == (2, True)
    assert az("ml endpoint invoke -n churn --input-local-path none --input-datastore d").code == 2


def test_traffic_chooses_the_default_deployment(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["GET /endpoints/churn"] = {"name": "churn", "defaults": {"deployment_name": "blue"}}
    fake.routes["PATCH /endpoints/churn"] = {"name": "churn"}
    update = "ml endpoint update -n churn --type batch --traffic"

    for given, wanted in (("red:100", "red"), ("blue:0,red:100", "red"), ("blue=0 red=100", "red"), ("blue:0", None)):
        assert az(f"{update} {given}").code == 0
        assert asked(fake, "PATCH /endpoints/churn") == {"defaults": {"deployment_name": wanted}}
    before = len(fake.asked("PATCH /endpoints/churn"))
    assert az(f"{update} red:0").code == 0
    assert len(fake.asked("PATCH /endpoints/churn")) == before, "red had none"
    for given, hint in (("red:50", "100 or 0"), ("red:100,blue:100", "only one"), ("red", "NAME:100")):
        said = az(f"{update} {given}")
        assert (said.code, hint in said.err) == (2, True), said.err


def test_the_preview_lists_the_jobs_of_the_deployment_with_the_traffic(az: CommandLine, fake: FakeServer) -> None:
    fake.routes["GET /endpoints/churn"] = {"name": "churn", "defaults": {"deployment_name": "blue"}}
    for path, name in {"": "all", "/deployments/blue": "blue", "/deployments/red": "red"}.items():
        fake.routes[f"GET /endpoints/churn{path}/jobs"] = {"value": [{"name": name}], "next": None}

    lines = {"": "all", "-t batch": "blue", "-t batch --deployment red": "red", "-d red": "red"}
    for options, name in lines.items():
        assert az(f"ml endpoint list-jobs -n churn {options} --query [].name -o tsv").out == f"{name}\n"


def test_a_deployment_file_of_the_preview_adds_a_deployment(az: CommandLine, fake: FakeServer) -> None:
    Path("m").mkdir()
    Path("d.yml").write_text(
        "name: red_one\nmodel: {name: m, version: 2, local_path: ./m}\ncompute: {target: azureml:c}"
    )
    fake.routes["PUT /endpoints/churn/deployments/red_one"] = lambda request: request.body
    fake.routes["GET /endpoints/churn"] = {"name": "churn"}

    said = az("ml endpoint update -n churn --type batch --deployment-file d.yml")

    assert said.code == 0, said.err
    body = asked(fake, "PUT /endpoints/churn/deployments/red_one")
    assert (body["compute"], body["model"]["version"]) == ("azureml:c", "2")
    assert json.loads(said.out)["name"] == "churn"
