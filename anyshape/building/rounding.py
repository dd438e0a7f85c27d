"""Tells what float32 rounds from what padding changes, by running both models in float64.

A deep model may enlarge a last bit a thousandfold. Then the padded answer, whose sums are made in another
order, differs from the unpadded one by as much as that one from itself in float64, and nothing is wrong.
"""

from __future__ import annotations

from typing import Dict, List, Sequence

import torch

from anyshape.backends.base import as_tuple
from anyshape.buckets import Bucket, contains
from anyshape.building.calls import calls_to_check, items_to_check
from anyshape.building.tasks.base import TaskBuilder
from anyshape.items import Item, Row
from anyshape.model import BucketedModel
from anyshape.packing import Call
from anyshape.padding import PaddingBuffers

SAME = 1e-6  # outputs come as float32: two that are one in float64 differ by a last bit at most
ORDERS = 8.0  # the sums of several orders round this much more than those of one


def roundings(
    model: BucketedModel,
    builder: TaskBuilder,
    reference: torch.nn.Module,
    buckets: Sequence[Bucket],
) -> Dict[Bucket, float]:
    """How far `reference` is from itself in float64, for the buckets whose answers deviate for that alone.

    The calls are those that were compared, so that a row that another one reaches is no rounding.
    """
    doubles = builder.in_double(reference)
    if doubles is None:
        return {}
    padded, unpadded = doubles
    found: Dict[Bucket, float] = {}
    for bucket in buckets:
        before = model.buckets[: model.buckets.index(bucket)]
        items = items_to_check(builder, bucket, [each for each in before if contains(bucket, each)])
        right = [_rows(model, unpadded, Call(item.size, 1, (0,)), [item])[0] for item in items]
        counts = [rows for shape, rows in model.index.shapes if shape == bucket]
        calls = {rows: calls_to_check(model.layout, [i.size for i in items], bucket, rows) for rows in counts}
        several = min([rows for rows in counts if rows > 1], default=counts[0])
        same = max(
            _largest(builder, _rows(model, padded, call, [items[i] for i in call.items]), right, call.items)
            for call in calls[several]
        )
        if not same <= SAME:
            continue
        plain = [_rows(model, reference, Call(item.size, 1, (0,)), [item])[0] for item in items]
        own = _largest(builder, plain, right, range(len(items)))
        served = max(_served(model, builder, call, items, right) for each in calls.values() for call in each)
        if served <= max(model.index.tolerance, ORDERS * own):
            found[bucket] = own
    return found


def _served(
    model: BucketedModel, builder: TaskBuilder, call: Call, items: Sequence[Item], right: Sequence[Row]
) -> float:
    outputs = model.run_call(call, [items[i] for i in call.items])
    return _largest(builder, [output.row for output in outputs], right, call.items)


def _rows(model: BucketedModel, module: torch.nn.Module, call: Call, items: Sequence[Item]) -> List[Row]:
    tensors = PaddingBuffers(model.index.inputs).fill(call.bucket, call.batch_size, items)
    with torch.no_grad():
        outputs = [output.numpy() for output in as_tuple(module(*tensors))]
    return [
        model.task.unpad(tuple(output[row] for output in outputs), item) for row, item in enumerate(items)
    ]


def _largest(builder: TaskBuilder, rows: Sequence[Row], right: Sequence[Row], places: Sequence[int]) -> float:
    """`places`: which of the right answers are those of the rows."""
    return max(builder.deviation(row, right[i]) for row, i in zip(rows, places))
