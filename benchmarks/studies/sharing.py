"""`python -m benchmarks sharing`: what a bucket costs in bytes and in memory.

Builds MiniLM with 3 and with 12 buckets, and loads and warms each archive in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from anyshape.building.build import build
from anyshape.recipe import read_yaml
from benchmarks.paths import ROOT

SETS = {3: [128, 256, 512], 12: [16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512]}


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks sharing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--recipe", default="minilm", help="a recipe's name, default: minilm")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
    args = parser.parse_args(argv)
    results = [measure(args.recipe, buckets) for buckets in SETS.values()]
    if args.json:
        print(json.dumps(results))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{args.recipe}: one copy of the weights, whatever the number of buckets")
    for column in ("buckets", "archive, MB", "parameter tensors", "loaded, MB", "every bucket warm, MB"):
        table.add_column(column, justify="right")
    for found in results:
        sizes = [found[key] / 1e6 for key in ("archive_bytes", "loaded_bytes", "warm_bytes")]
        cells = [found["buckets"], f"{sizes[0]:.1f}", found["tensors"], f"{sizes[1]:.0f}", f"{sizes[2]:.0f}"]
        table.add_row(*map(str, cells))
    Console().print(table)
    first, last = results[0], results[-1]
    added = (last["archive_bytes"] - first["archive_bytes"]) / (last["buckets"] - first["buckets"])
    print(f"each further bucket adds {added / first['weight_bytes']:.2%} of the weights to the archive")
    return 0


def measure(recipe: str, buckets: list[int]) -> dict[str, Any]:
    """Bytes on disk, distinct parameter tensors, and resident memory of a process with this archive."""
    settings = read_yaml(ROOT / "recipes" / f"{recipe}.yaml")
    settings["handler"].update(buckets=buckets, largest_batch=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{recipe}.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        built = build(path, Path(folder))
        command = [sys.executable, "-m", "anyshape", "inspect", str(built.path), "--memory", "--json"]
        told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    memory = told["memory"]
    return {
        "buckets": len(buckets),
        "archive_bytes": built.bytes,
        "weight_bytes": 4 * built.index.weights,
        "tensors": memory["distinct_parameter_tensors"],
        "loaded_bytes": memory["bytes_after_loading"],
        "warm_bytes": memory["bytes_after_warm_up"],
    }
