"""Reshaping: which dimension of the result each tracked one is, flattened ones included.

What a dimension is made of is decided by what lies behind it in memory, for that is what reshaping keeps.
The sizes that a model asks for must be those for every picture, and not just happen to be so in this bucket.
"""

from __future__ import annotations

from math import prod
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor

from anyshape.building.exact.axis import Rows, constant, inner_of, lengths, rows
from anyshape.building.exact.both import Area, Followed, Mixed, alike
from anyshape.building.exact.levels import joined
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import (
    FLATTENED,
    Axis,
    Flat,
    Groups,
    Levels,
    NotExact,
    Region,
    Space,
    plain,
    shape_of,
)
from anyshape.building.exact.side import Known, frozen

Sides = Tuple[int, int]  # the height and width of this bucket


def reshaped(method: str) -> Callable[..., Tensor]:
    def reshape(space: Space, input: Tensor, *sizes: Any, **options: Any) -> Tensor:
        region = tracked(input)
        result: Tensor = getattr(torch.Tensor, method)(input, *sizes, **options)
        before, after = shape_of(input), shape_of(result)
        axes, batch = _found(space.sides, region, before, after)
        if not space.flattens and any(isinstance(axis, Flat) for axis in (*axes.values(), *inner_of(batch))):
            raise NotExact(FLATTENED)
        if method in ("view", "reshape", "unflatten"):
            given = _given(method, sizes, options, len(before), len(after))
            if isinstance(batch, Rows) or isinstance(given.get(batch), Mixed):
                given.pop(int(batch), None)  # as many as the others leave: shape[0] // (rows * columns)
            _check(space, axes, given)
        if method == "squeeze":
            _check_squeezed(space, region, sizes, len(before))
        outcome = Region(axes, batch, mask=region.mask)
        outcome.view_of(region)
        outcome.fill = region.fill
        return space.attach(result, outcome)

    return reshape


for _method in ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"):
    handles(_method)(reshaped(_method))


def _found(sides: Sides, region: Region, before: List[int], after: List[int]) -> Tuple[Dict[int, Any], int]:
    """The result's axes and its batch dimension: what had been joined with it is taken apart, and what stands
    right behind it now and not in the result is joined with it."""
    ahead = int(region.batch)
    if ahead and before[:ahead] == after[:ahead] and min(region.axes, default=ahead) >= ahead:
        own = {dim - ahead: axis for dim, axis in region.axes.items()}
        behind_it = Region(own, rows(0, inner_of(region.batch)))
        axes, batch = _found(sides, behind_it, before[ahead:], after[ahead:])
        return {dim + ahead: axis for dim, axis in axes.items()}, batch + ahead
    inner = inner_of(region.batch)
    behind = prod(after[1:])
    if region.batch != 0 or not after or (not inner and prod(before[1:]) < behind):
        return _placed(sides, region, before, after)
    axes = {dim + len(inner): axis for dim, axis in region.axes.items()}
    axes.update({dim: part for dim, part in enumerate(inner, 1) if not isinstance(part, int)})
    if isinstance(region.batch, Rows):
        before = [before[0] // region.batch.each, *lengths(inner), *before[1:]]
    for dim in range(len(before) - 1, 0, -1):  # channels of which a part are heads, or a side of patches
        part, left = divmod(behind, prod(before[dim + 1 :]))
        axis = axes.get(dim)
        if left or not 1 < part < before[dim] or before[dim] % part:
            continue
        if isinstance(axis, Flat) and (axis.before or axis.after or axis.columns.length != part):
            continue
        before = [*before[:dim], before[dim] // part, part, *before[dim + 1 :]]
        axes = {each + (each > dim): other for each, other in axes.items()}
        if isinstance(axis, Flat):
            axes[dim], axes[dim + 1] = axis.rows, axis.columns
        elif axis is not None:
            axes[dim] = _patches(axis, part)
        break
    count = next((n for n in range(len(before)) if prod(before[n + 1 :]) == behind), None)
    if count is None:
        raise NotExact("rows of the batch are separated or joined")
    joined = [axes.get(dim, before[dim]) for dim in range(1, count + 1)]
    rest = {dim - count: axis for dim, axis in axes.items() if dim > count}
    found, _ = _placed(sides, Region(rest), [before[0], *before[count + 1 :]], after)
    return found, rows(0, joined)


def _placed(sides: Sides, region: Region, before: List[int], after: List[int]) -> Tuple[Dict[int, Any], int]:
    """The result's axes and its batch dimension, where a batch's rows stay what they are."""
    if isinstance(region.batch, Rows):
        raise NotExact("rows of the batch are separated or joined")
    axes: Dict[int, Any] = {}
    batch = 0
    place = 0  # the first dimension of the result that is not taken
    waiting = sorted([region.batch, *region.axes])
    while waiting:
        dim = waiting.pop(0)
        axis = region.axes.get(dim)
        behind = prod(before[dim + 1 :])
        for at in range(place, len(after)):
            same = dim == region.batch == 0 == at or after[at] == before[dim]
            if same and prod(after[at + 1 :]) == behind:
                break
        else:
            if axis is None:
                raise NotExact("rows of the batch are separated or joined")
            place, taken = _made_of(sides, region, dim, place, before, after, axes)
            waiting = [each for each in waiting if each not in taken]
            continue
        if axis is None:
            batch = at
        else:
            axes[at] = axis
        place = at + 1
    return axes, batch


def _made_of(
    sides: Sides,
    region: Region,
    dim: int,
    place: int,
    before: List[int],
    after: List[int],
    axes: Dict[int, Any],
) -> Tuple[int, List[int]]:
    """Where a dimension goes that is split or joined, put into `axes`; the next dimension of the result, and
    the tracked ones that it was joined with."""
    axis, behind = region.axes[dim], prod(before[dim + 1 :])
    for at in range(place, len(after)):
        rest = [prod(after[at + count :]) for count in (1, 2, 3)]
        if isinstance(axis, Levels):
            first, count = axis.maps[0], len(axis.maps)
            if axis.maps.count(first) != count or first.before or first.after or count % max(1, after[at]):
                continue
            each = count // after[at]  # maps in each part
            if after[at + 1 : at + 2] == [first.length * each] and rest[1] == behind:
                axes[at + 1] = joined(axis.maps[:each])
                return at + 2, []
            if after[at : at + 3] == [count, *(part.length for part in first.parts)] and rest[2] == behind:
                axes[at + 1], axes[at + 2] = first.parts
                return at + 3, []
            continue
        if isinstance(axis, Flat):
            parts = [axis.rows.length, axis.columns.length]
            if not axis.before and not axis.after and after[at : at + 2] == parts and rest[1] == behind:
                axes[at], axes[at + 1] = axis.rows, axis.columns
                return at + 2, []
            times = _beside(region, dim, before, after[at], axis.length)
            if times and rest[0] == behind and not axis.before and not axis.after:
                axes[at] = Levels((axis,) * times)
                return at + 1, []
            continue
        if len(after) > at + 1 and after[at] * after[at + 1] == axis.length and rest[1] == behind:
            axes[at] = _patches(axis, after[at + 1])
            return at + 2, []
        lines = before[dim - 1] if dim and dim - 1 != region.batch and dim - 1 not in region.axes else 1
        if lines > 1 and after[at] == lines * before[dim] and rest[0] == behind:
            axes[at] = Flat(constant(1 - axis.side, lines, sides[1 - axis.side]), axis)  # as many for all
            return at + 1, []
        if dim + 1 == len(before):
            continue
        pair = region.axes.get(dim + 1)
        both, behind_both = before[dim] * before[dim + 1], prod(before[dim + 2 :])
        times = _beside(region, dim, before, after[at], both)
        if times and rest[0] == behind_both and isinstance(pair, Axis) and axis.side != pair.side:
            axes[at] = Levels((Flat(axis, pair),) * times)  # a map for each head, one after the other
            return at + 1, [dim + 1]
        if after[at] != both or rest[0] != behind_both or dim + 1 == region.batch:
            continue
        if pair is None:  # patches side by side again
            axes[at] = Axis(axis.side, tuple(size * before[dim + 1] for size in axis.table))
            return at + 1, []
        if isinstance(pair, Axis) and axis.side != pair.side:
            axes[at] = Flat(axis, pair)
            return at + 1, [dim + 1]
    raise NotExact(FLATTENED)


def _beside(region: Region, dim: int, before: List[int], length: int, each: int) -> int:
    """How many maps are joined to a length, 0 where it is not those right before `dim`."""
    times, left = divmod(length, each)
    count = 1
    for place in range(dim - 1, -1, -1):
        if place == region.batch or place in region.axes or count >= times:
            break
        count *= before[place]
    return times if not left and count == times > 1 else 0


def _patches(axis: Axis, step: int) -> Axis:
    """How many patches there are that are a step high."""
    return Axis(axis.side, tuple(0 if size % step else size // step for size in axis.table))


def _given(method: str, sizes: Any, options: Any, before: int, after: int) -> Dict[int, Any]:
    """The sizes that the model asks for, by dimension of the result."""
    if method == "unflatten":
        dim, parts = (*sizes, *options.values())[:2]
        return {dim % before + place: part for place, part in enumerate(parts)}
    asked = sizes or tuple(options.values())
    if len(asked) == 1 and isinstance(asked[0], (list, tuple)):
        asked = tuple(asked[0])
    return dict(enumerate(asked)) if len(asked) == after else {}


def _check(space: Space, axes: Dict[int, Any], given: Dict[int, Any]) -> None:
    """Leave the pictures for which the sizes asked for are those of the tracked dimensions."""
    for dim, size in given.items():
        if dim not in axes and isinstance(size, Followed):
            size.freeze()  # as high as a part of the picture, which is not followed
    for dim, axis in axes.items():
        size = given.get(dim, -1)
        if isinstance(size, Area) and isinstance(axis, Flat):
            if size.extra != axis.before + axis.after:
                size.freeze()
            tables = dict(zip((0, 1), size.sides))
            for part in axis.parts:
                space.keep(part.side, part.table, tables[part.side])
        elif isinstance(axis, Flat) and isinstance(size, Known):  # its other side is the same for all
            mine, same = axis.parts if axis.rows.side == size.side else axis.parts[::-1]
            more = axis.before + axis.after
            space.keep(same.side, same.table, [same.length] * len(same.table))
            space.keep(mine.side, [each * same.length + more for each in mine.table], size.table)
        elif isinstance(axis, (Flat, Groups, Levels)):
            own = space.side(axis)
            if not alike(size, own) and (isinstance(size, Followed) or plain(size) != -1):
                frozen(own)
        elif isinstance(size, Area):  # the other side is as long for every picture
            other, number = size.sides[1 - axis.side], size.sides[1 - axis.side][-1]
            space.leave(1 - axis.side, [each == number for each in other])
            space.keep(axis.side, axis.table, [each * number + size.extra for each in size.sides[axis.side]])
        elif isinstance(size, Known) and size.side != axis.side:
            raise NotExact("heights and widths change places")
        elif isinstance(size, Known) or plain(size) != -1:
            known = space.followed(axis.side, size)
            space.keep(axis.side, axis.table, known.table if known else [plain(size)] * len(axis.table))


def _check_squeezed(space: Space, region: Region, dims: Any, ndim: int) -> None:
    """A dimension that only smaller pictures would lose is lost for none."""
    asked = dims[0] if len(dims) == 1 and isinstance(dims[0], (list, tuple)) else dims
    chosen = {dim % ndim for dim in asked} or set(region.axes)
    for dim in chosen & set(region.axes):
        for axis in region.axes[dim].parts:
            gone = [size == 1 for size in axis.table]
            space.keep(axis.side, gone, [gone[-1]] * len(gone))
