"""Every system side by side: requests per second and latencies over HTTP, every answer judged.

    python -m benchmarks serving                     # all systems, three rounds: about an hour and a half
    python -m benchmarks serving --quick             # every kind of system once, below ten minutes
    python -m benchmarks serving --systems bucketed-inductor,openvino@workers=1,threads=2

A round visits every system once, in an order drawn anew: start it, wait until every worker is ready,
warm it over HTTP, measure, stop it. One server at a time has the machine to itself, and what the
machine does meanwhile falls on all systems alike. Figures are medians over the rounds, with ranges.
Writes latest.json and run.json (the machine and the settings) to benchmarks/results, or to a folder of
another name there, for a machine of another kind: --machine amx.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.paths import RESULTS
from benchmarks.serving import load, systems, workloads
from benchmarks.serving.systems.processes import ServerFailed
from benchmarks.serving.systems.system import Running, System, Unavailable
from benchmarks.serving.workloads import Workload
from benchmarks.studies import gemm

QUICK_SYSTEMS = [
    "bucketed-torchscript",
    "bucketed-inductor",
    "bucketed-inductor-bf16",
    "traced-512",
    "first-fit",
    "eager",
    "onnx",
    "onnx-longest",
    "openvino",
    "openvino-bf16",
    "openvino-bf16-longest",
    "infinity",
    "aoti",
    "bucketed-images-inductor",
    "image-traced-640",
    "image-eager",
]
# Of what the system itself reached in the closed loop.
OPEN_LOADS = {"quarter": 0.25, "half": 0.5, "three_quarters": 0.75, "ninety": 0.9}


@dataclass
class Options:
    rounds: int
    seconds: float
    warm_seconds: float
    systems: list[str]
    workloads: list[str]
    open_loop: list[str]
    connections: int
    items: int
    seed: int
    machine: str = ""


def run(argv: list[str]) -> int:
    options, as_json = parse(argv)
    # So that a benchmark that is told to end stops the server it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say(f"{options.rounds} rounds of {len(options.systems)} systems, seed {options.seed}")
    peaks = {dtype: gemm.peak(dtype) for dtype in ("float32", "bfloat16")}
    loaded = {name: workloads.load(name, options.seed, options.items) for name in options.workloads}
    rows, failures = measure(options, loaded, peaks)
    results = summarise(rows)
    write(results, options, peaks)
    print(json.dumps(results, indent=1) if as_json else table(results))
    for failure in failures:
        say(failure)
    return 1 if failures else 0


def parse(argv: list[str]) -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, help="visits to every system (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="of each measurement (8; quick: 4)")
    parser.add_argument("--systems", help=f"names, by commas; known: {', '.join(systems.SYSTEMS)}")
    parser.add_argument("--workloads", help=f"known: {', '.join(workloads.WORKLOADS)}")
    parser.add_argument(
        "--open-loop",
        default=None,
        help="workloads also measured at four lower loads (paragraphs; quick: none)",
    )
    parser.add_argument("--connections", type=int, default=32, help="of the closed loop (32)")
    parser.add_argument("--items", type=int, default=512, help="different inputs (512)")
    parser.add_argument("--seed", type=int, default=0, help="of inputs, orders and arrival times")
    parser.add_argument("--quick", action="store_true", help="below ten minutes")
    parser.add_argument("--machine", default="", help="the folder in benchmarks/results to write to")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    given = parser.parse_args(argv)
    quick = given.quick
    names = split_names(given.systems) or (QUICK_SYSTEMS if quick else list(systems.SYSTEMS))
    for name in names:
        try:
            systems.find(name)
        except KeyError:
            parser.error(f"unknown system {name!r}: choose from {', '.join(systems.SYSTEMS)}")
        except ValueError as error:
            parser.error(str(error))
    kinds = {systems.find(name).kind for name in names}
    defaults = (("paragraphs", "text"), ("short", "text"), ("coco", "image"))
    default = [workload for workload, kind in defaults if kind in kinds]
    chosen = given.workloads.split(",") if given.workloads else default
    if unknown := set(chosen) - set(workloads.WORKLOADS):
        parser.error(f"unknown workload {unknown.pop()!r}")
    open_loop = given.open_loop
    if open_loop is None:
        open_loop = "" if quick else "paragraphs"
    options = Options(
        rounds=given.rounds or (1 if quick else 3),
        seconds=given.seconds or (4.0 if quick else 8.0),
        warm_seconds=2.0 if quick else 3.0,
        systems=names,
        workloads=chosen,
        open_loop=[name for name in open_loop.split(",") if name],
        connections=given.connections,
        items=given.items,
        seed=given.seed,
        machine=given.machine,
    )
    return options, given.json


def split_names(text: str | None) -> list[str]:
    """`a,b@workers=1,threads=2,c` → three names: a comma before `key=value` belongs to the settings."""
    names: list[str] = []
    for part in (text or "").split(","):
        if "=" in part and "@" not in part and names:
            names[-1] += f",{part}"
        elif part:
            names.append(part)
    return names


def measure(
    options: Options, loaded: dict[str, Workload], peaks: dict[str, float]
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per visit, system and workload; and a line for each system that could not be measured."""
    rows, failures = [], {}
    for round_number in range(options.rounds):
        order = [name for name in options.systems if name not in failures]
        random.Random(f"{options.seed}-{round_number}").shuffle(order)
        for name in order:
            system = systems.find(name)
            wanted = [w for w in loaded.values() if w.kind == system.kind]
            try:
                running = system.start(system.folder())
            except (Unavailable, ServerFailed) as error:
                failures[name] = f"{name}: {error}"
                say(failures[name])
                continue
            try:
                for workload in wanted:
                    row = visit(system, running, workload, options, round_number, peaks)
                    say(line(row))
                    rows.append(row)
            finally:
                running.stop()
    return rows, list(failures.values())


def visit(
    system: System,
    running: Running,
    workload: Workload,
    options: Options,
    round_number: int,
    peaks: dict[str, float],
) -> dict[str, Any]:
    seed = options.seed * 1000 + round_number
    plan = load.Plan(
        port=running.port,
        requests=system.requests(workload),
        judge=system.judge(workload),
        connections=options.connections,
        warm_seconds=options.warm_seconds,
        seconds=options.seconds,
        seed=seed,
    )
    before = running.counted()
    result = load.generate(plan)
    after = running.counted()
    tokens = np.array([size[0] for size in workload.sizes]) if workload.kind == "text" else None
    row: dict[str, Any] = {
        "system": system.name,
        "workload": workload.name,
        "connections": options.connections,
        "requests_per_second": result.requests_per_second,
        "p50_ms": result.percentile(50),
        "p99_ms": result.percentile(99),
        "wrong": result.wrong,
        "errors": result.errors,
        "answers": len(result.items),
        "worst_deviation": result.worst_deviation,
        "padding_ratio": padding_ratio(system, workload, result),
        "memory_mb": running.server.memory_mb(),
        "archive_mb": running.archive_mb,
        "ready_seconds": running.server.ready_seconds,
        "generator_cpu_share": result.generator_cpu_share,
        "dtype": system.dtype,
        "workers": system.workers,
        "threads": system.threads,
        "batch_size": system.batch_size,
        "buckets": result.by_bucket(),
    }
    if after:
        spent = {key: value - (before or {}).get(key, 0.0) for key, value in after.items()}
        row["outside_model_ms"] = spent["handler_seconds"] / spent["items"] * 1e3
    if tokens is not None:
        row["tokens_per_second"] = float(tokens[result.items].sum() / options.seconds)
        flops = sum(gemm.minilm_flops(int(count)) for count in tokens[result.items])
        if system.dtype in peaks:
            row["share_of_peak"] = flops / options.seconds / peaks[system.dtype]
    if workload.name in options.open_loop and result.requests_per_second:
        for label, share in OPEN_LOADS.items():
            plan.rate = share * result.requests_per_second
            opened = load.generate(plan)
            row[f"{label}_rate"] = plan.rate
            row[f"{label}_p50_ms"] = opened.percentile(50)
            row[f"{label}_p99_ms"] = opened.percentile(99)
            row["wrong"] += opened.wrong
            row["errors"] += opened.errors
    return row


def padding_ratio(system: System, workload: Workload, result: load.Result) -> float:
    """Executed ÷ real positions: as the answers say in `X-Padding-Ratio`, else as the system pads."""
    sizes = [workload.sizes[item] for item in result.items]
    if not sizes:
        return float("nan")
    real = np.array([np.prod(size) for size in sizes])
    said = result.padding_ratios
    ratios = np.where(np.isnan(said), [system.padding_ratio(size) for size in sizes], said)
    return float((ratios * real).sum() / real.sum())


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the rounds; the sum of what was wrong; and the range of requests per second."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["system"], row["workload"]), []).append(row)
    results = []
    for group in groups.values():
        summary = dict(group[0])
        for key, value in group[0].items():
            if isinstance(value, float):
                summary[key] = round(statistics.median(row[key] for row in group), 6)
        for key in ("wrong", "errors", "answers"):
            summary[key] = sum(row[key] for row in group)
        rates = [row["requests_per_second"] for row in group]
        summary["requests_per_second_range"] = [round(min(rates), 3), round(max(rates), 3)]
        summary["rounds"] = len(group)
        results.append(summary)
    return sorted(results, key=lambda r: (r["workload"], -r["requests_per_second"]))


def write(results: list[dict[str, Any]], options: Options, peaks: dict[str, float]) -> None:
    folder = RESULTS / options.machine
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(map(json.dumps, results))  # a line each: every bucket has percentiles of its own
    (folder / "latest.json").write_text(f"[\n{lines}\n]\n")
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "gemm_gflops": {dtype: round(value / 1e9) for dtype, value in peaks.items()},
        "options": vars(options),
    }
    (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n")


def machine() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['system']:28} {row['workload']:11} {row['requests_per_second']:7.1f} req/s  "
        f"p50 {row['p50_ms']:6.0f} ms  p99 {row['p99_ms']:6.0f} ms  "
        f"wrong {row['wrong']}  errors {row['errors']}"
    )


def table(results: list[dict[str, Any]]) -> str:
    lines = []
    for row in results:
        low, high = row["requests_per_second_range"]
        lines.append(f"{line(row)}  ({low:.0f} to {high:.0f} req/s over {row['rounds']} rounds)")
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
