"""What one item costs in a bucket: the weight that a plan minimises.

A cost is called with shapes, an integer array (n, rank), and returns float64 (n,), positive and
never falling as a shape grows. Only ratios matter: every waste is padded cost ÷ real cost.

    AreaCost()                      padded positions: tokens, or pixels
    FlopsCost(hidden_size=768)      modelled floating-point operations of a transformer encoder
    MeasuredCost(table)             seconds on a machine, interpolated
"""

from __future__ import annotations

from typing import Dict, Iterable, Protocol

import numpy as np
from numpy.typing import NDArray

from anyshape.buckets import volume
from anyshape.building.planning.errors import PlanError
from anyshape.costs import CostRow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Cost(Protocol):
    """`name` is what `--cost` and the reports call it."""

    name: str

    def __call__(self, shapes: Ints) -> Floats: ...


class AreaCost:
    """The number of positions: exact for work that is linear in them, such as a convolution's."""

    name = "area"

    def __call__(self, shapes: Ints) -> Floats:
        return _positions(shapes)


class FlopsCost:
    """Floating-point operations of one transformer encoder layer with a feed-forward of 4 × hidden.

    For L positions and hidden size d: 24·L·d² (projections and feed-forward) + 4·L²·d (attention).
    The number of layers cancels in every ratio. An image's positions count alike, so for a
    convolutional network, whose work is linear in them, take the area instead.
    Source: Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
    Megatron-LM" (SC'21), the forward half of its appendix's count.
    """

    name = "flops"

    def __init__(self, hidden_size: int = 768) -> None:
        if hidden_size < 1:
            raise PlanError(f"--hidden-size is a positive whole number, not {hidden_size}")
        self.hidden_size = hidden_size

    def __call__(self, shapes: Ints) -> Floats:
        positions = _positions(shapes)
        d = float(self.hidden_size)
        flops: Floats = 24 * positions * d * d + 4 * positions * positions * d
        return flops


class MeasuredCost:
    """Seconds per row of a call, from a table of seconds per call.

    A bucket's cost is its seconds per row at the batch size where that is least, as under load.
    Between the measured volumes it is interpolated linearly and never falls: a dip is noise, and a
    larger bucket can always stand in for a smaller one. Below the smallest and above the largest
    volume the nearest segment goes on, below it never under the line to the origin.
    """

    name = "measured"

    def __init__(self, table: Iterable[CostRow]) -> None:
        """Raises PlanError if the table is empty."""
        per_row: Dict[int, float] = {}
        for row in table:
            size, seconds = volume(row.bucket), row.seconds / row.batch_size
            per_row[size] = min(seconds, per_row.get(size, seconds))
        if not per_row:
            raise PlanError("the cost table is empty: measure first, or use --cost area")
        self.volumes = np.array(sorted(per_row), dtype=np.float64)
        seconds_at = np.array([per_row[int(v)] for v in self.volumes], dtype=np.float64)
        self.seconds: Floats = np.maximum.accumulate(seconds_at)

    def __call__(self, shapes: Ints) -> Floats:
        x = _positions(shapes)
        xs, ys = self.volumes, self.seconds
        result: Floats = np.interp(x, xs, ys)
        low, high = x < xs[0], x > xs[-1]
        if len(xs) == 1:
            result[low | high] = ys[0] * x[low | high] / xs[0]
            return result
        first = (ys[1] - ys[0]) / (xs[1] - xs[0])
        last = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
        result[low] = np.maximum(ys[0] + first * (x[low] - xs[0]), ys[0] * x[low] / xs[0])
        result[high] = ys[-1] + last * (x[high] - xs[-1])
        return result


def _positions(shapes: Ints) -> Floats:
    positions: Floats = np.asarray(shapes, dtype=np.float64).prod(axis=1)
    return positions
