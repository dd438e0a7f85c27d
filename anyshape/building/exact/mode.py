"""The torch function mode that sees every operation of a model and keeps padding out of it."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from anyshape.building.exact import made, names, reads
from anyshape.building.exact.arguments import by_size, numbers_followed, numbers_of_rows, placed
from anyshape.building.exact.axis import inner_of, rows, varies
from anyshape.building.exact.region import (
    FLATTENED,
    Axis,
    NotExact,
    Region,
    Rows,
    Space,
    forget,
    region_of,
    shape_of,
)
from anyshape.building.exact.side import Known, frozen

# From a tensor without padding they make one with it where they are given a size of the picture.
SIZED = {"interpolate", "laid_out", "upsample"}
Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
HANDLERS: Dict[str, Handler] = {}

# What keeps the rows of a batch apart, also where they are windows or heads of one picture.
APART = {
    *("amax", "amin", "any", "all", "mean", "sum", "group_norm", "interpolate"),
    *("batch_norm", "bmm", "cat", "chunk", "conv2d", "expand", "flatten", "getitem", "layer_norm", "linear"),
    *("matmul", "multi_head_attention_forward", "normalize", "pad", "permute", "recurrent"),
    *("reshape", "rmatmul", "rms_norm", "scaled_dot_product_attention", "select", "softmax", "split"),
    *("swapaxes", "swapdims", "transpose", "unbind", "unflatten", "unsqueeze", "view"),
}


def handles(*operations: str) -> Callable[[H], H]:
    """Register ``handler(space, *args, **kwargs)`` for operations, by name; its parameters are theirs."""

    def register(handler: H) -> H:
        for operation in operations:
            HANDLERS[operation] = handler
        return handler

    return register


def cut_by_size(index: Any) -> bool:
    """Whether an index has a slice that ends where a size of the picture says."""
    items = index if isinstance(index, tuple) else (index,)
    return any(isinstance(item, slice) and isinstance(item.stop, Known) for item in items)


def _is_shape_of_weight(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> bool:
    asked = len(args) == 1 and not kwargs and names.name_of(func) in ("get:shape", "size")
    return asked and isinstance(args[0], torch.nn.Parameter)


def _windowed(operands: Iterable[Tensor]) -> bool:
    regions = filter(None, map(region_of, operands))
    return any(isinstance(region.batch, Rows) for region in regions)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def together(space: Space, ndim: int, operands: Sequence[Tensor]) -> Region:
    """The region of operands that are broadcast together. Raises NotExact where they do not belong."""
    found: Dict[int, List[Axis]] = {}
    plain: Dict[int, int] = {}
    batches = set()
    inner = set()
    mask = True
    for tensor in operands:
        region = region_of(tensor)
        shape = shape_of(tensor)
        offset = ndim - len(shape)
        if region is not None:
            batches.add(int(region.batch) + offset)
            inner.add(inner_of(region.batch))
            mask = mask and region.mask
        for dim in range(len(shape)):
            axis = region.axes.get(dim) if region is not None else None
            if axis is not None and shape[dim] > 1:
                found.setdefault(dim + offset, []).append(axis)
            elif region is None or dim != region.batch:
                plain[dim + offset] = max(plain.get(dim + offset, 1), _length(shape[dim], dim))
    if len(batches) > 1 or len(inner) > 1:
        raise NotExact("rows of the batch are combined with something else")
    batch = rows(batches.pop(), inner.pop())
    if varies(inner_of(batch)) and plain.get(batch, 1) > 1:
        raise NotExact("windows of the picture are combined with a tensor that has a number for each")
    for dim in found:
        if plain.get(dim, 1) > 1:
            raise NotExact(f"combined with a tensor of {plain[dim]} positions whose valid ones are not known")
    return Region({d: space.merge(axes) for d, axes in found.items()}, batch, mask=mask)


def _length(size: Any, dim: int) -> int:
    # A symbolic size is the batch's; it is no tracked dimension.
    return size if isinstance(size, int) else (1 if dim == 0 else 2)


def pointwise(
    space: Space, name: str, func: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> Any:
    """Positions stay apart: the padding's values change, its place does not."""
    operands = list(tensors_in([*args, *kwargs.values()]))
    regions = [region for region in map(region_of, operands) if region is not None]
    fills = [region.fill for region in regions]
    result = func(*args, **kwargs)
    if not isinstance(result, Tensor):
        raise NotExact("it gives several tensors")
    region = together(space, result.dim(), operands)
    first = region_of(operands[0])
    in_place = result is operands[0]
    if first is None or not (in_place or name in names.SAME_MEMORY):
        region.own = not in_place
    else:
        own = in_place and first.own
        if in_place:
            first.written()
        region.view_of(first)
        region.own = own
    space.attach(result, region)
    numbers = [*args, *(value for key, value in kwargs.items() if key != "alpha")]
    others = len(operands) - len(regions)
    others += sum(isinstance(value, (int, float)) and value != 0 for value in numbers)
    cleared = all(fill == 0 for fill in fills)
    if cleared and (
        name in names.KEEPS_ZERO
        or (name in names.ADDS and not others)
        or name in names.SCALES
        or (name in names.DIVIDES and first is not None and len(regions) == 1)
    ):
        region.fill = 0.0
    return result


class ExactMode(TorchFunctionMode):
    """Runs each operation on tracked tensors through its handler.

    What no handler knows is noted in ``space.unknown`` and run as it is, so that one pass names all.
    releases: the model takes a pixel mask itself; flattening space into a sequence hands over to it.
    done: called with the space, each operation, its arguments and its result.
    """

    def __init__(self, space: Space, releases: bool) -> None:
        super().__init__()
        self.space = space
        self.releases = releases
        self.done: Optional[Callable[..., Any]] = None
        space.flattens = not releases

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
    ) -> Any:
        result = self._called(func, args, kwargs or {})
        if self.done is not None:
            self.space.seen += 1
            self.done(self.space, func, args, kwargs or {}, result)
            self.space.seen -= 1
        return result

    def _called(self, func: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        operands = list(tensors_in([*args, *kwargs.values()]))
        if not any(map(reads.from_picture, operands)):
            if _is_shape_of_weight(func, args, kwargs):  # torch.jit.trace would give tensors, and sizes lose
                return torch.Size(shape_of(args[0]))  # themselves in arithmetic with those
            if self._sized(names.name_of(func), args, kwargs):
                return self._run(names.name_of(func), func, args, kwargs, operands)
            return self._apart(names.name_of(func), func, args, kwargs, operands)
        made.settle(operands)
        for tensor in operands:
            region = region_of(tensor)
            if region is not None and region.space is not self.space:
                self.space.unknown.append(
                    f"{names.name_of(func)} (the model keeps a tensor of another picture)"
                )
                forget(tensor)
            else:
                self.space.slim(tensor)
        given = str(getattr(func, "__name__", ""))
        if names.name_of(func) == "get:data":
            func = torch.Tensor.detach  # the same memory, and known to torch.jit.trace
        self.space.seen += 1
        try:
            if given in reads.READS:
                if reads.matters(operands, self.space.runs):
                    self.space.unknown.append(f"{reads.READS[given]} ({reads.REASON})")
                self.space.reading = True
                return func(*args, **kwargs)
            name = names.name_of(func)
            if names.is_question(name):
                return self._sides(name, operands[0], args, func(*args, **kwargs))
            result = self._run(name, func, args, kwargs, operands)
        finally:
            self.space.seen -= 1
            self.space.reading = False
        if reads.depends(given, operands):
            for tensor in tensors_in([result, *reads.written(given, args)]):
                reads.mark(tensor, operands)
        return result

    def _apart(
        self,
        name: str,
        func: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        operands: List[Tensor],
    ) -> Any:
        """An operation on what does not come from the picture, but may be made of its size."""
        if names.is_question(name):
            return func(*args, **kwargs)
        if getattr(func, "__name__", "") in reads.READS:
            made.settle(operands)
        makes = name in made.MAKES
        sizes = list(made.sizes_in([*args, *kwargs.values()] if makes else operands))
        if not makes:  # a value made of a size: ones(1) * height, arange(height)
            args, kwargs = placed(name, *numbers_followed(name, args, kwargs))
        result = func(*args, **kwargs)
        made.mark(tensors_in([result, *reads.written(getattr(func, "__name__", ""), args)]), sizes)
        return result

    def _run(
        self,
        name: str,
        func: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        operands: List[Tensor],
    ) -> Any:
        args = numbers_of_rows(self.space, name, args, operands)
        args, kwargs = numbers_followed(name, args, kwargs)
        sized = self._sized(name, args, kwargs) or (name == "getitem" and cut_by_size(args[1]))
        if not sized and all(region_of(tensor) is None for tensor in operands):
            if not name.startswith("new_"):  # as large as the picture, which is not followed
                args, kwargs = frozen(args), {key: frozen(value) for key, value in kwargs.items()}
            return func(*args, **kwargs)
        if name in reads.VALUES_OF_FIRST and name not in HANDLERS and region_of(operands[0]) is None:
            return func(*args, **kwargs)  # a weight in the picture's dtype, say
        try:
            if kwargs.get("out") is not None:
                raise NotExact("out= is not followed")
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
            if name not in APART and name not in names.POINTWISE and _windowed(operands):
                raise NotExact("windows of the picture, or heads, are rows of the batch")
            if name in HANDLERS:
                handler = HANDLERS[name]
                try:
                    inspect.signature(handler).bind(self.space, *args, **kwargs)
                except TypeError as error:
                    raise NotExact(str(error)) from None
                return handler(self.space, *args, **kwargs)
            if name in names.POINTWISE:
                return pointwise(self.space, name, func, args, kwargs)
            raise NotExact("")
        except NotExact as reason:
            return self._unknown(name, str(reason), func, args, kwargs, operands)

    def _sized(self, name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> bool:
        """Whether an interpolation is to a size of the picture, or to what int() made of one, or what has no
        positions of it is repeated or folded to one."""
        sized = any(map(by_size, (*args, *kwargs.values())))
        if name in ("expand", "fold", "repeat"):
            return sized and any(map(reads.from_picture, tensors_in(args)))
        if name not in SIZED or sized:
            return name in SIZED
        size = kwargs.get("size", args[1] if len(args) > 1 else None)
        numbers = enumerate(size if isinstance(size, (list, tuple)) else (size, size))
        return any(number in self.space.read for number in numbers)

    def _sides(self, name: str, tensor: Tensor, args: Tuple[Any, ...], answer: Any) -> Any:
        """Heights and widths that the model asks for, as numbers that know where they come from."""
        region = region_of(tensor)
        if region is None or name not in ("get:shape", "size"):
            return answer
        sides = {dim: self.space.side(axis) for dim, axis in region.axes.items()}
        if isinstance(answer, tuple):
            return torch.Size([sides.get(dim, number) for dim, number in enumerate(answer)])
        dim = args[1] if len(args) > 1 else None
        return sides.get(dim % tensor.dim(), answer) if isinstance(dim, int) else answer

    def _unknown(
        self,
        name: str,
        reason: str,
        func: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
        operands: List[Tensor],
    ) -> Any:
        regions = [region for region in map(region_of, operands) if region is not None]
        flattens = name in ("flatten", "view", "reshape") and reason == FLATTENED
        if self.releases and (flattens or all(region.mask for region in regions)):
            if not all(region.mask for region in regions):
                self.space.handed_over.append(name)
            clean = [self._released(value) for value in args]
            return func(*clean, **{key: self._released(value) for key, value in kwargs.items()})
        self.space.unknown.append(f"{name} ({reason})" if reason else name)
        result = func(*args, **kwargs)
        # Follow the image where its shape allows, so that what comes after is checked as well.
        for tensor in tensors_in([result]) if regions else ():
            forget(tensor)
            try:
                self.space.attach(tensor, Region(dict(regions[0].axes), regions[0].batch))
            except (NotExact, IndexError):
                forget(tensor)
        return result

    def _released(self, value: Any) -> Any:
        region = region_of(value)
        if region is None:
            return value
        # An alias carries no region, so the model's own operations on it go unseen.
        clean = self.space.filled(value, 0.0).detach()
        if not self.space.noise or region.mask:
            return clean
        inside = self.space.inside(region, clean.dim())
        return torch.where(inside, clean, torch.randn_like(clean) * self.space.noise)
