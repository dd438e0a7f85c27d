"""Biases of attention by how far queries and keys are apart in height and in width: MViT's decomposed tables.

How far, in steps of the table, depends on how many rows and columns a picture has. Here each row of a batch
looks its own numbers up.
"""

from __future__ import annotations

from typing import Any, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from anyshape.building.exact.axis import Flat, constant
from anyshape.building.exact.both import bare
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, region_of, shape_of


def spatial_biases(
    attn: Tensor,
    q: Tensor,
    has_cls_token: bool,
    q_size: Sequence[int],
    k_size: Sequence[int],
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
) -> Tensor:
    """timm's ``cal_rel_pos_type``: attn ``[B, heads, queries, keys]`` and what is added to it for queries
    ``[B, heads, queries, features]``, where tables ``[steps, features]`` say so for rows and columns."""
    if has_torch_function_unary(attn):
        given = (attn, q, has_cls_token, q_size, k_size, rel_pos_h, rel_pos_w)
        return handle_torch_function(spatial_biases, (attn,), *given)
    sizes = [
        [torch.tensor([[side]], device=q.device) for side in map(bare, each)] for each in (q_size, k_size)
    ]
    return _added(attn, q, int(has_cls_token), sizes, q_size, k_size, (rel_pos_h, rel_pos_w))


@handles("spatial_biases")
def tracked_biases(
    space: Space,
    attn: Tensor,
    q: Tensor,
    has_cls_token: bool,
    q_size: Sequence[Any],
    k_size: Sequence[Any],
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
) -> Tensor:
    region = tracked(attn)
    queries = region_of(q)
    if region.batch != 0 or queries is None or queries.axes.get(2) != region.axes.get(2):
        raise NotExact("only [batch, heads, queries, keys] is known")
    sizes, maps = [], []
    for dim, count in ((2, q_size), (3, k_size)):
        axis: Any = region.axes.get(dim)
        parts = (
            axis.parts
            if isinstance(axis, Flat)
            else [constant(side, bare(number), space.sides[side]) for side, number in enumerate(count)]
        )
        if [part.length for part in parts] != [bare(number) for number in count]:
            raise NotExact("the positions are not those of the map")
        sizes.append([space.extents(part).clamp(min=1)[:, None] for part in parts])
        maps.append([part.length for part in parts])
    result = _added(attn, q, int(has_cls_token), sizes, maps[0], maps[1], (rel_pos_h, rel_pos_w))
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))


def _added(
    attn: Tensor,
    q: Tensor,
    before: int,
    sizes: Sequence[Sequence[Tensor]],
    q_size: Sequence[int],
    k_size: Sequence[int],
    tables: Sequence[Tensor],
) -> Tensor:
    """sizes: of queries and keys, each a height and a width, [B or 1, 1]."""
    rows, columns = (
        tables[side][
            _apart(q_size[side], k_size[side], sizes[0][side], sizes[1][side], tables[side].shape[0])
        ]
        for side in (0, 1)
    )
    heads = shape_of(q)[1]
    inner = q[:, :, before:].reshape(-1, heads, q_size[0], q_size[1], 1, shape_of(q)[3])
    tall = (inner @ rows[:, None, :, None].transpose(-1, -2)).squeeze(-2)
    wide = (inner @ columns[:, None, None].transpose(-1, -2)).squeeze(-2)
    found = (tall[..., :, None] + wide[..., None, :]).flatten(4).flatten(2, 3)
    return attn + F.pad(found, (before, 0, before, 0))


def _apart(queries: int, keys: int, height: Tensor, other: Tensor, steps: int) -> Tensor:
    """[B or 1, queries, keys]: the step of the table for each pair, of sides that are `height` queries and
    `other` keys long. Rounded as the library does: ratios are Python's, and what they scale is float32."""
    many, few = height[:, :, None].double(), other[:, :, None].double()
    ratios = (few / many).clamp(min=1.0), (many / few).clamp(min=1.0)
    start = ((few - 1) * ratios[1]).float()
    at, of = (torch.arange(count, device=height.device).float() for count in (queries, keys))
    apart = at[None, :, None] * ratios[0].float() - of[None, None, :] * ratios[1].float() + start
    return apart.long().clamp(0, steps - 1)
