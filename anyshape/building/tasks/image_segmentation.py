"""Segmentation of pictures."""

from __future__ import annotations

from anyshape.building.tasks.tiled_image import TiledImageBuilder


class ImageSegmentationBuilder(TiledImageBuilder):
    """The model of that kind in transformers, or a function's."""

    auto_class = "AutoModelForSemanticSegmentation"
