"""What other people's models do now and then: other dtypes, views that are written to, sizes as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.outputs import tensors_of
from tests.building.models_for_exact import Call, around, largest_deviation, padded, pictures

BUCKET = (24, 20)
SIZES = [(24, 20), (13, 18), (7, 5), (2, 3), (9, 2)]


def between(function: Callable[[Tensor], Any]) -> ExactPadding:
    """After layers that leave something behind the valid region."""
    return ExactPadding(nn.Sequential(around(Call(lambda x: x)), Call(function)).eval())


def viewed(change: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """A view of cleared padding is written to, which is no longer zero then."""

    def run(x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1))
        change(x)
        return F.avg_pool2d(x, 3, 1, 1)

    return run


def causal(x: Tensor) -> Tensor:
    x = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(x, x, x, is_causal=True)


def scaled(factor: float, mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, scale_factor=factor, mode=mode)


EXACT: dict[str, Callable[[Tensor], Any]] = {
    "any position": lambda x: (x > 3).amax((2, 3)).float() + (x > 3).max(3)[0].amax(2),
    "whole numbers": lambda x: (x * 3).round().long().amax((2, 3)) + x.round().int().amin((2, 3)),
    "their place": lambda x: (x * 3).round().long().argmax(3).float(),
    "half": lambda x: (x.half() * 300).mean((2, 3)).float(),
    "bfloat16": lambda x: F.adaptive_avg_pool2d(x.bfloat16(), 1).float(),
    "causal": causal,
    "data": lambda x: F.avg_pool2d(x.data + 1, 3, 1, 1),
    "data, written": viewed(lambda x: x.data.add_(3)),
    "einsum, written": viewed(lambda x: torch.einsum("bchw->bhwc", x).add_(3)),
    "real, written": viewed(lambda x: x.real.add_(3)),
    **{f"scaled by {f}, {m}": scaled(f, m) for f in (1.1, 1.3, 2.3) for m in ("nearest", "bilinear")},
    "smoothed": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", antialias=True),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str) -> None:
    exact = between(EXACT[name])
    deviation, _ = largest_deviation(exact.model, SIZES, BUCKET, exact=exact)
    assert deviation < (1e-2 if name in ("half", "bfloat16") else 1e-5)


def test_data_is_traced() -> None:
    exact = between(EXACT["data"])
    example = torch.zeros(2, 3, *BUCKET), torch.tensor([BUCKET, BUCKET])
    with torch.no_grad():
        traced = torch.jit.trace(exact, example)  # type: ignore[no-untyped-call]
    assert largest_deviation(exact.model, SIZES, BUCKET, run=traced, exact=exact)[0] < 1e-5


def written(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1] = x.shape[3]
    return x


def counted(x: Tensor) -> Tensor:
    ones = torch.zeros(40)
    ones[: x.shape[3]] = 1
    return x / ones.sum()


# A width that is a value, or a place, and no length: right for pictures as wide as the bucket.
OF_WIDTH: dict[str, Callable[[Tensor], Any]] = {
    "full": lambda x: x / torch.full((1,), x.shape[3]),
    "new_full": lambda x: x * x.mean((2, 3)).new_full((1,), x.shape[3]),
    "a row of a table": lambda x: x * torch.arange(40.0)[x.shape[3]],
    "rows of a table": lambda x: x * torch.arange(40.0)[x.shape[3] : x.shape[3] + 1],
    "a pooled place": lambda x: x * F.adaptive_avg_pool2d(x, 20)[:, :, :1, x.shape[3] - 1 : x.shape[3]],
    "a channel": lambda x: x[:, x.shape[3] // 8],
    "channels": lambda x: x[:, x.shape[3] // 8 :][:, :2],
    "a written value": written,
    "what is around": lambda x: F.pad(x, (1, 1, 1, 1), value=x.shape[3]),
    "a part that is written": counted,
}


@pytest.mark.parametrize("name", OF_WIDTH)
def test_a_size_that_is_a_value(name: str) -> None:
    exact = between(OF_WIDTH[name])
    with torch.no_grad():
        exact(*padded(pictures([BUCKET]), BUCKET))
    like = [w for w in range(1, 21) if w // 8 == 2] if "channel" in name else [20]
    assert list(exact.widths) == like


def test_several_tensors_are_refused_by_name() -> None:
    with pytest.raises(UnknownOperation, match=r"where \(it gives several tensors\)"):
        between(lambda x: x * torch.where(x > 0)[0].float().mean())(*padded(pictures([BUCKET]), BUCKET))


@dataclass
class Answer:
    first: Tensor
    rest: list[Any]


def test_outputs_in_a_dataclass_and_no_sizes_among_them() -> None:
    x = torch.ones(2, 3)
    answer = Answer(x, [x + 1, x.shape, 4, np.float64(2), None])
    assert [each.tolist() for each in tensors_of(answer)] == [x.tolist(), (x + 1).tolist()]
