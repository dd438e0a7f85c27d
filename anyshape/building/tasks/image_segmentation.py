"""Segmentation of pictures: a map of classes, or queries with a class and a mask each."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import torch

from anyshape.building.tasks.tiled_image import TiledImageBuilder
from anyshape.errors import ConfigError
from anyshape.masks import RULES
from anyshape.tasks.image import SETTINGS
from anyshape.tasks.image_segmentation import PANOPTIC, ImageSegmentation
from anyshape.tasks.tiles import TILE

# What transformers' models call the classes and the masks of their queries.
NAMES = (("class_queries_logits", "masks_queries_logits"), ("logits", "pred_masks"))
# By the image processors that make masks as `masks.RULES` have it.
PROCESSORS = {
    "ConditionalDetr": "conditional_detr",
    "Detr": "detr",
    "Eomt": "eomt",
    "Mask2Former": "mask2former",
    "MaskFormer": "maskformer",
    "OneFormer": "oneformer",
}


class ClassesAndMasks(NamedTuple):
    """What is compiled of a model of queries: logits ``[batch, queries, classes + 1]``, and ``[batch,
    queries, height, width]`` at the model's own resolution."""

    classes: torch.Tensor
    masks: torch.Tensor


class ImageSegmentationBuilder(TiledImageBuilder):
    """A model of transformers, or a function's, whose answer is a map of classes, or has the classes and
    masks of queries under the names that transformers gives them."""

    auto_class = "AutoModelForSemanticSegmentation"
    task: ImageSegmentation
    told: Optional[str]  # the subtask that a model is told which takes one as tokens

    def load_model(self) -> torch.nn.Module:
        model = super().load_model()
        model.register_forward_hook(_classes_and_masks)
        self.told = None
        if "task_inputs" in inspect.signature(model.forward).parameters and self.source.brings_tokenizer:
            self.told = self.section.task_options.get("subtask") or PANOPTIC
            self._tell(model, f"the task is {self.told}")
        return model

    def _tell(self, model: torch.nn.Module, task: str) -> None:
        """Have OneFormer told this task at every call. Tokens as its own processor makes them: padded with
        zeros, where the pipeline of transformers has its tokenizer's padding."""
        config: Any = model.config
        found = self.source.tokenizer()(
            task, padding="max_length", max_length=config.task_seq_len, truncation=True, return_tensors="pt"
        )
        tokens = found["input_ids"] * found["attention_mask"]
        model.register_buffer("told_task", tokens, persistent=False)
        model.register_forward_pre_hook(_told, with_kwargs=True)

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        super().save(model, folder)
        path = folder / SETTINGS
        saved = json.loads(path.read_text(encoding="utf-8"))
        saved.update(masks=self._rules(model, saved["channels"]), told=self.told)
        path.write_text(json.dumps(saved, indent=1), encoding="utf-8")

    def _rules(self, model: torch.nn.Module, channels: int) -> Optional[str]:
        """By which of `masks.RULES` the model's masks are made: its image processor's, as in the pipeline,
        else its own kind's; None for a map of classes. Raises ConfigError for a kind that is not known."""
        with torch.no_grad():
            answer = model(torch.zeros(1, channels, *self.settings.buckets[0]))
        if not isinstance(answer, ClassesAndMasks):
            return None
        classes, masks = (tuple(part.shape) for part in answer)
        if len(classes) != 3 or len(masks) != 4 or classes[:2] != masks[:2]:
            raise ConfigError(
                f"handler.model: the classes {list(classes)} and masks {list(masks)} of its queries are not "
                "[batch, queries, classes + 1] and [batch, queries, height, width]"
            )
        if self.settings.over_max == TILE:
            raise ConfigError(
                "handler.over_max: tile does not do for queries, whose masks are of the whole picture: say "
                "reject or resize"
            )
        processor = type(self.source.image_processor()).__name__.split("ImageProcessor")[0]
        kind = getattr(getattr(model, "config", None), "model_type", "maskformer")
        rules = PROCESSORS.get(processor, kind)
        if rules not in RULES:
            raise ConfigError(
                f"handler.model: how masks are made of what a {kind} model answers is not known; known are "
                f"{', '.join(sorted(RULES))}"
            )
        return rules


def _classes_and_masks(model: Any, arguments: Any, answer: Any) -> Optional[ClassesAndMasks]:
    """Of an answer that has the classes and masks of queries, these two; None leaves another one as it is."""
    for names in NAMES:
        classes, masks = (
            answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None) for name in names
        )
        if isinstance(classes, torch.Tensor) and isinstance(masks, torch.Tensor):
            return ClassesAndMasks(classes, masks)
    return None


def _told(model: Any, args: Any, kwargs: Dict[str, Any]) -> Tuple[Any, Dict[str, Any]]:
    pictures = args[0] if args else kwargs["pixel_values"]
    return args, {"task_inputs": model.told_task.expand(pictures.shape[0], -1), **kwargs}
