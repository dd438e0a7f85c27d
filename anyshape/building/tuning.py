"""New buckets for a model that serves, from what it has seen; the inputs that it takes stay the same.

    tuned = tune(seen.histogram, seen.buckets, count=6)
    tuned.plan.buckets, tuned.saving           # [(7,), (19,), ..., (512,)], 0.12

What fits the present buckets fits the new ones: what came yesterday may come tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Optional, Sequence

from anyshape.buckets import Bucket, contains, fits
from anyshape.building.planning.cost_models import AreaCost, Cost
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.inputs import Histogram
from anyshape.building.planning.plan import PlanResult, make_plan, plan_waste


@dataclass(frozen=True)
class Tuned:
    """A plan beside the present buckets. `present` and `waste` are padded ÷ real cost on what was seen,
    `positions` the same by positions, present and planned: what a server's own counters show."""

    plan: PlanResult
    present: float
    waste: float
    positions: Sequence[float]

    @property
    def saving(self) -> float:
        """The part of the present cost that the plan saves."""
        return 1 - self.waste / self.present


def outermost(buckets: Sequence[Bucket]) -> List[Bucket]:
    """Those that no other contains: one length, or the tallest, the widest and what is between."""
    return [one for one in buckets if not any(contains(other, one) for other in buckets if other != one)]


def tune(
    histogram: Histogram,
    present: Sequence[Bucket],
    count: Optional[int] = None,
    cost: Optional[Cost] = None,
    align: int = 1,
) -> Tuned:
    """Plan `count` buckets (default: as many as there are) for what was seen and fits the present ones.

    Raises PlanError if nothing that was seen fits, or if they are fewer than the outermost ones.
    """
    cost = cost or AreaCost()
    seen = {size: items for size, items in histogram.items() if fits(size, present)}
    if not seen:
        raise PlanError("none of the sizes that were seen fits a present bucket: nothing to plan from")
    kept = outermost(present)
    count = count or len(present)
    if count < len(kept):
        raise PlanError(f"{count} buckets are fewer than the {len(kept)} largest, which have to fit")
    forced = dict(seen)
    for bucket in kept:  # one item of its size has each of them fit in, and changes nothing else
        forced[bucket] = forced.get(bucket, 0) + 1
    plan = make_plan(forced, count, cost, align=align, curve_count=count)
    before, after = plan_waste(seen, present, cost), plan_waste(seen, plan.buckets, cost)
    if after >= before:
        plan, after = replace(plan, buckets=list(present)), before
    positions = [plan_waste(seen, buckets) for buckets in (present, plan.buckets)]
    return Tuned(replace(plan, waste=after, histogram=seen), before, after, positions)
