"""Traces cost nothing where nobody asked for them, and tell failures where somebody did."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from batchpoint import local_server
from batchpoint.background import traces
from batchpoint.background.traces import ADDRESSES, Traces
from batchpoint.entities.jobs import Job, JobStatus, Reason
from batchpoint.errors import NotFoundError
from batchpoint.workspace import Workspace


class Sent:
    """Takes spans as the library's own processor does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def on_end(self, span: Any) -> None:
        self.spans.append(span)

    def shutdown(self) -> None:
        pass


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    found = Sent()
    monkeypatch.setattr(traces, "_processor", lambda _environ: found)
    return found


def test_without_an_address_the_library_is_not_even_imported(tmp_path: Path) -> None:
    source = Path(local_server.__file__).parent.parent
    program = (
        "import sys; from batchpoint.settings import Settings; from batchpoint.workspace import Workspace\n"
        "from batchpoint.background.service import Background\n"
        f"with Workspace.open(Settings(home=__import__('pathlib').Path({str(tmp_path)!r}))) as workspace:\n"
        "    with Background(workspace).traces.invoked('churn', None) as place: print(place)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "None\n[]\n"


@pytest.mark.parametrize("variable", ADDRESSES)
def test_where_the_package_is_missing_a_warning_says_what_to_install(
    variable: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING):
        found = Traces(workspace, {variable: "http://127.0.0.1:4318"})
    assert found.loops == ()
    assert "Install batchpoint[otel]" in caplog.text


def test_an_invoke_that_is_refused_is_a_span_that_failed(workspace: Workspace, sent: Sent) -> None:
    with pytest.raises(NotFoundError), Traces(workspace).invoked("churn", None):
        raise NotFoundError("There is no endpoint named churn.")
    (span,) = sent.spans
    assert (span.name, span.status.is_ok) == ("invoke", False)
    assert span.status.description == "There is no endpoint named churn."


def test_a_job_that_failed_before_it_ran_has_a_span_and_no_waiting_time(workspace: Workspace, sent: Sent) -> None:
    jobs, told = workspace.registry.jobs, Traces(workspace)
    jobs.enqueue(Job(name="night"))
    claimed = jobs.claim("a", 60)
    assert claimed is not None
    told.job_ended("default", jobs.finish("night", claimed.lease_token, Reason.ENVIRONMENT_FAILED))
    told.stop()
    (span,) = sent.spans
    assert (span.name, span.status.is_ok, span.status.description) == ("job", False, "environment_failed")


def test_an_invoke_is_sent_unless_its_caller_records_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = InMemorySpanExporter()
    monkeypatch.setattr(traces, "_processor", lambda _environ: SimpleSpanProcessor(memory))
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    told, recorded = Traces(workspace), f"00-{1:032x}-{2:016x}-01"
    for given in (None, recorded, recorded[:-2] + "00"):
        with told.invoked("churn", given):
            pass
    assert [span.parent is not None for span in memory.get_finished_spans()] == [False, True]


HEADER = b"Process Start Time,Elapsed Seconds,Status,Succeeded,Failed\n"


@pytest.mark.parametrize(
    "report",
    [
        HEADER + b"\xff\xfe",
        HEADER + b"x" * 200_000,
        HEADER + b"2026-03-01T00:00:00,inf,RUN_DONE,1,0\n",
        b"Proc\nx\n",
        None,
    ],
)
def test_a_report_that_cannot_be_read_keeps_neither_other_traces_nor_the_server_from_their_end(
    report: bytes | None, workspace: Workspace, sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, told = workspace.registry.jobs, Traces(workspace)
    file = tmp_path / "logs" / "sys" / "job_report" / "processed_mini-batches.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes(report or HEADER)
    for name in ("night", "day"):
        jobs.enqueue(Job(name=name))
        claimed = jobs.claim("a", 60)
        assert claimed is not None
        jobs.transition(name, claimed.lease_token, JobStatus.RUNNING)
        ended = jobs.finish(name, claimed.lease_token, Reason.LOST)
        told.job_ended("default", ended.model_copy(update={"folder": str(tmp_path)}))
    with monkeypatch.context() as broken:
        if report is None:
            broken.setattr(Path, "open", mock.Mock(side_effect=OSError("Input/output error")))
        told.stop()
    assert [span.name for span in sent.spans] == ["job", "queue", "job", "queue"]


def test_steps_of_steps_stand_in_the_trace_of_the_first_of_them_and_a_workspace_that_is_gone_is_not_made_again(
    workspace: Workspace, sent: Sent
) -> None:
    told, risk = Traces(workspace), workspace.within("risk")
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    whole = Job(name="whole", type="pipeline", traceparent=given)
    inner = Job(name="inner", type="pipeline", parent_job_name="whole")
    leaf = Job(name="leaf", parent_job_name="inner")
    for job in (whole, inner, leaf):
        risk.registry.jobs.enqueue(job)
    for _ in range(3):
        claimed = workspace.registry.jobs.claim("a", 60)
        assert claimed is not None
        told.job_ended(
            "risk", risk.registry.jobs.finish(claimed.job.name, claimed.lease_token, Reason.CANCELED_BY_USER)
        )
    while told.step():
        pass
    spans = {span.attributes["batchpoint.job"]: span for span in sent.spans}
    assert {f"{span.context.trace_id:032x}" for span in sent.spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert f"{spans['whole'].parent.span_id:016x}" == "00f067aa0ba902b7"
    assert spans["inner"].parent.span_id == spans["whole"].context.span_id
    assert spans["leaf"].parent.span_id == spans["inner"].context.span_id
    told.job_ended("risk", risk.registry.jobs.get("leaf"))
    workspace.delete("risk", permanently=True)
    assert told.step()
    assert [one.name for one in workspace.workspaces.list()] == ["default"]
    assert len(sent.spans) == 3
