"""Maps of scores over a picture, brought to its size a few rows at a time. Pure torch.

A map is float32 ``[channels, height, width]``, at whatever resolution the model gives it.
"""

from __future__ import annotations

from typing import Iterator, Tuple

import torch

from anyshape.buckets import Size

BAND = 16_000_000  # scores that are looked at together, so that a large picture's never are all at once


def bands(scores: torch.Tensor, seen: Size, size: Size) -> Iterator[torch.Tensor]:
    """The scores resized to `seen` and cut to `size`, ``[channels, rows, width]`` at a time, from the top."""
    rows = max(1, BAND // (len(scores) * seen[1]))
    if rows >= seen[0]:
        yield resized(scores, seen)[:, : size[0], : size[1]]
        return
    for top in range(0, size[0], rows):
        band = _rows_of(scores, seen[0], top, min(top + rows, size[0]))
        yield resized(band, (band.shape[1], seen[1]))[..., : size[1]]


def _rows_of(scores: torch.Tensor, height: int, top: int, bottom: int) -> torch.Tensor:
    """Some rows of the scores resized to a height, bilinear: each lies between two of the old ones."""
    if scores.shape[1] == height:
        return scores[:, top:bottom]
    at = ((torch.arange(top, bottom) + 0.5) * (scores.shape[1] / height) - 0.5).clamp(min=0)
    low = at.floor().long()
    high = (low + 1).clamp(max=scores.shape[1] - 1)
    return torch.lerp(scores[:, low], scores[:, high], (at - low)[None, :, None])


def resized(scores: torch.Tensor, size: Tuple[int, ...]) -> torch.Tensor:
    """Scores at another resolution, bilinear, as Hugging Face's post-processing does it."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return torch.nn.functional.interpolate(
        scores[None], size=tuple(size), mode="bilinear", align_corners=False
    )[0]


def largest(scores: torch.Tensor) -> torch.Tensor:
    """The first channel with the largest score at each pixel, int16 ``[height, width]``: several times as
    fast as `argmax` over the first dimension."""
    best, winner = scores[0].clone(), torch.zeros(scores.shape[1:], dtype=torch.int16)
    for index in range(1, len(scores)):
        winner.masked_fill_(scores[index] > best, index)
        torch.maximum(best, scores[index], out=best)
    return winner


def nearest(mask: torch.Tensor, seen: Size, size: Size) -> torch.Tensor:
    """A mask ``[height, width]`` of any dtype resized to `seen`, each pixel the nearest one as torch picks
    it, and cut to `size`."""
    rows, columns = (
        torch.nn.functional.interpolate(torch.arange(old).float()[None, None], size=new)[0, 0, :cut].long()
        for old, new, cut in zip(mask.shape, seen, size)
    )
    return mask[rows][:, columns]
