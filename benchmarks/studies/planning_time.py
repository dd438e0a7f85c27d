"""How long it takes to plan the calls of one batch: `python -m benchmarks planning_time [--json]`.

The batches are drawn from real lengths and picture sizes (MRPC sentence pairs and COCO val2017), and
every batch is planned for the first time when it is timed, as it is in a server. Median and 99th
percentile in milliseconds; the aim is a median below 1 ms for 64 items.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
from functools import partial
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from rich.console import Console
from rich.table import Table

from anyshape.buckets import Bucket, Size, call_shapes
from anyshape.costs import CostTable
from anyshape.packing import Call, Policy, pack
from anyshape.row_packing import pack_rows
from benchmarks.paths import DATA
from benchmarks.studies.timing import once

LENGTHS = [(length,) for length in (16, 32, 64, 128, 256, 512)]
ROWS = [(128,), (512,)]
SQUARES = [(side, side) for side in (500, 600, 640)]
PICTURES = [(375, 500), (500, 375), (428, 640), (481, 640), (640, 428), (640, 481), (640, 640)]


def lengths() -> Tuple[List[Size], List[int]]:
    """The token counts of sentence pairs, and how often each occurs."""
    counts = json.loads((DATA / "mrpc_test_token_lengths.json").read_text())["pair"]
    return [(length,) for length in range(1, len(counts))], counts[1:]


def pictures() -> Tuple[List[Size], List[int]]:
    """The (height, width) of pictures, and how often each occurs."""
    rows = json.loads((DATA / "coco_val2017_sizes.json").read_text())
    return [(height, width) for width, height, _ in rows], [count for *_, count in rows]


def in_rows(sizes: Sequence[Size], costs: CostTable) -> List[Call]:
    """Whole texts in rows, at most 32 in each."""
    return pack_rows(sizes, costs, 32)


CASES: List[Tuple[str, Tuple[List[Size], List[int]], Sequence[Bucket], Policy]] = [
    ("MRPC pairs, 6 lengths", lengths(), LENGTHS, pack),
    ("MRPC pairs, rows of 128 and 512", lengths(), ROWS, in_rows),
    ("COCO, 3 squares", pictures(), SQUARES, pack),
    ("COCO, 7 rectangles", pictures(), PICTURES, pack),
]


def measure(repeat: int) -> Iterator[Dict[str, Any]]:
    """One row per kind of data, batch sizes and depth (number of items in the batch)."""
    rng = random.Random(0)
    for name, (sizes, weights), buckets, policy in CASES:
        for batch_sizes, dynamic in (((1, 4, 16), False), ((1, 8, 64), True)):
            costs = CostTable.by_volume(call_shapes(buckets, batch_sizes), dynamic)
            for depth in (1, 8, 32, 64):
                batches = [rng.choices(sizes, weights, k=depth) for _ in range(repeat + 20)]
                for batch in batches[:20]:
                    policy(batch, costs)
                times = []
                for batch in batches[20:]:
                    times.append(once(partial(policy, batch, costs)) * 1e3)
                yield {
                    "data": name,
                    "batch_sizes": "1 to 64" if dynamic else "1, 4, 16",
                    "depth": depth,
                    "median_ms": statistics.median(times),
                    "p99_ms": sorted(times)[int(0.99 * len(times))],
                }


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks planning_time", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, nothing else")
    parser.add_argument("--repeat", type=int, default=300, help="batches per row (default 300)")
    args = parser.parse_args(argv)
    gc.freeze()  # the data of this script is no garbage of the packer's
    rows = list(measure(args.repeat))
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table("data", "batch sizes", "depth", "median ms", "p99 ms", title="Planning one batch")
    for row in rows:
        table.add_row(
            row["data"],
            row["batch_sizes"],
            str(row["depth"]),
            f"{row['median_ms']:.3f}",
            f"{row['p99_ms']:.3f}",
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
