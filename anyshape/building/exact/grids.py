"""Tables of positions that a model computes of the height and width of its map, for every picture anew.

Libraries write down the numbers of rows and columns, and divide them by how many there are. Here each row of
a batch gets the table of its own picture.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from anyshape.building.exact.axis import axis_of, constant
from anyshape.building.exact.mode import handles
from anyshape.building.exact.region import Region, Space
from anyshape.building.exact.side import Known

# (rows [1, H, 1], columns [1, 1, W], heights [B, 1, 1], widths [B, 1, 1], float32) → [B, H, W, channels]
Make = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def laid_out(like: Tensor, height: int, width: int, make: Make) -> Tensor:
    """The table that `make` computes for a map of that height and width, ``[B or 1, H, W, channels]``: B
    where the pictures of a batch have sizes of their own. like: any tensor of the model."""
    if has_torch_function_unary(like):
        return handle_torch_function(laid_out, (like,), like, height, width, make)
    heights, widths = (torch.full((1, 1, 1), float(size), device=like.device) for size in (height, width))
    return _made(height, width, heights, widths, make)


@handles("laid_out")
def tracked_table(space: Space, like: Tensor, height: Any, width: Any, make: Make) -> Tensor:
    rows, columns = (
        axis_of(side, size.table)
        if isinstance(size, Known) and size.side == side
        else constant(side, int(size), space.sides[side])
        for side, size in enumerate((height, width))
    )
    heights, widths = (space.extents(axis).clamp(min=1).float()[:, None, None] for axis in (rows, columns))
    table = _made(rows.length, columns.length, heights, widths, make)
    return space.attach(table, Region({1: rows, 2: columns}, own=True))


def _made(height: int, width: int, heights: Tensor, widths: Tensor, make: Make) -> Tensor:
    rows, columns = (torch.arange(size, device=heights.device).to(torch.float32) for size in (height, width))
    return make(rows[None, :, None], columns[None, None, :], heights, widths)


def fourier(self: Any, *shape: Any) -> Tensor:
    """timm's PositionalEncodingFourier (XCiT, EdgeNeXt): waves of each row and column as a part of all."""
    batch, height, width = shape[0] if len(shape) == 1 else shape
    count = self.hidden_dim

    def make(rows: Tensor, columns: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
        lengths = torch.arange(count, device=rows.device).to(torch.float32)
        lengths = self.temperature ** (2 * torch.div(lengths, 2, rounding_mode="floor") / count)
        waves = []
        for at, size in ((rows, heights), (columns, widths)):
            part = ((at + 1) / (size + 1e-6) * self.scale)[..., None] / lengths
            part = torch.stack([part[..., 0::2].sin(), part[..., 1::2].cos()], -1).flatten(3)
            waves.append(part.expand(-1, rows.shape[1], columns.shape[2], -1))
        return torch.cat(waves, -1)

    weight = self.token_projection.weight
    table = laid_out(weight, height, width, make).permute(0, 3, 1, 2)
    found: Tensor = self.token_projection(table.to(weight.dtype))
    return found if isinstance(height, Known) or isinstance(width, Known) else found.expand(batch, -1, -1, -1)


def rotary(original: Callable[..., Any]) -> Callable[..., Any]:
    """timm's RotaryEmbeddingCat (EVA-02): sines and cosines that queries and keys are turned by."""

    def get_embed(self: Any, shape: Any = None, dtype: Optional[torch.dtype] = None) -> Tensor:
        sizes = list(shape) if shape is not None else []
        together = self.normalize_coords != "separate"  # both sides are divided by the longer one
        followed = any(isinstance(size, Known) for size in sizes) and len(sizes) == 2
        if not followed or together or self._use_cached_embed:
            return original(self, shape, dtype)  # type: ignore[no-any-return]

        def make(rows: Tensor, columns: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
            places = [_place(self, *each) for each in ((rows, heights, 0), (columns, widths, 1))]
            places = [each.expand(-1, rows.shape[1], columns.shape[2]) for each in places]
            grid = torch.stack(places[::-1] if self.grid_indexing == "xy" else places, -1)
            turns = (grid[..., None] * self.bands).flatten(-2)
            turns = torch.cat([turns, turns], -1) if self.rotate_half else turns.repeat_interleave(2, -1)
            return torch.cat([turns.sin(), turns.cos()], -1).to(torch.float32 if dtype is None else dtype)

        return laid_out(self.bands, sizes[0], sizes[1], make).flatten(1, 2).unsqueeze(1)

    return get_embed


def _place(rope: Any, at: Tensor, size: Tensor, side: int) -> Tensor:
    """Where rows or columns are, in the numbers that timm's `_build_grid` gives them."""
    kind = rope.grid_type or ("pixel" if rope.in_pixels else "index")
    if kind == "pixel":
        place = at / (size - 1).clamp(min=1) * 2.0 - 1.0
    elif kind == "centered":
        place = (at + 0.5 + rope.grid_offset) / size
    else:
        place = at + rope.grid_offset
    if rope.ref_feat_shape is not None:
        place = place / size * rope.ref_feat_shape[side]
    return 2.0 * place - 1.0 if kind == "centered" else place
