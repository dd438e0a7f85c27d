"""A model beside another one."""

from __future__ import annotations

import copy

from torch import nn


def beside(model: nn.Module) -> nn.Module:
    """A copy of its own, what it keeps included; the weights, the most of it, are the same ones."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
