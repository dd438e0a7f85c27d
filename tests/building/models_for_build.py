"""Models that a recipe names as `tests.building.models_for_build:NAME`, most of them wrong on purpose."""

from __future__ import annotations

import os
import random
import sys

import torch

from anyshape.backends.base import quiet

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


class StepByStep(Words):
    """Adds up the vectors before each token in a Python loop, so that what is compiled has one length."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        vectors = super().forward(input_ids, attention_mask) * attention_mask.unsqueeze(-1)
        steps = [vectors[:, 0]]
        for place in range(1, vectors.shape[1]):
            steps.append(torch.tanh(steps[-1] + vectors[:, place]))
        return torch.stack(steps, 1)


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


class Switching(Words):
    """As BigBird: the first short input makes it another model for good."""

    def __init__(self) -> None:
        super().__init__()
        self.long = True

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.long = self.long and input_ids.shape[1] > 10
        return super().forward(input_ids, attention_mask) * (2 if self.long else 1)


class Stretching(Words):
    """The longest input so far counts in all that come after it."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 4

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.longest = max(self.longest, input_ids.shape[1])
        return super().forward(input_ids, attention_mask) * self.longest


class LargerThanOne(Words):
    """Takes no single token, as Funnel does."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] == 1:
            raise ValueError("one is too few")
        return super().forward(input_ids, attention_mask)


class OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(context: object, vectors: torch.Tensor) -> torch.Tensor:
        return vectors * 2


class Functional(Words):
    """Doubles its vectors in a function with a gradient of its own, as Bloom and YOSO."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = OwnFunction.apply(super().forward(input_ids, attention_mask))
        return vectors


@torch.jit.ignore
def doubled(vectors):
    return vectors * 2


def scripted(vectors):
    return doubled(vectors)


class Unsaveable(Words):
    """torch.jit traces it and cannot write it down: it calls a function that stays in Python."""

    def __init__(self) -> None:
        super().__init__()
        with quiet():
            self.scripted = torch.jit.script(scripted)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.scripted(super().forward(input_ids, attention_mask))
        return vectors


class Pooled(torch.nn.Module):
    """Scores of four classes in `[B, 4, 1, 1]`, as a network without its last flattening gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = torch.nn.Conv2d(3, 4, 1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.classes(pixel_values).mean((2, 3), keepdim=True)


class Strided(torch.nn.Module):
    """Rounds each side up to a multiple of 8 on its own, and spreads what it sees over all of it.

    It counts in a way that leaves no trace of where the number came from, which what keeps padding out would
    follow otherwise.
    """

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        height, width = (-(-len(range(side)) // 8) * 8 for side in pixel_values.shape[-2:])
        grown = torch.nn.functional.interpolate(pixel_values, size=(height, width), mode="bilinear")
        return grown * height


_ONCE = Switching()


def stretching() -> torch.nn.Module:
    return Stretching().eval()


def switching() -> torch.nn.Module:
    return Switching()


def switching_once() -> torch.nn.Module:
    """The same object each time."""
    return _ONCE


def random_words() -> torch.nn.Module:
    """Other weights each time."""
    model = Words()
    torch.nn.init.normal_(model.embedding.weight)
    return model


def words_that_change_the_process() -> torch.nn.Module:
    os.environ["A_BUILD_WAS_HERE"] = "1"
    sys.path.append("/a/build/was/here")
    torch.manual_seed(random.randrange(1000))
    torch.set_num_threads(1 + torch.get_num_threads())
    return Words()


def larger_than_one() -> torch.nn.Module:
    return LargerThanOne()


def functional() -> torch.nn.Module:
    return Functional()


def unsaveable() -> torch.nn.Module:
    return Unsaveable()


def token_classes() -> torch.nn.Module:
    return Words()


def pooled() -> torch.nn.Module:
    torch.manual_seed(0)
    return Pooled().eval()


def strided() -> torch.nn.Module:
    return Strided().eval()


def step_by_step() -> torch.nn.Module:
    return StepByStep()


class Marking(Words):
    """Keeps the first token alone, with a truth that is written with `scatter`."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        first = torch.zeros_like(input_ids).bool().scatter(1, torch.zeros_like(input_ids), True)
        return super().forward(input_ids, attention_mask) * first.unsqueeze(-1)


def marking() -> torch.nn.Module:
    return Marking()


class FromFour(Words):
    """Takes no fewer than four tokens, as CANINE."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids, attention_mask) + attention_mask[:, 3:4].unsqueeze(-1)


def from_four() -> torch.nn.Module:
    return FromFour()
