"""The best positions of a picture, and what stands at positions that were computed.

The number of a position is the one that it has in the picture alone, whatever the bucket: so what a model
makes of such numbers is right, and what it looks up by them is found.
"""

from __future__ import annotations

import math
from typing import Any, Tuple

import torch
from torch import Tensor

from anyshape.building.exact import reads
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.places import gathered, numbered
from anyshape.building.exact.region import (
    Axis,
    Flat,
    NotExact,
    Region,
    Rows,
    Space,
    plain,
    region_of,
    shape_of,
)


@handles("topk")
def topk(
    space: Space, input: Tensor, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Tuple[Tensor, Tensor]:
    region = tracked(input)
    dim %= input.dim()
    count = plain(k)
    if dim == region.batch or isinstance(region.batch, Rows):
        raise NotExact("it mixes the rows of the batch")
    axis: Any = region.axes.get(dim)
    if axis is not None:
        if not input.dtype.is_floating_point:
            raise NotExact("of whole numbers")
        enough(space, axis, count)
        limits = torch.finfo(input.dtype)  # what is infinite itself comes before what lies outside
        candidates = space.attach(
            input.clamp(min=limits.min, max=limits.max), Region(dict(region.axes), region.batch, own=True)
        )
        candidates = space.filled(candidates, -math.inf if largest else math.inf)
        places = torch.topk(candidates, count, dim, largest, sorted)[1]
        values = torch.gather(input, dim, places)
        places = numbered(space, region, dim, places, input)
    else:
        values, places = torch.topk(input, count, dim, largest, sorted)
    axes = {each: other for each, other in region.axes.items() if each != dim}
    for each in (values, places):
        space.attach(each, Region(dict(axes), region.batch, own=True))
    return torch.return_types.topk((values, places))


def enough(space: Space, axis: Any, count: int) -> None:
    """Leave the pictures that have as many positions: both sides from the least square on that does."""
    maps = [axis] if isinstance(axis, (Axis, Flat)) else axis.maps
    for size in range(1, max(space.sides) + 1):
        sides = [min(size, side) for side in space.sides]
        if sum(_positions(each, sides) for each in maps) >= count:
            break
    for side in {part.side for part in axis.parts}:
        space.leave(side, [each >= sides[side] for each in range(space.sides[side] + 1)])


def _positions(axis: Any, sides: Any) -> int:
    whole: int = math.prod(part.table[sides[part.side]] for part in axis.parts)
    return whole + (axis.before + axis.after if isinstance(axis, Flat) else 0)


@handles("gather")
def gather(space: Space, input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """By numbers of positions, which must come from the picture: others may be more than it has."""
    region = tracked(input)
    dim %= input.dim()
    axis: Any = region.axes.get(dim)
    if axis is None or len(region.axes) > 1 or region.batch == dim or region_of(index) is not None:
        raise NotExact("only along the picture's positions, for each picture as many, is known")
    if not reads.from_picture(index) or not input.dtype.is_floating_point:
        raise NotExact("indexed by numbers that do not come from the picture")
    shape = shape_of(index)
    shape[region.batch] = -1
    shape[dim] = axis.length
    places = space.per_row(gathered(space, axis), region, dim, input.dim()).expand(shape)
    result = torch.gather(input, dim, torch.gather(places, dim, index))
    known = index < space.per_row(space.counts(axis)[:, None], region, dim, input.dim())
    result = torch.where(known, result, torch.full((), math.nan, dtype=result.dtype))
    return space.attach(result, Region({}, region.batch, own=True))
