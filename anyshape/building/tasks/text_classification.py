"""Classification of texts: a model with a head of classes."""

from __future__ import annotations

from anyshape.building.tasks.text import TextBuilder


class TextClassificationBuilder(TextBuilder):
    """A model for sequence classification."""

    auto_class = "AutoModelForSequenceClassification"
