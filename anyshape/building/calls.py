"""What the build runs in a bucket before it trusts it: items of several sizes, in calls as when served."""

from __future__ import annotations

import itertools
import random
from typing import List, Sequence, Tuple

from anyshape.buckets import Bucket, Size
from anyshape.building.tasks.base import TaskBuilder
from anyshape.items import Item
from anyshape.layouts import Items, Rows
from anyshape.packing import Call

MIXED = 4  # rows of texts in random order that are checked, where a row holds several


def items_to_check(builder: TaskBuilder, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Item]:
    """Items to run in `bucket`; `smaller` are the buckets before it."""
    sizes: List[Size]
    if isinstance(builder.layout, Rows):  # short texts run in long rows
        sizes = builder.checked_sizes(bucket, [])
        least, (length,) = sizes[0][0], bucket
        rests = [length - size for (size,) in sizes if least <= length - size]
        sizes = [*sizes, *((rest,) for rest in rests)]
        sizes += [(least,)] * max(0, min(builder.layout.segments, length // least) - len(sizes))
    else:
        sizes = builder.checked_sizes(bucket, smaller)
    return [builder.sample(size, seed) for seed, size in enumerate(sizes)]


def calls_to_check(layout: Items, sizes: Sequence[Size], bucket: Bucket, batch_size: int) -> List[Call]:
    """Calls of that shape in which every item occurs; the last may have rows to spare.

    Where a row holds several, each is in one alone, in full ones, and among others in various orders.
    """
    rows: List[Tuple[int, ...]] = [(i,) for i in range(len(sizes))]
    if isinstance(layout, Rows):
        rows = [*_mixed(sizes, bucket, layout.segments), *rows]
    calls: List[Call] = []
    left = iter(rows)
    while True:
        taken = list(itertools.islice(left, batch_size))
        if not taken:
            return calls
        held = tuple(map(len, taken)) if isinstance(layout, Rows) else ()
        calls.append(Call(bucket, batch_size, tuple(itertools.chain(*taken)), held))


def _mixed(sizes: Sequence[Size], bucket: Bucket, segments: int) -> List[Tuple[int, ...]]:
    """Rows of several texts: random ones, full ones of two texts, both ways, and the shortest."""
    lengths, (length,) = [size[0] for size in sizes], bucket
    rows: List[Tuple[int, ...]] = []
    draw = random.Random(0)
    for _ in range(MIXED):
        order = list(range(len(lengths)))
        draw.shuffle(order)
        rows.append(_first_that_fit(order, lengths, length, segments))
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    rows.append(_first_that_fit(by_length, lengths, length, segments))
    for i, j in itertools.permutations(range(len(lengths)), 2):
        if lengths[i] + lengths[j] == length and segments > 1:
            rows.append((i, j))
    return sorted(set(rows), key=lambda row: (-len(row), row))[: 4 * MIXED]


def _first_that_fit(order: Sequence[int], lengths: Sequence[int], room: int, most: int) -> Tuple[int, ...]:
    row: List[int] = []
    for i in order:
        if lengths[i] <= room and len(row) < most:
            row.append(i)
            room -= lengths[i]
    return tuple(row)
