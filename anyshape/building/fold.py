"""Folds batch norms into the convolutions before them, once, before anything is compiled.

Freezing a trace does the same, but then each bucket has weights of its own; folded here, all share them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from anyshape.backends.base import quiet

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def has_batch_norms(model: nn.Module) -> bool:
    return any(isinstance(module, NORMS) for module in model.modules())


def fold_batch_norms(model: nn.Module, example: Tuple[Tensor, ...]) -> int:
    """Fold, in place, every batch norm of `model` (in eval mode) that alone sees a convolution's output.

    The order of operations is read off a trace with `example`: it does not matter how the model is written.
    Nothing that is used twice is folded. Returns how many were; none of a model that cannot be traced.
    """
    try:
        with torch.no_grad(), quiet():
            graph = torch.jit.trace(model, example, check_trace=False, strict=False).inlined_graph  # type: ignore[no-untyped-call]
    except Exception:
        return 0  # compiling says why, or, where the backend does not trace, works
    nodes = list(graph.nodes())
    uses = Counter(_name(value) for node in nodes for value in node.inputs())
    folded = 0
    for node in nodes:
        if node.kind() != "aten::batch_norm":
            continue
        inputs = list(node.inputs())
        before = inputs[0].node()
        if before.kind() != "aten::_convolution" or len(inputs[0].uses()) > 1:
            continue
        weight, mean = _name(list(before.inputs())[1]), _name(inputs[3])
        if weight is None or mean is None or uses[weight] > 1 or uses[mean] > 1:
            continue
        convolution, norm = _owner(model, weight), _owner(model, mean)
        if type(convolution) in CONVOLUTIONS and type(norm) in NORMS:
            _fold(convolution, norm)
            _replace(model, norm, nn.Identity())
            folded += 1
    return folded


def _name(value: Any) -> Optional[str]:
    """``layer1.0.conv.weight`` for a value of the graph that is an attribute of the model; else None."""
    parts = []
    while value.node().kind() == "prim::GetAttr":
        parts.append(value.node().s("name"))
        value = value.node().input()
    return ".".join(reversed(parts)) or None


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _fold(convolution: Any, norm: Any) -> None:
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Under every name that it has."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
