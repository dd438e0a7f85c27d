"""Functions made by `torch.jit.script`: activations are followed, whatever else they do is named."""

from __future__ import annotations

from typing import Callable, List

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact import ExactPadding, UnknownOperation
from tests.building.models_for_exact import Call, around, largest_deviation, padded, pictures

BUCKET = (24, 20)
SIZES = [(24, 20), (13, 20), (9, 11), (23, 7)]


@torch.jit.script
def swish(x: Tensor) -> Tensor:
    return x * x.sigmoid()


@torch.jit.script
def in_place(x: Tensor) -> Tensor:
    return x.mul_(x.sigmoid()).add_(1.0)


@torch.jit.script
def itself(x: Tensor) -> Tensor:
    return x


@torch.jit.script
def gated(x: Tensor, gate: Tensor) -> Tensor:
    return swish(x) * torch.sigmoid(gate)


@torch.jit.script
def with_sum(x: Tensor) -> Tensor:
    return x * x.sum()


@torch.jit.script
def by_size(x: Tensor) -> Tensor:
    return x * float(x.size(2))


@torch.jit.script
def rolled(x: Tensor) -> Tensor:
    if x.dim() == 4:
        return torch.roll(x, 1, 3)
    return x


FOLLOWED: List[Callable[[Tensor], Tensor]] = [
    swish,
    lambda x: in_place(x) + x,
    lambda x: in_place(F.relu(x)[:, :4]).repeat(1, 2, 1, 1),
    lambda x: F.max_pool2d(itself(x), 5, 1, 2) + F.avg_pool2d(x, 5, 1, 2),
    lambda x: gated(x, x.mean((2, 3), keepdim=True)),
    lambda x: gated(x.mean((2, 3), keepdim=True), x),
]
NAMES = ["swish", "in place", "in place in a view", "itself", "gate", "gate of the picture's size"]


@pytest.mark.parametrize("function", FOLLOWED, ids=NAMES)
def test_activations_are_followed(function: Callable[[Tensor], Tensor]) -> None:
    model = around(Call(function))
    exact = ExactPadding(model)
    with torch.no_grad():
        traced = torch.jit.trace(exact, padded(pictures([BUCKET]), BUCKET), check_trace=False)
    for run in (exact, traced, traced):
        error, plain = largest_deviation(model, SIZES, BUCKET, run=run, exact=exact, garbage=3.0)
        assert error < 2e-5
        assert plain > 1e-2


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (with_sum, "aten::sum"),
        (by_size, r"(aten::size|aten::Float)"),
        (rolled, r"(aten::dim|prim::If|aten::roll)"),
    ],
    ids=["sum", "size", "roll in a branch"],
)
def test_what_else_a_scripted_function_does_is_named(
    function: Callable[[Tensor], Tensor], named: str
) -> None:
    with torch.no_grad(), pytest.raises(UnknownOperation, match=rf"{named} inside scripted code"):
        ExactPadding(around(Call(function)))(*padded(pictures([(9, 11)]), BUCKET))


def test_scripted_functions_are_as_they_were_afterwards() -> None:
    before = torch.jit.ScriptFunction.__call__
    with torch.no_grad():
        ExactPadding(around(Call(swish)))(*padded(pictures([(9, 11)]), BUCKET))
    assert torch.jit.ScriptFunction.__call__ is before
