"""`python -m benchmarks shapes`: one program for every length against one program per bucket.

Builds recipes/minilm-inductor.yaml twice, with `shapes: dynamic` and with fixed buckets, and runs the same
batches of texts through both, packed by each one's own measured costs. Every round runs both, one after the
other; the figure is the median over rounds. Memory is that of a process with the archive loaded and warm.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from anyshape.building.build import build
from anyshape.model import BucketedModel
from anyshape.process import keep_freed_memory
from anyshape.recipe import read_yaml
from benchmarks.paths import ROOT, WORK
from benchmarks.studies.packing import in_turns, read

RECIPE = ROOT / "recipes" / "minilm-inductor.yaml"
FIXED = [16, 32, 64, 128, 256, 512]
KINDS: dict[str, dict[str, Any]] = {
    "dynamic": {"backend_options": {"shapes": "dynamic"}},
    "fixed": {"backend_options": {}, "buckets": FIXED},
}
DATA = ("short", "paragraphs", "mrpc")


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks shapes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", nargs="*", choices=DATA, default=list(DATA))
    parser.add_argument("--depths", nargs="*", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--items", type=int, default=128, help="items per data set and depth, default: 128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    archives = {kind: archive(kind) for kind in KINDS}
    memory = [
        {"shapes": kind, "archive_bytes": path.stat().st_size, **resident(path)}
        for kind, path in archives.items()
    ]
    models = {kind: BucketedModel.load(path) for kind, path in archives.items()}
    speed = [row for data in args.data for depth in args.depths for row in measure(models, data, depth, args)]
    print(json.dumps({"speed": speed, "memory": memory})) if args.json else show(speed, memory)
    return 0


def archive(kind: str) -> Path:
    """The archive of the recipe with these shapes, built once and kept."""
    path = WORK / "shapes" / f"minilm-{kind}.yaml"
    built = path.with_suffix(".mar")
    if not built.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = read_yaml(RECIPE)
        settings["handler"].update(KINDS[kind])
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        build(path, path.parent)
    return built


def resident(path: Path) -> dict[str, int]:
    command = [sys.executable, "-m", "anyshape", "inspect", str(path), "--memory", "--json"]
    told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)["memory"]
    return {"warm_bytes": told["bytes_after_warm_up"] - told["bytes_before_loading"]}


def measure(
    models: dict[str, BucketedModel], data: str, depth: int, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """One figure per kind of shapes: seconds per batch of `depth` items, positions executed ÷ needed."""
    items = read(models["dynamic"], data, max(depth, args.items), args.seed)
    ways = {kind: (model, "packed") for kind, model in models.items()}
    figures = in_turns(ways, items, depth, args.rounds)
    return [{"data": data, "depth": depth, "shapes": kind, **figures[kind]} for kind in models]


def show(speed: list[dict[str, Any]], memory: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Milliseconds per batch, packed (padded ÷ real in brackets)")
    for column in ("data", "depth", *KINDS, "dynamic ÷ fixed"):
        table.add_column(column, justify="left" if column == "data" else "right")
    by_case: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in speed:
        by_case.setdefault((row["data"], row["depth"]), {})[row["shapes"]] = row
    for (data, depth), found in by_case.items():
        cells = [f"{found[k]['seconds'] * 1e3:.1f} ({found[k]['padded_over_real']:.2f})" for k in KINDS]
        ratio = found["dynamic"]["seconds"] / found["fixed"]["seconds"]
        table.add_row(data, str(depth), *cells, f"{ratio:.2f}")
    Console().print(table)
    for row in memory:
        print(
            f"{row['shapes']}: archive {row['archive_bytes'] / 1e6:.0f} MB, "
            f"loaded and warm {row['warm_bytes'] / 1e6:.0f} MB"
        )
