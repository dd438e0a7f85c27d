"""Operations that take a part of a tensor: slices, rows and columns."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import torch
from torch import Tensor

from anyshape.building.exact import reads
from anyshape.building.exact.axis import axis_of, constant
from anyshape.building.exact.mode import cut_by_size, handles
from anyshape.building.exact.moved import moved, tracked
from anyshape.building.exact.region import Axis, NotExact, Region, Space, plain, region_of, shape_of
from anyshape.building.exact.side import Known, frozen


@handles("unbind")
def unbind(space: Space, input: Tensor, dim: int = 0) -> Tuple[Tensor, ...]:
    return tuple(select(space, input, dim, index) for index in range(shape_of(input)[dim]))


@handles("select")
def select(space: Space, input: Tensor, dim: int, index: int) -> Tensor:
    items: List[Any] = [slice(None)] * input.dim()
    items[dim] = index
    return getitem(space, input, tuple(items))


@handles("narrow")
def narrow(space: Space, input: Tensor, dim: int, start: int, length: int) -> Tensor:
    items: List[Any] = [slice(None)] * input.dim()
    items[dim] = slice(start, start + length)
    return getitem(space, input, tuple(items))


@handles("getitem")
def getitem(space: Space, input: Tensor, index: Any) -> Tensor:
    """Numbers, slices, None and `...`; on the image's sides, slices whose start counts from the front."""
    region = cut(space, input, index)
    items = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(item, (Tensor, list, bool)) and not _number(item) for item in items):
        return _picked(space, input, region, items)
    used = sum(item is not None and item is not Ellipsis for item in items)
    own = _own_places(space, items, region, used, input.dim())
    if own is not None:
        dim, places, left = own
        axes = {each: axis for each, axis in region.axes.items() if each != dim}
        outcome = Region(axes, region.batch, own=True, mask=region.mask)
        input = space.attach(space.take(input, region, dim, places), outcome)
        return getitem(space, input, left) if region_of(input) is not None else input[left]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (input.dim() - used)
    else:
        items += [slice(None)] * (input.dim() - used)
    origin: Dict[int, int] = {}
    axes = dict(region.axes)
    dim = 0
    place = 0
    for item in items:
        if item is None:
            place += 1
            continue
        if isinstance(item, slice):
            if dim in axes:
                axes[dim] = _sliced(space, axes[dim], item)
            elif dim == region.batch and item != slice(None):
                raise NotExact("rows of the batch are separated or joined")
            elif isinstance(item.stop, Known):  # of as many positions for every picture, those that it has
                axes[dim] = _sliced(space, _of_all(space, item.stop, shape_of(input)[dim]), item)
            else:
                frozen((item.start, item.stop, item.step))  # channels: those that this bucket's sizes say
            origin[place] = dim
            place += 1
        elif dim in axes:
            _taken(space, axes.pop(dim), item)
        else:
            frozen(item)
        dim += 1
    kept = Region(axes, region.batch, mask=region.mask)
    kept.view_of(region)
    kept.fill = region.fill
    return moved(space, kept, input[index], origin)


def cut(space: Space, input: Tensor, index: Any) -> Region:
    """The region of a tensor that is indexed; of one that has as many positions for every picture, as a map
    has that was padded to whole windows, where it is cut to the picture's size again."""
    region = region_of(input)
    if region is None and cut_by_size(index) and shape_of(input)[0] == shape_of(space.batch)[0]:
        return Region({})
    return tracked(input)


def _of_all(space: Space, size: Known, count: int) -> Axis:
    return constant(size.side, count, space.sides[size.side])


def _picked(space: Space, input: Tensor, region: Region, items: Sequence[Any]) -> Tensor:
    """Channels in an order that one list of numbers says, as index_select takes them."""
    chosen = [dim for dim, item in enumerate(items) if not isinstance(item, slice)] if _simple(items) else []
    whole = all(item == slice(None) for item in items if isinstance(item, slice))
    apart = whole and len(chosen) == 1 and chosen[0] not in (region.batch, *region.axes)
    if not apart or not _is_list(items[chosen[0]]):
        raise NotExact("indexed by a tensor")
    outcome = Region(dict(region.axes), region.batch, own=True, mask=region.mask)
    return space.attach(input[tuple(items)], outcome)


def _simple(items: Sequence[Any]) -> bool:
    return all(isinstance(item, (slice, list, Tensor)) for item in items) and not any(
        reads.from_picture(item) for item in items if isinstance(item, Tensor)
    )


def _is_list(item: Any) -> bool:
    """Whether an index is a plain list of numbers, so that no dimension comes or goes."""
    index = item if isinstance(item, Tensor) else torch.tensor(item)
    return index.dim() == 1 and index.dtype not in (torch.bool, torch.uint8)


def _own_places(space: Space, items: Sequence[Any], region: Region, used: int, ndim: int) -> Any:
    """Where an index takes rows or columns that are elsewhere for each picture, counted from its end or
    worked out from its size: the dimension, [B, n] their places, and the index of what is taken then."""
    dim = 0
    for place, item in enumerate(items):
        if item is None:
            continue
        if item is Ellipsis:
            dim += ndim - used
            continue
        axis = region.axes.get(dim)
        found = _places(space, axis, item) if isinstance(axis, Axis) else None
        if found is not None:
            left = slice(None, None, item.step) if isinstance(item, slice) else 0
            return dim, found, (*items[:place], left, *items[place + 1 :])
        dim += 1
    return None


def _places(space: Space, axis: Axis, item: Any) -> Any:
    """[B, n] where they are, of the pictures that have as many; None for places that all have in common."""
    if isinstance(item, Known) and item.side == axis.side and item.table[-1] >= 0:
        own = axis_of(item.side, item.table)
        space.leave(axis.side, [0 <= at < size for at, size in zip(own.table, axis.table)])
        return space.extents(own)[:, None].clamp(max=axis.length - 1)
    start = item.start if isinstance(item, slice) and item.stop is None else item
    if type(start) is not int or start >= 0:
        return None
    space.leave(axis.side, [size + start >= 0 for size in axis.table])
    count = -start if isinstance(item, slice) else 1
    return (space.extents(axis)[:, None] + start + space.positions(count)[None]).clamp(min=0)


def _taken(space: Space, axis: Any, item: Any) -> None:
    """One row or column of the image, that all pictures have which are left."""
    place = plain(item)
    if not isinstance(axis, Axis) or place < 0:
        raise NotExact("one row or column of the image is taken")
    space.leave(axis.side, [size > place for size in axis.table])


def _number(item: Any) -> bool:
    return isinstance(item, Tensor) and item.dim() == 0 and not item.dtype.is_floating_point


def _sliced(space: Space, axis: Any, item: slice) -> Any:
    if item == slice(None):
        return axis
    start = 0 if item.start is None else plain(item.start)
    step = 1 if item.step is None else plain(item.step)
    other = None if item.stop is None else space.followed(axis.side, item.stop)
    stop = other.table[-1] if other is not None else (None if item.stop is None else plain(item.stop))
    if start < 0:
        raise NotExact("a slice starts from the end of the image")
    if stop is not None and stop <= 0 and other is not None:
        raise NotExact("a slice ends where the size of the picture says, and nothing is left")

    def extent(size: int, limit: int) -> int:
        end = size if stop is None else (size + stop if stop < 0 else min(size, limit))
        return max(0, -(-(end - start) // step)) if size and end > start else 0

    limits = other.table if other is not None else [stop or 0] * len(axis.table)
    return Axis(axis.side, tuple(extent(n, limit) for n, limit in zip(axis.table, limits)))
