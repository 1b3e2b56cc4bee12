"""What a monitor is told: valid, and the same as the receipts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchpoint.background.service import Background
from batchpoint.server.context import Context
from batchpoint.workspace import Workspace
from integration.served import FAKE_RUNNER, eventually, invoke, make_input, open_workspace, served


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    background = Background(workspace, runner_parent=FAKE_RUNNER)
    background.start()
    secret, _ = workspace.tokens.create("monitor", "reader")
    with served(Context(workspace, background, server_id="s1", shares_files=True), secret) as found:
        yield found
    background.stop()


def told(client: httpx.Client, name: str, **labels: str) -> float | None:
    """The value of a sample; None when there is none."""
    answered = client.get("/metrics")
    assert answered.status_code == 200
    assert answered.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for family in text_string_to_metric_families(answered.text):
        for sample in family.samples:
            if sample.name == f"batchpoint_{name}" and sample.labels == labels:
                return float(sample.value)
    return None


def test_the_numbers_follow_a_jobs_life_and_add_up_with_its_receipt(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    assert told(client, "jobs", status="completed") == 0
    assert told(client, "schedule_lag_seconds") == 0
    assert told(client, "loop_up", loop="dispatcher") == 1

    job = invoke(workspace, make_input(tmp_path / "in", "wait"))
    eventually(lambda: told(client, "jobs", status="running") == 1)
    assert told(client, "instances", compute="local", state="running") == 1
    Path(str(workspace.jobs.get(job.name).folder), "go").touch()
    eventually(lambda: told(client, "jobs_ended_total", type="scoring", status="completed", reason="completed") == 1)

    receipt = workspace.jobs.receipt(job.name)
    assert told(client, "jobs", status="running") == 0
    assert told(client, "jobs", status="completed") == 1
    assert told(client, "items_total", unit="files", outcome="ok") == receipt.ok
    assert told(client, "items_total", unit="files", outcome="failed") == receipt.failed
    assert told(client, "job_seconds_count", type="scoring", status="completed") == 1
    assert told(client, "job_queue_seconds_count", type="scoring") == 1


def test_a_job_that_was_canceled_or_lost_is_counted_by_its_reason(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    canceled = invoke(workspace, make_input(tmp_path / "a", "wait"))
    eventually(lambda: workspace.jobs.get(canceled.name).status == "running")
    workspace.jobs.cancel(canceled.name)
    invoke(workspace, make_input(tmp_path / "b", "die"))
    eventually(
        lambda: told(client, "jobs_ended_total", type="scoring", status="canceled", reason="canceled_by_user") == 1
    )
    eventually(lambda: told(client, "jobs_ended_total", type="scoring", status="failed", reason="lost") == 1)


def test_metrics_are_for_those_who_may_read(client: httpx.Client) -> None:
    assert client.get("/metrics", headers={"Authorization": ""}).status_code == 401


def test_the_drift_of_jobs_that_were_compared_is_told(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    invoke(workspace, make_input(tmp_path / "one", "complete"))
    invoke(workspace, make_input(tmp_path / "two", "compare"))
    eventually(lambda: told(client, "jobs_ended_total", type="scoring", status="completed", reason="completed") == 2)
    assert told(client, "job_drift_count") == 1
    assert told(client, "job_drift_sum") == 0.7
    assert told(client, "job_missing_change_count") == 0
