"""Traces by the shipped commands: what a collector is sent of an invoke, of its job, and of a pipeline's steps."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from otlp_receiver import Collector, Span, collecting
from shipped import Shipped

SCRIPT = """
def init():
    pass

def run(mini_batch):
    return list(mini_batch)
"""

DEPLOYMENT = """
name: names
endpoint_name: listing
settings:
  mini_batch_size: 1
code_configuration:
  code: code
  scoring_script: score.py
"""

PIPELINE = """
type: pipeline
jobs:
  first:
    type: command
    command: echo done
"""

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_an_invoke_its_job_and_its_mini_batches_are_one_trace_below_the_callers_span(
    shipped: Shipped, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "deployment.yml").write_text(DEPLOYMENT)
    (tmp_path / "pipeline.yml").write_text(PIPELINE)
    (tmp_path / "in").mkdir()
    for number in range(100):
        (tmp_path / "in" / f"{number:03}.txt").write_text("a\n")
    with collecting() as collector:
        shipped.variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        shipped.ok("endpoint", "create", "-n", "listing")
        shipped.ok("deployment", "create", "-f", "deployment.yml", "--set-default", cwd=tmp_path)
        server = shipped.server()
        headers = {"Authorization": f"Bearer {server['token']}", "traceparent": f"00-{TRACE}-{CALLER}-01"}
        body = {"inputs": {"data": {"path": str(tmp_path / "in")}}}
        asked = httpx.post(f"{server['url']}/api/v1/endpoints/listing/invoke", headers=headers, json=body)
        job = asked.json()["name"]
        shipped.wait(job)
        invoke, own = _span(collector, "invoke"), _span(collector, "job", job)
        groups = _groups(collector, own, items=100)

        pipeline = json.loads(shipped.ok("job", "create", "-f", "pipeline.yml", "-o", "json", cwd=tmp_path))["name"]
        shipped.wait(pipeline)
        whole = _span(collector, "job", pipeline)
        (step,) = [span for span in collector.spans if span.facts.get("batchpoint.step") == "first"]

    assert (invoke.trace_id, invoke.parent_id, invoke.service) == (TRACE, CALLER, "batchpoint")
    assert (own.trace_id, own.parent_id) == (TRACE, invoke.span_id)
    assert own.facts["batchpoint.items.ok"] == 100
    assert not own.failed
    (waited,) = [span for span in collector.spans if span.name == "queue" and span.parent_id == own.span_id]
    assert own.began == waited.began <= waited.ended <= groups[0].began
    assert groups[-1].ended <= own.ended
    assert 1 < len(groups) <= 64
    assert sum(group.facts["batchpoint.attempts"] for group in groups) == 100
    assert (step.trace_id, step.parent_id) == (whole.trace_id, whole.span_id)
    assert (whole.parent_id, whole.trace_id != TRACE) == ("", True)


def _span(collector: Collector, name: str, job: str | None = None) -> Span:
    """The span of that name, of that job, once it has come."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for span in collector.spans:
            if span.name == name and job in (None, span.facts.get("batchpoint.job")):
                return span
        time.sleep(0.05)
    raise AssertionError(f"no span {name} of {job} came, but {[span.name for span in collector.spans]}")


def _groups(collector: Collector, job: Span, *, items: int) -> list[Span]:
    """The groups of a job's mini-batches, once they hold so many items."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        groups = [span for span in collector.spans if (span.name, span.parent_id) == ("mini-batches", job.span_id)]
        if sum(group.facts["batchpoint.items.ok"] for group in groups) == items:
            return sorted(groups, key=lambda span: span.began)
        time.sleep(0.05)
    raise AssertionError(f"the groups of {job} did not come: {groups}")
