"""Deformable attention: every query looks at a few points of maps of several resolutions.

The libraries lay points over a map by its height and width. Here each row's points lie over its own part of
the map, and what is outside it is zero, as grid_sample takes it to be beyond the edge.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from anyshape.building.exact.axis import Flat, Levels
from anyshape.building.exact.both import bare
from anyshape.building.exact.levels import is_sequence, maps_of, positions, whole
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, region_of, shape_of


def sampled(
    value: Tensor,
    references: Tensor,
    offsets: Tensor,
    weights: Tensor,
    points: Sequence[int],
    shapes: Sequence[Tuple[int, int]],
    scale: float,
) -> Tensor:
    """value ``[B, positions of all maps, heads, features]``; references ``[B, queries, maps or 1, 2 or 4]``,
    places or boxes relative to the picture; offsets ``[B, queries, heads, points of all maps, 2]`` in cells,
    or in a box's sizes times `scale`; weights likewise; points, shapes: how many points each map has, and its
    height and width. Returns ``[B, queries, heads × features]``."""
    if has_torch_function_unary(value):
        return handle_torch_function(
            sampled, (value,), value, references, offsets, weights, points, shapes, scale
        )
    shapes = [(bare(height), bare(width)) for height, width in shapes]
    sizes = [torch.tensor([shape], device=value.device) for shape in shapes]
    return _sampled(value, references, offsets, weights, points, shapes, scale, sizes)


@handles("sampled")
def tracked_sampled(
    space: Space,
    value: Tensor,
    references: Tensor,
    offsets: Tensor,
    weights: Tensor,
    points: Sequence[int],
    shapes: Sequence[Tuple[int, int]],
    scale: float,
) -> Tensor:
    region = tracked(value)
    if not is_sequence(region):
        raise NotExact("only [batch, positions, heads, features] is known")
    lengths = [(bare(height), bare(width)) for height, width in shapes]
    maps = _maps(region.axes[1], lengths)
    queries = _queries(references, offsets, weights)
    sizes = [
        torch.tensor([length])
        if each is None
        else torch.stack([space.extents(part) for part in each.parts], 1)
        for each, length in zip(maps, lengths)
    ]
    value, references = space.filled(value, 0.0), space.filled(references, 0.0)
    offsets, weights = space.filled(offsets, 0.0), space.filled(weights, 0.0)
    result = _sampled(value, references, offsets, weights, points, lengths, scale, sizes)
    return space.attach(result, Region({} if queries is None else {1: queries}, own=True))


def _maps(axis: Any, lengths: Sequence[Tuple[int, int]]) -> List[Optional[Flat]]:
    """The map of each height and width, None for one that is whole in every picture."""
    waiting = maps_of(axis) if isinstance(axis, (Flat, Levels)) else []
    found: List[Optional[Flat]] = []
    for height, width in lengths:
        first = waiting.pop(0) if waiting else None
        if first is not None and (first.rows.length, first.columns.length) == (height, width):
            found.append(first)
        elif first is not None and whole(first) and first.length >= height * width:
            found.append(None)
            if first.length > height * width:
                waiting.insert(0, positions(first.length - height * width, first))
        else:
            raise NotExact("its maps are not those that were joined")
    return found


def _queries(*operands: Tensor) -> Optional[Any]:
    """The positions that the queries are, None where they are no positions of the picture."""
    regions = [region for region in map(region_of, operands) if region is not None]
    if not all(map(is_sequence, regions)):
        raise NotExact("only [batch, queries, ...] is known")
    axes = {region.axes[1] for region in regions}
    if len(axes) > 1 or (axes and len(regions) < len(operands)):
        raise NotExact("the positions of places and queries differ")
    return axes.pop() if axes else None


def _sampled(
    value: Tensor,
    references: Tensor,
    offsets: Tensor,
    weights: Tensor,
    points: Sequence[int],
    shapes: Sequence[Tuple[int, int]],
    scale: float,
    sizes: Sequence[Tensor],
) -> Tensor:
    """sizes: for each map [B or 1, 2], the height and width of each row's part of it."""
    _, _, heads, features = shape_of(value)
    queries, given = shape_of(offsets)[1], shape_of(references)[2]
    found: List[Tensor] = []
    first = start = 0
    for level, ((height, width), size, count) in enumerate(zip(shapes, sizes, points)):
        own = size.flip(1).to(value.dtype)[:, None, None, None]
        place = references[:, :, min(level, given - 1), None, None]
        offset = offsets[..., first : first + count, :]
        if shape_of(references)[3] == 4:
            place = place[..., :2] + offset * place[..., 2:] * scale
        else:
            place = place + offset / own
        grid = 2 * (place * own / torch.tensor([width, height], dtype=value.dtype, device=value.device)) - 1
        part = value[:, start : start + height * width].permute(0, 2, 3, 1)
        found.append(
            F.grid_sample(
                part.reshape(-1, features, height, width),
                grid.transpose(1, 2).flatten(0, 1),
                padding_mode="zeros",
                align_corners=False,
            )
        )
        first, start = first + count, start + height * width
    weighed = torch.cat(found, -1) * weights.transpose(1, 2).reshape(-1, 1, queries, first)
    return weighed.sum(-1).reshape(-1, heads * features, queries).transpose(1, 2)
