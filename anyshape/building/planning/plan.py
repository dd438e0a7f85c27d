"""Planning buckets from data: which buckets waste least on the sizes that really come.

    histogram = {(37,): 12, (120,): 3}                   # {size: how many items}
    plan = make_plan(histogram, count=4)
    plan.buckets, plan.waste                             # [(37,), (120,)], 1.0

One dimension (tokens) is solved exactly by dynamic programming, two dimensions (height, width) by
greedy choice and swaps (rectangles.py), on request by mixed-integer programming on a coarse
grid (optimum.py). Every plan holds the maximum of each side, so that it takes every size it was
made from and every smaller one.

*Waste* is padded ÷ real cost: the cost of every item in its cheapest containing bucket, over its
cost in a bucket of its own size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from msgspec import Meta, Struct, ValidationError, convert

from anyshape.buckets import Bucket, Size
from anyshape.building.planning.cost_models import AreaCost, Cost, Floats, Ints
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.rectangles import best_rectangles
from anyshape.building.planning.rules import align_up, rule_buckets
from anyshape.recipe import BucketPlan

Histogram = Mapping[Size, int]

# How far the waste curve goes, by rank: enough to see it level off, and still quick.
CURVE_COUNT = {1: 16, 2: 10}
LARGEST_NUMBER = 2**31 - 1  # of a side or a count: two of them multiplied are still a 64-bit number
# Rows of the dynamic programme that are worked out at once; bounds its memory to 8 · 256 · m bytes.
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class PlanResult:
    """A plan and what it was compared with; every waste is padded ÷ real cost.

    `curve` holds (number of buckets, waste of the best plan with that many), `knee` one of its
    numbers, `plans` the buckets at each of them, `notes` sentences for the reader, such as that the
    plan was cut to fit.
    """

    buckets: List[Bucket]
    waste: float
    alternatives: Dict[str, float]
    curve: List[Tuple[int, float]]
    cost: str
    histogram: Dict[Size, int] = field(repr=False)
    knee: int = 1
    notes: List[str] = field(default_factory=list)
    plans: List[List[Bucket]] = field(default_factory=list, repr=False)

    def figures(self) -> Dict[str, Any]:
        """What `plan --json` prints."""
        return {
            "buckets": [list(bucket) for bucket in self.buckets],
            "waste": self.waste,
            "alternatives": self.alternatives,
            "curve": [[count, waste] for count, waste in self.curve],
            "cost": self.cost,
        }

    def to_json(self) -> Dict[str, Any]:
        """What buckets.json keeps: the figures, the knee and the distribution, for the report."""
        histogram = [[list(size), count] for size, count in sorted(self.histogram.items())]
        return {**self.figures(), "knee": self.knee, "histogram": histogram}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> PlanResult:
        """What `to_json` wrote. Raises PlanError if it cannot be read."""
        try:
            plan = convert(kept, _Kept)
        except ValidationError as error:
            raise PlanError(f"the plan in buckets.json is not readable ({error}): build again") from error
        found = {name: getattr(plan, name) for name in _Kept.__struct_fields__}
        return cls(**{**found, "histogram": dict(plan.histogram)})


class _Kept(Struct):
    """A plan as buckets.json keeps it."""

    buckets: Annotated[List[Bucket], Meta(min_length=1)]
    waste: float
    alternatives: Dict[str, float]
    curve: List[Tuple[int, float]]
    cost: str
    knee: int
    histogram: List[Tuple[Size, int]]


def plan_lengths(
    histogram: Mapping[int, int], count: int, cost: Optional[Cost] = None, align: int = 1
) -> List[Bucket]:
    """The best buckets, at most `count`, for {length: how many items}; no `cost` is the area."""
    sizes, weights = _arrays({(length,): items for length, items in histogram.items()})
    return _length_plans(sizes, weights, _positive(count, "count"), cost or AreaCost(), align)[-1]


def plan_sizes(
    histogram: Mapping[Tuple[int, int], int],
    count: int,
    cost: Optional[Cost] = None,
    align: int = 1,
    exact: bool = False,
) -> List[Bucket]:
    """Good buckets, at most `count`, for {(height, width): how many items}.

    With `exact` the plan is also the optimum over a coarse grid of sides, or over all of them where
    they are few. Raises PlanError if that optimum cannot be proved in time.
    """
    sizes: Dict[Size, int] = {(height, width): n for (height, width), n in histogram.items()}
    result = make_plan(sizes, count, cost, align=align, exact=exact, curve_count=count)
    return result.buckets


def make_plan(
    histogram: Histogram,
    count: Union[int, str] = "auto",
    cost: Optional[Cost] = None,
    *,
    align: int = 1,
    exact: bool = False,
    limit: Optional[int] = None,
    curve_count: Optional[int] = None,
) -> PlanResult:
    """Plan at most `count` buckets ("auto": the knee of the curve), and never more than `limit`.

    Sides are rounded up to multiples of `align`, the largest too. Raises PlanError if the histogram
    is empty or mixed, or a number is not positive.
    """
    cost = cost or AreaCost()
    sizes, weights = _arrays(histogram)
    rank = sizes.shape[1]
    _positive(align, "align")
    wanted = _positive(count, "count") if isinstance(count, int) else None
    if wanted is None and count != "auto":
        raise PlanError(f"the number of buckets is a whole number or 'auto', not {count!r}")
    upto = curve_count or max(CURVE_COUNT[rank], (wanted or 0) + 1)
    if rank == 1:
        plans = _length_plans(sizes, weights, upto, cost, align)
    else:
        plans = _size_plans(sizes, weights, upto, cost, align)
    curve = [(k + 1, _waste(sizes, weights, plan, cost)) for k, plan in enumerate(plans)]
    bend = knee(curve)
    notes = []
    chosen = min(wanted or bend, len(plans))
    if limit is not None and chosen > limit:
        notes.append(f"{chosen} buckets do not fit in the memory: cut to the best {limit} that do")
        chosen = limit
    buckets = plans[chosen - 1]
    if exact and rank == 1:
        notes.append("in one dimension the plan is always exact")
    elif exact:
        buckets, note = _exact(sizes, weights, chosen, cost, align, buckets)
        notes.append(note)
    waste = _waste(sizes, weights, buckets, cost)
    if exact:
        curve[chosen - 1] = (chosen, waste)
        plans[chosen - 1] = buckets
    alternatives = {
        name: _waste(sizes, weights, other, cost)
        for name, other in rule_buckets(sizes, weights, chosen, align).items()
    }
    return PlanResult(buckets, waste, alternatives, curve, cost.name, dict(histogram), bend, notes, plans)


def plan_waste(histogram: Histogram, buckets: Sequence[Bucket], cost: Optional[Cost] = None) -> float:
    """Padded ÷ real cost of these buckets here. Raises PlanError if a size fits in none."""
    sizes, weights = _arrays(histogram)
    return _waste(sizes, weights, buckets, cost or AreaCost())


def knee(curve: Sequence[Tuple[int, float]]) -> int:
    """The number of buckets after which a further one saves little.

    The point farthest below the straight line between the curve's ends, both axes scaled to 0..1:
    Kneedle, offline and without smoothing (Satopää, Albrecht, Irwin, Raghavan, "Finding a 'Kneedle'
    in a Haystack", ICDCS workshops 2011). The curve's end is part of the rule, and its answer where
    the curve does not bend.
    """
    first, last = curve[0], curve[-1]
    if last[0] == first[0] or first[1] <= last[1]:
        return first[0]

    def below(point: Tuple[int, float]) -> float:
        along = (point[0] - first[0]) / (last[0] - first[0])
        return round(1 - along - (point[1] - last[1]) / (first[1] - last[1]), 9)

    bend = max(curve, key=lambda point: (below(point), -point[0]))
    return bend[0] if below(bend) > 0 else last[0]


def neuron_bucket_limit(weights: int, memory: int = 2_000_000_000) -> int:
    """How many buckets of a model with so many weights an Inferentia NeuronCore holds.

    At least 1. Each bucket carries its own copy. For a core's 2 GB this is the formula of AWS's
    application note on bucketing, round(1e9 / weights); `memory`, bytes, scales it.
    """
    return max(1, round(memory / 2 / _positive(weights, "the number of weights")))


def memory_bucket_limit(limit: int, bytes_per_bucket: float, workers: int = 1, base: int = 0) -> int:
    """How many buckets fit into `limit` bytes, if each of `workers` holds `base` and buckets.

    Raises PlanError if not even one does.
    """
    room = limit / _positive(workers, "the number of workers") - base
    fitting = int(room // bytes_per_bucket)
    if fitting < 1:
        needed = (bytes_per_bucket + base) * workers
        raise PlanError(
            f"not one bucket fits: it takes {needed / 1e6:,.1f} MB with {workers} worker(s), the "
            f"limit is {limit / 1e6:,.1f} MB; raise --memory-limit or lower --workers"
        )
    return fitting


def plan_buckets(asked: BucketPlan, folder: Path) -> PlanResult:
    """Plan what a recipe's `buckets: {plan: FILE, count: 6}` asks for; the file is relative to `folder`.

    The cost is the area: nothing is measured before the build. Raises PlanError if the file cannot be read.
    """
    from anyshape.building.planning.inputs import read_plan_file  # it needs nothing from here but the types

    histogram = read_plan_file(
        folder / asked.plan,
        field=asked.field,
        width_first=asked.width_first,
        tokenizer=asked.tokenizer,
        folder=folder,
    )
    return make_plan(histogram, asked.count, align=asked.align, exact=asked.exact)


def _length_plans(sizes: Ints, weights: Floats, count: int, cost: Cost, align: int) -> List[List[Bucket]]:
    """The best plans with at most 1, 2, ... `count` buckets (or one for each distinct length).

    D[k][j] = min over i < j of D[k−1][i] + (C[j] − C[i]) · cost(length j): the items between two
    neighbouring buckets pay for the upper one. C counts the items up to a length. O(count · m²) for
    m distinct lengths. The least-cost partition into intervals of a sorted sequence: Bellman, "On
    the approximation of curves by line segments using dynamic programming", CACM 4(6), 1961.
    """
    lengths, inverse = np.unique(align_up(sizes[:, 0], align), return_inverse=True)
    reached = np.concatenate([[0.0], np.cumsum(np.bincount(inverse, weights=weights))])
    price = cost(lengths[:, None])
    m = len(lengths)
    best = np.full(m + 1, np.inf)
    best[0] = 0.0
    plans: List[List[Bucket]] = []
    choices: List[Ints] = []
    cheapest = np.inf
    for k in range(1, min(count, m) + 1):
        following = np.full(m + 1, np.inf)
        choice = np.zeros(m + 1, dtype=np.int64)
        for low in range(1, m + 1, ROWS_AT_ONCE):
            j = np.arange(low, min(low + ROWS_AT_ONCE, m + 1))
            totals = best[None, : j[-1]] + (
                (reached[j][:, None] - reached[None, : j[-1]]) * price[j - 1][:, None]
            )
            totals[np.arange(j[-1])[None, :] >= j[:, None]] = np.inf
            choice[j] = totals.argmin(axis=1)
            following[j] = totals[np.arange(len(j)), choice[j]]
        best = following
        choices.append(choice)
        if best[m] >= cheapest:  # with a cost that has flat stretches one more may save nothing
            plans.append(plans[-1])
            continue
        cheapest = best[m]
        ends, j_end = [], m
        for step in range(k - 1, -1, -1):
            ends.append((int(lengths[j_end - 1]),))
            j_end = int(choices[step][j_end])
        plans.append(sorted(ends))
    return plans


def _size_plans(sizes: Ints, weights: Floats, count: int, cost: Cost, align: int) -> List[List[Bucket]]:
    """Good plans with at most 1, 2, ... `count` rectangles, none worse than a policy's."""
    aligned, inverse = np.unique(align_up(sizes, align), axis=0, return_inverse=True)
    mass = np.bincount(inverse.ravel(), weights=weights).astype(np.float64)
    plans: List[List[Bucket]] = []
    for k, found in enumerate(best_rectangles(aligned, mass, count, cost)):
        options: List[List[Bucket]] = [list(found)]
        options += plans[-1:]
        options += rule_buckets(sizes, weights, k + 1, align).values()
        plans.append(min(options, key=lambda plan: (_waste(sizes, weights, plan, cost), len(plan))))
    return plans


def _exact(
    sizes: Ints, weights: Floats, count: int, cost: Cost, align: int, start: List[Bucket]
) -> Tuple[List[Bucket], str]:
    """The optimum over a grid that holds the sides of `start`, and what it proves."""
    from anyshape.building.planning.optimum import exact_rectangles  # scipy, which only --exact needs

    aligned, inverse = np.unique(align_up(sizes, align), axis=0, return_inverse=True)
    mass = np.bincount(inverse.ravel(), weights=weights).astype(np.float64)
    corners = [(int(bucket[0]), int(bucket[1])) for bucket in start]
    found, whole = exact_rectangles(aligned, mass, count, cost, corners)
    where = "all sides that occur" if whole else "a coarse grid of sides"
    options: List[List[Bucket]] = [list(found), start]
    best = min(options, key=lambda plan: _waste(sizes, weights, plan, cost))
    return best, f"proved to be the optimum over {where}"


def _waste(sizes: Ints, weights: Floats, buckets: Sequence[Bucket], cost: Cost) -> float:
    corners = np.array(buckets, dtype=np.int64)
    if corners.ndim != 2 or corners.shape[1] != sizes.shape[1]:
        raise PlanError(f"sizes have {sizes.shape[1]} side(s), but the buckets are {list(buckets)}")
    least = np.full(len(sizes), np.inf)
    for corner, price in zip(corners, cost(corners)):
        fits = (sizes <= corner).all(axis=1)
        least[fits] = np.minimum(least[fits], price)
    if not np.isfinite(least).all():
        size = tuple(int(side) for side in sizes[~np.isfinite(least)][0])
        raise PlanError(f"the size {size} fits in none of the buckets {list(buckets)}")
    return float(least @ weights) / float(cost(sizes) @ weights)


def _arrays(histogram: Histogram) -> Tuple[Ints, Floats]:
    """Sizes, int (n, rank), and item counts, float (n,), of the entries that count anything."""
    kept = sorted((size, count) for size, count in histogram.items() if count)
    if not kept:
        raise PlanError("there is nothing to plan from: the data holds no items")
    if len({len(size) for size, _ in kept}) > 1 or len(kept[0][0]) not in (1, 2):
        raise PlanError("all sizes are lengths, or all are [height, width]")
    if min(min(size) for size, _ in kept) < 1 or min(count for _, count in kept) < 0:
        raise PlanError("sides and counts are positive whole numbers")
    largest = max(max(*size, count) for size, count in kept)
    if largest > LARGEST_NUMBER:
        raise PlanError(f"{largest} is no side and no count: they are at most {LARGEST_NUMBER}")
    sizes = np.array([size for size, _ in kept], dtype=np.int64)
    return sizes, np.array([count for _, count in kept], dtype=np.float64)


def _positive(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanError(f"{what} is a positive whole number, not {value!r}")
    return value
