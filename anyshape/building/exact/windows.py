"""Operations that slide a window: convolutions and pooling.

Output sizes: the formulas in torch.nn's documentation of Conv2d, ConvTranspose2d, MaxPool2d, AvgPool2d.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact.mode import handles
from anyshape.building.exact.region import Axis, NotExact, Region, Space, Table, plain, region_of, shape_of


def pair(value: Any) -> Tuple[int, int]:
    """One number for both sides, or one for each."""
    if isinstance(value, (list, tuple)):
        return (plain(value[0]), plain(value[-1]))
    return (plain(value), plain(value))


def image(tensor: Tensor) -> Region:
    """The region of a [B, C, H, W] tensor. Raises NotExact for another layout."""
    region = region_of(tensor)
    if region is None:
        raise NotExact("another operand than the first depends on the image")
    if tensor.dim() != 4 or region.batch != 0 or not set(region.axes) <= {2, 3}:
        raise NotExact("only [batch, channels, height, width] is known")
    return region


def alone(*others: Optional[Tensor]) -> None:
    """Raises NotExact if weights and the like depend on the image."""
    if any(region_of(other) is not None for other in others):
        raise NotExact("another operand than the first depends on the image")


@lru_cache(maxsize=4096)
def window_table(table: Table, reach: int, stride: int, before: int, after: int, ceil: bool = False) -> Table:
    """Output extents of a window that reaches `reach` positions past its first."""

    def extent(size: int) -> int:
        span = size + before + after - reach - 1
        if size == 0:
            return 0
        if not ceil:
            return max(0, span // stride + 1)
        count = -(-span // stride) + 1
        return max(0, count - 1 if (count - 1) * stride >= size + before else count)

    return tuple(extent(size) for size in table)


@lru_cache(maxsize=4096)
def frame_width(table: Table, out: Table, reach: int, stride: int, before: int) -> int:
    """How far valid windows look past the valid positions, at most."""
    beyond = ((count - 1) * stride - before + reach - (size - 1) for size, count in zip(table, out) if count)
    return max(0, max(beyond, default=0))


class Window:
    """One windowed operation on one region: the output's axes, and whether it looks into padding."""

    def __init__(
        self,
        region: Region,
        kernel: Tuple[int, int],
        stride: Tuple[int, int],
        before: Tuple[int, int],
        after: Tuple[int, int],
        dilation: Tuple[int, int] = (1, 1),
        ceil: bool = False,
    ) -> None:
        self.axes: Dict[int, Axis] = {}
        self.frame: Dict[int, int] = {}
        for dim, axis in region.axes.items():
            side = dim - 2
            reach = dilation[side] * (kernel[side] - 1)
            if not reach and stride[side] == 1 and not before[side] and not after[side]:
                self.axes[dim], self.frame[dim] = axis, 0  # each position alone, of a sequence as well
                continue
            out = window_table(axis.table, reach, stride[side], before[side], after[side], ceil)
            self.axes[dim] = Axis(axis.side, out)
            self.frame[dim] = frame_width(axis.table, out, reach, stride[side], before[side])
        self.reads_padding = any(self.frame.values())


@handles("conv2d")
def conv2d(
    space: Space,
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    alone(weight, bias)
    kernel, steps = pair(shape_of(weight)[2:]), pair(dilation)
    if looks_at_one(weight, stride, padding):
        return within_positions(
            space, input, F.conv2d(input, weight, bias, stride, padding, dilation, groups)
        )
    region = image(input)
    if padding == "same":
        total = [step * (size - 1) for step, size in zip(steps, kernel)]
        before = pair([amount // 2 for amount in total])
        after = pair([amount - amount // 2 for amount in total])
    else:
        before = after = (0, 0) if padding == "valid" else pair(padding)
    window = Window(region, kernel, pair(stride), before, after, steps)
    input = space.framed(input, 0.0, window.frame)
    result = F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return space.attach(result, Region(window.axes, region.batch, own=True))


@handles("conv3d")
def conv3d(
    space: Space,
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``[batch, channels, x, y, z]``, two of which are the picture's height and width."""
    alone(weight, bias)
    if looks_at_one(weight, stride, padding):
        return within_positions(
            space, input, F.conv3d(input, weight, bias, stride, padding, dilation, groups)
        )
    region = region_of(input)
    if region is None or region.batch != 0 or 1 in region.axes or isinstance(padding, str):
        raise NotExact("only [batch, channels, ...] with padding in numbers is known")
    kernel = shape_of(weight)[2:]
    strides, pads, steps = (
        _several(each) * (3 // len(_several(each))) for each in (stride, padding, dilation)
    )
    axes = {}
    for dim, axis in region.axes.items():
        reach = steps[dim - 2] * (kernel[dim - 2] - 1)
        table = window_table(axis.table, reach, strides[dim - 2], pads[dim - 2], pads[dim - 2])
        axes[dim] = Axis(axis.side, table)
    input = space.filled(input, 0.0)
    result = F.conv3d(input, weight, bias, stride, padding, dilation, groups)
    return space.attach(result, Region(axes, region.batch, own=True))


def looks_at_one(weight: Tensor, stride: Any, padding: Any) -> bool:
    """Whether a convolution sees each position alone: the map may be flattened then, or windows."""
    whole = padding in ("same", "valid") or set(_several(padding)) == {0}
    return whole and set(_several(stride)) == {1} and set(shape_of(weight)[2:]) == {1}


def _several(value: Any) -> Tuple[int, ...]:
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else (plain(value),)


def within_positions(space: Space, input: Tensor, result: Tensor) -> Tensor:
    """The result of an operation on the channels, dimension 1, of every position alone."""
    region = region_of(input)
    if region is None or region.batch != 0 or 1 in region.axes:
        raise NotExact("dimension 1 is not the channels")
    return space.attach(result, Region(dict(region.axes), region.batch, own=True))


@handles("conv_transpose2d")
def conv_transpose2d(
    space: Space,
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    region = image(input)
    alone(weight, bias)
    kernel = pair(shape_of(weight)[2:])
    strides, cuts, extra, steps = pair(stride), pair(padding), pair(output_padding), pair(dilation)
    axes = {}
    frame = {}
    for dim, axis in region.axes.items():
        side = dim - 2
        spread = steps[side] * (kernel[side] - 1) + 1 + extra[side] - 2 * cuts[side]
        table = tuple(max(0, (size - 1) * strides[side] + spread) if size else 0 for size in axis.table)
        axes[dim] = Axis(axis.side, table)
        # Input position i writes to the outputs from i·stride − padding on.
        frame[dim] = max(
            (out - 1 + cuts[side]) // strides[side] - (size - 1) if out else 0
            for size, out in zip(axis.table, table)
        )
    input = space.framed(input, 0.0, {dim: max(0, width) for dim, width in frame.items()})
    result = F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)
    return space.attach(result, Region(axes, region.batch, own=True))


@handles("max_pool2d")
def max_pool2d(
    space: Space,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if return_indices:
        raise NotExact("indices count the padded positions")
    region = image(input)
    stride = stride if stride is not None and stride != [] else kernel_size
    window = Window(region, pair(kernel_size), pair(stride), *2 * (pair(padding),), pair(dilation), ceil_mode)
    input = space.framed(input, float("-inf"), window.frame)
    result = F.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)
    return space.attach(result, Region(window.axes, region.batch, own=True))


@handles("avg_pool2d")
def avg_pool2d(
    space: Space,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Optional[int] = None,
) -> Tensor:
    region = image(input)
    stride = stride if stride is not None and stride != [] else kernel_size
    kernel, strides, pads = pair(kernel_size), pair(stride), pair(padding)
    window = Window(region, kernel, strides, pads, pads, ceil=ceil_mode)
    input = space.framed(input, 0.0, window.frame)
    # With whole windows, or padding that counts, every window divides by the same number.
    same = not window.reads_padding or (count_include_pad and not ceil_mode)
    if same or divisor_override is not None:
        result = F.avg_pool2d(
            input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
        return space.attach(result, Region(window.axes, region.batch, own=True))
    result = F.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, True, 1)
    shape = shape_of(result)
    for side in (0, 1):
        dim = side + 2
        axis = region.axes.get(dim)
        size = shape_of(input)[dim]
        sizes = space.extents(axis)[:, None] if axis else torch.tensor([[size]])
        start = space.positions(shape[dim])[None] * strides[side] - pads[side]
        end = torch.minimum(start + kernel[side], sizes + pads[side])
        if not count_include_pad:
            start, end = start.clamp(min=0), torch.minimum(end, sizes)
        counts = (end - start).clamp(min=1)
        result = result / space.per_row(counts, region, dim, 4).to(result.dtype)
    return space.attach(result, Region(window.axes, region.batch, own=True))
