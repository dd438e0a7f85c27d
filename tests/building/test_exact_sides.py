"""What is done along a side of the picture: turned, rolled, reduced, cut from its end, joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.outputs import tensors_of
from tests.building.models_for_exact import Call, largest_deviation, padded, pictures, seeded

BUCKET = (24, 20)
SIZES = [(24, 20), (23, 19), (13, 20), (9, 11), (24, 7), (5, 5), (4, 4)]
LENGTHS = [120, 119, 64, 33, 17]


def pooled_strips(x: Tensor) -> Tensor:
    """Every row and every column to one, and back (strip pooling)."""
    down = F.adaptive_avg_pool2d(x, (x.shape[2], 1)).expand(-1, -1, x.shape[2], x.shape[3])
    across = F.adaptive_max_pool2d(x, (None, 1)) * F.adaptive_avg_pool2d(x, (1, None))
    return x * down.sigmoid() + across


def statistics(x: Tensor) -> Tensor:
    spread, middle = torch.std_mean(x, 3, unbiased=False)
    return torch.cat([*torch.var_mean(x, (2, 3)), (spread * middle).amax(2)], 1)


PICTURES: dict[str, Callable[[Tensor], Any]] = {
    "flipped": lambda x: x.flip(3) * 2 + x + torch.flip(x, (1, 2)),
    "rolled": lambda x: x.roll((2, -3), (2, 3)) - x.roll(1, 3) + x.roll(2, 1),
    "repeated": lambda x: F.avg_pool2d(x.repeat_interleave(2, 2).repeat_interleave(3, dim=3), 5, 1, 2),
    "logsumexp": lambda x: x.logsumexp((2, 3)) + x.logsumexp(3).sum(2),
    "any and all": lambda x: (x > 1).any(3).float().mean(2) + (x > -1).all(2).flatten(2).all(-1).float(),
    "product": lambda x: (x.sigmoid() + 0.5).prod(3).prod(2),
    "with means": statistics,
    "pooled to one": lambda x: F.avg_pool2d(x, x.shape[2:]) + F.max_pool2d(x, x.size()[2:], stride=1),
    "columns to one": lambda x: F.avg_pool2d(x, (x.shape[2], 1)),
    "strips": pooled_strips,
    "norm": lambda x: x * torch.norm(x, p=2, dim=(2, 3), keepdim=True),
    "running": lambda x: torch.cat([x.cummax(3)[0], x.tanh().cumprod(2), x.logcumsumexp(3)], 1).mean(3),
    "its end": lambda x: x[:, :, -3:].mean(2) + x[:, :, -2] + x[:, :, x.shape[2] // 2],
    "one before it": lambda x: (
        torch.cat([x[:, :, :1] * 2, x[:, :, 1:] - x[:, :, :-1]], 2).square().mean((2, 3))
    ),
    "zeros before it": lambda x: torch.cat([torch.zeros_like(x[..., :1]), x], 3).diff(dim=3).amax(3),
    "where the largest is": lambda x: torch.stack(
        [x.flatten(2).max(-1, keepdim=True).indices[..., 0], x.flatten(2).argmin(2)], 2
    ),
}


def averaged(x: Tensor) -> Tensor:
    """Mean and deviation beside every moment, as attentive pooling has it (ECAPA)."""
    mean = x.mean(2, keepdim=True).expand(-1, -1, x.shape[2])
    weights = torch.cat([x, mean, x.std(2, keepdim=True).expand_as(x)], 1).tanh().mean(1, keepdim=True)
    return (x * weights.softmax(2)).sum(2)


SIGNALS: dict[str, Callable[[Tensor], Any]] = {
    "pre-emphasis": lambda x: torch.cat([x[:, :, :1], x[:, :, 1:] - 0.9 * x[:, :, :-1]], 2).square(),
    "attentive pooling": averaged,
    "differences": lambda x: torch.diff(x).abs().mean(-1) + x.diff(dim=1).mean(2).mean(1, keepdim=True),
    "pooled to one": lambda x: F.avg_pool1d(x, x.shape[-1]) * F.max_pool1d(x, x.shape[2]),
    "pooled to a few": lambda x: F.adaptive_max_pool1d(x, 5),
    "sums to the end": lambda x: x.flip(-1).cumsum(-1).flip(-1) / x.shape[1],
    "correlated": lambda x: (x @ x.mT).flatten(1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_side_of_a_picture(name: str) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), Call(PICTURES[name])))
    exact = ExactPadding(model)
    with torch.no_grad():
        traced = torch.jit.trace(exact, padded(pictures(SIZES[:2]), BUCKET), check_trace=False)
    for run in (exact, traced):
        error, plain = largest_deviation(model, SIZES, BUCKET, run=run, exact=exact, garbage=9.0)
        assert error < 2e-5
        assert plain > 1e-2
    for height, width in SIZES:
        assert height in exact.heights
        assert width in exact.widths


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal(name: str) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv1d(3, 4, 3, 1, 1), nn.BatchNorm1d(4), Call(SIGNALS[name])))
    exact, batch = ExactPadding(model), torch.randn(len(LENGTHS), 3, max(LENGTHS))
    differs = False
    with torch.no_grad():
        found = exact(batch, torch.tensor(LENGTHS)[:, None])[0]
        for row, length in enumerate(LENGTHS):
            (alone,) = model(batch[row : row + 1, :, :length])
            (whole,) = model(batch[row : row + 1])
            place = tuple(slice(side) for side in alone.shape)
            assert torch.allclose(found[row][place], alone, atol=2e-5)
            differs = differs or not torch.allclose(whole[place], alone, atol=1e-2)
    assert differs
    assert set(LENGTHS) <= set(exact.widths)


@pytest.mark.parametrize("largest", [True, False])
def test_of_infinite_scores_none_is_taken_from_outside(largest: bool) -> None:
    """As many as the picture has, most of them infinitely bad: each of its positions once."""
    bad = -torch.inf if largest else torch.inf

    def best(x: Tensor) -> Any:
        scores = torch.where(x.mean(1).flatten(1) > 0.6, x.mean(1).flatten(1), bad)
        return scores.topk(12, largest=largest)

    exact = ExactPadding(Call(best))
    sizes = [(4, 3), (6, 5), (3, 4), (7, 8)]
    with torch.no_grad():
        batch, valid = padded(pictures(sizes, 3), (7, 8), 9.0)
        values, places = exact(batch, valid)[:2]
        for row, (height, width) in enumerate(sizes):
            alone = batch[row : row + 1, :, :height, :width]
            assert torch.equal(values[row], best(alone).values[0])
            assert int(places[row].max()) < height * width
            assert len(set(places[row].tolist())) == 12
            known = values[row].isfinite()
            assert torch.equal(places[row][known], best(alone).indices[0][known])
    assert min(exact.heights) * min(exact.widths) >= 12


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: torch.cat([x, x[:, :, :1]], 2), "side by side"),
        (lambda x: F.adaptive_avg_pool2d(x, (x.shape[2] // 2, 1)), "its size follows"),
        (lambda x: x.repeat_interleave(torch.tensor([2]), 2), "by a tensor"),
        (lambda x: torch.diff(x, n=2), "of neighbours, once"),
    ],
    ids=["behind it", "half", "by a tensor", "twice"],
)
def test_what_is_not_exact_is_refused_by_name(function: Callable[[Tensor], Any], says: str) -> None:
    with torch.no_grad(), pytest.raises(UnknownOperation, match=says):
        ExactPadding(Call(function))(*padded(pictures([(9, 11)]), BUCKET))


def test_a_pooling_as_large_as_another_map_leaves_the_pictures_of_that_size() -> None:
    exact = ExactPadding(Call(lambda x: F.avg_pool2d(x[:, :, 2:], x.shape[2] - 10, 1)))
    with torch.no_grad():
        (found, *_) = tensors_of(exact(*padded(pictures([BUCKET]), BUCKET)))
    assert exact.heights == (24,)
    assert found.shape[2:] == (9, 7)
