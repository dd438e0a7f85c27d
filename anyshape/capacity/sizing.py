"""How many servers a rate needs: the most that one bears within the p99, found by simulating it.

Requests that a balancer deals out at random arrive at each server at Poisson times as well, so one server is
simulated, whatever the rate: a thousand servers are a thousand times that one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Sequence

import numpy as np

from anyshape.buckets import Size
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.inputs import Histogram
from anyshape.capacity.simulation import Outcome, Server, saturate, simulate
from anyshape.costs import CostTable
from anyshape.packing import Policy

REQUESTS = 4000  # of one try; the p99 is that of 40 of them
FINAL = 5  # times as many for what is told
STEPS = 9  # halvings of the rate: to a five-hundredth


@dataclass(frozen=True)
class Sizing:
    """What is needed, and what one server does then. `rate` and `most` are requests a second of one server:
    what it gets, the most within the p99; `saturated`: what it answers when requests always wait."""

    servers: int
    cores: int
    rate: float
    most: float
    saturated: float
    outcome: Outcome

    def figures(self) -> Dict[str, Any]:
        """As JSON; milliseconds."""
        told = {k: v for k, v in asdict(self).items() if k != "outcome"}
        outcome = self.outcome
        return {
            **told,
            "p50_ms": outcome.percentile(50) * 1e3,
            "p99_ms": outcome.percentile(99) * 1e3,
            "throughput": outcome.throughput,
            "busy": outcome.busy,
            "padding": outcome.padding,
            "requests_per_handover": outcome.answered / outcome.handovers,
            "calls_per_handover": outcome.calls / outcome.handovers,
        }


def draw(histogram: Histogram, count: int, seed: int = 0) -> List[Size]:
    """So many sizes, as often as the histogram has them."""
    sizes = sorted(histogram)
    weights = np.array([histogram[size] for size in sizes], dtype=float)
    chosen = np.random.default_rng(seed).choice(len(sizes), count, p=weights / weights.sum())
    return [sizes[i] for i in chosen]


def size_servers(
    server: Server,
    costs: CostTable,
    policy: Policy,
    histogram: Histogram,
    rate: float,
    p99: float,
) -> Sizing:
    """The servers that `rate` requests a second need, so that 99 % are answered within `p99` seconds.

    Raises PlanError where no number of them does it.
    """
    sizes = draw(histogram, REQUESTS)
    saturated = saturate(server, costs, policy, sizes)

    def bears(tried: float) -> bool:
        outcome = simulate(server, costs, policy, sizes, tried)
        return outcome.refused == 0 and outcome.percentile(99) <= p99

    idle = simulate(server, costs, policy, sizes, saturated * 0.01)
    if idle.percentile(99) > p99:
        raise PlanError(
            f"no number of cores answers 99 % within {p99 * 1e3:g} ms: an idle server takes "
            f"{idle.percentile(99) * 1e3:.1f} ms. More --threads for a call, or a faster backend, would"
        )
    low, high = saturated * 0.01, saturated
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if bears(middle) else (low, middle)
    many = draw(histogram, FINAL * REQUESTS, seed=1)  # others than those that the rate was found with
    while True:
        servers = max(1, math.ceil(rate / low))
        each = rate / servers
        outcome = simulate(server, costs, policy, many, each, seed=1)
        if outcome.refused == 0 and outcome.percentile(99) <= p99:
            break
        low *= 0.98
    return Sizing(
        servers=servers,
        cores=servers * (server.cores or server.workers * server.threads),
        rate=each,
        most=low,
        saturated=saturated,
        outcome=outcome,
    )


def predict(
    server: Server, costs: CostTable, policy: Policy, sizes: Sequence[Size], rate: float, seeds: int = 3
) -> Dict[str, float]:
    """What a server does at a rate: the mean over seeds of throughput, and of p50 and p99 in seconds."""
    outcomes = [simulate(server, costs, policy, sizes, rate, seed) for seed in range(seeds)]
    return {
        "throughput": float(np.mean([outcome.throughput for outcome in outcomes])),
        "p50": float(np.mean([outcome.percentile(50) for outcome in outcomes])),
        "p99": float(np.mean([outcome.percentile(99) for outcome in outcomes])),
        "refused": float(np.mean([outcome.refused for outcome in outcomes])),
    }
