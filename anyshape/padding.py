"""Padding items into the buffers of a call, and cutting the padding off what comes back."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple, TypeVar

import numpy as np
import torch

from anyshape.buckets import Bucket, Size, contains
from anyshape.items import Item

T = TypeVar("T")
DATA, MASK, SIZE = "data", "mask", "size"
SEGMENT, POSITION = "segment", "position"  # of models whose rows hold several items


@dataclass(frozen=True)
class InputSpec:
    """One input tensor of the compiled model.

    kind `data` is what the item brings, padded with `pad`; `mask` is 1 over the item, unless it brings one
    that begins so, and 0 over the padding; `size` is the item's own sides, one row of whole numbers.
    `segment` is the item's number in its row, from 1 on, and 0 over the padding; `position` counts the
    item's tokens, from `first` on. A call's tensor has the shape ``[batch, *bucket]``, with `channels`
    between the two and `numbers` behind them where they are not None; `size` is ``[batch, len(bucket)]``.
    dtype is `int64` or `float32`. `blank` is the value that any model takes.
    """

    name: str
    dtype: str
    kind: str = DATA
    pad: float = 0
    channels: Optional[int] = None
    blank: float = 0
    numbers: Optional[int] = None
    first: int = 0

    def shape(self, bucket: Bucket, batch_size: int) -> Tuple[int, ...]:
        if self.kind == SIZE:
            return (batch_size, len(bucket))
        channels = () if self.channels is None else (self.channels,)
        numbers = () if self.numbers is None else (self.numbers,)
        return (batch_size, *channels, *bucket, *numbers)


def blank(inputs: Sequence[InputSpec], size: Size) -> Item:
    """An item to warm and measure a call with: what it costs does not depend on the values."""
    data = {s.name: np.full(s.shape(size, 1)[1:], s.blank, s.dtype) for s in inputs if s.kind == DATA}
    return Item(size, data)


class PaddingBuffers:
    """Memory for input tensors that is kept from call to call, as much as the largest call needed.

    `fill` writes items straight into it: no per-row tensors, no concatenation. What `fill` returns is
    valid until the next `fill` of the same thread: every thread has memory of its own, until it ends.
    """

    def __init__(self, inputs: Sequence[InputSpec]) -> None:
        self.inputs = tuple(inputs)
        self._kept = _Kept(self.inputs)

    def fill(
        self, bucket: Bucket, batch_size: int, items: Sequence[Item], held: Sequence[int] = ()
    ) -> Tuple[torch.Tensor, ...]:
        """The model's inputs for `items`, padded to `bucket`; rows to spare repeat the first one.

        held: how many of the items each row holds, one behind the other; by default one.

        A repeated row is real data: an all-zero attention mask can give NaN, which fails a whole call on
        some accelerators. Raises ValueError if items do not fit or there are more of them than rows.
        """
        filled = rows_of(items, held)
        if not 1 <= len(filled) <= batch_size:
            raise ValueError(f"{len(filled)} rows of items do not fill a call of {batch_size} rows")
        for members in filled:
            size = members[0].size if len(members) == 1 else (sum(item.size[0] for item in members),)
            if not contains(bucket, size):
                raise ValueError(f"items of size {size} do not fit the bucket {bucket}")
        tensors = self._tensors(bucket, batch_size)
        real = None if held or len(bucket) > 1 else _real(bucket, items)
        for spec, tensor in zip(self.inputs, tensors):
            rows = tensor.numpy()
            if real is not None and _write_rows(spec, rows[: len(items)], items, real):
                rows[len(items) :] = rows[0]
                continue
            for row, members in zip(rows, filled):
                if len(bucket) == 1 and spec.kind != SIZE:
                    _write_row(spec, row, members)
                else:
                    _write(spec, row, members[0])
            rows[len(filled) :] = rows[0]
        return tensors

    def _tensors(self, bucket: Bucket, batch_size: int) -> Tuple[torch.Tensor, ...]:
        kept, tensors = self._kept.flat, []
        for i, spec in enumerate(self.inputs):
            shape = spec.shape(bucket, batch_size)
            needed = math.prod(shape)
            if len(kept[i]) < needed:
                kept[i] = torch.empty(needed, dtype=kept[i].dtype)
            tensors.append(kept[i][:needed].view(shape))
        return tuple(tensors)


class _Kept(threading.local):
    """One flat tensor per input, made anew in every thread that asks."""

    def __init__(self, inputs: Sequence[InputSpec]) -> None:
        self.flat = [torch.empty(0, dtype=getattr(torch, spec.dtype)) for spec in inputs]


def _real(bucket: Bucket, items: Sequence[Item]) -> np.ndarray[Any, Any]:
    """Where tokens stand, ``[items, length]``, if each item has a row."""
    found: np.ndarray[Any, Any] = np.arange(bucket[0]) < np.array([item.size for item in items])
    return found


def _write_rows(
    spec: InputSpec, rows: np.ndarray[Any, Any], items: Sequence[Item], real: np.ndarray[Any, Any]
) -> bool:
    """Write the rows of all items at once, where that is what they are: lists of numbers, or the mask. A row
    by itself takes numpy several times as long as its few numbers."""
    if spec.kind == MASK and not any(spec.name in item.data for item in items):
        rows[:] = np.where(real, 1, spec.pad)
        return True
    if spec.kind != DATA or spec.numbers is not None or rows.ndim != 2:
        return False
    values = [item.data[spec.name] for item in items]
    if not all(isinstance(each, list) and len(each) == item.size[0] for each, item in zip(values, items)):
        return False
    rows[:] = spec.pad
    rows[real] = list(itertools.chain.from_iterable(values))
    return True


def _write(spec: InputSpec, row: np.ndarray[Any, Any], item: Item) -> None:
    if spec.kind == SIZE:
        row[:] = item.size
        return
    height, width = item.size
    row[..., :height, :width] = 1 if spec.kind == MASK else item.data[spec.name]
    row[..., height:, :] = spec.pad
    row[..., :height, width:] = spec.pad


def _write_row(spec: InputSpec, row: np.ndarray[Any, Any], items: Sequence[Item]) -> None:
    """Items of one side, one behind the other, and the padding behind them."""
    end = 0
    if spec.numbers is not None:
        row = row.T  # a view with the tokens last, as in all other inputs
    for number, item in enumerate(items, 1):
        (length,) = item.size
        start, end = end, end + length
        if spec.kind == DATA:
            values = item.data[spec.name]
            row[..., start:end] = values if spec.numbers is None else np.transpose(values)
        elif spec.kind == MASK:
            row[..., start:end] = item.data.get(spec.name, 1)
        elif spec.kind == POSITION:
            row[start:end] = np.arange(spec.first, spec.first + length)
        else:  # SEGMENT
            row[..., start:end] = number
    row[..., end:] = spec.pad


def rows_of(items: Sequence[T], held: Sequence[int] = ()) -> List[Sequence[T]]:
    """The items of each row, or their places, as many as are held there; by default one."""
    if not held:
        return [[item] for item in items]
    ends = list(itertools.accumulate(held))
    return [items[end - count : end] for count, end in zip(held, ends)]


def crop(output: np.ndarray[Any, Any], size: Sequence[int], first_axis: int) -> np.ndarray[Any, Any]:
    """The part of `output` that belongs to the item: its axes from `first_axis` on, cut to `size`."""
    return output[(slice(None),) * first_axis + tuple(slice(side) for side in size)]
