"""Multi-vector embeddings: a bare model and the projection of its tokens, as its own files say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch
from tokenizers import AddedToken
from torch import nn

from anyshape.buckets import Size
from anyshape.building.multi_vector_folder import MultiVector, with_lengths
from anyshape.building.pooling import TOKEN_INPUTS, first_tensor, takes
from anyshape.building.tasks.text import TextBuilder
from anyshape.building.text_assets import save_text
from anyshape.errors import ConfigError
from anyshape.items import Item

MASK = "attention_mask"


class MultiVectorEmbeddingBuilder(TextBuilder):
    """A bare model, with what follows it inside of what is compiled."""

    auto_class = "AutoModel"

    def _described(self) -> MultiVector:
        return with_lengths(self.source.multi_vector(), self.section.task_options)

    def load_model(self) -> nn.Module:
        described = self._described()
        transformer = self.source.model(self.auto_class, described.transformer)
        return TokenModel(transformer, described.after).eval()

    def save(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, TokenModel)
        described = self._described()
        tokenizer = self.source.tokenizer(described.transformer)
        keep_whole(tokenizer, described.markers)
        skipped = token_ids(tokenizer, described.skipped)
        more = {
            "query_length": described.query_length,
            "document_length": described.document_length,
            "expansion": self._expansion(described, tokenizer),
            "skipped": dict.fromkeys(described.skips, skipped),
        }
        save_text(
            self.section, self.settings.buckets, tokenizer, model.transformer, folder, described, more=more
        )

    def _expansion(self, described: MultiVector, tokenizer: Any) -> Optional[Dict[str, Any]]:
        expansion = described.expansion
        if expansion is None:
            return None
        token = expansion.token or tokenizer.mask_token or tokenizer.eos_token
        ids = [] if token is None else token_ids(tokenizer, [token])
        if not ids:
            raise ConfigError(
                f"handler.tokenizer has no token {token or 'to expand queries with, neither mask nor end'}"
            )
        if (expansion.length,) > self.settings.buckets[-1]:
            raise ConfigError(
                f"handler.buckets: a query of this model has {expansion.length} tokens, more than the "
                "largest bucket: add one of that length"
            )
        return {**vars(expansion), "token": ids[0]}

    def sample(self, size: Size, seed: int) -> Item:
        item, expansion = super().sample(size, seed), self.task.saved["expansion"]
        if expansion is not None and not expansion["attends"]:  # queries, filled up by any number of tokens
            seen = 1 + random.Random(seed).randrange(size[0])
            item.data[MASK] = [1] * seen + [0] * (size[0] - seen)
        return item


class TokenModel(nn.Module):
    """A vector ``[batch, length, width]`` in float32 of each token."""

    def __init__(self, transformer: nn.Module, after: Sequence[nn.Module]) -> None:
        super().__init__()
        self.transformer = transformer
        self.after = nn.Sequential(*after)
        self.takes = takes(transformer)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: Optional[torch.Tensor] = None,
        token_type_ids: Optional[torch.Tensor] = None,
        **more: torch.Tensor,
    ) -> torch.Tensor:
        """All inputs are ``[batch, length]`` of int64; `more` goes to the transformer as it is."""
        given = dict(zip(TOKEN_INPUTS, (input_ids, attention_mask, token_type_ids)))
        named = {name: given[name] for name in self.takes if given[name] is not None}
        vectors: torch.Tensor = self.after(first_tensor(self.transformer(**named, **more)).float())
        return vectors


def keep_whole(tokenizer: Any, markers: Sequence[str]) -> None:
    """Make one token of each marker that the tokenizer knows, as it was when the model was trained.

    A marker that it does not know, with or without what follows its first word, is plain text.
    """
    known = {*tokenizer.get_vocab(), *tokenizer.get_added_vocab()}
    for marker in markers:
        for whole in (marker, *marker.split(None, 1)[:1]):
            if whole in known:
                if tokenizer.tokenize(whole) != [whole]:
                    tokenizer.add_tokens(
                        [AddedToken(whole, normalized=False, special=True)], special_tokens=True
                    )
                break


def token_ids(tokenizer: Any, words: Sequence[str]) -> List[int]:
    """The ids of the words that are tokens; other words are left out."""
    found = {word: tokenizer.convert_tokens_to_ids(word) for word in words}
    unknown = tokenizer.unk_token_id
    return sorted({i for word, i in found.items() if i != unknown or word == tokenizer.unk_token} - {None})
