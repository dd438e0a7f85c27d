"""Pooling whose window is as large as the map, by what the model asks of its shape: over the whole of it."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Sequence

from torch import Tensor

from anyshape.building.exact import signals, statistics, windows
from anyshape.building.exact.both import Followed
from anyshape.building.exact.mode import HANDLERS, handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import Axis, Space, plain
from anyshape.building.exact.side import Known, frozen

_REGISTERED = (signals, statistics, windows)  # importing them registers what is taken from HANDLERS here


def _globally(name: str, over_all: str) -> None:
    """Let a pooling whose window is as large as the picture be the mean, or largest, of the picture alone."""
    handler = HANDLERS[name]
    signature = inspect.signature(handler)

    @functools.wraps(handler)
    def pool(space: Space, input: Tensor, kernel_size: Any, *rest: Any, **options: Any) -> Tensor:
        given = signature.bind(space, input, kernel_size, *rest, **options).arguments
        dims = _covered(input, kernel_size, given.get("stride"))
        plainly = not any(map(given.get, ("padding", "divisor_override", "return_indices")))
        if dims and plainly:
            return HANDLERS[over_all](space, input, dims, True)  # type: ignore[no-any-return]
        others = {key: frozen(value) for key, value in options.items()}
        return handler(space, input, frozen(kernel_size), *frozen(rest), **others)  # type: ignore[no-any-return]

    handles(name)(pool)


def _covered(input: Tensor, kernel: Any, stride: Any) -> Sequence[int]:
    """The dimensions that a window covers wholly, whatever the picture's size; none where it does something
    else beside that."""
    region, sizes = tracked(input), kernel if isinstance(kernel, (list, tuple)) else [kernel]
    dims = []
    for dim, size in zip(range(2, input.dim()), (sizes[0], sizes[-1])):
        axis = region.axes.get(dim)
        if isinstance(size, Known) and axis == Axis(size.side, tuple(size.table)):  # type: ignore[arg-type]
            dims.append(dim)
        elif isinstance(size, Followed) or plain(size) != 1 or stride:
            return []
    return dims


for _side in ("1d", "2d"):
    _globally(f"avg_pool{_side}", "mean")
    _globally(f"max_pool{_side}", "amax")
