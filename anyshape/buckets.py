"""Buckets: the fixed shapes that a model was compiled for.

A bucket is a tuple of whole numbers: ``(128,)`` is 128 tokens, ``(500, 600)`` is an image 500 pixels
high and 600 wide. An item's *size* is written the same way. Plain tuples, no class: they hash, compare
and print, and JSON carries them as lists.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import ge
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Tuple

Bucket = Tuple[int, ...]
Size = Tuple[int, ...]
Shape = Tuple[Bucket, int]  # of a call: its bucket and its batch size


@lru_cache(4096)
def bucket_name(bucket: Bucket) -> str:
    """``(128,)`` → ``"128"``, ``(500, 600)`` → ``"500x600"``. Safe as a file name and a metric label."""
    return "x".join(str(side) for side in bucket)


def parse_bucket(value: Any) -> Bucket:
    """One bucket out of a recipe or a JSON file: ``128``, ``[500, 600]`` or ``"500x600"``.

    Raises ValueError if a side is not a positive whole number or there are not one or two of them.
    """
    sides: Sequence[Any]
    if isinstance(value, str):
        sides = [int(part) if part.isdecimal() else part for part in value.split("x")]
    elif isinstance(value, (list, tuple)):
        sides = value
    else:
        sides = [value]
    for side in sides:
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            raise ValueError(f"a bucket's sides are positive whole numbers, not {value!r}")
    if len(sides) not in (1, 2):
        raise ValueError(f"a bucket has one side (tokens) or two (height, width), not {value!r}")
    return tuple(sides)


def parse_buckets(values: Iterable[Any]) -> List[Bucket]:
    """Buckets sorted by size and unique. Raises ValueError if there are none or their ranks differ."""
    buckets = sorted({parse_bucket(value) for value in values}, key=by_size)
    if not buckets:
        raise ValueError("at least one bucket is needed")
    if len({len(bucket) for bucket in buckets}) > 1:
        raise ValueError("all buckets have one side, or all have two")
    return buckets


def every_length(written: str) -> List[Bucket]:
    """The buckets of ``"every length to 64"`` or ``"every length from 4 to 64"``.

    Raises ValueError if there are none.
    """
    numbers = [int(word) for word in written.split() if word.isdecimal()]
    least, most = numbers if len(numbers) == 2 else (1, *numbers)
    if least > most:
        raise ValueError(f"{written!r} names no length")
    return [(length,) for length in range(least, most + 1)]


def volume(shape: Sequence[int]) -> int:
    """How many positions a bucket or an item has: tokens, or pixels."""
    return math.prod(shape)


def by_size(bucket: Bucket) -> Tuple[int, Bucket]:
    """The one sort key of buckets: smaller volume first, then smaller sides."""
    return volume(bucket), bucket


def contains(bucket: Bucket, size: Size) -> bool:
    """Whether an item of `size` fits; an exact fit does."""
    return all(map(ge, bucket, size))


def fits(size: Size, buckets: Iterable[Bucket], unpadded: bool = False) -> bool:
    """Whether an item of `size` fits any of `buckets`; `unpadded`: whether it is as large as one of them.

    The one place where that is decided.
    """
    return any(bucket == size if unpadded else contains(bucket, size) for bucket in buckets)


def largest_sides(buckets: Iterable[Bucket]) -> Size:
    """The largest length (or height and width) that any bucket takes: what an error message names."""
    return tuple(max(sides) for sides in zip(*buckets))


def call_shapes(
    buckets: Iterable[Bucket], batch_sizes: Sequence[int], largest_call: Optional[int] = None
) -> List[Shape]:
    """The shapes that a call may have, by bucket and batch size, both rising.

    Every bucket takes the smallest batch size, and more rows while the call has no more than
    `largest_call` positions: many short texts fill a machine that one long one fills.
    """
    smallest = min(batch_sizes)
    return [
        (bucket, size)
        for bucket in buckets
        for size in sorted(batch_sizes)
        if size == smallest or largest_call is None or size * volume(bucket) <= largest_call
    ]


def choose(
    size: Size, buckets: Iterable[Bucket], cost: Optional[Mapping[Bucket, float]] = None
) -> Optional[Bucket]:
    """The cheapest bucket that contains `size`, or None if none does.

    `cost` is the measured seconds of one call per bucket; without it the volume stands in. Equal costs
    go to the smaller volume, so that an exact fit always uses its own bucket.
    """
    fitting = [bucket for bucket in buckets if contains(bucket, size)]
    if not fitting:
        return None
    if cost is None:
        return min(fitting, key=by_size)
    return min(fitting, key=lambda b: (cost[b], by_size(b)))
