"""Classification of texts: a model with a head of classes."""

from __future__ import annotations

from anyshape.building.tasks.text import ClassifierBuilder


class TextClassificationBuilder(ClassifierBuilder):
    """A model for sequence classification."""
