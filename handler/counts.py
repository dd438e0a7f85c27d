"""Counters and histograms in the worker's memory, handed to TorchServe once a second.

    counts = Counts(context.metrics, ("minilm", "1.0"))
    counts.add("anyshape_items_total", 3, "128")
    counts.observe("anyshape_request_duration_seconds", 0.012, "worker")
    counts.start()

TorchServe's own way writes a line for each number of each batch, which its frontend reads, and its histograms
have steps up to 10 that nobody can set. Here a number is one addition to a dict, and what has changed goes
out as counters, once a second. A Prometheus histogram *is* counters with the label `le`: sent as such it has
the steps that are wanted, and the frontend adds up those of all workers.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from contextlib import suppress
from typing import Dict, List, Mapping, Sequence, Set, Tuple

from anyshape.failures import survived
from handler.context import Metrics

SECONDS = 1.0
# Steps of a histogram, by the end of its name; +Inf comes after the last.
STEPS: Mapping[str, Sequence[float]] = {
    "_seconds": (
        *(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
        *(1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0),
    ),
    "_rows": (1, 2, 4, 8, 16, 32, 64, 128),
    "_ratio": (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0),
}
Key = Tuple[str, Tuple[str, ...]]  # a metric's name, and its labels' values in the order of metrics.yaml


def steps_of(name: str) -> Sequence[float]:
    return STEPS[name[name.rindex("_") :]]


class Counts:
    """What this worker has counted since it last said so. `own` are the labels that every metric ends in.

    One thread counts, under `lock`; another hands over.
    """

    def __init__(self, metrics: Metrics, own: Sequence[str]) -> None:
        self.lock = threading.Lock()
        self._metrics = metrics
        self._own = list(own)
        self._sums: Dict[Key, float] = {}
        self._seen: Dict[Key, List[float]] = {}  # per step: how many; then their sum
        self._gauges: Dict[Key, float] = {}
        self._changed: Dict[Key, float] = {}
        self._sent: Set[Key] = set()

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter; 0 makes it appear, so that a rate has something to start from."""
        key = (name, labels)
        self._sums[key] = self._sums.get(key, 0) + value

    def observe(self, name: str, value: float, *labels: str, times: int = 1) -> None:
        """Add to a histogram, the same value several times."""
        steps = steps_of(name)
        seen = self._seen.get((name, labels))
        if seen is None:
            seen = self._seen[name, labels] = [0] * (len(steps) + 2)
        seen[bisect_left(steps, value)] += times
        seen[-1] += value * times

    def appear(self, name: str, *labels: str) -> None:
        """Make a histogram appear that holds nothing yet."""
        self._seen.setdefault((name, labels), [0] * (len(steps_of(name)) + 2))

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        if self._gauges.get((name, labels)) != value:
            self._gauges[name, labels] = self._changed[name, labels] = value

    def start(self) -> None:
        """Hand over once a second from now on, until the process ends."""
        threading.Thread(target=self._hand_over, name="metrics", daemon=True).start()

    def _hand_over(self) -> None:
        wait = threading.Event().wait
        while not wait(SECONDS):
            with survived("metrics could not be handed over"):
                self.flush()

    def flush(self) -> None:
        """Hand over what has changed."""
        from ts.metrics.metric_cache_errors import MetricsCacheKeyError  # TorchServe's own, only in workers
        from ts.metrics.metric_type_enum import MetricTypes

        with self.lock:
            sums, self._sums = self._sums, {}
            seen, self._seen = self._seen, {}
            changed, self._changed = self._changed, {}
        for (name, labels), numbers in seen.items():
            *each, total = numbers
            below = 0.0
            for step, count in zip([*map(str, steps_of(name)), "+Inf"], each):
                below += count
                sums[f"{name}_bucket", (step, *labels)] = below
            sums[f"{name}_sum", labels], sums[f"{name}_count", labels] = total, below
        for kind, values in ((MetricTypes.COUNTER, sums), (MetricTypes.GAUGE, changed)):
            for key, value in values.items():
                if not value and key in self._sent and kind is MetricTypes.COUNTER:
                    continue
                name, labels = key
                self._sent.add(key)
                # The frontend cannot read an exponent with a plus sign: large numbers are whole.
                written = round(value, 6) if value < 1e15 else int(value)
                with suppress(MetricsCacheKeyError):  # another metrics.yaml, which does not have it
                    self._metrics.get_metric(name, kind).add_or_update(written, [*labels, *self._own])
