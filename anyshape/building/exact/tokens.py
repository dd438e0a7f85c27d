"""Pictures as sequences: class tokens before the patches, and tables of positions."""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from anyshape.building.exact import layout, reshape, sliced
from anyshape.building.exact.axis import Axis, Flat, Levels
from anyshape.building.exact.both import Followed, alike, bare
from anyshape.building.exact.levels import is_sequence, joined, line, maps_of, parted, positions
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Rows, Space, plain, region_of, shape_of
from anyshape.building.exact.side import frozen


@handles("cat", "concat", "concatenate")
@functools.wraps(layout.cat)
def cat(space: Space, tensors: Sequence[Tensor], dim: int = 0, axis: Optional[int] = None) -> Tensor:
    """Along a flattened picture, what every picture has may stand before it and behind it."""
    at = dim if axis is None else axis
    regions = [region_of(tensor) for tensor in tensors]
    ndim = next(tensor.dim() for tensor, region in zip(tensors, regions) if region is not None)
    flats = [i for i, r in enumerate(regions) if r is not None and isinstance(r.axes.get(at % ndim), Flat)]
    if flats and sum(r is not None and at % ndim in r.axes for r in regions) > 1:
        return _levels(space, tensors, at % ndim)
    if len(flats) != 1:
        return layout.cat(space, tensors, at)
    at %= ndim
    region = regions[flats[0]]
    assert region is not None
    rows = tensors[flats[0]].shape[region.batch]
    whole: List[Tensor] = []
    for i, tensor in enumerate(tensors):
        if i in flats:
            whole.append(tensor)
            continue
        if regions[i] is not None or tensor.dim() != ndim or region.batch != 0:
            raise NotExact("images are joined side by side")
        whole.append(tensor.expand(rows, *[-1] * (ndim - 1)) if shape_of(tensor)[0] == 1 else tensor)
    counts = [shape_of(tensor)[at] for tensor in tensors]
    flat = region.axes[at]
    assert isinstance(flat, Flat)
    more = sum(counts[: flats[0]]), sum(counts[flats[0] + 1 :])
    axes = {**region.axes, at: Flat(flat.rows, flat.columns, flat.before + more[0], flat.after + more[1])}
    return space.attach(torch.cat(whole, at), Region(axes, region.batch, own=True))


def _levels(space: Space, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Maps of several resolutions, each of them flattened; those of one size for all pictures among them."""
    known = [region for region in map(region_of, tensors) if region is not None]
    if not all(is_sequence(region, dim) for region in known):
        raise NotExact("flattened pictures are joined")
    like: Any = next(region.axes[dim] for region in known if isinstance(region.axes[dim], Flat))
    maps: List[Flat] = []
    for tensor in tensors:
        region = region_of(tensor)
        axis: Any = positions(shape_of(tensor)[dim], like) if region is None else region.axes[dim]
        maps += maps_of(line(axis, space.sides) if isinstance(axis, Axis) else axis)
    mask = len(known) == len(tensors) and all(region.mask for region in known)
    outcome = Region({dim: joined(maps)}, own=True, mask=mask)
    return space.attach(torch.cat(list(tensors), dim), outcome)


@handles("getitem")
@functools.wraps(sliced.getitem)
def getitem(space: Space, input: Tensor, index: Any) -> Tensor:
    """Of a flattened picture: what stands before it, behind it, or all from there on."""
    region = sliced.cut(space, input, index)
    items = list(index) if isinstance(index, tuple) else [index]
    simple = all(isinstance(item, (int, slice)) for item in items)
    flats = [d for d, axis in region.axes.items() if isinstance(axis, Flat) and d < len(items)]
    if not simple or len(flats) != 1 or items[flats[0]] == slice(None):
        return sliced.getitem(space, input, index)
    dim = flats[0]
    others = [item for place, item in enumerate(items) if place != dim]
    if any(item != slice(None) for item in others):
        raise NotExact("cut along several dimensions")
    flat, item = region.axes[dim], items[dim]
    assert isinstance(flat, Flat)
    axes: Dict[int, Any] = {d: axis for d, axis in region.axes.items() if d != dim}
    if isinstance(item, slice):
        if isinstance(item.stop, Followed) and alike(item.stop, space.side(flat)):
            item = slice(item.start, None, item.step)  # as many as there are
        kept = _kept(flat, item)
        if kept is not None:
            axes[dim] = kept
    elif not -flat.after <= plain(item) < flat.before:
        raise NotExact("one position of a flattened picture is taken")
    else:
        axes = {d - (d > dim): axis for d, axis in axes.items()}
    gone = int(region.batch > dim and not isinstance(item, slice))
    outcome = Region(axes, region.batch - gone, mask=region.mask)
    return space.attach(input[index].clone(), outcome)


@handles("split", "split_with_sizes")
def split(space: Space, input: Tensor, split_size_or_sections: Any, dim: int = 0) -> Tuple[Tensor, ...]:
    """Of a sequence, between its maps and what stands beside them."""
    region, sizes = tracked(input), split_size_or_sections
    dim %= input.dim()
    axis: Any = region.axes.get(dim)
    if not isinstance(axis, (Flat, Levels)) or not isinstance(sizes, (list, tuple)):
        return layout.pieces("split")(space, input, frozen(sizes), dim)
    found = []
    plainly = torch.split(input, [int(bare(size)) for size in sizes], dim)
    for size, part, piece in zip(sizes, parted(axis, list(map(bare, sizes))), plainly):
        axes = {each: other for each, other in region.axes.items() if each != dim}
        if part is not None:
            axes[dim] = part
        own = space.side(part) if part is not None else shape_of(piece)[dim]
        if not alike(size, own):  # for some pictures it would be cut elsewhere
            frozen((size, own))
        outcome = Region(axes, region.batch, mask=region.mask)
        outcome.view_of(region)
        found.append(space.attach(piece, outcome))
    return tuple(found)


def _kept(flat: Flat, item: slice) -> Optional[Flat]:
    """What a slice leaves of the picture's positions, None where it leaves but what stands beside them."""
    start = 0 if item.start is None else plain(item.start)
    stop = None if item.stop is None else plain(item.stop)
    if item.step in (None, 1):
        if start < 0 and -start <= flat.after and (stop is None or start <= stop < 0):
            return None
        if start >= 0 and stop is not None and 0 <= stop <= flat.before:
            return None
        if 0 <= start <= flat.before and (stop is None or -flat.after <= stop < 0):
            return Flat(flat.rows, flat.columns, flat.before - start, flat.after + (stop or 0))
    raise NotExact("a slice of a flattened picture")


def _of_every_row(method: str) -> Any:
    plainly = reshape.reshaped(method)

    @functools.wraps(plainly)
    def reshaped(space: Space, input: Tensor, *sizes: Any, **options: Any) -> Tensor:
        """A model that writes 1 for its batch has one table of positions for all of it; here, where
        pictures of other sizes are together, every row has its own."""
        region = tracked(input)
        asked = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else sizes
        one = (
            region.batch == 0
            and not isinstance(region.batch, Rows)
            and len(asked) > 1
            and type(asked[0]) is int
            and asked[0] == 1
        )
        if one and not options and shape_of(input)[0] != 1:
            return plainly(space, input, (input.shape[0], *asked[1:]))
        return plainly(space, input, *sizes, **options)

    return reshaped


for _name in ("view", "reshape"):
    handles(_name)(_of_every_row(_name))
