"""Interpolation: output positions look at input positions by the ratio of the *valid* sizes.

Coordinates as torch computes them (ATen/native/UpSample.h), in the tensor's own precision.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact import reads
from anyshape.building.exact.axis import constant
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
        if not reads.from_picture(input) and shape_of(input)[0] != 1:
            raise NotExact("several tables of positions are brought to the picture's size at once")
        input = input.expand(space.batch.shape[0], -1, -1, -1)
        region = Region({})
    region = Region(dict(region.axes), region.batch, own=region.own, mask=region.mask)
    for dim, side in zip((2, 3), _both(size)):
        if dim in region.axes or size is None:
            continue
        if isinstance(side, Known) and side.side != dim - 2:
            raise NotExact("heights and widths change places")
        if space.followed(dim - 2, side) is not None:  # as long for every picture, as its one row may be
            region.axes[dim] = constant(dim - 2, shape_of(input)[dim], space.sides[dim - 2])
    if mode not in (*_LINEAR, *_NEAREST, "bicubic"):
        raise NotExact(f"mode {mode}")
    if antialias and mode in _NEAREST:
        raise NotExact(f"mode {mode}, antialias")
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
    by_row = _antialiased if antialias else _by_row
    uneven = any(ratio is None or _copies_some(ratio, mode) for ratio in fixed.values())
    if antialias or mode == "bicubic" or align_corners or uneven:
        return space.attach(by_row(space, input, region, outs, sizes, scales, mode, align_corners), outcome)
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
        return constant(axis.side, plain(size), len(axis.table) - 1), None
    table = tuple(max(0, out) if n else 0 for n, out in zip(axis.table, known.table))
    return Axis(axis.side, table), _ratio(axis, Axis(axis.side, table))


def _ratio(axis: Axis, out: Axis) -> Optional[float]:
    """A whole ratio that all sizes share, None otherwise."""
    pairs = [(n, m) for n, m in zip(axis.table, out.table) if n and m]
    ratio = out.table[-1] // axis.table[-1]
    return float(ratio) if ratio and all(m == ratio * n for n, m in pairs) else None


def _copies_some(ratio: float, mode: str) -> bool:
    """Whether a factor leaves some sizes what they are (or doubles them, which torch asks of the nearest), so
    that torch copies positions there, and looks at others by the factor elsewhere."""
    return ratio != int(ratio) and 1 < ratio < (3 if mode == "nearest" else 2)


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
    for dim in (2, 3):
        n, at, step = _steps(space, input, region, outs, sizes, scales, mode, align_corners, dim)
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
        low = torch.minimum(where.floor().long(), last).clamp(min=0)
        high = torch.minimum(low + 1, last)
        weight = space.per_row(where - low, region, dim, 4).clamp(0, 1).to(result.dtype)
        first = space.take(result, region, dim, low)
        result = first + (space.take(result, region, dim, high) - first) * weight
    return result


def _steps(
    space: Space,
    input: Tensor,
    region: Region,
    outs: Dict[int, Axis],
    sizes: Tuple[Any, Any],
    scales: Tuple[Any, Any],
    mode: str,
    align_corners: Optional[bool],
    dim: int,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Along `dim`: each row's positions [B or 1, 1], the output's [1, n], and how far these are apart in
    those [B or 1, 1]."""
    number = torch.float64 if input.dtype == torch.float64 else torch.float32
    axis, have, side = region.axes.get(dim), shape_of(input)[dim], dim - 2
    if axis is not None:
        count = outs[dim].table[-1]
        n, m = space.extents(axis)[:, None], space.extents(outs[dim])[:, None]
    else:
        count = plain(sizes[side]) if sizes[side] is not None else int(have * float(scales[side]))
        n, m = torch.tensor([[have]]), torch.tensor([[count]])
    if align_corners:
        step = (n - 1).to(number) / (m - 1).clamp(min=1)
    elif scales[side] is not None:
        step = torch.full((1, 1), 1.0 / float(scales[side]), dtype=number)
        if mode in ("nearest", *_LINEAR):
            step = torch.where(m == n, torch.ones_like(step), step)
        if mode == "nearest":
            step = torch.where(m == 2 * n, torch.full_like(step, 0.5), step)
    else:
        step = n.to(number) / m.clamp(min=1)
    return n, space.positions(count)[None], step


def _antialiased(
    space: Space,
    input: Tensor,
    region: Region,
    outs: Dict[int, Axis],
    sizes: Tuple[Any, Any],
    scales: Tuple[Any, Any],
    mode: str,
    align_corners: Optional[bool],
) -> Tensor:
    """The same with weights for as many positions as a smaller output draws together, in a matrix for each
    row: a side is multiplied with it."""
    result = space.filled(input, 0.0)  # 0 × NaN is no 0
    for axis in outs.values():  # torch itself repeats the first row where but one column is left
        space.leave(axis.side, [extent != 1 for extent in axis.table])
    for dim in (3, 2):
        # Along a side that keeps its length nothing is done, whatever the mode.
        n, at, step = _steps(space, input, region, outs, sizes, scales, "bilinear", align_corners, dim)
        wide = step.clamp(min=1)
        middle = ((at + 0.5) * step)[:, :, None]
        reach = ((1.0 if mode in _LINEAR else 2.0) * wide)[:, :, None]
        begin, end = (middle - reach + 0.5).clamp(min=0).floor(), (middle + reach + 0.5).floor()
        place = space.positions(shape_of(input)[dim])[None, None]
        away = ((place - middle + 0.5) / wide[:, :, None]).abs()
        weight = (1 - away).clamp(min=0) if mode in _LINEAR else _keys(away)
        weight = torch.where((place >= begin) & (place < torch.minimum(end, n[:, :, None])), weight, 0.0)
        total = weight.sum(-1, keepdim=True)
        weight = (weight / torch.where(total == 0, torch.ones_like(total), total)).to(result.dtype)[:, None]
        result = weight @ result if dim == 2 else result @ weight.transpose(-1, -2)
    return result


def _keys(away: Tensor) -> Tensor:
    """Keys' convolution with a = −0.5, as torch has it where it smooths."""
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return torch.where(away < 1, near, torch.where(away < 2, far, torch.zeros_like(away)))


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
