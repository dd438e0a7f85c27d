"""Functions of libraries that make plain numbers of the picture's size with int(), and branch on them.

What they compute is known, so that they are replaced by the same in numbers that are followed.
"""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(features: Tensor, conv_layer: nn.Conv2d) -> Tensor:
    """TensorFlow's SAME padding before a convolution, as transformers' MobileNets have it."""
    amounts: List[Any] = []
    for side in (1, 0):
        size, stride = features.shape[side - 2], conv_layer.stride[side]
        total = max((math.ceil(size / stride) - 1) * stride + conv_layer.kernel_size[side] - size, 0)
        step = conv_layer.dilation[side]
        amounts += [total // 2 * step, (total - total // 2) * step]
    return F.pad(features, amounts, "constant", 0.0)


_FAMILIES = ("mobilenet_v1", "mobilenet_v2")
REPLACED: Dict[Tuple[str, str], Any] = {
    (f"transformers.models.{family}.modeling_{family}", "apply_tf_padding"): same_padding
    for family in _FAMILIES
}


@contextmanager
def as_traced() -> Iterator[None]:
    """What asks whether it is traced gets the answer that it gets when it is compiled: libraries then take
    the path that is right for every size, as an interpolation of positions that one size could do without."""
    jit: Any = torch.jit  # which does not say that it exports this
    asked = jit.is_tracing
    jit.is_tracing = lambda: True
    try:
        yield
    finally:
        jit.is_tracing = asked


@contextmanager
def replaced() -> Iterator[None]:
    """While a model runs, for the libraries that are loaded."""
    before = []
    for (module, name), function in REPLACED.items():
        if module in sys.modules and hasattr(sys.modules[module], name):
            before.append((sys.modules[module], name, getattr(sys.modules[module], name)))
            setattr(sys.modules[module], name, function)
    try:
        yield
    finally:
        for loaded, name, function in before:
            setattr(loaded, name, function)
