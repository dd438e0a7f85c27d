"""Sparse embeddings (SPLADE): weights of tokens, as sentence-transformers' SparseEncoder gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from anyshape.errors import ConfigError
from anyshape.items import Answer, Item, Parts, Row
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, finite, positive_int_or_none
from anyshape.tasks.sentence_embedding import SentenceEmbedding
from anyshape.tasks.windows import OPTIONS


class SparseEmbedding(SentenceEmbedding):
    """The tokens that a text stands for: their ids, rising, and the weight of each; the others weigh nothing.

    The pooling over the text's tokens is inside the compiled model. Of the windows of a long text the largest
    weight counts, as of all its tokens.
    """

    name = "sparse-embedding"
    parameters = {**SentenceEmbedding.parameters, "max_active_dims": positive_int_or_none}
    options = {
        **OPTIONS,
        "prompts": None,
        "default_prompt": None,
        "max_length": None,
        "max_active_dims": None,
    }

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        if settings.over_max == "window" and self.saved["strategy"] != "max":
            raise ConfigError(
                "handler.over_max: the model adds up what its tokens weigh, and those of overlapping windows "
                "would count twice: use reject or truncate"
            )

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        weights = finite(row[0])
        (indices,) = np.nonzero(weights)
        most = parameters.get("max_active_dims", self.saved["max_active_dims"])
        if most is not None and len(indices) > most:
            largest = np.argpartition(-weights[indices], most - 1)[:most]
            indices = np.sort(indices[largest])
        return {"indices": indices, "values": weights[indices]}

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        largest = np.maximum.reduce([finite(row[0]) for row in rows])
        return self.answer((largest,), parts.items[0], parameters)
