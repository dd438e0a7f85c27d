"""Boxes in a picture, as the pipeline `object-detection` gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from anyshape.boxes import Detections, clipped, from_queries, from_sigmoids, inside, suppress
from anyshape.heads import HEADS, Layout
from anyshape.items import Answer, Item, Row
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, finite, fraction
from anyshape.tasks.image import ImageTask

QUERIES = "queries"  # DETR's; every other kind is one of HEADS


class ObjectDetection(ImageTask):
    """Labelled boxes above `threshold`, best first, in pixels of the picture that was sent.

    The compiled part is the backbone and the heads; boxes are decoded here, item by item: out of DETR's
    logits and boxes, or out of raw heads of the family that the model's attribute `boxes` names
    (`heads.HEADS`).
    """

    name = "object-detection"
    parameters = {"threshold": fraction, "overlap": fraction}
    options = {**ImageTask.options, "threshold": 0.5, "overlap": 0.45, "boxes": None}

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.kind: str = self.saved["boxes"]
        self.most: Optional[int] = self.saved["most"]  # boxes of queries whose classes are sigmoids
        self.layout = Layout(self.saved["strides"] or (), self.saved["anchors"] or (), self.saved["bins"])
        self.outputs = 2
        if self.kind != QUERIES:
            self.outputs = HEADS[self.kind][1] * max(len(self.layout.strides), len(self.layout.anchors))

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        threshold = parameters.get("threshold", self.chosen["threshold"])
        overlap = parameters.get("overlap", self.chosen["overlap"])
        boxes, scores, labels = self._found([finite(output) for output in row], item, threshold, overlap)
        height, width = item.origin["size"]
        scale = np.asarray([width / item.size[1], height / item.size[0]] * 2, dtype=np.float32)
        order = np.argsort(-scores, kind="stable")
        return [
            {"score": float(scores[i]), "label": self._label(int(labels[i])), "box": _box(boxes[i] * scale)}
            for i in order
        ]

    def _found(self, outputs: Any, item: Item, threshold: float, overlap: float) -> Detections:
        if self.kind != QUERIES:
            found = HEADS[self.kind][0](outputs, self.layout, item.size, threshold)
            bounded = inside if self.kind.startswith("yolo") else clipped  # as their authors do
            return suppress(bounded(found, item.size), overlap)
        if self.most is None:
            return clipped(from_queries(outputs[0], outputs[1], item.size, threshold), item.size)
        return clipped(from_sigmoids(outputs[0], outputs[1], item.size, threshold, self.most), item.size)

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"LABEL_{index}"


def _box(corners: Any) -> Dict[str, int]:
    left, top, right, bottom = (int(side) for side in corners)
    return {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}
