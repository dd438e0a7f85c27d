"""Warms every shape and measures what a call of it costs: the table that batches are packed by."""

from __future__ import annotations

import statistics
import time
from typing import Callable, Dict, List, Optional, Sequence

from anyshape.buckets import Bucket, Shape
from anyshape.costs import CostTable
from anyshape.items import Item
from anyshape.packing import Call
from anyshape.padding import blank
from anyshape.programs import Programs

WARM_CALLS = 2  # in the first round, not measured: a TorchScript program's first calls are much slower
MEASURED_ROUNDS = 3
QUICK_SECONDS = 0.02  # a call quicker than this is repeated in each round, and the least time counts

Progress = Callable[[Bucket, int, float], None]  # told the bucket, the batch size and the seconds


def measure(programs: Programs, progress: Optional[Progress] = None) -> CostTable:
    """Call every bucket at each of its batch sizes at least four times, largest first; the seconds of each.

    Measured in rounds over all shapes, so that what disturbs the machine for a moment falls on one round
    and not on one shape; the median over the rounds counts.
    """
    index = programs.index
    shapes = index.shapes[::-1]
    rounds: Dict[Shape, List[float]] = {shape: [] for shape in shapes}
    for number in range(1 + MEASURED_ROUNDS):
        items: List[Item] = []  # of one bucket at a time: its largest call comes first
        for bucket, batch_size in shapes:
            if not items or items[0].size != bucket:
                items = [blank(index.inputs, bucket)] * batch_size
            call = Call(bucket, batch_size, tuple(range(batch_size)))
            times = rounds[bucket, batch_size]
            times.append(min(_seconds(programs, call, items[:batch_size]) for _ in range(_calls(times))))
            if progress is not None and number == MEASURED_ROUNDS:
                progress(bucket, batch_size, statistics.median(times[1:]))
    seconds = {shape: statistics.median(times[1:]) for shape, times in rounds.items()}
    return CostTable(seconds, index.dynamic_batch, programs.backend.dynamic_shapes, index.unpadded)


def _seconds(programs: Programs, call: Call, items: Sequence[Item]) -> float:
    started = time.perf_counter()
    programs.run(call, items)
    return time.perf_counter() - started


def _calls(times: Sequence[float]) -> int:
    """How often a shape is called in this round, given the seconds of the rounds before."""
    if not times:
        return WARM_CALLS
    return 3 if times[-1] < QUICK_SECONDS else 1
