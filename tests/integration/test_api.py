"""The REST interface, in process: who may do what, one shape of errors, jobs watched and waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from batchpoint.background.service import Background
from batchpoint.server.context import Context
from batchpoint.server.failed_attempts import FAILURES_ALLOWED
from batchpoint.server.process import _end_if_idle
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, eventually, invoke, make_input, served

pytestmark = pytest.mark.usefixtures("churn")


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    with client_of(context, "admin") as found:
        yield found


@contextmanager
def client_of(context: Context, role: Any) -> Iterator[httpx.Client]:
    secret, _ = context.workspace.tokens.create(f"{role}-token", role)
    with served(context, secret) as client:
        yield client


def job_body(path: Path, **changes: Any) -> dict[str, Any]:
    return {"inputs": {"data": {"path": str(path)}}, **changes}


def test_an_invoke_is_answered_at_once_and_waited_for(client: httpx.Client, tmp_path: Path) -> None:
    answered = client.post("/api/v1/endpoints/churn/invoke", json=job_body(make_input(tmp_path / "in", "complete")))
    assert answered.status_code == 202, answered.text
    job = client.get(f"{answered.headers['Location']}/wait?seconds=20").json()
    assert job["status"] == "completed"
    files = client.get(f"/api/v1/jobs/{job['name']}/outputs").json()["value"]
    assert files == [{"path": "predictions.csv", "size": 13}]
    predictions = client.get(f"/api/v1/jobs/{job['name']}/outputs/predictions.csv")
    assert predictions.text == "prediction\n1\n"
    assert client.get(f"/api/v1/jobs/{job['name']}/receipt").json()["balanced"] is True
    assert client.get(f"/api/v1/jobs/{job['name']}/errors").json()["value"] == []
    logs = [file["path"] for file in client.get(f"/api/v1/jobs/{job['name']}/logs").json()["value"]]
    assert "logs/user/job_progress_overview.1.txt" in logs
    overview = client.get(f"/api/v1/jobs/{job['name']}/logs/logs/user/job_progress_overview.1.txt")
    assert overview.text == "half of it\n"


def test_the_same_idempotency_key_gives_the_same_job(client: httpx.Client, tmp_path: Path) -> None:
    body = job_body(make_input(tmp_path / "in", "complete"))
    headers = {"Idempotency-Key": "once"}
    jobs = [client.post("/api/v1/endpoints/churn/invoke", json=body, headers=headers).json() for _ in range(2)]
    assert jobs[0]["name"] == jobs[1]["name"]


def test_events_tell_status_progress_and_log_lines_until_the_end(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: workspace.jobs.get(job.name).progress)
    threading.Timer(0.3, (workspace.settings.home / "jobs" / job.name / "go").touch).start()
    with client.stream("GET", f"/api/v1/jobs/{job.name}/events") as stream:
        lines = list(stream.iter_lines())
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert kinds[0] == "status"
    assert kinds[-1] == "end"
    assert "progress" in kinds
    assert any("half of it" in line for line in lines)


def test_a_waiting_request_gives_up_when_the_time_is_over(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    assert client.get(f"/api/v1/jobs/{job.name}/wait?seconds=0.1").json()["status"] != "completed"
    assert client.post(f"/api/v1/jobs/{job.name}/cancel").status_code == 200
    assert client.get(f"/api/v1/jobs/{job.name}/wait?seconds=10").json()["status"] == "canceled"


def test_a_slip_in_a_body_is_answered_with_the_nearest_key(client: httpx.Client) -> None:
    answered = client.put("/api/v1/computes/cpu", json={"max_instance": 3})
    assert answered.status_code == 422
    assert "max_instances" in answered.text


def test_resources_are_put_patched_listed_and_deleted(client: httpx.Client) -> None:
    assert client.put("/api/v1/computes/cpu", json={"max_instances": 3}).status_code == 200
    assert client.patch("/api/v1/computes/cpu", json={"max_instances": 2}).json()["max_instances"] == 2
    page = client.get("/api/v1/computes?limit=1").json()
    assert len(page["value"]) == 1
    assert client.get(page["next"]).json()["value"]
    assert client.get("/api/v1/computes/cpu/nodes").json() == {"value": [], "next": None}
    assert client.delete("/api/v1/computes/cpu").status_code == 204
    assert client.get("/api/v1/computes/cpu").status_code == 404


def test_assets_are_registered_listed_read_and_archived(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    made = client.post("/api/v1/models", json={"name": "m", "path": str(tmp_path / "model.bin")})
    assert made.status_code == 201, made.text
    assert made.json()["version"] == "1"
    assert client.get("/api/v1/models/m/files").json()["value"] == [{"path": "model.bin", "size": 7}]
    assert client.get("/api/v1/models/m/files/model.bin").content == b"weights"
    patched = client.patch("/api/v1/models/m", json={"tags": {"a": "b"}})
    assert patched.status_code == 200, patched.text
    assert patched.json()["tags"] == {"a": "b"}
    assert client.post("/api/v1/models/m/archive").status_code == 200
    assert client.get("/api/v1/models").json()["value"] == []
    assert client.post("/api/v1/models/m/restore?version=1").status_code == 200
    assert len(client.get("/api/v1/models").json()["value"]) == 1


def test_files_go_into_a_datastore_and_come_out_whatever_their_size(client: httpx.Client) -> None:
    content = b"x" * 300_000  # more than the limit on other requests
    address = "/api/v1/datastores/workspaceblobstore/files/in/a.csv"
    assert client.put(address, content=content).json()["size"] == len(content)
    assert client.get(address).content == content
    listed = client.get("/api/v1/datastores/workspaceblobstore/files?prefix=in").json()["value"]
    assert listed == [{"path": "in/a.csv", "size": len(content)}]
    assert client.get("/api/v1/datastores/workspaceblobstore/files/in/none.csv").status_code == 404
    assert client.put("/api/v1/datastores/workspaceblobstore/files/../../evil", content=b"").status_code in {404, 422}
    assert client.put("/api/v1/datastores/workspaceblobstore/files/%2e%2e/evil", content=b"").status_code in {404, 422}


def test_a_request_that_is_too_large_is_refused(client: httpx.Client) -> None:
    declared = client.put("/api/v1/computes/cpu", content=b" " * 200_000)
    streamed = client.put("/api/v1/computes/cpu", content=iter([b" " * 60_000] * 4))
    for answered in (declared, streamed):
        assert answered.status_code == 413
        assert answered.json()["error"]["code"] == "request_too_large"


def test_roles_are_kept_apart(context: Context) -> None:
    with client_of(context, "reader") as reader, client_of(context, "operator") as operator:
        assert reader.get("/api/v1/jobs").status_code == 200
        assert reader.put("/api/v1/endpoints/other", json={}).status_code == 403
        assert operator.put("/api/v1/endpoints/other", json={}).status_code == 200
        assert operator.put("/api/v1/computes/cpu", json={}).status_code == 403
        assert operator.get("/api/v1/audit").status_code == 403
        assert reader.get("/api/v1/server").json()["role"] == "reader"


def test_every_write_leaves_a_line_in_the_audit_log(client: httpx.Client) -> None:
    client.put("/api/v1/endpoints/other", json={})
    client.put("/api/v1/endpoints/other", json={"nonsense": 1})
    lines = client.get("/api/v1/audit").json()["value"]
    assert [(line["who"], line["action"], line["target"], line["ok"]) for line in lines] == [
        ("admin-token", "endpoints.create_or_update", "/api/v1/endpoints/other", False),
        ("admin-token", "endpoints.create_or_update", "/api/v1/endpoints/other", True),
    ]


def test_a_tokens_secret_is_shown_once_and_a_revoked_token_opens_nothing(client: httpx.Client) -> None:
    made = client.post("/api/v1/tokens", json={"name": "ci", "role": "reader", "expires_in_days": 1}).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    assert client.get("/api/v1/jobs", headers=headers).status_code == 200
    assert made["secret"] not in client.get("/api/v1/tokens").text
    assert client.delete("/api/v1/tokens/ci").status_code == 200
    assert client.get("/api/v1/jobs", headers=headers).status_code == 401


def test_an_address_that_guesses_tokens_is_told_to_wait_and_shuts_nobody_else_out(client: httpx.Client) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    answers = [client.get("/api/v1/jobs", headers=wrong).status_code for _ in range(FAILURES_ALLOWED + 1)]
    assert answers == [401] * FAILURES_ALLOWED + [429]
    assert client.get("/api/v1/jobs").status_code == 200, "all programs of a machine share its address"


@pytest.mark.parametrize(
    "content",
    [
        b'{"description": "\\ud800"}',
        b'{"description": "\xff"}',
        b'{"identity": {"a": NaN}}',
        b'{"identity": ' + b'{"a":' * 200 + b"1" + b"}" * 201,
        b"[" * 100_000,
        b"{",
        b"",
    ],
)
def test_a_body_that_could_not_be_answered_with_again_is_refused(client: httpx.Client, content: bytes) -> None:
    answered = client.put("/api/v1/endpoints/odd", content=content)
    assert answered.status_code == 422, answered.text
    assert [item["name"] for item in client.get("/api/v1/endpoints").json()["value"]] == ["churn"]


def test_json_is_read_whatever_it_is_called_as_curl_calls_it_a_form(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.put("/api/v1/endpoints/curled", content=b'{"description": "x"}', headers=headers).is_success


def test_a_body_without_a_token_is_not_even_looked_at(client: httpx.Client) -> None:
    answered = client.put("/api/v1/endpoints/odd", content=b"{", headers={"Authorization": ""})
    assert answered.status_code == 401


def test_numbers_beyond_all_measure_are_refused_and_do_not_break_the_server(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    huge = 10**30
    for days in (1e308, 1e7):
        assert client.post("/api/v1/tokens", json={"name": "long", "expires_in_days": days}).status_code == 422
    assert client.get(f"/api/v1/models?offset={huge}").status_code == 422
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    assert client.get(f"/api/v1/jobs/{job.name}/logs/logs/user/x.txt?offset={huge}").status_code == 422


def test_an_empty_idempotency_key_is_none(client: httpx.Client, tmp_path: Path) -> None:
    body = job_body(make_input(tmp_path / "in", "complete"))
    answered = client.post("/api/v1/endpoints/churn/invoke", json=body, headers={"Idempotency-Key": ""})
    assert answered.status_code == 422


def test_tags_of_assets_and_jobs_are_merged_and_null_takes_one_away(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w").write_text("1")
    client.post("/api/v1/models", json={"name": "m", "path": str(tmp_path / "m"), "tags": {"a": "1"}})
    job = invoke(workspace, make_input(tmp_path / "in", "complete"))
    client.patch(f"/api/v1/jobs/{job.name}", json={"tags": {"a": "1"}})
    for address in ("/api/v1/models/m", f"/api/v1/jobs/{job.name}"):
        assert client.patch(address, json={"tags": {"b": "2"}}).json()["tags"] == {"a": "1", "b": "2"}
        changed = client.patch(address, json={"tags": {"a": None}, "description": "x"}).json()
        assert (changed["tags"], changed["description"]) == ({"b": "2"}, "x")


def test_a_server_for_others_takes_no_local_paths(context: Context, tmp_path: Path) -> None:
    context.shares_files = False
    with client_of(context, "admin") as client:
        invoked = client.post("/api/v1/endpoints/churn/invoke", json=job_body(tmp_path / "data.csv"))
        registered = client.post("/api/v1/models", json={"name": "m", "path": "/somewhere"})
        deployed = client.put(
            "/api/v1/endpoints/churn/deployments/green",
            json={"code_configuration": {"code": "/somewhere", "scoring_script": "s.py"}},
        )
        table = {"batchpoint": {"table": {"url": "sqlite:////somewhere/x.db", "name": "t"}}}
        written = client.patch("/api/v1/endpoints/churn/deployments/blue", json=table)
    for answered in (invoked, registered, deployed, written):
        assert answered.status_code == 422, answered.text
        assert "datastore" in answered.text


def test_relative_paths_are_refused_even_here(client: httpx.Client) -> None:
    answered = client.post("/api/v1/models", json={"name": "m", "path": "./model"})
    assert answered.status_code == 422
    assert "absolute" in answered.text


def test_health_needs_no_token_and_readiness_names_the_loops(context: Context) -> None:
    with served(context, None) as client:
        assert client.get("/healthz").json()["id"] == "s1"
        loops = {"dispatcher", "follower", "pipelines", "pipeline-leases", "scheduler", "webhooks"}
        assert set(client.get("/readyz").json()["checks"]) == {"registry", *loops}
        context.background.stop()
        assert client.get("/readyz").status_code == 503
        context.background = Background(context.workspace, runner_parent=FAKE_RUNNER)
        context.background.start()


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/healthz", "/api/v1/jobs", "/studio/sign-in"])
def test_no_answer_runs_scripts_from_elsewhere_beside_the_sessions_of_the_studio(
    client: httpx.Client, path: str
) -> None:
    answer = client.get(path)
    policy = answer.headers.get("content-security-policy", "")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (answer.status_code == 404) is (path in ("/docs", "/redoc"))


def test_the_interface_describes_itself(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    invoke_body = described["paths"]["/api/v1/endpoints/{name}/invoke"]["post"]["requestBody"]
    assert invoke_body["content"]["application/json"]["schema"]["$ref"] == "#/components/schemas/InvokeRequest"
    assert "mini_batch_size" in described["components"]["schemas"]["DeploymentSettings"]["properties"]


def test_a_deployment_is_changed_in_either_form(client: httpx.Client) -> None:
    address = "/api/v1/endpoints/churn/deployments/blue"
    for change in (
        {"mini_batch_size": 7, "retry_settings": {"max_retries": 1}, "instance_count": 1},
        {"settings": {"mini_batch_size": 7, "retry_settings": {"max_retries": 1}, "instance_count": 1}},
    ):
        client.patch(address, json={"settings": {"mini_batch_size": 5, "retry_settings": {"max_retries": 2}}})
        changed = client.patch(address, json=change)
        assert changed.is_success, changed.text
        settings = changed.json()["settings"]
        assert (settings["mini_batch_size"], settings["retry_settings"]["max_retries"]) == (7, 1)
        assert changed.json()["resources"] == {"instance_count": 1}


@pytest.mark.parametrize("path", ["", "folder", "folder/"])
def test_a_file_is_not_written_where_a_folder_is(client: httpx.Client, path: str) -> None:
    client.put("/api/v1/datastores/workspaceblobstore/files/folder/file", content=b"x")
    answered = client.put(f"/api/v1/datastores/workspaceblobstore/files/{path}", content=b"x")
    assert answered.status_code == 422, answered.text


def nightly(path: Path, **changes: Any) -> dict[str, Any]:
    trigger = {"type": "cron", "expression": "30 2 * * *", "time_zone": "Europe/Berlin"}
    create_job = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": str(path)}}}
    return {"trigger": trigger, "create_job": create_job, **changes}


def test_a_schedule_is_put_shown_triggered_disabled_and_deleted(client: httpx.Client, tmp_path: Path) -> None:
    body = nightly(make_input(tmp_path / "in", "complete"))
    put = client.put("/api/v1/schedules/nightly", json=body)
    assert put.status_code == 200, put.text
    assert put.json()["is_enabled"] is True
    patched = client.patch("/api/v1/schedules/nightly", json={"description": "by night", "trigger": {"end_time": None}})
    assert (patched.json()["description"], patched.json()["next_run_at"]) == ("by night", put.json()["next_run_at"])
    times = client.get("/api/v1/schedules/nightly/upcoming", params={"count": 3}).json()["value"]
    assert len(times) == 3
    assert times[0]["fire_time"] == put.json()["next_run_at"]
    fired = client.post("/api/v1/schedules/nightly/trigger")
    assert (fired.status_code, fired.json()["outcome"]) == (202, "started")
    job = client.get(fired.headers["Location"]).json()
    assert (job["schedule_name"], job["created_by"]) == ("nightly", "admin-token")
    listed = client.get("/api/v1/jobs", params={"schedule": "nightly"}).json()["value"]
    assert [one["name"] for one in listed] == [job["name"]]
    runs = client.get("/api/v1/schedules/nightly/runs", params={"outcome": "started"}).json()["value"]
    assert [(run["cause"], run["job_name"]) for run in runs] == [("manual", job["name"])]
    assert client.delete("/api/v1/schedules/nightly").json()["error"]["code"] == "conflict"
    assert client.post("/api/v1/schedules/nightly/disable").json()["is_enabled"] is False
    assert client.get("/api/v1/schedules", params={"enabled": True}).json()["value"] == []
    assert client.post("/api/v1/schedules/nightly/enable").json()["is_enabled"] is True
    assert client.delete("/api/v1/schedules/nightly", params={"force": True}).status_code == 204
    assert client.get("/api/v1/schedules/nightly").status_code == 404


def test_a_schedule_that_could_not_work_is_refused_with_key_and_reason(client: httpx.Client, tmp_path: Path) -> None:
    path = make_input(tmp_path / "in", "complete")
    for changes, told in (
        ({"trigger": {"type": "cron", "expression": "0 25 * * *"}}, "the hour 25 is not within 0 to 23"),
        ({"trigger": {"type": "cron", "expression": "0 0 30 2 *"}}, "would never fire"),
        ({"trigger": {"type": "crn"}}, "Did you mean 'cron'?"),
        ({"create_job": {"endpoint_name": "nope"}}, "no batch endpoint named nope"),
        ({"batchpoint": {"overlp": "skip"}}, "Did you mean 'overlap'?"),
    ):
        answered = client.put("/api/v1/schedules/nightly", json=nightly(path, **changes))
        assert answered.status_code in (404, 422), answered.text
        assert told in answered.json()["error"]["message"]
    assert client.get("/api/v1/schedules").json()["value"] == []


def test_a_server_for_others_takes_no_local_paths_in_schedules(context: Context, tmp_path: Path) -> None:
    path = make_input(tmp_path / "in", "complete")
    context.shares_files = False
    watching = {"trigger": {"type": "file", "path": str(tmp_path)}, "create_job": {"endpoint_name": "churn"}}
    step = {"command": "cat secret", "code": "/etc"}
    pipeline = nightly(path, create_job={"job": {"type": "pipeline", "jobs": {"read": step}}})
    with client_of(context, "operator") as client:
        for body in (nightly(path), watching, pipeline):
            answered = client.put("/api/v1/schedules/nightly", json=body)
            assert "this server listens to others" in answered.json()["error"]["message"]
    with client_of(context, "reader") as client:
        assert client.put("/api/v1/schedules/nightly", json=nightly(path)).status_code == 403
        assert client.post("/api/v1/schedules/nightly/trigger").status_code == 403


def test_a_server_does_not_end_itself_while_a_schedule_is_to_fire(context: Context, tmp_path: Path) -> None:
    workspace = context.workspace
    unused = replace(
        context, workspace=replace(workspace, settings=replace(workspace.settings, idle_shutdown_seconds=0))
    )
    server = uvicorn.Server(uvicorn.Config(lambda: None))
    with client_of(context, "admin") as client:
        client.put("/api/v1/schedules/nightly", json=nightly(make_input(tmp_path / "in", "complete")))
        _end_if_idle(server, unused)
        assert not server.should_exit
        client.post("/api/v1/schedules/nightly/disable")
    _end_if_idle(server, unused)
    assert server.should_exit


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_who_has_no_token_is_told_in_words_of_all_and_the_command_line_in_its_own(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    refused = httpx.get(f"{client.base_url}/api/v1/jobs", headers=headers)
    said = refused.json()["error"]
    assert refused.status_code == 401
    assert "BATCHPOINT_" not in said["message"]
    assert "BATCHPOINT_TOKEN" in said["details"]["on_command_line"]
