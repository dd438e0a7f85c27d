"""Which library multiplies a trace's float32 matrices: MKL, which torch takes, or oneDNN.

On AMD's CPUs with AVX-512 throughout (Zen 5) MKL does 110 and oneDNN 240 thousand million operations a second
and core; elsewhere they may be alike. Which it is here is measured once, when a worker loads its programs.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Iterable

import torch

ROWS, WIDTH, HEIGHT = 128, 384, 1536  # of the product that is measured: a millisecond on one core
ROUNDS = 7
CLEARLY = 0.8  # of MKL's time: between alike and twice as fast, so that every start decides the same

LINEAR = """graph(%x, %weight, %bias):
  %y = aten::linear(%x, %weight, %bias)
  return (%y)"""
BY_ONEDNN = """graph(%x, %weight, %bias):
  %then : str = prim::Constant[value="none"]()
  %numbers : Scalar?[] = prim::ListConstruct()
  %how : NoneType = prim::Constant()
  %y = mkldnn::_linear_pointwise(%x, %weight, %bias, %then, %numbers, %how)
  return (%y)"""


def choose_products(programs: Iterable[Any]) -> None:
    """Give the linear layers of traces in float32 to oneDNN, where it is clearly faster. The weights stay
    where and as they are."""
    for program in programs:
        if all(parameter.dtype is torch.float32 for parameter in program.parameters()) and onednn_is_faster():
            torch._C._jit_pass_custom_pattern_based_rewrite_graph(LINEAR, BY_ONEDNN, program.graph)


def onednn_is_faster() -> bool:
    """Measured in this process, with its threads; the first answer stays."""
    if not _answers:
        _answers.append(_measure())
    return _answers[0]


_answers: list[bool] = []


def _measure() -> bool:
    try:
        linear = torch.ops.mkldnn._linear_pointwise
    except AttributeError:  # a torch without oneDNN, or older than this product
        return False
    x, weight, bias = torch.ones(ROWS, WIDTH), torch.ones(HEIGHT, WIDTH), torch.ones(HEIGHT)
    with torch.inference_mode():
        mkl = _least(lambda: torch.nn.functional.linear(x, weight, bias))
        onednn = _least(lambda: linear(x, weight, bias, "none", [], None))
    return onednn < CLEARLY * mkl


def _least(call: Callable[[], object]) -> float:
    """Seconds of the quickest of some calls."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
