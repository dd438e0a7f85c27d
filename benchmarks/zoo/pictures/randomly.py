"""Random weights with which an error would show.

As they are created, many models hide what is done to their activations: a layer scale of 1e-6 switches a
block off, batch norms that map zero to zero keep padding zero, and a deep net's answer may hardly depend
on its input. So constant parameters are drawn anew, and batch norms take the statistics of noise, changed a
bit; the variance to more than it was, or a deep net enlarges every rounding until it is all that is left.
"""

from __future__ import annotations

from typing import Any, List

import torch
from torch import Tensor, nn

TABLES = ("bias", "beta", "pos", "relative", "cls", "query", "mask", "token")  # parameters that are added


def randomised(model: nn.Module, picture: Tensor) -> nn.Module:
    """The model in eval mode; the same for the same torch.manual_seed. picture: [B, C, H, W] noise."""
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and parameter.numel() > 1 and parameter.std() > 1e-4:
                continue
            if name.rsplit(".", 1)[-1].startswith(TABLES) or (parameter == 0).all():
                parameter.normal_(0.0, 0.2)
            else:
                parameter.uniform_(0.5, 1.5)
        _settle(model, picture)
    return model


def _settle(model: nn.Module, picture: Tensor) -> None:
    """Statistics of batch norms as after training on noise, and a bit beside them."""
    norms: List[Any] = [
        each for each in model.modules() if isinstance(getattr(each, "running_var", None), Tensor)
    ]
    hooks = [norm.register_forward_pre_hook(_measure) for norm in norms]
    if norms:
        model(picture)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        spread = norm.running_var.sqrt()
        norm.running_mean.add_(torch.randn_like(spread) * spread * 0.3)
        norm.running_var.mul_(torch.empty_like(spread).uniform_(1.0, 1.6))


def _measure(norm: Any, inputs: Any) -> None:
    values = inputs[0].transpose(0, 1).flatten(1)
    norm.running_mean.copy_(values.mean(1))
    if values.shape[1] > 4:
        norm.running_var.copy_(values.var(1).clamp(min=1e-3))
