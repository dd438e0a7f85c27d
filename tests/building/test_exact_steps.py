"""A model that does something else for some sizes, by way of what Python hides, is found out."""

from __future__ import annotations

import math
from typing import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from tests.building.models_for_exact import Call

BUCKET = (1, 3, 20, 24)
SIGNS = {7: -1.0}


def prepared(function: Callable[[Tensor], Tensor]) -> ExactPadding:
    exact = ExactPadding(Call(function).eval())
    exact.steps = []
    with torch.no_grad():
        exact(torch.randn(*BUCKET), torch.tensor([BUCKET[2:]]))
    return exact


def looped(x: Tensor) -> Tensor:
    for _ in range(x.shape[3] // 20):
        x = torch.tanh(x)
    return x


# What a model makes of a picture, and the heights and widths for which it is not what the bucket's is.
FOUND = {
    "a number by math.sqrt": (lambda x: x * (2.0 if math.sqrt(x.shape[2]) < 3 else 1.0), range(1, 9), ()),
    "an operation by math.sqrt": (lambda x: -x if math.sqrt(x.shape[3]) < 2 else x, (), (1, 2, 3)),
    "a look-up in a dict": (lambda x: x * SIGNS.get(x.shape[2], 1.0), (7,), ()),
    "a look-up in a list": (lambda x: x * ([1.0] * 9 + [2.0] + [1.0] * 20)[x.shape[3]], (), (9,)),
    "a text": (lambda x: x * (3.0 if str(x.shape[2]).endswith("3") else 1.0), (3, 13), ()),
    "a kernel": (lambda x: F.max_pool2d(x, 1 if math.log2(x.shape[2]) > 2 else 2), (2, 3, 4), ()),
    "how often": (looped, (), tuple(range(1, 20))),
    "nothing": (lambda x: F.interpolate(F.avg_pool2d(x, 2), x.shape[2:]) * x.mean((2, 3), True), (), ()),
    "half of the rows": (lambda x: x[:, :, : x.shape[2] // 2] - 1, (), ()),
    "flattened": (lambda x: x.flatten(2).softmax(-1).view(x.shape) * x, (), ()),
}


@pytest.mark.parametrize("name", FOUND)
def test_sizes_for_which_it_does_something_else(name: str) -> None:
    function, heights, widths = FOUND[name]
    exact = prepared(function)
    if 2 * len(widths) > BUCKET[3]:
        with pytest.raises(UnknownOperation, match=r"tanh .*such as math.sqrt or range"):
            exact.unlike(BUCKET, torch.float32)
        return
    assert exact.unlike(BUCKET, torch.float32) == (set(heights), set(widths))


def test_height_and_width_together_are_refused_by_the_operation() -> None:
    exact = prepared(lambda x: -x if math.sqrt(x.shape[2] * x.shape[3]) < 12 else x)
    with pytest.raises(UnknownOperation, match=r"neg .*a height and a width together"):
        exact.unlike(BUCKET, torch.float32)


class Weighted(nn.Module):
    """Reads a weight of its own in Python, which has no value without memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.weight.detach()) * math.sqrt(x.shape[2])


def test_a_model_that_does_not_run_without_memory_is_not_judged() -> None:
    exact = ExactPadding(Weighted().eval())
    exact.steps = []
    with torch.no_grad():
        exact(torch.randn(*BUCKET), torch.tensor([BUCKET[2:]]))
    assert exact.unlike(BUCKET, torch.float32) == (set(), set())


def test_a_tensor_that_the_model_keeps_is_refused_by_name() -> None:
    kept = []

    def keeps(x: Tensor) -> Tensor:
        kept.append(x * 2)
        return x + kept[0]

    prepared(keeps)
    with pytest.raises(UnknownOperation, match=r"add \(the model keeps a tensor of another picture\)"):
        prepared(keeps)
