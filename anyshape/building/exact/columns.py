"""Windows of a picture as columns, and back: `F.unfold` and `F.fold`."""

from __future__ import annotations

from typing import Any, Dict

import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact.axis import constant
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import of_rows
from anyshape.building.exact.region import Flat, NotExact, Region, Space, plain, region_of, shape_of
from anyshape.building.exact.side import Known
from anyshape.building.exact.windows import Window, image, pair, window_table


@handles("im2col")
def unfold(
    space: Space, input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    region = image(input)
    around = pair(padding)
    window = Window(region, pair(kernel_size), pair(stride), around, around, pair(dilation))
    input = space.framed(input, 0.0, window.frame)
    result = F.unfold(input, kernel_size, dilation, padding, stride)
    axes: Dict[int, Any] = dict(window.axes)
    for dim in {2, 3} - set(axes):  # as many for every picture
        others = (axes[5 - dim].length,) if 5 - dim in axes else ()
        axes[dim] = constant(dim - 2, shape_of(result)[2] // max(others), space.sides[dim - 2])
    flat: Any = Flat(axes[2], axes[3])
    return space.attach(result, Region({2: flat}, region.batch, own=True))


@handles("fold")
def fold(
    space: Space,
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """What lies outside adds nothing; for each picture the result must have as many windows as it has."""
    region = region_of(input) or of_rows(space, input)
    flat: Any = region.axes.get(2)  # none where all pictures have as many
    alone = set(region.axes) == {2} and isinstance(flat, Flat) and not flat.before and not flat.after
    if input.dim() != 3 or (region.axes and not alone):
        raise NotExact("only [batch, values of a window, windows] is known")
    sizes = list(output_size) if isinstance(output_size, (list, tuple)) else [output_size] * 2
    axes = {}
    for dim, size in enumerate(sizes, 2):
        known = space.followed(dim - 2, size)
        if isinstance(size, Known) and known is None:
            raise NotExact("heights and widths change places")
        axes[dim] = known or constant(dim - 2, plain(size), space.sides[dim - 2])
        reach = pair(dilation)[dim - 2] * (pair(kernel_size)[dim - 2] - 1)
        around = pair(padding)[dim - 2]
        windows = window_table(axes[dim].table, reach, pair(stride)[dim - 2], around, around)
        have = flat.parts[dim - 2] if flat is not None else constant(dim - 2, windows[-1], len(windows) - 1)
        if have.side != dim - 2:
            raise NotExact("heights and widths change places")
        space.keep(dim - 2, have.table, windows)
    whole = (axes[2].length, axes[3].length)
    input = space.filled(input, 0.0) if region.axes else input
    result = F.fold(input, whole, kernel_size, dilation, padding, stride)
    return space.attach(result, Region(dict(axes), region.batch, own=True))
