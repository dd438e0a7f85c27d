"""`python -m benchmarks early`: latencies under load, with answers that leave as their calls end and without.

    python -m benchmarks early                                   # half 40, half 380 tokens, 70 % load
    python -m benchmarks early --system bucketed-inductor --load 0.5 --rounds 3

Both servers run side by side and are asked by turns: requests are due at Poisson times, at a share of what
the one without early answers does at saturation. Latencies count from when a request was due.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.serving import load, systems, workloads
from benchmarks.serving.systems.system import Running, System
from benchmarks.serving.workloads import Workload


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks early",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--system", default="bucketed-torchscript", help="one of this project's")
    parser.add_argument("--workload", default="bimodal")
    parser.add_argument("--load", type=float, default=0.7, help="share of the saturated rate")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    plain = systems.find(given.system)
    early = replace(plain, name=f"{plain.name}-early", settings={**plain.settings, "early_answers": True})
    workload = workloads.load(given.workload, given.seed)
    running: dict[str, tuple[System, Running]] = {}
    try:
        for name, system in (("with the batch", plain), ("early", early)):
            running[name] = (system, system.start(system.folder()))
        measure(running, workload, given)
    finally:
        for _, each in running.values():
            each.stop()
    return 0


def measure(
    running: dict[str, tuple[System, Running]], workload: Workload, given: argparse.Namespace
) -> None:
    most = {}
    for name, (system, server) in running.items():
        saturated = plan_of(system, server, workload, seconds=given.seconds / 2, seed=given.seed)
        load.generate(saturated)
        most[name] = load.generate(saturated).requests_per_second
        print(f"{name}: {most[name]:.1f} requests per second at saturation", flush=True)
    rate = given.load * most["with the batch"]
    print(f"\nopen loop, {rate:.1f} requests per second, ms:")
    for number in range(given.rounds):
        for name, (system, server) in running.items():
            plan = plan_of(
                system, server, workload, seconds=given.seconds, seed=given.seed + number, rate=rate
            )
            tell(f"round {number + 1}, {name}", load.generate(plan), workload)


def plan_of(system: System, server: Running, workload: Workload, **given: Any) -> load.Plan:
    return load.Plan(
        port=server.port, requests=system.requests(workload), judge=system.judge(workload), **given
    )


def tell(what: str, result: load.Result, workload: Workload) -> None:
    """One line: the percentiles of all, and of the shorter and the longer half."""
    if result.wrong:
        raise SystemExit(f"{what}: {result.wrong} wrong answers")
    volumes = np.array([np.prod(size) for size in workload.sizes])
    longer = volumes[result.items] > (volumes.min() + volumes.max()) / 2
    parts = {"all": slice(None), "shorter": ~longer, "longer": longer}
    said = []
    for part, chosen in parts.items():
        p50, p99 = np.percentile(result.latencies_ms[chosen], [50, 99])
        said.append(f"{part} p50 {p50:6.1f} p99 {p99:6.1f}")
    print(f"{what:24} {'   '.join(said)}   unanswered {result.errors}", flush=True)
