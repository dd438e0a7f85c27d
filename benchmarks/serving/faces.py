"""`python -m benchmarks faces`: TorchServe beside Ray Serve, one archive, the same cores, answers judged.

    python -m benchmarks faces                              # paragraphs, two rounds: about four minutes
    python -m benchmarks faces --workload short --rounds 3

A round starts one server after the other, in turns first and second; each has the machine to itself. A closed
loop of 32 connections finds the throughput; then requests come at Poisson times at a rate that both bear:
a share of what TorchServe did in the first round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import fields
from typing import Any

from benchmarks.serving import load, systems, workloads
from benchmarks.serving.systems.kinds import Bucketed, RayServe
from benchmarks.serving.systems.system import System
from benchmarks.serving.workloads import Workload

FIGURES = ("closed_rate", "closed_p50", "closed_p99", "open_p50", "open_p99")


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks faces",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--system", default="bucketed-torchscript", help="one of this project's")
    parser.add_argument("--workload", default="paragraphs")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each loop")
    parser.add_argument("--share", type=float, default=0.6, help="of TorchServe's throughput, open loop")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    found = measure(given)
    print(json.dumps(found)) if given.json else show(found)
    return 0


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds: requests a second, milliseconds."""
    ours = systems.find(given.system)
    if not isinstance(ours, Bucketed):
        raise SystemExit(f"{given.system} is no archive of this project")
    same = {field.name: getattr(ours, field.name) for field in fields(Bucketed)}
    faces: dict[str, System] = {"TorchServe": ours, "Ray Serve": RayServe(**{**same, "name": "ray-serve"})}
    workload = workloads.load(given.workload, given.seed)
    rows: dict[str, list[dict[str, float]]] = {face: [] for face in faces}
    rate = None
    for number in range(given.rounds):
        # TorchServe goes first in the first round: it says at which rate the open loops run.
        for face in list(faces)[:: -1 if number % 2 else 1]:
            row = visit(faces[face], workload, rate, given)
            rate = rate or given.share * row["closed_rate"]
            rows[face].append(row)
            told = "  ".join(f"{key} {row[key]:.1f}" for key in FIGURES)
            print(f"round {number + 1}  {face:10}  {told}", file=sys.stderr, flush=True)
    medians = {
        face: {key: statistics.median(row[key] for row in visits) for key in FIGURES}
        for face, visits in rows.items()
    }
    return {"system": given.system, "workload": given.workload, "rate": rate, "faces": medians}


def visit(
    system: System, workload: Workload, rate: float | None, given: argparse.Namespace
) -> dict[str, float]:
    running = system.start(system.folder())
    try:
        plan: dict[str, Any] = {
            "port": running.port,
            "requests": system.requests(workload),
            "judge": system.judge(workload),
            "seconds": given.seconds,
            "warm_seconds": 4.0,
            "seed": given.seed,
        }
        closed = load.generate(load.Plan(**plan, connections=given.connections))
        rate = rate or given.share * closed.requests_per_second
        opened = load.generate(load.Plan(**plan, rate=rate))
    finally:
        running.stop()
    for result in (closed, opened):
        if result.wrong or result.errors:
            raise SystemExit(f"{system.name}: {result.wrong} wrong answers, statuses {result.statuses}")
    return {
        "closed_rate": closed.requests_per_second,
        "closed_p50": closed.percentile(50),
        "closed_p99": closed.percentile(99),
        "open_p50": opened.percentile(50),
        "open_p99": opened.percentile(99),
    }


def show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{found['system']}, {found['workload']}; open loop at {found['rate']:.1f} requests/s"
    )
    for column in ("", "requests/s", "p50", "p99", "open loop: p50", "p99"):
        table.add_column(column, justify="left" if column == "" else "right")
    faces = found["faces"]
    for face, row in faces.items():
        table.add_row(
            face, f"{row['closed_rate']:.1f}", *(f"{row[key]:.0f} ms" for key in FIGURES if "_p" in key)
        )
    ours, other = faces["Ray Serve"], faces["TorchServe"]
    table.add_row("Ray Serve ÷ TorchServe", *(f"{ours[key] / other[key]:.2f}" for key in FIGURES))
    Console(width=100).print(table)
