"""`python -m benchmarks profile`: where the time goes while a server is saturated, stage by stage.

    python -m benchmarks profile                                  # bucketed-inductor, paragraphs, one minute
    python -m benchmarks profile --system bucketed-torchscript --workload short

Processor time of the server's processes comes from the system; what the handler spends around the model it
counts itself. The rest of a worker's time is the compiled model, with planning and padding, and TorchServe's
own part of the worker, which reads and writes the frontend's messages.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from benchmarks.serving import load, systems, workloads
from benchmarks.serving.systems.system import Running


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--system", default="bucketed-inductor", help="one of this project's")
    parser.add_argument("--workload", default="paragraphs")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
    given = parser.parse_args(argv)
    stages = measure(given)
    print(json.dumps(stages)) if given.json else show(stages, given)
    return 0


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per request of each stage, over the cores of the machine."""
    system = systems.find(given.system)
    workload = workloads.load(given.workload, given.seed)
    running = system.start(system.folder())
    try:
        plan = load.Plan(
            port=running.port,
            requests=system.requests(workload),
            judge=system.judge(workload),
            connections=given.connections,
            warm_seconds=2.0,
            seconds=given.seconds,
            seed=given.seed,
        )
        load.generate(plan)  # as long again: what is warm only after a while is warm now
        before = snapshot(running)
        result = load.generate(plan)
        after = snapshot(running)
    finally:
        running.stop()
    spent = {key: after[key] - before[key] for key in before}
    each = {key: value / spent["items"] * 1e3 for key, value in spent.items()}
    generator = result.generator_cpu_share / result.requests_per_second * 1e3
    stages = {
        "worker: compiled model, planning, padding": each["workers"] - each["handler_seconds"],
        "worker: bodies, tokens, JSON, metrics": each["handler_seconds"],
        "TorchServe's frontend (Java)": each["frontend"],
        "load generator": generator,
    }
    total = (os.cpu_count() or 1) / result.requests_per_second * 1e3
    stages["idle, or others"] = total - sum(stages.values())
    return {
        "system": given.system,
        "workload": given.workload,
        "connections": given.connections,
        "requests_per_second": result.requests_per_second,
        "wrong": result.wrong,
        "errors": result.errors,
        "ms_per_request": stages,
    }


def snapshot(running: Running) -> dict[str, float]:
    """What was spent since the start: seconds by the handler's own count, processor seconds by process."""
    counted = running.counted()
    if counted is None:
        raise SystemExit("only this project's systems count their stages")
    seconds = {"workers": 0.0, "frontend": 0.0}
    for process in running.server.family():
        times = process.cpu_times()
        part = "workers" if "model_service_worker" in " ".join(process.cmdline()) else "frontend"
        seconds[part] += times.user + times.system
    return {**counted, **seconds}


def show(found: dict[str, Any], given: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    stages = found["ms_per_request"]
    table = Table(
        title=f"{found['system']}, {found['workload']}, {found['connections']} connections, "
        f"{given.seconds:.0f} s: {found['requests_per_second']:.1f} requests per second"
    )
    for column in ("stage", "ms per request", "of all cores"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, ms in stages.items():
        table.add_row(stage, f"{ms:.2f}", f"{ms / sum(stages.values()):.1%}")
    Console().print(table)
