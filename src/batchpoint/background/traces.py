"""Traces of what happened to jobs, for OpenTelemetry: the invoke, the job below it, its mini-batches in groups.

A job's spans are told when it has ended, from what is remembered of it, so tracing costs a running job nothing, and a
server that takes a job over tells the whole of it. Ids follow from the names: a step finds the span of its pipeline
without asking. The library is imported when there is an address to send to, and never otherwise.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchpoint import __version__
from batchpoint.background.loop import Loop
from batchpoint.entities.jobs import Job, JobStatus
from batchpoint.errors import BatchpointError
from batchpoint.workspace import Workspace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

log = logging.getLogger(__name__)

ADDRESSES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables of OpenTelemetry; one of them turns tracing on."""
MOST_GROUPS = 64
"""Groups that the mini-batches of a job are told as, at most."""
_WAITING = 1000
"""Jobs whose spans wait to be told; beyond that they are left out."""
_GOODBYE_SECONDS = 3.0
_TRACEPARENT = re.compile(r"^00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})$")


@dataclass(frozen=True, slots=True)
class Place:
    """A span's place in a trace."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """As W3C's header of that name."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


@dataclass(frozen=True, slots=True)
class Group:
    """Some goes at mini-batches, one after the other as they ended."""

    began: float
    """Unix time, as ``ended``."""
    ended: float
    attempts: int
    failed_attempts: int
    ok: int
    failed: int
    """Items."""


class Traces:
    """What one server tells; nothing, while no address is set."""

    def __init__(self, workspace: Workspace, environ: Mapping[str, str] = os.environ) -> None:
        self._workspace = workspace
        self._waiting: queue.SimpleQueue[tuple[str, Job]] = queue.SimpleQueue()
        self._processor = _processor(environ)
        self._resource: Any = None
        self.loops: tuple[Loop, ...] = ()
        if self._processor is not None:
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - as below

            named = Resource.create({"service.name": "batchpoint", "service.version": __version__})
            # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say has the last word.
            self._resource = named.merge(OTELResourceDetector().detect())
            self.loops = (Loop("traces", self.step, interval=0.5),)

    @contextmanager
    def invoked(self, endpoint: str, given: str | None) -> Iterator[str | None]:
        """The span of a request that starts a job; the place of that, for the job to remember.

        ``given`` is the caller's own ``traceparent``, if it sent one.
        """
        if self._processor is None:
            yield None
            return
        parent = read_traceparent(given)
        trace_id = parent.trace_id if parent else secrets.randbits(128) or 1
        place = Place(trace_id, secrets.randbits(64) or 1, parent.sampled if parent else True)
        began, fault = time.time(), ""
        try:
            yield place.traceparent
        except BatchpointError as error:
            fault = error.message
            raise
        finally:
            self._tell("invoke", place, parent, began, time.time(), {"batchpoint.endpoint": endpoint}, fault)

    def job_ended(self, workspace: str, job: Job) -> None:
        """Tell the spans of a job soon."""
        if self._processor is not None and self._waiting.qsize() < _WAITING:
            self._waiting.put((workspace, job))

    def step(self) -> bool:
        """Tell the spans of one job; whether there was one."""
        try:
            workspace, job = self._waiting.get_nowait()
        except queue.Empty:
            return False
        try:
            self._tell_job(workspace, job)
        except BatchpointError as fault:  # the workspace was deleted, or the registry does not answer
            log.warning("No trace of job %s is sent: %s", job.name, fault.message)
        except Exception:  # the rim of a trace: its report may hold whatever, and more than this waits to be ended
            log.exception("The trace of job %s is not whole", job.name)
        return True

    def stop(self) -> None:
        """Tell what is left, as far as a few seconds suffice: a collector that is down must not hold the server up."""
        if self._processor is not None:
            while self.step():
                pass
            ending = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
            ending.start()
            ending.join(_GOODBYE_SECONDS)

    def _tell_job(self, workspace: str, job: Job) -> None:
        if job.queued_at is None or job.finished_at is None:
            return
        parent = self._parent(workspace, job)
        own = place_of(workspace, job.name, parent)
        queued, finished = job.queued_at.timestamp(), job.finished_at.timestamp()
        error = ""
        if job.status == JobStatus.FAILED:
            error = job.error.message if job.error else str(job.reason)
        self._tell("job", own, parent, queued, finished, _facts(workspace, job), error)
        if job.started_at is None:
            return
        self._tell("queue", _below(own, "queue"), own, queued, job.started_at.timestamp(), {}, "")
        for number, group in enumerate(_groups_of(job)):
            facts = {
                "batchpoint.attempts": group.attempts,
                "batchpoint.attempts.failed": group.failed_attempts,
                "batchpoint.items.ok": group.ok,
                "batchpoint.items.failed": group.failed,
            }
            self._tell("mini-batches", _below(own, f"group {number}"), own, group.began, group.ended, facts, "")

    def _parent(self, workspace: str, job: Job) -> Place | None:
        """The span that a job's is below: of its pipeline, or of the request that made it."""
        if job.parent_job_name is None:
            return read_traceparent(job.traceparent)
        pipeline = self._workspace.within(workspace, create=False).registry.jobs.get(job.parent_job_name)
        return place_of(workspace, pipeline.name, self._parent(workspace, pipeline))

    def _tell(
        self, name: str, own: Place, parent: Place | None, began: float, ended: float, facts: Mapping[str, Any],
        error: str,
    ) -> None:  # fmt: skip
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - slow to import, and mostly not needed
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415 - the same
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415 - the same

        def context(place: Place) -> SpanContext:
            return SpanContext(place.trace_id, place.span_id, is_remote=False, trace_flags=TraceFlags(place.sampled))

        assert self._processor is not None
        span = ReadableSpan(
            name,
            context(own),
            context(parent) if parent else None,
            self._resource,
            attributes=facts,
            kind=SpanKind.SERVER if name == "invoke" else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
            start_time=int(began * 1e9),
            end_time=int(ended * 1e9),
            instrumentation_scope=InstrumentationScope("batchpoint", __version__),
        )
        self._processor.on_end(span)


def read_traceparent(text: str | None) -> Place | None:
    """The place that a header names; None when it names none."""
    found = _TRACEPARENT.match(text or "")
    if found is None:
        return None
    trace_id, span_id = int(found["trace"], 16), int(found["span"], 16)
    return Place(trace_id, span_id, bool(int(found["flags"], 16) & 1)) if trace_id and span_id else None


def place_of(workspace: str, job: str, parent: Place | None) -> Place:
    """The place of a job's span: in the trace of its parent, or, for one that nobody asked for, in one of its own."""
    digest = hashlib.sha256(f"{workspace}/{job}".encode()).digest()
    own, span_id = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
    return Place(parent.trace_id, span_id, parent.sampled) if parent else Place(own, span_id)


def grouped(attempts: Iterable[Group], most: int = MOST_GROUPS) -> list[Group]:
    """The same in at most so many groups, of about as many goes each. Memory does not grow with their number."""
    groups: list[Group] = []
    size = 1
    for attempt in attempts:
        if groups and groups[-1].attempts < size:
            groups[-1] = _joined(groups[-1], attempt)
        else:
            groups.append(attempt)
        if len(groups) > most:
            pairs = [groups[at : at + 2] for at in range(0, len(groups), 2)]
            groups = [_joined(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
            size *= 2
    return groups


def _joined(one: Group, other: Group) -> Group:
    return Group(
        min(one.began, other.began),
        max(one.ended, other.ended),
        one.attempts + other.attempts,
        one.failed_attempts + other.failed_attempts,
        one.ok + other.ok,
        one.failed + other.failed,
    )


def _below(place: Place, what: str) -> Place:
    digest = hashlib.sha256(f"{place.span_id:016x} {what}".encode()).digest()
    return Place(place.trace_id, int.from_bytes(digest[:8]), place.sampled)


def _groups_of(job: Job) -> list[Group]:
    """The goes at a job's mini-batches, as the report of its run lists them."""
    report = Path(job.folder or "") / "logs" / "sys" / "job_report" / "processed_mini-batches.csv"
    if job.type != "scoring" or not report.is_file():
        return []
    with report.open(encoding="utf-8", newline="") as lines:
        return grouped(_attempts(csv.DictReader(lines)))


def _attempts(rows: Iterable[Mapping[str, str]]) -> Iterator[Group]:
    for row in rows:
        try:
            began = datetime.fromisoformat(row["Process Start Time"]).replace(tzinfo=UTC).timestamp()
            ended = began + float(row["Elapsed Seconds"])
            is_failed = int(row["Status"] != "RUN_DONE")
            yield Group(began, ended, 1, is_failed, int(row["Succeeded"]), int(row["Failed"]))
        except (KeyError, TypeError, ValueError):
            continue  # a line that a killed runner did not finish


def _facts(workspace: str, job: Job) -> dict[str, Any]:
    told = job.receipt or job.progress
    facts = {
        "batchpoint.workspace": workspace,
        "batchpoint.job": job.name,
        "batchpoint.job.type": job.type,
        "batchpoint.job.status": str(job.status),
        "batchpoint.job.reason": str(job.reason) if job.reason else None,
        "batchpoint.endpoint": job.endpoint_name,
        "batchpoint.deployment": job.deployment_name,
        "batchpoint.schedule": job.schedule_name,
        "batchpoint.step": job.step_name,
        "batchpoint.items.ok": told.ok if told else None,
        "batchpoint.items.failed": told.failed if told else None,
        "batchpoint.items.skipped": told.skipped if told else None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _processor(environ: Mapping[str, str]) -> BatchSpanProcessor | None:
    """What sends spans; None while there is no address, or nothing to send with."""
    address = next((environ[name] for name in ADDRESSES if environ.get(name)), None)
    if address is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
    except ModuleNotFoundError as fault:
        # The variable may be there for other programs: that must not keep this one from starting.
        log.warning("No traces are sent to %s: %s is missing. Install batchpoint[otel].", address, fault.name)
        return None
    return BatchSpanProcessor(OTLPSpanExporter())
