"""Tasks on pictures: classification, detection, segmentation, features."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from PIL import Image

from anyshape.boxes import from_heads, from_queries, inside, suppress
from anyshape.settings import HandlerConfig
from anyshape.errors import ConfigError, UnprocessableInput
from anyshape.padding import Item
from anyshape.tasks.base import (
    Parameters,
    Row,
    boolean,
    finite,
    fraction,
    one_of,
    positive_int_or_none,
    top_classes,
)
from anyshape.tasks.image import EDGE, ImageTask

# Queries with a softmax over the classes and "no object", and boxes relative to the picture.
DETR_LIKE = ("detr", "table-transformer", "yolos")


class ImageClassification(ImageTask):
    """Labels with scores, best first; five of them, or `top_k`."""

    name = "image-classification"
    auto_class = "AutoModelForImageClassification"
    parameters = {
        "top_k": positive_int_or_none,
        "function_to_apply": one_of("softmax", "sigmoid", "none"),
    }

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        labels = self.labels if len(self.labels) == len(row[0]) else _numbered(len(row[0]))
        function = parameters.get("function_to_apply", "sigmoid" if len(labels) == 1 else "softmax")
        return top_classes(row[0], labels, parameters.get("top_k", 5), function)


class ObjectDetection(ImageTask):
    """Labelled boxes above `threshold`, best first, in pixels of the picture that was sent.

    A model with `anchors` and `strides` gives raw YOLOv3 heads, coarse first; another one DETR's logits
    and boxes.
    """

    name = "object-detection"
    auto_class = "AutoModelForObjectDetection"
    outputs = 2
    attributes = ("labels", "anchors", "strides")
    parameters = {"threshold": fraction, "overlap": fraction}
    options = {**ImageTask.options, "threshold": 0.5, "overlap": 0.45}

    @classmethod
    def save(cls, config: HandlerConfig, source: Any, model: torch.nn.Module, folder: Path) -> None:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        if kind is not None and kind not in DETR_LIKE:
            raise ConfigError(
                f"handler.model: the boxes of a {kind} model are not understood; known are "
                f"{', '.join(DETR_LIKE)}, and models with `anchors` and `strides`, as YOLOv3"
            )
        super().save(config, source, model, folder)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        threshold = parameters.get("threshold", self.settings["threshold"])
        outputs = [finite(output) for output in row]
        if self.saved["anchors"]:
            found = from_heads(outputs, self.saved["anchors"], self.saved["strides"], threshold)
            found = inside(found, item.size)
            found = suppress(found, parameters.get("overlap", self.settings["overlap"]))
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


class ImageSegmentation(ImageTask):
    """One PNG mask per label, base64, of the size of the picture that was sent: 255 where the label is.

    One channel is a probability, compared with `mask_threshold`; several are scores, of which the largest
    wins a pixel.
    """

    name = "image-segmentation"
    auto_class = "AutoModelForSemanticSegmentation"
    fit = EDGE
    parameters = {"mask_threshold": fraction}
    options = {**ImageTask.options, "mask_threshold": 0.5}

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        scores = torch.from_numpy(np.ascontiguousarray(finite(row[0])))[None]
        scores = _resized(scores, item.size)
        original = item.origin["size"]
        if item.changed:
            scores = _resized(scores, original)
        scores = scores[0, :, : original[0], : original[1]]
        if len(scores) == 1:
            threshold = parameters.get("mask_threshold", self.settings["mask_threshold"])
            winners = (scores[0] > threshold).numpy()
            return [self._segment(0, winners, float(scores[0][winners].mean()))] if winners.any() else []
        winners = scores.argmax(0).numpy()
        present = np.flatnonzero(np.bincount(winners.ravel()))
        return [self._segment(int(index), winners == index, None) for index in present]

    def _segment(self, index: int, mask: Any, score: Any) -> Dict[str, Any]:
        label = self.labels[index] if index < len(self.labels) else f"LABEL_{index}"
        file = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
        return {"score": score, "label": label, "mask": base64.b64encode(file.getvalue()).decode("ascii")}


class ImageFeatureExtraction(ImageTask):
    """The model's first output without its padding; with `pool`, its pooled output."""

    name = "image-feature-extraction"
    auto_class = "AutoModel"
    outputs = 2
    parameters = {"pool": boolean}

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        if not parameters.get("pool", False):
            return finite(row[0])[None]
        if len(row) < 2:
            raise UnprocessableInput("this model has no pooled output: leave `pool` out")
        return finite(row[1])[None]


def _resized(scores: torch.Tensor, size: Any) -> torch.Tensor:
    """Scores at another resolution, bilinear, as Hugging Face's post-processing does it."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return torch.nn.functional.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)


def _box(corners: Any) -> Dict[str, int]:
    left, top, right, bottom = (int(side) for side in corners)
    return {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}


def _numbered(count: int) -> List[str]:
    return [f"LABEL_{i}" for i in range(count)]
