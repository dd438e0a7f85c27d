"""Values of the picture that a model reads in Python, for a branch or a number.

Tracing and exporting run the model once: what Python reads of that one picture is fixed for every other.
So every tensor that depends on the picture is marked, those as well that have no padding any more, and
what hands a marked tensor's value to Python is refused by its name.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

from torch import Tensor

from anyshape.building.exact.region import region_of

_ATTRIBUTE = "_from_picture"
REASON = "it reads a value that depends on the picture, and compiling would fix it for all of them"

# By the names that torch gives them; underscores tell bool(x) from x.bool().
READS: Dict[str, str] = {
    "__array__": "numpy()",
    "__bool__": "bool()",
    "__complex__": "complex()",
    "__contains__": "in",
    "__dlpack__": "from_dlpack()",
    "__float__": "float()",
    "__index__": "int()",
    "__int__": "int()",
    **{name: f"{name}()" for name in ("allclose", "equal", "is_nonzero", "item", "numpy", "tolist")},
}
# The same, as torch's own code calls them.
READS_INSIDE = {"_local_scalar_dense": "item()", "equal": "equal()", "is_nonzero": "is_nonzero()"}
# What comes out has the first operand's shape or place, not its values; or the others' shape or type only.
_LIKE_FIRST = {
    *("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like"),
    *("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros"),
}
VALUES_OF_FIRST = {"expand_as", "reshape_as", "to", "type_as", "view_as"}


PIXELS, MASK = "pixels", "mask"  # what of the picture a tensor's values depend on; the mask is its size


def origin(tensor: Tensor) -> Optional[str]:
    """PIXELS, MASK where it is the pixel mask alone, None for a tensor that knows nothing of the picture."""
    region = region_of(tensor)
    if region is not None and not region.mask:
        return PIXELS
    marked: Optional[str] = tensor.__dict__.get(_ATTRIBUTE)
    return marked or (MASK if region is not None else None)


def from_picture(tensor: Tensor) -> bool:
    return origin(tensor) is not None


def matters(operands: Sequence[Tensor], runs: bool) -> bool:
    """Whether reading these is to be refused. Where the model just runs, its mask may be asked whether all
    of it is set: libraries do so to save work, and leave it when they are traced or exported."""
    return not runs or any(origin(operand) == PIXELS for operand in operands)


def mark(tensor: Tensor, operands: Sequence[Tensor]) -> None:
    """Note that a tensor comes from these."""
    setattr(tensor, _ATTRIBUTE, PIXELS if any(origin(each) == PIXELS for each in operands) else MASK)


def depends(name: str, operands: Sequence[Tensor]) -> bool:
    """Whether the values of an operation's result depend on the picture; one operand's do."""
    if name in _LIKE_FIRST:
        return any(from_picture(operand) for operand in operands[1:])
    if name in VALUES_OF_FIRST:
        return from_picture(operands[0])
    return any(from_picture(operand) for operand in operands)


def written(name: str, args: Sequence[Any]) -> Sequence[Any]:
    """The operands that an operation writes to and does not return."""
    return args[:1] if name == "__setitem__" else ()
