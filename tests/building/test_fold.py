"""Batch norms folded into convolutions: the same answers, and only where nothing else sees the difference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding
from anyshape.building.fold import fold_batch_norms, has_batch_norms
from anyshape.packed import unpack
from tests.conftest import assert_close
from tests.image_models import built, seeded


class Chain(nn.Module):
    """Convolutions and norms in all the ways that folding must see through: with and without a bias, grouped,
    strided, in a sequence, by hand in another order than they were made in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)
        self.convolution = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.sequence = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=False), nn.BatchNorm2d(6))
        self.plain = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.convolution(x)))
        return self.plain(torch.relu(self.sequence(x)) + x)


class Twice(nn.Module):
    """A convolution that something else sees, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return self.norm(x) + x


class SharedConvolution(Twice):
    """One convolution for two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x)) + self.other(self.convolution(2 * x))


class SharedNorm(Twice):
    """One norm for two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x)) + self.norm(self.other(x))


class NormFirst(Twice):
    """The norm before the convolution, as some residual blocks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.norm(x))


class Untraceable(Twice):
    """Needs what a trace does not have."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not in a trace")
        return self.norm(self.convolution(x))


def made(kind: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    return seeded(kind()).requires_grad_(False)


def folded(model: nn.Module) -> tuple[int, nn.Module]:
    other = copy.deepcopy(model)
    return fold_batch_norms(other, (torch.rand(1, 3, 8, 8),)), other


def test_a_folded_model_answers_the_same_without_its_norms() -> None:
    model = made(Chain)
    count, other = folded(model)
    assert count == 2
    assert has_batch_norms(model)
    assert not has_batch_norms(other)
    pixels = torch.rand(2, 3, 9, 14)
    assert_close(other(pixels), model(pixels))


@pytest.mark.parametrize("kind", [Twice, SharedConvolution, SharedNorm, NormFirst, Untraceable])
def test_a_norm_stays_where_folding_it_would_change_something_else(kind: Callable[[], nn.Module]) -> None:
    model = made(kind)
    count, other = folded(model)
    assert count == 0
    assert has_batch_norms(other)
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(other(pixels), model(pixels))


def test_a_norm_with_two_names_goes_under_both() -> None:
    model = made(Twice)
    model.forward = lambda x: model.again(model.convolution(x))
    model.again = model.norm
    pixels = torch.rand(2, 3, 8, 8)
    expected = model(pixels)
    assert fold_batch_norms(model, (pixels,)) == 1
    assert not has_batch_norms(model)
    assert_close(model(pixels), expected)


def test_folding_leaves_exact_padding_exact() -> None:
    model = made(Chain)
    _, other = folded(model)
    pixels = torch.rand(1, 3, 7, 10)
    padded = torch.full((1, 3, 16, 16), 5.0)
    padded[:, :, :7, :10] = pixels
    with torch.no_grad():
        answer, size = ExactPadding(other)(padded, torch.tensor([[7, 10]]))
        height, width = (int(side) for side in size[0])
        assert_close(answer[:, :, :height, :width], model(pixels))


def test_buckets_share_the_folded_weights(tmp_path: Path) -> None:
    archive = built(
        tmp_path,
        "small",
        task="image-classification",
        model="tests.image_models:resnet_classifier",
        buckets=[[32, 32], [48, 64]],
    )
    (tmp_path / "unpacked").mkdir()
    unpack(archive, tmp_path / "unpacked")
    container = torch.jit.load(str(tmp_path / "unpacked" / "models" / "buckets.pt"))
    small, large = (getattr(container.buckets, name) for name in ("32x32", "48x64"))
    for program in (small, large):
        assert not [n for n in program.inlined_graph.nodes() if n.kind() == "aten::batch_norm"]
    weights = [dict(program.named_parameters()) for program in (small, large)]
    assert weights[0].keys() == weights[1].keys() != set()
    assert all(weights[0][name].data_ptr() == weights[1][name].data_ptr() for name in weights[0])
