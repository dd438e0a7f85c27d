"""Detection: raw heads of a family that is known, or DETR's queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from anyshape.building.deviation import set_deviation
from anyshape.building.exact import UnknownOperation
from anyshape.building.tasks.detectors import HOW_TO_SPLIT, families, split
from anyshape.building.tasks.image import ImageBuilder
from anyshape.errors import ConfigError
from anyshape.heads import HEADS
from anyshape.items import Row
from anyshape.tasks.image import SETTINGS
from anyshape.tasks.object_detection import QUERIES, ObjectDetection

# Queries with boxes relative to the picture. Their classes are a softmax over them and "no object" ...
SOFTMAX = ("detr", "table-transformer", "yolos")
# ... or a sigmoid for each; of all queries and classes so many count, None: as many as there are queries.
SIGMOID = {
    "conditional_detr": 100,
    "dab-detr": 100,
    "deformable_detr": 100,
    "deta": 100,
    "d_fine": None,
    "rt_detr": None,
    "rt_detr_v2": None,
}


class ObjectDetectionBuilder(ImageBuilder):
    """A model of raw heads with the attributes `boxes`, `strides` and `anchors`, a detector of torchvision,
    or one of transformers' whose queries are DETR's."""

    auto_class = "AutoModelForObjectDetection"
    attributes = ("labels", "anchors", "strides")
    task: ObjectDetection

    def load_model(self) -> torch.nn.Module:
        model: torch.nn.Module = split(super().load_model()).eval()
        return model

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        if kind is not None and kind not in SOFTMAX and kind not in SIGMOID:
            raise ConfigError(
                f"handler.model: the boxes of a {kind} model are not understood; known are "
                f"{', '.join(sorted([*SOFTMAX, *SIGMOID]))}. Otherwise {HOW_TO_SPLIT}"
            )
        family = families(model, self.section.task_options.get("boxes"))
        self._check(model, family)
        super().save(model, folder)
        path = folder / SETTINGS
        saved = json.loads(path.read_text(encoding="utf-8"))
        most = SIGMOID[kind] or _queries(model) if kind in SIGMOID else None
        saved.update(boxes=family, most=most, bins=int(getattr(model, "bins", 16)))
        path.write_text(json.dumps(saved, indent=1), encoding="utf-8")

    def deviation(self, found: Row, expected: Row) -> float:
        """Queries are a set: those that are picked from the picture come in the order of their scores, and of
        two with nearly one score either may be the first."""
        by_place = super().deviation(found, expected)
        if self.task.kind != QUERIES or by_place <= self.section.tolerance:
            return by_place
        return min(by_place, set_deviation(found, expected))

    def _check(self, model: Any, family: str) -> None:
        """Raises ConfigError for heads that cannot be read."""
        if family == QUERIES:
            return
        if family not in HEADS:
            raise ConfigError(
                f"handler.task_options.boxes must be one of {', '.join(HEADS)}, not {family!r}; "
                f"{HOW_TO_SPLIT}"
            )
        anchored = HEADS[family][2]
        levels = getattr(model, "anchors", None) if anchored else getattr(model, "strides", None)
        if not levels:
            missing = "anchors" if anchored else "strides"
            raise ConfigError(f"handler.model: heads of {family} need the model's attribute `{missing}`")

    def examine(self, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
        try:
            super().examine(model, reference, folder)
        except UnknownOperation as error:
            raise ConfigError(f"handler.model: in this detector {error}; {HOW_TO_SPLIT}") from error
        exact: Any = model.exact
        for index, places in enumerate(exact.spatial[: self.task.outputs]):
            # A side that is as long for every picture, as a last level's one position is, stands nowhere.
            cut = all(place in (0, dim) for place, dim in zip(places, (2, 3)))
            is_map = cut and exact.dimensions[index] == 4
            if self.task.kind != QUERIES and not is_map:
                raise ConfigError(
                    f"handler.model: heads of {self.task.kind} are maps [batch, channels, rows, columns] of "
                    f"its levels, and output {index} is none; {HOW_TO_SPLIT}"
                )


def _queries(model: Any) -> int:
    config = model.config
    return int(getattr(config, "num_queries", None) or config.num_object_queries)
