"""A plan as tables on the terminal."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anyshape.buckets import bucket_name
from anyshape.building.planning.plan import PlanResult
from anyshape.building.planning.rows import DepthPlan

COST_WORDS = {
    "area": "padded positions",
    "flops": "modelled FLOPs",
    "measured": "measured seconds per row",
}


def show_plan(plan: PlanResult, console: Optional[Console] = None) -> None:
    """The waste curve with the plan marked, then the alternatives with as many buckets."""
    console = console or Console()
    items = sum(plan.histogram.values())
    curve = Table(title=f"{items:,} items; cost: {COST_WORDS.get(plan.cost, plan.cost)}")
    curve.add_column("K", justify="right")
    curve.add_column("buckets", overflow="fold")
    curve.add_column("padded ÷ real", justify="right")
    curve.add_column("saves", justify="right")
    curve.add_column("")
    before: Optional[float] = None
    for (count, waste), buckets in zip(plan.curve, plan.plans):
        chosen = count == len(plan.buckets)
        marks = ["knee"] * (count == plan.knee) + ["chosen"] * chosen
        saved = "" if before is None else f"{1 - waste / before:.1%}"
        style = "bold" if chosen else ""
        curve.add_row(str(count), _names(buckets), f"{waste:.3f}", saved, ", ".join(marks), style=style)
        before = waste
    console.print(curve)

    others = Table(title=f"against {len(plan.buckets)} buckets chosen otherwise")
    others.add_column("policy")
    others.add_column("padded ÷ real", justify="right")
    others.add_column("the plan saves", justify="right")
    for name, waste in plan.alternatives.items():
        others.add_row(name.replace("_", " "), f"{waste:.3f}", f"{1 - plan.waste / waste:.1%}")
    console.print(others)
    for note in plan.notes:
        console.print(f"note: {escape(note)}")
    console.print(f"buckets: {escape(str([_plain(bucket) for bucket in plan.buckets]))}", soft_wrap=True)


def show_traffic(comparison: Mapping[str, Any], console: Optional[Console] = None) -> None:
    """What the present buckets waste on the traffic seen, and what the proposed ones would."""
    console = console or Console()
    table = Table(title=f"on the {comparison['items']:,} items that the server has seen")
    table.add_column("")
    table.add_column("buckets", overflow="fold")
    table.add_column("padded ÷ real cost", justify="right")
    table.add_column("padded ÷ real positions", justify="right")
    for name in ("present", "proposed"):
        side = comparison[name]
        table.add_row(name, _names(side["buckets"]), f"{side['waste']:.3f}", f"{side['positions']:.3f}")
    console.print(table)
    console.print(f"predicted saving in compute: {comparison['saving']:.1%}")
    larger = comparison["larger_than_present"]
    if larger:
        console.print(f"note: {larger:,} items are larger than any present bucket; left out here")


def show_depths(
    plans: Sequence[DepthPlan],
    texts: int,
    limit: Optional[int],
    segments: int,
    console: Optional[Console] = None,
) -> None:
    """Rows of whole texts beside buckets of one text to a row: programs, and waste by depth."""
    console = console or Console()
    fit = "" if limit is None else f"; {limit} programs fit"
    table = Table(title=f"{texts:,} texts; executed ÷ real tokens by the number of texts in a batch{fit}")
    for column in ("layout", "lengths", "programs", *(f"{depth}" for depth in plans[0].waste), ""):
        table.add_column(column, justify="left" if column in ("layout", "lengths", "") else "right")
    for plan in plans:
        wastes = [f"{waste:.3f}" for waste in plan.waste.values()]
        lengths = " ".join(map(str, plan.lengths))
        mark, style = ("chosen", "bold") if plan is plans[0] else ("", "")
        table.add_row(plan.layout, lengths, str(plan.programs), *wastes, mark, style=style)
    console.print(table)
    best = plans[0]
    sizes = f"buckets: {best.lengths}, batch_sizes: {best.batch_sizes}"
    console.print(escape(f"layout: {best.layout}, segments: {segments}, {sizes}"), soft_wrap=True)


def _names(buckets: Sequence[Sequence[int]]) -> str:
    return " ".join(bucket_name(tuple(bucket)) for bucket in buckets)


def _plain(bucket: Sequence[int]) -> Any:
    """As a recipe writes it: 128, or [500, 600]."""
    return bucket[0] if len(bucket) == 1 else list(bucket)
