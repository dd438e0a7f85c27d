"""Finds which sides a model of pictures takes, asking it as little as possible."""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence

from anyshape.buckets import Size
from anyshape.tasks.image_sizes import LARGEST_STEP


def to_runs(sides: Sequence[int]) -> List[List[int]]:
    """Rising whole numbers as runs."""
    runs: List[List[int]] = []
    for side in sides:
        if runs:
            first, last, step = runs[-1]
            if first == last or side - last == step:
                runs[-1] = [first, side, side - last]
                continue
        runs.append([side, side, 1])
    return runs


def first_taken(takes: Callable[[int], bool], sides: Sequence[int]) -> Optional[int]:
    """The least of the rising `sides` that is taken, if every larger one is taken as well; None if the
    last is not. Asks as little as it can, for `takes` runs a model."""
    if takes(sides[0]):
        return sides[0]
    low, high = 0, len(sides) - 1
    if not takes(sides[high]):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if takes(sides[middle]) else (middle, high)
    return sides[high]


def size_to_try(takes: Callable[[Size], bool], size: Size) -> Optional[int]:
    """A number whose multiples are taken, where `size` itself is not: powers of two, each asked at an odd
    multiple of it near `size`, for a larger power's multiple would say nothing of this one."""
    step = 2
    while step <= LARGEST_STEP:
        if takes(tuple((-(-side // step) | 1) * step for side in size)):
            return step
        step *= 2
    return None
