"""Norms and variances over the valid positions alone."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from anyshape.building.exact.mode import HANDLERS, handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, plain, shape_of


def dimensions(region: Region, ndim: int, dim: Any) -> List[int]:
    """The dimensions that are reduced. Raises NotExact if the batch is one of them."""
    asked = range(ndim) if dim is None else dim if isinstance(dim, (list, tuple)) else [dim]
    dims = [plain(each) % ndim for each in asked]
    if region.batch in dims:
        raise NotExact("it mixes the rows of the batch")
    return dims


def reduced(
    space: Space, result: Tensor, region: Region, dims: List[int], ndim: int, keepdim: bool
) -> Tensor:
    kept = [d for d in range(ndim) if keepdim or d not in dims]
    axes: Dict[int, Any] = {kept.index(d): axis for d, axis in region.axes.items() if d not in dims}
    return space.attach(result, Region(axes, kept.index(region.batch), own=True))


@handles("linalg_vector_norm")
def vector_norm(
    space: Space, x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    region = tracked(x)
    dims = dimensions(region, x.dim(), dim)
    if set(dims) & set(region.axes):
        if ord < 0:
            raise NotExact(f"ord {ord}")
        x = space.filled(x, 0.0)  # which adds nothing to a sum of powers, and is no largest magnitude
    result = torch.linalg.vector_norm(x, ord, dims, keepdim, dtype=dtype)
    return reduced(space, result, region, dims, x.dim(), keepdim)


@handles("norm")
def norm(
    space: Space, input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    if p not in ("fro", None) and not isinstance(p, (int, float)):
        raise NotExact(f"p {p}")
    return vector_norm(space, input, p if isinstance(p, (int, float)) else 2, dim, keepdim, dtype)


def _spread(root: bool) -> Any:
    def spread(
        space: Space,
        input: Tensor,
        dim: Any = None,
        unbiased: Optional[bool] = None,
        keepdim: bool = False,
        *,
        correction: Optional[float] = None,
    ) -> Tensor:
        if isinstance(dim, bool):  # var(unbiased)
            dim, unbiased = None, dim
        less = (1 if unbiased is not False else 0) if correction is None else correction
        region = tracked(input)
        ndim = input.dim()
        dims = dimensions(region, ndim, dim)
        own = [d for d in dims if d in region.axes]
        if not own:
            result = (torch.std if root else torch.var)(input, dims, correction=less, keepdim=keepdim)
            return reduced(space, result, region, dims, ndim, keepdim)
        others = math.prod(shape_of(input)[d] for d in dims if d not in own)
        count = (space.area(region, own, ndim) * others).to(input.dtype)
        mean = space.filled(input, 0.0).sum(dims, keepdim=True) / count
        centred = space.attach(input - mean, Region(dict(region.axes), region.batch, own=True))
        squares = space.filled(centred, 0.0).square().sum(dims, keepdim=True)
        result = squares / (count - less).clamp(min=0)
        result = result.sqrt() if root else result
        if not keepdim:
            result = result.reshape([n for d, n in enumerate(result.shape) if d not in dims])
        return reduced(space, result, region, dims, ndim, keepdim)

    return spread


handles("std")(_spread(True))
handles("var")(_spread(False))


def _with_mean(root: bool) -> Any:
    spread = _spread(root)

    def both(
        space: Space, input: Tensor, dim: Any = None, *rest: Any, keepdim: bool = False, **options: Any
    ) -> Tuple[Tensor, Tensor]:
        keepdim = rest[1] if len(rest) > 1 else keepdim
        first = spread(space, input, dim, *rest[:1], keepdim=keepdim, **options)
        mean: Tensor = HANDLERS["mean"](space, input, dim, keepdim)
        return first, mean

    return both


handles("std_mean")(_with_mean(True))
handles("var_mean")(_with_mean(False))
