"""Windows and heads that are rows of the batch: each looks at itself, and they are put together again."""

from __future__ import annotations

from typing import Any, Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from tests.building.models_for_exact import Call, around, largest_deviation, padded, pictures

BUCKET = (24, 20)
SIZES = [(24, 20), (13, 20), (9, 11), (23, 7), (5, 5), (4, 8)]
STEP = 4


class Windows(nn.Module):
    """Attention within windows, which are cut out of a map that is padded to whole ones."""

    def __init__(self, attend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.attend, self.norm = attend, nn.LayerNorm(8)
        self.parts, self.last = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        rows, _, height, width = x.shape
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % STEP, 0, -height % STEP))
        tall, wide = x.shape[1:3]
        x = x.view(rows, tall // STEP, STEP, wide // STEP, STEP, 8).transpose(2, 3)
        x = self.norm(x.reshape(-1, STEP * STEP, 8))
        x = self.last(F.gelu(self.attend(self.parts(x))))
        x = x.view(-1, tall // STEP, wide // STEP, STEP, STEP, 8).transpose(2, 3)
        x = x.reshape(-1, tall, wide, 8)[:, :height, :width]
        return x.permute(0, 3, 1, 2)


class Counted(nn.Module):
    """How many pictures there are is worked out from how many windows (SAM, ViTDet)."""

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % STEP, 0, -height % STEP))
        tall, wide = x.shape[1:3]
        x = x.view(rows, tall // STEP, STEP, wide // STEP, STEP, channels).transpose(2, 3)
        x = x.contiguous().view(-1, STEP, STEP, channels)
        x = x.softmax(1) + x.softmax(2)
        rows = x.shape[0] // (tall * wide // STEP // STEP)
        x = x.view(rows, tall // STEP, wide // STEP, STEP, STEP, -1).transpose(2, 3)
        return x.reshape(rows, tall, wide, -1)[:, :height, :width].permute(0, 3, 1, 2)


def by_matmul(x: Tensor) -> Tensor:
    query, key, value = x.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (query @ key.transpose(-1, -2)) * 0.5 + torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def by_one_operation(x: Tensor) -> Tensor:
    query, key, value = x.view(x.shape[0], 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(-1, 16, 8)


def with_a_list(x: Tensor) -> Tensor:
    """Each window by its place, as many as this bucket has."""
    return by_matmul(x * torch.linspace(0.5, 1, x.shape[0])[:, None, None])


class Heads(nn.Module):
    """Attention over the whole picture, each head a row of the batch, as torch.bmm wants it."""

    def __init__(self, heads_first: bool = False) -> None:
        super().__init__()
        self.parts, self.heads_first = nn.Conv2d(8, 24, 1), heads_first

    def forward(self, x: Tensor) -> Tensor:
        rows, _, height, width = x.shape
        parts = self.parts(x).chunk(3, 1)
        if self.heads_first:
            parts = [each.view(rows, 2, 4, -1).transpose(0, 1).reshape(2 * rows, 4, -1) for each in parts]
        else:
            parts = [each.reshape(rows * 2, 4, height * width) for each in parts]
        query, key, value = parts
        scores = torch.bmm(query.transpose(1, 2), key).softmax(-1)
        return torch.bmm(value, scores.transpose(1, 2)).view(rows, 8, height, width)


class Pixels(nn.Module):
    """Every position a row of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        x = self.layers(x.permute(0, 2, 3, 1).reshape(-1, channels))
        return x.view(rows, height, width, channels).permute(0, 3, 1, 2)


class Across(nn.Module):
    """Attention between the same pixels of all windows (MobileViT): the pixels are rows of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        x = x.reshape(rows * channels * (height // 2), 2, width // 2, 2).transpose(1, 2)
        x = x.reshape(rows, channels, -1, 4).transpose(1, 3).reshape(rows * 4, -1, channels)
        query, key, value = self.parts(x).chunk(3, -1)
        x = F.scaled_dot_product_attention(query, key, value)
        x = x.view(rows, 4, -1, channels).transpose(1, 3)
        x = x.reshape(rows * channels * (height // 2), width // 2, 2, 2).transpose(1, 2)
        return x.reshape(rows, channels, height, width)


EVEN = [(24, 20), (12, 20), (8, 10), (22, 6), (4, 4), (4, 8)]
MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "windows": (lambda: Windows(by_matmul), SIZES),
    "windows, one operation": (lambda: Windows(by_one_operation), SIZES),
    "windows that are counted": (Counted, SIZES),
    "heads": (Heads, SIZES),
    "pixels": (Pixels, SIZES),
    "pixels across windows": (Across, EVEN),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", MODELS)
def test_rows_of_one_picture_are_followed(name: str) -> None:
    build, sizes = MODELS[name]
    torch.manual_seed(0)
    model = around(build())
    exact = ExactPadding(model)
    with torch.no_grad():
        traced = torch.jit.trace(exact, padded(pictures(sizes[:2]), BUCKET), check_trace=False)
    for run in (exact, traced):
        error, plain = largest_deviation(model, sizes, BUCKET, run=run, exact=exact, garbage=3.0)
        assert error < 2e-5
        assert plain > 1e-2
    for height, width in sizes:
        assert height in exact.heights
        assert width in exact.widths


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x.reshape(-1, 20).softmax(0).view(-1, 8, 24, 20), r"softmax \(it mixes the rows"),
        (lambda x: x.reshape(-1, 24, 20).sum(0), r"sum \(it mixes the rows"),
        (lambda x: x.reshape(-1, 24, 20).flip(0).view(-1, 8, 24, 20), r"flip \(windows of the picture"),
        (lambda x: x.reshape(-1, 24, 20)[:8], "getitem"),
        (lambda x: x.permute(1, 0, 2, 3).reshape(-1, 24, 20) * 2, "reshape|view"),
        (lambda x: x.permute(0, 2, 1, 3).reshape(x.shape[0] * 24, 8, 20).mean((1, 2)), r"conv2d \(only"),
    ],
    ids=["softmax", "sum", "flip", "slice", "channels first", "mean"],
)
def test_what_mixes_such_rows_is_named(function: Callable[[Tensor], Tensor], says: str) -> None:
    with torch.no_grad(), pytest.raises(UnknownOperation, match=says):
        ExactPadding(around(Call(function)))(*padded(pictures([(9, 11), (20, 5)]), BUCKET))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Windows(with_a_list), "a number for each"),
        (lambda: Heads(heads_first=True), "rows of the batch are separated or joined"),
    ],
    ids=["windows by their place", "heads before rows"],
)
def test_rows_that_are_not_followed_are_named(build: Callable[[], nn.Module], says: str) -> None:
    with torch.no_grad(), pytest.raises(UnknownOperation, match=says):
        ExactPadding(around(build()))(*padded(pictures([(9, 11), (20, 5)]), BUCKET))


def test_rows_that_are_left_joined_cannot_be_cut() -> None:
    exact = ExactPadding(around(nn.Identity(), after=8).append(Call(lambda x: x.reshape(-1, 24, 20) * 1.0)))
    with torch.no_grad():
        exact(*padded(pictures([(9, 11)]), BUCKET))
    assert "rows" in exact.uncut[0]
