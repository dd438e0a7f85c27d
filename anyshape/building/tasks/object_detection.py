"""Detection: YOLOv3's raw heads, or DETR's queries."""

from __future__ import annotations

from pathlib import Path

import torch

from anyshape.building.tasks.image import ImageBuilder
from anyshape.errors import ConfigError

# Queries with a softmax over the classes and "no object", and boxes relative to the picture.
DETR_LIKE = ("detr", "table-transformer", "yolos")


class ObjectDetectionBuilder(ImageBuilder):
    """A model with `anchors` and `strides`, or one of transformers' whose boxes are DETR's."""

    auto_class = "AutoModelForObjectDetection"
    attributes = ("labels", "anchors", "strides")

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        if kind is not None and kind not in DETR_LIKE:
            raise ConfigError(
                f"handler.model: the boxes of a {kind} model are not understood; known are "
                f"{', '.join(DETR_LIKE)}, and models with `anchors` and `strides`, as YOLOv3"
            )
        super().save(model, folder)
