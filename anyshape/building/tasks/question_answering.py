"""Answering questions about a text: a model that scores each token as an answer's beginning and its end."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import torch

from anyshape.buckets import Size
from anyshape.building.tasks.base import Exact
from anyshape.building.tasks.text import NamedInputs, TextBuilder
from anyshape.items import Item


class QuestionAnsweringBuilder(TextBuilder):
    """A model for extractive question answering."""

    auto_class = "AutoModelForQuestionAnswering"

    def more(self, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Any]:
        first = tokenizer.padding_side == "right"  # the order that such models are trained with
        return {"cls_token_id": tokenizer.cls_token_id, "question_first": first}

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        return StartsAndEnds(model, [spec.name for spec in self.task.inputs])

    def request_of(self, text: str) -> Dict[str, Any]:
        return {"inputs": {"question": "how long?", "context": text}}

    def sample(self, size: Size, seed: int) -> Item:
        item, count = super().sample(size, seed), size[0]
        sequences = [self.task.context] * count  # type: ignore[attr-defined]
        offsets = [(0, 0)] * count
        item.origin = {"context": "", "offsets": offsets, "words": [None] * count, "sequences": sequences}
        return item


class StartsAndEnds(NamedInputs):
    """Returns the scores of all tokens as beginnings ``[batch, length]``, and those as ends."""

    def forward(self, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        result = self.model(**dict(zip(self.names, tensors)))
        names = ("start_logits", "end_logits")
        pair = [result[name] for name in names] if isinstance(result, dict) else result[:2]
        return tuple(part.float() for part in pair)
