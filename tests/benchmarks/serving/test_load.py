"""The load generator against a small real HTTP server whose answers and delays are known."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import numpy as np
import pytest

pytest.importorskip("httptools", reason="pip install -r requirements/bench.txt")
pytest.importorskip("uvloop", reason="pip install -r requirements/bench.txt")

from benchmarks.serving import load
from benchmarks.serving.client import Connection, render
from benchmarks.serving.judging import Judge

REFERENCES = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
ANSWERS = [json.dumps(row.tolist()).encode() for row in REFERENCES]


class EchoServer(ThreadingHTTPServer):
    """Answers `/ITEM` with that item's vector, none before the first request has waited `stall` seconds."""

    request_queue_size = 512
    daemon_threads = False  # so that closing waits for every connection

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EchoHandler)
        self.port = self.server_address[1]
        self.stall = 0.0
        self.first: float | None = None  # when the first request came
        self.status = dict.fromkeys(range(3), 200)
        self.bodies = dict(enumerate(ANSWERS))
        self.requests = 0
        self.hang_up = False
        self.closes_after_an_answer = False


class EchoHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 10  # seconds that a connection may be silent: a test that fails must not hang

    def do_POST(self) -> None:
        server = cast(EchoServer, self.server)
        self.rfile.read(int(self.headers["Content-Length"]))
        item = int(self.path[1:])
        server.requests += 1
        server.first = server.first or time.perf_counter()
        if (wait := server.first + server.stall - time.perf_counter()) > 0:
            time.sleep(wait)
        if server.hang_up:
            self.close_connection = True
            return
        self.send_response(server.status[item])
        self.send_header("X-Bucket", str(2**item))
        self.send_header("X-Padding-Ratio", "1.5")
        self.send_header("Content-Length", str(len(server.bodies[item])))
        self.end_headers()
        self.wfile.write(server.bodies[item])
        self.close_connection = server.closes_after_an_answer

    def log_message(self, *values: object) -> None:
        """Nothing on the tests' standard error."""


@pytest.fixture
def server() -> Iterator[EchoServer]:
    running = EchoServer()
    thread = threading.Thread(target=running.serve_forever, args=(0.05,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def plan_for(server: EchoServer, **options: object) -> load.Plan:
    requests = [render(f"/{item}", b"x", "text/plain") for item in range(3)]
    settings = {"connections": 4, "warm_seconds": 0.1, "seconds": 0.5, **options}
    return load.Plan(server.port, requests, Judge(REFERENCES), **settings)


def test_closed_loop_counts_and_judges_every_answer(server):
    result = load.run(plan_for(server))
    assert result.wrong == 0
    assert result.errors == 0
    assert result.statuses == {200: len(result.items)}
    assert result.requests_per_second == len(result.items) / 0.5
    assert 0 < len(result.items) <= server.requests
    assert set(result.by_bucket()) == {"1", "2", "4"}
    assert sum(row["count"] for row in result.by_bucket().values()) == len(result.items)


def test_a_wrong_answer_is_counted_for_its_item_alone(server):
    server.bodies[1] = ANSWERS[2]
    result = load.run(plan_for(server))
    assert result.wrong == (result.items == 1).sum() > 0
    assert result.worst_deviation == pytest.approx(0.8)


def test_an_unreadable_answer_is_wrong(server):
    server.bodies[0] = b"[0.0, "
    result = load.run(plan_for(server))
    assert result.wrong == (result.items == 0).sum() > 0


def test_a_status_other_than_200_is_an_error_and_no_throughput(server):
    server.status[2] = 503
    result = load.run(plan_for(server))
    assert result.errors == result.statuses[503] > 0
    assert set(result.items) == {0, 1}


def test_a_server_that_hangs_up_is_an_error(server):
    server.hang_up = True
    result = load.run(plan_for(server))
    assert result.requests_per_second == 0
    assert result.errors == result.statuses[0] > 0


def test_a_connection_that_was_closed_while_idle_is_opened_anew(server):
    server.closes_after_an_answer = True

    async def two_requests() -> list[int]:
        connection = await Connection.open("127.0.0.1", server.port)
        statuses = []
        for _ in range(2):
            connection, answer = await load.ask(connection, server.port, render("/0", b"{}", "text/plain"))
            assert answer is not None
            statuses.append(answer.status)
            while not connection.closed:
                await asyncio.sleep(0.001)
        return statuses

    assert asyncio.run(two_requests()) == [200, 200]


def test_open_loop_keeps_its_schedule(server):
    result = load.run(plan_for(server, rate=200.0, seconds=1.0))
    due = load.poisson_times(200.0, 1.1, 0)
    assert len(result.items) == (due >= 0.1).sum()
    assert result.errors == 0


def test_a_stall_is_charged_to_every_request_that_was_due_meanwhile(server):
    """Coordinated omission: a closed loop would report one slow request per connection, and go on."""
    server.stall = 1.2
    result = load.run(plan_for(server, rate=300.0, seconds=1.0))
    late = (result.latencies_ms > 300).sum()
    assert late > 100


def test_order_and_schedule_depend_on_the_seed_alone():
    first, second, other = (load.item_order(50, seed) for seed in (3, 3, 4))
    orders = [[next(order) for _ in range(100)] for order in (first, second, other)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0][:50]) == list(range(50)) == sorted(orders[0][50:])
    assert (load.poisson_times(100, 5, 1) == load.poisson_times(100, 5, 1)).all()
    assert len(load.poisson_times(100, 50, 1)) == pytest.approx(5000, rel=0.1)
