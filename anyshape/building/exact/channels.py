"""Operations within the channels: they move or join them, and leave every position where it is."""

from __future__ import annotations

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact.axis import Axis, Flat, axis_of
from anyshape.building.exact.both import Area, Followed, bare
from anyshape.building.exact.layout import permute
from anyshape.building.exact.mode import handles, together
from anyshape.building.exact.moved import of_rows, tracked
from anyshape.building.exact.region import NotExact, Region, Space, forget, plain, region_of, shape_of
from anyshape.building.exact.side import Known, frozen
from anyshape.building.exact.sliced import getitem
from anyshape.building.exact.windows import alone


def _apart(region: Region, ndim: int, *dims: Any) -> None:
    """Raises NotExact unless the dimensions are neither the batch nor a side of the picture."""
    for dim in dims:
        if plain(dim) % ndim in (region.batch, *region.axes):
            raise NotExact("over a side of the image or the batch")


def _same(space: Space, result: Tensor, region: Region) -> Tensor:
    return space.attach(result, Region(dict(region.axes), region.batch, own=True, mask=region.mask))


@handles("channel_shuffle")
def channel_shuffle(space: Space, input: Tensor, groups: int) -> Tensor:
    region = tracked(input)
    _apart(region, input.dim(), 1)
    return _same(space, F.channel_shuffle(input, groups), region)


@handles("local_response_norm")
def local_response_norm(
    space: Space, input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    region = tracked(input)
    _apart(region, input.dim(), 1)
    return _same(space, F.local_response_norm(input, size, alpha, beta, k), region)


@handles("roll")
def roll(space: Space, input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    region, result = tracked(input), input
    if dims is None:
        raise NotExact("the picture is rolled as one sequence")
    several = isinstance(dims, (list, tuple))
    for dim, shift in zip(dims, shifts) if several else [(dims, shifts)]:
        axis = _side(region, dim % input.dim())
        if axis is None:
            result = torch.roll(result, shift, dim)
            continue
        at, size = space.positions(axis.length)[None], space.extents(axis)[:, None].clamp(min=1)
        result = space.take(result, region, dim % input.dim(), torch.remainder(at - plain(shift), size))
    return _same(space, result, region)


@handles("flip")
def flip(space: Space, input: Tensor, *dims: Any) -> Tensor:
    region, result = tracked(input), input
    for dim in dims[0] if len(dims) == 1 and isinstance(dims[0], (list, tuple)) else dims:
        axis = _side(region, dim % input.dim())
        if axis is None:
            result = torch.flip(result, (dim,))
            continue
        at, size = space.positions(axis.length)[None], space.extents(axis)[:, None]
        result = space.take(result, region, dim % input.dim(), (size - 1 - at).clamp(min=0))
    return _same(space, result, region)


def _side(region: Region, dim: int) -> Any:
    """The axis of a side, None for a dimension that no picture is padded along. Raises NotExact for the
    batch, and for a flattened picture."""
    axis = region.axes.get(dim)
    if dim == region.batch or not isinstance(axis, (Axis, type(None))):
        raise NotExact("over the batch, or a flattened picture")
    return axis


@handles("index_select")
def index_select(space: Space, input: Tensor, dim: int, index: Tensor) -> Tensor:
    region = tracked(input)
    alone(index)
    _apart(region, input.dim(), dim)
    return _same(space, torch.index_select(input, dim, index), region)


@handles("repeat_interleave")
def repeat_interleave(
    space: Space, input: Tensor, repeats: Any, dim: Optional[int] = None, output_size: Optional[int] = None
) -> Tensor:
    region = tracked(input)
    if dim is None:
        raise NotExact("the picture is repeated as one sequence")
    axes = dict(region.axes)
    axis = _side(region, dim % input.dim())
    if axis is not None:
        if isinstance(repeats, Tensor):
            raise NotExact("over a side of the image, by a tensor")
        table = tuple(size * plain(repeats) for size in axis.table)
        axes[dim % input.dim()] = Axis(axis.side, table)
    result = torch.repeat_interleave(input, repeats, dim, output_size=output_size)
    return space.attach(result, Region(axes, region.batch, own=True, mask=region.mask))


@handles("expand")
def expand(space: Space, input: Tensor, *sizes: Any) -> Tensor:
    """What has one position of a side may be as wide as the picture then, and is as valid."""
    region = region_of(input) or of_rows(space, input)
    asked = list(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else sizes)
    more, shape = len(asked) - input.dim(), shape_of(input)
    axes = {dim + more: axis for dim, axis in region.axes.items()}
    for dim, number in enumerate(asked):
        if not isinstance(number, Followed):
            continue
        own, axis = axes.get(dim), _as_many(number)
        asked[dim] = bare(number)
        if own is None and axis is not None and (dim < more or shape[dim - more] == 1):
            axes[dim] = axis
        else:
            _same_size(space, own, number)
    outcome = Region(axes, region.batch + more, mask=region.mask)
    outcome.view_of(region)
    outcome.fill = region.fill
    return space.attach(input.expand(*asked), outcome)


@handles("repeat", "tile")
def repeat(space: Space, input: Tensor, *sizes: Any) -> Tensor:
    region = region_of(input) or of_rows(space, input)
    times = list(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else sizes)
    more = len(times) - input.dim()
    if more < 0:
        raise NotExact("fewer numbers than dimensions")
    for dim in (region.batch, *region.axes):
        if plain(times[dim + more]) != 1:
            raise NotExact("the image or the batch is repeated")
    axes = {dim + more: axis for dim, axis in region.axes.items()}
    for dim, number in enumerate(times):
        axis = _as_many(number) if isinstance(number, Followed) else None
        if axis is not None and dim - more not in region.axes and [1, *shape_of(input)][dim - more + 1] == 1:
            axes[dim], times[dim] = axis, bare(number)
    times = [plain(number) for number in times]
    return space.attach(input.repeat(*times), Region(axes, region.batch + more, own=True, mask=region.mask))


def _same_size(space: Space, own: Any, number: Any) -> None:
    """Leave the pictures that have as many positions of an axis as a size says."""
    asked = _as_many(number)
    if not isinstance(own, (Axis, Flat)) or type(asked) is not type(own) or own.length != asked.length:
        number.freeze()
        return
    tables = {part.side: part.table for part in asked.parts}
    for part in own.parts:
        space.keep(part.side, part.table, tables.get(part.side, ()))


def _as_many(number: Any) -> Any:
    """The axis of as many positions as a size of the picture says, None where it says no such thing."""
    if isinstance(number, Known):
        return axis_of(number.side, number.table)
    if isinstance(number, Area) and not number.extra:
        rows, columns = (axis_of(side, table) for side, table in enumerate(number.sides))
        return Flat(rows, columns)
    return None


@handles("movedim", "moveaxis")
def movedim(space: Space, input: Tensor, source: Any, destination: Any) -> Tensor:
    places = torch.empty([1] * input.dim()).dim()
    froms, tos = ([each] if isinstance(each, int) else list(each) for each in (source, destination))
    froms, tos = [each % places for each in froms], [each % places for each in tos]
    rest = [dim for dim in range(places) if dim not in froms]
    order = [froms[tos.index(dim)] if dim in tos else rest.pop(0) for dim in range(places)]
    return permute(space, input, *order)


@handles("expand_as")
def expand_as(space: Space, input: Tensor, other: Tensor) -> Tensor:
    """What is one wide is as wide as the picture now, and as valid."""
    region = together(space, other.dim(), [input, other])
    region.own = False
    return space.attach(input.expand_as(other), region)


@handles("setitem")
def setitem(space: Space, input: Tensor, index: Any, value: Any) -> None:
    """Channels are written; on the image's sides the whole of it."""
    target = region_of(input)
    if target is None:
        raise NotExact("the picture is written into a tensor whose valid positions are not known")
    part = getitem(space, input, index)
    chosen = region_of(part)
    if chosen is None or set(chosen.axes.values()) != set(target.axes.values()):
        raise NotExact("a part of the image is written")
    if isinstance(value, Tensor) and (region_of(value) is not None or max(shape_of(value), default=1) > 1):
        together(space, part.dim(), [part, value])
    input[index] = frozen(value)
    target.written()
    forget(part)
