"""Packing whole texts into rows: which texts share a row, and which rows run in one call.

    for call in pack_rows([(55,), (112,), (60,)], costs, segments=32):
        run(call.bucket, call.batch_size, [batch[i] for i in call.items], call.held)

Rows are bins of a few lengths, and their cost is measured: what counts is the sum of seconds. Once it is
settled which texts share rows, a row is an item as long as its texts together, and `packing.pack` finds the
cheapest calls for them. So what is searched here are the rows.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from functools import reduce
from math import gcd
from typing import Dict, List, Optional, Sequence, Tuple
from weakref import WeakKeyDictionary

from anyshape.buckets import Size
from anyshape.costs import CostTable
from anyshape.packing import Call, pack, total_cost

_EXACT_UP_TO = 6  # texts; the search over their partitions takes 3^n steps
_TRIES = 5  # sets of rows that are tried, each with more room than the one before
_SLACK = 1 + 1e-9  # less is rounding

Fill = List[int]  # the texts of one row, as indices


def pack_rows(sizes: Sequence[Size], costs: CostTable, segments: int) -> List[Call]:
    """The cheapest calls that are found for texts of these lengths, at most `segments` of them in a row.

    What is guaranteed:

    - For up to 6 texts no rows and calls are cheaper. Nor are any where the result costs no more than the
      cheapest calls with room for so many tokens (`Room`), which is a lower bound and often reached.
    - Never costlier than rows of one text each, as `packing.pack` runs them.
    - Never costlier than best-fit decreasing in rows of any one length that holds every text. Where rows
      are full of tokens before they have `segments` texts, those are at most 11/9 of the fewest that hold
      the texts, and 4 (Johnson, Demers, Ullman, Garey and Graham, "Worst-case performance bounds for simple
      one-dimensional packing algorithms", SIAM J. Comput. 3(4), 1974).

    Raises ValueError if no row is long enough for some text.
    """
    if not sizes:
        return []
    lengths = [size[0] for size in sizes]
    room = Room.of(costs)
    wanted = room.wanted(lengths)
    least = room.seconds(wanted)
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    best: Optional[List[Call]] = None
    for _ in range(_TRIES):
        bins = room.rows(wanted)
        fills, left = best_fit(order, lengths, bins, segments)
        if left is not None:
            fills, left = fullest(order, lengths, bins, segments)
        if left is None:
            best = _calls(fills, lengths, costs)
            break
        wanted = room.more(wanted, lengths[left], sum(bins))
    if best is not None and total_cost(best, costs) <= least * _SLACK:
        return best
    candidates = [] if best is None else [best]
    candidates.append(pack(sizes, costs))
    for (length,) in costs.buckets:
        if length >= lengths[order[0]]:
            candidates.append(_calls(decreasing(order, lengths, length, segments), lengths, costs))
    if len(sizes) <= _EXACT_UP_TO:
        candidates += [_calls(fills, lengths, costs) for fills in _partitions(lengths, costs, segments)]
    return min(candidates, key=lambda calls: total_cost(calls, costs))


def best_fit(
    order: Sequence[int], lengths: Sequence[int], bins: Sequence[int], segments: int, opens: int = 0
) -> Tuple[List[Fill], Optional[int]]:
    """Each text into the row with the least room that is left for it, and the first that finds none, or None.

    order: texts, longest first. bins: the lengths of the rows. Rows that stay empty are left out. opens: the
    length of the rows that are added for texts that find no room; 0: none are.
    """
    free = sorted((length, row) for row, length in enumerate(bins))
    fills: List[Fill] = [[] for _ in bins]
    for i in order:
        at = bisect_left(free, (lengths[i], -1))
        if at < len(free):
            left, row = free.pop(at)
        elif opens:
            left, row = opens, len(fills)
            fills.append([])
        else:
            return fills, i
        fills[row].append(i)
        if len(fills[row]) < segments:
            insort(free, (left - lengths[i], row))
    return [fill for fill in fills if fill], None


def fullest(
    order: Sequence[int], lengths: Sequence[int], bins: Sequence[int], segments: int
) -> Tuple[List[Fill], Optional[int]]:
    """As `best_fit`, filling one row after the other: the longest text that is left, and of the others those
    that leave the least room.

    Source: the minimum bin slack heuristic (Gupta and Ho, "A new heuristic algorithm for the one-dimensional
    bin-packing problem", Production Planning & Control 10(6), 1999); the sums that can be reached are bits of
    one number.
    """
    left = list(order)
    fills: List[Fill] = []
    for length in sorted(bins, reverse=True):
        first = next((i for i in left if lengths[i] <= length), None)
        if first is None:
            continue
        room = length - lengths[first]
        others = [i for i in left if i != first and lengths[i] <= room]
        within = (1 << (room + 1)) - 1
        reached = [1]  # bit s: some of the others so far have s tokens together
        for i in others:
            reached.append((reached[-1] | reached[-1] << lengths[i]) & within)
            if reached[-1] >> room:
                break
        tokens = reached[-1].bit_length() - 1
        fill = [first]
        for k in range(len(reached) - 1, 0, -1):
            if not reached[k - 1] >> tokens & 1:
                fill.append(others[k - 1])
                tokens -= lengths[others[k - 1]]
        fill = fill[:1] + fill[:-segments:-1] if len(fill) > segments else fill
        taken = set(fill)
        left = [i for i in left if i not in taken]
        fills.append(fill)
    return fills, left[0] if left else None


def decreasing(order: Sequence[int], lengths: Sequence[int], length: int, segments: int) -> List[Fill]:
    """Best-fit decreasing in as many rows of one length as it takes."""
    fills, _ = best_fit(order, lengths, (), segments, opens=length)
    return fills


def _calls(fills: Sequence[Fill], lengths: Sequence[int], costs: CostTable) -> List[Call]:
    """The cheapest calls that run these rows."""
    together = pack([(sum(lengths[i] for i in fill),) for fill in fills], costs)
    return [
        Call(
            call.bucket,
            call.batch_size,
            tuple(i for row in call.items for i in sorted(fills[row])),
            tuple(len(fills[row]) for row in call.items),
        )
        for call in together
    ]


def _partitions(lengths: Sequence[int], costs: CostTable, segments: int) -> List[List[Fill]]:
    """Ways to share the texts out to rows, one for each set of needs of the rows: costs know no more.

    For each subset of the texts, all sets of needs that its partitions have: the last text's row, joined to
    those of the rest.
    """
    count = 1 << len(lengths)
    tokens = [0] * count
    held = [0] * count
    for subset in range(1, count):
        last = subset.bit_length() - 1
        rest = subset ^ (1 << last)
        tokens[subset] = tokens[rest] + lengths[last]
        held[subset] = held[rest] + 1
    longest = costs.buckets[-1][0]
    demands = [
        costs.demand(costs.need((tokens[s],))) if 0 < tokens[s] <= longest and held[s] <= segments else 0
        for s in range(count)
    ]
    ways: List[Dict[Tuple[int, ...], Tuple[int, ...]]] = [{} for _ in range(count)]
    ways[0][()] = ()
    for subset in range(1, count):
        bit = 1 << (subset.bit_length() - 1)
        rest = others = subset ^ bit
        while True:
            row = others | bit
            if demands[row]:
                for needs, rows in ways[rest ^ others].items():
                    ways[subset].setdefault(tuple(sorted((*needs, demands[row]))), (*rows, row))
            if not others:
                break
            others = (others - 1) & rest
    return [
        [[i for i in range(len(lengths)) if row >> i & 1] for row in rows]
        for rows in ways[count - 1].values()
    ]


class Room:
    """The cheapest calls that have room for a number of tokens, whatever texts these are of.

    What is wanted is a number of tokens per length of rows, of texts that fit no shorter row. No rows that
    hold them cost less than `seconds`: a lower bound, and `rows` are those to try first. Counted in units of
    the greatest common divisor of the rows' lengths; worked out once per table, as far as it is asked.
    """

    _kept: WeakKeyDictionary[CostTable, Room] = WeakKeyDictionary()

    def __init__(self, costs: CostTable) -> None:
        self.lengths = [bucket[0] for bucket in costs.buckets]
        self.unit = reduce(gcd, self.lengths)
        shapes = [
            (length // self.unit * n, costs.cost((length,), n), (length, n))
            for length in self.lengths
            for n in costs.group_sizes
            if n <= costs.most_rows[length,]
        ]
        # Per length, by number of units: the calls of rows that are no shorter.
        self._levels = [_Level([s for s in shapes if s[2][0] >= length]) for length in self.lengths]

    @classmethod
    def of(cls, costs: CostTable) -> Room:
        """The one of this table."""
        if costs not in cls._kept:
            cls._kept[costs] = cls(costs)
        return cls._kept[costs]

    def wanted(self, lengths: Sequence[int]) -> List[int]:
        """The tokens of these texts by the shortest row that holds each. Raises ValueError if none does."""
        found = [0] * len(self.lengths)
        for length in lengths:
            if length > self.lengths[-1]:
                raise ValueError(f"a text of {length} tokens fits no row of {self.lengths}: reject it before")
            found[bisect_left(self.lengths, length)] += length
        return found

    def more(self, wanted: Sequence[int], length: int, tried: int) -> List[int]:
        """The same and room for another text of that length: more in all than rows of `tried` tokens have."""
        at = bisect_left(self.lengths, length)
        added = max(length, tried + 1 - sum(wanted))
        return [tokens + added * (level == at) for level, tokens in enumerate(wanted)]

    def seconds(self, wanted: Sequence[int]) -> float:
        """The least seconds that texts of so many tokens take."""
        return max(level.seconds(self._units(sum(wanted[at:]))) for at, level in enumerate(self._levels))

    def rows(self, wanted: Sequence[int]) -> List[int]:
        """The lengths of the rows of cheap calls that have room: first for the texts that need long ones."""
        bins: List[int] = []
        for at in range(len(wanted) - 1, -1, -1):
            bins += self._levels[at].rows(self._units(sum(wanted[at:]) - sum(bins)), self.unit)
        return bins

    def _units(self, tokens: int) -> int:
        return max(0, -(-tokens // self.unit))


class _Level:
    """The least seconds by number of units, of calls of some shapes: (units, seconds, (length, rows))."""

    def __init__(self, shapes: Sequence[Tuple[int, float, Tuple[int, int]]]) -> None:
        self._shapes = shapes
        self._reaching = threading.Lock()
        self._seconds = [0.0]
        self._last: List[Tuple[int, int]] = [(0, 0)]  # the length and the number of rows of one of the calls

    def seconds(self, units: int) -> float:
        self._reach(units)
        return self._seconds[units]

    def rows(self, units: int, unit: int) -> List[int]:
        self._reach(units)
        bins: List[int] = []
        while units > 0:
            length, n = self._last[units]
            bins += [length] * n
            units -= length // unit * n
        return bins

    def _reach(self, units: int) -> None:
        if units < len(self._seconds):
            return
        with self._reaching:
            for want in range(len(self._seconds), units + 1):
                least, shape = min(
                    (self._seconds[max(want - room, 0)] + seconds, shape)
                    for room, seconds, shape in self._shapes
                )
                self._last.append(shape)
                self._seconds.append(least)
