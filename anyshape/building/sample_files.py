"""Files for sample requests."""

from __future__ import annotations

import io
from typing import Optional, Sequence

import numpy as np
from PIL import Image


def picture(size: Sequence[int], channels: int) -> Optional[bytes]:
    """A PNG of coloured squares, the same each time; None for channels that no PNG has."""
    if channels not in (1, 3):
        return None
    squares = np.random.default_rng(0).integers(
        0, 256, (-(-size[0] // 16), -(-size[1] // 16), channels), np.uint8
    )
    pixels = squares.repeat(16, axis=0).repeat(16, axis=1)[: size[0], : size[1]]
    file = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(file, "PNG", optimize=True)
    return file.getvalue()
