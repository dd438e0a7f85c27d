"""Classification of tokens: a model with a head of classes per token."""

from __future__ import annotations

from typing import Any, Dict

import torch

from anyshape.buckets import Size
from anyshape.building.tasks.text import TextBuilder
from anyshape.items import Item


class TokenClassificationBuilder(TextBuilder):
    """A model for token classification."""

    auto_class = "AutoModelForTokenClassification"

    def adapt_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        return self.token_rows(model)

    def more(self, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Any]:
        return {"unk_token_id": tokenizer.unk_token_id}

    def sample(self, size: Size, seed: int) -> Item:
        item = super().sample(size, seed)
        item.origin = {"text": "", "offsets": [(0, 0)] * size[0], "special": [0] * size[0]}
        return item
