"""Rows of whole texts against one text to a row as on an accelerator, where nothing is run: each length and
batch size is a program, and a call costs its positions and 32 more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from anyshape.building.planning.rows import by_tokens, draw, plan_depths, waste
from anyshape.layouts import ITEMS, ROWS
from anyshape.packing import total_cost
from anyshape.row_counts import RowCounts
from anyshape.row_packing import pack_rows
from benchmarks.paths import ROOT
from benchmarks.serving import workloads
from benchmarks.serving.models import text_model_folder

SEGMENTS = 32
DEEP = 32  # texts in a batch, where the packer is held against the lower bound
SIX = [16, 32, 64, 128, 256, 512]
TWO = [128, 512]
THREE = [32, 128, 512]


def modelled(data: str, depths: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Programs, and positions executed ÷ tokens by depth, of plans for this data and of the ways above."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(text_model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    bodies = workloads.load_bodies(data, seed, 512)
    encoded = tokenizer.encode_batch([body.decode() for body in bodies])
    histogram = Counter(len(encoding.ids) for encoding in encoded)
    recipe = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))
    every = recipe["handler"]["buckets"]
    results = []
    for sizes in ([1], [1, 8]):
        batches = {depth: draw(histogram, depth) for depth in sorted({*depths, DEEP})}
        ways = {"items-25": (ITEMS, every), "items-6": (ITEMS, SIX), "rows-2": (ROWS, TWO)}
        ways["rows-3"] = (ROWS, THREE)
        planned = plan_depths(histogram, 32, sizes, SEGMENTS, count=2)[0]
        ways["rows-2, planned"] = (ROWS, planned.lengths)
        for way, (layout, lengths) in ways.items():
            wastes = {n: waste(layout, lengths, sizes, SEGMENTS, batches[n]) for n in depths}
            programs = len(lengths) * len(sizes)
            results.append(
                {"data": data, "way": way, "lengths": lengths, "batch_sizes": sizes, "programs": programs}
                | {"executed_over_real": wastes}
                | ({"over_bound": over_bound(lengths, sizes, batches[DEEP])} if layout == ROWS else {})
            )
    return results


def over_bound(
    lengths: Sequence[int], batch_sizes: Sequence[int], batches: Sequence[Sequence[tuple[int]]]
) -> float:
    """What the packer's rows cost ÷ what no rows cost less than, in the mean over batches."""
    costs = by_tokens(lengths, batch_sizes)
    ratios = []
    for batch in batches:
        counts = RowCounts(costs, sorted((size[0] for size in batch), reverse=True), SEGMENTS)
        least, _ = next(counts.cheapest())
        ratios.append(total_cost(pack_rows(batch, costs, SEGMENTS), costs) / least)
    return sum(ratios) / len(ratios)


def show_modelled(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    depths = list(results[0]["executed_over_real"])
    table = Table(title="Executed ÷ real by the number of texts in a batch, modelled")
    for column in ("data", "way", "batch sizes", "programs", *map(str, depths), "cost ÷ bound"):
        table.add_column(column, justify="left" if column in ("data", "way") else "right")
    for result in results:
        way = result["way"] if "25" in result["way"] else f"{result['way']}: {_joined(result['lengths'])}"
        wastes = [f"{result['executed_over_real'][depth]:.3f}" for depth in depths]
        bound = f"{result['over_bound']:.3f}" if "over_bound" in result else ""
        cells = [result["data"], way, _joined(result["batch_sizes"]), str(result["programs"])]
        table.add_row(*cells, *wastes, bound)
    Console(width=120).print(table)


def _joined(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))
