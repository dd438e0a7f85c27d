"""What the front counts, in Prometheus' text format, at an address of its own that no client reaches."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Iterator, List, Optional, Sequence, Set, Tuple

from anyshape.errors import Refused
from anyshape.front.connection import Connection, Request
from anyshape.front.errors import BadRequest, MethodNotAllowed, NotFound, TooManyConnections
from anyshape.front.replies import Reply, new_id, refusal

if TYPE_CHECKING:
    from anyshape.front.proxy import Front

# Steps of the histogram, in seconds: those of the workers' metrics, so that the two can be compared.
STEPS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0),
)
KINDS = 200  # pairs of status and type that are told apart: a handler of one's own may make up any
OTHERS = "Other"
CONNECTIONS = 16
TEXT = (b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")


class Counts:
    """What the front has answered since it was started: all but its own health pages."""

    def __init__(self) -> None:
        self.started = time.time()
        self.answers: Counter[Tuple[int, str]] = Counter({(200, ""): 0})
        self.steps = [0] * (len(STEPS) + 1)
        self.seconds = 0.0
        self.retried = 0
        self.in_hand = 0

    def answered(self, status: int, kind: str, seconds: float) -> None:
        """type: the error's name, "" without one. seconds: from when the request's headers were there."""
        key = (status, kind)
        if key not in self.answers and len(self.answers) >= KINDS:
            key = (status, OTHERS)
        self.answers[key] += 1
        self.steps[bisect_left(STEPS, seconds)] += 1
        self.seconds += seconds


def page(front: Front) -> str:
    """All numbers as Prometheus reads them."""
    counts, watch = front.counts, front.watch
    lines: List[str] = []

    def add(name: str, kind: str, says: str, values: Sequence[Tuple[str, float]]) -> None:
        lines.extend((f"# HELP anyshape_front_{name} {says}", f"# TYPE anyshape_front_{name} {kind}"))
        lines.extend(f"anyshape_front_{name}{labels} {value!r}" for labels, value in values)

    answers = [
        (labelled(code=str(code), type=kind), float(count))
        for (code, kind), count in sorted(counts.answers.items())
    ]
    add("requests_total", "counter", "Answers, by status and by the type of the error.", answers)
    duration = list(_histogram(counts))
    add("request_duration_seconds", "histogram", "From a request's headers to its answer.", duration)
    add("requests_in_hand", "gauge", "Requests that are being answered.", [("", counts.in_hand)])
    waiting = float(front.turns.waiting)
    add("requests_waiting", "gauge", "Those of them that wait for their client's turn.", [("", waiting)])
    add("connections", "gauge", "Open connections of clients.", [("", len(front.connections))])
    add("retries_total", "counter", "Requests that were asked a second time.", [("", counts.retried)])
    lost = front.log.dropped
    add("lost_log_lines_total", "counter", "Lines of the log that could not be written.", [("", lost)])
    add("torchserve_up", "gauge", "Whether TorchServe answers.", [("", int(watch.up))])
    names = front.settings.models or sorted(watch.models)
    missing = set(front.missing(None))
    ready = [(labelled(model_name=name), int(watch.up and name not in missing)) for name in names]
    add("model_ready", "gauge", "Whether a worker of the model is READY.", ready)
    started = [("", counts.started)]
    add("start_time_seconds", "gauge", "When the front was started, in seconds since 1970.", started)
    return "\n".join([*lines, ""])


def _histogram(counts: Counts) -> Iterator[Tuple[str, float]]:
    total = 0
    for step, count in zip((*STEPS, float("inf")), counts.steps):
        total += count
        yield "_bucket" + labelled(le="+Inf" if step == float("inf") else repr(step)), float(total)
    yield "_sum", counts.seconds
    yield "_count", float(total)


def labelled(**labels: str) -> str:
    """{code="200",type=""}, with what must be escaped in a value escaped."""
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    return "{" + ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items()) + "}"


class MetricsPage:
    """What a Connection of the metrics' address asks: GET /metrics, without a token, and nothing else."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.settings = replace(front.settings, max_body=1024)
        self.connections: Set[Connection] = set()

    @property
    def draining(self) -> bool:
        return self._front.draining

    def connected(self, connection: Connection) -> Optional[Refused]:
        self.connections.add(connection)
        full = len(self.connections) > CONNECTIONS
        return TooManyConnections("too many ask for metrics at once", seconds=2) if full else None

    def disconnected(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def refuse_head(self, request: Request) -> Optional[Refused]:
        if request.path != "/metrics":
            return NotFound("nothing is at this path: GET /metrics")
        if request.method not in ("GET", "HEAD"):
            return MethodNotAllowed("/metrics is asked with GET", "GET, HEAD")
        if request.brings_body:
            return BadRequest("/metrics takes no body")
        return None

    async def answer(self, request: Request) -> Reply:
        request.id = new_id()
        if request.refused is not None:
            return refusal(request.refused, "")
        return Reply(200, [TEXT], page(self._front).encode())
