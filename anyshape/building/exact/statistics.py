"""Operations that sum, average or compare over positions: reductions, norms, softmax, global pooling."""

from __future__ import annotations

import math
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact.axis import inner_of, rows
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.places import numbered
from anyshape.building.exact.region import Axis, NotExact, Region, Space, plain, shape_of
from anyshape.building.exact.spread import vector_norm
from anyshape.building.exact.windows import alone, image

# What changes nothing outside the picture.
_EMPTY = {"sum": 0.0, "mean": 0.0, "amax": -math.inf, "amin": math.inf, "max": -math.inf}
_EMPTY.update({"min": math.inf, "argmax": -math.inf, "argmin": math.inf})
_EMPTY.update({"any": 0.0, "all": 1.0, "prod": 1.0, "logsumexp": -math.inf})


def wide(input: Tensor, options: Any = None) -> Dict[str, Any]:
    """Options of a sum that is divided afterwards, for which half a precision is not enough."""
    if input.dtype in (torch.float16, torch.bfloat16) and not (options and options.get("dtype")):
        return {**(options or {}), "dtype": torch.float32}
    return dict(options or {})


def _reduction(name: str) -> Any:
    def reduce(space: Space, input: Tensor, dim: Any = None, keepdim: bool = False, **rest: Any) -> Any:
        if isinstance(dim, Tensor):
            raise NotExact("two tensors: use torch.maximum or torch.minimum")
        region = tracked(input)
        ndim = input.dim()
        dims = (
            [plain(d) % ndim for d in (dim if isinstance(dim, (list, tuple)) else [dim])]
            if (dim is not None)
            else list(range(ndim))
        )
        if region.batch in dims:
            raise NotExact("it mixes the rows of the batch")
        own = [d for d in dims if d in region.axes]
        method = getattr(torch.Tensor, name)
        if own and name == "mean":
            total = torch.Tensor.sum(space.filled(input, 0.0), dim, keepdim, **wide(input, rest))
            others = math.prod(shape_of(input)[d] for d in dims if d not in own)
            area = space.area(region, own, ndim) * others
            shape = [1] * total.dim()
            shape[region.batch - (0 if keepdim else sum(d < region.batch for d in dims))] = -1
            result = (total / area.reshape(shape).to(total.dtype)).to(rest.get("dtype") or input.dtype)
        else:
            result = method(space.filled(input, _EMPTY[name]) if own else input, dim, keepdim, **rest)
            if own and name in ("argmax", "argmin", "max", "min"):
                result = _places(space, result, region, own[0], keepdim, input)
        kept = [d for d in range(ndim) if keepdim or d not in dims]
        axes = {kept.index(d): a for d, a in region.axes.items() if d not in dims}
        for each in result if isinstance(result, tuple) else (result,):
            batch = rows(kept.index(region.batch), inner_of(region.batch))
            space.attach(each, Region(dict(axes), batch, own=True))
        return result

    return reduce


for _name in _EMPTY:
    handles(_name)(_reduction(_name))


def _places(space: Space, result: Any, region: Region, dim: int, keepdim: bool, of: Tensor) -> Any:
    """The largest or least, and where they are in the picture alone; or that alone. Of equal ones it is the
    first, in the bucket too."""
    if isinstance(region.axes[dim], Axis):  # whose numbers are the same in both
        return result
    places = result[1] if isinstance(result, tuple) else result
    places = numbered(space, region, dim, places if keepdim else places.unsqueeze(dim), of)
    places = places if keepdim else places.squeeze(dim)
    return type(result)((result[0], places)) if isinstance(result, tuple) else places


@handles("adaptive_avg_pool2d")
def adaptive_avg_pool2d(space: Space, input: Tensor, output_size: Any) -> Tensor:
    """Bin i of n covers positions ⌊i·size/n⌋ to ⌈(i+1)·size/n⌉ of the valid size."""
    region = image(input)
    counts = _counts(space, region, output_size)
    kept = {dim: axis for dim, axis in region.axes.items() if counts[dim - 2] is None}
    input = space.filled(input, 0.0)
    if counts == [1, 1] and set(region.axes) == {2, 3}:
        total = input.sum((2, 3), keepdim=True, **wide(input))
        area = space.area(region, (2, 3), 4).to(total.dtype)
        return space.attach((total / area).to(input.dtype), Region({}))
    result = input
    for dim, count in zip((2, 3), counts):
        if count is None:
            continue
        inside, size = _bins(space, region, dim, count, shape_of(input)[dim])
        weight = (inside.to(input.dtype) / size.to(input.dtype))[:, None]  # [B, 1, count, have]
        result = weight @ result if dim == 2 else result @ weight.transpose(-1, -2)
    return space.attach(result, Region(kept, own=True))


def _counts(space: Space, region: Region, output_size: Any) -> Sequence[Optional[int]]:
    """To how many positions each side is pooled; None for one that keeps its length."""
    sizes = output_size if isinstance(output_size, (list, tuple)) else (output_size, output_size)
    counts = []
    for dim, size in zip((2, 3), sizes):
        axis = region.axes.get(dim)
        known = space.followed(axis.side, size) if axis is not None and size is not None else None
        if known is not None and known != axis:
            raise NotExact("its size follows the image's")
        counts.append(plain(size) if size is not None and known is None else None)
    return counts


def _bins(space: Space, region: Region, dim: int, count: int, have: int) -> Tuple[Tensor, Tensor]:
    """[B or 1, count, have] boolean: which positions are in each bin; and how many, [B or 1, count, 1]."""
    axis = region.axes.get(dim)
    size = space.extents(axis)[:, None, None] if axis else torch.tensor([[[have]]])
    bins = space.positions(count)[None, :, None]
    start = torch.div(bins * size, count, rounding_mode="floor")
    end = torch.div((bins + 1) * size + count - 1, count, rounding_mode="floor")
    at = space.positions(have)[None, None]
    return (at >= start) & (at < end), end - start


@handles("adaptive_max_pool2d")
def adaptive_max_pool2d(
    space: Space, input: Tensor, output_size: Any, return_indices: bool = False
) -> Tensor:
    region = image(input)
    if return_indices:
        raise NotExact("indices count the padded positions")
    counts = _counts(space, region, output_size)
    kept = {dim: axis for dim, axis in region.axes.items() if counts[dim - 2] is None}
    if counts == [1, 1]:
        return space.filled(input, -math.inf).amax((2, 3), keepdim=True)
    result = input
    for dim, count in zip((2, 3), counts):
        if count is None:
            continue
        inside, _ = _bins(space, region, dim, count, shape_of(input)[dim])
        place = [1, 1, 1, 1]
        place[dim], place[0] = -1, inside.shape[0]
        parts = [inside[:, each].reshape(place) for each in range(count)]
        lowest = torch.full((), -math.inf, dtype=input.dtype, device=input.device)
        result = torch.cat([torch.where(part, result, lowest).amax(dim, keepdim=True) for part in parts], dim)
    return space.attach(result, Region(kept, own=True))


def _running(name: str) -> Any:
    function = getattr(torch, name)

    def running(space: Space, input: Tensor, dim: Any = None, **options: Any) -> Any:
        """What is behind a position does not count there."""
        region = tracked(input)
        if not isinstance(dim, int):
            raise NotExact("its dim must be given as one number")
        if dim % input.dim() == region.batch:
            raise NotExact("it mixes the rows of the batch")
        if not isinstance(region.axes.get(dim % input.dim()), (Axis, type(None))):
            raise NotExact("over a flattened picture")
        result = function(input, dim, **options)
        for each in result if isinstance(result, tuple) else (result,):
            space.attach(each, Region(dict(region.axes), region.batch, own=True, mask=region.mask))
        return result

    return running


for _name in ("cummax", "cummin", "cumprod", "cumsum", "logcumsumexp"):
    handles(_name)(_running(_name))


@handles("glu")
def glu(space: Space, input: Tensor, dim: int = -1) -> Tensor:
    region = tracked(input)
    if dim % input.dim() in (region.batch, *region.axes):
        raise NotExact("it halves the image or the batch")
    return space.attach(F.glu(input, dim), Region(dict(region.axes), region.batch, own=True))


@handles("normalize")
def normalize(
    space: Space, input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Tensor:
    region = tracked(input)
    if dim % input.dim() == region.batch:
        raise NotExact("it mixes the rows of the batch")
    if dim % input.dim() in region.axes:
        result = input / vector_norm(space, input, p, dim, keepdim=True).clamp_min(eps)
    else:
        result = F.normalize(input, p, dim, eps)
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))


@handles("batch_norm")
def batch_norm(
    space: Space,
    input: Tensor,
    running_mean: Optional[Tensor],
    running_var: Optional[Tensor],
    weight: Optional[Tensor] = None,
    bias: Optional[Tensor] = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    region = tracked(input)
    alone(running_mean, running_var, weight, bias)
    if training or running_mean is None:
        raise NotExact("statistics of the batch: call model.eval()")
    if 1 in region.axes or region.batch != 0:
        raise NotExact("dimension 1 is not the channels")
    result = F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))


@handles("group_norm")
def group_norm(
    space: Space,
    input: Tensor,
    num_groups: int,
    weight: Optional[Tensor] = None,
    bias: Optional[Tensor] = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean and variance of the valid positions alone, in two passes."""
    region = image(input)
    alone(weight, bias)
    shape = shape_of(input)
    per_group = shape[1] // num_groups
    others = math.prod(shape[d] for d in (2, 3) if d not in region.axes)
    count = space.area(region, sorted(region.axes), 4).to(input.dtype) * per_group * others

    def average(values: Tensor) -> Tensor:
        channels = space.filled(values, 0.0).sum((2, 3), keepdim=True)
        groups = channels.reshape(-1, num_groups, per_group, 1).sum(2, keepdim=True) / count
        return groups.expand(-1, -1, per_group, -1).reshape(-1, shape[1], 1, 1)

    centred = input - average(input)
    space.attach(centred, Region(dict(region.axes), region.batch, own=True))
    squares = centred * centred
    space.attach(squares, Region(dict(region.axes), region.batch, own=True))
    result = centred * torch.rsqrt(average(squares) + eps)
    for each, combine in ((weight, torch.mul), (bias, torch.add)):
        if each is not None:
            result = combine(result, each.reshape(1, -1, 1, 1))
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))


@handles("instance_norm")
def instance_norm(
    space: Space,
    input: Tensor,
    running_mean: Optional[Tensor] = None,
    running_var: Optional[Tensor] = None,
    weight: Optional[Tensor] = None,
    bias: Optional[Tensor] = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return batch_norm(space, input, running_mean, running_var, weight, bias, False, momentum, eps)
    return group_norm(space, input, shape_of(input)[1], weight, bias, eps)


@handles("layer_norm")
def layer_norm(
    space: Space,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Optional[Tensor] = None,
    bias: Optional[Tensor] = None,
    eps: float = 1e-5,
) -> Tensor:
    region = tracked(input)
    alone(weight, bias)
    _not_over_sides(region, input.dim(), normalized_shape)
    result = F.layer_norm(input, normalized_shape, weight, bias, eps)
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))


@handles("rms_norm")
def rms_norm(
    space: Space,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Optional[Tensor] = None,
    eps: Optional[float] = None,
) -> Tensor:
    region = tracked(input)
    alone(weight)
    _not_over_sides(region, input.dim(), normalized_shape)
    result = F.rms_norm(input, normalized_shape, weight, eps)
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))


def _not_over_sides(region: Region, ndim: int, normalized_shape: Sequence[int]) -> None:
    if any(dim >= ndim - len(normalized_shape) for dim in (region.batch, *region.axes)):
        raise NotExact("over a side of the image")
