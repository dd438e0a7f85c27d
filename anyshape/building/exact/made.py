"""Small tensors that a model makes of a picture's height and width: a list of its maps' sizes, say.

They hold the numbers of this bucket. What is computed of them alone is another one of the kind; where one
meets the picture, is read or comes out, the pictures are left for which it would be the same.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List

from torch import Tensor

from anyshape.building.exact.both import Followed

_ATTRIBUTE = "_made_of_sizes"
MAKES = {"as_tensor", "setitem", "tensor"}


def sizes_in(values: Any) -> Iterator[Followed]:
    """The sizes among numbers, and those that tensors were made of."""
    for value in values:
        if isinstance(value, Followed):
            yield value
        elif isinstance(value, Tensor):
            yield from value.__dict__.get(_ATTRIBUTE, ())
        elif isinstance(value, slice):
            yield from sizes_in((value.start, value.stop, value.step))
        elif isinstance(value, (list, tuple)):
            yield from sizes_in(value)


def mark(tensors: Iterable[Tensor], sizes: List[Followed]) -> None:
    for tensor in tensors if sizes else ():
        setattr(tensor, _ATTRIBUTE, [*tensor.__dict__.get(_ATTRIBUTE, ()), *sizes])


def settle(tensors: Iterable[Tensor]) -> None:
    """Leave the pictures for which these tensors are the same."""
    for tensor in tensors:
        for size in tensor.__dict__.get(_ATTRIBUTE, ()):
            size.freeze()
