"""Zero-shot classification: a model that was trained to say whether one text entails another."""

from __future__ import annotations

from typing import Any, Dict

import torch

from anyshape.building.tasks.text import ClassifierBuilder
from anyshape.building.text_assets import labels_of
from anyshape.errors import ConfigError


class ZeroShotBuilder(ClassifierBuilder):
    """A model for sequence classification with a class for entailment."""

    def more(self, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Any]:
        labels = labels_of(self.section, getattr(model, "config", None))
        found = [i for i, label in enumerate(labels) if label.lower().startswith("entail")]
        if not found:
            raise ConfigError(
                f"handler.model: {self.section.model} has no class whose name begins with entail, but "
                f"{', '.join(labels) or 'none'}: name its classes in handler.labels"
            )
        return {"entailment": found[0]}

    def request_of(self, text: str) -> Dict[str, Any]:
        return {"inputs": text, "parameters": {"candidate_labels": ["time", "space"]}}
