"""OpenTelemetry traces of requests, where the environment names a collector and the extra `tracing` is there.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 anyshape serve --model minilm

One span per request, child of the one that its `traceparent` names, and in it one per stage: the queue (where
a proxy in front said when the request came), reading, running, answering. A batch shares its stages.
Without a collector nothing is imported, and a batch pays one comparison.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Mapping, Optional, Sequence

from handler.batch import Answered
from handler.context import Context
from handler.metrics import STAGES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PARENTS = ("traceparent", "tracestate")


class Tracing:
    """Makes the spans of batches that were answered, with the times that they took."""

    def __init__(self, provider: TracerProvider, model: str, version: str) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("anyshape")
        self._extract = TraceContextTextMapPropagator().extract
        self._under = trace.set_span_in_context
        self._server, self._error = trace.SpanKind.SERVER, trace.Status(trace.StatusCode.ERROR)
        self._labels = {"anyshape.model": model, "anyshape.version": version}

    def record(self, answered: Answered, waited: Sequence[Optional[float]], context: Context) -> None:
        """The spans of a batch that has just been answered. waited: see WorkerMetrics.answered."""
        responses, ends = answered.responses, [time.time_ns()]
        for seconds in reversed(answered.stages):
            ends.insert(0, ends[0] - int(seconds * 1e9))
        for i, (response, wait) in enumerate(zip(responses, waited)):
            start = ends[0] - int((wait or 0.0) * 1e9)
            parent = self._extract(_parents(context.get_all_request_header(i)))
            attributes = {**self._labels, "anyshape.batch_requests": len(responses)}
            attributes["http.response.status_code"] = response.code
            if "X-Bucket" in response.headers:
                attributes["anyshape.bucket"] = response.headers["X-Bucket"]
            span = self._tracer.start_span("request", parent, self._server, attributes, start_time=start)
            if response.code >= 500:
                span.set_status(self._error)
            inside = self._under(span)
            if wait is not None:
                self._tracer.start_span("queue", inside, start_time=start).end(ends[0])
            last = ends[0] + int(answered.left[i] * 1e9) if i in answered.left else ends[-1]
            for name, begin, end in zip(STAGES, ends, ends[1:]):
                self._tracer.start_span(name, inside, start_time=min(begin, last)).end(min(end, last))
            span.end(last)


def _parents(headers: Mapping[str, object]) -> Mapping[str, str]:
    """Who asked, whatever case the headers are in."""
    return {
        key.lower(): value
        for key, value in headers.items()
        if isinstance(value, str) and key.lower() in PARENTS
    }


def create_tracing(model: str, version: str) -> Optional[Tracing]:
    """None where the environment names no collector, or the packages are missing: the log then says so."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning(
            "no traces, though the environment asks for them: install anyshape[tracing] (%s)", error
        )
        return None
    name = os.environ.get("OTEL_SERVICE_NAME") or "anyshape"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, model, version)
