"""Boxes in a picture, as the pipeline `object-detection` gives them."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from anyshape.boxes import from_heads, from_queries, inside, suppress
from anyshape.items import Item, Row
from anyshape.tasks.base import Parameters, finite, fraction
from anyshape.tasks.image import ImageTask


class ObjectDetection(ImageTask):
    """Labelled boxes above `threshold`, best first, in pixels of the picture that was sent.

    A model with `anchors` and `strides` gives raw YOLOv3 heads, coarse first; another one DETR's logits
    and boxes.
    """

    name = "object-detection"
    outputs = 2
    parameters = {"threshold": fraction, "overlap": fraction}
    options = {**ImageTask.options, "threshold": 0.5, "overlap": 0.45}

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        threshold = parameters.get("threshold", self.chosen["threshold"])
        outputs = [finite(output) for output in row]
        if self.saved["anchors"]:
            found = from_heads(outputs, self.saved["anchors"], self.saved["strides"], threshold)
            found = inside(found, item.size)
            found = suppress(found, parameters.get("overlap", self.chosen["overlap"]))
        else:
            found = inside(from_queries(outputs[0], outputs[1], item.size, threshold), item.size)
        boxes, scores, labels = found
        height, width = item.origin["size"]
        scale = np.asarray([width / item.size[1], height / item.size[0]] * 2, dtype=np.float32)
        order = np.argsort(-scores, kind="stable")
        return [
            {"score": float(scores[i]), "label": self._label(int(labels[i])), "box": _box(boxes[i] * scale)}
            for i in order
        ]

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"LABEL_{index}"


def _box(corners: Any) -> Dict[str, int]:
    left, top, right, bottom = (int(side) for side in corners)
    return {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}
