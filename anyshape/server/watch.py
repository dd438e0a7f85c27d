"""What a running server has done between two moments, in figures.

earlier, now = look(client), look(client)
for figures in compare(earlier, now):
    print(figures.model, figures.requests_per_second, figures.p99)
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from anyshape.server.client import Client
from anyshape.server.scrape import Scrape

OWN = "anyshape_"  # what workers count, a hand-over a second each
SETTLING, PAUSE = 5, 0.05  # looks until two are alike, and seconds between them


@dataclass(frozen=True)
class Look:
    """What a server said at a moment: its metrics, its description of every version of every model, and which
    version of each is the default."""

    at: float
    scrape: Scrape
    described: Dict[str, List[Dict[str, Any]]]
    defaults: Dict[str, str]


@dataclass(frozen=True)
class BucketFigures:
    """One bucket. waste: padded ÷ real positions; NaN where nothing ran."""

    bucket: str
    items_per_second: float
    calls_per_second: float
    call_seconds: float
    waste: float


@dataclass(frozen=True)
class WorkerFigures:
    worker: str
    status: str
    starts: int
    in_hand: int
    bytes: int


@dataclass(frozen=True)
class Figures:
    """One version of one model between two looks. Rates are per second, times are seconds, NaN of nothing.

    since: "front" where requests are timed from the proxy in front on, "worker" where from the worker on;
    then `queue` is the mean that TorchServe's frontend counts, of all versions. waiting: requests in
    TorchServe's queue just now. waste, executed: padded and executed ÷ real positions. planned: the waste
    that the archive's plan expects.
    """

    model: str
    version: str
    default: bool
    requests_per_second: float
    errors_per_second: float
    p50: float
    p95: float
    p99: float
    since: str
    queue: float
    waiting: Optional[int]
    positions_per_second: float
    rows_per_call: float
    waste: float
    executed: float
    planned: Optional[float]
    busy: float
    errors: Dict[str, float]
    changed: Dict[str, float]
    buckets: List[BucketFigures]
    workers: List[WorkerFigures]


def look(client: Client) -> Look:
    """Ask a server for its metrics and its description. Raises ServeError."""
    described = {model: client.versions(model) for model in client.models()}
    defaults = {model: client.default_version(model) for model in described}
    scrape = _whole(client)
    return Look(time.monotonic(), scrape, described, defaults)


def _whole(client: Client) -> Scrape:
    """The metrics between two hand-overs of a worker: the frontend reads the lines of one hand-over one by
    one, and a look in the midst of them would find calls without their positions."""
    scrape = client.scrape()
    for _ in range(SETTLING):
        time.sleep(PAUSE)
        earlier, scrape = scrape, client.scrape()
        if scrape.starting(OWN) == earlier.starting(OWN):
            break
    return scrape


def compare(earlier: Look, now: Look) -> List[Figures]:
    """What happened between two looks, per version of each model that is served now."""
    spent, seconds = now.scrape.since(earlier.scrape), max(now.at - earlier.at, 1e-9)
    return [
        _figures(model, described, now.defaults[model], spent, now.scrape, seconds)
        for model, versions in sorted(now.described.items())
        for described in versions
    ]


def _figures(
    model: str, described: Dict[str, Any], default: str, spent: Scrape, now: Scrape, seconds: float
) -> Figures:
    version = str(described["modelVersion"])
    labels = {"model_name": model, "model_version": version}

    def total(name: str, **more: str) -> float:
        return spent.total(name, **labels, **more)

    counted = spent.by("anyshape_request_duration_seconds_count", "since", **labels)
    since = "front" if counted.get("front") else "worker"
    request = {**labels, "since": since}
    real = total("anyshape_real_positions_total")
    planned = now.by("anyshape_planned_waste_ratio", "", **labels)
    queue = described.get("jobQueueStatus") or {}
    workers = described.get("workers") or []
    return Figures(
        model=model,
        version=version,
        default=version == default,
        requests_per_second=total("anyshape_requests_total") / seconds,
        errors_per_second=total("anyshape_request_errors_total") / seconds,
        p50=spent.quantile("anyshape_request_duration_seconds", 0.5, **request),
        p95=spent.quantile("anyshape_request_duration_seconds", 0.95, **request),
        p99=spent.quantile("anyshape_request_duration_seconds", 0.99, **request),
        since=since,
        queue=_queue(model, spent, since, labels),
        waiting=queue.get("pendingRequests"),
        positions_per_second=real / seconds,
        rows_per_call=_ratio(total("anyshape_call_rows_sum"), total("anyshape_call_rows_count")),
        waste=_ratio(total("anyshape_padded_positions_total"), real),
        executed=_ratio(total("anyshape_executed_positions_total"), real),
        planned=next(iter(planned.values()), None),
        busy=total("anyshape_stage_seconds_total") / seconds / max(1, len(workers)),
        errors=_some(spent.by("anyshape_request_errors_total", "type", **labels)),
        changed=_some(spent.by("anyshape_changed_inputs_total", "how", **labels)),
        buckets=_buckets(spent, labels, seconds),
        workers=[_worker(worker, now, labels) for worker in workers],
    )


def _queue(model: str, spent: Scrape, since: str, labels: Dict[str, str]) -> float:
    """The mean seconds that a request waited."""
    if since == "front":
        name = "anyshape_queue_duration_seconds"
        return _ratio(spent.total(f"{name}_sum", **labels), spent.total(f"{name}_count", **labels))
    waited = spent.total("ts_queue_latency_microseconds", model_name=model)
    return _ratio(waited / 1e6, spent.total("ts_inference_requests_total", model_name=model))


def _buckets(spent: Scrape, labels: Dict[str, str], seconds: float) -> List[BucketFigures]:
    def by(name: str) -> Dict[str, float]:
        return spent.by(name, "bucket", **labels)

    calls, took = by("anyshape_call_duration_seconds_count"), by("anyshape_call_duration_seconds_sum")
    real, padded = by("anyshape_real_positions_total"), by("anyshape_padded_positions_total")
    return [
        BucketFigures(
            bucket,
            items / seconds,
            calls.get(bucket, 0.0) / seconds,
            _ratio(took.get(bucket, 0.0), calls.get(bucket, 0.0)),
            _ratio(padded.get(bucket, 0.0), real.get(bucket, 0.0)),
        )
        for bucket, items in sorted(by("anyshape_items_total").items(), key=lambda pair: _sides(pair[0]))
    ]


def _worker(described: Dict[str, Any], now: Scrape, labels: Dict[str, str]) -> WorkerFigures:
    name = str(described["id"])
    return WorkerFigures(
        name,
        str(described["status"]),
        int(now.total("anyshape_worker_starts_total", worker=name, **labels)),
        int(now.total("anyshape_requests_in_hand", worker=name, **labels)),
        int(described.get("memoryUsage") or 0),
    )


def _sides(bucket: str) -> List[int]:
    return [int(side) for side in bucket.split("x") if side.isdecimal()]


def _some(counts: Dict[str, float]) -> Dict[str, float]:
    return {key: value for key, value in counts.items() if value}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
