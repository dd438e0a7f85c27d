"""Biases of attention by how far two patches are from each other (BEiT): a table is brought to the picture's
size, and looked up for each pair of patches. Each row of a batch gets those of its own picture.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from anyshape.building.exact.axis import Axis, Flat, constant
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, shape_of


def pair_biases(table: Tensor, beside: Tensor) -> Tensor:
    """table ``[B or 1, heads, 2·rows − 1, 2·columns − 1]``, by distances from the largest negative one on;
    beside ``[3, heads]``, from the token before the patches, to it, and from it to itself. Returns
    ``[B or 1, heads, 1 + patches, 1 + patches]``."""
    if has_torch_function_unary(table):
        return handle_torch_function(pair_biases, (table,), table, beside)
    height, width = ((side + 1) // 2 for side in shape_of(table)[2:])
    rows, columns = (torch.arange(side, device=table.device) for side in (height, width))
    down = rows[:, None] - rows + height - 1
    across = columns[:, None] - columns + width - 1
    places = down[:, None, :, None] * (2 * width - 1) + across[None, :, None, :]
    inner = table.flatten(2)[:, :, places.reshape(height * width, height * width)]
    to_patches, from_patches, itself = beside[:, None, :, None, None]
    found = torch.cat([from_patches.expand(*inner.shape[:3], 1), inner], 3)
    first = torch.cat([itself, to_patches.expand(1, -1, 1, height * width)], 3)
    return torch.cat([first.expand(inner.shape[0], -1, -1, -1), found], 2)


@handles("pair_biases")
def tracked_biases(space: Space, table: Tensor, beside: Tensor) -> Tensor:
    region = tracked(table)
    if table.dim() != 4 or region.batch != 0 or not set(region.axes) <= {2, 3}:
        raise NotExact("only a table of [batch, heads, distances, distances] is known")
    parts = []
    for dim in (2, 3):
        axis: Any = region.axes.get(dim)
        length = shape_of(table)[dim]
        if axis is None:
            axis = constant(dim - 2, length, space.sides[dim - 2])
        # No distance is where it is in the bucket: it is in the middle of each row's own part of the table.
        first = axis.length // 2 - torch.div(space.extents(axis), 2, rounding_mode="floor")
        at = (space.positions(length)[None] - first[:, None]).clamp(0, length - 1)
        table = space.take(table, region, dim, at)
        parts.append(Axis(axis.side, tuple((size + 1) // 2 for size in axis.table)))
    patches: Any = Flat(parts[0], parts[1], before=1)
    return space.attach(pair_biases(table, beside), Region({2: patches, 3: patches}, own=True))


def biases(
    self: Any, window_size: Any, interpolate_pos_encoding: bool = False, dim_size: Optional[int] = None
) -> Tensor:
    """``[B or 1, heads, 1 + patches, 1 + patches]`` of a picture of so many patches."""
    height, width = (2 * side - 1 for side in window_size)
    given = self.relative_position_bias_table
    old = [2 * side - 1 for side in self.window_size]
    table = given[:-3].reshape(1, old[1], old[0], -1).permute(0, 3, 1, 2)
    return pair_biases(F.interpolate(table, size=(height, width), mode="bilinear"), given[-3:])


# By module and name there, of a class and of a method.
LAYERS: Dict[Tuple[str, str], Any] = {
    ("transformers.models.beit.modeling_beit", "BeitRelativePositionBias.forward"): biases,
    (
        "transformers.models.data2vec.modeling_data2vec_vision",
        "Data2VecVisionRelativePositionBias.forward",
    ): biases,
}
