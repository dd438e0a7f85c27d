"""Warms every shape and measures what a call of it costs: the table that batches are packed by.

Where a table was measured on the same machine under the same conditions, it is taken: every program is warmed
all the same, and what its calls took must fit the table, or all is measured. One that another worker of this
server settled on is not doubted: a machine that is busy while a worker is started again would fit none.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from anyshape.buckets import Bucket, Shape
from anyshape.costs import CostRow, CostTable
from anyshape.items import Item
from anyshape.packing import Call
from anyshape.padding import blank
from anyshape.programs import Programs

WARM_ROUNDS = 1  # are not measured: first calls are slower
MEASURED_ROUNDS = 3
QUICK_SECONDS = 0.02  # a call quicker than this is repeated in each round, and the least time counts
FITS = 2.0  # a kept cost fits if the call took no more than this many times as long, nor as short ...
FITTING = 0.8  # ... as the others tell; and this share of the calls must fit

Progress = Callable[[Bucket, int, float], None]  # told the bucket, the batch size and the seconds


def measure(programs: Programs, progress: Optional[Progress] = None) -> CostTable:
    """Call every bucket at each of its batch sizes in four rounds, largest first; the seconds of each.

    Measured in rounds over all shapes, so that what disturbs the machine for a moment falls on one round
    and not on one shape; the median over the rounds counts.
    """
    index = programs.index
    rounds: Dict[Shape, List[float]] = {shape: [] for shape in index.shapes}
    for _ in range(WARM_ROUNDS + MEASURED_ROUNDS):
        for (bucket, batch_size), call in _calls_of(programs):
            times = rounds[bucket, batch_size]
            times.append(min(call() for _ in range(_calls(times))))
            if progress is not None and len(times) == WARM_ROUNDS + MEASURED_ROUNDS:
                progress(bucket, batch_size, statistics.median(times[WARM_ROUNDS:]))
    return _table(
        programs, {shape: statistics.median(times[WARM_ROUNDS:]) for shape, times in rounds.items()}
    )


def warm_kept(
    programs: Programs, costs: Sequence[CostRow], progress: Optional[Progress] = None, trusted: bool = False
) -> Optional[CostTable]:
    """Call each program with the most rows that it takes, then with the fewest, bucket by bucket; the table
    of `costs` if the latter calls fit it, or if it is trusted.

    The first call takes the memory that all others need. A machine may be slower now than it was, or have
    other work: all seconds may be longer by the same factor, since only their ratios matter to the packer.
    """
    index = programs.index
    table = {(row.bucket, row.batch_size): row.seconds for row in costs}
    if set(table) != set(index.shapes):
        return None
    calls = list(_calls_of(programs))
    last = {(programs.name_of(*shape), shape[0]): shape for shape, _ in calls}  # largest come first
    ratios: List[float] = []
    warmed = set()
    for shape, call in calls:
        called = (programs.name_of(*shape), shape[0])
        if called not in warmed:  # a first call is slow, and tells nothing
            warmed.add(called)
            call()
        if shape == last[called]:
            ratios.append(call() / table[shape])
        if progress is not None:
            progress(*shape, table[shape])
    if trusted:
        return _table(programs, table)
    usual = statistics.median(ratios)
    fitting = sum(usual / FITS <= ratio <= usual * FITS for ratio in ratios)
    return _table(programs, table) if fitting >= FITTING * len(ratios) else None


def _table(programs: Programs, seconds: Mapping[Shape, float]) -> CostTable:
    index = programs.index
    return CostTable(seconds, index.dynamic_batch, programs.backend.dynamic_shapes, index.unpadded)


def _calls_of(programs: Programs) -> Iterator[Tuple[Shape, Callable[[], float]]]:
    """Each shape, largest first, and what calls it and says how long that took."""
    items: List[Item] = []  # of one bucket at a time: its largest call comes first
    for bucket, batch_size in programs.index.shapes[::-1]:
        if not items or items[0].size != bucket:
            items = [blank(programs.index.inputs, bucket)] * batch_size
        call = Call(bucket, batch_size, tuple(range(batch_size)))
        yield (bucket, batch_size), partial(_seconds, programs, call, items[:batch_size])


def _seconds(programs: Programs, call: Call, items: Sequence[Item]) -> float:
    started = time.perf_counter()
    programs.run(call, items)
    return time.perf_counter() - started


def _calls(times: Sequence[float]) -> int:
    """How often a shape is called in this round, given the seconds of the rounds before."""
    return 3 if times and times[-1] < QUICK_SECONDS else 1
