"""Recurrent layers along a padded side: what is behind a picture's end is never read, and the way back begins
at its end."""

from __future__ import annotations

import math
from typing import Any, Callable, List, Sequence, Tuple

import torch
from torch import Tensor

from anyshape.building.exact.axis import Axis
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, region_of

# (input, first states, weights) → output
Layer = Callable[[Tensor, List[Tensor], List[Tensor]], Tensor]


def _layers(
    space: Space,
    input: Tensor,
    states: Sequence[Tensor],
    weights: Any,
    options: Sequence[Any],
    layer: Layer,
) -> Tuple[Tensor, Tensor]:
    """Outputs, and the last states of each layer and way. options: as torch's functions take them, from
    `has_biases` on."""
    if not isinstance(weights, (list, tuple)) or len(options) != 6:
        raise NotExact("packed sequences")
    biases, count, dropout, training, both, batch_first = options
    region = tracked(input)
    time = 1 if batch_first else 0
    axis: Any = region.axes.get(time)
    if region.batch != 1 - time or set(region.axes) - {time} or not isinstance(axis, (Axis, type(None))):
        raise NotExact("only along one side of the picture")
    if any(region_of(state) is not None for state in states) or (dropout and training):
        raise NotExact("its first states come from the picture")
    ways = 2 if both else 1
    each = 4 if biases else 2
    if len(weights) != count * ways * each:
        raise NotExact("projections")
    last: List[Tensor] = []
    for number in range(count):
        outputs = []
        for way in range(ways):
            place = number * ways + way
            own = list(weights[place * each : (place + 1) * each])
            given = _turned(space, input, region, time, axis) if way else input
            found = layer(given, [state[place : place + 1] for state in states], own)
            last.append(_at_end(space, found, region, time, axis))
            outputs.append(_turned(space, found, region, time, axis) if way else found)
        input = torch.cat(outputs, -1)
    return space.attach(input, Region(dict(region.axes), region.batch, own=True)), torch.stack(last)


def _turned(space: Space, values: Tensor, region: Region, time: int, axis: Any) -> Tensor:
    """The valid positions in the other order."""
    if axis is None:
        return values.flip(time)
    index = (space.extents(axis)[:, None] - 1 - space.positions(axis.length)[None]).clamp(min=0)
    return space.take(values, region, time, index)


def _at_end(space: Space, values: Tensor, region: Region, time: int, axis: Any) -> Tensor:
    if axis is None:
        return values.select(time, -1)
    return space.take(values, region, time, (space.extents(axis)[:, None] - 1).clamp(min=0)).select(time, 0)


@handles("lstm")
def lstm(space: Space, input: Tensor, hx: Any, params: Any, *options: Any) -> Tuple[Tensor, Tensor, Tensor]:
    """The last cells are not known where pictures end early: NaN."""

    def layer(given: Tensor, first: List[Tensor], own: List[Tensor]) -> Tensor:
        biases, batch_first = bool(options[0]), bool(options[5])
        return torch.lstm(given, first, own, biases, 1, 0.0, False, False, batch_first)[0]

    found, last = _layers(space, input, hx, params, options, layer)
    return found, last, torch.full_like(last, math.nan)


@handles("gru")
def gru(space: Space, input: Tensor, hx: Any, params: Any, *options: Any) -> Tuple[Tensor, Tensor]:
    def layer(given: Tensor, first: List[Tensor], own: List[Tensor]) -> Tensor:
        biases, batch_first = bool(options[0]), bool(options[5])
        return torch.gru(given, first[0], own, biases, 1, 0.0, False, False, batch_first)[0]

    return _layers(space, input, [hx], params, options, layer)
