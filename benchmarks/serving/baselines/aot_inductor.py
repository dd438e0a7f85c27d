"""Baseline 7: one AOTInductor package with dynamic rows and tokens: our fastest engine without buckets."""

from __future__ import annotations

from pathlib import Path

import torch
import torch._inductor
from sentences import TorchSentenceBaseline


class AotInductor(TorchSentenceBaseline):
    def load(self, folder: Path) -> None:
        package = folder / f"dynamic-{self.settings['dtype']}.pt2"
        self.program = torch._inductor.aoti_load_package(str(package))

    def model(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.program(ids, mask)
        return vectors
