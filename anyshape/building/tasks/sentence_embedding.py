"""Sentence embeddings: the model with its pooling and what follows it, as its own files or the recipe say."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from anyshape.buckets import Size
from anyshape.building.pooling import SentenceModel
from anyshape.building.rows import SentenceRows, in_rows
from anyshape.building.sentence_folder import Sentence, with_options
from anyshape.building.tasks.text import TextBuilder
from anyshape.building.text_assets import save_text
from anyshape.items import Item
from anyshape.tasks.text import POOLING_MASK


class SentenceEmbeddingBuilder(TextBuilder):
    """A bare model, with pooling and what follows it inside of what is compiled."""

    auto_class = "AutoModel"

    def _sentence(self) -> Sentence:
        return with_options(self.source.sentence(), self.section.task_options)

    def load_model(self) -> torch.nn.Module:
        sentence = self._sentence()
        transformer = self.source.model(self.auto_class, sentence.transformer)
        model = SentenceModel(transformer, sentence.pooling, sentence.after, sentence.dimensions)
        return model.eval()

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        sentence = self._sentence()
        tokenizer = self.source.tokenizer(sentence.transformer)
        assert isinstance(model, SentenceModel)
        save_text(self.section, self.settings.buckets, tokenizer, model.transformer, folder, sentence)

    def adapt_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        assert isinstance(model, SentenceModel)
        rows = in_rows(model.transformer, model.takes, self.task.vocabulary)
        return SentenceRows(model, rows, self.names_in_rows(), self.settings.segments)

    def sample(self, size: Size, seed: int) -> Item:
        item = super().sample(size, seed)
        if POOLING_MASK in self.task.names:  # prompts of any length, none among them
            prompt = random.Random(seed).randrange(size[0])
            item.data[POOLING_MASK] = [0] * prompt + [1] * (size[0] - prompt)
        return item
