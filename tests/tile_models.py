"""Small models of pictures with random weights: some can be answered in tiles, some look at everything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.image_models import seeded


class UNet(nn.Module):
    """Halves twice and doubles twice: its answer has the picture's size, and moves by 4 pixels only."""

    labels = ["water", "rock", "grass"]

    def __init__(self, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.down = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.norm = nn.BatchNorm2d(8)
        self.low = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ModuleList([nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)])
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x, kept = pixel_values, []
        for layer in self.down:
            kept.append(self.norm(layer(x)).relu())
            x = F.max_pool2d(kept[-1], 2)
        x = self.low(x).relu()
        for layer in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=self.align_corners)
            x = layer(torch.cat([x, kept.pop()], 1)).relu()
        return self.head(x)


class Resized(nn.Module):
    """Scores at an eighth, brought to the picture's size: exactly 8 times only where that is a multiple."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(n, 6, 3, 2, 1) for n in (3, 6, 6)))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return F.interpolate(self.layers(pixel_values), size=pixel_values.shape[2:], mode="bilinear")


class Third(nn.Module):
    """No padding anywhere, moves by 3, answers with 2 for every 3 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 4, stride=2)
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values)


class Excited(nn.Module):
    """Squeeze and excitation: every channel is scaled by what is in the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.layer(pixel_values)
        return x * self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()


class Deep(nn.Module):
    """Four residual layers at a quarter of the picture, and their mean beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)])

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(pixel_values)
        for layer in self.layers:
            x = x + layer(x).relu()
        return x, x.mean((2, 3))


def _made(kind: Any, *given: Any) -> nn.Module:
    torch.manual_seed(0)
    return seeded(kind(*given))


def unet() -> nn.Module:
    return _made(UNet)


def unet_aligned() -> nn.Module:
    return _made(UNet, True)


def resized() -> nn.Module:
    return _made(Resized)


def third() -> nn.Module:
    return _made(Third)


def deep() -> nn.Module:
    return _made(Deep)


def excited() -> nn.Module:
    return _made(Excited)


def normed() -> nn.Module:
    return _made(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)))


def far() -> nn.Module:
    return _made(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, dilation=40, padding=40), nn.Conv2d(8, 2, 3)))
