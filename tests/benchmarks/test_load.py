"""The load generator against a small real HTTP server whose answers and delays are known."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("httptools", reason="pip install -r requirements-bench.txt")
pytest.importorskip("uvloop", reason="pip install -r requirements-bench.txt")

from benchmarks import load
from benchmarks.client import render
from benchmarks.judging import Judge

REFERENCES = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
ANSWERS = [json.dumps(row.tolist()).encode() for row in REFERENCES]


class EchoServer:
    """Answers `/ITEM` with that item's vector. `stall` holds every answer until that time has come."""

    def __init__(self) -> None:
        self.stall_until = 0.0
        self.status = dict.fromkeys(range(3), "200 OK")
        self.bodies = dict(enumerate(ANSWERS))
        self.requests = 0
        self.hang_up = False
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(
            asyncio.start_server(self.talk, sock=self.socket, backlog=512)
        )
        self.loop.run_forever()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                item = int(head.split(b" ")[1][1:])
                self.requests += 1
                if (wait := self.stall_until - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                if self.hang_up:
                    break
                body = self.bodies[item]
                writer.write(
                    f"HTTP/1.1 {self.status[item]}\r\nX-Bucket: {2**item}\r\n"
                    f"X-Padding-Ratio: 1.5\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
        except (asyncio.IncompleteReadError, ConnectionResetError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def stop(self) -> None:
        async def cancel() -> None:
            self.server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    running = EchoServer()
    yield running
    running.stop()


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
    server.status[2] = "503 Service Unavailable"
    result = load.run(plan_for(server))
    assert result.errors == result.statuses[503] > 0
    assert set(result.items) == {0, 1}


def test_a_server_that_hangs_up_is_an_error(server):
    server.hang_up = True
    result = load.run(plan_for(server))
    assert result.requests_per_second == 0
    assert result.errors == result.statuses[0] > 0


def test_open_loop_keeps_its_schedule(server):
    result = load.run(plan_for(server, rate=200.0, seconds=1.0))
    due = load.poisson_times(200.0, 1.1, 0)
    assert len(result.items) == (due >= 0.1).sum()
    assert result.errors == 0


def test_a_stall_is_charged_to_every_request_that_was_due_meanwhile(server):
    """Coordinated omission: a closed loop would report one slow request per connection, and go on."""
    server.stall_until = time.perf_counter() + 1.2
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
