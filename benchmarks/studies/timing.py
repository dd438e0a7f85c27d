"""How a study times its calls: in turns, so that whatever else the machine does falls on all of them.

    found = in_turns({"plain": plain, "exact": exact}, rounds=30)
    found["plain"].median                # seconds; .times has one entry per round, in the rounds' order

The clock is timeit's, with garbage collection on as in a worker; the figures are torch.utils.benchmark's.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch.utils.benchmark import Measurement, TaskSpec, Timer

Way = TypeVar("Way")
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def once(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds of one call."""
    return timeit.Timer(call, "import gc; gc.enable()", timer=clock).timeit(1)


def in_turns(
    calls: Mapping[Way, Callable[[], object]], rounds: int, warm_up: int = 3, clock: Clock = time.perf_counter
) -> dict[Way, Measurement]:
    """Seconds of each call, one per round; every other round calls them in the opposite order."""
    for call in calls.values():
        for _ in range(warm_up):
            call()
    seconds: dict[Way, list[float]] = {way: [] for way in calls}
    for number in range(rounds):
        for way in list(calls)[:: -1 if number % 2 else 1]:
            seconds[way].append(once(calls[way], clock))
    return {
        way: Measurement(1, times, TaskSpec(stmt=str(way), setup="", num_threads=1))
        for way, times in seconds.items()
    }


def steady(call: Callable[[], object], seconds: float) -> float:
    """Seconds per call where it is made over and over for so long, on one thread."""
    return float(Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=seconds).mean)
