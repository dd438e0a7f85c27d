"""Baseline 1: one model traced at 512 tokens; every text is padded to 512. The AWS tutorial's way."""

from __future__ import annotations

from pathlib import Path

import torch
from sentences import MAX_TOKENS, TorchSentenceBaseline


class TracedMax(TorchSentenceBaseline):
    def load(self, folder: Path) -> None:
        self.program = torch.jit.load(folder / f"traced-{MAX_TOKENS}.pt").eval()  # type: ignore[no-untyped-call]

    def width(self, longest: int) -> int:
        return MAX_TOKENS

    def model(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.program(ids, mask)
        return vectors
