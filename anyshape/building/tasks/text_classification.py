"""Classification of texts: a model with a head of classes."""

from __future__ import annotations

import torch

from anyshape.building.tasks.text import TextBuilder


class TextClassificationBuilder(TextBuilder):
    """A model for sequence classification."""

    auto_class = "AutoModelForSequenceClassification"

    def adapt_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        return self.classifier_rows(model)
