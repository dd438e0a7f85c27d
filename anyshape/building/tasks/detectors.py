"""Detectors whose own post-processing cannot be compiled, split into heads that can: torchvision's.

Their forward takes a list of pictures, resizes them, and gives lists of boxes whose number depends on the
picture. What is compiled is the backbone and the heads as they leave their last convolutions.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from anyshape.errors import ConfigError

HOW_TO_SPLIT = (
    "a detector is split: let handler.model be a function that returns a module of the backbone and the "
    "heads alone, without anchors, boxes or suppression, and give it the attributes `boxes` (the family: "
    "fcos, retinanet, ssd, yolov3, yolov5, yolov8 or yolox), `strides` and `anchors`"
)


def split(model: Any) -> Any:
    """The heads of a detector of torchvision; another model as it is.

    Raises ConfigError for one of two stages, which names it.
    """
    name = type(model).__name__
    if any("GeneralizedRCNN" in kind.__name__ for kind in type(model).__mro__):
        raise ConfigError(
            f"handler.model: {name} is a detector of two stages: its second one looks at boxes that the "
            "first has found, and their number depends on the picture, so it cannot be compiled for fixed "
            "shapes: take one of one stage, such as RetinaNet, FCOS, SSD, YOLO or DETR"
        )
    known = any(kind.__module__.startswith("torchvision.models.detection") for kind in type(model).__mro__)
    return SPLITS[name](model) if known and name in SPLITS else model


class Heads(nn.Module):
    """A backbone, and for each of its levels the maps of one head after the other."""

    def __init__(self, model: Any, boxes: str, image_multiple_of: int = 1) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.boxes = boxes
        self.strides: List[float] = []
        self.anchors: List[Any] = []
        self.image_mean, self.image_std = list(model.transform.image_mean), list(model.transform.image_std)
        self.image_multiple_of = image_multiple_of

    def levels(self, pixel_values: Tensor) -> List[Tensor]:
        features = self.backbone(pixel_values)
        return [features] if isinstance(features, Tensor) else list(features.values())


class Shared(Heads):
    """RetinaNet and FCOS: the same convolutions on every level, of a pyramid whose strides double."""

    def __init__(self, model: Any, boxes: str) -> None:
        super().__init__(model, boxes, 32)
        classes, regression = model.head.classification_head, model.head.regression_head
        self.classes = nn.Sequential(classes.conv, classes.cls_logits)
        self.regression, self.distances = regression.conv, regression.bbox_reg
        self.centredness = getattr(regression, "bbox_ctrness", None)
        for cell in model.anchor_generator.cell_anchors:  # corners around 0
            self.anchors.append([[right - left, low - top] for left, top, right, low in cell.tolist()])
        if self.centredness is not None:  # one anchor for each cell: what distances are measured in
            self.strides, self.anchors = [width for ((width, _),) in self.anchors], []

    def forward(self, pixel_values: Tensor) -> Tuple[Tensor, ...]:
        levels = self.levels(pixel_values)
        classes = [self.classes(level) for level in levels]
        regressed = [self.regression(level) for level in levels]
        distances = [self.distances(each) for each in regressed]
        if self.centredness is None:
            return (*classes, *distances)
        return (*classes, *map(torch.relu, distances), *(self.centredness(each) for each in regressed))


class Several(Heads):
    """SSD and SSDlite: convolutions of its own for every level."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, "ssd")
        self.classes = model.head.classification_head.module_list
        self.regression = model.head.regression_head.module_list
        for pairs in model.anchor_generator._wh_pairs:
            self.anchors.append(pairs.clamp(0, 1).tolist() if model.anchor_generator.clip else pairs.tolist())

    def forward(self, pixel_values: Tensor) -> Tuple[Tensor, ...]:
        levels = self.levels(pixel_values)
        classes = [head(level) for head, level in zip(self.classes, levels)]
        return (*classes, *(head(level) for head, level in zip(self.regression, levels)))


def _ssd(model: Any) -> nn.Module:
    if model.anchor_generator.steps is not None:
        raise ConfigError(
            "handler.model: this SSD's boxes lie at fixed steps of pixels (SSD300 with VGG): only those that "
            "follow the picture's size are read, as SSDlite's"
        )
    return Several(model)


SPLITS: Dict[str, Callable[[Any], nn.Module]] = {
    "FCOS": lambda model: Shared(model, "fcos"),
    "RetinaNet": lambda model: Shared(model, "retinanet"),
    "SSD": _ssd,
}


def families(model: Any, named: Optional[str]) -> str:
    """The family of a model's raw heads; `named` is the recipe's."""
    return (
        named or getattr(model, "boxes", None) or ("yolov3" if getattr(model, "anchors", None) else "queries")
    )
