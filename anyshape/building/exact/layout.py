"""Operations that move values without mixing them: slicing, joining, padding."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact.mode import handles, together
from anyshape.building.exact.moved import moved, tracked
from anyshape.building.exact.region import Axis, Flat, NotExact, Region, Space, plain, region_of, shape_of
from anyshape.building.exact.reshape import reshaped
from anyshape.building.exact.side import Known, frozen
from anyshape.building.exact.windows import alone, image


@handles("permute")
def permute(space: Space, input: Tensor, *dims: Any) -> Tensor:
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], (list, tuple)) else dims
    origin = {new: old % input.dim() for new, old in enumerate(order)}
    return moved(space, tracked(input), input.permute(*order), origin)


@handles("transpose", "swapaxes", "swapdims")
def transpose(space: Space, input: Tensor, dim0: int, dim1: int) -> Tensor:
    order = list(range(input.dim()))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(space, input, *order)


@handles("get:mT")
def transposed(space: Space, input: Tensor) -> Tensor:
    return transpose(space, input, -2, -1)


def pieces(method: str) -> Callable[..., Tuple[Tensor, ...]]:
    def apart(space: Space, input: Tensor, parts: Any, dim: int = 0) -> Tuple[Tensor, ...]:
        region = tracked(input)
        dim %= input.dim()
        if dim in region.axes or dim == region.batch:
            raise NotExact("it splits the image or the batch")
        origin = {each: each for each in range(input.dim())}
        return tuple(
            moved(space, region, piece, origin) for piece in getattr(torch.Tensor, method)(input, parts, dim)
        )

    return apart


for _method in ("chunk", "tensor_split"):
    handles(_method)(pieces(_method))


@handles("cat", "concat", "concatenate")
def cat(space: Space, tensors: Sequence[Tensor], dim: int = 0, axis: Optional[int] = None) -> Tensor:
    """Along a side, only what every picture has as much of may stand before it."""
    result = torch.cat(list(tensors), dim if axis is None else axis)
    dim = (dim if axis is None else axis) % result.dim()
    side: Any = None
    for place, tensor in enumerate(tensors, 1):
        region = region_of(tensor)
        if region is None or (dim not in region.axes and dim != region.batch):
            continue
        side = region.axes.get(dim)
        if not isinstance(side, Axis) or place < len(tensors):
            flat = isinstance(side, Flat)
            raise NotExact("flattened pictures are joined" if flat else "images are joined side by side")
    outcome = _joined(space, tensors, dim, result.dim())
    if side is not None:
        ahead = shape_of(result)[dim] - side.length
        outcome.axes[dim] = Axis(side.side, tuple(size and size + ahead for size in side.table))
    return space.attach(result, outcome)


def _joined(space: Space, tensors: Sequence[Tensor], dim: int, ndim: int) -> Region:
    # The joined dimension may differ in length; what is combined position by position is the rest.
    narrowed = []
    for tensor in tensors:
        region = region_of(tensor)
        slim = tensor.detach().select(dim, 0).unsqueeze(dim)
        if region is not None:
            axes = {each: axis for each, axis in region.axes.items() if each != dim}
            space.attach(slim, Region(axes, region.batch, mask=region.mask))
        narrowed.append(slim)
    known = [region for region in map(region_of, tensors) if region is not None]
    apart = any(region_of(each) is not None for each in narrowed)  # else the joined dimension is all there is
    joined = together(space, ndim, narrowed) if apart else Region({}, known[0].batch, mask=known[0].mask)
    joined.own = True
    fills = {region.fill if region else None for region in map(region_of, tensors)}
    joined.fill = fills.pop() if len(fills) == 1 else None
    return joined


@handles("stack")
def stack(space: Space, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    ndim = tensors[0].dim() + 1
    return cat(space, [reshaped("unsqueeze")(space, each, dim % ndim) for each in tensors], dim % ndim)


@handles("pad")
def pad(
    space: Space,
    input: Tensor,
    pad: Any,
    mode: str = "constant",
    value: Optional[float] = None,
) -> Tensor:
    region = tracked(input)
    axes = dict(region.axes)
    sides: Dict[int, Tuple[int, int]] = {}
    varying: Dict[int, Tuple[Sequence[int], Sequence[int]]] = {}  # what the size of the picture decides
    for pair, dim in zip(range(0, len(pad), 2), range(input.dim() - 1, -1, -1)):
        axis = axes.get(dim)
        by_size = any(isinstance(n, Known) for n in pad[pair : pair + 2])
        if axis is not None and by_size and mode == "constant":
            varying[dim] = _amount(space, axis, pad[pair]), _amount(space, axis, pad[pair + 1])
            table = tuple(n and max(0, n + a + b) for n, a, b in zip(axis.table, *varying[dim]))
            axes[dim] = Axis(axis.side, table)
            continue
        if axis is not None and by_size and not isinstance(pad[pair], Known):
            ahead = plain(pad[pair])
            sides[dim] = ahead, 0
            axes[dim] = Axis(axis.side, _repeated(space, axis, ahead, pad[pair + 1], mode))
            continue
        before, after = plain(pad[pair]), plain(pad[pair + 1])
        if dim == region.batch and (before or after):
            raise NotExact("rows are added to the batch")
        if axis is not None:
            sides[dim] = before, after
            axes[dim] = Axis(axis.side, _repeated(space, axis, before, after, mode))
    amounts = [int(amount.bare()) if isinstance(amount, Known) else plain(amount) for amount in pad]
    value = frozen(value)
    fill = 0.0 if value is None else float(value)
    if varying:
        result = _padded_by_size(space, input, fill, sides, varying, amounts)
        outcome = Region(axes, region.batch, own=True, mask=region.mask)
        outcome.fill = fill
        return space.attach(result, outcome)
    if mode == "constant":
        input = space.framed(input, fill, {dim: max(0, after) for dim, (_, after) in sides.items()})
        result = F.pad(input, pad, mode, value)
        outcome = Region(axes, region.batch, own=True, mask=region.mask)
        outcome.fill = fill if (region_of(input) or region).fill == fill else None
        return space.attach(result, outcome)
    if mode not in ("reflect", "replicate", "circular") or image(input) is not region:
        raise NotExact(f"mode {mode}")
    result = input
    for dim, (before, _) in sides.items():
        size = space.extents(region.axes[dim])[:, None]
        at = space.positions(axes[dim].table[-1])[None] - before
        result = space.take(result, region, dim, _source(at, size, mode))
    untracked = [
        0 if dim in sides else amount
        for dim, pair in zip((3, 2), (amounts[:2], amounts[2:]))
        for amount in pair
    ]
    if any(untracked):
        result = F.pad(result, untracked, mode)
    return space.attach(result, Region(axes, region.batch, own=True, mask=region.mask))


def _amount(space: Space, axis: Axis, amount: Any) -> Sequence[int]:
    """An amount of padding for every size of the picture."""
    known = space.followed(axis.side, amount) if isinstance(amount, Known) else None
    return known.table if known is not None else [plain(amount)] * len(axis.table)


def _repeated(space: Space, axis: Axis, before: int, after: Any, mode: str) -> Tuple[int, ...]:
    """How far a side reaches that is padded so, 0 where the picture has too little to repeat."""
    found = []
    for size, behind in zip(axis.table, _amount(space, axis, after)):
        most = max(before, behind)
        limit = {"reflect": most, "circular": most - 1}.get(mode, 0)
        found.append(max(0, size + before + behind) if size > limit else 0)
    return tuple(found)


def _padded_by_size(
    space: Space,
    input: Tensor,
    fill: float,
    sides: Dict[int, Tuple[int, int]],
    varying: Dict[int, Tuple[Sequence[int], Sequence[int]]],
    amounts: Sequence[int],
) -> Tensor:
    """TensorFlow's SAME padding: before the picture there is more of it for some sizes than for others. The
    padding of this bucket's size is added, and each row moved to where its own begins."""
    region = tracked(input)
    result = F.pad(space.filled(input, fill), list(amounts), "constant", fill)
    for dim, (before, after) in varying.items():
        if (
            max(before[n] + after[n] + size for n, size in enumerate(region.axes[dim].table))
            > shape_of(result)[dim]
        ):
            raise NotExact("a smaller picture is padded to more than this one")
        own = Axis(region.axes[dim].side, tuple(before))
        if len(set(before)) == 1:
            continue
        starts = space.extents(own)[:, None]
        at = space.positions(shape_of(result)[dim])[None] + (before[-1] - starts)
        kept = (at >= 0) & (at < shape_of(result)[dim])
        moved = space.take(result, region, dim, at.clamp(0, shape_of(result)[dim] - 1))
        other = torch.full((), fill, dtype=moved.dtype, device=moved.device)
        result = torch.where(space.per_row(kept, region, dim, moved.dim()), moved, other)
    return result


def _source(at: Tensor, size: Tensor, mode: str) -> Tensor:
    """Which valid position a padded one repeats."""
    if mode == "circular":
        return torch.remainder(at, size)
    if mode == "reflect":
        at = at.abs()
        at = torch.minimum(at, 2 * (size - 1) - at)
    return torch.minimum(at.clamp(min=0), (size - 1).clamp(min=0))


@handles("pixel_shuffle")
def pixel_shuffle(space: Space, input: Tensor, upscale_factor: int) -> Tensor:
    region = image(input)
    axes = {
        dim: Axis(axis.side, tuple(size * upscale_factor for size in axis.table))
        for dim, axis in region.axes.items()
    }
    return space.attach(F.pixel_shuffle(input, upscale_factor), Region(axes, own=True))


@handles("pixel_unshuffle")
def pixel_unshuffle(space: Space, input: Tensor, downscale_factor: int) -> Tensor:
    region = image(input)
    axes = {}
    for dim, axis in region.axes.items():
        table = tuple(0 if n % downscale_factor else n // downscale_factor for n in axis.table)
        axes[dim] = Axis(axis.side, table)
    return space.attach(F.pixel_unshuffle(input, downscale_factor), Region(axes, own=True))


@handles("prelu")
def prelu(space: Space, input: Tensor, weight: Tensor) -> Tensor:
    region = tracked(input)
    alone(weight)
    if weight.numel() > 1 and (region.batch != 0 or 1 in region.axes):
        raise NotExact("dimension 1 is not the channels")
    outcome = Region(dict(region.axes), region.batch, own=True)
    outcome.fill = 0.0 if region.fill == 0 else None
    return space.attach(F.prelu(input, weight), outcome)


@handles("linear")
def linear(space: Space, input: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    region = tracked(input)
    alone(weight, bias)
    if input.dim() - 1 in region.axes:
        raise NotExact("it mixes a side of the image")
    result = F.linear(input, weight, bias)
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))
