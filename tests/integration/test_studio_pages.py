"""The studio's pages for looking around and for administrators, over real HTTP: who sees what, and nothing is run."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchpoint.background.service import Background
from batchpoint.entities.assets import Data, Environment, Model
from batchpoint.entities.jobs import Command, Job, JobStatus, Progress, Reason
from batchpoint.entities.pipeline_deployments import PipelineDeployment
from batchpoint.entities.pipelines import CommandStep, Component, InputPort
from batchpoint.entities.resources import Compute
from batchpoint.entities.schedules import RunOutcome, Schedule
from batchpoint.errors import InvalidEntityError
from batchpoint.registry.tables import jobs_table, schedule_runs_table
from batchpoint.server.context import Context
from batchpoint.server.studio import pages
from batchpoint.server.studio.admin import lifetime
from batchpoint.server.studio.computes import in_words
from batchpoint.server.studio.endpoints import form_of, request_of
from batchpoint.storage.datastores import Stores
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, invoke, make_input, open_workspace, served
from integration.test_studio import HOSTILE, finished, proof_on, signed_in

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
STORE = "/studio/datastores/workspaceblobstore"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def context(workspace: Workspace) -> Iterator[Context]:
    background = Background(workspace, runner_parent=FAKE_RUNNER)
    background.start()
    yield Context(workspace, background, server_id="s1", shares_files=True)
    background.stop()


@pytest.fixture
def stranger(context: Context) -> Iterator[httpx.Client]:
    with served(context, None) as client:
        yield client


@pytest.fixture
def idle(workspace: Workspace) -> Iterator[httpx.Client]:
    """A reader of a server that starts no job."""
    secret, _ = workspace.tokens.create("reader", "reader")
    with served(Context(workspace, Background(workspace), server_id="s1", shares_files=True), secret) as client:
        yield client


@pytest.fixture
def store(workspace: Workspace) -> Path:
    """The default datastore's folder, with a file of each kind."""
    folder = workspace.folder / "datastores" / "workspaceblobstore" / "some"
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text(f"id,{HOSTILE}\n1,{HOSTILE}\n")
    (folder / "rows.jsonl").write_text('{"id": 1}\n')
    pq.write_table(pa.table({"id": [1, 2]}), folder / "rows.parquet")
    (folder / "page.html").write_text(HOSTILE)
    (folder / "picture.svg").write_text(f"<svg>{HOSTILE}</svg>")
    (folder / "picture.png").write_bytes(PNG)
    (folder / f"{HOSTILE.replace('/', '')} é?#.txt").write_text("text")
    return folder


def links(page: httpx.Response) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="(/studio[^"]*)"', page.text)]


def test_every_new_page_answers_people_and_programs(
    stranger: httpx.Client, workspace: Workspace, store: Path, tmp_path: Path
) -> None:
    job = finished(workspace, invoke(workspace, make_input(tmp_path / "in", "complete")))
    daily = {"name": "nightly", "trigger": {"type": "cron", "expression": "0 2 * * *"}, "is_enabled": False}
    daily["create_job"] = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": str(store)}}}
    workspace.schedules.create_or_update(Schedule.model_validate(daily))
    code = workspace.assets.by_name("code")[0].latest.name
    client = signed_in(stranger, workspace, "admin")
    pages = [
        "/studio/endpoints/churn/deployments/blue/models",
        f"/studio/jobs/{job.name}/models?order=failed&failing=true",
        "/studio/schedules/nightly/grid",
        f"{STORE}/files",
        f"{STORE}/files/some",
        f"{STORE}/files/some/rows.csv",
        f"/studio/assets/code/{code}/files",
        f"/studio/assets/code/{code}/files/score.py",
        "/studio/tokens",
        "/studio/audit?who=admin-token",
    ]
    for page in pages:
        shown = client.get(page)
        assert shown.status_code == 200, f"{page}: {shown.text}"
        assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=", shown.text), page
        assert client.get(page, params={"format": "json", **dict(httpx.URL(page).params)}).json()["title"], page


def test_a_folder_leads_to_each_of_its_files_and_what_they_hold_stays_text(
    stranger: httpx.Client, workspace: Workspace, store: Path
) -> None:
    client = signed_in(stranger, workspace, "reader")
    inside = [link for link in links(client.get(f"{STORE}/files/some")) if link.startswith(f"{STORE}/files/some/")]
    assert len(inside) == len(list(store.iterdir()))
    for link in inside:
        shown = client.get(link)
        assert shown.status_code == 200, link
        assert HOSTILE not in shown.text
        kept = client.get(next(each for each in links(shown) if each.startswith(f"{STORE}/content/")))
        assert kept.headers["Content-Disposition"].startswith("attachment")
        assert kept.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert kept.headers["X-Content-Type-Options"] == "nosniff"
        assert kept.headers["Content-Type"] == "application/octet-stream"
    table = client.get(f"{STORE}/files/some/rows.csv?format=json").json()["shown"]
    assert (table["columns"], table["rows"]) == (["id", HOSTILE], [["1", HOSTILE]])
    assert client.get(f"{STORE}/files/some/rows.parquet?format=json").json()["shown"]["rows"] == [["1"], ["2"]]


def test_a_file_whose_name_is_no_text_hides_no_other_of_its_folder(
    stranger: httpx.Client, workspace: Workspace, store: Path
) -> None:
    (store / os.fsdecode(b"caf\xe9.csv")).write_text("a\n1\n")
    workspace.assets.create_or_update("data", Data(name="some", version="1", path=str(store), type="uri_folder"))
    secret, _ = workspace.tokens.create("program", "reader")
    stranger.headers["Authorization"] = f"Bearer {secret}"
    for address in ("/studio/assets/data/some", "/studio/assets/data/some/files", f"{STORE}/files/some"):
        shown = stranger.get(address)
        assert shown.status_code == 200, address
        assert r"caf\xe9.csv" in shown.text, address
        assert "rows.csv" in shown.text, address
        assert stranger.get(f"{address}?format=json").status_code == 200, address
    for address in ("/api/v1/data/some/files", "/api/v1/datastores/workspaceblobstore/files"):
        found = [file["path"].rpartition("/")[2] for file in stranger.get(address).json()["value"]]
        assert {r"caf\xe9.csv", "rows.csv"} <= set(found), address
    assert stranger.get("/api/v1/data/some/files/caf%5Cxe9.csv").content == b"a\n1\n"


def test_what_an_environment_needs_is_shown_as_it_was_written(stranger: httpx.Client, workspace: Workspace) -> None:
    needs = {"dependencies": ["python=3.11", {"pip": ["numpy>=1.26,<2", f"é{HOSTILE}"]}]}
    workspace.assets.create_or_update("environment", Environment(name="pinned", version="1", conda_file=needs))
    page = signed_in(stranger, workspace, "reader").get("/studio/assets/environment/pinned").text
    assert HOSTILE not in page
    assert '"numpy>=1.26,<2"' in html.unescape(page)
    assert json.dumps(f"é{HOSTILE}", ensure_ascii=False) in html.unescape(page)


def test_of_an_asset_of_many_files_some_are_listed_and_no_others_looked_at(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many").mkdir()
    for at in range(300):
        (tmp_path / "many" / f"{at:03}.txt").write_text("x")
    workspace.assets.create_or_update("data", Data(name="many", version="1", path=str(tmp_path / "many")))
    client = signed_in(stranger, workspace, "reader")
    monkeypatch.setattr(Stores, "list", None)  # which looks at all of them
    told = client.get("/studio/assets/data/many?format=json").json()
    assert (len(told["files"]), told["has_more_files"]) == (200, True)
    assert "There are more files." in client.get("/studio/assets/data/many").text


def test_only_what_is_an_image_by_its_bytes_is_shown_as_one(
    stranger: httpx.Client, workspace: Workspace, store: Path
) -> None:
    client = signed_in(stranger, workspace, "reader")
    page = client.get(f"{STORE}/files/some/picture.png")
    address = html.unescape(re.findall(r'<img class="picture" src="([^"]+)"', page.text)[0])
    shown = client.get(address)
    assert (shown.headers["Content-Type"], shown.content) == ("image/png", PNG)
    assert shown.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    for other in ("picture.svg", "page.html", "rows.csv"):
        assert client.get(f"{STORE}/content/some/{other}?shown=true").status_code == 422
        assert "<img" not in client.get(f"{STORE}/files/some/{other}").text


def test_nobody_is_led_out_of_a_datastore_or_an_asset(
    stranger: httpx.Client, workspace: Workspace, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (store / "out").symlink_to(tmp_path)
    workspace.assets.create_or_update(
        "model", Model(name="m", path="azureml://datastores/workspaceblobstore/paths/some")
    )
    client = signed_in(stranger, workspace, "reader")
    assert "out" not in [entry["name"] for entry in client.get(f"{STORE}/files/some?format=json").json()["entries"]]
    for kind in ("files", "content"):
        for path in ("some/out/secret.txt", "%2e%2e/%2e%2e/token", "some/%00", "some/" + "x" * 300, "none.txt"):
            answered = client.get(f"{STORE}/{kind}/{path}")
            assert answered.status_code in (404, 422), f"{kind} {path}: {answered.status_code}"
            assert "secret\n" not in answered.text
        assert client.get(f"/studio/assets/model/m/{kind}/rows.csv").status_code == 200
        assert client.get(f"/studio/assets/model/m/{kind}/out/secret.txt").status_code in (404, 422)
        assert client.get(f"/studio/assets/model/m/{kind}/%00").status_code == 422


def test_a_form_chooses_what_a_job_does_otherwise_than_its_deployment() -> None:
    given = {"path": "/a.csv", "deployment": "blue", "mini_batch_size": "10MB", "error_threshold": "-1"}
    request = request_of(given)
    assert (request.deployment_name, request.overrides.mini_batch_bytes, request.overrides.error_threshold) == (
        "blue", 10 << 20, -1,
    )  # fmt: skip
    planned = Job(name="plan-1", inputs=request.inputs, overrides=request.overrides, deployment_name="blue")
    assert request_of(form_of(planned)) == request
    with pytest.raises(InvalidEntityError, match="Say what to score"):
        request_of({"path": ""})
    with pytest.raises(InvalidEntityError, match="instance_count"):
        request_of({"path": "/a.csv", "instance_count": "many"})


def test_a_pipeline_is_started_by_a_form_with_a_field_for_each_of_its_inputs(
    stranger: httpx.Client, workspace: Workspace
) -> None:
    ports = {
        "raw": InputPort(type="uri_file"),
        "rate": InputPort(type="number", default=0.5),
        "mode": InputPort(type="string", optional=True),
        "count": InputPort(type="integer"),
    }
    bound = {name: f"${{{{parent.inputs.{name}}}}}" for name in ports if name != "mode"}
    step = CommandStep(command="cat ${{inputs.raw}}; echo ${{inputs.rate}} ${{inputs.count}}", inputs=bound)
    workspace.assets.create_or_update(
        "component", Component(name="prices", type="pipeline", inputs=ports, jobs={"say": step})
    )
    workspace.endpoints.create_or_update_deployment(
        PipelineDeployment(name="prices", endpoint_name="churn", component="azureml:prices:1")
    )
    client = signed_in(stranger, workspace, "operator")
    assert "/studio/endpoints/churn/invoke?deployment=prices" in links(client.get("/studio/endpoints/churn/invoke"))
    form = client.get("/studio/endpoints/churn/invoke?deployment=prices").text
    assert re.findall(r'name="(input\.\w+)"[^>]*value="([^"]*)"', form) == [
        ("input.raw", ""), ("input.rate", "0.5"), ("input.mode", ""), ("input.count", ""),
    ]  # fmt: skip
    assert "Plan it first" not in form
    assert "Mini-batch size" not in form

    given = {"proof": proof_on(client, "/studio/endpoints/churn/invoke"), "deployment": "prices", "input.rate": "0.25"}
    path, file = "/studio/endpoints/churn/invoke", {"upload": ("rows.csv", b"a\n1\n")}
    refused = client.post(path, data={**given, "input.count": "many"}, files=file)
    assert refused.status_code == 422
    assert "count" in html.unescape(refused.text)
    assert 'name="input.rate" value="0.25"' in refused.text
    sent = client.post(path, data={**given, "input.count": "3"}, files=file)
    assert sent.status_code == 303, sent.text
    job = workspace.jobs.get(sent.headers["Location"].rpartition("/")[2])
    assert (job.type, job.deployment_name) == ("pipeline", "prices")
    assert job.literals == {"rate": 0.25, "count": 3}
    assert job.inputs["raw"].path.endswith("/rows.csv")


def test_a_plan_leads_back_to_the_form_with_what_was_filled_in(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    path = make_input(tmp_path / "in", "complete")
    client = signed_in(stranger, workspace, "operator")
    form = "/studio/endpoints/churn/invoke"
    given = {"proof": proof_on(client, form), "path": str(path), "error_threshold": "7"}
    sent = client.post("/studio/endpoints/churn/plan", data=given)
    assert sent.status_code == 303, sent.text
    shown = client.get(sent.headers["Location"])  # what stands in for the runner makes no forecast
    assert "could not be scored" in shown.text
    assert f'value="{path}"' in shown.text
    assert 'name="error_threshold" value="7"' in shown.text
    assert workspace.jobs.list() == []
    refused = client.post("/studio/endpoints/churn/plan", data={**given, "path": "/no/such.csv"})
    assert refused.status_code == 422
    assert "/no/such.csv does not exist" in refused.text


def test_a_token_is_made_and_shown_once_and_revoked(stranger: httpx.Client, workspace: Workspace) -> None:
    client = signed_in(stranger, workspace, "admin")
    proof = proof_on(client, "/studio/tokens")
    made = client.post("/studio/tokens", data={"proof": proof, "name": "night", "role": "reader", "days": "2"})
    secret = re.findall(r'<pre id="secret"[^>]*>([^<]+)</pre>', made.text)[0]
    token = workspace.tokens.authenticate(secret)
    assert (token.name, token.role, token.created_by) == ("night", "reader", "admin-token")
    assert token.expires_at is not None
    assert secret not in client.get("/studio/tokens").text
    assert secret not in client.get("/studio/audit").text
    again = client.post("/studio/tokens", data={"proof": proof, "name": "night", "role": "reader"})
    assert (again.status_code, "exists already" in again.text) == (422, True)
    odd = client.post("/studio/tokens", data={"proof": proof, "name": "x", "role": "king"})
    assert odd.status_code == 422
    client.post("/studio/tokens/night/revoke", data={"proof": proof})
    assert workspace.tokens.list()[-1].revoked_at is not None
    noted = client.get("/studio/audit?action=tokens.revoke&format=json").json()["records"]
    assert [(one["who"], one["target"], one["ok"]) for one in noted] == [
        ("admin-token", "/studio/tokens/night/revoke", True)
    ]


@pytest.mark.parametrize("role", ["reader", "operator"])
def test_tokens_and_audit_are_for_administrators(stranger: httpx.Client, workspace: Workspace, role: str) -> None:
    client = signed_in(stranger, workspace, role)
    # No page has a form for a reader; nobody looks at what he sends with it.
    proof = proof_on(client, "/studio/endpoints/churn/invoke") if role == "operator" else "0" * 64
    for page in ("/studio/tokens", "/studio/audit"):
        assert client.get(page).status_code == 403
    sent = {"proof": proof, "name": "mine", "role": "admin"}
    assert client.post("/studio/tokens", data=sent).status_code == 403
    assert client.post(f"/studio/tokens/{role}-token/revoke", data=sent).status_code == 403
    assert [token.name for token in workspace.tokens.list()] == [f"{role}-token"]
    assert "Audit" not in client.get("/studio").text


@pytest.mark.parametrize("days", ["0", "-1", "many", "nan", "1e9"])
def test_a_token_is_valid_for_a_time_that_there_is(days: str) -> None:
    with pytest.raises(InvalidEntityError, match="no number of days"):
        lifetime(days)
    assert lifetime("") is None
    assert lifetime("0.5") == timedelta(hours=12)


def test_a_reader_chooses_nothing_to_backfill_and_a_rectangle_without_times_is_refused_in_words(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    path = make_input(tmp_path / "in", "complete")
    declared = {"name": "nightly", "trigger": {"type": "cron", "expression": "0 2 * * *"}, "is_enabled": False}
    declared["create_job"] = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": str(path)}}}
    workspace.schedules.create_or_update(Schedule.model_validate(declared))
    grid = "/studio/schedules/nightly/grid"
    client = signed_in(stranger, workspace, "reader")
    assert "Backfill</button>" not in client.get(grid).text
    assert client.post("/studio/schedules/nightly/backfill", data={"proof": "0" * 64}).status_code == 403
    client = signed_in(stranger, workspace, "operator")
    sent = {"proof": proof_on(client, grid)}
    assert "Choose 1 to" in client.post("/studio/schedules/nightly/backfill", data=sent).text
    assert client.post("/studio/schedules/nightly/backfill", data={**sent, "time": "soon"}).status_code == 422
    for wrong in ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00", "1399-01-01"):
        assert client.get(f"{grid}?until={wrong}").status_code == 422
    times = client.get(f"{grid}?format=json").json()["times"][-2:]
    started = client.post("/studio/schedules/nightly/backfill", data={**sent, "time": times})
    assert started.headers["Location"] == grid
    assert [run.cause for run in workspace.schedules.runs("nightly")] == ["backfill"] * 2


def ended(workspace: Workspace, name: str, reason: Reason = Reason.COMPLETED, *, failed: int = 0) -> None:
    """A job that ended a moment ago."""
    jobs = workspace.registry.jobs
    jobs.enqueue(Job(name=name))
    claim = jobs.claim("somebody", 60)
    assert claim is not None
    jobs.transition(name, claim.lease_token, JobStatus.RUNNING)
    jobs.finish(name, claim.lease_token, reason, progress=Progress(failed=failed))


def put_back(workspace: Workspace, name: str, by: timedelta) -> None:
    """As though the job had ended earlier."""
    table = jobs_table
    with workspace.registry.database.write() as connection:
        then = workspace.registry.now() - by
        connection.execute(table.update().where(table.c.name == name).values(finished_at=then))


def test_home_tells_all_that_went_wrong_since_yesterday_however_much_ended_after_it(
    idle: httpx.Client, workspace: Workspace
) -> None:
    ended(workspace, "long-ago", Reason.SCORING_SCRIPT_FAILED)
    put_back(workspace, "long-ago", timedelta(hours=25))
    ended(workspace, "in-the-night", failed=40)
    put_back(workspace, "in-the-night", timedelta(hours=23))
    for number in range(12):
        ended(workspace, f"broken-{number}", Reason.SCORING_SCRIPT_FAILED)
    for number in range(210):
        ended(workspace, f"well-{number}")
    home = idle.get("/studio?format=json").json()
    assert [job["name"] for job in home["went_wrong"]] == [f"broken-{number}" for number in range(11, 1, -1)]
    assert home["went_wrong_found"] == 13
    assert home["finished"][0]["name"] == "well-209"
    page = idle.get("/studio")
    assert "3 more" in page.text
    more = next(link for link in links(page) if "wrong=true" in link)
    listed = idle.get(more, params={"format": "json", **dict(httpx.URL(more).params)}).json()
    assert listed["found"] == 13
    assert listed["jobs"][-1]["name"] == "in-the-night"


def test_home_is_sent_anew_as_long_as_it_is_looked_at(
    idle: httpx.Client, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "APART_SECONDS", 0.05)
    monkeypatch.setattr(pages, "LOOK_SECONDS", 0.05)
    with idle.stream("GET", "/studio/live") as told:
        lines = told.iter_lines()
        assert "No job is queued or running." in next(line for line in lines if "home_at_work" in line)
        workspace.registry.jobs.enqueue(Job(name="just-now"))
        assert "just-now" in next(line for line in lines if "home_at_work" in line)
    for page in ("", "/jobs", "/computes", "/schedules"):
        assert re.search(r'As of <time datetime="20[^>]*>20\d\d-', idle.get(f"/studio{page}").text), page


def test_home_tells_which_times_of_schedules_had_no_job_however_many_had_one_afterwards(
    idle: httpx.Client, workspace: Workspace, store: Path
) -> None:
    often = {"name": "often", "trigger": {"type": "cron", "expression": "0 2 * * *"}, "is_enabled": False}
    often["create_job"] = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": str(store)}}}
    workspace.schedules.create_or_update(Schedule.model_validate(often))
    now = workspace.registry.now()

    def fired(hours: int, minute: int, outcome: RunOutcome) -> None:
        at = now - timedelta(hours=hours, minutes=minute)
        values = {"schedule_name": "often", "cause": "tick", "fire_at": at, "outcome": str(outcome)}
        details = {"window_start": at.isoformat(), "window_end": at.isoformat()}
        with workspace.registry.database.write() as connection:
            connection.execute(schedule_runs_table.insert().values(workspace="default", details=details, **values))

    fired(25, 0, RunOutcome.FAILED)
    for minute in range(12):
        fired(20, minute, RunOutcome.FAILED if minute else RunOutcome.MISSED)
    for minute in range(12):
        fired(10, minute, RunOutcome.STARTED)
    home = idle.get("/studio?format=json").json()
    assert len(home["not_started"]) == 10
    assert (home["not_started"][0]["outcome"], home["not_started_found"]) == ("missed", 12)
    assert "2 more" in idle.get("/studio").text


def test_a_job_that_its_retry_repaired_says_so_at_the_top_and_went_wrong_no_more(
    stranger: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    job = finished(workspace, invoke(workspace, make_input(tmp_path / "in", "die")))
    client = signed_in(stranger, workspace, "operator")

    def wrong() -> list[str]:
        return [one["name"] for one in client.get("/studio?format=json").json()["went_wrong"]]

    assert wrong() == [job.name]
    make_input(tmp_path / "in", "complete")
    again = finished(workspace, workspace.jobs.retry_failed(job.name))
    assert again.status is JobStatus.COMPLETED
    assert wrong() == []
    page = f"/studio/jobs/{job.name}"
    assert f'Repaired by <a href="/studio/jobs/{again.name}">{again.name}</a>: 1 row.' in client.get(page).text
    assert "retry-failed" not in client.get(f"{page}?format=json").json()["offers"]
    assert "Repaired by" not in client.get(f"/studio/jobs/{again.name}").text


def test_a_compute_shows_what_comes_next_on_it_and_how_much_more_waits(
    idle: httpx.Client, workspace: Workspace
) -> None:
    workspace.resources.create_or_update("compute", Compute(name="gpu", max_instances=1))
    jobs, train = workspace.registry.jobs, Command(command="train", compute="azureml:gpu")
    jobs.enqueue(Job(name="whole", type="pipeline"))
    for number, pipeline in enumerate((None, "whole", None)):
        jobs.enqueue(Job(name=f"gpu-{number}", type="command", command=train, parent_job_name=pipeline))
    for number in range(60):
        jobs.enqueue(Job(name=f"later-{number}"))
    found = {one["compute"]["name"]: one for one in idle.get("/studio/computes?format=json").json()["computes"]}
    waits = [(job["name"], job.get("waiting_for", "")[:10]) for job in found["gpu"]["waiting"]]
    assert waits == [("gpu-0", ""), ("gpu-1", "Position 2"), ("gpu-2", "Position 3")]
    assert [job["name"] for job in found["local"]["waiting"]] == [f"later-{number}" for number in range(50)]
    page = idle.get("/studio/computes").text
    assert "3 jobs wait" in page
    assert "60 jobs wait" in page
    assert 'a step of <a href="/studio/jobs/whole">' in page


def test_an_instance_says_what_its_job_is_and_how_far() -> None:
    job = Job(name="j", status=JobStatus.RUNNING, endpoint_name="churn", deployment_name="blue")
    assert in_words(job) == "churn / blue, running"
    assert in_words(job.model_copy(update={"progress": Progress(fraction=0.42)})) == "churn / blue, running, 42 %"
