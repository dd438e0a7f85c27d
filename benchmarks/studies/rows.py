"""Rows of whole texts against one text to a row: programs, memory, padding and time by the depth of a batch.

The same sentence encoder (MiniLM), compiled in several ways for each backend that is asked:

    items-25   the 25 buckets of recipes/minilm.yaml, one text to a row
    items-6    six buckets, one text to a row
    rows-2     rows of two lengths, whole texts beside each other
    rows-3     rows of three
    dynamic    one program for every length (inductor alone)

Every round runs every way on every batch, one after the other, so that what disturbs the machine disturbs
all of them; the figures are medians over rounds. Packing is part of the time. On a busy machine `--clock cpu`
counts processor time, of one thread. Compare figures of one run only.

`--bits` compares a text's vector among neighbours with the same text's alone, bit by bit.

`--memory` loads and warms each archive in a process of its own, and says what it took.

`--modelled` runs nothing: batches are packed as for an accelerator, where each length and batch size is a
program and a call costs its positions and 32 more; with rows of lengths that are planned for the data, too.

    python -m benchmarks rows --backends torchscript --clock cpu
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from anyshape.buckets import volume
from anyshape.building.build import build
from anyshape.costs import CostTable
from anyshape.items import Item
from anyshape.model import BucketedModel
from anyshape.packing import Call
from anyshape.padding import blank
from anyshape.process import keep_freed_memory
from benchmarks.paths import ROOT
from benchmarks.studies import rows_bits, timing
from benchmarks.studies.packing import DEPTHS, read
from benchmarks.studies.rows_modelled import SEGMENTS, SIX, THREE, TWO, modelled, show_modelled

DATA = ("short", "paragraphs", "mrpc")
WAYS: dict[str, dict[str, Any]] = {
    "items-25": {},
    "items-6": {"buckets": SIX},
    "rows-2": {"buckets": TWO, "layout": "rows", "segments": SEGMENTS},
    "rows-3": {"buckets": THREE, "layout": "rows", "segments": SEGMENTS},
    "dynamic": {"buckets": [8, 16, 32, 64, 128, 256, 512], "backend_options": {"shapes": "dynamic"}},
}
CALL = {"batch_sizes": "dynamic", "largest_batch": 32, "largest_call": 1024, "threads": 1}


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks rows", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", nargs="*", choices=DATA, default=list(DATA))
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=["items-25", "items-6", "rows-2"])
    parser.add_argument("--backends", nargs="*", default=["torchscript"])
    parser.add_argument("--depths", nargs="*", type=int, default=list(DEPTHS))
    parser.add_argument("--items", type=int, default=128, help="texts per data set and depth, default: 128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="cpu: where it is busy")
    parser.add_argument("--modelled", action="store_true", help="run nothing: padding and programs alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
    parser.add_argument("--memory", action="store_true", help="what each archive takes, and no times")
    parser.add_argument("--bits", action="store_true", help="what neighbours do to a vector, and no times")
    args = parser.parse_args(argv)
    if args.bits:
        ways = [(backend, way) for backend, way in compiled(args) if way.startswith("rows")]
        bits = {
            f"{backend} {way}": bits_of(BucketedModel.load(archive(backend, way), warm=False), args)
            for backend, way in ways
        }
        print(json.dumps(bits)) if args.json else rows_bits.show(bits)
        return 0
    if args.memory:
        results = [taken(backend, way) for backend, way in compiled(args)]
        print(json.dumps(results)) if args.json else show_memory(results)
        return 0
    if args.modelled:
        results = [figures for data in args.data for figures in modelled(data, args.depths, args.seed)]
        print(json.dumps(results)) if args.json else show_modelled(results)
        return 0
    torch.set_num_threads(1)
    keep_freed_memory()
    models = {
        f"{backend} {way}": BucketedModel.load(archive(backend, way), warm=False)
        for backend, way in compiled(args)
    }
    for model in models.values():
        model.costs = measured(model, timing.CLOCKS[args.clock])
    results = [
        {"data": data, "depth": depth, **figures}
        for data in args.data
        for depth in args.depths
        for figures in measure(models, data, depth, args)
    ]
    print(json.dumps(results)) if args.json else show(results)
    return 0


def bits_of(model: BucketedModel, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """What neighbours do to texts of all data, an equal part of each."""
    count = args.items // len(args.data)
    items = [item for data in args.data for item in read(model, data, count, args.seed)]
    return rows_bits.compare(model, items)


def compiled(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The backends and ways that are asked for."""
    return [(b, way) for b in args.backends for way in args.ways if way != "dynamic" or b == "inductor"]


def archive(backend: str, way: str) -> Path:
    """The archive of one way, built if the store does not have it."""
    store = ROOT / "model_store"
    path = store / f"study-{backend}-{way}.mar"
    if path.exists():
        return path
    recipe = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))
    recipe["handler"].update({**CALL, **WAYS[way]}, backend=backend)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / f"{path.stem}.yaml"
        written.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return build(written, store).path


def measured(model: BucketedModel, clock: timing.Clock) -> CostTable:
    """What a call of each shape costs, by this clock: a worker measures the same by the wall's."""
    calls = {}
    for bucket, rows in model.index.shapes:
        items = [blank(model.index.inputs, bucket)] * rows
        calls[bucket, rows] = partial(model.programs.run, Call(bucket, rows, tuple(range(rows))), items)
    seconds = {shape: min(found.times) for shape, found in timing.in_turns(calls, 2, 1, clock).items()}
    return CostTable(seconds, model.index.dynamic_batch, model.programs.backend.dynamic_shapes)


def measure(
    models: dict[str, BucketedModel], data: str, depth: int, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Per way: seconds per batch of `depth` texts, positions executed ÷ tokens, programs, and their bytes if
    each carries its own weights."""
    some = next(iter(models.values()))
    items = read(some, data, max(depth, args.items), args.seed)
    batches = [items[i : i + depth] for i in range(0, len(items) - depth + 1, depth)]
    calls = {way: partial(run_batches, model, batches) for way, model in models.items()}
    padding = {way: call() for way, call in calls.items()}  # and warms up
    found = timing.in_turns(calls, args.rounds, warm_up=0, clock=timing.CLOCKS[args.clock])
    return [
        {
            "way": way,
            "programs": len(model.index.programs),
            "bytes_with_own_weights": 4 * model.index.weights * len(model.index.programs),
            "seconds": found[way].median / len(batches),
            "executed_over_real": padding[way],
        }
        for way, model in models.items()
    ]


def run_batches(model: BucketedModel, batches: list[list[Item]]) -> float:
    """Pack and run every batch; returns positions executed ÷ tokens."""
    executed, pack = 0, model.layout.policy("packed")
    for batch in batches:
        for call in pack([item.size for item in batch], model.costs):
            model.run_call(call, [batch[i] for i in call.items])
            executed += volume(call.bucket) * call.batch_size
    return executed / sum(volume(item.size) for batch in batches for item in batch)


def taken(backend: str, way: str) -> dict[str, Any]:
    """What an archive takes to build, on disk, and loaded and warm in a process of its own."""
    path = archive(backend, way)
    command = [sys.executable, "-m", "anyshape", "inspect", str(path), "--memory", "--json"]
    told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    memory = told["memory"]
    return {
        "way": f"{backend} {way}",
        "programs": memory["programs"],
        "compile_seconds": sum(bucket["compile_seconds"] for bucket in told["buckets"]),
        "archive_bytes": told["archive_bytes"],
        "warm_seconds": memory["seconds_to_load_and_warm"],
        "loaded_bytes": memory["bytes_after_loading"] - memory["bytes_before_loading"],
        "warm_bytes": memory["bytes_after_warm_up"] - memory["bytes_before_loading"],
    }


def show_memory(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What an archive takes: to build, on disk, to start, and in memory")
    for column in (
        "way",
        "programs",
        "compiled in, s",
        "archive, MB",
        "ready in, s",
        "loaded, MB",
        "warm, MB",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    for found in results:
        megabytes = [f"{found[key] / 1e6:.0f}" for key in ("archive_bytes", "loaded_bytes", "warm_bytes")]
        seconds = [f"{found[key]:.0f}" for key in ("compile_seconds", "warm_seconds")]
        cells = [found["way"], str(found["programs"]), seconds[0], megabytes[0], seconds[1], *megabytes[1:]]
        table.add_row(*cells)
    Console(width=120).print(table)


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    ways = list(dict.fromkeys(result["way"] for result in results))
    titles = [f"{way}, {next(r['programs'] for r in results if r['way'] == way)} programs" for way in ways]
    table = Table(title=f"Time of a batch relative to {ways[0]} (executed ÷ real in brackets)")
    for column in ("data", "depth", f"{titles[0]}, ms", *titles[1:]):
        table.add_column(column, justify="left" if column == "data" else "right")
    cases: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for result in results:
        cases.setdefault((result["data"], result["depth"]), {})[result["way"]] = result
    for (data, depth), found in cases.items():
        first = found[ways[0]]
        cells = [f"{first['seconds'] * 1e3:.1f} ({first['executed_over_real']:.2f})"]
        for way in ways[1:]:
            ratio = found[way]["seconds"] / first["seconds"]
            cells.append(f"{ratio:.2f} ({found[way]['executed_over_real']:.2f})")
        table.add_row(data, str(depth), *cells)
    Console().print(table)
