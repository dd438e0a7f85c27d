"""The building half: saves what serving needs, makes the model fit, draws waveforms to compare with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List, Sequence, Tuple

import numpy as np
import torch
from audio_task import SAVED, AudioClassification

from anyshape.buckets import Bucket, Size
from anyshape.building.tasks.base import Exact, TaskBuilder
from anyshape.items import Item


class AudioBuilder(TaskBuilder):
    """For a model with the attributes `rate` and `labels` that takes a waveform and its mask."""

    task: AudioClassification

    def save(self, model: Any, folder: Path) -> None:
        saved = {"rate": model.rate, "labels": self.section.labels or model.labels}
        (folder / SAVED).write_text(json.dumps(saved), encoding="utf-8")

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        return WithMask(model)

    def reference(self, model: torch.nn.Module) -> torch.nn.Module:
        return Plain(model)

    def sizes_to_check(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """One sample, one more than the bucket before, the middle, one less than full, full."""
        (length,) = bucket
        start = smaller[-1][0] + 1 if smaller else 1
        return [(size,) for size in sorted({1, start, (start + length) // 2, length - 1, length})]

    def sample(self, size: Size, seed: int) -> Item:
        """A buzz, every tone that is a multiple of 110 Hz, in noise: each filter lets some of it through."""
        draw = np.random.default_rng([size[0], seed])
        phases = np.outer(np.arange(110, 1100, 110), 2 * np.pi * np.arange(size[0]) / self.task.rate)
        waveform = 0.1 * np.sin(phases + draw.uniform(0, 2 * np.pi)).sum(0) + 0.05 * draw.normal(size=size)
        return Item(size, {"waveform": waveform.astype(np.float32)})


class WithMask(torch.nn.Module):
    """What is compiled: takes the tensors of the task's `inputs`, returns a tuple."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        return (self.model(waveform, mask),)


class Plain(WithMask):
    """What it is compared with: the model as it is, without padding and without a mask."""

    def forward(self, waveform: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        return (self.model(waveform),)
