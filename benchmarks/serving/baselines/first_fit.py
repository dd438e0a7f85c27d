"""Baseline 2: the AWS application note's way: a dictionary of traces, the first length that fits, batch 1."""

from __future__ import annotations

from pathlib import Path

import torch
from sentences import TorchSentenceBaseline

LENGTHS = (64, 128, 256, 512)


class FirstFit(TorchSentenceBaseline):
    def load(self, folder: Path) -> None:
        self.models = {n: torch.jit.load(folder / f"traced-{n}.pt").eval() for n in LENGTHS}  # type: ignore[no-untyped-call]

    def width(self, longest: int) -> int:
        return next(length for length in LENGTHS if longest <= length)

    def model(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.models[ids.shape[1]](ids, mask)
        return vectors
