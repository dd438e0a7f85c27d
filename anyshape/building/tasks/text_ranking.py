"""Ranking of texts: a cross-encoder, which reads query and text together and gives one score."""

from __future__ import annotations

from typing import Any, Dict, Optional, cast

import torch

from anyshape.building.ranking_folder import Ranking
from anyshape.building.sentence_folder import with_options
from anyshape.building.tasks.text import ClassifierBuilder
from anyshape.errors import ConfigError

ACTIVATIONS = ("identity", "sigmoid")


class TextRankingBuilder(ClassifierBuilder):
    """A model for sequence classification with one class, as sentence-transformers' CrossEncoder loads it."""

    def described(self) -> Ranking:
        return cast(Ranking, with_options(self.source.ranking(), self.section.task_options))

    def request_of(self, text: str) -> Dict[str, Any]:
        return {"inputs": {"text": "how long?", "text_pair": text}}

    def more(self, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Any]:
        config = getattr(model, "config", None)
        classes = getattr(config, "num_labels", 1)
        if classes != 1:
            raise ConfigError(
                f"handler.model: {self.section.model} has {classes} classes and so no one score to rank by: "
                "use handler.task: text-classification"
            )
        return {"activation": _activation(config, self.described().activation)}


def _activation(config: Any, described: Optional[str]) -> str:
    """What becomes of the score, as the folder or else config.json says; sigmoid where nothing does."""
    said = described or (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
    said = said or getattr(config, "sbert_ce_default_activation_function", None)
    if said is None:
        return "sigmoid"
    module, _, name = str(said).rpartition(".")
    if module.partition(".")[0] != "torch" or name.lower() not in ACTIVATIONS:
        raise ConfigError(
            f"handler.model: the activation {said} of the model's files is not known; known are the torch.nn "
            "ones Identity and Sigmoid"
        )
    return name.lower()
