"""What people do without a plan: the rules of thumb that a plan is compared with.

Each takes the sizes of a distribution and how many buckets there may be, and returns at most that
many. All are capped at the largest size and rounded up to the alignment, the kindest reading of
each.
"""

from __future__ import annotations

import itertools
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np

from anyshape.buckets import Bucket
from anyshape.building.planning.cost_models import Floats, Ints

Rule = Callable[[Ints, Floats, int], List[Tuple[int, ...]]]


def pad_to_max(sizes: Ints, weights: Floats, count: int) -> List[Tuple[int, ...]]:
    """One bucket, the largest length, or the largest height and width."""
    return [tuple(sizes.max(axis=0))]


def uniform(sizes: Ints, weights: Floats, count: int) -> List[Tuple[int, ...]]:
    """Equal steps up to the maximum, as AWS's application note on bucketing lays them out."""
    largest = sizes.max(axis=0)
    return [tuple(np.ceil(largest * step / count)) for step in range(1, count + 1)]


def quantile(sizes: Ints, weights: Floats, count: int) -> List[Tuple[int, ...]]:
    """Equally many items between one bucket and the next; per side in two dimensions."""
    steps = [step / count for step in range(1, count + 1)]
    sides = [_quantiles(sizes[:, axis], weights, steps) for axis in range(sizes.shape[1])]
    return list(zip(*sides))


def powers_of_two(sizes: Ints, weights: Floats, count: int) -> List[Tuple[int, ...]]:
    """The largest powers of two below the maximum, and the maximum; squares in two dimensions."""
    largest = sizes.max(axis=0)
    top = int(largest.max())
    powers = [2**exponent for exponent in range(top.bit_length()) if 2**exponent < top]
    sides = [*powers[len(powers) - min(count - 1, len(powers)) :], top]
    return [tuple(np.minimum(side, largest)) for side in sides]


def squares(sizes: Ints, weights: Floats, count: int) -> List[Tuple[int, ...]]:
    """Squares at the quantiles of the longer side, and the maximum: the note's picture buckets."""
    longer = _quantiles(sizes.max(axis=1), weights, [step / count for step in range(1, count + 1)])
    largest = sizes.max(axis=0)
    return [tuple(np.minimum(side, largest)) for side in longer]


def product_grid(sizes: Ints, weights: Floats, count: int) -> List[Tuple[int, ...]]:
    """Quantiles of the heights × quantiles of the widths, about as many of each."""
    high = max(n for n in range(1, count + 1) if n * n <= count)
    wide = count // high
    heights = _quantiles(sizes[:, 0], weights, [step / high for step in range(1, high + 1)])
    widths = _quantiles(sizes[:, 1], weights, [step / wide for step in range(1, wide + 1)])
    return list(itertools.product(heights, widths))


RULES: Dict[int, Dict[str, Rule]] = {
    1: {
        "pad_to_max": pad_to_max,
        "uniform": uniform,
        "quantile": quantile,
        "powers_of_two": powers_of_two,
    },
}
RULES[2] = {**RULES[1], "squares": squares, "product_grid": product_grid}


def align_up(values: Ints, align: int) -> Ints:
    """Round up to multiples of `align`."""
    return -(-np.asarray(values, dtype=np.int64) // align) * align


def rule_buckets(sizes: Ints, weights: Floats, count: int, align: int) -> Dict[str, List[Bucket]]:
    """The buckets of every rule that fits the sizes' rank: {name: sorted buckets}.

    sizes: int (n, 1) or (n, 2), not aligned; weights: float (n,).
    """
    answer: Dict[str, List[Bucket]] = {}
    for name, rule in RULES[sizes.shape[1]].items():
        corners = align_up(np.array(rule(sizes, weights, count)), align)
        answer[name] = sorted({tuple(int(side) for side in corner) for corner in corners})
    return answer


def _quantiles(values: Ints, weights: Floats, levels: Sequence[float]) -> List[int]:
    """The least value that covers at least each share of the items; level 1 is the maximum."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.array(levels) * reached[-1] * (1 - 1e-12))
    return [int(values[order[place]]) for place in places]
