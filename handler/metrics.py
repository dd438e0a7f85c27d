"""What a worker counts for Prometheus; each number is declared in anyshape/server/metrics.yaml.

Names and units are by Prometheus' conventions. Positions are tokens, pixels or samples.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Dict, List, Optional, Sequence

from anyshape.buckets import bucket_name, choose, volume
from anyshape.errors import Refused
from anyshape.failures import survived
from anyshape.items import Item, Output, Parts, Read
from anyshape.model import BucketedModel
from anyshape.packing import Call
from handler.batch import Answered
from handler.context import Context
from handler.counts import Counts

REQUESTS, ERRORS = "anyshape_requests_total", "anyshape_request_errors_total"
REQUEST, QUEUE = "anyshape_request_duration_seconds", "anyshape_queue_duration_seconds"
CALL, ROWS = "anyshape_call_duration_seconds", "anyshape_call_rows"
SLOWNESS = "anyshape_call_duration_ratio"
ITEMS, REAL = "anyshape_items_total", "anyshape_real_positions_total"
PADDED, EXECUTED = "anyshape_padded_positions_total", "anyshape_executed_positions_total"
CHANGED, STAGE = "anyshape_changed_inputs_total", "anyshape_stage_seconds_total"
IN_HAND, STARTS = "anyshape_requests_in_hand", "anyshape_worker_starts_total"
PLANNED = "anyshape_planned_waste_ratio"

TYPES = {error.code: error.__name__ for error in Refused.__subclasses__()}
STAGES = ("read", "run", "answer")
CHANGES = {1: ("truncated", "windowed"), 2: ("resized", "tiled")}  # by the sides of a bucket
START = ("X-Request-Start", "x-request-start")  # what a proxy in front writes: t=SECONDS since 1970
LATEST = 3600.0  # seconds: what says that it waited longer is a wrong clock


class WorkerMetrics:
    """The counts of one worker, from its start on."""

    def __init__(self, context: Context, model: BucketedModel) -> None:
        version = str((context.manifest or {}).get("model", {}).get("modelVersion") or "none")
        self.labels = (context.model_name, version)
        self.counts = Counts(context.metrics, self.labels)
        self._names = {bucket: bucket_name(bucket) for bucket in model.buckets}
        self._changes = CHANGES[len(model.buckets[0])]
        self._worker = worker_name(sys.argv)
        self._model = model
        self._begin(model)
        model.observe = self.called

    def _begin(self, model: BucketedModel) -> None:
        """What a rate or an alert is made of appears at once, at 0: the first error counts as one more."""
        counts = self.counts
        counts.add(STARTS, 1, self._worker)
        counts.set(IN_HAND, 0, self._worker)
        counts.add(REQUESTS, 0)
        for code, kind in TYPES.items():
            counts.add(ERRORS, 0, str(code), kind)
        for name in self._names.values():
            for total in (ITEMS, REAL, PADDED, EXECUTED):
                counts.add(total, 0, name)
            counts.appear(CALL, name)
            counts.appear(SLOWNESS, name)
        counts.appear(ROWS)
        for change in self._changes:
            counts.add(CHANGED, 0, change)
        for stage in STAGES:
            counts.add(STAGE, 0, stage)
        if model.index.plan:
            counts.set(PLANNED, planned_waste(model))

    def took(self, requests: int) -> None:
        """A batch was handed over."""
        with self.counts.lock:
            self.counts.set(IN_HAND, requests, self._worker)

    def called(self, call: Call, items: Sequence[Item], outputs: Sequence[Output], seconds: float) -> None:
        """One call of a bucketed model has run. Never raises: the call would count as failed."""
        with survived("a call was not counted"):
            self._count_call(call, items, outputs, seconds)

    def _count_call(
        self, call: Call, items: Sequence[Item], outputs: Sequence[Output], seconds: float
    ) -> None:
        bucket, counts = self._names.get(call.bucket) or bucket_name(call.bucket), self.counts
        each = volume(call.bucket)
        real = sum([volume(item.size) for item in items])
        padded = sum([each if output.executed is None else output.executed for output in outputs])
        planned = self._model.costs.cost(call.bucket, call.batch_size)
        with counts.lock:
            counts.observe(CALL, seconds, bucket)
            counts.observe(SLOWNESS, seconds / planned, bucket)
            counts.observe(ROWS, call.batch_size)
            counts.add(ITEMS, len(items), bucket)
            counts.add(REAL, real, bucket)
            counts.add(PADDED, padded, bucket)
            counts.add(EXECUTED, each * call.batch_size, bucket)

    def answered(self, answered: Answered, waited: Sequence[Optional[float]]) -> None:
        """A batch was answered. waited: seconds of each request before it, None where nobody said so."""
        responses, stages = answered.responses, answered.stages
        known = {i: wait for i, wait in enumerate(waited) if wait is not None}
        unknown = Counter(answered.seconds(i) for i, wait in enumerate(waited) if wait is None)
        refused = [response.code for response in responses if response.code != 200]
        changed = self._changed(answered.read)
        counts = self.counts
        with counts.lock:
            counts.add(REQUESTS, len(responses))
            for code in refused:
                counts.add(ERRORS, 1, str(code), TYPES.get(code, Refused.__name__))
            for seconds, times in unknown.items():
                counts.observe(REQUEST, seconds, "worker", times=times)
            for i, wait in known.items():
                counts.observe(QUEUE, wait)
                counts.observe(REQUEST, wait + answered.seconds(i), "front")
            for stage, seconds in zip(STAGES, stages):
                counts.add(STAGE, seconds, stage)
            for how, count in changed.items():
                counts.add(CHANGED, count, how)
            counts.set(IN_HAND, 0, self._worker)

    def _changed(self, read: Sequence[Read]) -> Dict[str, int]:
        """How many inputs a policy changed, by how."""
        changed: Dict[str, int] = {}
        cut, split = self._changes
        for one in read:
            if isinstance(one, Parts):
                how = split if one.windows else cut if one.changed else ""
            else:
                how = cut if isinstance(one, Item) and one.changed else ""
            if how:
                changed[how] = changed.get(how, 0) + 1
        return changed


def planned_waste(model: BucketedModel) -> float:
    """Padded ÷ real positions that the archive's plan expects, whatever the cost that it was planned by."""
    assert model.index.plan is not None
    real = padded = 0
    for size, count in model.index.plan["histogram"]:
        bucket = choose(tuple(size), model.buckets)
        if bucket is not None:
            real += count * volume(size)
            padded += count * volume(bucket)
    return padded / real if real else 1.0


def waits(context: Context, requests: int) -> List[Optional[float]]:
    """Seconds from when a proxy in front took each request until now; None where it did not say when."""
    now = time.time()
    return [_wait(context, i, now) for i in range(requests)]


def _wait(context: Context, i: int, now: float) -> Optional[float]:
    headers = context.get_all_request_header(i)
    said = headers.get(START[0]) or headers.get(START[1])
    if not said:
        return None
    try:
        wait = now - float(said[2:] if said.startswith("t=") else said)
    except (ValueError, TypeError, AttributeError):
        return None
    return max(wait, 0.0) if -1.0 < wait < LATEST else None  # NaN is neither


def worker_name(arguments: Sequence[str]) -> str:
    """The number of a worker, by its socket: the same when it is started again."""
    for key, value in zip(arguments, arguments[1:]):
        if key in ("--sock-name", "--port"):
            return value.rpartition(".")[2]
    return "0"
