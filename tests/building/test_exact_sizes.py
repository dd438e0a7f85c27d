"""Sizes that a model reads and works with in Python: followed, or kept for the pictures that agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.exact.region import Axis, Space
from tests.building.models_for_exact import Call, around, largest_deviation, padded, pictures, seeded

BUCKET = (24, 20)


def pooled_to_a_number_of_rows(x: Tensor) -> Tensor:
    return x * F.adaptive_avg_pool2d(x, 24 if x.shape[1] else 1).mean((2, 3), keepdim=True)


def resized_to_the_buckets_own_size(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(24, 20), mode="bilinear") if x.shape[2] > 0 else x


def gated_from_one_row(x: Tensor) -> Tensor:
    # As GhostNetV2 in a small map: its pooled rows are one for every picture, its columns are not.
    return x * F.interpolate(F.avg_pool2d(x, (16, 2)), size=(x.shape[-2], x.shape[-1]), mode="nearest")


def cut_to_even_rows(x: Tensor) -> Tensor:
    return x[:, :, :-1] if x.shape[2] % 2 else x


def padded_to_fours(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return F.pad(x, (0, (4 - width) % 4, 0, 0 * height))


def padded_as_tensorflow_does(x: Tensor) -> Tensor:
    height, width = x.size(2), x.size(-1)
    tall, wide = (max((-(-side // 3) - 1) * 3 + 5 - side, 0) for side in (height, width))
    x = F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
    return F.avg_pool2d(x, 5, 3)


def padded_as_timm_does(x: Tensor) -> Tensor:
    amounts = [max((math.ceil(side / 3) - 1) * 3 + 5 - side, 0) for side in x.shape[-2:]]
    if any(amount > 0 for amount in amounts):
        x = F.pad(x, [half for a in reversed(amounts) for half in (a // 2, a - a // 2)])
    return F.avg_pool2d(x, 5, 3)


def divided_by_its_height(x: Tensor) -> Tensor:
    return x.sum(2, keepdim=True) / (x.shape[2] // 10 + 1) + x


def scaled_by_a_ratio(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=(40 / (x.shape[2] - x.shape[2] % 4), 1), mode="nearest")


def branched_on_int(x: Tensor) -> Tensor:
    return x * 2 if int(x.shape[2]) % 2 else x


def rows_by_coincidence(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], 8, -1, 20) * 2


def in_four_parts(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], 8, -1, x.shape[2] // 4, x.shape[3]).mean(3)


def asked_by_area(x: Tensor) -> Tensor:
    return x * 2 if x.shape[2] * x.shape[3] > 400 else x


def divided_by_area(x: Tensor) -> Tensor:
    return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3]) + x


def squeezed_if_one(x: Tensor) -> Tensor:
    low = F.max_pool2d(x, (12, 1))
    return x * low.squeeze().reshape(x.shape[0], 8, -1, x.shape[3]).mean(2, keepdim=True)


def asks_for_a_multiple(x: Tensor) -> Tensor:
    assert x.shape[3] % 5 == 0, "five at a time"
    return x * 2


def resized_only_where_needed(x: Tensor) -> Tensor:
    low = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
    return x + (low if low.shape == x.shape else F.interpolate(low, size=x.shape[-2:]))


def halved_by_arithmetic(x: Tensor) -> Tensor:
    return x[:, :, : x.shape[2] // 2, : x.size()[3] - 1] * 2


def resized_by_arithmetic(x: Tensor) -> Tensor:
    _, _, height, width = x.shape
    return F.interpolate(x, size=(height * 2 - 1, width // 2 + 1), mode="bilinear")


def after_int(x: Tensor) -> Tensor:
    size = [int(side) for side in x.shape[-2:]]
    return x + F.interpolate(F.avg_pool2d(x, 3), size=size, mode="bilinear")


def narrowed(x: Tensor) -> Tensor:
    return F.pad(x, (0, 2, 0, 1)).narrow(2, 0, x.shape[2]).narrow(3, 1, x.shape[3])


def turned_if(decides: Callable[[Any, Any], Any]) -> Callable[[Tensor], Tensor]:
    return lambda x: -x if decides(x.shape[2], x.shape[3]) else x


Sides = Iterable[int]
MODELS: dict[str, tuple[Callable[[Tensor], Tensor], Sides, Sides]] = {
    "one row": (gated_from_one_row, range(16, 25), range(2, 21)),
    "pooling, by coincidence": (pooled_to_a_number_of_rows, range(1, 25), range(1, 21)),
    "size, by coincidence": (resized_to_the_buckets_own_size, range(1, 25), range(1, 21)),
    "branch": (cut_to_even_rows, range(2, 25, 2), range(1, 21)),
    "padding": (padded_to_fours, range(1, 25), range(1, 21)),
    "padding as TensorFlow's": (padded_as_tensorflow_does, range(1, 25), range(1, 21)),
    "padding as timm's": (padded_as_timm_does, range(1, 25), range(1, 21)),
    "number": (divided_by_its_height, range(1, 25), range(1, 21)),
    "ratio": (scaled_by_a_ratio, range(24, 25), range(1, 21)),
    "branch on int()": (branched_on_int, range(24, 25), range(1, 21)),
    "reshaped, by coincidence": (rows_by_coincidence, range(1, 25), range(20, 21)),
    "four parts": (in_four_parts, range(24, 25), range(1, 21)),
    "branch on the area": (asked_by_area, range(24, 25), range(20, 21)),
    "number of positions": (divided_by_area, range(24, 25), range(20, 21)),
    "squeezed": (squeezed_if_one, range(24, 25), range(2, 21)),
    "assertion": (asks_for_a_multiple, range(1, 25), range(5, 21, 5)),
    "resized where needed": (resized_only_where_needed, range(2, 25, 2), range(2, 21, 2)),
    "slice": (halved_by_arithmetic, range(2, 25), range(2, 21)),
    "interpolation": (resized_by_arithmetic, range(1, 25), range(1, 21)),
    "after int()": (after_int, range(3, 25), range(3, 21)),
    "twice as high as wide": (turned_if(lambda h, w: h > 2 * w), range(1, 25), range(12, 21)),
    "as high as wide": (turned_if(lambda h, w: h == w), range(21, 25), range(1, 21)),
    "height and width": (turned_if(lambda h, w: h + w < 9), range(24, 25), range(20, 21)),
    "height by width": (turned_if(lambda h, w: h / w > 5), range(24, 25), range(20, 21)),
    "root of the area": (turned_if(lambda h, w: (h * w) ** 0.5 < 4), range(24, 25), range(20, 21)),
    "parts of the area": (turned_if(lambda h, w: h * w * 8 // 2 < 40), range(24, 25), range(20, 21)),
    "int() of the area": (turned_if(lambda h, w: int(h * w) < 40), range(24, 25), range(20, 21)),
    "narrow": (narrowed, range(1, 25), range(1, 21)),
}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_every_size_that_is_accepted_is_answered_as_for_the_picture_alone(name: str, traced: bool) -> None:
    function, heights, widths = MODELS[name]
    model = around(Call(function))
    exact: Any = ExactPadding(model)
    run = exact
    with torch.no_grad():
        example = padded(pictures([BUCKET, (12, 10)]), BUCKET)
        run = torch.jit.trace(exact, example, check_trace=False) if traced else exact
        run(*example)
    assert exact.heights == tuple(heights)
    assert exact.widths == tuple(widths)
    sizes = [(h, exact.widths[i % len(exact.widths)]) for i, h in enumerate(exact.heights)]
    sizes += [(exact.heights[-1], w) for w in exact.widths]
    error, _ = largest_deviation(model, sizes, BUCKET, exact=exact, run=run)
    assert error < 2e-5


def test_a_pooling_that_follows_the_picture_is_named() -> None:
    model = around(Call(lambda x: x + F.adaptive_avg_pool2d(F.pad(x, (0, 1, 0, 1)), x.shape[-2:])))
    with torch.no_grad(), pytest.raises(UnknownOperation, match="its size follows the image's"):
        ExactPadding(model)(*padded(pictures([(9, 11)]), BUCKET))


def test_a_size_is_a_number_that_knows_the_others() -> None:
    space = Space(torch.tensor([[5, 5]]), 8, 8)
    side = space.side(Axis(0, tuple(range(9))))
    assert (side, side + 1, 3 * side, side // 3, 20 - side, side % 3, hash(side)) == (8, 9, 24, 2, 12, 2, 8)
    assert (side * 2 - side).table == tuple(range(9))  # type: ignore[attr-defined]
    assert type(side - side) is int
    assert side / 2 == 4.0
    assert [0] * side == [0] * 8
    assert list(range(side)) == list(range(8))
    space = Space(torch.tensor([[5, 5]]), 8, 8)
    side = space.side(Axis(0, tuple(range(9))))
    assert side > 3
    assert space.accepted[0] == [False] * 4 + [True] * 5
    assert space.accepted[1] == [True] * 9


class OneSize(nn.Module):
    """Takes pictures of one height alone where it `asserts` so."""

    def __init__(self, asserts: bool) -> None:
        super().__init__()
        self.asserts, self.layer = asserts, nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.asserts:
            torch._assert(x.shape[2] == 12, "another height")
        return self.layer(x * x.chunk(2, 2)[0].sum(2, keepdim=True)).mean((2, 3))


def test_a_side_of_one_size_needs_no_tracking() -> None:
    exact = ExactPadding(seeded(lambda: OneSize(True)))
    with torch.no_grad():
        exact(*padded(pictures([(12, 7)]), (12, 10)))
        assert exact.heights == (12,)
        assert 7 in exact.widths
        with pytest.raises(UnknownOperation, match="chunk"):
            ExactPadding(seeded(lambda: OneSize(False)))(*padded(pictures([(12, 7)]), (12, 10)))


def test_a_batch_that_len_counts_is_as_large_as_it_will_be() -> None:
    """As RT-DETR's: for torch.jit.trace and torch.export len() is the number of rows of the example."""

    def repeated(x: Tensor) -> Tensor:
        return torch.ones(1, 4, 1, 1).tile([len(x.flatten(2)), 1, 1, 1]) * x.mean((2, 3), keepdim=True)

    exact = ExactPadding(seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Call(repeated))))
    example, sizes = padded(pictures([(9, 7), (12, 10)]), (12, 10)), [(12, 10), (5, 7), (3, 3)]
    batch = padded(pictures(sizes), (12, 10), 3.0)
    rows = torch.export.Dim("rows", min=1, max=8)
    with torch.no_grad():
        expected, *_ = exact(*batch)
        traced = torch.jit.trace(exact, example, check_trace=False)
        exported = torch.export.export(exact, example, dynamic_shapes=({0: rows}, {0: rows}))
        for run in (traced, exported.module()):
            assert torch.allclose(run(*batch)[0], expected, atol=1e-6)


class ByRows(nn.Module):
    """A number made of the batch and of the picture's height; that is a tensor while the model is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        lines = x.permute(0, 2, 1, 3).reshape(rows * height, channels, width)
        x = (lines * 1.5).view(rows, height, channels, width).permute(0, 2, 1, 3)
        return self.layer(x)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("runs_before", [False, True])
def test_what_a_trace_makes_of_the_batch_narrows_nothing(runs_before: bool) -> None:
    model = around(ByRows())
    exact, sizes = ExactPadding(model), [(12, 10), (7, 10), (5, 4)]
    example = padded(pictures([(12, 10), (12, 10)]), (12, 10))
    with torch.no_grad():
        if runs_before:
            exact(*example)
        traced = torch.jit.trace(exact, example, check_trace=False)
        error, plain = largest_deviation(model, sizes, (12, 10), run=traced, exact=exact, garbage=3.0)
    assert error < 2e-5
    assert plain > 1e-2


SMOOTHED = [
    {"scale_factor": 0.4, "mode": "bilinear"},
    {"scale_factor": 0.3, "mode": "bicubic"},
    {"scale_factor": 2.0, "mode": "bicubic", "recompute_scale_factor": True},
    {"scale_factor": 0.7, "mode": "bilinear", "align_corners": True},
    {"size": (5, 7), "mode": "bicubic"},
]


@pytest.mark.parametrize("options", SMOOTHED, ids=str)
def test_antialiased_interpolation(options: dict[str, Any]) -> None:
    """Where one row or column is left, torch repeats the first one: those sizes are not taken."""
    model = around(Call(lambda x: F.interpolate(x, antialias=True, **options)))
    exact = ExactPadding(model)
    with torch.no_grad():
        exact(*padded(pictures([BUCKET]), BUCKET))
        taken = [n for n in range(1, 25) if int(n * options.get("scale_factor", 9)) > 1]
        assert list(exact.heights) == taken
        sizes = [(h, w) for h in exact.heights for w in exact.widths][::17]
        error, plain = largest_deviation(model, sizes, BUCKET, exact=exact, garbage=math.nan)
    assert len(sizes) > 10
    assert error < 2e-5
    assert plain > 1e-2
