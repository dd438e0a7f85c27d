"""deepCR: a UNet that marks cosmic rays in Hubble's ACS/WFC images, from deepCR 0.3.1.

Zhang & Bloom, deepCR: Cosmic Ray Rejection with Deep Learning (ApJ 889, 2020).
"""

from __future__ import annotations

from typing import List

import torch
from torch import Tensor, nn

from .weights import packaged_file


class DoubleConv(nn.Module):
    """Twice: convolution, batch norm, ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        layers: List[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after)]
            layers.append(nn.ReLU(inplace=True))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Down(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.mpconv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(before, after))

    def forward(self, x: Tensor) -> Tensor:
        return self.mpconv(x)


class Up(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(before, after, 2, stride=2)
        self.conv = DoubleConv(before, after)

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(low)], dim=1))


class Inc(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = DoubleConv(before, after)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Outc(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class DeepCR(nn.Module):
    """[B, 1, H, W] float32 in counts (electrons), H and W even → probability [B, 1, H, W].

    labels: what the one channel marks.
    """

    labels: List[str]
    image_multiple_of = 2
    image_mean = (0.0,)
    image_std = (1.0,)

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.inc = Inc(1, hidden)
        self.down1 = Down(hidden, hidden * 2)
        self.up8 = Up(hidden * 2, hidden)
        self.outc = Outc(hidden, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        skip = self.inc(pixel_values)
        return torch.sigmoid(self.outc(self.up8(self.down1(skip), skip)))


def deepcr() -> DeepCR:
    """The ACS-WFC model with its real weights, in eval mode. Raises WeightsError."""
    file = packaged_file(
        "learned_models",
        "mask/ACS-WFC.pth",
        "0075cef7a8b72f3ecf449cac3793d3446720a97fc0ba812fb29863a9be1e7ace",
        416_836,
    )
    state = torch.load(file, map_location="cpu", weights_only=True)
    model = DeepCR()
    model.load_state_dict({name[len("module.") :]: value for name, value in state.items()})
    model.labels = ["cosmic ray"]
    return model.eval()
