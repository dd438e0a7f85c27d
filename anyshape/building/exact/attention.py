"""Attention: what lies outside the picture, or behind a recording, is no key that anything attends to."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact import statistics
from anyshape.building.exact.axis import Axis, Rows, inner_of, rows
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, region_of, shape_of


@handles("scaled_dot_product_attention")
def attention(
    space: Space,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Optional[Tensor] = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Optional[float] = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Queries, keys and values ``[.., positions, features]``; the batch is the first dimension."""
    ndim = query.dim()
    axes, batch = _operands((query, key, value))
    if dropout_p:
        raise NotExact("dropout: call model.eval()")
    keys = axes[1].get(ndim - 2)
    if keys != axes[2].get(ndim - 2):
        raise NotExact("the positions of keys and values differ")
    apart = [{dim: axis for dim, axis in each.items() if dim < ndim - 2} for each in axes]
    if apart.count(apart[0]) < 3:  # windows, say, each of which looks at itself
        raise NotExact("a side of the image is in front of the positions")
    outcome = Region(dict(axes[0]), batch, own=True)
    if keys is None:
        if attn_mask is not None and region_of(attn_mask) is not None:
            _fitting(space, attn_mask, axes[0].get(ndim - 2), None, batch, ndim)
    elif is_causal:
        if axes[0].get(ndim - 2) != keys:
            raise NotExact("the positions of queries and keys differ")
        key, value = space.filled(key, 0.0), space.filled(value, 0.0)
        if not isinstance(keys, Axis):  # rows of a map end before the next one begins
            inside = space.inside(Region({ndim - 2: keys}, batch), ndim).transpose(-1, -2)
            at = space.positions(keys.length)
            attn_mask, is_causal = inside & (at <= at[:, None]), False
    else:
        inside = space.inside(Region({ndim - 2: keys}, batch), ndim).transpose(-1, -2)
        if attn_mask is not None and region_of(attn_mask) is not None:
            _fitting(space, attn_mask, axes[0].get(ndim - 2), keys, batch, ndim)
            attn_mask = _with(inside, attn_mask)
        else:
            attn_mask = _masked(inside, attn_mask, query.dtype)
        key, value = space.filled(key, 0.0), space.filled(value, 0.0)  # 0 × NaN is no 0
    options: Dict[str, Any] = {"enable_gqa": True} if enable_gqa else {}
    result = F.scaled_dot_product_attention(
        query, key, value, attn_mask, 0.0, is_causal, scale=scale, **options
    )
    return space.attach(result, outcome)


def _operands(operands: Tuple[Tensor, ...]) -> Tuple[List[Dict[int, Any]], int]:
    """The axes of each, and the dimension of the batch. Raises NotExact where features are a side."""
    axes, batches = [], set()
    for operand in operands:
        region = region_of(operand)
        axes.append({} if region is None else dict(region.axes))
        if operand.dim() - 1 in axes[-1]:
            raise NotExact("a side of the image is its features")
        if region is not None:
            batches.add((int(region.batch), inner_of(region.batch)))
    if len(batches) != 1 or next(iter(batches))[0] != 0:
        raise NotExact("it mixes the rows of the batch")
    return axes, rows(*batches.pop())


def _masked(inside: Tensor, mask: Optional[Tensor], dtype: torch.dtype) -> Tensor:
    """The model's own mask, and nothing outside; what it adds for a position must not come from how many."""
    if mask is None:
        return inside
    if region_of(mask) is not None or shape_of(mask)[-1] > 1:
        raise NotExact("its mask or bias has a number for each position, whose valid ones are not known")
    return _with(inside, mask)


def _with(inside: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return mask & inside
    return torch.where(inside, mask, torch.full((), float("-inf"), dtype=mask.dtype))


def _fitting(space: Space, mask: Tensor, queries: Any, keys: Any, batch: int, ndim: int) -> None:
    """A mask or bias with a number for each query and key, whose valid ones are known. Raises NotExact where
    they are others than the queries and keys."""
    region = tracked(mask)
    same = mask.dim() == ndim and (int(region.batch), inner_of(region.batch)) == (int(batch), inner_of(batch))
    if not same or not set(region.axes) <= {ndim - 2, ndim - 1}:
        raise NotExact("its mask or bias is not [batch, heads, queries, keys]")
    for dim, known in ((ndim - 2, queries), (ndim - 1, keys)):
        axis = region.axes.get(dim)
        if (axis is None) != (known is None) and shape_of(mask)[dim] > 1:
            raise NotExact("the positions of its mask or bias are not those of queries and keys")
        if axis is not None and known is not None and space.merge([axis, known]) != known:
            raise NotExact("the positions of its mask or bias are not those of queries and keys")


@handles("multi_head_attention_forward")
def multi_head_attention(
    space: Space, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
) -> Tuple[Tensor, Optional[Tensor]]:
    """torch's own module: ``[positions, batch, features]``, with a mask of its own for keys."""
    regions = [region_of(each) for each in (query, key, value)]
    for region, operand in zip(regions, (query, key, value)):
        if operand.dim() != 3 or (region is not None and (region.batch != 1 or set(region.axes) != {0})):
            raise NotExact("only [positions, batch, features] is known")
        if region is not None and isinstance(region.batch, Rows):
            raise NotExact("windows of the picture, or heads, are rows of the batch")
    mask, given = options.get("attn_mask"), options.get("key_padding_mask")
    if not 2 <= len(rest) <= 13 or options.get("is_causal"):
        raise NotExact("its mask is not known")
    if mask is not None:
        _of_heads(space, mask, rest[1], *(region and region.axes.get(0) for region in regions[:2]))
    if regions[1] is not None or regions[2] is not None:
        if regions[1] is None or regions[2] is None or regions[1].axes != regions[2].axes:
            raise NotExact("the positions of keys and values differ")
        outside = ~space.inside(Region({1: regions[1].axes[0]}, 0), 2)
        if given is not None:
            if given.dtype != torch.bool or region_of(given) is not None:
                raise NotExact("its mask is not known")
            outside = outside | given
        if mask is not None and mask.is_floating_point():  # they must be of one kind
            outside = torch.zeros_like(outside, dtype=mask.dtype).masked_fill(outside, float("-inf"))
        options["key_padding_mask"] = outside
        key, value = space.filled(key, 0.0), space.filled(value, 0.0)
    result, weights = F.multi_head_attention_forward(query, key, value, *rest, **options)
    if regions[0] is not None:
        space.attach(result, Region(dict(regions[0].axes), 1, own=True))
    if weights is not None and weights.dim() == 3:
        known = ((1, regions[0]), (2, regions[1]))
        sides = {dim: region.axes[0] for dim, region in known if region is not None}
        space.attach(weights, Region(sides, 0, own=True))
    return result, weights


def _of_heads(space: Space, mask: Tensor, heads: int, queries: Any, keys: Any) -> None:
    """A mask for each head of each picture, ``[batch × heads, queries, keys]``; raises NotExact else."""
    region = region_of(mask)
    if region is None or mask.dim() != 3 or int(region.batch) != 0 or inner_of(region.batch) != (heads,):
        raise NotExact("its mask is not known")
    _fitting(space, mask, queries, keys, region.batch, 3)


_BEFORE = statistics  # it is to be registered first: softmax is put right here


def _softmax(name: str) -> Any:
    function = getattr(torch, name)

    def softmax(space: Space, input: Tensor, dim: Any = None, *rest: Any, **options: Any) -> Tensor:
        region = tracked(input)
        if not isinstance(dim, int):
            raise NotExact("its dim must be given as one number")
        dim %= input.dim()
        if dim == region.batch:
            raise NotExact("it mixes the rows of the batch")
        if dim in region.axes and region.fill != float("-inf"):
            # Along this side alone: a row that is outside by another would be nothing but −∞, and give NaN.
            inside = space.inside(Region({dim: region.axes[dim]}, region.batch), input.dim())
            input = torch.where(inside, input, torch.full((), float("-inf"), dtype=input.dtype))
        for option in ("_stacklevel", "dtype"):
            if options.get(option) is None or option == "_stacklevel":
                options.pop(option, None)
        result = function(input, dim, *(each for each in rest if isinstance(each, torch.dtype)), **options)
        return space.attach(result, Region(dict(region.axes), region.batch, own=True))

    return softmax


for _name in ("softmax", "log_softmax"):
    handles(_name)(_softmax(_name))
