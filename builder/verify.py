"""Compares every bucket of what was built with the unpadded eager model."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch

from builder.errors import last_line
from handler.archive import program_name
from handler.backends.base import as_tuple
from handler.buckets import Bucket, bucket_name, contains, largest_sides
from handler.model import BucketedModel
from handler.packing import Call
from handler.padding import Item, PaddingBuffers


class NotTaken(Exception):
    """The unpadded model takes no item of a size that its buckets allow."""


def deviations(
    model: BucketedModel,
    reference: torch.nn.Module,
    progress: Optional[Callable[[Bucket], None]] = None,
) -> Dict[str, float]:
    """For each program, the largest deviation from `reference` over items of several sizes.

    Items run in the bucket as they would when served, at every batch size and mixed with others; the
    reference gets each one alone, unpadded. A deviation is the largest absolute difference in an output,
    relative to the largest magnitude in that output of the reference. NaN counts as infinite. Raises
    NotTaken where the reference itself does not run.
    """
    worst: Dict[str, float] = {}
    done: List[Bucket] = []
    for bucket in model.buckets:
        sizes = model.task.sizes_to_check(bucket, [b for b in done if contains(bucket, b)])
        items = [model.task.sample(size, seed) for seed, size in enumerate(sizes)]
        expected = [_unpadded(model, reference, item) for item in items]
        for batch_size in (rows for shape, rows in model.index.shapes if shape == bucket):
            name = program_name(bucket, None if model.backend.dynamic_batch else batch_size)
            for call_items in _calls(len(items), batch_size):
                members = [items[i] for i in call_items]
                shape = largest_sides(m.size for m in members) if model.backend.dynamic_shapes else bucket
                outputs = model.run_call(Call(shape, batch_size, tuple(call_items)), members)
                for i, output in zip(call_items, outputs):
                    found = max(deviation(a, b) for a, b in zip(output.row, expected[i]))
                    worst[name] = max(worst.get(name, 0.0), found)
        done.append(bucket)
        if progress is not None:
            progress(bucket)
    return worst


def _calls(count: int, batch_size: int) -> List[List[int]]:
    """Every item in some call of this batch size; the last call may have rows to spare."""
    order = iter(range(count))
    calls: List[List[int]] = []
    while True:
        call = list(itertools.islice(order, batch_size))
        if not call:
            return calls
        calls.append(call)


def _unpadded(model: BucketedModel, reference: torch.nn.Module, item: Item) -> Sequence[Any]:
    tensors = PaddingBuffers(model.index.inputs).fill(item.size, 1, [item])
    try:
        with torch.no_grad():
            outputs = as_tuple(reference(*tensors))
    except Exception as error:  # models refuse in many ways
        raise NotTaken(f"the model takes no item of {bucket_name(item.size)} ({last_line(error)})") from error
    return model.task.unpad(tuple(output.numpy()[0] for output in outputs), item)


def deviation(found: Any, expected: Any) -> float:
    """The largest absolute difference relative to the largest magnitude; infinite if shapes differ or NaN."""
    if np.shape(found) != np.shape(expected):
        return float("inf")
    if np.size(expected) == 0:
        return 0.0
    difference = np.max(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)))
    scale = float(np.max(np.abs(expected))) or 1.0
    result = float(difference) / scale
    return result if np.isfinite(result) else float("inf")
