"""Masks in a picture, as the pipeline `image-segmentation` gives them."""

from __future__ import annotations

import base64
import io
from typing import Any, Dict, Iterator, Tuple

import numpy as np
import torch
from PIL import Image

from anyshape.buckets import Size
from anyshape.items import Answer, Item, Parts, Row
from anyshape.tasks.base import Parameters, finite, fraction
from anyshape.tasks.image import EDGE
from anyshape.tasks.tiled_image import TiledImageTask

BAND = 16_000_000  # scores that are looked at together, so that a large picture's never are all at once


class ImageSegmentation(TiledImageTask):
    """One PNG mask per label, base64, of the size of the picture that was sent: 255 where the label is.

    One channel is a probability, compared with `mask_threshold`; several are scores, of which the largest
    wins a pixel.
    """

    name = "image-segmentation"
    fit = EDGE
    parameters = {"mask_threshold": fraction}
    options = {**TiledImageTask.options, "mask_threshold": 0.5}

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        scores = torch.from_numpy(np.ascontiguousarray(finite(row[0])))
        size = item.origin["size"]
        if item.changed:
            scores = _resized(_resized(scores, item.size), size)
        return self._segments(scores, item.size if not item.changed else size, size, parameters)

    def answer_whole(self, output: np.ndarray, parts: Parts, parameters: Parameters) -> Answer:
        scores = torch.from_numpy(finite(output))
        return self._segments(scores, parts.origin["seen"], parts.origin["size"], parameters)

    def _segments(self, scores: torch.Tensor, seen: Size, size: Size, parameters: Parameters) -> Answer:
        """`scores` ``[classes, height, width]`` of a picture that the model saw at the size `seen`; the one
        that was sent is its first `size`."""
        bands = _bands(scores, seen, size)
        if len(scores) == 1:
            threshold = parameters.get("mask_threshold", self.chosen["mask_threshold"])
            probabilities = np.concatenate([band[0].numpy() for band in bands])
            winners = probabilities > threshold
            return [self._segment(0, winners, float(probabilities[winners].mean()))] if winners.any() else []
        winners = np.concatenate([band.argmax(0).numpy() for band in bands])
        present = np.flatnonzero(np.bincount(winners.ravel()))
        return [self._segment(int(index), winners == index, None) for index in present]

    def _segment(self, index: int, mask: Any, score: Any) -> Dict[str, Any]:
        label = self.labels[index] if index < len(self.labels) else f"LABEL_{index}"
        file = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
        return {"score": score, "label": label, "mask": base64.b64encode(file.getvalue()).decode("ascii")}


def _bands(scores: torch.Tensor, seen: Size, size: Size) -> Iterator[torch.Tensor]:
    """The scores resized to `seen` and cut to `size`, ``[classes, rows, width]`` at a time."""
    rows = max(1, BAND // (len(scores) * seen[1]))
    if rows >= seen[0]:
        yield _resized(scores, seen)[:, : size[0], : size[1]]
        return
    for top in range(0, size[0], rows):
        band = _rows_of(scores, seen[0], top, min(top + rows, size[0]))
        yield _resized(band, (band.shape[1], seen[1]))[..., : size[1]]


def _rows_of(scores: torch.Tensor, height: int, top: int, bottom: int) -> torch.Tensor:
    """Some rows of the scores resized to a height, bilinear: each lies between two of the old ones."""
    if scores.shape[1] == height:
        return scores[:, top:bottom]
    at = ((torch.arange(top, bottom) + 0.5) * (scores.shape[1] / height) - 0.5).clamp(min=0)
    low = at.floor().long()
    high = (low + 1).clamp(max=scores.shape[1] - 1)
    return torch.lerp(scores[:, low], scores[:, high], (at - low)[None, :, None])


def _resized(scores: torch.Tensor, size: Tuple[int, ...]) -> torch.Tensor:
    """Scores at another resolution, bilinear, as Hugging Face's post-processing does it."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return torch.nn.functional.interpolate(
        scores[None], size=tuple(size), mode="bilinear", align_corners=False
    )[0]
