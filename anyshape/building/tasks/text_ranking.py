"""Ranking of texts: a cross-encoder, which reads query and text together and gives one score."""

from __future__ import annotations

from typing import Any, Dict

import torch

from anyshape.building.tasks.text import ClassifierBuilder
from anyshape.errors import ConfigError

ACTIVATIONS = ("identity", "sigmoid")


class TextRankingBuilder(ClassifierBuilder):
    """A model for sequence classification with one class, as sentence-transformers' CrossEncoder loads it."""

    def more(self, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Any]:
        config = getattr(model, "config", None)
        classes = getattr(config, "num_labels", 1)
        if classes != 1:
            raise ConfigError(
                f"handler.model: {self.section.model} has {classes} classes and so no one score to rank by: "
                "use handler.task: text-classification"
            )
        return {"activation": _activation(config)}


def _activation(config: Any) -> str:
    """What becomes of the score, as config.json says; sigmoid where it says nothing."""
    said = (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
    said = said or getattr(config, "sbert_ce_default_activation_function", None)
    if said is None:
        return "sigmoid"
    module, _, name = str(said).rpartition(".")
    if module.partition(".")[0] != "torch" or name.lower() not in ACTIVATIONS:
        raise ConfigError(
            f"handler.model: the activation {said} of config.json is not known; known are the torch.nn ones "
            "Identity and Sigmoid"
        )
    return name.lower()
