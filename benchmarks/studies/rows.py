"""Rows of whole texts against one text to a row: programs, memory, padding and time by the depth of a batch.

The same sentence encoder (MiniLM), compiled three ways for each backend that is asked:

    items-25   the 25 buckets of recipes/minilm.yaml, one text to a row
    items-6    six buckets, one text to a row
    rows-2     two lengths of rows, whole texts beside each other
    dynamic    one program for every length (inductor alone)

Every round runs every way on every batch, one after the other, so that what disturbs the machine disturbs
all of them; the figures are medians over rounds. Packing is part of the time. On a busy machine `--clock cpu`
counts processor time, of one thread. Compare figures of one run only.

`--modelled` runs nothing: batches are packed as for an accelerator, where each length and batch size is a
program and a call costs its positions and 32 more; with rows of lengths that are planned for the data, too.

    python -m benchmarks rows --backends torchscript --clock cpu
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from anyshape.buckets import volume
from anyshape.building.build import build
from anyshape.building.planning.rows import draw, plan_depths, waste
from anyshape.costs import CostTable
from anyshape.items import Item
from anyshape.layouts import ITEMS, ROWS
from anyshape.model import BucketedModel
from anyshape.packing import Call
from anyshape.padding import blank
from anyshape.process import keep_freed_memory
from benchmarks.paths import ROOT
from benchmarks.serving import workloads
from benchmarks.serving.models import text_model_folder
from benchmarks.studies import timing
from benchmarks.studies.packing import DEPTHS, read

DATA = ("short", "paragraphs", "mrpc")
WAYS: dict[str, dict[str, Any]] = {
    "items-25": {},
    "items-6": {"buckets": [16, 32, 64, 128, 256, 512]},
    "rows-2": {"buckets": [128, 512], "layout": "rows", "segments": 32},
    "dynamic": {"buckets": [8, 16, 32, 64, 128, 256, 512], "backend_options": {"shapes": "dynamic"}},
}
SEGMENTS = 32
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
    args = parser.parse_args(argv)
    if args.modelled:
        results = [figures for data in args.data for figures in modelled(data, args)]
        print(json.dumps(results)) if args.json else show_modelled(results)
        return 0
    torch.set_num_threads(1)
    keep_freed_memory()
    models = {
        f"{backend} {way}": BucketedModel.load(archive(backend, way), warm=False)
        for backend in args.backends
        for way in args.ways
        if way != "dynamic" or backend == "inductor"
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


def modelled(data: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Programs, and positions executed ÷ tokens by depth, of plans for this data and of the ways above."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(text_model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    bodies = workloads.load_bodies(data, args.seed, 512)
    encoded = tokenizer.encode_batch([body.decode() for body in bodies])
    histogram = Counter(len(encoding.ids) for encoding in encoded)
    dynamic = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))["handler"][
        "buckets"
    ]
    results = []
    for sizes in ([1], [1, 8]):
        batches = {depth: draw(histogram, depth) for depth in args.depths}
        ways = {"items-25": (ITEMS, dynamic), "items-6": (ITEMS, WAYS["items-6"]["buckets"])}
        ways["rows-2"] = (ROWS, WAYS["rows-2"]["buckets"])
        planned = plan_depths(histogram, 32, sizes, SEGMENTS, count=2)[0]
        ways["rows-2, planned"] = (ROWS, planned.lengths)
        for way, (layout, lengths) in ways.items():
            wastes = {n: waste(layout, lengths, sizes, SEGMENTS, drawn) for n, drawn in batches.items()}
            programs = len(lengths) * len(sizes)
            results.append(
                {"data": data, "way": way, "lengths": lengths, "batch_sizes": sizes, "programs": programs}
                | {"executed_over_real": wastes}
            )
    return results


def show_modelled(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    depths = list(results[0]["executed_over_real"])
    table = Table(title="Executed ÷ real by the number of texts in a batch, modelled")
    for column in ("data", "way", "batch sizes", "programs", *map(str, depths)):
        table.add_column(column, justify="left" if column in ("data", "way") else "right")
    for result in results:
        way = result["way"] if "25" in result["way"] else f"{result['way']}: {_joined(result['lengths'])}"
        wastes = [f"{result['executed_over_real'][depth]:.3f}" for depth in depths]
        table.add_row(result["data"], way, _joined(result["batch_sizes"]), str(result["programs"]), *wastes)
    Console(width=120).print(table)


def _joined(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))
