"""Traces: a collector that speaks OTLP gets a span per request and stage, under the caller's own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from handler.tracing import create_tracing
from tests.conftest import TextOf
from tests.handler.frontend import Sent, Worker

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(HTTPServer):
    """Takes what is exported over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        super().__init__(("127.0.0.1", 0), Take)


class Take(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        assert isinstance(self.server, Collector)
        self.server.spans += [s for r in request.resource_spans for p in r.scope_spans for s in p.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield server
        server.shutdown()


def test_a_request_and_its_stages_are_spans_of_the_callers_trace(
    collector: Collector, embedding_archive_folder: Path, text_of: TextOf
) -> None:
    worker = Worker(embedding_archive_folder)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Start": f"t={time.time() - 0.2:.3f}"}
    sent = [Sent(text_of(7).encode(), headers=headers), Sent(text_of(99).encode()), Sent(b"alone")]
    before = time.time_ns()
    assert [received.status for received in worker.predict(sent)] == [200, 413, 200]
    deadline = time.monotonic() + 30
    while len(collector.spans) < 4 * 3 + 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    spans = collector.spans
    assert len(spans) == 4 * 3 + 1

    requests = [span for span in spans if span.name == "request"]
    (called,) = (span for span in requests if span.trace_id.hex() == TRACE)
    assert called.parent_span_id.hex() == PARENT
    assert sum(not span.parent_span_id for span in requests) == 2
    assert len({span.trace_id for span in requests}) == 3
    attributes = {a.key: a.value.string_value or a.value.int_value for a in called.attributes}
    assert attributes["http.response.status_code"] == 200
    assert attributes["anyshape.model"] == "small"
    assert attributes["anyshape.batch_requests"] == 3
    assert attributes["anyshape.bucket"].isdecimal()

    children = [span for span in spans if span.parent_span_id == called.span_id]
    assert [span.name for span in sorted(children, key=lambda s: s.start_time_unix_nano)] == [
        *("queue", "read", "run", "answer")
    ]
    ends = called.start_time_unix_nano
    assert ends <= before - 150_000_000, "it begins when the proxy took it"
    for span in sorted(children, key=lambda s: s.start_time_unix_nano):
        assert span.start_time_unix_nano == ends, "one stage begins where the other ends"
        assert span.trace_id.hex() == TRACE
        ends = span.end_time_unix_nano
    assert ends == called.end_time_unix_nano


def test_without_a_collector_nothing_is_imported(
    embedding_archive_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    worker = Worker(embedding_archive_folder)
    assert worker.handler.tracing is None
    assert worker.predict([Sent(b"a text")])[0].status == 200
    assert not any(name.startswith("opentelemetry") for name in sys.modules)


def test_missing_packages_are_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert create_tracing("small", "1.0") is None
    (record,) = caplog.records
    assert "install anyshape[tracing]" in record.getMessage()


def test_a_request_that_fails_has_a_span_that_says_so(
    collector: Collector, embedding_archive_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(embedding_archive_folder)

    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(worker.handler.model.programs, "run", broken)
    assert worker.predict([Sent(b"a text")])[0].status == 500
    deadline = time.monotonic() + 30
    while len(collector.spans) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    (request,) = (span for span in collector.spans if span.name == "request")
    assert request.status.code == 2
