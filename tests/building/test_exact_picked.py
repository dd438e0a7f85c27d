"""The best positions of maps and what stands there, the last row and column, and sums up to each."""

from __future__ import annotations

from typing import Any, Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from tests.building.models_for_exact import Call, largest_deviation, padded, pictures, seeded

BUCKET = (26, 22)
SIZES = [(26, 22), (13, 22), (9, 11), (25, 7), (8, 8), (12, 9)]


def levels(x: Tensor) -> Tensor:
    """Three maps of a picture, flattened, one after the other."""
    maps = [x, 0.9 * F.max_pool2d(x, 2, 2), F.avg_pool2d(x, 3, 2, 1)]  # no two of the same
    return torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1)


def best(x: Tensor) -> Tensor:
    sequence = levels(x)
    places = sequence.max(-1).values.topk(7, dim=1)[1]
    return sequence.gather(1, places.unsqueeze(-1).repeat(1, 1, sequence.shape[-1]))


def where(x: Tensor) -> Tensor:
    """The numbers of the best positions themselves, and what a model makes of them."""
    flat = x.flatten(2)
    scores, places = torch.topk(flat, 5, -1)
    return torch.cat([scores, places, places // 2 - 1], 2)


def least(x: Tensor) -> Tensor:
    flat = x[:, :2].flatten(2)
    return torch.gather(flat * 2, 2, flat.topk(4, largest=False).indices)


def attended(x: Tensor) -> Tensor:
    sequence = levels(x)
    return F.scaled_dot_product_attention(sequence[:, :3], sequence, sequence).sum(1)


def to_the_end(x: Tensor) -> Tensor:
    """As tables of positions are made of a mask: relative to the last row and column."""
    ones = torch.ones_like(x)
    down, across = ones.cumsum(2), (x.sigmoid() + ones).cumsum(-1)
    return down / down[:, :, -1:] + across / across[..., -1:] + x[:, :, 0, None] * x[:, :, :, -1][..., None]


MODELS: dict[str, Callable[[Tensor], Any]] = {
    "best of levels": best,
    "numbers": where,
    "least": least,
    "attention to levels": lambda x: F.scaled_dot_product_attention(*[levels(x)] * 3).mean(1),
    "levels and one more": lambda x: (
        torch.cat([levels(x), x.flatten(2).transpose(1, 2)], 1).softmax(1).amax(1)
    ),
    "ends": to_the_end,
    "corner": lambda x: torch.cat([x[:, :, -1, -1], x[:, :, 0, 2], x[..., -1:, :].amax((2, 3))], 1),
}


def model(function: Callable[[Tensor], Any]) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), Call(function)))


@pytest.mark.parametrize("name", MODELS)
def test_positions_are_those_of_the_picture_alone(name: str) -> None:
    exact, plainly = largest_deviation(model(MODELS[name]), SIZES, BUCKET, garbage=9.0)
    assert exact < 2e-5
    assert plainly > 1e-2 or name in ("best of levels", "least")  # zeros are none of those


def test_numbers_of_positions_come_out_as_they_are_in_the_picture_alone() -> None:
    plain = model(lambda x: x.flatten(2).topk(6)[1])
    images = pictures(SIZES, 3)
    with torch.no_grad():
        (found, *_) = ExactPadding(plain)(*padded(images, BUCKET, 7.0))
        for row, image in enumerate(images):
            assert torch.equal(found[row], plain(image[None])[0])


def test_pictures_with_fewer_positions_than_are_asked_for_are_left_out() -> None:
    exact = ExactPadding(model(lambda x: x.flatten(2).topk(100)[0]))
    exact(*padded(pictures([BUCKET], 3), BUCKET))
    assert (min(exact.heights), min(exact.widths)) == (10, 10)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (
            lambda x: x.flatten(2).gather(2, torch.zeros(1, 8, 3, dtype=torch.long)),
            "do not come from",
        ),
        (lambda x: x.flatten(2).sort(-1)[0], "sort"),
        (lambda x: x.flatten(2).cumsum(-1), "over a flattened picture"),
        (lambda x: levels(x)[:, 5:], "several resolutions"),
    ],
)
def test_what_counts_the_padding_is_refused_by_name(function: Callable[[Tensor], Any], says: str) -> None:
    with pytest.raises(UnknownOperation, match=says):
        ExactPadding(model(function))(*padded(pictures([(9, 11)], 3), BUCKET))


class Scaled(nn.Module):
    """Multiplied with a tensor that is made of the size of the map."""

    def __init__(self, written: bool) -> None:
        super().__init__()
        self.written = written

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.written:
            sizes = torch.empty(2)
            sizes[0], sizes[1] = height, width
        else:
            sizes = torch.tensor([height, width], dtype=torch.float)
        return (x * (sizes.sum() / 10)).mean((2, 3))


@pytest.mark.parametrize("written", [False, True])
def test_a_tensor_made_of_a_size_leaves_the_pictures_of_that_size(written: bool) -> None:
    exact = ExactPadding(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Scaled(written)))
    exact(*padded(pictures([BUCKET], 3), BUCKET))
    assert (exact.heights, exact.widths) == ((25, 26), (21, 22))
