"""Interpolation: output positions look at input positions by the ratio of the *valid* sizes.

Coordinates as torch computes them (ATen/native/UpSample.h), in the tensor's own precision.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact.mode import handles
from anyshape.building.exact.region import Axis, NotExact, Region, Space, plain, region_of, shape_of
from anyshape.building.exact.side import Known, frozen

_LINEAR = ("bilinear",)
_NEAREST = ("nearest", "nearest-exact")


@handles("interpolate", "upsample")
def interpolate(
    space: Space,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Optional[bool] = None,
    recompute_scale_factor: Optional[bool] = None,
    antialias: bool = False,
) -> Tensor:
    region = region_of(input)
    if input.dim() != 4 or (region is not None and not set(region.axes) <= {2, 3}):
        raise NotExact("only [batch, channels, height, width] is known")
    if region is None:  # pooled to a few positions, or a table of positions; its own size is the same for all
        input = input.expand(space.batch.shape[0], -1, -1, -1)
        region = Region({})
    region = Region(dict(region.axes), region.batch, own=region.own, mask=region.mask)
    for dim, side in zip((2, 3), _both(size)):
        if dim in region.axes or size is None:
            continue
        if isinstance(side, Known) and side.side != dim - 2:
            raise NotExact("heights and widths change places")
        if space.followed(dim - 2, side) is not None:  # as long for every picture, as its one row may be
            region.axes[dim] = Axis(dim - 2, (0,) + (shape_of(input)[dim],) * space.sides[dim - 2])
    if antialias or mode not in (*_LINEAR, *_NEAREST, "bicubic"):
        raise NotExact(f"mode {mode}" + (", antialias" if antialias else ""))
    sizes, scales = _both(size), _both(scale_factor)
    if size is not None:
        size = [side.bare() if isinstance(side, Known) else side for side in sizes]
    scale_factor, scales = frozen(scale_factor), frozen(scales)
    outs = {}
    fixed = {}  # the ratio, where no row has its own
    for dim, axis in region.axes.items():
        outs[dim], fixed[dim] = _output(space, axis, sizes[dim - 2], scales[dim - 2])
        if recompute_scale_factor and scales[dim - 2] is not None:
            fixed[dim] = _ratio(axis, outs[dim])
    if recompute_scale_factor and scale_factor is not None:
        have = shape_of(input)[2:]
        sizes = (int(have[0] * float(scales[0])), int(have[1] * float(scales[1])))
        scales = (None, None)
    outcome = Region(outs, region.batch, own=True, mask=region.mask)
    if shape_of(input)[2:] == [1, 1] and size is not None:
        result = input.expand(-1, -1, *map(plain, size))
        outcome.own = False
        return space.attach(result.clone() if result is input else result, outcome)
    if mode == "bicubic" or align_corners or any(ratio is None for ratio in fixed.values()):
        return space.attach(_by_row(space, input, region, outs, sizes, scales, mode, align_corners), outcome)
    if mode in _LINEAR and set(fixed.values()) != {1}:
        # What lies behind the valid edge must look like the edge itself.
        for dim, axis in region.axes.items():
            last = (space.extents(axis) - 1).clamp(min=0)[:, None]
            at = torch.minimum(space.positions(axis.table[-1])[None], last)
            input = space.take(input, region, dim, at)
    result = F.interpolate(input, size, scale_factor, mode, align_corners, recompute_scale_factor)
    return space.attach(result, outcome)


def _both(value: Any) -> Tuple[Any, Any]:
    if value is None:
        return (None, None)
    if isinstance(value, (list, tuple)):
        return (value[0], value[-1])
    return (value, value)


def _output(space: Space, axis: Axis, size: Any, scale: Optional[float]) -> Tuple[Axis, Optional[float]]:
    """The output's axis, and the ratio out ÷ in if it is the same for every size."""
    if size is None:
        assert scale is not None
        return Axis(axis.side, tuple(int(n * float(scale)) for n in axis.table)), float(scale)
    known = space.followed(axis.side, size)
    if known is None:
        count = plain(size)
        return Axis(axis.side, (0,) + (count,) * (len(axis.table) - 1)), None
    table = tuple(max(0, out) if n else 0 for n, out in zip(axis.table, known.table))
    return Axis(axis.side, table), _ratio(axis, Axis(axis.side, table))


def _ratio(axis: Axis, out: Axis) -> Optional[float]:
    """A whole ratio that all sizes share, None otherwise."""
    pairs = [(n, m) for n, m in zip(axis.table, out.table) if n and m]
    ratio = out.table[-1] // axis.table[-1]
    return float(ratio) if ratio and all(m == ratio * n for n, m in pairs) else None


def _by_row(
    space: Space,
    input: Tensor,
    region: Region,
    outs: Dict[int, Axis],
    sizes: Tuple[Any, Any],
    scales: Tuple[Any, Any],
    mode: str,
    align_corners: Optional[bool],
) -> Tensor:
    """Every row by its own ratio, one side after the other."""
    result = input
    number = torch.float64 if input.dtype == torch.float64 else torch.float32
    for dim in (2, 3):
        axis, have = region.axes.get(dim), shape_of(input)[dim]
        side = dim - 2
        if axis is not None:
            count = outs[dim].table[-1]
            n, m = space.extents(axis)[:, None], space.extents(outs[dim])[:, None]
        else:
            count = plain(sizes[side]) if sizes[side] is not None else int(have * float(scales[side]))
            n, m = torch.tensor([[have]]), torch.tensor([[count]])
        at = space.positions(count)[None]
        if align_corners:
            step = (n - 1).to(number) / (m - 1).clamp(min=1)
        elif scales[side] is not None:
            step = torch.full((1, 1), 1.0 / float(scales[side]), dtype=number)
        else:
            step = n.to(number) / m.clamp(min=1)
        last = (n - 1).clamp(min=0)
        if mode in _NEAREST:
            index = ((at + (0.5 if mode == "nearest-exact" else 0.0)) * step).floor().long()
            result = space.take(result, region, dim, torch.minimum(index, last))
            continue
        if mode == "bicubic":
            where = at * step if align_corners else (at + 0.5) * step - 0.5
            result = _cubic(space, result, region, dim, where, last)
            continue
        where = at * step if align_corners else ((at + 0.5) * step - 0.5).clamp(min=0)
        low = torch.minimum(where.floor().long(), last)
        high = torch.minimum(low + 1, last)
        weight = space.per_row(where - low, region, dim, 4).clamp(0, 1).to(result.dtype)
        first = space.take(result, region, dim, low)
        result = first + (space.take(result, region, dim, high) - first) * weight
    return result


def _cubic(space: Space, input: Tensor, region: Region, dim: int, where: Tensor, last: Tensor) -> Tensor:
    """Four neighbours by Keys' convolution with a = −0.75; those beyond the edge are the edge."""
    low = where.floor()
    ahead = where - low
    total: Any = 0
    for place in (-1, 0, 1, 2):
        away = (ahead - place).abs()
        near = (1.25 * away - 2.25) * away * away + 1
        far = ((-0.75 * away + 3.75) * away - 6) * away + 3
        weight = space.per_row(torch.where(away <= 1, near, far), region, dim, 4).to(input.dtype)
        index = torch.minimum((low.long() + place).clamp(min=0), last)
        total = total + space.take(input, region, dim, index) * weight
    return total  # type: ignore[no-any-return]
