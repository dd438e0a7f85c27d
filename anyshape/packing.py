"""Packing: which items of a batch run together, in which bucket, at which batch size.

    for call in pack([(55,), (112,), (60,)], costs):
        run(call.bucket, call.batch_size, [batch[i] for i in call.items])

Short items may ride in the spare rows of a larger bucket's call, and a batch may need many calls:
what counts is the sum of seconds, by the measured table. The other policies are what servers
usually do; they are here to compare with, and `pack` never costs more than any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, cast

from anyshape.buckets import Bucket, Size, largest_sides
from anyshape.costs import INFINITE, CostTable, Need

_EXACT_UP_TO = 8  # items; the search over subsets takes 3^n steps


@dataclass(frozen=True)
class Call:
    """One run of one bucketed model: `items` are indices into the batch, row after row.

    held: how many of them each row holds; by default one, and they are in the batch's order then. There
    are at most `batch_size` rows of items, and the rest of the rows are padding."""

    bucket: Bucket
    batch_size: int
    items: Tuple[int, ...]
    held: Tuple[int, ...] = ()


Group = Tuple[Need, Sequence[int]]  # items that run in one call, and what they need together


def pack(sizes: Sequence[Size], costs: CostTable) -> List[Call]:
    """The cheapest set of calls that runs every item of the batch once.

    What is guaranteed:

    - In one dimension no set of calls is cheaper. Nor is any for pictures whose needs are nested:
      of any two, all buckets that contain the larger one contain the smaller one, as squares do.
    - For other pictures none is cheaper for up to 8 items. Beyond that there is no bound, only
      care: the cheapest contiguous groups in the order of cost, height or width, improved by
      moving items between buckets until no move pays.
    - Never costlier than one call per item, one call per bucket, or (where a bucket holds all)
      one call for all.

    Source: the dynamic programme over contiguous groups of the sorted items is that of
    TurboTransformers (Fang et al., PPoPP 2021). Why contiguous groups suffice for nested needs,
    whatever the table says: take any set of calls, sort them by their largest item, and deal the
    items out anew in falling order, each call keeping its number of items. The calls from the
    k-th on held as many items as they do now, and now these are the smallest of all, so the
    largest item of no call has grown, nor has its cost.

    Raises ValueError if no bucket contains some item.
    """
    if not sizes:
        return []
    needs = [costs.need(size) for size in sizes]
    ranks = {need: costs.demand(need) for need in set(needs)}
    nested = sorted(ranks, key=ranks.__getitem__)
    if all(costs.join(small, large) == large for small, large in zip(nested, nested[1:])):
        order = sorted(range(len(needs)), key=lambda i: ranks[needs[i]])
        return _calls(_nested_groups(order, needs, costs), costs)
    if len(needs) <= _EXACT_UP_TO:
        return _calls(_best_subsets(needs, costs), costs)
    orders = _orders(sizes, needs, costs)
    candidates = [_calls(_ordered_groups(order, needs, costs), costs) for order in orders]
    best = min([fifo(sizes, costs), *candidates], key=lambda calls: total_cost(calls, costs))
    return best if costs.interpolate_sizes else _moved(best, cast("List[int]", needs), costs)


def fifo(sizes: Sequence[Size], costs: CostTable) -> List[Call]:
    """One call for all, in the order of arrival; a new one only where no call takes the next item
    together with those before it."""
    groups: List[Tuple[Need, List[int]]] = []
    for i, size in enumerate(sizes):
        need = costs.need(size)
        if groups and len(groups[-1][1]) < costs.largest_batch:
            together = costs.join(groups[-1][0], need)
            if together and costs.row(together)[len(groups[-1][1]) + 1] < INFINITE:
                groups[-1] = (together, [*groups[-1][1], i])
                continue
        groups.append((need, [i]))
    return _calls(groups, costs)


def per_bucket(sizes: Sequence[Size], costs: CostTable) -> List[Call]:
    """Every item in its cheapest bucket; one call per bucket, or several if they are too many."""
    held: Dict[Bucket, List[int]] = {}
    for i, size in enumerate(sizes):
        held.setdefault(costs.cheapest(size), []).append(i)
    calls = []
    for bucket, items in held.items():
        most = costs.most_rows[bucket]
        for start in range(0, len(items), most):
            chunk = items[start : start + most]
            sides = (sizes[i] for i in chunk)
            shape = costs.run_as(largest_sides(sides)) if costs.interpolate_sizes else bucket
            calls.append(Call(shape, costs.fit(len(chunk)), tuple(chunk)))
    return calls


def one_by_one(sizes: Sequence[Size], costs: CostTable) -> List[Call]:
    """One call per item, at the smallest batch size."""
    return _calls([(costs.need(size), [i]) for i, size in enumerate(sizes)], costs)


Policy = Callable[[Sequence[Size], CostTable], List[Call]]
POLICIES: Dict[str, Policy] = {
    "packed": pack,
    "per_bucket": per_bucket,
    "fifo": fifo,
    "one_by_one": one_by_one,
}


def total_cost(calls: Iterable[Call], costs: CostTable) -> float:
    """Seconds that the calls take, one after the other."""
    return sum(costs.cost(call.bucket, call.batch_size) for call in calls)


def _calls(groups: Iterable[Group], costs: CostTable) -> List[Call]:
    calls = []
    for need, items in groups:
        batch_size = costs.fit(len(items))
        calls.append(Call(costs.shape(need, batch_size), batch_size, tuple(sorted(items))))
    return calls


def _nested_groups(order: Sequence[int], needs: Sequence[Need], costs: CostTable) -> List[Group]:
    """The cheapest contiguous groups of items whose needs each include the one before.

    A group's need is its last item's.
    """
    best = [0.0]
    taken = [0]
    for end in range(1, len(order) + 1):
        row = costs.row(needs[order[end - 1]])
        most = min(end, costs.largest_batch)
        # In C, since it is run per item: the totals when this call takes `most` items, down to one.
        totals = list(map(add, best[end - most : end], row[most:0:-1]))
        least = min(totals)
        best.append(least)
        taken.append(most - totals.index(least))
    groups: List[Group] = []
    end = len(order)
    while end:
        groups.append((needs[order[end - 1]], order[end - taken[end] : end]))
        end -= taken[end]
    return groups


def _ordered_groups(order: Sequence[int], needs: Sequence[Need], costs: CostTable) -> List[Group]:
    """The cheapest contiguous groups of `order`; a group's need is the join of its items'."""
    asked = [needs[i] for i in order]
    best = [0.0]
    chosen: List[Tuple[Need, int]] = [(0, 0)]
    for end in range(1, len(order) + 1):
        together = last = asked[end - 1]
        row = costs.row(together)
        least, choice = best[-1] + row[1], (together, 1)
        for n in range(2, min(end, costs.largest_batch) + 1):
            need = asked[end - n]
            if need != last:
                together, last = costs.join(together, need), need
                if not together:
                    break
                row = costs.row(together)
            if row[n] >= least:  # nor would a larger call cost less
                break
            seconds = best[end - n] + row[n]
            if seconds < least:
                least, choice = seconds, (together, n)
        best.append(least)
        chosen.append(choice)
    groups: List[Group] = []
    end = len(order)
    while end:
        together, n = chosen[end]
        groups.append((together, order[end - n : end]))
        end -= n
    return groups


def _orders(sizes: Sequence[Size], needs: Sequence[Need], costs: CostTable) -> List[List[int]]:
    """Orders in which neighbours are worth running together.

    The first goes by the cheapest bucket, so that the calls of `per_bucket` are among its groups;
    the others by each side of that bucket.
    """
    own = [costs.cheapest(size) for size in sizes]
    seconds = costs.choose_cost
    keys: List[List[Any]] = [[(seconds[b], b, need) for b, need in zip(own, needs)]]
    for side in range(len(sizes[0])):
        keys.append([(b[side:] + b[:side], need) for b, need in zip(own, needs)])
    return [sorted(range(len(sizes)), key=key.__getitem__) for key in keys]


def _best_subsets(needs: Sequence[Need], costs: CostTable) -> List[Group]:
    """The cheapest groups of all: for each subset of the items, the best call for its last item."""
    count = 1 << len(needs)
    together: List[Optional[Need]] = [None] * count  # None: no bucket contains them all
    seconds = [0.0] * count  # of one call
    size = [0] * count
    for subset in range(1, count):
        last = subset.bit_length() - 1
        rest = subset ^ (1 << last)
        size[subset] = size[rest] + 1
        need: Optional[Need] = needs[last]
        if rest:
            others = together[rest]
            need = costs.join(needs[last], others) if others else None
        seconds[subset] = INFINITE
        if need and size[subset] <= costs.largest_batch:
            together[subset] = need
            seconds[subset] = costs.row(need)[size[subset]]
    best = [0.0] * count
    chosen = [0] * count
    for subset in range(1, count):
        last_bit = 1 << (subset.bit_length() - 1)
        rest = others_in = subset ^ last_bit
        least, group = seconds[subset], subset
        while others_in:
            others_in = (others_in - 1) & rest
            total = seconds[others_in | last_bit] + best[rest ^ others_in]
            if total < least:
                least, group = total, others_in | last_bit
        best[subset], chosen[subset] = least, group
    groups: List[Group] = []
    left = count - 1
    while left:
        group = chosen[left]
        need = together[group]
        assert need is not None
        groups.append((need, [i for i in range(len(needs)) if group >> i & 1]))
        left ^= group
    return groups


def _moved(calls: Sequence[Call], needs: Sequence[int], costs: CostTable) -> List[Call]:
    """Move items from one bucket to another, as many as pay best, until no move pays."""
    held: Dict[Bucket, List[int]] = {bucket: [] for bucket in costs.buckets}
    for call in calls:
        held[call.bucket].extend(call.items)
    seconds = {bucket: costs.alone(bucket, len(needs))[0] for bucket in costs.buckets}
    worth = total_cost(calls, costs) * 1e-9  # less is rounding
    moving = True
    while moving:
        moving = False
        for index, target in enumerate(costs.buckets):
            for source, items in held.items():
                movable = [i for i in items if needs[i] >> index & 1]
                if source == target or not movable:
                    continue
                most, here, there = len(movable), len(items), len(held[target])
                # What both buckets cost after moving `most` items, down to one.
                totals = list(
                    map(
                        add,
                        seconds[source][here - most : here],
                        seconds[target][there + most : there : -1],
                    )
                )
                least = min(totals)
                if least < seconds[source][here] + seconds[target][there] - worth:
                    moved = movable[: most - totals.index(least)]
                    held[source] = [i for i in items if i not in moved]
                    held[target] = held[target] + moved
                    moving = True
    return [call for bucket, items in held.items() for call in _split(bucket, items, costs)]


def _split(bucket: Bucket, items: Sequence[int], costs: CostTable) -> List[Call]:
    """The cheapest calls that run all the items in one bucket."""
    last = costs.alone(bucket, len(items))[1]
    left = sorted(items)
    calls = []
    while left:
        n = last[len(left)]
        calls.append(Call(bucket, costs.fit(n), tuple(left[-n:])))
        left = left[:-n]
    return calls
