"""Small models that take pictures of some sizes only, each for a reason of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.image_models import seeded


def conv(before: int, after: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding), nn.BatchNorm2d(after), nn.ReLU())


class HighResolution(nn.Module):
    """As HRNet: three resolutions side by side, each added to the others, then averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4, stride=2)
        self.to_half, self.to_quarter = conv(4, 4, stride=2), conv(4, 4, stride=2)
        self.mix = conv(4, 4)
        self.classes = nn.Linear(4, 5)

    def forward(self, pixel_values: Tensor) -> Tensor:
        whole = self.stem(pixel_values)
        half = self.to_half(whole)
        quarter = self.to_quarter(half)
        fused = whole + F.interpolate(half, scale_factor=2) + F.interpolate(quarter, scale_factor=4)
        return self.classes(self.mix(fused).mean((2, 3)))


class Hourglass(nn.Module):
    """Three times half and double again, with what was there before added."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.skip, self.low = conv(3 if depth == 3 else 4, 4), conv(3 if depth == 3 else 4, 4)
        self.inner = Hourglass(depth - 1) if depth > 1 else conv(4, 4)

    def forward(self, pixel_values: Tensor) -> Tensor:
        low = self.inner(self.low(F.max_pool2d(pixel_values, 2)))
        return self.skip(pixel_values) + F.interpolate(low, scale_factor=2)


class UNet(nn.Module):
    """Skip connections that are joined to what a transposed convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.bottom = conv(3, 4), conv(4, 6), conv(6, 8)
        self.up_two, self.up_one = nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 4, 2, 2)
        self.join_two, self.join_one = conv(12, 6), conv(8, 4)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        one = self.one(pixel_values)
        two = self.two(F.max_pool2d(one, 2))
        x = self.up_two(self.bottom(F.max_pool2d(two, 2)))
        x = self.up_one(self.join_two(torch.cat([x, two], 1)))
        return self.head(self.join_one(torch.cat([x, one], 1)))


class Patches(nn.Module):
    """As ConvNeXt: patches of four pixels, what is left over at the end is not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = conv(3, 8, kernel=4, stride=4, padding=0)
        self.down = conv(8, 8, kernel=2, stride=2, padding=0)
        self.mix = conv(8, 4, kernel=7, padding=3)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.mix(self.down(self.patches(pixel_values)))


class Focus(nn.Module):
    """As Swin's merging and YOLOv5's focus: every second row and column, put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = conv(12, 4)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = pixel_values
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.mix(torch.cat(parts, 1))


def fresh(kind: Any) -> nn.Module:
    torch.manual_seed(0)
    return seeded(kind())


def high_resolution() -> nn.Module:
    return fresh(HighResolution)


def hourglass() -> nn.Module:
    return fresh(Hourglass)


def unet() -> nn.Module:
    return fresh(UNet)


def patches() -> nn.Module:
    return fresh(Patches)


def focus() -> nn.Module:
    return fresh(Focus)


class Fixed(nn.Module):
    """A number for each position of a map of 4 by 4 patches, at which two classes look."""

    labels = ["near", "far"]

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table, self.head = (
            nn.Conv2d(3, 8, 8, 8),
            nn.Parameter(torch.randn(16, 8)),
            nn.Linear(8, 2),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        tokens = self.layer(pixel_values).flatten(2).transpose(1, 2) + self.table
        return self.head(tokens.tanh().mean(1))


def fixed() -> nn.Module:
    torch.manual_seed(0)
    return Fixed().eval()
