"""What one call costs: seconds per bucket and batch size, measured while the model warms up.

    costs = CostTable({((64,), 1): 0.01, ((64,), 4): 0.03, ((128,), 1): 0.02, ((128,), 4): 0.06})
    costs.fit(3)              # 4: three items run at the batch size that was compiled
    costs.cost((128,), 3)     # 0.06

Timings are noisy, and noise must not make nonsense of a plan: a bucket that lies inside another
never costs more than it, nor a smaller batch size more than a larger one. Where the measurement
says otherwise, the larger shape takes on the smaller one's seconds (a running maximum). So an
item that fits a bucket exactly always has that bucket as its cheapest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import Annotated, Dict, Iterable, List, Mapping, Sequence, Tuple, Union

from msgspec import Meta, Struct

from anyshape.buckets import Bucket, Shape, Size, choose, contains, fits, largest_sides, parse_buckets, volume

# What an item asks of its bucket: a bit per bucket that contains it, or the size itself where a
# call may have any shape. Two items in one call ask for the `join` of their needs.
Need = Union[int, Size]

INFINITE = float("inf")
EXACT_BITS = 5  # of a length that a call has where any may be: up to 31 each its own, then in steps
_KEPT = 4096  # sizes of images are many; what is worked out for them must not pile up


class CostRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row of a table as JSON has it: ``{"bucket": [128], "batch_size": 1, "seconds": 0.004}``."""

    bucket: Annotated[Tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1, max_length=2)]
    batch_size: Annotated[int, Meta(ge=1)] = 1
    seconds: Annotated[float, Meta(gt=0, lt=1e9)]


class CostTable:
    """Seconds of one call, for every bucket and batch size.

    `seconds` maps (bucket, batch size) to the measured seconds of one call. A bucket need not take
    as many rows as a smaller one does: the batch sizes that it lacks are its largest ones, and
    their cost is infinite. `dynamic_batch`: a call may have any number of rows up to the largest
    batch size of its bucket, at a cost that lies on the line between the measured ones.
    `interpolate_sizes`: a call may have any shape up to the largest sides, too, in steps (`rounded`), at a
    cost on the line between the measured volumes. Below the smallest measured batch size or volume its cost
    holds; a shape larger than every bucket costs in proportion to its volume. `unpadded`: an item runs in the
    bucket of its own size alone.

    Raises ValueError if the table is empty, has other holes, or holds something that is no time.
    """

    def __init__(
        self,
        seconds: Mapping[Shape, float],
        dynamic_batch: bool = False,
        interpolate_sizes: bool = False,
        unpadded: bool = False,
    ) -> None:
        self.buckets: Tuple[Bucket, ...] = tuple(parse_buckets(bucket for bucket, _ in seconds))
        self.batch_sizes: Tuple[int, ...] = tuple(sorted({size for _, size in seconds}))
        self.largest_batch: int = self.batch_sizes[-1]
        self.dynamic_batch = dynamic_batch
        self.interpolate_sizes = interpolate_sizes and not unpadded
        self.unpadded = unpadded
        self._measured = dict(seconds)
        # Per bucket, the most rows of one call.
        self.most_rows: Dict[Bucket, int] = {b: self._check(b) for b in self.buckets}
        self._fits = [0] + [self._smallest_fit(n) for n in range(1, self.largest_batch + 1)]
        # Numbers of items worth trying as one call: any other leaves rows empty that cost the
        # same filled.
        self.group_sizes: Sequence[int] = (
            range(1, self.largest_batch + 1) if dynamic_batch else self.batch_sizes
        )
        self._by_bucket = self._monotone()
        self._volumes, self._by_volume = self._monotone_by_volume()
        self._takes_of = lru_cache(_KEPT)(self._find_whether_fits)
        self._need_of = lru_cache(_KEPT)(self._find_need)
        self._cheapest_of = lru_cache(_KEPT)(self._find_cheapest)
        self._row_of = lru_cache(_KEPT)(self._find_row)
        self._alone: Dict[Bucket, Tuple[List[float], List[int]]] = {}

    @classmethod
    def by_volume(
        cls, shapes: Sequence[Shape], dynamic_batch: bool = False, unpadded: bool = False
    ) -> CostTable:
        """A model to plan with before anything was measured, in no real unit: only ratios mean
        something.

        A call costs its positions (volume times batch size) and a fixed overhead as large as one
        item of the smallest bucket.
        """
        overhead = min(volume(bucket) for bucket, _ in shapes)
        seconds = {(b, n): (overhead + volume(b) * n) * 1e-6 for b, n in shapes}
        return cls(seconds, dynamic_batch, unpadded=unpadded)

    @classmethod
    def of(
        cls, rows: Iterable[CostRow], dynamic_batch: bool = False, interpolate_sizes: bool = False
    ) -> CostTable:
        """The table of what `rows` gave."""
        seconds = {(row.bucket, row.batch_size): row.seconds for row in rows}
        return cls(seconds, dynamic_batch, interpolate_sizes)

    def rows(self) -> List[CostRow]:
        """As measured."""
        return [
            CostRow(bucket=bucket, batch_size=size, seconds=self._measured[bucket, size])
            for bucket in self.buckets
            for size in self._sizes(bucket)
        ]

    def fit(self, n: int) -> int:
        """The batch size that a call with `n` items runs at: the smallest compiled one that holds
        them, or `n` itself where the batch dimension is dynamic. Raises ValueError outside 1 to
        `largest_batch`.
        """
        if not 1 <= n <= self.largest_batch:
            raise ValueError(f"one call takes 1 to {self.largest_batch} items, not {n}: split them first")
        return self._fits[n]

    def cost(self, bucket: Bucket, batch_size: int) -> float:
        """Seconds of one call of that shape with room for `batch_size` rows; infinite where the
        bucket takes fewer.

        Raises ValueError if the bucket is unknown or the batch size out of range.
        """
        self.fit(batch_size)
        if self.interpolate_sizes:
            return self.row(bucket)[batch_size]
        if bucket not in self._by_bucket:
            raise ValueError(f"bucket {bucket} has no measured cost; known are {list(self.buckets)}")
        return self._by_bucket[bucket][batch_size]

    def per_call(self, bucket: Bucket) -> float:
        """Seconds of the smallest call of that bucket."""
        return self.cost(bucket, 1)

    @property
    def choose_cost(self) -> Dict[Bucket, float]:
        """What `buckets.choose` takes as `cost`: seconds of the smallest call, per bucket."""
        return {bucket: self.per_call(bucket) for bucket in self.buckets}

    # What the packer asks for. It compares needs, not buckets: many sizes share one need.

    def takes(self, size: Size) -> bool:
        """Whether an item of `size` has a bucket."""
        return self._takes_of(size)

    def need(self, size: Size) -> Need:
        """What an item of `size` asks for. Raises ValueError if no bucket contains it."""
        return self._need_of(size)

    def cheapest(self, size: Size) -> Bucket:
        """The bucket whose smallest call costs least for an item of `size`; of equal ones the
        smallest. Raises ValueError if no bucket contains it.
        """
        return self._cheapest_of(size)

    def join(self, one: Need, other: Need) -> Need:
        """What two items ask for together. 0 if no bucket contains both."""
        if isinstance(one, int) and isinstance(other, int):
            return one & other
        assert isinstance(one, tuple)
        assert isinstance(other, tuple)
        return tuple(map(max, one, other))

    def run_as(self, size: Size) -> Size:
        """The shape that is run for items as large as `size`, where a call may have any."""
        return tuple(min(rounded(side), most) for side, most in zip(size, largest_sides(self.buckets)))

    def demand(self, need: Need) -> int:
        """A sort key: where needs are nested, the one that includes another comes after it."""
        return -bin(need).count("1") if isinstance(need, int) else volume(need)

    def row(self, need: Need) -> List[float]:
        """Seconds of the cheapest call for n items of that need, at index n; infinite where no
        call takes so many."""
        return self._row_of(need)

    def fitting(self, need: int) -> List[Bucket]:
        """The buckets that satisfy a need, smallest volume first."""
        return [bucket for index, bucket in enumerate(self.buckets) if need >> index & 1]

    def shape(self, need: Need, n: int) -> Bucket:
        """The shape of the cheapest call for `n` items of that need; of equal ones the smallest."""
        if isinstance(need, int):
            return min(self.fitting(need), key=lambda bucket: self._by_bucket[bucket][n])
        return need

    def alone(self, bucket: Bucket, n: int) -> Tuple[List[float], List[int]]:
        """The cheapest way to run up to `n` items (at least) in one bucket, in as many calls as
        it takes.

        Two lists by number of items: the seconds in all, and how many items the last call takes.
        """
        seconds, last = self._alone.get(bucket, ([0.0], [0]))
        if len(seconds) <= n:
            row, seconds, last = self._by_bucket[bucket], list(seconds), list(last)
            for count in range(len(seconds), n + 1):
                least, taken = min(
                    (seconds[max(count - size, 0)] + row[size], min(count, size)) for size in self.group_sizes
                )
                seconds.append(least)
                last.append(taken)
            self._alone[bucket] = (seconds, last)
        return seconds, last

    # How the table is built.

    def _find_whether_fits(self, size: Size) -> bool:
        return fits(size, self.buckets, self.unpadded)

    def _find_need(self, size: Size) -> Need:
        need = sum(1 << i for i, bucket in enumerate(self.buckets) if fits(size, [bucket], self.unpadded))
        if not need:
            raise ValueError(f"size {size} fits no bucket of {list(self.buckets)}: reject it before packing")
        return self.run_as(size) if self.interpolate_sizes else need

    def _find_cheapest(self, size: Size) -> Bucket:
        self._find_need(size)  # says what is wrong with a size that fits nowhere
        bucket = size if self.unpadded else choose(size, self.buckets, self.choose_cost)
        assert bucket is not None
        return bucket

    def _find_row(self, need: Need) -> List[float]:
        if isinstance(need, int):
            return list(map(min, zip(*(self._by_bucket[bucket] for bucket in self.fitting(need)))))
        return self._between(volume(need))

    def _check(self, bucket: Bucket) -> int:
        """The largest batch size of a bucket whose seconds are in order."""
        most = max(size for other, size in self._measured if other == bucket)
        for size in self.batch_sizes[: bisect_right(self.batch_sizes, most)]:
            seconds = self._measured.get((bucket, size))
            if seconds is None:
                raise ValueError(f"bucket {bucket} was not measured at batch size {size}: measure it")
            if size < 1 or not 0 < seconds < INFINITE:
                raise ValueError(f"bucket {bucket} at batch size {size}: {seconds!r} s is no cost")
        for other, size in self._measured:
            if size > most and contains(other, bucket):
                raise ValueError(f"bucket {bucket} was not measured at batch size {size}, but {other} was")
        return most

    def _sizes(self, bucket: Bucket) -> Sequence[int]:
        """The measured batch sizes of a bucket."""
        return self.batch_sizes[: bisect_right(self.batch_sizes, self.most_rows[bucket])]

    def _smallest_fit(self, n: int) -> int:
        return n if self.dynamic_batch else self.batch_sizes[bisect_left(self.batch_sizes, n)]

    def _monotone(self) -> Dict[Bucket, List[float]]:
        """Per bucket the seconds of a call with n items at index n, made monotone."""
        rows: Dict[Bucket, List[float]] = {}
        for bucket in self.buckets:
            sizes = self._sizes(bucket)
            measured = [self._measured[bucket, size] for size in sizes]
            within = [rows[other] for other in rows if contains(bucket, other)]
            for i, size in enumerate(sizes):
                measured[i] = max([measured[i], *measured[:i], *(row[size] for row in within)])
            row = [0.0] + [
                _line(sizes, measured, fit) if fit <= sizes[-1] else INFINITE for fit in self._fits[1:]
            ]
            # Between two measured ones rounding may differ.
            rows[bucket] = [max(each) for each in zip(row, *within)]
        return rows

    def _monotone_by_volume(self) -> Tuple[List[int], List[List[float]]]:
        """The rows by volume: of several buckets with the same volume the dearest."""
        by_volume: Dict[int, List[float]] = {}
        row = [0.0] * (self.largest_batch + 1)
        for bucket in self.buckets:
            row = list(map(max, row, self._by_bucket[bucket]))
            by_volume[volume(bucket)] = row
        return list(by_volume), list(by_volume.values())

    def _between(self, wanted: int) -> List[float]:
        """The row of a volume that need not have been measured."""
        right = bisect_left(self._volumes, wanted)
        if right == 0:
            return self._by_volume[0]
        if right == len(self._volumes):  # high as one bucket and wide as another
            return [seconds * wanted / self._volumes[-1] for seconds in self._by_volume[-1]]
        left_at, right_at = self._volumes[right - 1], self._volumes[right]
        share = (wanted - left_at) / (right_at - left_at)
        lower, upper = self._by_volume[right - 1], self._by_volume[right]
        return [
            low + share * (high - low) if high < INFINITE else INFINITE for low, high in zip(lower, upper)
        ]


def rounded(side: int) -> int:
    """The length that is run for one of `side` by a program for every length, in steps of a sixteenth to a
    thirty-second of it.

    The libraries beneath make kernels at the first call of a shape, in milliseconds and a megabyte or two,
    and keep some thousand. Every length times every number of rows are more, made again and again.
    """
    step = 1 << max(0, side.bit_length() - EXACT_BITS)
    return -(-side // step) * step


def _line(xs: Sequence[int], ys: Sequence[float], x: int) -> float:
    """Piecewise linear through the points, for `x` up to the last; below the first its value."""
    right = bisect_left(xs, x)
    if right == 0:
        return ys[0]
    low, high = ys[right - 1], ys[right]
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    # Rounding may overshoot the end of the line by the last bit, and costs are monotone to that bit.
    return min(low + share * (high - low), high)
