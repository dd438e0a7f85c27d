"""What padding is set to, in a tensor's own dtype."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def number_like(like: Tensor, value: float) -> Tensor:
    """A value in a tensor's dtype; of whole numbers the least or largest is what stands for infinity."""
    if math.isinf(value) and not (like.is_floating_point() or like.is_complex()):
        limits = torch.iinfo(like.dtype)
        value = limits.max if value > 0 else limits.min
    return torch.full((), value, dtype=like.dtype, device=like.device)
