"""Where a padded picture first differs from the picture alone: the operation, and its line."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from anyshape.building.exact import names, reads
from anyshape.building.exact.axis import Rows, lengths
from anyshape.building.exact.mode import tensors_in
from anyshape.building.exact.module import ExactPadding
from anyshape.building.exact.region import region_of
from anyshape.building.exact.replaced import as_traced, replaced
from anyshape.building.exact.steps import is_operation
from anyshape.building.values import model_line

TOLERANCE = 1e-6  # of double precision's sums


class _Result(NamedTuple):
    """What is kept of one operation: its values themselves would be all activations at once."""

    name: str
    shapes: List[Sequence[int]]
    sums: List[Tuple[float, float]]  # of all values, each by a factor of its own; and of their magnitudes
    line: str


def first_difference(
    model: nn.Module, pixels: Tensor, valid_size: Tensor, alone: Tensor, step: int = 1
) -> Optional[str]:
    """The first operation of the double-precision `model` whose result differs, with its line: for the first
    row of `pixels`, [B, C, H, W] with sizes [B, 2], and the same picture `alone`. None where none does.
    step: the sides of pictures are multiples of it."""
    padded: List[_Result] = []
    exact = ExactPadding(model)
    exact.step = step

    def note(space: Any, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if is_operation(func):
            padded.append(_result(func, [_first_row(space, tensor) for tensor in tensors_in([result])], ""))

    exact.watch = note
    plain = _Plain()
    try:
        with torch.no_grad():
            exact(pixels, valid_size)
            with as_traced(), plain, replaced():
                model(alone, **exact.masks(alone))
    except Exception:  # then the build has said why
        return None
    for one, other in zip(padded, plain.results):
        if one.name != other.name or not _same(one, other):
            return f"{other.name}, at {other.line}" if other.line else other.name
    return None


def _same(one: _Result, other: _Result) -> bool:
    if one.shapes != other.shapes:
        return False
    return all(
        abs(a - b) <= TOLERANCE * max(scale, 1e-30) or (a != a and b != b)
        for (a, _), (b, scale) in zip(one.sums, other.sums)
    )


def _result(func: Any, tensors: Sequence[Tensor], line: str) -> _Result:
    return _Result(
        names.name_of(func),
        [list(tensor.shape) for tensor in tensors],
        [_sum(each) for each in tensors],
        line,
    )


def _sum(tensor: Tensor) -> Tuple[float, float]:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    values = tensor.detach().reshape(-1).double()
    factors = (
        torch.arange(1, values.numel() + 1, dtype=torch.float64).mul_(0.7548776662466927).remainder_(1.0)
    )
    return float((values * factors).sum()), float(values.abs().sum())


def _first_row(space: Any, tensor: Tensor) -> Tensor:
    """What belongs to the first picture."""
    region = region_of(tensor)
    batch = region.batch if region is not None else 0
    if isinstance(batch, Rows):
        if batch != 0 or region is None:
            return tensor[:0]
        tensor = tensor.detach().reshape(-1, *lengths(batch.inner), *tensor.shape[1:])[0]
        for dim, part in enumerate(batch.inner):
            if not isinstance(part, int):
                tensor = tensor.index_select(dim, space.valid(part)[0].nonzero()[:, 0])
        tensor = tensor.flatten(0, len(batch.inner) - 1)
    elif reads.from_picture(tensor) and tensor.dim() > batch and tensor.shape[batch] == space.batch.shape[0]:
        tensor = tensor.detach().narrow(batch, 0, 1)
    for dim, axis in region.axes.items() if region is not None else ():
        tensor = tensor.index_select(dim, space.valid(axis)[0].nonzero()[:, 0])
    return tensor


class _Plain(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.results: List[_Result] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if is_operation(func):
            self.results.append(_result(func, list(tensors_in([result])), model_line()))
        return result
