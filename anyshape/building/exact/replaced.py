"""Functions of libraries that make plain numbers of the picture's size with int(), and branch on them.

What they compute is known, so that they are replaced by the same in numbers that are followed.
"""

from __future__ import annotations

import inspect
import math
import sys
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import (
    detr,
    grids,
    interfaces,
    pairs,
    recurrent,
    relative,
    rewritten,
    rotary,
    scripted,
    shifted,
)
from anyshape.building.exact.both import Area, Mixed
from anyshape.building.exact.side import Known


def same_padding(features: Tensor, conv_layer: nn.Conv2d) -> Tensor:
    """TensorFlow's SAME padding before a convolution, as transformers' MobileNets have it."""
    amounts: List[Any] = []
    for side in (1, 0):
        size, stride = features.shape[side - 2], conv_layer.stride[side]
        total = max((math.ceil(size / stride) - 1) * stride + conv_layer.kernel_size[side] - size, 0)
        step = conv_layer.dilation[side]
        amounts += [total // 2 * step, (total - total // 2) * step]
    return F.pad(features, amounts, "constant", 0.0)


def padded_to_patches(embeddings: Any, pixel_values: Tensor, height: Any, width: Any) -> Tensor:
    """Padding to whole patches, as transformers' models with windows have it: none is none of it, too."""
    rows, columns = embeddings.patch_size
    return F.pad(pixel_values, (0, -width % columns, 0, -height % rows))


def padded_to_pairs(merging: Any, input_feature: Tensor, height: Any, width: Any) -> Tensor:
    """Padding to an even height and width, as transformers' Swin has it: none is none of it, too."""
    return F.pad(input_feature, (0, 0, 0, width % 2, 0, height % 2))


def _of_every_size(choose: Any) -> Any:
    """max or min of numbers that are followed: a number that is followed, and no decision."""

    def chosen(*values: Any, **options: Any) -> Any:
        first = next((value for value in values if isinstance(value, Known)), None)
        if first is None or options or len(values) == 1:
            return choose(*values, **options)
        tables = [first.others(value) if isinstance(value, (int, float)) else None for value in values]
        if None in tables or any(isinstance(value, (Area, Mixed)) for value in values):
            return choose(*values)
        return first.made([choose(row) for row in zip(*tables)])

    return chosen


_len = len


def length(value: Any) -> int:
    """len, which of a tensor is a plain number: the rows of the batch that the model is compiled with."""
    return value.shape[0] if isinstance(value, Tensor) and value.dim() else _len(value)


_FAMILIES = ("mobilenet_v1", "mobilenet_v2")
_WINDOWED = {  # module of transformers → what its classes' names begin with
    "focalnet.modeling_focalnet": "FocalNet",
    "maskformer.modeling_maskformer_swin": "MaskFormerSwin",
    "swin.modeling_swin": "Swin",
    "swinv2.modeling_swinv2": "Swinv2",
}
# By module and name there, or name of a class and of a method.
REPLACED: Dict[Tuple[str, str], Any] = {
    **{
        (f"transformers.models.{family}.modeling_{family}", "apply_tf_padding"): same_padding
        for family in _FAMILIES
    },
    **{
        (f"transformers.models.{module}", f"{prefix}{path}"): function
        for module, prefix in _WINDOWED.items()
        for path, function in (
            ("PatchEmbeddings.maybe_pad", padded_to_patches),
            ("PatchMerging.maybe_pad", padded_to_pairs),  # FocalNet has none
        )
    },
    **pairs.LAYERS,
    **rewritten.METHODS,
    **rotary.LAYERS,
    **shifted.LAYERS,
    ("timm.models.edgenext", "PositionalEncodingFourier.forward"): grids.fourier,
    ("timm.models.xcit", "PositionalEncodingFourier.forward"): grids.fourier,
    ("timm.models.mvitv2", "cal_rel_pos_type"): relative.spatial_biases,
    ("builtins", "len"): length,
    ("builtins", "max"): _of_every_size(max),
    ("builtins", "min"): _of_every_size(min),
    ("torch.jit", "ScriptFunction.__call__"): scripted.called,
}
# The same, made of what they replace.
AROUND: Dict[Tuple[str, str], Any] = {
    ("torchvision.models.swin_transformer", "shifted_window_attention"): shifted.of_torchvision,
    **detr.DETECTORS,
    ("torch.nn.modules.rnn", "LSTM.forward"): recurrent.forward,
    ("torch.nn.modules.rnn", "GRU.forward"): recurrent.forward,
    ("timm.layers.pos_embed_sincos", "RotaryEmbeddingCat.get_embed"): grids.rotary,
    ("transformers.modeling_utils", "AttentionInterface.get_interface"): interfaces.interface,
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
    for (module, path), function in (*REPLACED.items(), *AROUND.items()):
        *classes, name = path.split(".")
        owner: Any = sys.modules.get(module)
        for each in classes:
            owner = getattr(owner, each, None)
        if hasattr(owner, name):
            plain = inspect.getattr_static(owner, name)
            before.append((owner, name, plain))
            made = function(getattr(owner, name)) if (module, path) in AROUND else function
            setattr(owner, name, staticmethod(made) if isinstance(plain, staticmethod) else made)
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
