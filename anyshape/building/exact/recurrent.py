"""Recurrent layers along a padded side: what is behind a picture's end is never read, and the way back begins
at its end."""

from __future__ import annotations

import math
from typing import Any, Callable, List, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from anyshape.building.exact.axis import Axis, inner_of, rows
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space


def forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """nn.LSTM and nn.GRU as one operation each, which tensors without memory pass as well."""

    def once(self: Any, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, Tensor) or input.dim() != 3:
            return original(self, input, hx)
        output, last, cells = recurrent(input, hx, self, original)
        return output, ((last, cells) if isinstance(self, nn.LSTM) else last)

    return once


def recurrent(
    input: Tensor, hx: Any, layer: Any, original: Callable[..., Any]
) -> Tuple[Tensor, Tensor, Tensor]:
    """Outputs, last states and, of an LSTM, last cells of ``[batch, time, features]``, or time first."""
    if has_torch_function_unary(input):
        found: Any = handle_torch_function(recurrent, (input,), input, hx, layer, original)
        return found  # type: ignore[no-any-return]
    if input.is_meta:
        ways = 2 if layer.bidirectional else 1
        rows = input.shape[0 if layer.batch_first else 1]
        states = input.new_empty(layer.num_layers * ways, rows, layer.hidden_size)
        return input.new_empty(*input.shape[:2], ways * layer.hidden_size), states, states
    output, last = original(layer, input, hx)
    return (output, *last) if isinstance(layer, nn.LSTM) else (output, last, last)


@handles("recurrent")
def tracked_layers(
    space: Space, input: Tensor, hx: Any, layer: Any, original: Callable[..., Any]
) -> Tuple[Tensor, Tensor, Tensor]:
    """Layer by layer and way by way. The last cells are not known where pictures end early: NaN."""
    region = tracked(input)
    time = 1 if layer.batch_first else 0
    axis: Any = region.axes.get(time)
    if region.batch != 1 - time or set(region.axes) - {time} or not isinstance(axis, (Axis, type(None))):
        raise NotExact("only along one side of the picture")
    if hx is not None or layer.training or layer.proj_size:
        raise NotExact("with first states, with projections, or in training")
    run = torch.lstm if isinstance(layer, nn.LSTM) else torch.gru
    zeros = torch.zeros_like(input.narrow(time, 0, 1).transpose(0, time)[..., :1])
    zeros = zeros.expand(-1, -1, layer.hidden_size).contiguous()
    first: Any = (zeros, zeros) if isinstance(layer, nn.LSTM) else zeros
    weights, each, ways = layer._flat_weights, 4 if layer.bias else 2, 2 if layer.bidirectional else 1
    last: List[Tensor] = []
    for number in range(layer.num_layers):
        outputs = []
        for way in range(ways):
            place = (number * ways + way) * each
            given = _turned(space, input, region, time, axis) if way else input
            own, options = list(weights[place : place + each]), (bool(layer.bias), 1, 0.0, False, False)
            found: Tensor = run(given, first, own, *options, bool(layer.batch_first))[0]
            last.append(_at_end(space, found, region, time, axis))
            outputs.append(_turned(space, found, region, time, axis) if way else found)
        input = torch.cat(outputs, -1)
    output = space.attach(input, Region(dict(region.axes), region.batch, own=True))
    states = torch.stack(last)
    cells = torch.full_like(states, math.nan)
    for each_state in (states, cells):
        space.attach(each_state, Region({}, rows(1, inner_of(region.batch)), own=True))
    return output, states, cells


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
