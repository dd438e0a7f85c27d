"""Signals, ``[batch, channels, length]`` and ``[batch, length]``: pictures that are one row high.

What slides a window along a signal is the operation on pictures with a height of one, so that there is one
place for each. Spectra are pictures whose height, the frequencies, is the same for all rows.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact import resample, statistics, windows
from anyshape.building.exact.layout import pad
from anyshape.building.exact.mode import HANDLERS, Handler, handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.picked import enough
from anyshape.building.exact.places import gathered
from anyshape.building.exact.region import Axis, Flat, Groups, NotExact, Region, Rows, Space, plain, region_of


def lifted(space: Space, signal: Tensor) -> Tensor:
    """``[B, C, T]`` as ``[B, C, 1, T]``, in the same memory. Raises NotExact for another layout."""
    region = tracked(signal)
    if isinstance(region.axes.get(2), Flat):
        raise NotExact("a window along a flattened picture goes from one of its rows to the next")
    if signal.dim() != 3 or region.batch != 0 or set(region.axes) != {2}:
        raise NotExact("only [batch, channels, length] is known")
    return _as(space, signal.unsqueeze(2), region, {3: region.axes[2]})


def lowered(space: Space, picture: Tensor) -> Tensor:
    """Back again: ``[B, C, 1, T]`` as ``[B, C, T]``."""
    region = region_of(picture)
    signal = picture.squeeze(2)
    return signal if region is None else _as(space, signal, region, {2: region.axes[3]})


def _as(space: Space, tensor: Tensor, region: Region, axes: Dict[int, Axis]) -> Tensor:
    outcome = Region(axes, region.batch, mask=region.mask)
    outcome.view_of(region)
    outcome.own = region.own  # nothing else holds the tensor that this one is another shape of
    outcome.fill = region.fill
    return space.attach(tensor, outcome)


def _one(value: Any) -> int:
    """The one number of a side, written as itself or in a tuple."""
    return plain(value[0] if isinstance(value, (list, tuple)) else value)


def _step(stride: Any) -> Optional[Tuple[int, int]]:
    """A pooling's stride; none is left to the operation on pictures, which takes its window's size then."""
    return None if stride is None or stride == [] else (1, _one(stride))


@handles("conv1d")
def conv1d(
    space: Space,
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    windows.alone(weight, bias)
    if windows.looks_at_one(weight, stride, padding):
        result = F.conv1d(input, weight, bias, stride, padding, dilation, groups)
        return windows.within_positions(space, input, result)
    around = padding if isinstance(padding, str) else (0, _one(padding))
    strides, steps = (1, _one(stride)), (1, _one(dilation))
    picture = lifted(space, input)
    result = windows.conv2d(space, picture, weight.unsqueeze(2), bias, strides, around, steps, groups)
    return lowered(space, result)


@handles("conv_transpose1d")
def conv_transpose1d(
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
    windows.alone(weight, bias)
    strides, around, extra = (1, _one(stride)), (0, _one(padding)), (0, _one(output_padding))
    picture, weight, steps = lifted(space, input), weight.unsqueeze(2), (1, _one(dilation))
    return lowered(
        space,
        windows.conv_transpose2d(space, picture, weight, bias, strides, around, extra, groups, steps),
    )


@handles("max_pool1d")
def max_pool1d(
    space: Space,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    kernel, step = (1, _one(kernel_size)), _step(stride)
    around, steps = (0, _one(padding)), (1, _one(dilation))
    picture = lifted(space, input)
    return lowered(
        space,
        windows.max_pool2d(space, picture, kernel, step, around, steps, ceil_mode, return_indices),
    )


@handles("avg_pool1d")
def avg_pool1d(
    space: Space,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    kernel, step = (1, _one(kernel_size)), _step(stride)
    region = tracked(input)
    if (
        isinstance(region.axes.get(2), Flat)
        and step in (None, kernel)
        and not _one(padding)
        and not ceil_mode
    ):
        return in_groups(space, input, region, kernel[1])
    picture, around = lifted(space, input), (0, _one(padding))
    return lowered(
        space,
        windows.avg_pool2d(space, picture, kernel, step, around, ceil_mode, count_include_pad),
    )


def in_groups(space: Space, input: Tensor, region: Region, each: int) -> Tensor:
    """Means of so many positions of a flattened picture each, in the order that they have in it alone."""
    flat: Any = region.axes[2]
    if region.batch != 0 or isinstance(region.batch, Rows) or set(region.axes) != {2}:
        raise NotExact("only [batch, channels, positions] is known")
    enough(space, flat, each)
    together = space.take(input, region, 2, gathered(space, flat))
    axes: Dict[int, Any] = {2: Groups(flat, each)}
    return space.attach(F.avg_pool1d(together, each), Region(axes, own=True))


@handles("adaptive_avg_pool1d")
def adaptive_avg_pool1d(space: Space, input: Tensor, output_size: Any) -> Tensor:
    count = _one(output_size)
    if count == 1:
        mean: Tensor = HANDLERS["mean"](space, input, -1, True)
        return mean
    return lowered(space, statistics.adaptive_avg_pool2d(space, lifted(space, input), (1, count)))


@handles("adaptive_max_pool1d")
def adaptive_max_pool1d(
    space: Space, input: Tensor, output_size: Any, return_indices: bool = False
) -> Tensor:
    count = _one(output_size)
    if count != 1 or return_indices:
        picture = lifted(space, input)
        return lowered(space, statistics.adaptive_max_pool2d(space, picture, (1, count), return_indices))
    largest: Tensor = HANDLERS["amax"](space, input, -1, True)
    return largest


@handles("diff")
def diff(
    space: Space, input: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Tensor:
    """What each position is more than the one before it."""
    region, dim = tracked(input), dim % input.dim()
    if n != 1 or prepend is not None or append is not None or dim == region.batch:
        raise NotExact("only of neighbours, once")
    before, after = ([slice(None)] * dim + [part] for part in (slice(None, -1), slice(1, None)))
    first, second = (HANDLERS["getitem"](space, input, tuple(each)) for each in (before, after))
    kept = region_of(first)
    if kept is None:
        raise NotExact("nothing of it depends on the picture's size")
    return space.attach(second - first, Region(dict(kept.axes), region.batch, own=True))


def _either(handler: Handler) -> Handler:
    """The operation on pictures, for signals as well."""

    @functools.wraps(handler)
    def either(space: Space, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if input.dim() == 3 and region_of(input) is not None:
            return lowered(space, handler(space, lifted(space, input), *args, **kwargs))
        result: Tensor = handler(space, input, *args, **kwargs)
        return result

    return either


for _handler in (statistics.group_norm, statistics.instance_norm):
    handles(_handler.__name__)(_either(_handler))


@handles("pad")
@functools.wraps(pad)
def pad_any(space: Space, input: Tensor, amounts: Any, mode: str = "constant", value: Any = None) -> Tensor:
    """Of signals too where the mode repeats what is there."""
    if mode == "constant" or input.dim() != 3:
        return pad(space, input, amounts, mode, value)
    return lowered(space, pad(space, lifted(space, input), amounts, mode, value))


@handles("interpolate", "upsample")
@functools.wraps(resample.interpolate)
def interpolate(
    space: Space,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Optional[bool] = None,
    recompute_scale_factor: Optional[bool] = None,
    antialias: bool = False,
) -> Tensor:
    rest = (align_corners, recompute_scale_factor, antialias)
    if input.dim() != 3:
        return resample.interpolate(space, input, size, scale_factor, mode, *rest)

    def flat(value: Any) -> Any:
        return value and (1, value[0] if isinstance(value, (list, tuple)) else value)

    mode = {"linear": "bilinear"}.get(mode, mode)
    picture = lifted(space, input)
    return lowered(space, resample.interpolate(space, picture, flat(size), flat(scale_factor), mode, *rest))


@handles("stft")
def stft(
    space: Space,
    input: Tensor,
    n_fft: int,
    hop_length: Optional[int] = None,
    win_length: Optional[int] = None,
    window: Optional[Tensor] = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: Optional[bool] = None,
    return_complex: Optional[bool] = None,
    align_to_window: Optional[bool] = None,
) -> Tensor:
    """Spectra of ``[B, T]``: a frame is valid where all of it lies in the signal, or in what pads it."""
    region = tracked(input)
    windows.alone(window)
    if input.dim() != 2 or region.batch != 0 or (not center and align_to_window):
        raise NotExact("only [batch, length] is known")
    n_fft, hop = plain(n_fft), plain(hop_length) if hop_length is not None else plain(n_fft) // 4
    if center:
        around = (n_fft // 2, n_fft // 2)
        signal = _as(space, input.unsqueeze(1), region, {2: region.axes[1]})
        signal = pad_any(space, signal, around, pad_mode)
        region = tracked(signal)
        input, axis = signal.squeeze(1), region.axes[2]
    else:
        axis = region.axes[1]
    frames = Axis(axis.side, windows.window_table(axis.table, n_fft - 1, hop, 0, 0))
    result = torch.stft(
        input, n_fft, hop, win_length, window, False, pad_mode, normalized, onesided, return_complex
    )
    return space.attach(result, Region({2: frames}, own=True))


@handles("unfold")
def unfold(space: Space, input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Overlapping frames along one dimension: ``[.., frames, .., size]``."""
    region = tracked(input)
    dim = dimension % input.dim()
    axes = dict(region.axes)
    if dim == region.batch:
        raise NotExact("it mixes the rows of the batch")
    if dim in axes:
        table = windows.window_table(axes[dim].table, plain(size) - 1, plain(step), 0, 0)
        axes[dim] = Axis(axes[dim].side, table)
    outcome = Region(axes, region.batch, mask=region.mask)
    outcome.view_of(region)
    return space.attach(input.unfold(dim, plain(size), plain(step)), outcome)


def _last(name: str) -> Callable[..., Tensor]:
    function = getattr(torch.fft, name[len("fft_") :])

    def transform(space: Space, input: Tensor, n: Any = None, dim: int = -1, norm: Any = None) -> Tensor:
        region = tracked(input)
        if dim % input.dim() in (region.batch, *region.axes):
            raise NotExact("over a side that is padded")
        return space.attach(function(input, n, dim, norm), Region(dict(region.axes), region.batch, own=True))

    return transform


for _name in ("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"):
    handles(_name)(_last(_name))


def _part(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def part(space: Space, input: Tensor, *_: Any) -> Tensor:
        region = tracked(input)
        if function is torch.real and not input.is_complex():
            return input
        return space.attach(function(input).clone(), Region(dict(region.axes), region.batch, own=True))

    return part


for _name, _function in (("real", torch.real), ("imag", torch.imag)):
    handles(_name, f"get:{_name}")(_part(_function))
handles("angle")(_part(torch.angle))
handles("view_as_real")(_part(torch.view_as_real))
