"""Texts side by side in one row: attention that keeps to its own text, and one vector per text.

Every token has the number of its text in `segments` ``[rows, length]``: 1, 2 ... from the left, 0 for the
padding behind them. All of it is inside the compiled model, of shapes that do not depend on the texts.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Sequence

import torch
from torch import nn
from torch.nn import functional

from anyshape.building.errors import BuildError


@contextmanager
def apart(model: nn.Module, segments: torch.Tensor) -> Iterator[List[str]]:
    """Every mask that transformers' shared masking code makes lets a token see its own segment alone.

    Whatever else the model asks of a mask, that it looks back only or within a window, holds besides. Yields
    the kinds of attention for which masks were made: none, if the model makes them by itself.
    """
    try:
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as interfaces
    except ImportError:
        raise BuildError(
            "handler.layout: rows needs a newer transformers than the one here, 4.53 at least, whose models "
            "share their masking code: leave it out, and list buckets of several lengths"
        ) from None

    made: List[str] = []
    same = segments[:, None, :, None] == segments[:, None, None, :]

    def within(kind: str, interface: Callable[..., Any]) -> Callable[..., Any]:
        def mask(*args: Any, **options: Any) -> torch.Tensor:
            made.append(kind)
            options.update(attention_mask=None, allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
            own: torch.Tensor = interface(*args, **options)
            if own.dtype == torch.bool:
                return own & same
            return own.masked_fill(~same, torch.finfo(own.dtype).min)

        return mask

    overrides = interfaces._local_mapping  # kept apart from what is registered for everybody
    before = dict(overrides)
    for kind in {str(config._attn_implementation) for config in _configs(model)} & {"sdpa", "eager"}:
        interfaces[kind] = within(kind, interfaces[kind])
    try:
        yield made
    finally:
        overrides.clear()
        overrides.update(before)


def _configs(model: nn.Module) -> List[Any]:
    """The configs of a model's parts, each once."""
    found = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    return [config for config in found.values() if hasattr(config, "_attn_implementation")]


def members(segments: torch.Tensor, most: int) -> torch.Tensor:
    """Which tokens each text has: true or false, ``[rows, most, length]``."""
    numbers = torch.arange(1, most + 1, device=segments.device)
    return segments.unsqueeze(1) == numbers.view(1, -1, 1)


def last_word(own: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Of each text's tokens the last that is a word, and the first where none is: ``[rows, most, length]``.

    words: true or false, ``[rows, length]``.
    """
    length = words.shape[1]
    place = torch.arange(length, device=words.device)
    rank = torch.where(words, length + 1 + place, length - place).unsqueeze(1) * own
    return own & (rank == rank.amax(2, keepdim=True))


def words(counted: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """The number of each token that is `counted`, from 1 on in each text, and 0 of the others:
    ``[rows, length]``."""
    place = torch.arange(segments.shape[1], device=segments.device)
    before = (segments.unsqueeze(1) == segments.unsqueeze(2)) & (place.unsqueeze(0) <= place.unsqueeze(1))
    return (before & counted.unsqueeze(1)).sum(2) * counted


def _sum(tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum over each text's tokens: ``[rows, most, width]``. A product of matrices, not a gather: some
    compilers do not know that one."""
    return torch.bmm(weights.to(tokens.dtype), tokens)


def _over(weights: torch.Tensor) -> torch.Tensor:
    return weights.sum(2, keepdim=True).clamp(min=1e-9)


def _mean(tokens: torch.Tensor, own: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    weights = own.to(tokens.dtype)
    return _sum(tokens, weights) / _over(weights)


def _mean_sqrt_len(tokens: torch.Tensor, own: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    weights = own.to(tokens.dtype)
    return _sum(tokens, weights) / _over(weights).sqrt()


def _weighted_mean(tokens: torch.Tensor, own: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """The n-th token of a text counts n times; tokens of a prompt that is left out keep their numbers."""
    before = torch.arange(tokens.shape[1], device=tokens.device) - _starts(segments)
    weights = own.to(tokens.dtype) * (before + 1).unsqueeze(1).to(tokens.dtype)
    return _sum(tokens, weights) / _over(weights)


def _starts(segments: torch.Tensor) -> torch.Tensor:
    """Where the segment of each token begins: ``[rows, length]``. Segments lie in rising order."""
    earlier = (segments.unsqueeze(1) < segments.unsqueeze(2)) & (segments.unsqueeze(1) > 0)
    return earlier.sum(2)


def _max(tokens: torch.Tensor, own: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """A running maximum within each segment, in as many steps as the length has bits; its last token has it.

    Source: Hillis and Steele, "Data parallel algorithms", CACM 29(12), 1986.
    """
    least = torch.finfo(tokens.dtype).min
    most = tokens.masked_fill(~own.any(1).unsqueeze(-1), least)
    step = 1
    while step < tokens.shape[1]:
        shifted = functional.pad(most[:, :-step], (0, 0, step, 0), value=least)
        same = functional.pad(segments[:, :-step], (step, 0), value=-1) == segments
        most = torch.where(same.unsqueeze(-1), torch.maximum(most, shifted), most)
        step *= 2
    last = functional.pad(segments[:, 1:], (0, 1), value=-1) != segments
    whole = segments.unsqueeze(1) * last.unsqueeze(1)
    numbers = torch.arange(1, own.shape[1] + 1, device=segments.device)
    return _sum(most, whole == numbers.view(1, -1, 1))


def _cls(tokens: torch.Tensor, own: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    return _sum(tokens, own & ~functional.pad(own[..., :-1], (1, 0)))


def _last_token(tokens: torch.Tensor, own: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    return _sum(tokens, own & ~functional.pad(own[..., 1:], (0, 1)))


# As `pooling.MODES`, but of every segment. `own`: true where a token counts, one unbroken run in each text.
MODES: Dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last_token": _last_token,
}


def pool(
    modes: Sequence[str], tokens: torch.Tensor, own: torch.Tensor, segments: torch.Tensor
) -> torch.Tensor:
    """Tokens ``[rows, length, width]`` to one vector per segment, ``[rows, most, ways × width]``.

    `own` ``[rows, most, length]``: the tokens that count for each. Where a row has fewer segments, zeros.
    """
    vectors = [MODES[mode](tokens, own, segments) for mode in modes]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, 2)
