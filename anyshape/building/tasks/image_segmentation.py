"""Segmentation of pictures."""

from __future__ import annotations

from anyshape.building.tasks.image import ImageBuilder


class ImageSegmentationBuilder(ImageBuilder):
    """The model of that kind in transformers, or a function's."""

    auto_class = "AutoModelForSemanticSegmentation"
