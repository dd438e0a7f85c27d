"""Numbers of the picture's size among an operation's arguments: followed, one for each row, or plain."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor

from anyshape.building.exact import names
from anyshape.building.exact.axis import axis_of
from anyshape.building.exact.both import Area, Followed, counted
from anyshape.building.exact.region import Region, Space, region_of
from anyshape.building.exact.side import Known, frozen

Arguments = Tuple[Tuple[Any, ...], Dict[str, Any]]

# Operations that know what to do with a height or width; for others it is a number like any other.
FOLLOWS = {
    *(
        "adaptive_avg_pool2d",
        "adaptive_max_pool2d",
        "avg_pool1d",
        "avg_pool2d",
        "expand",
        "flatten",
        "fold",
        "getitem",
        "interpolate",
        "laid_out",
        "max_pool1d",
        "max_pool2d",
        "narrow",
        "new_empty",
        "new_ones",
        "pad",
    ),
    *("empty", "full", "new_full", "ones", "sampled", "spatial_biases", "zeros"),
    *("new_zeros", "patch_centres", "repeat", "reshape", "setitem", "split", "split_with_sizes"),
    *("unflatten", "upsample", "view"),
}
FILLS = {"full": 1, "new_full": 2}  # what fills it is the argument of that number
# Where in a tensor something is taken or written, which the result's shape does not say.
PLACED = {"getitem", "narrow", "pad", "setitem"}
# They take numbers, or tensors with a number for each row.
OF_ROWS = names.ADDS | names.DIVIDES | names.SCALES | {"eq", "ge", "gt", "le", "lt", "ne", "pow", "rdiv"}
OF_ROWS |= {"floor_divide", "floordiv", "mod", "remainder", "rfloordiv", "rtruediv"}


def by_size(value: Any) -> bool:
    """Whether a number knows that it is a size of the picture, or several do."""
    return isinstance(value, (Area, Known)) or (isinstance(value, (list, tuple)) and any(map(by_size, value)))


def numbers_followed(name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Arguments:
    """The arguments, with plain numbers for sizes of the picture where the operation does not follow them."""
    if name in FILLS:  # a size is followed as a length, and no value
        place = FILLS[name]
        args = (*args[:place], *map(frozen, args[place:]))
        return args, {key: value if key == "size" else frozen(value) for key, value in kwargs.items()}
    if name in FOLLOWS:
        return args, kwargs
    return frozen(args), {key: frozen(value) for key, value in kwargs.items()}


def placed(name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Arguments:
    """The same for a tensor without a picture: of what says where in it, but how many of its first positions
    are taken, which the result's shape shows."""
    if name not in PLACED:
        return args, kwargs
    return tuple(map(_place, args)), {key: frozen(value) for key, value in kwargs.items()}


def _place(value: Any) -> Any:
    if isinstance(value, slice):
        first = value.start in (None, 0) and value.step in (None, 1)
        stop = value.stop if first else frozen(value.stop)
        return slice(frozen(value.start), stop, frozen(value.step))
    if type(value) in (list, tuple):
        return type(value)(map(_place, value))
    return frozen(value)


def numbers_of_rows(
    space: Space, name: str, args: Tuple[Any, ...], operands: Sequence[Tensor]
) -> Tuple[Any, ...]:
    """The operands, with a number for each row in the place of one that the picture's size decides."""
    known = [(tensor, region_of(tensor)) for tensor in operands]
    tensors = [tensor for tensor, region in known if region is not None]
    batches = {region.batch for _, region in known if region is not None}
    numbers = any(isinstance(value, Followed) for value in args)
    if name not in OF_ROWS or not numbers or len(batches) != 1:
        return args
    like = max(tensors, key=Tensor.dim)
    region: Any = region_of(like)
    made = []
    for value in args:
        found = _for_rows(space, value, like.dtype) if isinstance(value, Followed) else None
        made.append(value if found is None else _per_row(space, found, region, like.dim()))
    return tuple(made)


def _for_rows(space: Space, number: Any, dtype: torch.dtype) -> Optional[Tensor]:
    """[B]: what a number is that the picture's size decides, for each row; None for one of both sides that is
    no sum of areas. int64, or a fraction in `dtype`."""
    if isinstance(number, Known) and not isinstance(number, int):
        kind = dtype if dtype.is_floating_point else torch.get_default_dtype()
        table = torch.tensor(number.table, dtype=kind, device=space.batch.device)
        return table.index_select(0, space.batch[:, number.side])
    if isinstance(number, Known):
        return space.extents(axis_of(number.side, number.table))
    sums = counted(number)
    if sums is None:
        return None
    total = torch.full_like(space.batch[:, 0], sums[1])
    for sides, count in sums[0].items():
        tall, wide = (axis_of(side, table) for side, table in enumerate(sides))
        total = total + space.extents(tall) * space.extents(wide) * count
    return total


def _per_row(space: Space, numbers: Tensor, region: Region, ndim: int) -> Tensor:
    return space.per_row(numbers[:, None], region, (region.batch + 1) % ndim, ndim)
