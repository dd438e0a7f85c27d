"""Traces what is inside of functions with gradients of their own."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

import torch


@contextlib.contextmanager
def functions_traced() -> Iterator[None]:
    """Within, a torch.autograd.Function is what its `forward` does.

    Without gradients it is nothing more, and a trace that holds a call of one, as Bloom's, cannot be saved.
    """
    usual = torch.autograd.Function.__dict__["apply"]
    torch.autograd.Function.apply = classmethod(_forward)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = usual  # type: ignore[method-assign]


def _forward(function: Any, *given: Any) -> Any:
    usual = getattr(torch.autograd.Function, "setup_context", None)  # torch 1 has none
    separate = getattr(function, "setup_context", None) is not usual
    return function.forward(*given) if separate else function.forward(_Context(), *given)


class _Context:
    """What a `forward` keeps things in for a `backward` that never comes."""

    def __getattr__(self, name: str) -> Any:
        if name == "needs_input_grad":
            return (False,) * 64
        return lambda *_: None
