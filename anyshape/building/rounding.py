"""Tells what float32 rounds from what padding changes, by running both models in float64.

A deep model may enlarge a last bit a thousandfold. Then the padded answer, whose sums are made in another
order, differs from the unpadded one by as much as that one from itself in float64, and nothing is wrong.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence

import torch

from anyshape.backends.base import as_tuple
from anyshape.buckets import Bucket
from anyshape.building.tasks.base import TaskBuilder
from anyshape.items import Item
from anyshape.model import BucketedModel
from anyshape.packing import Call
from anyshape.padding import PaddingBuffers

SAME = 1e-6  # outputs come as float32: two that are one in float64 differ by a last bit at most
ORDERS = 8.0  # the sums of several orders round this much more than those of one


def roundings(
    model: BucketedModel,
    builder: TaskBuilder,
    reference: torch.nn.Module,
    sizes: Callable[[Bucket], Sequence[Any]],
    deviation: Callable[[Any, Any], float],
    buckets: Sequence[Bucket],
) -> Dict[Bucket, float]:
    """How far `reference` is from itself in float64, for the buckets whose answers deviate for that alone."""
    doubles = builder.in_double(reference)
    if doubles is None:
        return {}
    padded, unpadded = doubles
    found: Dict[Bucket, float] = {}
    for bucket in buckets:
        items = [builder.sample(size, seed) for seed, size in enumerate(sizes(bucket))]
        right = [_answer(model, unpadded, item.size, item) for item in items]
        in_bucket = [_answer(model, padded, bucket, item) for item in items]
        if _largest(in_bucket, right, deviation) > SAME:
            continue
        own = _largest([_answer(model, reference, item.size, item) for item in items], right, deviation)
        served = [
            model.run_call(Call(bucket, rows, (0,)), [item])[0].row
            for item, rows in zip(items, _rows(model, bucket, items))
        ]
        if _largest(served, right, deviation) <= max(model.index.tolerance, ORDERS * own):
            found[bucket] = own
    return found


def _rows(model: BucketedModel, bucket: Bucket, items: Sequence[Item]) -> List[int]:
    counts = [rows for shape, rows in model.index.shapes if shape == bucket]
    return [counts[i % len(counts)] for i in range(len(items))]


def _answer(model: BucketedModel, module: torch.nn.Module, shape: Any, item: Item) -> Sequence[Any]:
    tensors = PaddingBuffers(model.index.inputs).fill(shape, 1, [item])
    with torch.no_grad():
        outputs = as_tuple(module(*tensors))
    return model.task.unpad(tuple(output.numpy()[0] for output in outputs), item)


def _largest(rows: Sequence[Any], right: Sequence[Any], deviation: Callable[[Any, Any], float]) -> float:
    return max(deviation(a, b) for row, wanted in zip(rows, right) for a, b in zip(row, wanted))
