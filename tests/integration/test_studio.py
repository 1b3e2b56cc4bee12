"""The studio, over real HTTP and without a browser: who may see and do what, and that nothing shown is ever run."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from batchpoint.background.service import Background
from batchpoint.entities.assets import Data
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint, CodeConfiguration
from batchpoint.entities.jobs import Input, InvokeRequest, Job
from batchpoint.entities.schedules import Schedule
from batchpoint.errors import TooManyRequestsError
from batchpoint.registry.tables import ended_sessions_table
from batchpoint.server.context import WAITERS_ALLOWED, Context
from batchpoint.server.studio.sessions import cookie_name
from batchpoint.workspace import Workspace
from integration.served import eventually, invoke, make_input, open_workspace, served

pytestmark = pytest.mark.usefixtures("churn")

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def stranger(context: Context) -> Iterator[httpx.Client]:
    with served(context, None) as client:
        yield client


def signed_in(client: httpx.Client, workspace: Workspace, role: str, **form: str) -> httpx.Client:
    secret, _ = workspace.tokens.create(f"{role}-token", role)  # type: ignore[arg-type]  # a role
    answered = client.post("/studio/sign-in", data={"token": secret, **form})
    assert answered.status_code == 303, answered.text
    return client


def proof_on(client: httpx.Client, address: str) -> str:
    found = re.search(r'name="proof" value="([0-9a-f]{64})"', client.get(address).text)
    assert found is not None
    return found[1]


def finished(workspace: Workspace, job: Job) -> Job:
    eventually(lambda: workspace.jobs.get(job.name).status.is_finished)
    return workspace.jobs.get(job.name)


def declare_schedule(workspace: Workspace, path: Path) -> None:
    declared = {
        "name": "nightly",
        "trigger": {"type": "cron", "expression": "0 2 * * *", "time_zone": "Europe/Berlin"},
        "create_job": {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": str(path)}}},
        "is_enabled": False,
    }
    workspace.schedules.create_or_update(Schedule.model_validate(declared))


def test_a_token_becomes_a_session_that_scripts_cannot_read(
    stranger: httpx.Client, context: Context, workspace: Workspace
) -> None:
    asked = stranger.get("/studio/jobs?status=failed")
    assert asked.status_code == 303
    assert asked.headers["Location"] == "/studio/sign-in?then=%2Fstudio%2Fjobs%3Fstatus%3Dfailed"
    signed_in(stranger, workspace, "reader", then="/studio/jobs?status=failed")
    given = next(cookie for cookie in stranger.cookies.jar if cookie.name == cookie_name(context))
    assert given.path == "/studio"
    assert given.has_nonstandard_attr("HttpOnly")
    assert given.get_nonstandard_attr("SameSite") == "lax"
    assert stranger.get("/studio").status_code == 200
    assert stranger.get("/api/v1/jobs").status_code == 401  # the session is the studio's alone


def test_a_session_that_was_ended_is_of_no_use_to_who_kept_its_cookie(
    stranger: httpx.Client, context: Context, workspace: Workspace
) -> None:
    secret, _ = workspace.tokens.create("shared", "reader")
    sign_in, name = {"token": secret}, cookie_name(context)
    stranger.post("/studio/sign-in", data=sign_in)
    kept = stranger.cookies[name]
    with served(context, None) as other:
        other.post("/studio/sign-in", data=sign_in)
        stranger.post("/studio/sign-out")
        assert name not in stranger.cookies
        assert other.get("/studio").status_code == 200  # the other session of the same token goes on
        for written in (kept, f"{kept}="):
            other.cookies.clear()
            other.cookies[name] = written
            assert other.get("/studio").status_code == 303
    stranger.post("/studio/sign-in", data=sign_in)
    assert stranger.get("/studio").status_code == 200


def test_two_servers_of_one_machine_do_not_sign_each_other_out(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    signed_in(stranger, workspace, "reader")
    (tmp_path / "other").mkdir()
    with open_workspace(tmp_path / "other" / "home") as second:
        there = Context(second, Background(second), server_id="s2", shares_files=True)
        with served(there, None) as other:
            # One browser, which keeps cookies by machine and not by port.
            first, other_home = stranger.get("/studio").url, other.base_url.join("/studio")
            assert stranger.get(other_home).status_code == 303
            assert stranger.get(first).status_code == 200
            secret, _ = second.tokens.create("reader-there", "reader")
            stranger.post(other.base_url.join("/studio/sign-in"), data={"token": secret})
            assert (stranger.get(first).status_code, stranger.get(other_home).status_code) == (200, 200)
            stranger.post(other.base_url.join("/studio/sign-out"))
            assert (stranger.get(first).status_code, stranger.get(other_home).status_code) == (200, 303)


def test_nobody_ends_what_is_no_session(stranger: httpx.Client, context: Context, workspace: Workspace) -> None:
    stranger.cookies[cookie_name(context)] = "made.up.cookie"
    assert stranger.post("/studio/sign-out").status_code == 303
    with workspace.registry.database.read() as connection:
        assert connection.execute(select(ended_sessions_table)).all() == []


def test_a_revoked_token_ends_its_sessions(stranger: httpx.Client, workspace: Workspace) -> None:
    signed_in(stranger, workspace, "reader")
    workspace.tokens.revoke("reader-token")
    assert stranger.get("/studio").status_code == 303


def test_a_wrong_token_is_refused_in_words_and_signing_in_leads_to_no_other_site(stranger: httpx.Client) -> None:
    refused = stranger.post("/studio/sign-in", data={"token": "wrong", "then": "https://evil.example/"})
    assert refused.status_code == 401
    assert "The token is not known here" in refused.text
    assert "BATCHPOINT_" not in refused.text  # nobody who signs in has set a variable
    assert "evil.example" not in refused.text
    too_long = stranger.post("/studio/sign-in", content=b"token=" + b"x" * 200_000)
    assert too_long.status_code == 413
    assert too_long.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("then", ["https://evil.example/", "//evil.example", "/studio\\@evil.example", "/studious"])
def test_after_signing_in_nobody_is_led_elsewhere(stranger: httpx.Client, workspace: Workspace, then: str) -> None:
    secret, _ = workspace.tokens.create("any", "reader")
    answered = stranger.post("/studio/sign-in", data={"token": secret, "then": then})
    assert answered.headers["Location"] == "/studio"


def test_every_page_answers_people_and_programs(stranger: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    job = finished(workspace, invoke(workspace, make_input(tmp_path / "in", "complete")))
    declare_schedule(workspace, tmp_path / "in" / "data.csv")
    client = signed_in(stranger, workspace, "reader")
    log = f"/studio/jobs/{job.name}/logs/logs/user/job_progress_overview.1.txt"
    pages = [
        "/studio",
        "/studio/endpoints",
        "/studio/endpoints/churn",
        "/studio/endpoints/churn/invoke",
        "/studio/jobs",
        "/studio/schedules",
        "/studio/schedules/nightly",
        "/studio/assets/model",
        "/studio/assets/code",
        f"/studio/assets/code/{workspace.assets.by_name('code')[0].latest.name}",
        "/studio/datastores",
        "/studio/computes",
    ]
    for page in [*pages, f"/studio/jobs/{job.name}", log]:
        shown = client.get(page)
        assert shown.status_code == 200, page
        assert "script-src 'self'" in shown.headers["Content-Security-Policy"]
        assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=", shown.text), page
        facts = client.get(page, params={"format": "json"}).json()
        assert facts["title"], page
    assert client.get(f"/studio/jobs/{job.name}?format=json").json()["job"]["receipt"]["balanced"] is True
    assert client.get("/").headers["Location"] == "/studio"


def test_a_job_is_created_by_form_with_an_uploaded_file(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    client = signed_in(stranger, workspace, "operator")
    proof = proof_on(client, "/studio/endpoints/churn/invoke")
    sent = client.post(
        "/studio/endpoints/churn/invoke",
        data={"proof": proof, "deployment": "blue", "description": "by hand"},
        files={"upload": ("../rows.csv", b"a\n1\n2\n")},
    )
    assert sent.status_code == 303, sent.text
    job = workspace.jobs.get(sent.headers["Location"].rpartition("/")[2])
    assert job.description == "by hand"
    assert job.created_by == "operator-token"
    path = job.inputs["data"].path
    assert re.fullmatch(r"azureml://datastores/workspaceblobstore/paths/uploads/[0-9a-f-]{36}/rows\.csv", path)
    place = workspace.places.resolve(path)
    assert Path(place.url).read_bytes() == b"a\n1\n2\n"


def test_a_job_that_cannot_be_created_says_why_and_keeps_what_was_filled_in(
    stranger: httpx.Client, workspace: Workspace
) -> None:
    client = signed_in(stranger, workspace, "operator")
    proof = proof_on(client, "/studio/endpoints/churn/invoke")
    refused = client.post("/studio/endpoints/churn/invoke", data={"proof": proof, "path": "/no/such/file.csv"})
    assert refused.status_code == 422
    assert "/no/such/file.csv does not exist" in refused.text
    assert 'value="/no/such/file.csv"' in refused.text


def test_a_form_without_its_proof_or_with_anothers_is_refused(stranger: httpx.Client, workspace: Workspace) -> None:
    client = signed_in(stranger, workspace, "operator")
    for proof in ({}, {"proof": ""}, {"proof": "0" * 64}, {"proof": "é"}):
        answered = client.post("/studio/endpoints/churn/default", data={"deployment": "blue", **proof})
        assert answered.status_code == 403
        assert "did not come from a page of this session" in answered.text


def test_a_reader_cannot_cancel_and_is_offered_no_button_for_it(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    client = signed_in(stranger, workspace, "reader")
    assert "<button>Cancel" not in client.get(f"/studio/jobs/{job.name}").text
    assert client.post(f"/studio/jobs/{job.name}/cancel", data={"proof": "0" * 64}).status_code == 403
    assert not workspace.jobs.get(job.name).cancel_requested
    workspace.jobs.cancel(job.name)


def test_an_operator_cancels_a_job_and_the_audit_log_has_his_name(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    client = signed_in(stranger, workspace, "operator")
    page = f"/studio/jobs/{job.name}"
    answered = client.post(f"{page}/cancel", data={"proof": proof_on(client, page)})
    assert answered.headers["Location"] == page
    assert finished(workspace, job).status == "canceled"
    assert any(line.who == "operator-token" and line.action == "jobs.cancel" for line in workspace.tokens.audit())


def test_another_deployment_becomes_the_default(stranger: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    code = CodeConfiguration(code=str(tmp_path / "code"), scoring_script="score.py")
    workspace.endpoints.create_or_update_deployment(
        BatchDeployment(name="green", endpoint_name="churn", code_configuration=code)
    )
    page = "/studio/endpoints/churn"
    assert "Make default" not in signed_in(stranger, workspace, "reader").get(page).text
    client = signed_in(stranger, workspace, "operator")
    proof = proof_on(client, page)
    client.post("/studio/endpoints/churn/default", data={"proof": proof, "deployment": "green"})
    assert workspace.endpoints.get("churn").defaults.deployment_name == "green"


def test_a_schedule_is_enabled_disabled_and_triggered(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    declare_schedule(workspace, make_input(tmp_path / "in", "complete"))
    client = signed_in(stranger, workspace, "operator")
    page = "/studio/schedules/nightly"
    proof = proof_on(client, page)
    assert "cron 0 2 * * * (Europe/Berlin)" in client.get(page).text
    assert client.post(f"{page}/enable", data={"proof": proof}).headers["Location"] == page
    assert workspace.schedules.get("nightly").is_enabled
    client.post(f"{page}/disable", data={"proof": proof})
    assert not workspace.schedules.get("nightly").is_enabled
    started = client.post(f"{page}/trigger", data={"proof": proof})
    job = workspace.jobs.get(started.headers["Location"].rpartition("/")[2])
    assert job.schedule_name == "nightly"
    assert job.name in client.get(page).text


def test_what_happens_to_a_job_is_sent_to_its_page_until_it_ends(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    client = signed_in(stranger, workspace, "reader")
    parts: list[dict[str, str]] = []
    with client.stream("GET", f"/studio/jobs/{job.name}/live") as stream:
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind == "part":
                parts.append(json.loads(line.removeprefix("data: ")))
                if any("running" in part["html"] for part in parts):
                    Path(str(workspace.jobs.get(job.name).folder), "go").touch()
            elif line.startswith("data: ") and kind == "end":
                break
    states = [part["html"] for part in parts if part["id"] == "job_state"]
    assert "completed" in states[-1]
    assert any("predictions.csv" in part["html"] for part in parts if part["id"] == "job_files")


def test_scripts_in_names_logs_and_predictions_stay_text(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = finished(workspace, invoke(workspace, make_input(tmp_path / "in", "complete")))
    workspace.jobs.update(job.name, display_name=HOSTILE, description=HOSTILE, tags={"t": HOSTILE})
    folder = Path(str(job.folder))
    (folder / "logs" / "user" / f"{HOSTILE.replace('/', '')}.txt").write_text(HOSTILE)
    Path(str(job.outputs["score"].folder), "predictions.csv").write_text(f"prediction\n{HOSTILE}\n")
    client = signed_in(stranger, workspace, "reader")
    page = client.get(f"/studio/jobs/{job.name}")
    assert page.text.count("&lt;script&gt;") >= 5
    for address in [
        f"/studio/jobs/{job.name}",
        "/studio/jobs",
        "/studio",
        *re.findall(r'href="([^"]*/logs/logs/[^"]*)"', page.text),
    ]:
        assert "<script>" not in client.get(address.replace("&amp;", "&")).text, address
    saved = client.get(f"/studio/jobs/{job.name}/outputs/score/predictions.csv")
    assert saved.headers["Content-Disposition"].startswith("attachment")
    assert HOSTILE in saved.text


def test_a_jobs_columns_are_shown_with_their_drift(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = finished(workspace, invoke(workspace, make_input(tmp_path / "in", "compare")))
    plain = finished(workspace, invoke(workspace, make_input(tmp_path / "plain", "complete")))
    client = signed_in(stranger, workspace, "reader")
    page = client.get(f"/studio/jobs/{job.name}").text
    assert "greatest drift 0.700 (input &lt;script&gt;x&lt;/script&gt;)" in page
    (address,) = re.findall(r'href="([^"]*/quality)"', page)
    columns = client.get(address)
    assert "compared with" in columns.text
    assert "<td>&lt;script&gt;x&lt;/script&gt;</td>" in columns.text
    assert "20.00 %" in columns.text
    assert client.get(address, params={"format": "json"}).json()["quality"]["items"] == 10
    assert "/quality" not in client.get(f"/studio/jobs/{plain.name}").text
    assert client.get(f"/studio/jobs/{plain.name}/quality").status_code == 404


def test_neither_a_session_nor_a_token_passes_for_the_other(
    stranger: httpx.Client, context: Context, workspace: Workspace
) -> None:
    signed_in(stranger, workspace, "reader")
    session = stranger.cookies[cookie_name(context)]
    assert stranger.get("/api/v1/jobs", headers={"Authorization": f"Bearer {session}"}).status_code == 401
    secret, _ = workspace.tokens.create("notebook", "reader")
    signed, _ = workspace.tokens.exchange(secret, "https://ml.azure.com")
    with httpx.Client(base_url=stranger.base_url, cookies={cookie_name(context): signed}) as other:
        for _ in range(40):  # an old or odd cookie never shuts its owner out
            assert other.get("/studio").status_code == 303
        assert other.post("/studio/sign-in", data={"token": signed}).status_code == 401
        assert other.post("/studio/sign-in", data={"token": secret}).status_code == 303


def test_another_site_cannot_sign_somebody_in(stranger: httpx.Client, workspace: Workspace) -> None:
    secret, _ = workspace.tokens.create("attacker", "operator")
    form = {"token": secret}
    refused = stranger.post("/studio/sign-in", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert refused.status_code == 401
    assert not stranger.cookies


def test_readers_who_are_gone_early_keep_no_place_and_no_file(
    context: Context, workspace: Workspace, tmp_path: Path
) -> None:
    done = finished(workspace, invoke(workspace, make_input(tmp_path / "b", "complete")))
    running = invoke(workspace, make_input(tmp_path / "a", "wait"))
    secret, _ = workspace.tokens.create("reader", "reader")
    context._waiters = places = Places(WAITERS_ALLOWED)
    with served(context, secret) as client:
        pages = [f"/studio/jobs/{running.name}/live", f"/api/v1/jobs/{running.name}/events"]
        pages.append(f"/api/v1/jobs/{done.name}/outputs/predictions.csv")
        for page in pages * 20:
            with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
                raw.sendall(f"GET {page} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
        eventually(lambda: places.taken and context.activity.idle_seconds > 1)  # it is over with all of them
        assert all_places_are_free(context)
        workspace.jobs.cancel(running.name)
        here = Path(f"/proc/{os.getpid()}/fd")
        eventually(lambda: not [link for link in here.iterdir() if link.is_symlink() and leads_to_predictions(link)])


class Places(threading.Semaphore):
    """Counts how often one was taken."""

    taken = 0

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        self.taken += 1
        return super().acquire(blocking, timeout)


def all_places_are_free(context: Context) -> bool:
    taken = []
    try:
        taken = [context.take_waiting_place() for _ in range(WAITERS_ALLOWED)]
    except TooManyRequestsError:
        return False
    finally:
        for give_back in taken:
            give_back()
    return True


def leads_to_predictions(link: Path) -> bool:
    try:
        return link.readlink().name == "predictions.csv"
    except OSError:
        return False  # closed meanwhile


def test_a_log_whose_name_is_no_text_hides_no_other(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = finished(workspace, invoke(workspace, make_input(tmp_path / "in", "complete")))
    (Path(str(job.folder)) / "logs" / "user" / os.fsdecode(b"bad\xff.txt")).write_text("x")
    page = signed_in(stranger, workspace, "reader").get(f"/studio/jobs/{job.name}")
    assert page.status_code == 200
    assert "job_progress_overview" in page.text


def test_forms_and_calls_of_a_workspace_stay_within_it(stranger: httpx.Client, workspace: Workspace) -> None:
    workspace.within("risk").endpoints.create_or_update(BatchEndpoint(name="only-here"))
    client = signed_in(stranger, workspace, "reader")
    assert '<input type="hidden" name="workspace" value="risk">' in client.get("/studio/jobs?workspace=risk").text
    calls = client.get("/studio/endpoints/only-here?workspace=risk").text
    assert "/api/v1/endpoints/only-here/invoke?workspace=risk" in calls
    assert "-n only-here -w risk" in calls
    assert "Client(workspace=&#34;risk&#34;)" in calls


def test_a_page_shows_its_own_workspace_and_makes_none(stranger: httpx.Client, workspace: Workspace) -> None:
    client = signed_in(stranger, workspace, "admin")
    assert client.get("/studio/jobs?workspace=risk").status_code == 404
    assert [each.name for each in workspace.workspaces.list()] == ["default"]
    workspace.within("risk").endpoints.create_or_update(BatchEndpoint(name="only-here"))
    shown = client.get("/studio/endpoints?workspace=risk").text
    assert 'href="/studio/endpoints/only-here?workspace=risk"' in shown
    assert "churn" not in shown
    assert "only-here" not in client.get("/studio/endpoints").text


def test_what_does_not_exist_is_told_on_a_page(stranger: httpx.Client, workspace: Workspace) -> None:
    client = signed_in(stranger, workspace, "reader")
    for address in ("/studio/jobs/none", "/studio/endpoints/none", "/studio/nothing", "/studio/jobs/none/logs/x"):
        missing = client.get(address)
        assert missing.status_code == 404, address
        assert missing.headers["Content-Type"].startswith("text/html")
    assert client.get("/studio/jobs/none?format=json").json()["error"]["code"] == "not_found"


def test_an_error_page_keeps_the_menu_of_who_is_signed_in(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    declare_schedule(workspace, make_input(tmp_path / "in", "complete"))
    assert 'aria-label="Main"' not in stranger.get("/studio/nowhere").text
    client = signed_in(stranger, workspace, "operator")
    proof = proof_on(client, "/studio/schedules/nightly")
    workspace.endpoints.delete("churn")

    triggered = client.post("/studio/schedules/nightly/trigger", data={"proof": proof})
    assert triggered.status_code == 404
    for shown in (triggered, client.get("/studio/nowhere"), client.get("/studio/jobs/none"), client.put("/studio")):
        assert 'aria-label="Main"' in shown.text, shown.text


def test_who_may_not_create_a_job_is_not_asked_for_one(context: Context, workspace: Workspace) -> None:
    page = "/studio/endpoints/churn"
    with served(context, None) as stranger:
        reader = signed_in(stranger, workspace, "reader")
        assert f'href="{page}/invoke"' not in reader.get(page).text
        shown = reader.get(f"{page}/invoke").text
        assert "<form class=" not in shown.replace('<form class="who"', "")
        assert "creating a job needs operator" in shown
    with served(context, None) as stranger:
        operator = signed_in(stranger, workspace, "operator")
        assert f'href="{page}/invoke"' in operator.get(page).text
        assert 'name="path"' in operator.get(f"{page}/invoke").text


def test_an_input_that_is_called_so_is_named_once(stranger: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    inputs = {"input": Input(path=str(make_input(tmp_path / "in", "complete")))}
    job = workspace.endpoints.invoke("churn", InvokeRequest(inputs=inputs))
    shown = signed_in(stranger, workspace, "reader").get(f"/studio/jobs/{job.name}").text
    assert "<dt>Input</dt>" in shown
    assert "Input input" not in shown


def test_values_of_variables_and_what_opens_an_address_stand_on_no_page(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    before = workspace.endpoints.get_deployment("churn", "blue")
    assert isinstance(before, BatchDeployment)
    changes = {"environment_variables": {"API_KEY": "hush-variable"}}
    workspace.endpoints.create_or_update_deployment(before.model_copy(update=changes))
    job = finished(workspace, invoke(workspace, make_input(tmp_path / "in", "complete")))
    signed = "https://account.blob.core.windows.net/c/rows.csv?sv=2024&sig=hush-signature"
    with workspace.registry.database.write() as connection:
        body = job.body()
        body["inputs"]["data"]["path"] = signed
        body["error"] = {"code": "input_unavailable", "message": f"{signed} does not answer."}
        connection.exec_driver_sql("UPDATE jobs SET body = ? WHERE name = ?", (json.dumps(body), job.name))
    far = Data(name="far", version="1", path="https://me:hush-password@127.0.0.1:1/rows.csv", type="uri_file")
    workspace.registry.assets.register("data", far, "0" * 64, by=None)
    client = signed_in(stranger, workspace, "operator")
    for address in (
        f"/studio/jobs/{job.name}", "/studio/jobs", "/studio", "/studio/endpoints/churn",
        "/studio/endpoints/churn/invoke", "/studio/assets/data/far", "/studio/assets/data",
    ):  # fmt: skip
        for query in ("", "?format=json"):
            shown = client.get(address + query)
            assert shown.status_code == 200, address + query
            assert "hush" not in shown.text, address + query
    twin = client.get(f"/studio/jobs/{job.name}?format=json").json()["job"]
    assert twin["deployment"]["environment_variables"] == {"API_KEY": "***"}
    assert twin["inputs"]["data"]["path"].endswith("/c/rows.csv?sv=***&sig=***")
    assert "sig=***" in client.get(f"/studio/jobs/{job.name}").text
