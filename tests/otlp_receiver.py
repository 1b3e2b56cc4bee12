"""A receiver of OTLP over HTTP, as small as one can be: what a test of traces listens with."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from webhook_receiver import receiving


@dataclass(frozen=True)
class Span:
    """What came of one span."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    failed: bool
    facts: dict[str, Any]


@dataclass
class Collector:
    """Every span that has come in."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on loopback."""
    found = Collector()

    def take(headers: Any, body: bytes) -> int:
        text = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        for resource in ExportTraceServiceRequest.FromString(text).resource_spans:
            service = _facts(resource.resource.attributes)["service.name"]
            found.spans += [_span(service, span) for scope in resource.scope_spans for span in scope.spans]
        return 200

    with receiving(take) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield found


def _span(service: str, span: Any) -> Span:
    return Span(
        span.name, service, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.start_time_unix_nano, span.end_time_unix_nano, span.status.code == 2, _facts(span.attributes),
    )  # fmt: skip


def _facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
