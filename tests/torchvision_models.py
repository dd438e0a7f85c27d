"""Models of torchvision with random weights, as somebody hands them over: with their weights' transforms."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.zoo.pictures.randomly import randomised

LABELS = ["sky", "sea", "land", "tree", "road"]


def classifier() -> Any:
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    made = _made(mobilenet_v3_small(num_classes=len(LABELS)), MobileNet_V3_Small_Weights.DEFAULT)
    made.classifier[-1].weight.data.mul_(30)  # so that the classes are told apart
    return made


def segmenter() -> Any:
    from torchvision.models.segmentation import (
        LRASPP_MobileNet_V3_Large_Weights,
        lraspp_mobilenet_v3_large,
    )

    made = lraspp_mobilenet_v3_large(num_classes=len(LABELS), weights_backbone=None)
    return _made(made, LRASPP_MobileNet_V3_Large_Weights.DEFAULT)


def _made(model: Any, weights: Any) -> Any:
    torch.manual_seed(4)
    model.transforms, model.labels = weights.transforms(), LABELS
    return randomised(model, torch.randn(2, 3, 160, 192))
