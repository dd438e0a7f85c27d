"""Load: closed loop and open loop, every answer kept and judged, latencies safe from coordinated omission.

*Closed loop*: N connections, each sends its next request when its last one is answered. It finds the
throughput at saturation. *Open loop*: requests are due at seeded Poisson times whatever the server
does; a latency is counted from the moment the request was *due*, so that a stalled server is charged
for every request that should have been sent meanwhile (what Gil Tene named coordinated omission).

`run` is meant for a process of its own (see `generate`): it says how much CPU it used, because on a
small machine that is taken from the server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from benchmarks.serving.client import Answer, Connection
from benchmarks.serving.judging import Judge

OPEN_LOOP_CONNECTIONS = 256
DRAIN_SECONDS = 15.0


@dataclass
class Plan:
    """What to send and how. `rate` (requests per second) makes it an open loop; None a closed one."""

    port: int
    requests: list[bytes]
    judge: Judge
    connections: int = 32
    rate: float | None = None
    warm_seconds: float = 2.0
    seconds: float = 10.0
    seed: int = 0


@dataclass
class Sample:
    """One request: which item, when it was due and was answered (seconds), and the answer."""

    item: int
    due: float
    done: float
    answer: Answer | None


@dataclass
class Result:
    """Latencies in milliseconds, one per answered request of the measured window, with its item."""

    requests_per_second: float
    latencies_ms: np.ndarray
    items: np.ndarray
    buckets: list[str]
    padding_ratios: np.ndarray
    wrong: int
    errors: int
    worst_deviation: float
    generator_cpu_share: float
    statuses: dict[int, int] = field(default_factory=dict)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent)) if self.latencies_ms.size else 0.0

    def by_bucket(self) -> dict[str, dict[str, float]]:
        """p50 and p99 (ms) of every bucket that answers named in `X-Bucket`."""
        names = np.array(self.buckets)
        table = {}
        for name in sorted(set(self.buckets), key=lambda n: (len(n), n)):
            chosen = self.latencies_ms[names == name]
            p50, p99 = np.percentile(chosen, [50, 99])
            table[name] = {"count": int(chosen.size), "p50_ms": float(p50), "p99_ms": float(p99)}
        return table


def generate(plan: Plan) -> Result:
    """`run` in a fresh process that has loaded neither torch nor a model."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, plan).result()


def run(plan: Plan) -> Result:
    import uvloop

    start_cpu, start = time.process_time(), time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        work = closed_loop(plan) if plan.rate is None else open_loop(plan, plan.rate)
        samples, window = runner.run(work)
    cpu_share = (time.process_time() - start_cpu) / (time.perf_counter() - start)
    return summarise(plan, samples, window, cpu_share)


async def closed_loop(plan: Plan) -> tuple[list[Sample], tuple[float, float]]:
    samples: list[Sample] = []
    order = item_order(len(plan.requests), plan.seed)
    opened = time.perf_counter() + plan.warm_seconds
    closed = opened + plan.seconds

    async def client() -> None:
        connection = await Connection.open("127.0.0.1", plan.port)
        while time.perf_counter() < closed:
            item, due = next(order), time.perf_counter()
            connection, answer = await ask(connection, plan.port, plan.requests[item])
            samples.append(Sample(item, due, time.perf_counter(), answer))
        connection.close()

    clients = [asyncio.create_task(client()) for _ in range(plan.connections)]
    await asyncio.wait(clients, timeout=closed - time.perf_counter() + DRAIN_SECONDS)
    await collect(clients)
    # A rate counts the answers that arrived inside the window, so nothing is won by what is still on its way.
    return [s for s in samples if opened <= s.done < closed], (opened, closed)


async def open_loop(plan: Plan, rate: float) -> tuple[list[Sample], tuple[float, float]]:
    samples: list[Sample] = []
    order = item_order(len(plan.requests), plan.seed)
    queue: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()

    async def client() -> None:
        connection = await Connection.open("127.0.0.1", plan.port)
        while (job := await queue.get()) is not None:
            item, due = job
            connection, answer = await ask(connection, plan.port, plan.requests[item])
            samples.append(Sample(item, due, time.perf_counter(), answer))
        connection.close()

    clients = [asyncio.create_task(client()) for _ in range(OPEN_LOOP_CONNECTIONS)]
    await asyncio.sleep(0.2)
    start = time.perf_counter()
    opened, closed = start + plan.warm_seconds, start + plan.warm_seconds + plan.seconds
    due_times = start + poisson_times(rate, plan.warm_seconds + plan.seconds, plan.seed)
    missing: dict[tuple[int, float], None] = {}
    for due in due_times.tolist():
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        job = (next(order), due)
        missing[job] = None
        queue.put_nowait(job)
    for _ in clients:
        queue.put_nowait(None)
    await asyncio.wait(clients, timeout=DRAIN_SECONDS)
    await collect(clients)
    for sample in samples:
        missing.pop((sample.item, sample.due), None)
    now = time.perf_counter()
    samples += [Sample(item, due, now, None) for item, due in missing]  # never answered: an error
    return [s for s in samples if opened <= s.due < closed], (opened, closed)


async def ask(connection: Connection, port: int, request: bytes) -> tuple[Connection, Answer | None]:
    """The answer, or None if the server hung up instead. A connection that is closed, by that or while it was
    idle, is opened anew before the next request, as every HTTP client does."""
    if connection.closed:
        connection = await Connection.open("127.0.0.1", port)
    try:
        return connection, await connection.ask(request)
    except ConnectionError:
        await asyncio.sleep(0.05)  # a server that hangs up at once must not be hammered
        return connection, None


async def collect(clients: list[asyncio.Task[None]]) -> None:
    """Stop the clients that still wait; let an unexpected exception of one of them be seen."""
    for client in clients:
        client.cancel()
    for outcome in await asyncio.gather(*clients, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


def item_order(count: int, seed: int) -> Iterator[int]:
    """Every item once in a seeded random order, then again in another, without end."""
    shuffler = random.Random(seed)
    while True:
        order = list(range(count))
        shuffler.shuffle(order)
        yield from order


def poisson_times(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Times (seconds from the start, ascending) at which requests of a Poisson process are due."""
    generator = np.random.default_rng(seed)
    count = int(rate * seconds + 10 * (rate * seconds) ** 0.5 + 10)
    times = np.cumsum(generator.exponential(1 / rate, count))
    return times[times < seconds]


def summarise(plan: Plan, samples: list[Sample], window: tuple[float, float], cpu_share: float) -> Result:
    good, wrong, worst = [], 0, 0.0
    statuses: dict[int, int] = {}
    for sample in samples:
        status = sample.answer.status if sample.answer else 0
        statuses[status] = statuses.get(status, 0) + 1
        if sample.answer is None or status != 200:
            continue
        good.append(sample)
        deviation = plan.judge.deviation(sample.item, sample.answer.body)
        worst = max(worst, deviation)
        wrong += deviation > plan.judge.tolerance
    headers = [sample.answer.headers for sample in good if sample.answer]
    return Result(
        requests_per_second=len(good) / (window[1] - window[0]),
        latencies_ms=np.array([(s.done - s.due) * 1e3 for s in good]),
        items=np.array([s.item for s in good], dtype=np.int64),
        buckets=[h.get("x-bucket", "") for h in headers],
        padding_ratios=np.array([float(h.get("x-padding-ratio", "nan")) for h in headers]),
        wrong=wrong,
        errors=len(samples) - len(good),
        worst_deviation=worst,
        generator_cpu_share=cpu_share,
        statuses=statuses,
    )
