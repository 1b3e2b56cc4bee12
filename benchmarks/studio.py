"""The studio at scale: the pages of a large job and of many jobs, and what open pages cost the server.

What the pages show is written by the product's own writers: the registry, the log tree of a run, its errors file.
"""

from __future__ import annotations

import os
import select
import socket
import statistics
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import sqlalchemy
from workloads import Workload, tiny_files

from batchpoint.entities.endpoints import BatchDeployment, CodeConfiguration
from batchpoint.entities.jobs import Input, Job, JobStatus
from batchpoint.local_server import find, read_token
from batchpoint.registry.tables import jobs_table
from batchpoint.scoring.errors_file import write_errors
from batchpoint.scoring.job_logs import JobLogs, PartLog
from batchpoint.scoring.ledger import FailedItem, Record
from batchpoint.scoring.mini_batches import ErrorInfo
from batchpoint.scoring.spec import ScoringSpec
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace

JOBS, MINI_BATCHES, LOG_LINES, ERROR_ROWS, OPEN_PAGES = 100_000, 100_000, 1_000_000, 10_000, 50
ENDPOINTS, WORKERS, ROUNDS = 20, 16, 5
STATES = (*[JobStatus.COMPLETED] * 17, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.COMPLETED)
LARGE = "batchjob-large"
LOG = "logs/user/job_progress_overview.txt"
WATCHED_SECONDS = 20
FOLLOWED = Workload(
    "studio", "a job that is followed", "sleep", 1000, tiny_files(1000), (), "ideal",
    script="sleep.py", item_seconds=0.2, settings={"mini_batch_size": 1},
)  # fmt: skip
"""It goes on for longer than it is looked at."""


@dataclass(frozen=True)
class Measure:
    """One figure, and the most that it should be."""

    what: str
    value: float
    target: float


def measure_studio(home: Path, data: Path, server: Any) -> list[Measure]:
    """Open the pages of a server that runs on ``home``. ``server`` is ``product.Server``."""
    with Workspace.open(Settings(home=home)) as workspace:
        make_jobs(workspace, JOBS)
        make_large_job(workspace, home / "large")
    address, token = find(home).url, read_token(home) or ""  # type: ignore[union-attr]  # it runs

    pid = find(home).pid  # type: ignore[union-attr]  # it runs

    def fetch(path: str, **query: object) -> None:
        request = urllib.request.Request(f"{address}/studio/{path}".rstrip("/") + f"?{urlencode(query)}")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as answer:
            assert len(answer.read()) > 1000

    def opened(what: str, path: str, target: float, rounds: int = ROUNDS, **query: object) -> Measure:
        worked, times = processor_seconds(pid), []
        for _ in range(rounds):
            began = time.perf_counter()
            fetch(path, **query)
            times.append(time.perf_counter() - began)
        worked = (processor_seconds(pid) - worked) / rounds
        print(f"  {what:<76}{statistics.median(times):>7.2f} s, of the processor {worked:.2f} s", flush=True)
        return Measure(f"studio: seconds for {what}", statistics.median(times), target)

    fetch("jobs/batchjob-000001")  # whoever asks first waits for the templates
    page, log = f"jobs/{LARGE}", f"jobs/{LARGE}/logs/{LOG}"
    size = (home / "large" / LOG).stat().st_size
    large = f"a job with {MINI_BATCHES:,} mini-batches and {ERROR_ROWS:,} errors"
    many = f"{JOBS:,} jobs, "
    return [
        opened(f"{large}, at first", page, 1.0, rounds=1),
        opened("the same again", page, 1.0),
        opened(f"the end of its log of {LOG_LINES:,} lines", log, 1.0),
        opened("the middle of that log", log, 1.0, start=size // 2),
        opened("a search through all of it", log, 1.0, search="of 999999 mini"),
        opened("what failed of one kind", f"{page}/errors", 1.0, exception="TypeError"),
        opened(f"{many}the newest", "jobs", 0.3),
        opened(f"{many}far back", "jobs", 0.3, after="batchjob-000100"),
        opened(f"{many}those that failed", "jobs", 0.3, status="failed"),
        opened(f"{many}of an endpoint, of a month", "jobs", 0.3, endpoint="endpoint-3", since=month_ago()),
        opened(f"{many}found by words", "jobs", 0.3, search="night 777"),
        opened(f"{many}by the time of their end", "jobs", 0.3, sort="-finished"),
        opened(f"{many}home", "", 0.3),
        opened(f"{many}by name, far on", "jobs", 0.3, sort="name", after="batchjob-090000"),
        opened(f"{many}for programs", "jobs", 0.3, format="json"),
        followed(address, token, data, server, home),
    ]


def followed(address: str, token: str, data: Path, server: Any, home: Path) -> Measure:
    """What open pages of a running job cost the server, beyond what the job costs it: cores."""
    endpoint, path = server.deploy(FOLLOWED), FOLLOWED.prepare(data)
    job = server.client.endpoints.invoke(endpoint, input=str(path))
    while not server.client.jobs.get(job.name).progress or server.client.jobs.get(job.name).status != "running":
        time.sleep(0.2)
    pid = find(home).pid  # type: ignore[union-attr]  # it runs
    time.sleep(2)
    alone = cores_of(pid, lambda: time.sleep(WATCHED_SECONDS))
    place, sockets = urlsplit(address), []
    for _ in range(OPEN_PAGES):
        stream = socket.create_connection((str(place.hostname), place.port or 80))
        asked = f"GET /studio/jobs/{job.name}/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        stream.sendall(asked.encode())
        sockets.append(stream)
    events = dict.fromkeys(sockets, 0)
    drain(sockets, events, 3)
    with_pages = cores_of(pid, lambda: drain(sockets, events, WATCHED_SECONDS))
    for stream in sockets:
        stream.close()
    server.client.jobs.cancel(job.name)
    if min(events.values()) < WATCHED_SECONDS / 4:
        raise RuntimeError(f"some page was told next to nothing: {sorted(events.values())[:3]} parts")
    print(f"  the job alone {alone:.3f} cores, with {OPEN_PAGES} pages {with_pages:.3f}; each was sent "
          f"{statistics.mean(events.values()):.0f} parts")  # fmt: skip
    return Measure(f"studio: cores that {OPEN_PAGES} open pages of a running job take", with_pages - alone, 0.05)


def drain(sockets: list[socket.socket], events: dict[socket.socket, int], seconds: float) -> None:
    """Read what is sent, and count the parts."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for stream in select.select(sockets, [], [], left)[0]:
            events[stream] += stream.recv(1 << 20).count(b"event: part")


def cores_of(pid: int, meanwhile: Callable[[], None]) -> float:
    """Processor time of a process while something goes on, by the seconds that it took."""
    before, began = processor_seconds(pid), time.monotonic()
    meanwhile()
    return (processor_seconds(pid) - before) / (time.monotonic() - began)


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def month_ago() -> str:
    """A day."""
    return str((datetime.now(UTC) - timedelta(days=30)).date())


def make_jobs(workspace: Workspace, count: int) -> None:
    """So many jobs of twenty endpoints, a minute apart; they are over, so that nothing is run.

    One of each endpoint goes through the queue; the others are copies of its row.
    """
    begun = datetime.now(UTC) - timedelta(minutes=count)
    models = [model_of(workspace, f"endpoint-{number}") for number in range(ENDPOINTS)]
    rows = []
    for at in range(count):
        queued = begun + timedelta(minutes=at)
        name, shown = f"batchjob-{at:06}", f"night {at}" if at % 10 == 0 else None
        changes = {
            "name": name,
            "searched": f"{name} {shown or ''}",
            "status": str(STATES[at % len(STATES)]),
            "queued_at": queued,
        }
        changes |= {"started_at": queued, "finished_at": queued + timedelta(seconds=at % 400)}
        model = models[at % ENDPOINTS]
        rows.append({**model, **changes, "body": {**model["body"], "name": name, "display_name": shown}})
    store(workspace, rows)


def make_large_job(workspace: Workspace, folder: Path) -> None:
    """A job that is over, with all that its run left."""
    began = time.time() - 3600
    (folder / "output").mkdir(parents=True)
    logs = JobLogs(folder, ScoringSpec.model_construct(job=LARGE))
    for index in range(MINI_BATCHES):
        seconds = {"read": 0.02, "run": 0.3 + 0.1 * (index % 7), "write": 0.01}
        worker, at = ("node-0", f"process{index % WORKERS:03}"), began + (index // WORKERS) * 0.7
        error = "ValueError" if index % 100 == 0 else ""
        logs.part(PartLog(index, 0, 10, 1, worker, at, sum(seconds.values()), 10, seconds, error, error and "bad row"))
    for line in range(LOG_LINES):
        logs.overview(f"Processed {line} of {LOG_LINES} mini batches in 0:10:00.")
    logs.flush()
    error = ErrorInfo("ValueError", "", "Traceback (most recent call last):\n" + '  File "score.py", line 3\n' * 12)
    records = [Record(index, 10, 9, 1, failures=(failure(index, error),)) for index in range(ERROR_ROWS)]
    write_errors(records, folder / "output" / "errors.jsonl", "jsonl")
    rows = "".join(f"data.csv,{row},{row % 97 / 97}\n" for row in range(MINI_BATCHES))
    (folder / "output" / "predictions.csv").write_text("file,row,prediction\n" + rows)
    model = model_of(workspace, "endpoint-large")
    files = ["predictions.csv", "errors.jsonl"]
    output = {"score": {"folder": str(folder / "output"), "files": files, "uri": str(folder / "output")}}
    started = datetime.fromtimestamp(began, UTC)
    over = {"status": "completed", "reason": "completed", "started_at": started, "finished_at": datetime.now(UTC)}
    body = {**model["body"], "name": LARGE, "folder": str(folder), "outputs": output}
    store(workspace, [{**model, **over, "name": LARGE, "body": body}])


def failure(index: int, error: ErrorInfo) -> FailedItem:
    """One of three kinds."""
    kind, message = (
        ("ValueError", f"could not convert string to float: 'x{index}'"),
        ("TypeError", f"row {index} has no amount"),
        ("KeyError", "'amount'"),
    )[index % 3]
    return FailedItem(0, "data.csv", index, 1, ErrorInfo(kind, message, error.traceback))


def model_of(workspace: Workspace, endpoint: str) -> dict[str, Any]:
    """The row of a job, as the registry stores it."""
    code = CodeConfiguration(code="code", scoring_script="score.py")
    deployment = BatchDeployment(name="blue", endpoint_name=endpoint, code_configuration=code)
    data = {"data": Input(path="azureml://datastores/workspaceblobstore/paths/days/")}
    name = f"of-{endpoint}"
    workspace.registry.jobs.enqueue(
        Job(name=name, endpoint_name=endpoint, deployment_name="blue", deployment=deployment, inputs=data)
    )
    workspace.registry.jobs.request_cancel(name)
    with workspace.registry.database.read() as connection:
        row = connection.execute(sqlalchemy.select(jobs_table).where(jobs_table.c.name == name)).mappings().one()
    return {key: value for key, value in row.items() if key != "id"}


def store(workspace: Workspace, rows: list[dict[str, Any]]) -> None:
    """Put rows into the registry as they are."""
    with workspace.registry.database.write() as connection:
        connection.execute(jobs_table.insert(), rows)
