"""Schedules by the shipped commands: on a moved clock across a change to summer time, and for new files."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchpoint.client import Client
from postgres_server import running_postgres
from shipped import Shipped

SCRIPT = """
from pathlib import Path

def init():
    pass

def run(mini_batch):
    return [len(Path(path).read_text().splitlines()) for path in mini_batch]
"""

DEPLOYMENT = """
name: lines
endpoint_name: counting
code_configuration:
  code: code
  scoring_script: score.py
"""

NIGHTLY = """
$schema: https://azuremlschemas.azureedge.net/latest/schedule.schema.json
name: nightly
trigger:
  type: cron
  expression: "30 2 * * *"
  time_zone: W. Europe Standard Time
create_job:
  type: invoke
  endpoint_name: counting
  inputs:
    day:
      path: in
  tags:
    from: "{{window_start}}"
    to: "{{window_end}}"
"""

ARRIVALS = """
name: arrivals
trigger:
  type: file
  path: azureml://datastores/workspaceblobstore/paths/landing
  include: ["*.txt"]
  poll_seconds: 0.3
  settle_seconds: 2.5
create_job:
  type: invoke
  endpoint_name: counting
"""


READINGS = """
name: readings-of-the-hour
trigger: {type: cron, expression: "0 * * * *", time_zone: Europe/Berlin}
create_job:
  type: invoke
  endpoint_name: heat
  inputs:
    readings:
      path: azureml://datastores/readings
      query: |
        select ts, value from readings
        where ts >= '{{window_start:%Y-%m-%d %H:%M:%S}}' and ts < '{{window_end:%Y-%m-%d %H:%M:%S}}'
        order by ts
batchpoint: {missed: run_all}
"""

HEAT = """
name: heat
endpoint_name: heat
code_configuration: {code: code, scoring_script: heat.py}
batchpoint: {mini_batch_type: dataframe, key_columns: [ts]}
"""


def eventually(found: Callable[[], Any], seconds: float = 30) -> Any:
    """What is found, once there is something."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return result


class Desk:
    """A working folder and the commands."""

    def __init__(self, shipped: Shipped, folder: Path) -> None:
        self.shipped, self.folder = shipped, folder
        self.clock = folder / "clock"

    def deploy(self) -> None:
        (self.folder / "code").mkdir()
        (self.folder / "code" / "score.py").write_text(SCRIPT)
        (self.folder / "in").mkdir()
        (self.folder / "in" / "a.txt").write_text("1\n2\n")
        (self.folder / "deployment.yml").write_text(DEPLOYMENT)
        self.do("endpoint", "create", "-n", "counting")
        self.do("deployment", "create", "-f", "deployment.yml", "--set-default")

    def do(self, *arguments: str) -> Any:
        return json.loads(self.shipped.ok(*arguments, "-o", "json", cwd=self.folder) or "null")

    def schedule(self, text: str) -> Any:
        (self.folder / "schedule.yml").write_text(text)
        return self.do("schedule", "create", "-f", "schedule.yml")

    def move_clock(self, to: str) -> None:
        partial = self.clock.with_suffix(".partial")
        partial.write_text(to)
        partial.replace(self.clock)

    def runs(self, name: str) -> list[dict[str, Any]]:
        """What became of each time, the oldest first."""
        server = self.shipped.server()
        with Client(server["url"], server["token"]) as client:
            found = [run.model_dump(mode="json", exclude_none=True) for run in client.schedules.runs(name)]
        return found[::-1]

    def acted_on(self, name: str, times: int = 1) -> list[dict[str, Any]]:
        """What became of each time, once there are so many and none is being started."""

        def found() -> list[dict[str, Any]]:
            runs = self.runs(name)
            return runs if len(runs) >= times and all(run["outcome"] != "pending" for run in runs) else []

        made: list[dict[str, Any]] = eventually(found)
        return made

    def output(self, job: str) -> list[str]:
        ended = self.shipped.wait(job)
        assert ended["status"] == "Completed", ended.get("error")
        return sorted((self.shipped.output(job) / "predictions.csv").read_text().splitlines()[1:])


@pytest.fixture
def desk(shipped: Shipped, tmp_path: Path) -> Desk:
    (tmp_path / "work").mkdir()
    return Desk(shipped, tmp_path / "work")


@pytest.fixture
def moved(desk: Desk) -> Iterator[Desk]:
    """A desk whose server goes by a clock that the test moves."""
    desk.move_clock("2026-03-28T12:00:00+00:00")
    with moved_server(desk.shipped, desk.clock):
        yield desk


@contextmanager
def moved_server(shipped: Shipped, clock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server of a home, by a clock that the test moves."""
    script = Path(__file__).resolve().parents[1] / "moved_server.py"
    with subprocess.Popen([sys.executable, str(script), str(clock)], env=shipped.environment()) as server:
        try:
            eventually((shipped.home / "server.json").exists, seconds=60)
            yield server
        finally:
            server.terminate()


def test_a_schedule_fires_on_a_moved_clock_across_the_change_to_summer_time(moved: Desk) -> None:
    moved.deploy()
    assert moved.schedule(NIGHTLY)["next_run_at"] == "2026-03-29T01:00:00Z"
    upcoming = moved.do("schedule", "upcoming", "-n", "nightly", "--count", "3")
    assert [time["local_time"] for time in upcoming] == [
        "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00",
    ]  # fmt: skip

    moved.move_clock("2026-03-29T00:59:59+00:00")
    moved.do("schedule", "update", "-n", "nightly", "--set", "description=wakes the scheduler")
    assert moved.runs("nightly") == []
    moved.move_clock("2026-03-29T01:00:00+00:00")
    first = moved.acted_on("nightly")[0]
    assert (first["fire_at"], first["outcome"]) == ("2026-03-29T01:00:00Z", "started")
    assert first["job_name"] == "nightly-20260329T010000Z"
    job = moved.shipped.wait(first["job_name"])
    assert job["tags"] == {"schedule": "nightly", "from": "2026-03-28T01:30:00Z", "to": "2026-03-29T01:00:00Z"}
    assert moved.output(first["job_name"]) == ["a.txt,2"]

    moved.move_clock("2026-03-30T00:30:00+00:00")
    assert moved.acted_on("nightly", 2)[1]["job_name"] == "nightly-20260330T003000Z"
    moved.shipped.wait("nightly-20260330T003000Z")

    moved.move_clock("2026-03-30T08:00:00+00:00")
    now = moved.do("schedule", "trigger", "-n", "nightly")
    assert now["tags"]["from"] == "2026-03-30T00:30:00Z"
    assert moved.output(now["name"]) == ["a.txt,2"]
    assert len(moved.do("job", "list", "--schedule", "nightly")) == 3


def test_each_reading_of_a_database_is_scored_once_though_the_server_was_killed_for_the_change_to_summer_time(
    desk: Desk,
) -> None:
    begin = datetime(2026, 3, 28, 22, tzinfo=UTC)
    times = [f"{begin + timedelta(minutes=each):%Y-%m-%d %H:%M:%S}" for each in range(0, 300, 20)]
    with closing(sqlite3.connect(desk.folder / "readings.db")) as database, database:
        database.execute("create table readings (ts text, value real)")
        database.executemany("insert into readings values (?, 1.5)", [(each,) for each in times])
    desk.move_clock("2026-03-28T22:30:00+00:00")
    with moved_server(desk.shipped, desk.clock) as server:
        (desk.folder / "code").mkdir()
        (desk.folder / "code" / "heat.py").write_text("def run(rows):\n    return rows['value'] > 1\n")
        (desk.folder / "heat.yml").write_text(HEAT)
        address = f"url=sqlite:///{desk.folder}/readings.db"
        desk.do("datastore", "create", "-n", "readings", "--type", "sql", "--set", address)
        desk.do("endpoint", "create", "-n", "heat")
        desk.do("deployment", "create", "-f", "heat.yml", "--set-default")
        desk.schedule(READINGS)
        desk.move_clock("2026-03-28T23:00:00+00:00")
        desk.acted_on("readings-of-the-hour")
        server.kill()
    (desk.shipped.home / "server.json").unlink()
    desk.move_clock("2026-03-29T03:05:00+00:00")
    with moved_server(desk.shipped, desk.clock):
        runs = desk.acted_on("readings-of-the-hour", 5)
        try:
            scored = [line.partition(",")[0] for run in runs for line in desk.output(run["job_name"])]
        finally:
            desk.shipped.stop()
    assert [run["fire_at"][11:16] for run in runs] == ["23:00", "00:00", "01:00", "02:00", "03:00"]
    assert scored == times


def test_a_file_that_is_still_being_written_starts_its_job_once_and_whole(desk: Desk) -> None:
    desk.deploy()
    landing = desk.shipped.home / "datastores" / "workspaceblobstore" / "landing"
    landing.mkdir(parents=True)
    (landing / "old.txt").write_text("there before\n")
    desk.schedule(ARRIVALS)
    with (landing / "slow.txt").open("w") as growing:
        for number in range(8):
            growing.write(f"{number}\n")
            growing.flush()
            os.fsync(growing.fileno())
            time.sleep(0.3)
        assert desk.runs("arrivals") == []
    (landing / "other.bin").write_bytes(b"not asked for")
    run = desk.acted_on("arrivals")[0]
    assert (run["cause"], run["outcome"], run["files"]) == ("files", "started", 1)
    assert desk.output(run["job_name"]) == ["slow.txt,8"]

    refused = desk.shipped.run("schedule", "delete", "-n", "arrivals", "--yes", cwd=desk.folder)
    assert refused.returncode == 4
    assert "Disable it first" in refused.stderr
    assert not desk.do("schedule", "disable", "-n", "arrivals")["is_enabled"]

    (landing / "next.txt").write_text("a\nb\n")
    job = desk.do("schedule", "trigger", "-n", "arrivals")
    assert desk.output(job["name"]) == ["next.txt,2"]
    again = desk.shipped.run("schedule", "trigger", "-n", "arrivals", cwd=desk.folder)
    assert again.returncode == 4
    assert "There are no new files" in again.stderr
    assert len(desk.runs("arrivals")) == 2
    assert desk.do("schedule", "list") == []
    assert [one["name"] for one in desk.do("schedule", "list", "--disabled-only")] == ["arrivals"]
    desk.shipped.ok("schedule", "delete", "-n", "arrivals", "--yes", cwd=desk.folder)


HOURLY = (
    NIGHTLY.replace("nightly", "hourly").replace("30 2 * * *", "0 * * * *").replace("W. Europe Standard Time", "UTC")
)


@pytest.mark.postgres
@pytest.mark.timeout(280)
def test_two_servers_on_one_postgresql_make_one_job_for_each_tick_though_one_of_them_is_killed(tmp_path: Path) -> None:
    with running_postgres() as url, ExitStack() as opened:
        (tmp_path / "work").mkdir()
        homes = [Shipped(tmp_path / name, {"BATCHPOINT_DATABASE_URL": url}) for name in ("one", "two")]
        desk = Desk(homes[0], tmp_path / "work")
        desk.move_clock("2026-03-28T12:30:00+00:00")
        servers = [opened.enter_context(moved_server(home, desk.clock)) for home in homes]
        desk.deploy()
        desk.schedule(HOURLY)
        for hour in range(13, 19):
            if hour == 16:
                servers[1].kill()
            desk.move_clock(f"2026-03-28T{hour}:00:00+00:00")
            runs = desk.acted_on("hourly", hour - 12)
            assert [run["outcome"] for run in runs] == ["started"] * (hour - 12)
            desk.shipped.wait(runs[-1]["job_name"])
        jobs = desk.do("job", "list", "--schedule", "hourly", "--all-results")
        assert sorted(job["name"] for job in jobs) == [f"hourly-20260328T{hour}0000Z" for hour in range(13, 19)]
        assert {job["status"] for job in jobs} == {"Completed"}
        for home in homes:
            home.stop()
