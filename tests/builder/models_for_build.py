"""Models that a recipe names as `tests.builder.models_for_build:NAME`, most of them wrong on purpose."""

from __future__ import annotations

import torch

WORDS = 30522  # the tokenizer's


class Words(torch.nn.Module):
    """A vector per token that knows nothing of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(
            WORDS, 8, _weight=torch.linspace(-1, 1, WORDS * 8).view(-1, 8).sin()
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.embedding(input_ids)
        return vectors


class Unmasked(Words):
    """Adds the mean over all positions, padding among them."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        vectors = super().forward(input_ids, attention_mask)
        return vectors + vectors.mean(1, keepdim=True)


class WrongAt(Words):
    """Differs where the input has exactly `length` positions and padding."""

    def __init__(self, length: int, difference: float) -> None:
        super().__init__()
        self.length = length
        self.difference = difference

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        vectors = super().forward(input_ids, attention_mask)
        if input_ids.shape[1] == self.length:
            padding = 1 - attention_mask.min(1).values.float().view(-1, 1, 1)
            vectors = vectors + self.difference * padding * torch.arange(8)
        return vectors


class Raising(Words):
    """Cannot run where the input has exactly `length` positions."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] == 8:
            raise ValueError("eight is too many\nand this line is not for the command line")
        return super().forward(input_ids, attention_mask)


class OneBatchSize(Words):
    """Its trace takes only as many rows as it was traced with."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(int(input_ids.shape[0]), 1, 1)
        return super().forward(input_ids, attention_mask) + rows


class NotANumber(Words):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids, attention_mask) / 0.0 * 0.0


class WithoutRows(Words):
    """Its output does not have a row per input."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids, attention_mask).sum()


class EvenSides(torch.nn.Module):
    """Halves the picture and doubles it, and wants an even number of pixels: no side alone decides that."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(3, 3, 2, stride=2)
        self.up = torch.nn.ConvTranspose2d(3, 3, 2, stride=2)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if pixel_values.shape[2] * pixel_values.shape[3] % 2:
            raise ValueError("odd sides are not taken")
        return self.up(self.down(pixel_values))


def even_sides() -> torch.nn.Module:
    torch.manual_seed(0)
    return EvenSides().eval()


class Branching(torch.nn.Module):
    """Answers otherwise where the picture is bright."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        mean = pixel_values.mean((2, 3))
        return mean * 2 if bool((mean > 1).all()) else mean


def branching() -> torch.nn.Module:
    return Branching().eval()


def words() -> torch.nn.Module:
    return Words()


def unmasked() -> torch.nn.Module:
    return Unmasked()


def wrong_at_8() -> torch.nn.Module:
    return WrongAt(8, 0.1)


def a_little_wrong_at_8() -> torch.nn.Module:
    return WrongAt(8, 1e-3)


def raising_at_8() -> torch.nn.Module:
    return Raising()


def one_batch_size() -> torch.nn.Module:
    return OneBatchSize()


def not_a_number() -> torch.nn.Module:
    return NotANumber()


def without_rows() -> torch.nn.Module:
    return WithoutRows()


def broken() -> torch.nn.Module:
    raise RuntimeError("the weights are elsewhere\nentirely")


def no_module() -> object:
    return {"weights": 1}
