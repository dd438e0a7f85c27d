"""Every picture at its own size through the eager model, one by one: exact."""

from __future__ import annotations

from pathlib import Path

import torch
from images import ImageBaseline

from recipes.models.mobilenet import mobilenet_v2


class ImageEager(ImageBaseline):
    def load(self, folder: Path) -> None:
        self.model = mobilenet_v2().eval()

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixels.unsqueeze(0))[0]
        return logits
