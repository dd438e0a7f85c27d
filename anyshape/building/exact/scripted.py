"""Functions made by `torch.jit.script`: activations, where all that they do acts on every position alone.

What runs inside them is not seen operation by operation, so their graph is read. Any other one is refused
by the name of what in it is not known.
"""

from __future__ import annotations

from typing import Any, Iterator

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from anyshape.building.exact import names
from anyshape.building.exact.mode import handles, pointwise, tensors_in
from anyshape.building.exact.region import NotExact, Space, region_of

_call = torch.jit.ScriptFunction.__call__
_SILENT = ("prim::Constant", "prim::Return", "prim::Param", "prim::NumToTensor")


def called(self: Any, *args: Any, **kwargs: Any) -> Any:
    """In the place of a scripted function's call: one operation where operations are followed."""
    tensors = tuple(tensors_in([*args, *kwargs.values()]))
    if any(region_of(tensor) is not None for tensor in tensors) and has_torch_function(tensors):
        return handle_torch_function(scripted, tensors, self, *args, **kwargs)
    return _call(self, *args, **kwargs)


def scripted(function: Any, *args: Any, **kwargs: Any) -> Any:
    return _call(function, *args, **kwargs)


@handles("scripted")
def scripted_pointwise(space: Space, function: Any, *args: Any, **kwargs: Any) -> Tensor:
    done = set(_kinds(function.inlined_graph))
    for kind in sorted(done):
        if kind.partition("::")[0] != "aten" or kind.partition("::")[2].strip("_") not in names.POINTWISE:
            raise NotExact(f"{function.name}: {kind} inside scripted code is not followed")
    writes = any(kind.endswith("_") for kind in done)
    shares = writes or not done or any(kind.partition("::")[2] in names.SAME_MEMORY for kind in done)

    def call(*given: Any, **named: Any) -> Any:
        found = _call(function, *given, **named)
        return found.clone() if shares else found  # which may be what it was given

    result: Tensor = pointwise(space, "scripted", call, args, kwargs)
    for region in map(region_of, tensors_in([*args, *kwargs.values()])):
        if writes and region is not None:
            region.written()
    return result


def _kinds(graph: Any) -> Iterator[str]:
    """What a graph and the branches in it do."""
    for node in graph.nodes():
        if node.kind() not in _SILENT:
            yield node.kind()
        for block in node.blocks():
            yield from _kinds(block)
