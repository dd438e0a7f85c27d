"""Small models, and the comparison that every test of exact padding makes."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding

Size = Tuple[int, int]


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A model in eval mode, the same each time, with batch norms that do not map zero to zero."""
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = build().eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(0.0, 0.3)
    torch.random.set_rng_state(state)
    return model


def around(operation: nn.Module, before: int = 8, after: int = 8) -> nn.Module:
    """The operation between two that leave and show something behind the valid region."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, before, 3, padding=1),
            nn.BatchNorm2d(before),
            operation,
            nn.Conv2d(after, 4, 3, padding=1),
            nn.BatchNorm2d(4),
        )

    return seeded(build)


def tensors(answer: Any) -> List[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    values = answer.values() if isinstance(answer, dict) else answer
    return [tensor for value in values if value is not None for tensor in tensors(value)]


def padded(images: Sequence[Tensor], bucket: Size, garbage: float = 0.0) -> Tuple[Tensor, Tensor]:
    """The batch in its bucket, and [B, 2] the valid sizes."""
    batch = torch.full((len(images), images[0].shape[0], *bucket), garbage)
    for row, image in enumerate(images):
        batch[row, :, : image.shape[1], : image.shape[2]] = image
    return batch, torch.tensor([list(image.shape[1:]) for image in images])


def deviation(answers: Sequence[Tensor], spatial: Sequence[Sequence[int]], row: int, expected: Any) -> float:
    """Largest difference, relative to the largest magnitude, over a model's outputs for one row."""
    worst = 0.0
    sizes = iter(answers[len(spatial) :])
    for output, places, reference in zip(answers, spatial, tensors(expected)):
        values = output[row : row + 1]
        for place, size in zip(places, next(sizes)[row].tolist() if places else ()):
            values = values.narrow(place, 0, size) if place else values
        assert values.shape == reference.shape
        difference = (values - reference).abs().max()
        worst = max(worst, (difference / reference.abs().max().clamp(min=1e-6)).item())
    return worst


def pictures(sizes: Sequence[Size], channels: int = 3, scale: float = 1.0, seed: int = 0) -> List[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(channels, *size, generator=generator) * scale for size in sizes]


def largest_deviation(
    model: nn.Module,
    sizes: Sequence[Size],
    bucket: Size,
    *,
    run: Optional[Callable[[Tensor, Tensor], Sequence[Tensor]]] = None,
    exact: Optional[ExactPadding] = None,
    channels: int = 3,
    scale: float = 1.0,
    garbage: float = 0.0,
) -> Tuple[float, float]:
    """(deviation with exact padding, with plain zero padding) from each image alone, the largest."""
    images = pictures(sizes, channels, scale)
    exact = exact or ExactPadding(model)
    with torch.no_grad():
        batch, valid = padded(images, bucket, garbage)
        answers = (run or exact)(batch, valid)
        plain = tensors(model(padded(images, bucket)[0]))
        plain += list(answers[len(exact.spatial) :])
        worst = [0.0, 0.0]
        for row, image in enumerate(images):
            expected = model(image[None])
            for index, each in enumerate((answers, plain)):
                worst[index] = max(worst[index], deviation(each, exact.spatial, row, expected))
    return worst[0], worst[1]
