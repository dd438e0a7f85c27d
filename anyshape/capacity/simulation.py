"""One server, simulated event by event (SimPy): queue, hand-over, packing, calls, answers.

    simulate(Server(workers=2), costs, pack, sizes, rate=150.0).percentile(99)     # seconds

Requests arrive at Poisson times and wait in one queue. A free worker takes the first, waits up to
`max_delay` for company, and takes up to `batch_size`; meanwhile no other worker may take any, as in
TorchServe's `Model.pollBatch`. The packer that serves turns them into calls, and a call takes what the cost
table says, times what a running server was seen to take longer. All answers of a hand-over leave together,
or each as its call ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Deque, Generator, List, Sequence, Tuple

import numpy as np
import simpy

from anyshape.buckets import Size, volume
from anyshape.capacity.slowness import Slowness
from anyshape.costs import CostTable
from anyshape.packing import Policy

Process = Generator[Any, Any, None]


@dataclass(frozen=True)
class Server:
    """What is simulated; times are in seconds.

    workers: processes or NeuronCores, each of which runs one call at a time with `threads` cores.
    batch_size, max_delay, queue: as the recipe's batchSize, maxBatchDelay and jobQueueSize.
    per_request: a worker's time for one request around the model (body, tokens, JSON); per_batch: for one
    hand-over; frontend: that of the frontend for one request, in which the workers go on.
    cores: of the machine, where the frontend shares those of the workers; None where it has its own.
    early: whether an answer leaves as its call ends. slowness: what calls take longer than the table says.
    """

    workers: int = 1
    threads: int = 1
    batch_size: int = 8
    max_delay: float = 0.002
    queue: int = 100
    per_request: float = 0.0003
    per_batch: float = 0.001
    frontend: float = 0.0005
    cores: int | None = None
    early: bool = False
    slowness: Slowness = field(default_factory=Slowness)

    def slowdown(self, rate: float) -> float:
        """How much longer the workers' work takes because the frontend uses their cores as well."""
        if self.cores is None:
            return 1.0
        left = max(self.cores - rate * self.frontend, 0.05 * self.cores)
        return max(1.0, self.workers * self.threads / left)


@dataclass
class Outcome:
    """What came of the requests.

    latencies: seconds from arrival to answer, after the first tenth. answered, refused: requests of all.
    seconds: until the last answer. busy: the share of it that workers worked. real, run: positions.
    """

    rate: float
    latencies: np.ndarray
    answered: int
    refused: int
    seconds: float
    busy: float
    handovers: int
    calls: int
    real: int
    run: int

    @property
    def throughput(self) -> float:
        """Requests answered in a second."""
        return self.answered / self.seconds

    @property
    def padding(self) -> float:
        """Positions run ÷ positions needed."""
        return self.run / self.real

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.latencies, percent)) if len(self.latencies) else float("inf")


def simulate(
    server: Server,
    costs: CostTable,
    policy: Policy,
    sizes: Sequence[Size],
    rate: float,
    seed: int = 0,
) -> Outcome:
    """Send one request of each of `sizes` at `rate` a second, and wait for all answers.

    The first tenth fills the server and is not counted.
    """
    return _Run(server, costs, policy, sizes, rate, seed).outcome()


def saturate(server: Server, costs: CostTable, policy: Policy, sizes: Sequence[Size]) -> float:
    """Requests a second when there is always one waiting, and none is refused."""
    alone = simulate(replace(server, queue=len(sizes), cores=None), costs, policy, sizes, 1e9).throughput
    if server.cores is None:
        return alone
    # The rate at which `slowdown` is what makes it that rate.
    shared = alone * server.cores / (server.workers * server.threads + alone * server.frontend)
    return min(alone, shared)


class _Run:
    def __init__(
        self,
        server: Server,
        costs: CostTable,
        policy: Policy,
        sizes: Sequence[Size],
        rate: float,
        seed: int,
    ) -> None:
        self.server, self.costs, self.policy = server, costs, policy
        self.sizes, self.rate = sizes, rate
        self.slowdown = server.slowdown(rate)
        self.gaps = np.random.default_rng(seed).exponential(1 / rate, len(sizes))
        self.chance = np.random.default_rng((seed, 1))
        self.first = len(sizes) // 10
        self.waiting: Deque[Tuple[int, float]] = deque()  # which request, and when it arrived
        self.latencies: List[float] = []
        self.answered = self.refused = self.handovers = self.calls = self.real = self.run = 0
        self.busy = 0.0
        self.env = simpy.Environment()
        self.arrival = self.env.event()
        self.turn = simpy.Resource(self.env, 1)

    def outcome(self) -> Outcome:
        for _ in range(self.server.workers):
            self.env.process(self._worker())
        self.env.process(self._arrivals())
        self.env.run()  # until nothing is left to happen: all are answered
        seconds = float(self.env.now)
        return Outcome(
            rate=self.rate,
            latencies=np.array(self.latencies),
            answered=self.answered,
            refused=self.refused,
            seconds=seconds,
            busy=self.busy / (self.server.workers * seconds),
            handovers=self.handovers,
            calls=self.calls,
            real=self.real,
            run=self.run,
        )

    def _arrivals(self) -> Process:
        for number, gap in enumerate(self.gaps.tolist()):
            yield self.env.timeout(gap)
            if len(self.waiting) >= self.server.queue:
                self.refused += 1
                continue
            self.waiting.append((number, self.env.now))
            self._wake()

    def _wake(self) -> None:
        told, self.arrival = self.arrival, self.env.event()
        told.succeed()

    def _worker(self) -> Process:
        server = self.server
        while True:
            with self.turn.request() as mine:
                yield mine
                while not self.waiting:
                    yield self.arrival
                batch = [self.waiting.popleft()]
                until = self.env.now + server.max_delay
                while len(batch) < server.batch_size:
                    if self.waiting:
                        batch.append(self.waiting.popleft())
                    elif self.env.now < until:
                        yield self.arrival | self.env.timeout(until - self.env.now)
                    else:
                        break
            yield from self._work(batch)

    def _work(self, batch: List[Tuple[int, float]]) -> Process:
        server, began = self.server, self.env.now
        self.handovers += 1
        around = server.per_batch + server.per_request * len(batch)
        yield self.env.timeout(around * self.slowdown)
        sizes = [self.sizes[number] for number, _ in batch]
        for call in self.policy(sizes, self.costs):
            seconds = self.costs.cost(call.bucket, call.batch_size)
            seconds *= server.slowness.draw(call.bucket, self.chance)
            yield self.env.timeout(seconds * self.slowdown)
            self.calls += 1
            self.run += volume(call.bucket) * call.batch_size
            if server.early:
                self._answer(batch[i] for i in call.items)
        if not server.early:
            self._answer(batch)
        self.real += sum(map(volume, sizes))
        self.busy += self.env.now - began

    def _answer(self, requests: Any) -> None:
        for number, arrived in requests:
            self.answered += 1
            if number >= self.first:
                self.latencies.append(self.env.now - arrived + self.server.frontend)
