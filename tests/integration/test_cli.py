from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchpoint.local_server import LocalServer
from fake_server import FakeServer, error
from integration.conftest import CommandLine

JOB = {"name": "one", "status": "queued"}
FAILED = {
    "name": "one",
    "status": "failed",
    "error": {"code": "mini_batch_failed", "message": "run() raised", "file": "a.csv", "row": 7, "traceback": "Trace"},
}
DONE = {
    "name": "one",
    "status": "completed",
    "outputs": {"score": {"type": "uri_file", "uri": "/home/out/"}},
    "receipt": {
        "job": "one", "unit": "rows", "items": 2, "ok": 1, "failed": 1, "skipped": 0, "output_rows": 1,
        "balanced": True,
    },
}  # fmt: skip


def test_an_endpoint_is_created_from_a_file_and_shown_as_json(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "endpoint.yml").write_text("name: churn\n")
    fake.routes["PUT /endpoints/churn"] = lambda request: request.body

    said = batchpoint(
        "batch-endpoint create -f endpoint.yml --set tags.team=risk -g rg -w risk --subscription s --no-wait"
    )

    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["tags"] == {"team": "risk"}


def test_a_slip_in_a_file_is_told_with_its_line_and_without_a_traceback(
    batchpoint: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "endpoint.yml").write_text("name: churn\ndescripton: x\n")

    said = batchpoint("endpoint create -f endpoint.yml")

    assert said.code == 2
    assert "endpoint.yml:2: key 'descripton' is not known here. Did you mean 'description'?" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in batchpoint("endpoint create -f endpoint.yml --debug").err


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("not_found", 3), ("already_exists", 4), ("conflict", 4), ("unauthenticated", 5), ("permission_denied", 5),
        ("invalid_entity", 2), ("registry_unavailable", 6), ("scoring_failed", 1),
    ],
)  # fmt: skip
def test_each_kind_of_error_has_its_exit_code(
    fake: FakeServer, batchpoint: CommandLine, code: str, exit_code: int
) -> None:
    fake.routes["GET /jobs/one"] = (400, error(code, "Because."))

    said = batchpoint("job show -n one")

    assert said.code == exit_code
    assert "Error: Because." in said.err


def test_no_server_has_its_exit_code_and_says_what_to_do(
    batchpoint: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("batchpoint.client.connection.FIRST_PAUSE_SECONDS", 0)

    said = batchpoint("job show -n one")

    assert said.code == 6
    assert "batchpoint up" in said.err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("endpiont list", "Did you mean 'endpoint'?"),
        ("job show", "Missing option '-n'"),
        ("endpoint create", "Nothing is declared"),
        ("model update -n churn -v 1", "Nothing to change"),
        ("endpoint delete -n churn", "add --yes"),
        ("job list -o wrong", "is not one of"),
        ("model create -n m -p . --tags nonsense", "write key=value"),
    ],
)
def test_a_command_that_is_not_understood_says_why(batchpoint: CommandLine, line: str, hint: str) -> None:
    said = batchpoint(line)

    assert said.code == 2
    assert hint in said.err


def test_a_model_is_registered_from_options_alone(fake: FakeServer, batchpoint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    fake.routes["POST /models"] = lambda request: (201, {**request.body, "version": "1"})

    said = batchpoint(
        "model create -n churn -p ./m -t mlflow_model --tags", "a=b c=d", "--query", "version", "-o", "tsv"
    )

    assert (said.code, said.out) == (0, "1\n")
    (request,) = fake.asked("POST /models")
    assert request.body["path"] == str(tmp_path / "m")
    assert request.body["tags"] == {"a": "b", "c": "d"}


def test_an_update_sends_only_what_changes(fake: FakeServer, batchpoint: CommandLine) -> None:
    fake.routes["PATCH /endpoints/churn"] = {"name": "churn"}
    fake.routes["PATCH /computes/local"] = {"name": "local"}

    assert batchpoint("endpoint update -n churn --defaults deployment_name=blue --set description=x").code == 0
    assert batchpoint("compute update -n local --max-instances 3").code == 0

    assert fake.asked("PATCH /endpoints/churn")[0].body == {
        "defaults": {"deployment_name": "blue"},
        "description": "x",
    }
    assert fake.asked("PATCH /computes/local")[0].body == {"max_instances": 3}


def test_a_deployment_becomes_the_default_and_is_named_by_the_command(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "deployment.yml").write_text("name: red\nendpoint_name: other\nmodel: azureml:churn:1\n")
    fake.routes["PUT /endpoints/churn/deployments/blue"] = lambda request: request.body

    said = batchpoint("batch-deployment create -f deployment.yml -n blue -e churn --set-default")

    assert said.code == 0
    (request,) = fake.asked("PUT /endpoints/churn/deployments/blue")
    assert request.query == {"set_default": "true"}


def test_an_invoke_prints_the_job_at_once(fake: FakeServer, batchpoint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("a\n")
    fake.routes["POST /endpoints/churn/invoke"] = (202, JOB)

    said = batchpoint(
        "endpoint invoke -n churn --input trips.csv --input-type uri_file -d blue -c 2 -m 100 --job-name one "
        "--set retry_settings.max_retries=1 --set output_file_name=x.csv --output-path ./out/ --query name -o tsv"
    )

    assert said.out == "one\n"
    body = fake.asked("POST /endpoints/churn/invoke")[0].body
    assert body["inputs"]["input"]["type"] == "uri_file"
    assert body["overrides"]["output_file_name"] == "x.csv"
    assert (body["overrides"]["instance_count"], body["overrides"]["mini_batch_size"]) == (2, 100)
    assert body["overrides"]["retry_settings"] == {"max_retries": 1}
    assert body["outputs"]["score"]["path"] == f"{tmp_path}/out/"


def test_an_invoke_reads_inputs_from_a_file_relative_to_it(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "trips").mkdir()
    (tmp_path / "asked" / "inputs.yml").write_text(
        "inputs: {heart: {type: uri_folder, path: ./trips}}\noutputs: {score: {path: 'azureml://datastores/d/paths/p'}}\n"
    )
    fake.routes["POST /endpoints/churn/invoke"] = (202, JOB)

    assert batchpoint("endpoint invoke -n churn -f asked/inputs.yml").code == 0

    body = fake.asked("POST /endpoints/churn/invoke")[0].body
    assert body["inputs"]["heart"]["path"] == str(tmp_path / "asked" / "trips")
    assert body["outputs"]["score"]["path"] == "azureml://datastores/d/paths/p"


def test_a_followed_invoke_ends_with_receipt_and_places(fake: FakeServer, batchpoint: CommandLine) -> None:
    fake.routes["POST /endpoints/churn/invoke"] = (202, JOB)
    fake.routes["GET /jobs/one/wait"] = DONE

    said = batchpoint("endpoint invoke -n churn --input azureml:trips:1 --stream")

    assert (said.code, said.out) == (0, "")
    assert "Receipt: 2 rows = 1 ok + 1 failed + 0 skipped; 1 rows written (adds up)" in said.err
    assert "score: /home/out/" in said.err
    assert "batchpoint job retry-failed -n one" in said.err


def test_a_followed_job_that_fails_ends_with_its_traceback_and_exit_code_1(
    fake: FakeServer, batchpoint: CommandLine
) -> None:
    fake.routes["POST /endpoints/churn/invoke"] = (202, JOB)
    fake.routes["GET /jobs/one/wait"] = fake.routes["GET /jobs/one"] = FAILED
    fake.routes["GET /jobs/one/events"] = b"event: end\ndata: {}\n\n"

    for line in ("endpoint invoke -n churn --input azureml:t:1 -s", "job stream -n one", "job wait -n one"):
        said = batchpoint(line)
        assert said.code == 1
        assert "First failing item: a.csv, row 7\nTrace" in said.err


@pytest.mark.parametrize("printed", ["stream", "wait"])
def test_the_traceback_of_a_failed_step_shows_once(fake: FakeServer, batchpoint: CommandLine, printed: str) -> None:
    traceback = ["Traceback (most recent call last):", '  File "train.py", line 1', "", "ValueError: no rows"]
    error = {"code": "step_failed", "message": "Step train failed", "traceback": "\n".join(traceback)}
    fake.routes["GET /jobs/one"] = {"name": "one", "type": "pipeline", "status": "failed", "error": error}
    fake.routes["GET /jobs"] = {"value": [], "next": None}
    other = {"step": "other", "line": "meanwhile"}
    lines = [{"step": "train", "line": "begins"}, *({"step": "train", "line": line} for line in traceback)]
    events = "".join(f"event: log\ndata: {json.dumps(data)}\n\n" for data in [*lines[:3], other, *lines[3:]])
    fake.routes["GET /jobs/one/events"] = f"{events}event: end\ndata: {{}}\n\n".encode()

    said = batchpoint(f"job {printed} -n one")

    assert said.code == 1
    assert (said.out + said.err).count("ValueError: no rows") == 1
    assert "Job one failed: Step train failed" in said.err


def test_a_traceback_that_was_not_streamed_whole_is_told_at_the_end(fake: FakeServer, batchpoint: CommandLine) -> None:
    error = {"code": "command_failed", "message": "exit code 1", "traceback": "Traceback:\nValueError: no rows"}
    fake.routes["GET /jobs/one"] = {"name": "one", "status": "failed", "error": error}
    fake.routes["GET /jobs/one/events"] = b'event: log\ndata: {"line": "Traceback:"}\n\nevent: end\ndata: {}\n\n'

    assert "Traceback:\nValueError: no rows" in batchpoint("job stream -n one").err


def test_a_download_copies_the_output_and_with_all_the_logs(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path
) -> None:
    fake.routes["GET /jobs/one"] = DONE
    fake.routes["GET /jobs/one/outputs"] = {"value": [{"path": "predictions.csv", "size": 1}], "next": None}
    fake.routes["GET /jobs/one/outputs/predictions.csv"] = b"x"
    fake.routes["GET /jobs/one/logs"] = {"value": [{"path": "logs/user/a.txt", "size": 1}], "next": None}
    fake.routes["GET /jobs/one/logs/logs/user/a.txt"] = b"log"

    assert batchpoint("job download -n one --output-name score -p got --all").code == 0

    assert (tmp_path / "got" / "predictions.csv").read_text() == "x"
    assert (tmp_path / "got" / "logs" / "user" / "a.txt").read_text() == "log"


@pytest.mark.parametrize("more", ["", "--all"])
@pytest.mark.parametrize(
    ("place", "reason"), [("afile", "afile is a file"), ("afile/below", "afile is a file"), ("/proc/x", "No such file")]
)
def test_a_download_to_where_nothing_can_be_written_says_so(
    fake: FakeServer, batchpoint: CommandLine, place: str, reason: str, more: str
) -> None:
    Path("afile").write_text("mine")
    fake.routes["GET /jobs/one"] = DONE
    fake.routes["GET /jobs/one/outputs"] = {"value": [{"path": "predictions.csv", "size": 4}], "next": None}
    fake.routes["GET /jobs/one/outputs/predictions.csv"] = b"a,b\n"
    fake.routes["GET /jobs/one/logs"] = {"value": [], "next": None}

    said = batchpoint(f"job download -n one -p {place} {more}")

    assert (said.code, Path("afile").read_text()) == (2, "mine")
    assert said.err.startswith("Error: ")
    assert reason in said.err
    assert "Choose another place" in said.err


def test_logs_are_not_written_below_a_file_either(fake: FakeServer, batchpoint: CommandLine) -> None:
    Path("afile").write_text("mine")
    fake.routes["GET /jobs/one"] = FAILED
    fake.routes["GET /jobs/one/outputs"] = {"value": [], "next": None}
    fake.routes["GET /jobs/one/logs"] = {"value": [{"path": "logs/user/one.txt", "size": 4}], "next": None}
    fake.routes["GET /jobs/one/logs/logs/user/one.txt"] = b"said"

    said = batchpoint("job download -n one -p afile --all")

    assert said.code == 2
    assert "afile is a file" in said.err


def test_a_download_of_a_job_that_failed_says_why_there_is_nothing_and_with_all_brings_its_logs(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path
) -> None:
    error = {"code": "scoring_script_failed", "message": "init() raised ValueError."}
    fake.routes["GET /jobs/one"] = {**JOB, "status": "failed", "error": error}
    fake.routes["GET /jobs/one/outputs"] = {"value": [], "next": None}
    fake.routes["GET /jobs/one/logs"] = {"value": [{"path": "logs/user/error.txt", "size": 1}], "next": None}
    fake.routes["GET /jobs/one/logs/logs/user/error.txt"] = b"the traceback"
    said = "Job one is failed and has published nothing to download: init() raised ValueError."

    plain = batchpoint("job download -n one -p got")
    assert plain.code == 3
    assert said in plain.err
    assert "'batchpoint job download -n one --all' brings its logs" in plain.err
    assert not (tmp_path / "got").exists()
    whole = batchpoint("job download -n one -p got --all")
    assert whole.code == 0
    assert "Job one is failed and has published nothing; there are its logs alone." in whole.err
    assert (tmp_path / "got" / "logs" / "user" / "error.txt").read_text() == "the traceback"
    assert batchpoint("job download -n one -p got --all --output-name score").code == 3


def test_lists_are_json_unless_a_table_is_asked_for(fake: FakeServer, batchpoint: CommandLine) -> None:
    fake.routes["GET /jobs"] = {"value": [JOB], "next": None}

    assert json.loads(batchpoint("job list").out)[0]["name"] == "one"
    assert batchpoint("job list -o table").out.splitlines()[0].split() == ["name", "type", "status"]
    assert fake.requests[0].query == {"limit": "50", "archived": "exclude"}


def test_the_completion_of_a_shell_and_the_version_need_no_server(batchpoint: CommandLine, fake: FakeServer) -> None:
    assert "_BATCHPOINT_COMPLETE" in batchpoint("completion zsh").out
    assert "batchpoint" in json.loads(batchpoint("version").out)
    assert fake.requests == []


def test_score_refuses_what_it_cannot_do_before_any_work(batchpoint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a\n1\n")
    (tmp_path / "empty").mkdir()

    assert "does not exist" in batchpoint("score --model nothing --data data.csv -o out.csv").err
    assert "neither an MLflow model" in batchpoint("score --model empty --data data.csv -o out.csv").err


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (["--set", "tags.v=1.10", "--set", "tags.n=2"], {"tags": {"v": "1.10", "n": 2}}),
        (["--set", "tags.when=2024-01-01", "--set", "tags.on=yes"], {"tags": {"when": "2024-01-01", "on": "yes"}}),
        (["--add", "tags", "team=risk"], {"tags": {"team": "risk"}}),
        (["--remove", "tags.team"], {"tags": {"team": None}}),
        (["--set", "tags.n=2", "--force-string"], {"tags": {"n": "2"}}),
        (["--set", "description=null", "--force-string"], {"description": "null"}),
    ],
)
def test_an_update_sets_adds_and_removes_keys_as_they_are_written(
    fake: FakeServer, batchpoint: CommandLine, options: list[str], change: Any
) -> None:
    fake.routes["PATCH /endpoints/churn"] = {"name": "churn"}
    assert batchpoint("endpoint update -n churn", *options).code == 0
    (request,) = fake.asked("PATCH /endpoints/churn")
    assert request.body == change


def test_adding_to_a_list_is_refused_with_what_to_write(batchpoint: CommandLine) -> None:
    said = batchpoint("endpoint update -n churn --add batchpoint.passthrough id")
    assert said.code == 2
    assert "--set batchpoint.passthrough=" in said.err


@pytest.mark.parametrize("key", ["output", "inputz"])
def test_a_slip_in_the_file_of_an_invoke_is_told_with_its_line(
    batchpoint: CommandLine, tmp_path: Path, key: str
) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "io.yml").write_text(f"inputs:\n  d: {{path: a.csv}}\n{key}:\n  score: {{path: out}}\n")
    said = batchpoint("endpoint invoke -n churn -f io.yml")
    assert said.code == 2
    assert f"io.yml:3: key '{key}' is not known here. Did you mean '{key[:5]}" in said.err


def test_a_job_name_that_is_none_is_told_in_words(batchpoint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    said = batchpoint("endpoint invoke -n churn --input a.csv --job-name", "two words")
    assert said.code == 2
    assert "key 'job_name' is 'two words'; letters, digits" in said.err


def test_an_input_that_is_not_there_is_a_mistake_of_the_command(fake: FakeServer, batchpoint: CommandLine) -> None:
    fake.routes["POST /endpoints/churn/invoke"] = lambda _: (422, error("input_unavailable", "Nothing to score."))
    assert batchpoint("endpoint invoke -n churn --input azureml:d:1").code == 2


def test_a_pipeline_is_shown_with_its_steps_and_an_output_of_a_step_is_downloaded(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path
) -> None:
    step = {"name": "one-prepare", "step_name": "prepare", "type": "command", "status": "completed"}
    step |= {"started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:02Z", "reused_job_name": None}
    fake.routes["GET /jobs/one"] = {"name": "one", "type": "pipeline", "status": "completed"}
    fake.routes["GET /jobs"] = {"value": [step], "next": None}
    fake.routes["GET /jobs/one-prepare"] = step
    fake.routes["GET /jobs/one-prepare/outputs"] = {"value": [{"path": "a.csv", "size": 1}], "next": None}
    fake.routes["GET /jobs/one-prepare/outputs/a.csv"] = b"x"

    shown = batchpoint("job show -n one -o table")
    assert shown.out.splitlines()[-1].split() == ["prepare", "Completed", "2.0", "one-prepare"]
    assert fake.asked("GET /jobs")[0].query == {"parent": "one", "archived": "include"}
    assert batchpoint("job download -n one --output-name prepare.prepared -p got").code == 0
    assert fake.asked("GET /jobs/one-prepare/outputs")[0].query == {"output": "prepared"}
    assert (tmp_path / "got" / "a.csv").read_text() == "x"
    missing = batchpoint("job download -n one --output-name score.scores")
    assert (missing.code, "has no step score. Its steps: prepare." in missing.err) == (3, True)


def test_faults_that_the_server_finds_are_told_with_the_lines_of_the_file(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.yml").write_text("jobs:\n  one:\n    command: ls\n    compute: azureml:none\n")
    problem = {"key": "jobs.one.compute", "place": "jobs.one.compute", "message": "There is no compute named none."}
    found = {"valid": False, "message": "no", "problems": [problem]}
    fake.routes["POST /jobs/validate"] = found

    said = batchpoint("job validate -f pipeline.yml --set inputs.n=3")

    assert said.code == 2
    assert "pipeline.yml:4: jobs.one.compute: There is no compute named none." in said.err
    assert fake.asked("POST /jobs/validate")[0].body["inputs"] == {"n": 3}


def test_the_errors_of_a_pipeline_are_a_table_of_its_failed_steps(fake: FakeServer, batchpoint: CommandLine) -> None:
    step = {"step": "b", "job": "one-b", "code": "command_failed", "file": None, "row": None, "exception": None}
    failed = {**step, "message": "exit code 3", "traceback": "Traceback: boom"}
    fake.routes["GET /jobs/one"] = JOB
    fake.routes["GET /jobs/one/errors"] = {"value": [failed], "next": None}

    said = batchpoint("job errors -n one -o table")

    heading, _, line = said.out.splitlines()
    assert heading.split()[:2] == ["step", "job"]
    assert (line.split()[:2], line.rpartition("exit")[2]) == (["b", "one-b"], " code 3")


def test_the_workspace_is_that_of_the_option_or_of_the_setting(
    fake: FakeServer, batchpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.routes["GET /models"] = {"value": [], "next": None}
    batchpoint("model list")
    monkeypatch.setenv("BATCHPOINT_WORKSPACE", "sales")
    batchpoint("model list")
    batchpoint("-w risk model list")
    named = [request.headers.get("x-batchpoint-workspace") for request in fake.asked("GET /models")]
    assert named == [None, "sales", "risk"]
    assert batchpoint("-w ../x model list").code == 2


def test_what_a_message_advises_is_said_in_words_of_the_command_line_below_it(
    batchpoint: CommandLine, fake: FakeServer
) -> None:
    details = {"on_command_line": "batchpoint schedule disable -n nightly"}
    refusal = {"code": "conflict", "message": "Schedule nightly is enabled.", "details": details, "request_id": "r1"}
    fake.routes["DELETE /schedules/nightly"] = (409, {"error": refusal})

    said = batchpoint("schedule delete -n nightly --yes")

    assert said.code == 4
    assert said.err.splitlines() == [
        "Error: Schedule nightly is enabled.",
        "On the command line: batchpoint schedule disable -n nightly",
    ]


def test_up_and_status_say_where_the_studio_is_and_where_its_token_lies(
    fake: FakeServer, batchpoint: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    assert f"{fake.url}/studio" in batchpoint("status").out
    assert "token_file" not in batchpoint("status").out  # that of another server lies elsewhere
    running = LocalServer(url=fake.url, pid=7, id="one", version="1", started_at="2026-01-01T00:00:00Z")
    monkeypatch.delenv("BATCHPOINT_URL")
    monkeypatch.setattr("batchpoint.local_server.find", lambda _: running)
    monkeypatch.setattr("batchpoint.local_server.ensure", lambda _: running)

    for line in ("status", "up"):
        said = batchpoint(line)
        told = json.loads(said.out)
        assert (told["studio"], told["token_file"]) == (f"{fake.url}/studio", str(home / "token"))
    assert f"Studio: {fake.url}/studio (it asks for the token in {home}/token)." in said.err
    assert "studio" in batchpoint("").out


def test_deleting_an_endpoint_names_the_schedules_that_invoke_it_still(
    fake: FakeServer, batchpoint: CommandLine
) -> None:
    def schedule(name: str, endpoint: str) -> dict[str, Any]:
        trigger = {"type": "cron", "expression": "0 2 * * *"}
        return {"name": name, "trigger": trigger, "create_job": {"type": "invoke", "endpoint_name": endpoint}}

    found = [schedule("nightly", "churn"), schedule("weekly", "churn"), schedule("other", "fares")]
    fake.routes["GET /schedules"] = {"value": found, "next": None}
    fake.routes["DELETE /endpoints/churn"] = {}
    fake.routes["DELETE /endpoints/quiet"] = {}

    said = batchpoint("endpoint delete -n churn -y")

    assert said.code == 0
    assert "Schedules that still invoke endpoint churn, and fail from now on: nightly, weekly." in said.err
    assert fake.asked("GET /schedules")[0].query["enabled"] == "true"
    assert batchpoint("endpoint delete -n quiet -y").err == ""


def test_a_key_that_is_missing_is_told_with_its_option(batchpoint: CommandLine) -> None:
    said = batchpoint("webhook create -n pager --url https://pager.example/")

    assert said.code == 2
    assert "key 'events' is missing." in said.err
    assert "On the command line: --event" in said.err
    assert "On the command line: --url, --event" in batchpoint("webhook create -n pager").err
    unknown = batchpoint("webhook create -n pager --url https://pager.example/ --event job.failed --set other=1")
    assert "On the command line" not in unknown.err
