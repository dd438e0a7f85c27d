"""Masks in a picture, as the pipeline `image-segmentation` gives them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import numpy as np
import torch
from PIL import Image

from anyshape import maps
from anyshape.buckets import Size
from anyshape.errors import ConfigError, UnprocessableInput
from anyshape.items import Answer, Item, Parts, Row
from anyshape.masks import RULES, Limits, MaskFormer, Queries, View
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, finite, fraction, one_of, whole_number
from anyshape.tasks.image import EDGE
from anyshape.tasks.tiled_image import TiledImageTask

SEMANTIC, INSTANCE, PANOPTIC = SUBTASKS = ("semantic", "instance", "panoptic")


class ImageSegmentation(TiledImageTask):
    """PNG masks, base64, of the size of the picture that was sent: 255 where the label is.

    Of a map of classes, one mask per label. One channel is a probability, compared with `mask_threshold`;
    several are scores, of which the largest wins a pixel. Of queries with a class and a mask each, one mask
    per segment: `subtask` says of which kind, `masks.RULES` how they are made.

    options: the defaults of the parameters, and max_mask_pixels, the most that all masks of one picture may
    have together where they are those of queries.
    """

    name = "image-segmentation"
    fit = EDGE
    parameters = {
        "mask_threshold": fraction,
        "overlap_mask_area_threshold": fraction,
        "subtask": one_of(*SUBTASKS),
        "threshold": fraction,
    }
    options = {
        **TiledImageTask.options,
        "mask_threshold": 0.5,
        "overlap_mask_area_threshold": 0.5,
        "subtask": None,
        "threshold": 0.9,
        "max_mask_pixels": 250_000_000,
    }

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        checks = {**self.parameters, "max_mask_pixels": whole_number(1, 10**12)}
        for key in settings.task_options.keys() & checks.keys():
            try:
                checks[key](self.chosen[key])
            except ValueError as error:
                raise ConfigError(f"handler.task_options.{key} {error}, not {self.chosen[key]!r}") from None
        rules = self.saved.get("masks")
        self.rules: Optional[MaskFormer] = RULES[rules] if rules else None
        self.told: Optional[str] = self.saved.get("told")  # the one subtask that the model was compiled for
        self.outputs = 2 if self.rules else 1

    def check_parameters(self, parameters: Parameters) -> Dict[str, Any]:
        checked = super().check_parameters(parameters)
        asked = checked.get("subtask")
        if self.rules is None and asked not in (None, SEMANTIC):
            raise UnprocessableInput(
                f"parameter 'subtask' must be {SEMANTIC}, not {asked!r}: this model says which class a pixel "
                "has, and knows no instances"
            )
        if self.told and asked not in (None, self.told):
            raise UnprocessableInput(
                f"parameter 'subtask' must be {self.told}, not {asked!r}: this model is told its task, and "
                "the archive was built with that one (handler.task_options.subtask)"
            )
        return checked

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        outputs = [torch.from_numpy(np.ascontiguousarray(finite(output))) for output in row]
        size = item.origin["size"]
        if self.rules is not None:
            view = View(item.size, size, scaled=item.changed is not None)
            return self._of_queries(Queries(outputs[0], outputs[1], view), parameters)
        scores = outputs[0]
        if item.changed:
            scores = maps.resized(maps.resized(scores, item.size), size)
        return self._of_classes(scores, item.size if not item.changed else size, size, parameters)

    def answer_whole(self, output: np.ndarray, parts: Parts, parameters: Parameters) -> Answer:
        scores = torch.from_numpy(finite(output))
        return self._of_classes(scores, parts.origin["seen"], parts.origin["size"], parameters)

    def _of_queries(self, queries: Queries, parameters: Parameters) -> Answer:
        assert self.rules is not None
        given = {**self.chosen, **parameters}
        subtask = given["subtask"] or self.told or PANOPTIC
        if subtask == SEMANTIC:
            view = queries.view
            return list(self._largest(self.rules.semantic(queries), view.seen, view.size))
        limits = Limits(
            given["threshold"],
            given["mask_threshold"],
            given["overlap_mask_area_threshold"],
            given["max_mask_pixels"],
        )
        find = self.rules.panoptic if subtask == PANOPTIC else self.rules.instance
        return [self._segment(found.label, found.mask, found.score) for found in find(queries, limits)]

    def _of_classes(self, scores: torch.Tensor, seen: Size, size: Size, parameters: Parameters) -> Answer:
        """`scores` ``[classes, height, width]`` of a picture that the model saw at the size `seen`; the one
        that was sent is its first `size`."""
        if len(scores) > 1:
            return list(self._largest(scores, seen, size))
        threshold = parameters.get("mask_threshold", self.chosen["mask_threshold"])
        probabilities = np.concatenate([band[0].numpy() for band in maps.bands(scores, seen, size)])
        winners = probabilities > threshold
        return [self._segment(0, winners, float(probabilities[winners].mean()))] if winners.any() else []

    def _largest(self, scores: torch.Tensor, seen: Size, size: Size) -> Iterator[Dict[str, Any]]:
        """A mask for each class that has the largest score anywhere."""
        winners = np.concatenate([maps.largest(band).numpy() for band in maps.bands(scores, seen, size)])
        for index in np.flatnonzero(np.bincount(winners.ravel())):
            yield self._segment(int(index), winners == index, None)

    def _segment(self, index: int, mask: Any, score: Any) -> Dict[str, Any]:
        label = self.labels[index] if index < len(self.labels) else f"LABEL_{index}"
        file = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
        return {"score": score, "label": label, "mask": base64.b64encode(file.getvalue()).decode("ascii")}
