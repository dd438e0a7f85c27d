"""Helps torch.jit.trace over what it stumbles at: functions with gradients of their own, and truths that are
written with `scatter`."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import torch
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def functions_traced() -> Iterator[None]:
    """Within, a torch.autograd.Function is what its `forward` does, and ``scatter(0, index, True)`` writes 1.

    Without gradients the first is nothing more, and a trace that holds a call of one, as Bloom's, cannot be
    saved. The second is the same number to torch, but a trace has no operation that takes it as a truth.
    """
    usual = vars(torch.autograd.Function).get("apply")  # torch 1 inherits it
    torch.autograd.Function.apply = classmethod(_forward)  # type: ignore[assignment,method-assign]
    try:
        with _Numbers():
            yield
    finally:
        if usual is None:
            del torch.autograd.Function.apply
        else:
            torch.autograd.Function.apply = usual  # type: ignore[method-assign]


class _Numbers(TorchFunctionMode):
    """What `scatter` writes is a number where it is a truth."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("scatter", "scatter_"):
            args = tuple(map(_number, args))
            kwargs = {key: _number(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


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
