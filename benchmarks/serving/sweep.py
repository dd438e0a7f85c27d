"""One quantity varied, the rest held: connections, workers or the number of buckets.

    python -m benchmarks sweep connections --systems bucketed-torchscript,openvino
    python -m benchmarks sweep workers
    python -m benchmarks sweep buckets       # builds an archive for each number of buckets first

Writes benchmarks/results/sweep-WHAT.json, which `python -m benchmarks figures` draws.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from anyshape.building.planning.plan import plan_lengths
from benchmarks.paths import RESULTS, ROOT, WORK
from benchmarks.serving import serving, systems, workloads
from benchmarks.serving.systems.kinds import Bucketed
from benchmarks.serving.systems.system import System
from benchmarks.serving.workloads import Workload
from benchmarks.studies import gemm

VALUES = {
    "connections": [1, 2, 4, 8, 16, 32, 64, 128],
    "workers": [1, 2],
    "buckets": [3, 4, 6, 8, 12, 16, 24],
}


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("over", choices=VALUES)
    parser.add_argument("--systems", default="bucketed-torchscript")
    parser.add_argument("--workload", default="paragraphs")
    parser.add_argument("--values", help="numbers, by commas")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    values = [int(v) for v in given.values.split(",")] if given.values else VALUES[given.over]
    workload = workloads.load(given.workload, given.seed)
    options = serving.Options(1, given.seconds, 2.0, [], [], [], 32, 512, given.seed)
    peaks = {dtype: gemm.peak(dtype) for dtype in ("float32", "bfloat16")}
    rows = []
    for name in serving.split_names(given.systems):
        for system, group in variants(given.over, systems.find(name), values, workload):
            running = system.start(system.folder())
            try:
                for value in group:
                    if given.over == "connections":
                        options.connections = value
                    row = serving.visit(system, running, workload, options, 0, peaks)
                    del row["buckets"]  # percentiles of each, which no table here shows
                    row.update({"system": name, given.over: value})
                    serving.say(f"{given.over} {value:4}  {serving.line(row)}")
                    rows.append(row)
            finally:
                running.stop()
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {"over": given.over, "workload": given.workload, "rows": rows}
    (RESULTS / f"sweep-{given.over}.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


def variants(
    over: str, system: System, values: list[int], workload: Workload
) -> Iterator[tuple[System, list[int]]]:
    """The servers to start, and the values that each is measured at."""
    if over == "connections":
        yield system, values
    elif over == "workers":  # workers × threads stays what the machine has
        for value in values:
            threads = max(1, (os.cpu_count() or 1) // value)
            yield replace(system, workers=value, threads=threads), [value]
    else:
        if not isinstance(system, Bucketed):
            raise SystemExit(f"{system.name} has no buckets to vary")
        for value in values:
            yield with_buckets(system, value, workload), [value]


def with_buckets(system: Bucketed, count: int, workload: Workload) -> Bucketed:
    """The same recipe with `count` buckets planned for the workload's own lengths."""
    folder = WORK / "sweep" / f"{system.name}-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = yaml.safe_load((ROOT / system.build).read_text())
    lengths = Counter(size[0] for size in workload.sizes)
    lengths[workloads.MAX_TOKENS] += 1  # the largest bucket takes what the others do
    recipe["handler"]["buckets"] = [bucket[0] for bucket in plan_lengths(lengths, count)]
    path = folder / f"{Path(system.archive).stem}-{count}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    built = folder / f"{path.stem}.mar"
    if not built.exists():
        command = [sys.executable, "-m", "anyshape", "build", str(path), "--store", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return replace(system, archive=str(built))
