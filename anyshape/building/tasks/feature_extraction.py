"""Token embeddings: any encoder or decoder without a head."""

from __future__ import annotations

from anyshape.building.tasks.text import TextBuilder


class FeatureExtractionBuilder(TextBuilder):
    """The bare model."""

    auto_class = "AutoModel"
