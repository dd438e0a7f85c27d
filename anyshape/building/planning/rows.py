"""Planning rows of whole texts: how long, how many programs, and what they waste on batches of some depth.

    plans = plan_depths({37: 12, 120: 3}, depth=32, batch_sizes=[1, 8], segments=32)
    plans[0].lengths, plans[0].programs, plans[0].waste[32]

In this layout what is wasted depends on how many texts wait at once, so batches are drawn from the data and
packed as they are when served. *Waste* is positions executed ÷ tokens, rows to spare and all.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from anyshape.buckets import volume
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.plan import plan_lengths
from anyshape.costs import CostTable
from anyshape.layouts import ITEMS, ROWS
from anyshape.packing import pack
from anyshape.row_packing import pack_rows

DEPTHS = (1, 8, 32, 64)
BATCHES = 40  # that are drawn for each depth
GRID = 16  # lengths of rows are multiples of this, unless one says otherwise
CHOICES = 24  # lengths that are tried
LONG = 256  # tokens: rows longer than any text are tried up to here
OVERHEAD = 32  # tokens: what a call costs besides its own, until it is measured
MOST_ROWS = 3  # lengths of rows: more gain nothing
NEAR = 1.01  # fewer programs are better than so little less waste


@dataclass(frozen=True)
class DepthPlan:
    """Programs of one layout, and what they waste by depth, the number of texts in a batch."""

    layout: str
    lengths: List[int]
    batch_sizes: List[int]
    waste: Dict[int, float]

    @property
    def programs(self) -> int:
        """One for each length and batch size, as on accelerators."""
        return len(self.lengths) * len(self.batch_sizes)

    def to_json(self) -> Dict[str, Any]:
        return {**vars(self), "programs": self.programs}


def plan_depths(
    histogram: Mapping[int, int],
    depth: int,
    batch_sizes: Sequence[int],
    segments: int,
    limit: Optional[int] = None,
    align: int = 1,
    count: Optional[int] = None,
) -> List[DepthPlan]:
    """Rows of one length, of two, and of three, and beside them buckets of one text to a row.

    Each as many as fit: no plan has more programs than `limit`. histogram: {tokens: how many texts}. count:
    the number of row lengths, if they are not to be tried. The first plan is the one to take: rows with the
    fewest programs that waste nearly as little as any at this depth.

    Raises PlanError if there is nothing to plan from, or not even one length fits.
    """
    lengths = sorted(length for length, texts in histogram.items() if texts)
    if not lengths:
        raise PlanError("there is nothing to plan from: the data holds no texts")
    most = len(lengths) if limit is None else limit // len(batch_sizes)
    if most < 1:
        raise PlanError(
            f"{limit} programs fit, fewer than the {len(batch_sizes)} batch sizes of one length: list fewer"
        )
    batches = {n: draw(histogram, n) for n in sorted({*DEPTHS, depth})}
    grid = align if align > 1 else GRID
    longest = -(-lengths[-1] // grid)
    step = max(1, longest // CHOICES)
    grown = range(longest, max(longest, LONG // grid) + 1, step)
    choices = [grid * k for k in [*range(longest - step, 0, -step), *grown]]
    chosen: List[int] = []
    rows: List[DepthPlan] = []
    for _ in range(min(count or MOST_ROWS, most)):
        tried = {
            length: waste(ROWS, sorted([*chosen, length]), batch_sizes, segments, batches[depth])
            for length in choices
            if length not in chosen and (chosen or length >= lengths[-1])
        }
        if not tried:
            break
        chosen = sorted([*chosen, min(tried, key=tried.__getitem__)])
        rows.append(_plan(ROWS, chosen, batch_sizes, segments, batches))
    best = min(plan.waste[depth] for plan in rows)
    near = rows[-1] if count else next(plan for plan in rows if plan.waste[depth] <= best * NEAR)
    items = [
        _plan(
            ITEMS,
            [bucket[0] for bucket in plan_lengths(histogram, number, align=align)],
            batch_sizes,
            1,
            batches,
        )
        for number in sorted({min(number, most, len(lengths)) for number in (len(near.lengths), 6, most)})
        if number <= 32
    ]
    return [near, *(plan for plan in rows if plan is not near), *items]


def _plan(
    layout: str,
    lengths: Sequence[int],
    batch_sizes: Sequence[int],
    segments: int,
    batches: Mapping[int, List[List[Tuple[int]]]],
) -> DepthPlan:
    wastes = {n: waste(layout, lengths, batch_sizes, segments, drawn) for n, drawn in batches.items()}
    return DepthPlan(layout, list(lengths), list(batch_sizes), wastes)


def waste(
    layout: str,
    lengths: Sequence[int],
    batch_sizes: Sequence[int],
    segments: int,
    batches: Sequence[Sequence[Tuple[int]]],
) -> float:
    costs = by_tokens(lengths, batch_sizes)
    executed = 0
    for batch in batches:
        calls = pack_rows(batch, costs, segments) if layout == ROWS else pack(batch, costs)
        executed += sum(volume(call.bucket) * call.batch_size for call in calls)
    return executed / sum(length for batch in batches for (length,) in batch)


def by_tokens(lengths: Sequence[int], batch_sizes: Sequence[int]) -> CostTable:
    """What a call costs before it is measured, in tokens."""
    return CostTable(
        {((length,), n): float(OVERHEAD + length * n) for length in lengths for n in batch_sizes}
    )


def draw(histogram: Mapping[int, int], depth: int) -> List[List[Tuple[int]]]:
    """Batches of texts as long as those of the data, the same at every call."""
    chance = random.Random(depth)
    lengths, counts = list(histogram), list(histogram.values())
    return [[(n,) for n in chance.choices(lengths, counts, k=depth)] for _ in range(BATCHES)]
