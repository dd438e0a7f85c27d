"""Token embeddings: any encoder or decoder without a head."""

from __future__ import annotations

import torch

from anyshape.building.tasks.text import TextBuilder


class FeatureExtractionBuilder(TextBuilder):
    """The bare model."""

    auto_class = "AutoModel"

    def adapt_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        return self.token_rows(model)
