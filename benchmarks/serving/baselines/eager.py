"""Baseline 3: the eager Hugging Face model, padded to the longest text of the hand-over or one by one.

The way of TorchServe's own Hugging Face example.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sentences import TorchSentenceBaseline
from transformers import AutoModel


class Eager(TorchSentenceBaseline):
    def load(self, folder: Path) -> None:
        self.encoder = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()

    def model(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1)
