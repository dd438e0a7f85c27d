"""A model that does something else for some sizes, by way of what Python hides, is found out."""

from __future__ import annotations

import math
from typing import Any, Callable, Iterable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.exact.steps import Steps
from tests.building.models_for_exact import Call

BUCKET = (1, 3, 20, 24)
SIGNS = {7: -1.0}


def prepared(function: Callable[[Tensor], Tensor]) -> ExactPadding:
    exact = ExactPadding((function if isinstance(function, nn.Module) else Call(function)).eval())
    exact.steps = Steps(exact.model)
    with torch.no_grad():
        exact(torch.randn(*BUCKET), torch.tensor([BUCKET[2:]]))
    return exact


def small(x: Tensor) -> int:
    return int(math.log2(x.shape[3]) < 3)


def written(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1 - small(x)] = 2.0
    return x


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
    "a place": (lambda x: x[:, 2 - small(x)], (), range(1, 8)),
    "a slice": (lambda x: x[:, small(x) :][:, :2], (), range(1, 8)),
    "what is written": (written, (), range(1, 8)),
    "where padding is": (lambda x: F.pad(x, (small(x), 2 - small(x))), (), range(1, 8)),
    "the order": (lambda x: torch.cat([x.exp(), x][:: 1 - 2 * small(x)], 1), (), range(1, 8)),
    "a difference": (lambda x: x.exp() - x if small(x) else x - x.exp(), (), range(1, 8)),
    "the answer": (lambda x: (x.exp(), x.sin())[small(x)], (), range(1, 8)),
    "a tensor of another kind": (lambda x: x * torch.Tensor([min(3.0, x.shape[3] / 3)]), (), range(1, 9)),
    "an array": (lambda x: x * torch.from_numpy(np.array([1.0 + small(x)])), (), range(1, 8)),
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
    """Reads a weight of its own in Python, which has no value without memory, and calls itself what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.weight.detach()) * min(3.0, math.sqrt(x.shape[2]))


class Experts(nn.Module):
    """Other weights for other sizes; what is done with them is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = self.convolutions[min(3, int(math.log2(x.shape[3])))](x)
        return chosen


@pytest.mark.parametrize(
    ("model", "heights", "widths"), [(Weighted, range(1, 9), ()), (Experts, (), range(1, 8))]
)
def test_weights_that_decide(model: Callable[[], nn.Module], heights: Iterable[int], widths: Any) -> None:
    exact = prepared(model())
    assert exact.unlike(BUCKET, torch.float32) == (set(heights), set(widths))


def test_a_tensor_that_the_model_keeps_is_refused_by_name() -> None:
    kept = []

    def keeps(x: Tensor) -> Tensor:
        kept.append(x * 2)
        return x + kept[0]

    prepared(keeps)
    with pytest.raises(UnknownOperation, match=r"add \(the model keeps a tensor of another picture\)"):
        prepared(keeps)
