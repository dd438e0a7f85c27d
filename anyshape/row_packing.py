"""Packing whole texts into rows: which texts share a row, and which rows run in one call.

    for call in pack_rows([(55,), (112,), (60,)], costs, segments=32):
        run(call.bucket, call.batch_size, [batch[i] for i in call.items], call.held)

Rows are bins of a few lengths, and their cost is measured: what counts is the sum of seconds. Once it is
settled which texts share rows, a row is an item as long as its texts together, and `packing.pack` finds the
cheapest calls for them. So what is searched here are the rows: how many of each length, cheapest first
(`row_counts`), until the texts fit in.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import islice
from typing import Dict, List, Sequence, Tuple

from anyshape.buckets import Size
from anyshape.costs import CostTable
from anyshape.packing import Call, pack, total_cost
from anyshape.padding import rows_of
from anyshape.row_counts import RowCounts

_EXACT_UP_TO = 6  # texts; the search over their partitions takes 3^n steps
TRIES = 3  # numbers of rows that are tried, the cheapest first
_SLACK = 1 + 1e-9  # less is rounding

Fill = List[int]  # the texts of one row, as indices


def pack_rows(sizes: Sequence[Size], costs: CostTable, segments: int) -> List[Call]:
    """The cheapest calls that are found for texts of these lengths, at most `segments` of them in a row.

    What is guaranteed:

    - For up to 6 texts no rows and calls are cheaper. Nor are any where the result costs no more than the
      cheapest rows that could have room (`RowCounts.least`), which is a lower bound and often reached.
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
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    counts = RowCounts(costs, [lengths[i] for i in order], segments)
    candidates: List[List[Call]] = []
    for seconds, bins in islice(counts.cheapest(), TRIES):
        if candidates and seconds >= min(total_cost(calls, costs) for calls in candidates):
            break
        fills, over = _filled(order, lengths, bins, segments)
        if over:
            for call in pack_rows([sizes[i] for i in over], costs, segments):
                fills += [[over[k] for k in row] for row in rows_of(call.items, call.held)]
        candidates.append(_calls(fills, lengths, costs))
        if not over:
            break
    best = min(candidates, key=lambda calls: total_cost(calls, costs))
    if total_cost(best, costs) <= counts.least * _SLACK:
        return best
    candidates.append(pack(sizes, costs))
    for (length,) in costs.buckets:
        if length >= lengths[order[0]]:
            candidates.append(_calls(decreasing(order, lengths, length, segments), lengths, costs))
    if len(sizes) <= _EXACT_UP_TO:
        candidates += [_calls(fills, lengths, costs) for fills in _partitions(lengths, costs, segments)]
    return min(candidates, key=lambda calls: total_cost(calls, costs))


def _filled(
    order: Sequence[int], lengths: Sequence[int], bins: Sequence[int], segments: int
) -> Tuple[List[Fill], List[int]]:
    """The texts in rows of these lengths, given longest first, and those that are left over."""
    found = [best_fit(order, lengths, bins, segments)]
    for rows in (bins, bins[::-1]):
        if found[-1][1]:
            found.append(fullest(order, lengths, rows, segments))
    return min(found, key=lambda one: sum(lengths[i] for i in one[1]))


def best_fit(
    order: Sequence[int], lengths: Sequence[int], bins: Sequence[int], segments: int, opens: int = 0
) -> Tuple[List[Fill], List[int]]:
    """Each text into the row with the least room that is left for it, and the texts that find none.

    order: texts, longest first. bins: the lengths of the rows. Rows that stay empty are left out. opens: the
    length of the rows that are added for texts that find no room; 0: none are.
    """
    free = sorted((length, row) for row, length in enumerate(bins))
    fills: List[Fill] = [[] for _ in bins]
    over: List[int] = []
    for i in order:
        at = bisect_left(free, (lengths[i], -1))
        if at < len(free):
            left, row = free.pop(at)
        elif opens:
            left, row = opens, len(fills)
            fills.append([])
        else:
            over.append(i)
            continue
        fills[row].append(i)
        if len(fills[row]) < segments:
            insort(free, (left - lengths[i], row))
    return [fill for fill in fills if fill], over


def fullest(
    order: Sequence[int], lengths: Sequence[int], bins: Sequence[int], segments: int
) -> Tuple[List[Fill], List[int]]:
    """As `best_fit`, filling one row after the other, as they are given: the longest text that is left, and
    of the others those that leave the least room.

    Source: the minimum bin slack heuristic (Gupta and Ho, "A new heuristic algorithm for the one-dimensional
    bin-packing problem", Production Planning & Control 10(6), 1999); the sums that can be reached are bits of
    one number.
    """
    left = list(order)
    rising = [-lengths[i] for i in left]
    fills: List[Fill] = []
    for length in bins:
        first = bisect_left(rising, -length)
        if first == len(left):
            continue
        room = length + rising[first]
        start = max(first + 1, bisect_left(rising, -room))
        within = (1 << (room + 1)) - 1
        reached = [1]  # bit s: some of the others so far have s tokens together
        for minus in rising[start:]:
            reached.append(reached[-1] | reached[-1] << -minus & within)
            if reached[-1] >> room:
                break
        tokens = reached[-1].bit_length() - 1
        chosen = []  # shortest first
        for k in range(len(reached) - 1, 0, -1):
            if not reached[k - 1] >> tokens & 1:
                chosen.append(start + k - 1)
                tokens += rising[start + k - 1]
        chosen = [*chosen[max(0, len(chosen) - segments + 1) :], first]
        fills.append([left[place] for place in chosen])
        for place in chosen:
            del left[place], rising[place]
    return fills, left


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
