"""Sparse embeddings: a masked language model with SPLADE's pooling, as its own files say."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, cast

import torch
from torch import nn

from anyshape.building.pooling import TOKEN_INPUTS, takes
from anyshape.building.sentence_folder import Sparse, with_options
from anyshape.building.tasks.text import TextBuilder
from anyshape.building.text_assets import save_text
from anyshape.errors import ConfigError


class SparseEmbeddingBuilder(TextBuilder):
    """A masked language model, with the pooling of its tokens inside of what is compiled."""

    auto_class = "AutoModelForMaskedLM"

    def _sparse(self) -> Sparse:
        options = self.section.task_options
        most = options.get("max_active_dims")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigError(
                f"handler.task_options.max_active_dims must be a positive whole number, not {most!r}"
            )
        return cast(Sparse, with_options(self.source.sparse(), options))

    def load_model(self) -> nn.Module:
        sparse = self._sparse()
        transformer = self.source.model(self.auto_class, sparse.transformer)
        return SparseModel(transformer, sparse.strategy, sparse.logs).eval()

    def save(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, SparseModel)
        sparse = self._sparse()
        more = {
            "strategy": sparse.strategy,
            "max_active_dims": self.section.task_options.get("max_active_dims", sparse.most),
        }
        tokenizer = self.source.tokenizer(sparse.transformer)
        save_text(
            self.section, self.settings.buckets, tokenizer, model.transformer, folder, sparse, more=more
        )


class SparseModel(nn.Module):
    """Weights ``[batch, vocabulary]`` in float32: log(1 + relu(scores)), the largest or the sum over tokens.

    logs: how often log(1 + x) is taken.
    """

    def __init__(self, transformer: nn.Module, strategy: str, logs: int) -> None:
        super().__init__()
        self.transformer, self.strategy, self.logs = transformer, strategy, logs
        self.takes = takes(transformer)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: Optional[torch.Tensor] = None,
        **more: torch.Tensor,
    ) -> torch.Tensor:
        """All inputs are ``[batch, length]`` of int64; `more` goes to the transformer as it is."""
        given = dict(zip(TOKEN_INPUTS, (input_ids, attention_mask, token_type_ids)))
        named = {name: given[name] for name in self.takes if given[name] is not None}
        scores = next(iter(self.transformer(**named, **more).values())).float()
        scores = scores.masked_fill(attention_mask.unsqueeze(-1) == 0, 0.0)
        if self.strategy == "max":  # of what only rises: taken first, for one token's work
            return self._weights(scores.amax(1))
        return self._weights(scores).sum(1)

    def _weights(self, scores: torch.Tensor) -> torch.Tensor:
        weights = scores.relu()
        for _ in range(self.logs):
            weights = weights.log1p()
        return weights
