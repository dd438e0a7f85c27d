"""Padding items into the buffers of a call, and cutting the padding off what comes back."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, List, Optional, Sequence, Tuple, TypeVar

import numpy as np
import torch

from anyshape.buckets import Bucket, Shape, Size, contains
from anyshape.items import Item

T = TypeVar("T")
Views = Tuple[Tuple[torch.Tensor, ...], List[np.ndarray]]
VIEWS = 512  # shapes whose views are kept, a kilobyte or two each
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
        tensors, arrays = self._kept.views(bucket, batch_size)
        for spec, rows in zip(self.inputs, arrays):
            if held or not _write_rows(spec, rows[: len(items)], items):
                for row, members in zip(rows, filled):
                    if len(bucket) == 1 and spec.kind != SIZE:
                        _write_row(spec, row, members)
                    else:
                        _write(spec, row, members[0])
            if len(filled) < batch_size:
                rows[len(filled) :] = rows[0]
        return tensors


class _Kept(threading.local):
    """One flat tensor per input, made anew in every thread that asks, and views of them for the shapes that
    were asked for: making a view takes longer than writing a few short texts into it."""

    def __init__(self, inputs: Sequence[InputSpec]) -> None:
        self._inputs = inputs
        self._flat = [torch.empty(0, dtype=getattr(torch, spec.dtype)) for spec in inputs]
        self._views: Dict[Shape, Views] = {}

    def views(self, bucket: Bucket, batch_size: int) -> Views:
        """Of that shape, each input as a tensor and as the array that writes into it."""
        found = self._views.get((bucket, batch_size))
        if found is None:
            shapes = [spec.shape(bucket, batch_size) for spec in self._inputs]
            if len(self._views) >= VIEWS or any(
                len(flat) < math.prod(shape) for flat, shape in zip(self._flat, shapes)
            ):
                self._views.clear()  # they would hold the memory that is replaced
            tensors = tuple(self._view(i, shape) for i, shape in enumerate(shapes))
            found = self._views[bucket, batch_size] = (tensors, [tensor.numpy() for tensor in tensors])
        return found

    def _view(self, i: int, shape: Tuple[int, ...]) -> torch.Tensor:
        needed = math.prod(shape)
        if len(self._flat[i]) < needed:
            self._flat[i] = torch.empty(needed, dtype=self._flat[i].dtype)
        return self._flat[i][:needed].view(shape)


def _write_rows(spec: InputSpec, rows: np.ndarray[Any, Any], items: Sequence[Item]) -> bool:
    """Write the rows of all items at once, where they are lists of numbers, or the mask. A row by itself
    takes numpy several times as long as its few numbers."""
    if spec.kind not in (DATA, MASK) or rows.ndim != 2 or spec.numbers is not None:
        return False
    width = rows.shape[1]
    if spec.kind == MASK and not any(spec.name in item.data for item in items):
        np.less(_positions(width), [item.size for item in items], out=rows)
        return True
    padding, ones = [spec.pad] * width, [1] * width
    values: List[Any] = []
    for item in items:
        (length,) = item.size
        own = item.data.get(spec.name) if spec.kind == DATA else item.data.get(spec.name, ones[:length])
        if not isinstance(own, list) or len(own) != length:
            return False
        values += own
        values += padding[length:]
    rows[:] = np.array(values, rows.dtype).reshape(rows.shape)
    return True


@lru_cache(VIEWS)
def _positions(width: int) -> np.ndarray[Any, Any]:
    return np.arange(width)


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
