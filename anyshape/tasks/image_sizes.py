"""Which heights and widths a model of pictures takes: saved when the archive is built, asked when it serves.

A network that halves a picture and doubles it again takes multiples of something only, one without padding
nothing below a window. Sides are saved as runs, ``[first, last, step]``: ``[[32, 512, 32]]``, say.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import List, Optional, Sequence, Set

from anyshape.buckets import Size

LARGEST_STEP = 256


def from_runs(runs: Sequence[Sequence[int]]) -> List[int]:
    """The rising whole numbers that runs stand for."""
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
