"""Which heights and widths a model of pictures takes: saved when the archive is built, asked when it serves.

A network that halves a picture and doubles it again takes multiples of something only, one without padding
nothing below a window. Sides are saved as runs, ``[first, last, step]``: ``[[32, 512, 32]]``, say.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Callable, List, Optional, Sequence, Set

from anyshape.buckets import Size

LARGEST_STEP = 256


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


def from_runs(runs: Sequence[Sequence[int]]) -> List[int]:
    """The whole numbers of `to_runs`."""
    return [side for first, last, step in runs for side in range(first, last + 1, step)]


class TakenSizes:
    """Pictures whose height and whose width are among these. Both rise, and neither is empty."""

    def __init__(self, heights: Sequence[int], widths: Sequence[int]) -> None:
        self.sides = (list(heights), list(widths))
        self._known = (set(heights), set(widths))

    def __contains__(self, size: Size) -> bool:
        return all(side in known for side, known in zip(size, self._known))

    def nearest(self, size: Size) -> Size:
        """The size that differs least, side by side; of two the larger."""

        def near(side: int, sides: List[int]) -> int:
            at = bisect_left(sides, side)
            return min(reversed(sides[max(0, at - 1) : at + 1]), key=lambda each: abs(each - side))

        return tuple(near(side, sides) for side, sides in zip(size, self.sides))

    def within(self, size: Size) -> Size:
        """The largest size that is not beyond `size` on either side; the smallest one if there is none."""
        return tuple(sides[max(0, bisect_right(sides, side) - 1)] for side, sides in zip(size, self.sides))

    def step(self) -> Optional[int]:
        """The least number of which every multiple is taken, from the smallest side to the largest."""
        for step in range(1, LARGEST_STEP + 1):
            if all(_taken_throughout(step, s, known) for s, known in zip(self.sides, self._known)):
                return step
        return None


def _taken_throughout(step: int, sides: List[int], known: Set[int]) -> bool:
    multiples = range(-(-sides[0] // step) * step, sides[-1] + 1, step)
    return len(multiples) > 0 and all(side in known for side in multiples)


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
