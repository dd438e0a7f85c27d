"""Models of torchvision with random weights, as somebody hands them over: with their weights' transforms."""

from __future__ import annotations

from typing import Any

import torch

from tests.image_models import seeded

LABELS = ["sky", "sea", "land", "tree", "road", "house"]


def classifier() -> Any:
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    return _made(mobilenet_v3_small(num_classes=len(LABELS)), MobileNet_V3_Small_Weights.DEFAULT)


def segmenter() -> Any:
    from torchvision.models.segmentation import (
        LRASPP_MobileNet_V3_Large_Weights,
        lraspp_mobilenet_v3_large,
    )

    made = lraspp_mobilenet_v3_large(num_classes=len(LABELS), weights_backbone=None)
    return _made(made, LRASPP_MobileNet_V3_Large_Weights.DEFAULT)


def _made(model: Any, weights: Any) -> Any:
    torch.manual_seed(4)
    for parameter in model.parameters():  # by which the answers differ from picture to picture
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    model.transforms, model.labels = weights.transforms(), LABELS
    return seeded(model)
