"""A small convolutional model of waveforms: is it a tone of 440 Hz, one of 880 Hz, or noise?"""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import nn

RATE = 8000  # samples a second
TONES = (440.0, 880.0)  # Hz
WINDOW = 401  # samples that a filter sees: 50 ms
SMOOTHING = 81


class ToneClassifier(nn.Module):
    """Two layers of convolutions, then the mean over time. The weights are known, so nothing is trained.

    The first layer has a pair of filters for each tone (cosine and sine, under a Hann window); the second
    smooths what they let through. A logit is the logarithm of a band's share in the waveform's energy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = RATE
        self.labels = [*(f"{tone:.0f} Hz" for tone in TONES), "noise"]
        time = (torch.arange(WINDOW) - WINDOW // 2) / RATE
        phases = torch.stack([2 * math.pi * tone * time for tone in TONES])
        window = torch.hann_window(WINDOW, periodic=False)
        # A tone of amplitude 1 has the energy 1/2, and so has what its pair of filters lets through.
        waves = torch.cat([phases.cos(), phases.sin()]) * window * (math.sqrt(2) / window.sum())
        self.filters = nn.Conv1d(1, len(waves), WINDOW, padding=WINDOW // 2, bias=False)
        self.filters.weight.data = waves[:, None, :]
        self.smooth = nn.Conv1d(
            len(TONES), len(TONES), SMOOTHING, padding=SMOOTHING // 2, groups=len(TONES), bias=False
        )
        self.smooth.weight.data.fill_(1 / SMOOTHING)

    def forward(self, waveform: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Logits ``[batch, 3]`` of waveforms ``[batch, samples]``; `mask` is 1 over each and 0 behind it.

        A convolution takes zeros for what is behind the end. So must it be in front of every layer that looks
        at neighbours, and only what is before the end may count in the mean: then an answer is the same
        whatever is behind.
        """
        real = torch.ones_like(waveform) if mask is None else mask.to(waveform.dtype)
        waveform = waveform * real
        through = self.filters(waveform[:, None, :]).square() * real[:, None, :]
        bands = self.smooth(through[:, : len(TONES)] + through[:, len(TONES) :])
        samples = real.sum(1, keepdim=True)
        energy = (bands * real[:, None, :]).sum(2) / samples
        whole = waveform.square().sum(1, keepdim=True) / samples
        share = energy / (whole + 1e-6)
        rest = 1 - share.sum(1, keepdim=True)
        return torch.cat([share, rest], dim=1).clamp(min=1e-4).log()


def make_model() -> nn.Module:
    """What the recipe names."""
    return ToneClassifier()
