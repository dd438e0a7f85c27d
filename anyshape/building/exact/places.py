"""Where the positions of a picture are in its bucket, by the numbers that they have in the picture alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anyshape.building.exact.axis import Axis, Flat
from anyshape.building.exact.region import Region, Space, shape_of


def gathered(space: Space, axis: Any) -> Tensor:
    """[B, n] int64: where the valid positions of an axis are, one after the other."""
    at = space.positions(axis.length)[None]
    if isinstance(axis, Axis):
        return at.expand(space.batch.shape[0], -1)
    if isinstance(axis, Flat):
        return _of_map(space, axis, at)
    result, first, before = at, 0, torch.zeros_like(space.batch[:, :1])
    for each in axis.maps:
        result = torch.where(at >= before, _of_map(space, each, at - before) + first, result)
        first, before = first + each.length, before + space.counts(each)[:, None]
    return result


def _of_map(space: Space, axis: Flat, at: Tensor) -> Tensor:
    """Where those of the numbers `at` are in one flattened map."""
    rows, columns = space.extents(axis.rows)[:, None], space.extents(axis.columns)[:, None].clamp(min=1)
    at = at - axis.before
    line = torch.div(at, columns, rounding_mode="floor")
    inner = line * axis.columns.length + at - line * columns
    behind = at - rows * columns + axis.rows.length * axis.columns.length
    found = torch.where(at < 0, at, torch.where(line < rows, inner, behind)) + axis.before
    return found.clamp(0, axis.length - 1)


def numbered(space: Space, region: Region, dim: int, places: Tensor, of: Tensor) -> Tensor:
    """Positions of a tensor along `dim`, counted in its bucket, by the numbers that they have in the picture
    alone."""
    numbers = space.per_row(space.valid(region.axes[dim]).cumsum(1) - 1, region, dim, of.dim())
    shape = shape_of(of)
    shape[region.batch] = -1
    return torch.gather(numbers.expand(shape), dim, places)
