"""Which library multiplies a trace's float32 matrices: MKL, which torch takes, or oneDNN.

On AMD's CPUs with AVX-512 throughout (Zen 5) MKL does 110 and oneDNN 240 thousand million operations a second
and core; elsewhere they may be alike. Which it is here is measured once, when a worker loads its programs.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import Any, Iterable, List

import torch

from anyshape.backends.timing import least_seconds

ROWS, WIDTH, HEIGHT = 128, 384, 1536  # of the product that is measured: a millisecond on one core
ROUNDS = 7
CLEARLY = 0.8  # of MKL's time: between alike and twice as fast, so that every start decides the same


def choose_products(programs: Iterable[Any]) -> None:
    """Give the linear layers of traces in float32 to oneDNN, where it is clearly faster. The weights stay
    where and as they are. Traces are flat graphs, as they are built here."""
    for program in programs:
        layers = [node for node in program.graph.findAllNodes("aten::linear") if _is_layer(node, program)]
        if layers and onednn_is_faster():
            for node in layers:
                _give_to_onednn(node, program.graph)


def _is_layer(node: Any, program: Any) -> bool:
    """Whether a linear product's weight is a matrix in float32 that the program holds."""
    names: List[str] = []
    _, weight, _ = node.inputs()
    source = weight.node()
    while source.kind() == "prim::GetAttr":
        names.append(source.s("name"))
        source = next(iter(source.inputs())).node()
    if not names or source.kind() != "prim::Param":
        return False
    found = reduce(getattr, reversed(names), program)
    return isinstance(found, torch.Tensor) and found.dim() == 2 and found.dtype is torch.float32


def _give_to_onednn(node: Any, graph: Any) -> None:
    """Put `mkldnn::_linear_pointwise` with nothing behind the product in the place of `aten::linear`."""
    then, numbers, how = (graph.create(f"prim::{kind}") for kind in ("Constant", "ListConstruct", "Constant"))
    then.s_("value", "none")
    then.output().setType(torch._C.StringType.get())
    numbers.output().setType(torch._C.ListType(torch._C.OptionalType(torch._C.NumberType.get())))
    how.output().setType(torch._C.NoneType.get())
    added = [each.output() for each in (then, numbers, how)]
    product = graph.create("mkldnn::_linear_pointwise", [*node.inputs(), *added])
    for each in (then, numbers, how, product):
        each.insertBefore(node)
    node.output().replaceAllUsesWith(product.output())
    node.destroy()


@lru_cache(None)
def onednn_is_faster() -> bool:
    """Measured once in this process, with its threads."""
    try:
        linear = torch.ops.mkldnn._linear_pointwise
    except AttributeError:  # a torch without oneDNN, or older than this product
        return False
    x, weight, bias = torch.ones(ROWS, WIDTH), torch.ones(HEIGHT, WIDTH), torch.ones(HEIGHT)
    with torch.inference_mode():
        mkl = least_seconds(lambda: torch.nn.functional.linear(x, weight, bias), ROUNDS)
        onednn = least_seconds(lambda: linear(x, weight, bias, "none", [], None), ROUNDS)
    return onednn < CLEARLY * mkl
