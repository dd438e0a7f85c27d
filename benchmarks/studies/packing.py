"""`python -m benchmarks packing`: ways to turn a batch into calls, run for real on the same batches.

- `fifo`: items in the order in which they came, one call for as many as a call takes;
- `per_bucket`: one call per bucket (several where a bucket has more items than a call takes);
- `packed`: the calls that cost least by the table measured when the model was warmed up.

Texts run through MiniLM, pictures of COCO's sizes through MobileNetV2, in this process, without a server,
with the threads of a worker that has one core. `--texts minilm --images mobilenet` takes the archives in
TorchScript, which need no g++.

Every round runs every policy on every batch, one after the other, so that what disturbs the machine disturbs
all of them; the figure is the median over rounds. Planning is part of the time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from anyshape.bodies import TEXT
from anyshape.buckets import volume
from anyshape.building.build import build
from anyshape.items import Item
from anyshape.model import BucketedModel
from anyshape.packing import POLICIES
from anyshape.process import keep_freed_memory
from benchmarks.paths import ROOT
from benchmarks.serving import workloads
from benchmarks.studies import timing

DATA = {"short": "texts", "paragraphs": "texts", "mrpc": "texts", "coco": "images"}
DEPTHS = (1, 8, 32, 64)
COMPARED = ("fifo", "per_bucket", "packed")


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks packing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", nargs="*", choices=list(DATA), default=list(DATA))
    parser.add_argument("--depths", nargs="*", type=int, default=list(DEPTHS))
    parser.add_argument("--items", type=int, default=128, help="items per data set and depth, default: 128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of a call, default: 1")
    parser.add_argument("--texts", default="minilm-inductor", metavar="ARCHIVE", help="default: %(default)s")
    parser.add_argument(
        "--images", default="mobilenet-inductor", metavar="ARCHIVE", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    results = []
    for kind in dict.fromkeys(DATA[data] for data in args.data):
        model = BucketedModel.load(archive(getattr(args, kind)))
        for data in (data for data in args.data if DATA[data] == kind):
            for depth in args.depths:
                results += measure(model, data, depth, args)
    print(json.dumps(results)) if args.json else show(results)
    return 0


def archive(name: str) -> Path:
    """The archive of a recipe, built if the store does not have it."""
    path = ROOT / "model_store" / f"{name}.mar"
    return path if path.exists() else build(ROOT / "recipes" / f"{name}.yaml", path.parent).path


def measure(model: BucketedModel, data: str, depth: int, args: argparse.Namespace) -> list[dict[str, object]]:
    """One figure per policy: seconds per batch of `depth` items, and positions executed ÷ needed."""
    items = read(model, data, max(depth, args.items // 4 if data == "coco" else args.items), args.seed)
    ways = {policy: (model, policy) for policy in COMPARED}
    figures = in_turns(ways, items, depth, args.rounds)
    return [{"data": data, "depth": depth, "policy": policy, **figures[policy]} for policy in COMPARED]


def in_turns(
    ways: dict[str, tuple[BucketedModel, str]], items: list[Item], depth: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Per way (a model and a policy), the median seconds per batch of `depth` items, and the padding. Every
    round runs every way on every batch."""
    batches = [items[i : i + depth] for i in range(0, len(items) - depth + 1, depth)]
    calls = {way: partial(run_batches, *how, batches) for way, how in ways.items()}
    padding = {way: call() for way, call in calls.items()}  # and warms up
    found = timing.in_turns(calls, rounds, warm_up=0)
    return {
        way: {"seconds": found[way].median / len(batches), "padded_over_real": padding[way]} for way in ways
    }


def run_batches(model: BucketedModel, policy: str, batches: list[list[Item]]) -> float:
    """Plan and run every batch; returns positions executed ÷ needed."""
    executed = 0
    for batch in batches:
        for call in POLICIES[policy]([item.size for item in batch], model.costs):
            model.run_call(call, [batch[i] for i in call.items])
            executed += volume(call.bucket) * call.batch_size
    return executed / sum(volume(item.size) for batch in batches for item in batch)


def read(model: BucketedModel, data: str, count: int, seed: int) -> list[Item]:
    """The items of a workload, as the task reads them, without those that no bucket takes."""
    load = workloads.load_bodies(data, seed, 2 * count)
    inputs = [body.decode() if model.task.body is TEXT else body for body in load]
    items = model.task.read(inputs, [{}] * len(inputs))
    return [item for item in items if isinstance(item, Item)][:count]


def show(results: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Time of a batch by packing policy, relative to fifo (padded ÷ real in brackets)")
    for column in ("data", "depth", "fifo, ms", *COMPARED[1:]):
        table.add_column(column, justify="left" if column == "data" else "right")
    by_case: dict[tuple[object, object], dict[object, dict[str, object]]] = {}
    for result in results:
        by_case.setdefault((result["data"], result["depth"]), {})[result["policy"]] = result
    for (data, depth), found in by_case.items():
        fifo = float(found["fifo"]["seconds"])  # type: ignore[arg-type]
        cells = [f"{fifo * 1e3:.1f} ({found['fifo']['padded_over_real']:.2f})"]
        for policy in COMPARED[1:]:
            ratio = float(found[policy]["seconds"]) / fifo  # type: ignore[arg-type]
            cells.append(f"{ratio:.2f} ({found[policy]['padded_over_real']:.2f})")
        table.add_row(str(data), str(depth), *cells)
    Console().print(table)
