"""What a monitor is told: valid, and the same as the receipts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchpoint.entities.resources import Compute
from batchpoint.server.context import Context
from batchpoint.workspace import Workspace
from integration.azure_wire import WS
from integration.served import eventually, invoke, make_input, served
from promtool import promtool

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "batchpoint.json"


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    secret, _ = context.workspace.tokens.create("monitor", "reader")
    with served(context, secret) as found:
        yield found


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
    assert told(client, "instances", workspace="", compute="local", state="running") == 1
    Path(str(workspace.jobs.get(job.name).folder), "go").touch()
    eventually(lambda: told(client, "jobs_ended_total", type="scoring", status="completed", reason="completed") == 1)

    receipt = workspace.jobs.receipt(job.name)
    assert told(client, "jobs", status="running") == 0
    assert told(client, "jobs", status="completed") == 1
    assert told(client, "items_total", unit="files", outcome="ok") == receipt.ok
    assert told(client, "items_total", unit="files", outcome="failed") == receipt.failed
    assert told(client, "job_seconds_count", type="scoring", status="completed") == 1
    assert told(client, "job_queue_seconds_count", type="scoring") == 1


def test_a_job_that_is_canceled_in_the_queue_is_counted_once(
    client: httpx.Client, workspace: Workspace, tmp_path: Path
) -> None:
    running = invoke(workspace, make_input(tmp_path / "a", "wait"))
    eventually(lambda: workspace.jobs.get(running.name).status == "running")
    waiting = invoke(workspace, make_input(tmp_path / "b", "complete"))
    secret, _ = workspace.tokens.create("operator", "operator")
    addresses = (f"/api/v1/jobs/{waiting.name}/cancel", f"{WS}/jobs/{waiting.name}/cancel")
    for address in addresses * 2:
        client.post(address, headers={"Authorization": f"Bearer {secret}"}).raise_for_status()
    Path(str(workspace.jobs.get(running.name).folder), "go").touch()
    assert told(client, "jobs_ended_total", type="scoring", status="canceled", reason="canceled_by_user") == 1


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


def test_promtool_finds_no_fault_in_them(client: httpx.Client, workspace: Workspace, tmp_path: Path) -> None:
    invoke(workspace, make_input(tmp_path / "in", "succeed"))
    eventually(lambda: told(client, "jobs_ended_total", type="scoring", status="completed", reason="completed") == 1)
    checked = promtool("check", "metrics", given=client.get("/metrics").content)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_instances_of_every_workspace_are_told(client: httpx.Client, workspace: Workspace) -> None:
    compute = Compute(name="large", min_instances=2)
    workspace.within("risk").resources.create_or_update("compute", compute)
    assert told(client, "instances", workspace="risk", compute="large", state="idle") == 2


def test_the_dashboard_asks_for_what_is_there(client: httpx.Client, tmp_path: Path) -> None:
    there = set(re.findall(r"^# TYPE (\S+)", client.get("/metrics").text, re.MULTILINE))
    expressions = [target["expr"] for panel in _dashboard()["panels"] for target in panel["targets"]]
    for expression in expressions:
        asked = set(re.findall(r"batchpoint_\w+", expression))
        assert asked
        assert {name.removesuffix("_bucket") for name in asked} <= there, expression
    rules = [{"record": f"rule:{number}", "expr": text} for number, text in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    text = json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})
    file.write_text(text.replace("$__rate_interval", "5m"))
    checked = promtool("check", "rules", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_shows_all_that_is_told(client: httpx.Client) -> None:
    told_of = set(re.findall(r"^# TYPE (\S+)", client.get("/metrics").text, re.MULTILINE))
    shown = {
        name.removesuffix("_bucket")
        for panel in _dashboard()["panels"]
        for target in panel["targets"]
        for name in re.findall(r"batchpoint_\w+", target["expr"])
    }
    assert {name for name in told_of if not name.endswith("_created")} == shown


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found
