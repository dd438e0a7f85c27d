"""Positions as angles: transformers' DINOv3 and its kin turn queries and keys by where their patch is.

The angles are made of where a patch is relative to the picture's end, so that each row of a batch gets those
of its own picture.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Tuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from anyshape.building.exact.detr import Map
from anyshape.building.exact.mode import handles
from anyshape.building.exact.region import Region, Space


def patch_centres(pixel_values: Tensor, rows: int, columns: int) -> Tensor:
    """``[B or 1, rows × columns, 2]``: y and x of each patch of a picture, from -1 to 1."""
    if has_torch_function_unary(pixel_values):
        return handle_torch_function(patch_centres, (pixel_values,), pixel_values, rows, columns)
    sides = [(torch.arange(side, device=pixel_values.device) + 0.5) / side for side in (rows, columns)]
    return 2.0 * torch.cartesian_prod(*sides)[None] - 1.0


@handles("patch_centres")
def tracked_centres(space: Space, pixel_values: Tensor, rows: Any, columns: Any) -> Tensor:
    patches = Map(space, rows, columns)
    found = 2.0 * patches.centres(torch.float32).flip(-1) - 1.0
    axis: Any = patches.axis
    return space.attach(found, Region({1: axis}, own=True))


def angles(self: Any, pixel_values: Tensor) -> Tuple[Tensor, Tensor]:
    """Cosines and sines, ``[B or 1, 1, patches, features of a head]``."""
    size = self.config.patch_size
    tall, wide = size if isinstance(size, (list, tuple)) else (size, size)
    rows, columns = pixel_values.shape[2] // tall, pixel_values.shape[3] // wide
    places = patch_centres(pixel_values, rows, columns)
    found = (2 * math.pi * places[:, :, :, None] * self.inv_freq).flatten(2)
    found = torch.cat([found, found], -1)[:, None]
    return found.cos().to(pixel_values.dtype), found.sin().to(pixel_values.dtype)


# By module and name there, of a class and of a method.
LAYERS: Dict[Tuple[str, str], Any] = {
    (f"transformers.models.{family}.modeling_{family}", f"{name}.forward"): angles
    for family, name in (
        ("dinov3_vit", "DINOv3ViTRopePositionEmbedding"),
        ("eomt_dinov3", "EomtDinov3RotaryEmbedding"),
        ("sapiens2", "Sapiens2RopePositionEmbedding"),
    )
}
