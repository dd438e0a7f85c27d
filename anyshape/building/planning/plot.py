"""Drawing a plan: the distribution with the bucket edges, and beside it the waste curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anyshape.buckets import bucket_name, choose
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.plan import PlanResult

INK, GREY, BARS = "#22313f", "#8796a5", "#9db8d2"
EDGES, KNEE = "#c8553d", "#2a9d8f"
# One tint per rectangle, from matplotlib's tab10 and Dark2, the greys left out.
TINTS = [
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#17becf",
    "#bcbd22",
    "#1b9e77",
    "#e6ab02",
    "#e7298a",
]


def draw_plan(plan: PlanResult, path: Path) -> None:
    """Write the picture to `path` (.png, .svg, .pdf). Raises PlanError if it cannot be written."""
    try:
        plan_figure(plan).savefig(path)
    except (OSError, ValueError) as error:
        raise PlanError(f"cannot write the picture {path}: {error}") from error


def plan_figure(plan: PlanResult) -> Any:
    """The picture as a matplotlib Figure."""
    from matplotlib.figure import Figure  # heavy, and only pictures need it

    figure = Figure(figsize=(12, 4.8), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    if len(plan.buckets[0]) == 1:
        _lengths(left, plan)
    else:
        _sizes(left, plan)
    _curve(right, plan)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    return figure


def _lengths(axes: Any, plan: PlanResult) -> None:
    lengths = np.array([size[0] for size in plan.histogram])
    counts = np.array(list(plan.histogram.values()), dtype=float)
    top = plan.buckets[-1][0]
    width = max(1, round(top / 120))
    axes.hist(lengths, bins=np.arange(0.5, top + width + 0.5, width), weights=counts, color=BARS)
    height = axes.get_ylim()[1]
    for bucket in plan.buckets:
        axes.axvline(bucket[0] + 0.5, color=EDGES, linewidth=1.4)
    _label_edges(axes, [bucket[0] for bucket in plan.buckets], top, height)
    axes.set(xlim=(0, top * 1.02 + 1), ylim=(0, height * 1.12), xlabel="tokens", ylabel="items")
    _title(axes, f"{_count(plan)} and {_buckets(plan)}")


def _label_edges(axes: Any, edges: Any, top: int, height: float) -> None:
    """Each edge's length beside its line, a step lower where it would run into its neighbour."""
    row, last = 0, -float(top)
    for edge in edges:
        row = row + 1 if edge - last < top * 0.05 else 0
        last = edge
        axes.text(
            edge + 0.5 - top * 0.006,
            height * (1.08 - 0.055 * (row % 4)),
            str(edge),
            color=EDGES,
            ha="right",
            va="center",
            fontsize=10,
            fontweight="bold",
        )


def _sizes(axes: Any, plan: PlanResult) -> None:
    """Items as dots, in the tint of their bucket; buckets as rectangles from the corner."""
    tint = {bucket: TINTS[place % len(TINTS)] for place, bucket in enumerate(plan.buckets)}
    sizes = list(plan.histogram)
    counts = np.array([plan.histogram[size] for size in sizes], dtype=float)
    owners = [choose(size, plan.buckets) for size in sizes]
    axes.scatter(
        [size[1] for size in sizes],
        [size[0] for size in sizes],
        s=12 + 500 * counts / counts.max(),
        c=[tint[owner] if owner else GREY for owner in owners],
        alpha=0.45,
        linewidth=0,
        zorder=2,
    )
    for height, width in plan.buckets:
        color = tint[(height, width)]
        axes.fill([0, 0, width, width], [0, height, height, 0], color=color, alpha=0.03, zorder=1)
        axes.plot([0, width, width], [height, height, 0], color=color, linewidth=1.6, zorder=3)
        axes.plot(width, height, "s", color=color, markersize=5, zorder=4)
    top, right = (max(bucket[axis] for bucket in plan.buckets) for axis in (0, 1))
    axes.set(xlim=(0, right * 1.06), ylim=(0, top * 1.08), xlabel="width", ylabel="height")
    axes.set_aspect("equal")
    handles = [
        axes.plot([], [], "s", color=tint[bucket], label=bucket_name(bucket))[0] for bucket in plan.buckets
    ]
    axes.legend(
        handles=handles,
        title="height x width",
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        labelcolor=INK,
    )
    _title(axes, f"{_count(plan)} and {_buckets(plan)}")


def _curve(axes: Any, plan: PlanResult) -> None:
    """Waste against the number of buckets; the knee ringed, the alternatives as crosses."""
    numbers = [number for number, _ in plan.curve]
    wastes = [waste for _, waste in plan.curve]
    axes.plot(numbers, wastes, "-o", color=INK, markersize=4, linewidth=1.6, label="planned")
    knee_waste = dict(plan.curve)[plan.knee]
    axes.plot(plan.knee, knee_waste, "o", markersize=14, fillstyle="none", color=KNEE, label="knee")
    chosen = len(plan.buckets)
    axes.plot(chosen, plan.waste, "o", markersize=8, color=EDGES, label=f"chosen: {plan.waste:.3f}")
    ceiling = 1 + (max(wastes[0], plan.waste) - 1) * 1.15
    _alternatives(axes, plan, ceiling)
    axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="buckets", ylabel=f"padded ÷ real cost ({plan.cost})", xticks=numbers)
    axes.set_ylim(1 - 0.03 * (ceiling - 1), ceiling)
    axes.legend(frameon=False, labelcolor=INK)
    _title(axes, "waste")


def _alternatives(axes: Any, plan: PlanResult, ceiling: float) -> None:
    """A cross and a name each, on the side with more room; names step aside for one another."""
    chosen, end = len(plan.buckets), plan.curve[-1][0]
    left = chosen > 0.6 * end
    gap, lowest = 0.05 * (ceiling - 1), plan.waste
    for name, waste in sorted(plan.alternatives.items(), key=lambda entry: entry[1]):
        if name == "pad_to_max":  # the curve's own first point
            continue
        height = min(waste, ceiling)
        lowest = max(height, lowest + gap)
        axes.plot(chosen, height, "x", color=GREY, markersize=6)
        axes.annotate(
            f"{name.replace('_', ' ')} {waste:.2f}",
            (chosen, lowest),
            xytext=(-8 if left else 8, 0),
            textcoords="offset points",
            color=GREY,
            fontsize=9,
            ha="right" if left else "left",
            va="center",
        )


def _count(plan: PlanResult) -> str:
    return f"{sum(plan.histogram.values()):,} items"


def _buckets(plan: PlanResult) -> str:
    return f"{len(plan.buckets)} bucket{'s' * (len(plan.buckets) != 1)}"


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=12)
