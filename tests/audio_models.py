"""Small convolutional models of sounds with random weights: of waveforms, and of spectra."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.image_models import seeded


class Waves(nn.Module):
    """Strided convolutions on a waveform, every kind of norm and pooling, then the mean over time."""

    audio_sampling_rate = 8000
    labels = ["bark", "rain", "bell", "hum"]

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(1, 8, 21, stride=4, padding=10), nn.BatchNorm1d(8), nn.ReLU())
        self.layers = nn.Sequential(
            nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(8, 16, 5, padding="same", dilation=2),
            nn.GroupNorm(4, 16),
            nn.GELU(),
            nn.AvgPool1d(4, 2, 1),
            nn.Conv1d(16, 16, 3, padding=1, groups=4),
            nn.BatchNorm1d(16),
        )
        self.head = nn.Linear(32, 4)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.layers(self.stem(waveform))
        return self.head(torch.cat([x.mean(-1), x.amax(-1)], 1))


class Spectra(nn.Module):
    """A logarithmic spectrum of triangular bands, then a CNN on it as on a picture."""

    audio_sampling_rate = 8000
    audio_normalize = True
    labels = ["yes", "no"]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(128))
        self.register_buffer("bands", torch.rand(65, 24))
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 2, 1)
        )
        self.head = nn.Linear(8, 2)

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(waveform, 128, 64, window=self.window, return_complex=True).abs() ** 2
        bands = torch.matmul(spectrum.transpose(1, 2), self.bands).transpose(1, 2)
        x = self.layers(torch.log(bands + 1e-3)[:, None])
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def _made(kind: Any) -> nn.Module:
    torch.manual_seed(0)
    return seeded(kind())


def waves() -> nn.Module:
    return _made(Waves)


def spectra() -> nn.Module:
    return _made(Spectra)


class Frames(Waves):
    """An answer for every moment: no class of the whole."""

    def forward(self, waveform: Tensor) -> Tensor:
        return self.layers(self.stem(waveform[:, None])).mean(1)


class Lasting(nn.Module):
    """A recurrence over the waveform of a kind that is not followed."""

    audio_sampling_rate = 8000

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.RNN(1, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.head(self.layer(waveform[..., None])[0][:, -1])


class Louder(Waves):
    """How loud it is depends on the recording's length, by a function written in C."""

    def forward(self, waveform: Tensor) -> Tensor:
        return super().forward(waveform) * (2.0 if 17 < math.sqrt(waveform.shape[-1]) < 24 else 1.0)


def louder() -> nn.Module:
    return _made(Louder)


def frames() -> nn.Module:
    return _made(Frames)


def lasting() -> nn.Module:
    return _made(Lasting)


def nameless() -> nn.Module:
    model = _made(Waves)
    model.audio_sampling_rate = None
    return model
