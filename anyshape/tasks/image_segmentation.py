"""Masks in a picture, as the pipeline `image-segmentation` gives them."""

from __future__ import annotations

import base64
import io
from typing import Any, Dict

import numpy as np
import torch
from PIL import Image

from anyshape.items import Item, Row
from anyshape.tasks.base import Parameters, finite, fraction
from anyshape.tasks.image import EDGE, ImageTask


class ImageSegmentation(ImageTask):
    """One PNG mask per label, base64, of the size of the picture that was sent: 255 where the label is.

    One channel is a probability, compared with `mask_threshold`; several are scores, of which the largest
    wins a pixel.
    """

    name = "image-segmentation"
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
            threshold = parameters.get("mask_threshold", self.chosen["mask_threshold"])
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


def _resized(scores: torch.Tensor, size: Any) -> torch.Tensor:
    """Scores at another resolution, bilinear, as Hugging Face's post-processing does it."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return torch.nn.functional.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)
