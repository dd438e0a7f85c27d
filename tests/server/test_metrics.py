"""What Prometheus sees: TorchServe's numbers and ours, with the units and names that it expects."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from anyshape.server.scrape import Scrape
from tests.server.harness import Server

COUNTED = {
    "anyshape_requests_total": {},
    "anyshape_request_errors_total": {"code": "413", "type": "InputTooLarge"},
    "anyshape_items_total": {"bucket": "64"},
    "anyshape_real_positions_total": {"bucket": "64"},
    "anyshape_padded_positions_total": {"bucket": "64"},
    "anyshape_request_duration_seconds_count": {"since": "worker"},
    "anyshape_queue_duration_seconds_count": {},
}


def scrape(server: Server) -> Scrape:
    return Scrape.of(server.http.get(f"{server.torchserve.metrics}/metrics").text)  # needs no token


def test_metrics_count_requests_items_and_refusals(
    server: Server, minilm: str, text_of: Callable[[int], str]
) -> None:
    def totals() -> dict[str, float]:
        now = scrape(server)
        return {name: now.total(name, model_name=minilm, **labels) for name, labels in COUNTED.items()}

    before = totals()
    time.sleep(1.5)  # what others asked just now is counted by then
    while (now := totals()) != before:
        before = now
        time.sleep(1.5)
    for _ in range(3):
        assert server.predict_text(minilm, text_of(40)).status_code == 200
    assert server.predict_text(minilm, text_of(600)).status_code == 413
    started = {"X-Request-Start": f"t={time.time():.3f}", "Content-Type": "text/plain"}
    assert server.predict(minilm, headers=started, content=text_of(50)).status_code == 200

    expected = dict(zip(COUNTED, (5, 1, 4, 3 * 40 + 50, 4 * 64, 4, 1)))
    deadline = time.monotonic() + 30  # the worker's numbers arrive a second after its answers
    while (found := {name: value - before[name] for name, value in totals().items()}) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.3)


def test_metrics_are_named_as_prometheus_wants_them(server: Server, minilm: str) -> None:
    ours = [(name, labels) for name, labels in scrape(server).values if name.startswith("anyshape_")]
    assert len(ours) > 50
    for name, labels in ours:
        assert name == name.lower()
        assert not any(unit in name for unit in ("milli", "micro", "_ms"))
        ends = ("_total", "_bucket", "_sum", "_count", "_ratio", "_in_hand")
        assert name.endswith(ends), name
        assert {"model_name", "model_version", "Hostname"} <= {key for key, _ in labels}, name


def test_a_histogram_adds_up(server: Server, minilm: str, text_of: Callable[[int], str]) -> None:
    assert server.predict_text(minilm, text_of(10)).status_code == 200
    time.sleep(2.5)
    now = scrape(server)
    for name in ("anyshape_request_duration_seconds", "anyshape_call_duration_seconds", "anyshape_call_rows"):
        steps = now.histogram(name, model_name=minilm)
        counts = [count for _, count in steps]
        assert counts == sorted(counts), name
        assert steps[-1] == (float("inf"), now.total(f"{name}_count", model_name=minilm)), name
        assert counts[-1] > 0, name
        assert 0 < now.quantile(name, 0.5, model_name=minilm) <= now.quantile(name, 0.99, model_name=minilm)


@pytest.mark.parametrize("path", ["/nothing", "/predictions/nobody"])
def test_what_the_frontend_refuses_is_counted_by_the_frontend(server: Server, minilm: str, path: str) -> None:
    before = scrape(server).total("Requests4XX")
    response = server.http.post(f"{server.torchserve.inference}{path}", headers=server.token("inference"))
    assert response.status_code == 404
    assert scrape(server).total("Requests4XX") == before + 1
