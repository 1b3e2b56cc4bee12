"""The studio's list of jobs and the page of one, over real HTTP: plots, errors, logs, outputs, and what can be done."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchpoint.background.service import Background
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.entities.pipelines import Pipeline
from batchpoint.operations import jobs
from batchpoint.operations.histograms import histograms_of
from batchpoint.operations.run_reports import REPORT, RunReports
from batchpoint.scoring.errors_file import write_errors
from batchpoint.scoring.job_logs import JobLogs, PartLog
from batchpoint.scoring.ledger import FailedItem, Record
from batchpoint.scoring.mini_batches import ErrorInfo
from batchpoint.scoring.spec import ScoringSpec
from batchpoint.server.context import Context
from batchpoint.storage.datastores import Stores
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, eventually, invoke, make_input, open_workspace, served
from integration.test_studio import HOSTILE, finished, proof_on, signed_in

BEGAN = 1_700_000_000.0


def report_of(
    folder: Path, parts: int, *, failing: int = 0, worker: str = "process000", message: str = "bad"
) -> JobLogs:
    """What a run would have reported of so many mini-batches of ten rows, a second each."""
    logs = JobLogs(folder, ScoringSpec.model_construct(job="j"))
    for at in range(parts):
        error = "ValueError" if at < failing else ""
        seconds = {"read": 0.25, "run": 0.5, "write": 0.125}
        part = PartLog(at, 0, 10, 1, ("node-0", worker), BEGAN + at, 0.875, 0 if error else 10, seconds, error, message)
        logs.part(part)
    logs.flush()
    return logs


def errors_of(folder: Path, count: int, message: str = "row {} is bad", file: str = "data.csv") -> None:
    """The errors file of a run in which so many rows failed."""
    failures = [
        FailedItem(
            0, file, row, 1, ErrorInfo("ValueError" if row % 4 else "KeyError", message.format(row), "Traceback")
        )
        for row in range(count)
    ]
    records = [Record(at, 1, 0, 1, failures=(failure,)) for at, failure in enumerate(failures)]
    write_errors(records, folder / "errors.jsonl", "jsonl")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def stranger(workspace: Workspace) -> Iterator[httpx.Client]:
    background = Background(workspace, runner_parent=FAKE_RUNNER)
    background.start()
    with served(Context(workspace, background, server_id="s1", shares_files=True), None) as client:
        yield client
    background.stop()


@pytest.fixture
def done(workspace: Workspace, stranger: object, tmp_path: Path) -> Job:
    return finished(workspace, invoke(workspace, make_input(tmp_path / "in", "complete")))


@pytest.fixture
def reader(stranger: httpx.Client, workspace: Workspace) -> httpx.Client:
    return signed_in(stranger, workspace, "reader")


def facts(client: httpx.Client, address: str, **query: str | int) -> Any:
    answered = client.get(httpx.URL(address).copy_merge_params({"format": "json", **query}))
    assert answered.status_code == 200, answered.text
    return answered.json()


def record_outputs(
    workspace: Workspace, job: Job, files: Sequence[str], error: Mapping[str, str] | None = None
) -> None:
    """Let the job have published these files, and have failed with an error."""
    with workspace.registry.database.write() as connection:
        body = job.body()
        body["outputs"]["score"]["files"] = files
        body["error"] = error
        connection.exec_driver_sql("UPDATE jobs SET body = ? WHERE name = ?", (json.dumps(body), job.name))


def follow(client: httpx.Client, address: str, rel: str) -> str | None:
    """Where a link of a page leads."""
    found = re.search(rf'rel="{rel}" href="([^"]+)"', client.get(address).text)
    return found[1].replace("&amp;", "&") if found else None


def test_jobs_are_paged_there_and_back_filtered_searched_and_sorted(
    reader: httpx.Client,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batchpoint.server.studio.jobs.ON_A_PAGE", 2)
    path = make_input(tmp_path / "in", "complete")
    names = [finished(workspace, invoke(workspace, path)).name for _ in range(5)][::-1]
    workspace.jobs.update(names[1], display_name="Night of <b>")
    first = facts(reader, "/studio/jobs")
    assert [job["name"] for job in first["jobs"]] == names[:2]
    assert (first["found"], first.get("earlier")) == (5, None)
    second = facts(reader, first["later"])
    third = facts(reader, second["later"])
    assert [job["name"] for page in (second, third) for job in page["jobs"]] == names[2:]
    assert "later" not in third
    assert [job["name"] for job in facts(reader, third["earlier"])["jobs"]] == names[2:4]
    assert follow(reader, "/studio/jobs", "next") == first["later"]

    assert [job["name"] for job in facts(reader, "/studio/jobs", search="NIGHT")["jobs"]] == [names[1]]
    assert [job["name"] for job in facts(reader, "/studio/jobs", sort="queued")["jobs"]] == names[:2:-1]
    assert facts(reader, "/studio/jobs", status="failed")["found"] == 0
    assert facts(reader, "/studio/jobs", endpoint="churn", since="2020-01-01", until="2020-01-02")["found"] == 0
    assert facts(reader, "/studio/jobs", since="2020-01-01", until="9999-12-30")["found"] == 5
    assert facts(reader, "/studio/jobs", since="none", sort="none", until="9999-12-31")["found"] == 5
    assert reader.get("/studio/jobs?after=none").status_code == 404


def test_a_job_shows_its_timeline_its_throughput_and_where_its_time_went(reader: httpx.Client, done: Job) -> None:
    report_of(Path(str(done.folder)), 20, failing=4)
    shown = facts(reader, f"/studio/jobs/{done.name}")["report"]
    assert (shown["attempts"], shown["failed_attempts"], shown["is_whole"]) == (20, 4, True)
    assert (sum(shown["items"]), sum(shown["failed"])) == (160, 40)
    assert [worker["worker"] for worker in shown["workers"]] == ["node-0/process000"]
    spent = shown["spent"]
    assert (spent["read"], spent["run"], spent["write"]) == (5, 10, 2.5)
    assert spent["wait"] == pytest.approx(19.875 - 17.5, abs=0.01)
    page = reader.get(f"/studio/jobs/{done.name}").text
    assert page.count("<svg") == 4  # and the histogram of the predictions
    assert 'aria-label="How busy each of 1 workers was' in page


def test_a_report_is_read_as_it_grows_whatever_its_messages_hold(tmp_path: Path) -> None:
    reports, job = RunReports(), Job(name="j", folder=str(tmp_path), status=JobStatus.COMPLETED)
    assert reports.of(job) is None
    report_of(tmp_path, 3, failing=3, message='two\nlines, a "quote" and }"\nan end')
    first = reports.of(job)
    assert first is not None
    assert (first.attempts, first.failed_attempts) == (3, 3)
    whole = (tmp_path / REPORT).read_bytes()
    with (tmp_path / REPORT).open("ab") as file:
        line = whole.splitlines(keepends=True)
        more = b"".join(line[1:])
        file.write(more[:-20])
        file.flush()
        torn = reports.of(job)
        assert torn is not None
        assert torn.attempts == 5  # the last is not whole yet
        file.write(more[-20:])
        file.flush()
    last = reports.of(job)
    assert last is not None
    assert (last.attempts, last.failed_attempts) == (6, 6)


@pytest.mark.parametrize(
    "torn", [b"7,1,node-0/process0", b'7,1,node-0/p,2023-11-14T22:13:20.000000,10,0,10,0.8,0.8,0.5,RUN_EX,E,"a']
)
def test_a_line_that_a_killed_run_left_torn_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    report_of(tmp_path, 5)
    lines = (tmp_path / REPORT).read_bytes().splitlines(keepends=True)
    (tmp_path / REPORT).write_bytes(b"".join([*lines, torn, *lines[1:]]))
    shown = RunReports().of(Job(name="j", folder=str(tmp_path), status=JobStatus.COMPLETED))
    assert shown is not None
    assert shown.attempts == 9  # the first after it is of one line with it


@pytest.mark.parametrize("whole", [0, 2])
def test_a_run_that_goes_on_cuts_off_the_line_that_was_left_torn(tmp_path: Path, whole: int) -> None:
    report_of(tmp_path, whole)
    before = (tmp_path / REPORT).read_bytes()
    (tmp_path / REPORT).write_bytes(before + b'7,1,node-0/process0\n,"')
    report_of(tmp_path, 3)
    told = (tmp_path / REPORT).read_bytes()
    assert told.startswith(before)
    assert len(told.splitlines()) == 1 + whole + 3


def test_what_failed_is_grouped_and_each_group_is_paged(
    reader: httpx.Client, done: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchpoint.server.studio.job_files.ERRORS_ON_A_PAGE", 4)
    errors_of(Path(str(done.folder)), 20)
    page = f"/studio/jobs/{done.name}"
    found = facts(reader, page)["errors"]
    assert [(group["exception"], group["pattern"], group["count"]) for group in found["groups"]] == [
        ("ValueError", "row N is bad", 15), ("KeyError", "row N is bad", 5),
    ]  # fmt: skip
    link = re.search(r'href="([^"]+)">All 15 of ValueError', reader.get(page).text)
    assert link is not None
    address: str | None = link[1].replace("&amp;", "&")
    rows = []
    while address:
        rows += [item["row"] for item in facts(reader, address)["items"]]
        address = follow(reader, address, "next")
    assert rows == [row for row in range(20) if row % 4]
    assert len(facts(reader, f"{page}/errors")["items"]) == 4
    refused = reader.get(f"{page}/errors?start=7")
    assert refused.status_code == 422
    assert "No line of errors.jsonl begins at byte" in refused.text


def test_a_log_is_read_piece_by_piece_in_both_directions_and_searched_whole(
    reader: httpx.Client, done: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchpoint.server.studio.job_files.LOG_BYTES", 1000)
    lines = [f"line {at} of many" for at in range(500)]
    (Path(str(done.folder)) / "logs" / "user" / "long.txt").write_text("\n".join(lines) + "\n")
    log = f"/studio/jobs/{done.name}/logs/logs/user/long.txt"
    seen, address = "", f"{log}?start=0"
    while address:
        piece = facts(reader, address)
        assert len(piece["text"]) <= 1000
        seen, address = seen + piece["text"], follow(reader, address, "next") or ""
    assert seen.splitlines() == lines
    seen, address = "", f"{log}?until={len(seen)}"
    while address:
        seen, address = facts(reader, address)["text"] + seen, follow(reader, address, "prev") or ""
    assert seen.splitlines() == lines
    found = facts(reader, log, search="LINE 49")
    assert [hit["text"] for hit in found["hits"]] == [line for line in lines if line.startswith("line 49")]
    assert facts(reader, log, start=found["hits"][-1]["start"])["text"] == "line 499 of many\n"


def test_lines_of_a_log_are_sent_as_they_are_written_until_the_job_ends(
    stranger: httpx.Client,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    client = signed_in(stranger, workspace, "reader")
    eventually(lambda: workspace.jobs.logs(job.name))
    folder = Path(str(workspace.jobs.get(job.name).folder))
    log = folder / "logs" / "user" / "job_progress_overview.1.txt"

    def write() -> None:
        time.sleep(0.5)
        with log.open("a") as file:
            file.write(f"{HOSTILE}\nand a bit")
            file.flush()
            time.sleep(1.5)
            file.write(" more\n")
        time.sleep(1.5)
        (folder / "go").touch()

    writer = threading.Thread(target=write)
    writer.start()
    told: list[str] = []
    with client.stream("GET", f"/studio/jobs/{job.name}/tail/logs/user/{log.name}?start=5") as stream:
        for line in stream.iter_lines():
            found = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else None
            told += [found.get("text", "the end")] if found is not None else []
    writer.join()
    assert told[-1] == "the end"
    assert "".join(told[:-1]) == f"of it\n{HOSTILE}\nand a bit more\n"
    assert client.get(f"/studio/jobs/{job.name}/tail/logs/none").status_code == 404


def test_outputs_are_previewed_with_a_histogram_and_pictures_only_when_they_are_some(
    reader: httpx.Client,
    workspace: Workspace,
    done: Job,
) -> None:
    output = done.outputs["score"]
    folder = Path(str(output.folder))
    (folder / "predictions.csv").write_text("file,row,prediction\n" + "".join(f"a,{at},{at}\n" for at in range(60)))
    picture = b"\x89PNG\r\n\x1a\n" + bytes(20)
    for name, content in (("a.png", picture), ("b.png", b"<html><script>"), ("c.svg", b"<svg/>")):
        (folder / name).write_bytes(content)
    record_outputs(workspace, done, ["predictions.csv", "a.png", "b.png", "c.svg"])
    outputs = facts(reader, f"/studio/jobs/{done.name}")["outputs"]
    counted = outputs[0]["histograms"]["columns"]
    assert [(one["column"], sum(one["counts"])) for one in counted] == [("prediction", 60)]
    shown = {file["path"]: file.get("preview", {}).get("kind") for file in outputs}
    assert shown == {"predictions.csv": "table", "a.png": "image", "b.png": None, "c.svg": None}
    page = reader.get(f"/studio/jobs/{done.name}").text
    assert f'src="/studio/jobs/{done.name}/pictures/score/a.png"' in page
    seen = reader.get(f"/studio/jobs/{done.name}/pictures/score/a.png")
    assert (seen.content, seen.headers["Content-Type"]) == (picture, "image/png")
    assert seen.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("b.png", "c.svg", "predictions.csv", "none.png"):
        assert reader.get(f"/studio/jobs/{done.name}/pictures/score/{name}").status_code == 404, name


def test_the_histograms_of_a_file_are_made_once_until_it_is_written_anew(
    reader: httpx.Client, workspace: Workspace, done: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(file: Any, name: str, *how: Any) -> Any:
        made.append(name)
        return histograms_of(file, name, *how)

    monkeypatch.setattr(jobs, "histograms_of", counted)
    file = Path(str(done.outputs["score"].folder)) / "predictions.csv"
    file.write_text("file,row,prediction\na,0,1\n")
    record_outputs(workspace, done, ["predictions.csv"])
    for _ in range(3):
        shown = facts(reader, f"/studio/jobs/{done.name}")["outputs"][0]["histograms"]["columns"][0]
        assert shown["low"] == 1
    assert made == ["predictions.csv"]
    file.write_text("file,row,prediction\na,0,23\n")  # as a retry does
    assert facts(reader, f"/studio/jobs/{done.name}")["outputs"][0]["histograms"]["columns"][0]["low"] == 23


def test_a_job_is_run_again_with_what_it_was_asked_for(
    stranger: httpx.Client,
    workspace: Workspace,
    done: Job,
) -> None:
    workspace.jobs.update(done.name, tags={"night": "1"})
    client = signed_in(stranger, workspace, "operator")
    page = f"/studio/jobs/{done.name}"
    assert facts(client, page)["offers"] == ["run-again"]
    answered = client.post(f"{page}/run-again", data={"proof": proof_on(client, page)})
    again = workspace.jobs.get(answered.headers["Location"].rpartition("/")[2])
    assert again.name != done.name
    assert (again.inputs, again.tags, again.created_by) == (done.inputs, {"night": "1"}, "operator-token")
    assert again.outputs["score"].path == str(done.outputs["score"].path).replace(done.name, again.name)


def test_of_a_withheld_output_nothing_is_said_to_be_written_and_no_retry_is_offered(
    reader: httpx.Client, workspace: Workspace, done: Job, tmp_path: Path
) -> None:
    withheld = finished(workspace, invoke(workspace, make_input(tmp_path / "shifted", "withhold")))
    page = f"/studio/jobs/{withheld.name}"
    assert "1 rows withheld. It adds up." in reader.get(page).text
    assert facts(reader, page)["offers"] == ["run-again"]
    assert "1 rows written. It adds up." in reader.get(f"/studio/jobs/{done.name}").text


def test_a_reader_cannot_run_a_job_again(reader: httpx.Client, workspace: Workspace, done: Job) -> None:
    page = f"/studio/jobs/{done.name}"
    assert "<button>Run again" not in reader.get(page).text
    assert reader.post(f"{page}/run-again", data={"proof": "0" * 64}).status_code == 403
    assert len(workspace.jobs.list()) == 1


def test_a_job_leads_to_what_it_was_made_from(reader: httpx.Client, workspace: Workspace, done: Job) -> None:
    code = workspace.assets.by_name("code")[0].latest
    page = reader.get(f"/studio/jobs/{done.name}").text
    link = re.search(rf'href="(/studio/assets/code/{code.name}\?version={code.version})"', page)
    assert link is not None
    assert reader.get(link[1]).status_code == 200
    assert "mini batch size" in page


def test_a_pipeline_shows_its_steps_as_a_graph(
    reader: httpx.Client,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    steps: dict[str, Any] = {
        "count": {
            "command": "wc ${{inputs.data}} > ${{outputs.counts}}/out",
            "inputs": {"data": "${{parent.inputs.data}}"},
            "outputs": {"counts": {}},
        },
        "report": {
            "command": "cat ${{inputs.counts}}/out",
            "inputs": {"counts": "${{parent.jobs.count.outputs.counts}}"},
        },
    }
    declared = {"inputs": {"data": {"type": "uri_file", "path": str(tmp_path / "in.csv")}}, "jobs": steps}
    job = workspace.pipelines.submit(Pipeline.model_validate(declared))
    page = f"/studio/jobs/{job.name}"
    assert facts(reader, page)["reads"] == {"count": [], "report": ["count"]}
    text = reader.get(page).text
    assert text.count('class="edge"') == 1
    assert text.count('<text x="10" y="19" class="name">') == 2
    workspace.jobs.cancel(job.name)


def test_scripts_in_errors_workers_logs_and_columns_stay_text(
    reader: httpx.Client,
    workspace: Workspace,
    done: Job,
) -> None:
    folder = Path(str(done.folder))
    worker = HOSTILE.replace("/", "").replace('"', "'")
    report_of(folder, 3, failing=1, worker=worker, message=HOSTILE)
    errors_of(folder, 8, message=HOSTILE + " {}", file=HOSTILE)
    (folder / "logs" / "user" / "x.txt").write_text(f"{HOSTILE}\n")
    Path(str(done.outputs["score"].folder), "predictions.csv").write_text(f"{HOSTILE.replace(chr(34), '')}\n1\n2\n")
    workspace.jobs.update(done.name, display_name=HOSTILE)
    page = f"/studio/jobs/{done.name}"
    for address in (
        page,
        f"{page}/errors",
        f"{page}/logs/logs/user/x.txt",
        f"{page}/logs/logs/user/x.txt?search=%3Cscript%3E",
        f"/studio/jobs?search={httpx.QueryParams({'q': HOSTILE})['q'].replace('<', '%3C')}",
        "/studio/jobs?endpoint=%3Cscript%3E&sort=%3Cscript%3E&since=%3Cscript%3E",
    ):
        shown = reader.get(address)
        assert shown.status_code == 200, address
        assert "&lt;script&gt;" in shown.text, address
        assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=", shown.text), address


def test_a_job_whose_errors_file_is_gone_is_shown_all_the_same(
    reader: httpx.Client, workspace: Workspace, done: Job
) -> None:
    record_outputs(workspace, done, ["predictions.csv", "errors.jsonl"])
    page = reader.get(f"/studio/jobs/{done.name}")
    assert page.status_code == 200, page.text
    assert "errors.jsonl" in page.text  # it says what is missing


def test_an_output_whose_name_is_no_text_breaks_no_list_and_is_downloaded(
    reader: httpx.Client, workspace: Workspace, done: Job
) -> None:
    odd = os.fsdecode(b"caf\xe9.csv")
    (Path(str(done.outputs["score"].folder)) / odd).write_text("a\n1\n")
    record_outputs(workspace, done, [odd], {"code": "output_failed", "message": f"{odd} is odd", "file": odd})
    secret, _ = workspace.tokens.create("program", "reader")
    reader.headers["Authorization"] = f"Bearer {secret}"
    for address in ("/api/v1/jobs", f"/api/v1/jobs/{done.name}", "/studio/jobs", "/studio/jobs?format=json"):
        assert reader.get(address).status_code == 200, address
    assert r"caf\xe9.csv" in reader.get(f"/studio/jobs/{done.name}").text
    assert facts(reader, f"/studio/jobs/{done.name}")["outputs"][0]["path"] == r"caf\xe9.csv"
    listed = reader.get(f"/api/v1/jobs/{done.name}/outputs").json()["value"]
    assert listed == [{"path": r"caf\xe9.csv", "size": 4}]
    address = reader.get(f"/studio/jobs/{done.name}").text.partition(f'href="/studio/jobs/{done.name}/outputs/')[2]
    for kept in (
        reader.get(f"/api/v1/jobs/{done.name}/outputs/caf%5Cxe9.csv"),
        reader.get(f"/studio/jobs/{done.name}/outputs/{address.partition(chr(34))[0]}"),
    ):
        assert (kept.status_code, kept.content) == (200, b"a\n1\n")


def test_of_many_outputs_only_those_that_are_listed_are_looked_at(
    reader: httpx.Client, workspace: Workspace, done: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = Path(str(done.outputs["score"].folder)), [f"k{at:04}.txt" for at in range(1000)]
    for name in names:
        (folder / name).write_text("x")
    record_outputs(workspace, done, names)
    asked: list[str] = []
    size = Stores.size

    def counted(self: Stores, url: str, datastore: str | None = None) -> int:
        asked.append(url)
        return size(self, url, datastore)

    monkeypatch.setattr(Stores, "size", counted)
    shown = facts(reader, f"/studio/jobs/{done.name}")
    assert ([file["path"] for file in shown["outputs"]], shown["outputs_left_out"]) == (names[:200], 800)
    assert len(asked) <= 200
    asked.clear()
    secret, _ = workspace.tokens.create("program", "reader")
    sent = {"Authorization": f"Bearer {secret}"}
    assert reader.get(f"/api/v1/jobs/{done.name}/outputs/k0999.txt", headers=sent).text == "x"
    assert len(asked) == 1
