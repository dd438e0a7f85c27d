"""What the compilers share that begin with torch.export."""

from __future__ import annotations

from typing import Any, Dict, Sequence, Tuple

import torch

from anyshape.backends.base import Tensors, as_tuple
from anyshape.buckets import Bucket


class Positional(torch.nn.Module):
    """Takes any number of tensors and gives a tuple, so that every model is exported the same way."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: torch.Tensor) -> Tensors:
        return as_tuple(self.model(*tensors))


def open_dimensions(
    example: Tensors, bucket: Bucket, largest: Sequence[int] = ()
) -> Tuple[Dict[int, Any], ...]:
    """For each input, which dimensions are open: rows, where the example has several; and with `largest`,
    the sides, each up to that many."""
    rows = {0: torch.export.Dim("rows", min=1)} if len(example[0]) > 1 else {}
    names = ("tokens",) if len(bucket) == 1 else ("height", "width")
    sides = [torch.export.Dim(name, min=1, max=most) for name, most in zip(names, largest)]
    return tuple({**rows, **_sides(tensor, bucket, sides)} for tensor in example)


def _sides(tensor: torch.Tensor, bucket: Bucket, sides: Sequence[Any]) -> Dict[int, Any]:
    first = tensor.dim() - len(bucket)
    padded = first >= 1 and tuple(tensor.shape[first:]) == tuple(bucket)
    return {first + i: side for i, side in enumerate(sides)} if padded else {}
