from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchpoint.client import Client, Job, VersionMismatchWarning, load
from batchpoint.client.connection import Connection, address
from batchpoint.entities.assets import Environment, Model
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.jobs import JobStatus
from batchpoint.entities.resources import Datastore
from batchpoint.entities.schedules import Schedule, ScheduledJob
from batchpoint.entities.workspaces import NamedWorkspace
from batchpoint.errors import (
    BatchpointError,
    ConflictError,
    InvalidEntityError,
    NotFoundError,
    PlatformError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from batchpoint.settings import Settings
from fake_server import FakeServer, Request, error, fake_server

QUEUED = {"name": "one", "status": "queued"}
DONE = {
    "name": "one",
    "status": "completed",
    "receipt": {
        "job": "one", "unit": "rows", "items": 2, "ok": 2, "failed": 0, "skipped": 0, "output_rows": 2,
        "balanced": True,
    },
}  # fmt: skip
FAILED = {
    "name": "one",
    "status": "failed",
    "error": {"code": "mini_batch_failed", "message": "run() raised", "file": "a.csv", "row": 7, "traceback": "Tr"},
}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


@pytest.fixture
def client(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.chdir(tmp_path)
    with Client(server.url, "secret", Settings(home=tmp_path / "home")) as made:
        yield made


def invoked(server: FakeServer) -> Request:
    (request,) = server.asked("POST /endpoints/churn/invoke")
    return request


def test_every_request_carries_the_token(server: FakeServer, client: Client) -> None:
    server.routes["GET /jobs/one"] = QUEUED

    client.jobs.get("one")

    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_the_servers_error_comes_back_as_its_class(client: Client) -> None:
    with pytest.raises(NotFoundError, match="There is no /models/churn"):
        client.models.get("churn")


def test_a_model_is_named_by_reference_version_or_label(server: FakeServer, client: Client) -> None:
    server.routes["GET /models/churn"] = {"name": "churn", "version": "3", "path": "/m"}

    client.models.get("churn:3")
    client.models.get("azureml:churn@best")
    client.models.get("churn", version="3")

    assert [request.query for request in server.requests] == [{"version": "3"}, {"label": "best"}, {"version": "3"}]


def test_lists_follow_the_pages_up_to_the_limit(server: FakeServer, client: Client) -> None:
    def page(request: Request) -> Any:
        start = int(request.query.get("offset", 0))
        items = [{"name": f"job{start + position}"} for position in range(2)]
        return {"value": items, "next": f"/api/v1/jobs?offset={start + 2}" if start < 4 else None}

    server.routes["GET /jobs"] = page

    assert [job.name for job in client.jobs.list()] == [f"job{number}" for number in range(6)]
    assert [job.name for job in client.jobs.list(limit=3)] == ["job0", "job1", "job2"]


def test_local_paths_are_handed_over_absolute_when_the_server_shares_files(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    server.routes["POST /models"] = lambda request: (201, {**request.body, "version": "1"})

    model = client.models.create_or_update(Model(name="churn", path="./m"))

    assert model.path == str(tmp_path / "m")
    assert model.version == "1"


def test_an_empty_path_is_not_the_working_folder(client: Client) -> None:
    with pytest.raises(InvalidEntityError, match="empty"):
        client.endpoints.invoke("churn", input="")


def test_a_local_path_that_does_not_exist_is_named(client: Client) -> None:
    with pytest.raises(InvalidEntityError, match=r"model churn: path: '\./m' does not exist \(looked for /"):
        client.models.create_or_update(Model(name="churn", path="./m"))


def test_local_files_are_uploaded_once_when_the_server_does_not_share_them(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    server.shares_files = False
    (tmp_path / "m" / "inner").mkdir(parents=True)
    (tmp_path / "m" / "MLmodel").write_text("x")
    (tmp_path / "m" / "inner" / "model.pkl").write_bytes(b"0" * 3_000_000)
    stored: dict[str, int] = {}

    def put(request: Request) -> Any:
        stored[request.path.split("/files/", 1)[1]] = len(request.content)
        return 201, {}

    class Routes(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return put if key.startswith("PUT /datastores/main/files/") else super().get(key, default)

    server.routes = Routes(
        {
            "GET /datastores": {"value": [{"name": "main", "is_default": True}], "next": None},
            "GET /datastores/main/files": lambda _: {
                "value": [{"path": path, "size": size} for path, size in stored.items()],
                "next": None,
            },
            "POST /models": lambda request: (201, request.body),
        }
    )
    seen: list[tuple[str, int, int]] = []

    first = client.models.create_or_update(Model(name="churn", path="m"), progress=lambda *step: seen.append(step))
    again = client.models.create_or_update(Model(name="churn", path="m"))

    folder = first.path.removeprefix("azureml://datastores/main/paths/")
    assert folder.startswith("LocalUpload/")
    assert stored == {f"{folder}MLmodel": 1, f"{folder}inner/model.pkl": 3_000_000}
    assert again.path == first.path
    assert len([request for request in server.requests if request.method == "PUT"]) == 2
    assert ("model.pkl", 3_000_000, 3_000_000) in seen


def test_the_content_of_a_conda_file_travels_not_its_path(server: FakeServer, client: Client, tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text("dependencies:\n- python=3.10\n- pip:\n  - numpy\n")
    (tmp_path / "needs.txt").write_text("# what we need\nnumpy>=2 # fast\n\npandas\n")
    server.routes["POST /environments"] = lambda request: (201, request.body)

    conda = client.environments.create_or_update(Environment(name="e", conda_file="conda.yml"))
    pip = client.environments.create_or_update(Environment(name="e", pip_requirements="needs.txt"))

    assert conda.conda_file == {"dependencies": ["python=3.10", {"pip": ["numpy"]}]}
    assert pip.pip_requirements == ["numpy>=2", "pandas"]


def test_the_secrets_of_a_datastore_reach_the_server_and_are_not_shown(server: FakeServer, client: Client) -> None:
    server.routes["PUT /datastores/lake"] = {"name": "lake", "type": "s3", "bucket": "b", "has_credentials": True}
    credentials = {"access_key_id": "id", "secret_access_key": "hush"}
    lake = Datastore.model_validate({"name": "lake", "type": "s3", "bucket": "b", "credentials": credentials})

    client.datastores.create_or_update(lake)

    (request,) = server.asked("PUT /datastores/lake")
    assert request.body["credentials"] == credentials
    assert "hush" not in str(lake.body())


def test_a_yaml_files_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "churn"
    folder.mkdir()
    (folder / "conda.yml").write_text("dependencies: [pip]\n")
    (folder / "deployment.yml").write_text(
        "name: blue\nendpoint_name: churn\nmodel: {path: ./model}\nenvironment: {conda_file: conda.yml}\n"
        "code_configuration: {code: ../code, scoring_script: score.py}\n"
    )
    monkeypatch.chdir(tmp_path)

    deployment = load("churn/deployment.yml", set=["model.path=other"])

    assert isinstance(deployment, BatchDeployment)
    assert isinstance(deployment.model, Model)
    assert deployment.model.path == str(tmp_path / "other")
    assert deployment.code_configuration is not None
    assert deployment.code_configuration.code == str(tmp_path / "code")
    assert isinstance(deployment.environment, Environment)
    assert deployment.environment.conda_file == {"dependencies": ["pip"]}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidEntityError, match=r"nothing.yml cannot be read: No such file"):
        load(tmp_path / "nothing.yml", "model")
    (tmp_path / "latin.yml").write_bytes(b"name: \xfc")
    with pytest.raises(InvalidEntityError, match="it is not UTF-8 text"):
        load(tmp_path / "latin.yml", "model")


def test_an_invoke_takes_a_path_and_overrides_in_any_spelling(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("a\n1\n")
    server.routes["POST /endpoints/churn/invoke"] = (202, QUEUED)

    job = client.endpoints.invoke(
        endpoint_name="churn",
        input="data.csv",
        deployment_name="blue",
        job_name="one",
        output_path="out/",
        params_override=[{"compute.instance_count": 2}, {"retry_settings.max_retries": 1}],
    )

    body = invoked(server).body
    assert job.name == "one"
    assert body["inputs"]["input"]["path"] == str(tmp_path / "data.csv")
    assert body["outputs"]["score"]["path"] == f"{tmp_path}/out/"
    assert body["overrides"] == {"instance_count": 2, "retry_settings": {"max_retries": 1}}
    assert (body["deployment_name"], body["job_name"]) == ("blue", "one")


@pytest.mark.parametrize("verb", ["invoke", "plan"])
def test_what_an_invoke_leaves_out_of_a_nested_setting_is_not_sent(
    server: FakeServer, client: Client, verb: str
) -> None:
    server.routes[f"POST /endpoints/churn/{verb}"] = (500, {})
    asked = {"quality": {"max_drift": 1.0}, "csv": {"encoding": "utf-8"}}

    with pytest.raises(BatchpointError):
        getattr(client.endpoints, verb)("churn", input="azureml:trips:3", overrides=asked)

    assert server.asked(f"POST /endpoints/churn/{verb}")[0].body["overrides"] == asked


@pytest.mark.parametrize(
    "given", ["azureml:trips:3", "trips@latest", "trips:3", "azureml://datastores/d/paths/p", "https://host/a.csv"]
)
def test_an_invoke_passes_references_and_addresses_on(server: FakeServer, client: Client, given: str) -> None:
    server.routes["POST /endpoints/churn/invoke"] = (202, QUEUED)

    client.endpoints.invoke("churn", inputs={"any": {"path": given, "type": "uri_folder", "mode": "ro_mount"}})

    assert invoked(server).body["inputs"]["any"]["path"] == given


def test_a_glob_is_handed_over_and_one_that_matches_nothing_refused(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("x")
    server.routes["POST /endpoints/churn/invoke"] = (202, QUEUED)

    client.endpoints.invoke("churn", input="*.csv")

    assert invoked(server).body["inputs"]["input"]["path"] == str(tmp_path / "*.csv")
    with pytest.raises(InvalidEntityError, match="does not exist"):
        client.endpoints.invoke("churn", input="*.parquet")
    with pytest.raises(RequestError, match="Input path can't be empty"):
        client.endpoints.invoke("churn")


def test_a_lost_answer_to_an_invoke_is_asked_for_again_with_the_same_key(server: FakeServer, client: Client) -> None:
    client.server()
    client._connection._sleep = lambda _: None
    server.failures_first = 2
    server.routes["POST /endpoints/churn/invoke"] = (202, QUEUED)

    client.endpoints.invoke("churn", input="azureml:trips:3")

    keys = [request.headers["idempotency-key"] for request in server.asked("POST /endpoints/churn/invoke")]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_request_that_must_not_be_repeated_is_not(server: FakeServer, client: Client) -> None:
    server.failures_first = 1

    with pytest.raises(PlatformError, match="503"):
        client.tokens.create("ci")

    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_told_with_what_to_do() -> None:
    connection = Connection("http://127.0.0.1:9", None, sleep=lambda _: None)

    with pytest.raises(ServerUnavailableError, match=r"No server answers at http://127.0.0.1:9 .*batchpoint up"):
        connection.get("/jobs")
    connection.close()


def test_a_local_server_that_has_ended_is_found_again(server: FakeServer) -> None:
    server.routes["GET /jobs/one"] = QUEUED
    connection = Connection("http://127.0.0.1:9", None, find_again=lambda: (server.url, "new"), sleep=lambda _: None)

    assert connection.get("/jobs/one") == QUEUED
    connection.close()


def test_a_local_server_may_end_many_times_in_the_life_of_a_client(server: FakeServer) -> None:
    server.routes["GET /jobs/one"] = QUEUED
    found = []

    def find_again() -> tuple[str, str | None]:
        found.append(server.url)
        return server.url, "new"

    connection = Connection("http://127.0.0.1:9", None, find_again=find_again, sleep=lambda _: None)
    for _ in range(3):
        connection._open("http://127.0.0.1:9", None)  # where nothing listens any more
        assert connection.get("/jobs/one") == QUEUED
    connection.close()
    assert len(found) == 3


def test_another_version_of_the_server_is_said_clearly(server: FakeServer, client: Client) -> None:
    server.routes["GET /server"] = {"version": "9.9", "id": "x", "shares_files": True, "role": "admin"}
    server.routes["GET /jobs/one"] = {**QUEUED, "unheard_of": 1}

    with pytest.warns(VersionMismatchWarning, match="is version 9.9"):
        client.server()
    with pytest.raises(PlatformError, match=r"not understood \(Job unheard_of.*is the server another one"):
        client.jobs.get("one")


def job_that_becomes(server: FakeServer, client: Client, end: dict[str, Any]) -> Job:
    server.routes["GET /jobs/one"] = QUEUED
    answers = iter([{"name": "one", "status": "running"}, end])
    server.routes["GET /jobs/one/wait"] = lambda _: next(answers)
    return client.jobs.get("one")


def test_waiting_ends_with_the_job_and_its_receipt(server: FakeServer, client: Client) -> None:
    seen: list[str] = []

    job = job_that_becomes(server, client, DONE).wait(on_progress=lambda entity: seen.append(entity.status.value))

    assert job.status is JobStatus.COMPLETED
    assert seen == ["running", "completed"]
    assert job.receipt is not None
    assert job.receipt.ok == 2


def test_a_receipt_that_leaves_out_files_is_completed_once(server: FakeServer, client: Client) -> None:
    brief = {"job": "one", "unit": "rows", "items": 2, "ok": 2, "failed": 0, "skipped": 0, "output_rows": 2,
             "balanced": True}  # fmt: skip
    server.routes["GET /jobs/one"] = {**DONE, "receipt": {**brief, "files_left_out": 1}}
    server.routes["GET /jobs/one/receipt"] = {**brief, "files": [{"file": "a.csv", "items": 2, "ok": 2, "failed": 0}]}
    job = client.jobs.get("one")

    for _ in range(2):
        assert job.receipt is not None
        assert [file.file for file in job.receipt.files] == ["a.csv"]
    assert len(server.asked("GET /jobs/one/receipt")) == 1


def test_waiting_for_a_failed_job_raises_with_the_first_traceback(server: FakeServer, client: Client) -> None:
    with pytest.raises(ScoringError, match=r"(?s)run\(\) raised.*a\.csv, row 7\nTr"):
        job_that_becomes(server, client, FAILED).wait()

    assert job_that_becomes(server, client, FAILED).wait(raise_on_failure=False).status is JobStatus.FAILED


def test_waiting_gives_up_in_time(server: FakeServer, client: Client) -> None:
    server.routes["GET /jobs/one"] = server.routes["GET /jobs/one/wait"] = QUEUED

    with pytest.raises(TimeoutError, match=r"is queued after 0.05 s; it goes on"):
        client.jobs.get("one").wait(timeout=0.05)


def test_predictions_are_tables_that_keep_the_text_none(server: FakeServer, client: Client) -> None:
    server.routes["GET /jobs/one"] = DONE
    server.routes["GET /jobs/one/outputs"] = {"value": [{"path": "predictions.csv", "size": 9}], "next": None}
    server.routes["GET /jobs/one/outputs/predictions.csv"] = b'file,row,prediction\na,0,None\na,1,\na,2,"x\ny"\n'
    job = client.jobs.get("one")

    frame = job.predictions()

    assert frame["prediction"].tolist()[0] == "None"
    assert frame["prediction"].isna().tolist() == [False, True, False]
    assert job.predictions(engine="arrow").num_rows == 3
    assert job.predictions(engine="polars").shape == (3, 3)


def test_predictions_of_an_unfinished_job_and_of_a_job_without_any_are_refused(
    server: FakeServer, client: Client
) -> None:
    server.routes["GET /jobs/one"] = QUEUED
    with pytest.raises(ConflictError, match=r"wait\(\) for its end"):
        client.jobs.get("one").predictions()
    server.routes["GET /jobs/one"] = DONE
    server.routes["GET /jobs/one/outputs"] = {"value": [{"path": "own.txt", "size": 9}], "next": None}
    with pytest.raises(NotFoundError, match=r"has no file 'predictions.csv'; its output holds: own.txt"):
        client.jobs.get("one").predictions()


def test_a_download_never_leaves_its_folder(server: FakeServer, client: Client, tmp_path: Path) -> None:
    server.routes["GET /jobs/one"] = DONE
    server.routes["GET /jobs/one/outputs"] = {"value": [{"path": "a/b.csv", "size": 1}], "next": None}
    server.routes["GET /jobs/one/outputs/a/b.csv"] = b"x"

    folder = client.jobs.get("one").download(tmp_path / "got")

    assert (folder / "a" / "b.csv").read_bytes() == b"x"
    server.routes["GET /jobs/one/outputs"] = {"value": [{"path": "../evil", "size": 1}], "next": None}
    with pytest.raises(PlatformError, match="outside its folder"):
        client.jobs.get("one").download(tmp_path / "got")


def test_a_broken_download_leaves_nothing_behind(server: FakeServer, client: Client, tmp_path: Path) -> None:
    server.routes["GET /jobs/one"] = DONE
    server.routes["GET /jobs/one/outputs"] = {"value": [{"path": "a.csv", "size": 1}], "next": None}
    server.routes["GET /jobs/one/outputs/a.csv"] = (404, error("not_found", "gone"))

    with pytest.raises(NotFoundError):
        client.jobs.get("one").download(tmp_path / "got")

    assert list((tmp_path / "got").iterdir()) == []


def test_a_stream_prints_log_and_progress_and_ends_with_the_job(
    server: FakeServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes["GET /jobs/one"] = DONE
    server.routes["GET /jobs/one/events"] = (
        b'event: status\ndata: {"status": "running", "waiting_for": null}\n\nevent: progress\ndata: null\n\n'
        b': still here\n\nevent: log\ndata: {"path": "logs/x", "line": "hello"}\n\n'
        b'event: end\ndata: {"name": "one"}\n\n'
    )

    client.jobs.get("one").stream()

    assert capsys.readouterr().out == "running\nhello\n"


def test_a_job_retries_its_failed_items_as_a_new_job(server: FakeServer, client: Client) -> None:
    server.routes["GET /jobs/one"] = FAILED
    server.routes["POST /jobs/one/retry-failed"] = (202, {"name": "two", "retry_of": "one"})
    server.routes["GET /jobs/one/errors"] = {"value": [{"file": "a.csv", "row": 7}], "next": None}
    job = client.jobs.get("one")

    assert job.errors() == [{"file": "a.csv", "row": 7}]
    assert job.retry_failed().entity.retry_of == "one"


@pytest.mark.parametrize("form", ["settings: {mini_batch_size: 5}", "mini_batch_size: 5"])
@pytest.mark.parametrize("key", ["mini_batch_size", "settings.mini_batch_size"])
def test_what_is_set_wins_over_the_file_in_either_form(tmp_path: Path, form: str, key: str) -> None:
    (tmp_path / "d.yml").write_text(f"name: blue\nendpoint_name: churn\nmodel: azureml:m:1\n{form}\n")
    declared = load(tmp_path / "d.yml", "deployment", set=[f"{key}=9"])
    assert isinstance(declared, BatchDeployment)
    assert declared.settings.mini_batch_size == 9


def test_a_setting_given_twice_in_one_file_is_refused(tmp_path: Path) -> None:
    text = "name: blue\nendpoint_name: churn\nmini_batch_size: 5\nsettings: {mini_batch_size: 6}\n"
    (tmp_path / "d.yml").write_text(text)
    with pytest.raises(InvalidEntityError, match="given twice"):
        load(tmp_path / "d.yml", "deployment")


@pytest.mark.parametrize(
    "form", ["create_job: jobs/nightly.yml", "create_job: {type: pipeline, job: ./jobs/nightly.yml}"]
)
def test_the_pipeline_of_a_schedule_is_read_from_its_file_with_paths_relative_to_that(
    tmp_path: Path, form: str
) -> None:
    (tmp_path / "jobs" / "src").mkdir(parents=True)
    (tmp_path / "jobs" / "nightly.yml").write_text(
        "type: pipeline\njobs:\n  count:\n    command: python count.py\n    code: ./src\n    environment: azureml:e:1\n"
    )
    (tmp_path / "schedule.yml").write_text(f"name: n\ntrigger: {{type: cron, expression: 0 4 * * *}}\n{form}\n")
    schedule = load(tmp_path / "schedule.yml")
    assert isinstance(schedule, Schedule)
    assert isinstance(schedule.create_job, ScheduledJob)
    assert isinstance(schedule.create_job.job, dict)
    assert schedule.create_job.job["jobs"]["count"]["code"] == str(tmp_path / "jobs" / "src")


def test_what_a_schedule_scores_is_not_uploaded_but_looked_at_each_time(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    server.routes["PUT /schedules/n"] = lambda request: request.body
    (tmp_path / "schedule.yml").write_text(
        "name: n\ntrigger: {type: cron, expression: 0 4 * * *}\n"
        "create_job: {type: invoke, endpoint_name: churn, inputs: {day: {path: 'in/{{window_start:%Y}}'}}}\n"
    )
    stored = client.create_or_update(load(tmp_path / "schedule.yml"))
    assert isinstance(stored, Schedule)
    assert stored.create_job.inputs["day"].path == str(tmp_path / "in" / "{{window_start:%Y}}")


def test_a_client_works_within_the_workspace_that_it_is_given(server: FakeServer, tmp_path: Path) -> None:
    server.routes["GET /jobs/one"] = DONE
    server.routes["GET /workspaces"] = {"value": [{"name": "default"}, {"name": "risk"}], "next": None}
    server.routes["PUT /workspaces/risk"] = lambda request: request.body
    with Client(server.url, "secret", Settings(home=tmp_path / "home"), workspace="risk") as client:
        client.jobs.get("one")
        assert [each.name for each in client.workspaces.list()] == ["default", "risk"]
        assert client.workspaces.create_or_update(NamedWorkspace(name="risk", tags={"a": "b"})).tags == {"a": "b"}
    assert {request.headers["x-batchpoint-workspace"] for request in server.requests} == {"risk"}
    with pytest.raises(InvalidEntityError, match="3 to 33"):
        Client(server.url, "secret", Settings(home=tmp_path / "home"), workspace="no such name")


@pytest.mark.parametrize("name", ["a/b", "", "..", "."])
def test_what_cannot_be_a_name_is_told_with_what_names_are_made_of(name: str) -> None:
    with pytest.raises(InvalidEntityError, match=r"made of letters, digits, '-', '_' and '\.', and begin"):
        address("models", name)
