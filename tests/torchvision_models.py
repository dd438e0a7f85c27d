"""Models of torchvision with random weights, as somebody hands them over: with their weights' transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.zoo.pictures.randomly import randomised

LABELS = ["sky", "sea", "land", "tree", "road"]


def classifier() -> Any:
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    made = _made(lambda: mobilenet_v3_small(num_classes=len(LABELS)), MobileNet_V3_Small_Weights.DEFAULT)
    made.classifier[-1].weight.data.mul_(30)  # so that the classes are told apart
    return made


def segmenter() -> Any:
    from torchvision.models.segmentation import (
        LRASPP_MobileNet_V3_Large_Weights,
        lraspp_mobilenet_v3_large,
    )

    return _made(
        lambda: lraspp_mobilenet_v3_large(num_classes=len(LABELS), weights_backbone=None),
        LRASPP_MobileNet_V3_Large_Weights.DEFAULT,
    )


def _made(build: Callable[[], Any], weights: Any) -> Any:
    """The same each time, in the build and in the test: its layers' weights are drawn after the seed."""
    torch.manual_seed(4)
    model = build()
    model.transforms, model.labels = weights.transforms(), LABELS
    return randomised(model, torch.randn(2, 3, 160, 192))
