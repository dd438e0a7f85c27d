"""How many rows of each length: those that could have room for some texts, the cheapest first.

counts = RowCounts(costs, [112, 60, 55], segments=32)
next(counts.cheapest())     # [256]: the lengths of the rows
counts.least                # seconds: no rows that hold the texts cost less
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from heapq import heappop, heappush
from itertools import accumulate
from typing import Iterator, List, Sequence, Tuple
from weakref import WeakKeyDictionary

from anyshape.costs import CostTable

_FINEST = 64  # units that the longest row has at most: the bound is worked out for each number of them
_MOST = 256  # partial choices that are looked at


class RowCounts:
    """Numbers of rows for texts of some lengths, given longest first.

    Rows that hold the texts have room for their tokens, and for their number; so have the longer rows for
    the texts that fit no shorter one. What a row of some length holds is at most what the best of all texts
    would fill of it, and as many as there are of the shortest. Rows that satisfy this are found by best
    first search, from the longest length to the shortest, and need not hold the texts all the same.

    Raises ValueError if no row is long enough for some text.
    """

    def __init__(self, costs: CostTable, lengths: Sequence[int], segments: int) -> None:
        self.lengths = [bucket[0] for bucket in costs.buckets]
        self._costs = costs
        self._bound = Bound.of(costs)
        if lengths[0] > self.lengths[-1]:
            raise ValueError(f"a text of {lengths[0]} tokens fits no row of {self.lengths}: reject it before")
        tokens, texts = [0] * len(self.lengths), [0] * len(self.lengths)
        for length in lengths:
            level = bisect_left(self.lengths, length)
            tokens[level] += length
            texts[level] += 1
        # By length of rows: what is to go into rows that are no shorter, in tokens and in texts.
        self._tokens = list(accumulate(reversed(tokens)))[::-1]
        self._texts = list(accumulate(reversed(texts)))[::-1]
        self._fills = _most_tokens(self.lengths, lengths, segments)
        self._holds = _most_texts(self.lengths, lengths, segments)
        self.least = 0.0

    def cheapest(self) -> Iterator[Tuple[float, List[int]]]:
        """The lengths of the rows, longest first: those that could do, in the order of their seconds. Sets
        `least`."""
        # A choice: a bound of its seconds; how many lengths are open; the rows of the others, the longest
        # first; what those cost, and for how many tokens (negative: of equals the roomiest comes first) and
        # texts they have room.
        heap: List[Tuple[float, int, int, int, Tuple[int, ...], float]] = []
        rows: Tuple[int, ...] = ()
        level, bound, seconds, tokens, texts = len(self.lengths), 0.0, 0.0, 0, 0
        for _ in range(_MOST):
            if level:
                level -= 1
                start = self._wanted(level, level, tokens, texts)
                stop = 2 + max(start, self._wanted(level, 0, tokens, texts)) if level else start + 1
            else:
                self.least = self.least or bound
                yield bound, [n for n, count in zip(self.lengths[::-1], rows) for _ in range(count)]
                last = rows[-1]  # one more of these may help
                rows, seconds = rows[:-1], seconds - self._seconds(0, last)
                tokens, texts = tokens - last * self._fills[0], texts - last * self._holds[0]
                start, stop = last + 1, last + 2
            for count in range(start, stop):
                spent = seconds + self._seconds(level, count)
                room, places = tokens + count * self._fills[level], texts + count * self._holds[level]
                rest = self._bound.seconds(level, self._tokens[0] - room)
                heappush(heap, (spent + rest, level, -room, places, (*rows, count), spent))
            bound, level, tokens, texts, rows, seconds = heappop(heap)
            tokens = -tokens

    def _wanted(self, level: int, least: int, tokens: int, texts: int) -> int:
        """How many rows of one length it takes to have room for all that is to go into rows of `least` or
        longer ones, where others have room for `tokens` and `texts`."""
        return max(
            0,
            -((tokens - self._tokens[least]) // self._fills[level]) if self._fills[level] else 0,
            -((texts - self._texts[least]) // self._holds[level]) if self._holds[level] else 0,
        )

    def _seconds(self, level: int, count: int) -> float:
        return self._costs.alone((self.lengths[level],), count)[0][count]


def _most_tokens(rows: Sequence[int], lengths: Sequence[int], segments: int) -> List[int]:
    """The most tokens of whole texts that a row of each length can hold. lengths: of texts, longest first."""
    within = (1 << rows[-1] + 1) - 1
    sums = 1  # bit s: some texts have s tokens together
    for length in lengths:
        sums = (sums | sums << length) & within
    falling, found = [-length for length in lengths], []
    for row in rows:
        at = bisect_left(falling, -row)  # longer texts do not fit
        found.append(min((sums & (1 << row + 1) - 1).bit_length() - 1, sum(lengths[at : at + segments])))
    return found


def _most_texts(rows: Sequence[int], lengths: Sequence[int], segments: int) -> List[int]:
    """The most texts that a row of each length can hold."""
    ends = list(accumulate(reversed(lengths[-segments:])))
    return [sum(end <= row for end in ends) for row in rows]


class Bound:
    """A lower bound of the seconds that rows with room for a number of tokens take, if they are of the
    shortest lengths alone. Worked out once per table, as far as it is asked."""

    _kept: WeakKeyDictionary[CostTable, Bound] = WeakKeyDictionary()

    def __init__(self, costs: CostTable) -> None:
        lengths = [bucket[0] for bucket in costs.buckets]
        self._unit = -(-lengths[-1] // _FINEST)
        # Rounded up: rows that are taken to be longer than they are cost too little, never too much.
        shapes = [
            (-(-length // self._unit) * n, costs.cost((length,), n), length)
            for length in lengths
            for n in costs.group_sizes
            if n <= costs.most_rows[length,]
        ]
        self._shapes = [[shape[:2] for shape in shapes if shape[2] < length] for length in lengths]
        self._seconds = [[0.0] for _ in lengths]
        self._reaching = threading.Lock()

    @classmethod
    def of(cls, costs: CostTable) -> Bound:
        """The one of this table."""
        if costs not in cls._kept:
            cls._kept[costs] = cls(costs)
        return cls._kept[costs]

    def seconds(self, level: int, tokens: int) -> float:
        """The least seconds of rows that are shorter than that of `level`, which have room for `tokens`."""
        units = max(0, tokens // self._unit)
        found = self._seconds[level]
        if units >= len(found):
            with self._reaching:
                for want in range(len(found), units + 1):
                    found.append(
                        min(
                            (found[max(want - room, 0)] + cost for room, cost in self._shapes[level]),
                            default=0.0,
                        )
                    )
        return found[units]
