"""Products of matrices: they mix channels, or sum over the positions of the picture.

Both are written as torch.einsum does it, a letter for each dimension: what two operands share is combined.
"""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any, Callable, Dict, List, Sequence

import torch
from torch import Tensor

from anyshape.building.exact.axis import inner_of, rows, varies
from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, region_of, shape_of


@handles("einsum")
def einsum(space: Space, equation: Any, *operands: Any) -> Tensor:
    tensors = list(operands[0]) if isinstance(operands[0], (list, tuple)) else list(operands)
    if not isinstance(equation, str) or "." in equation:
        raise NotExact("only equations of letters are known")
    asked, arrow, answer = equation.replace(" ", "").partition("->")
    if not arrow:
        answer = "".join(sorted(each for each in set(asked) - {","} if asked.count(each) == 1))
    terms = asked.split(",")
    if any(len(set(term)) < len(term) for term in terms):
        raise NotExact("a diagonal")
    return multiplied(space, tensors, terms, answer, lambda *each: torch.einsum(equation, *each))


@handles("matmul", "rmatmul", "bmm")
def matmul(space: Space, input: Tensor, other: Tensor) -> Tensor:
    if min(input.dim(), other.dim()) < 2:
        raise NotExact("a vector")
    letters = ascii_lowercase[: max(input.dim(), other.dim()) - 2]
    first, second = (letters[len(letters) - each.dim() + 2 :] for each in (input, other))
    return multiplied(
        space,
        [input, other],
        [first + "xy", second + "yz"],
        letters + "xz",
        lambda *each: torch.matmul(*each),
    )


@handles("baddbmm", "addmm")
def added(space: Space, input: Tensor, one: Tensor, other: Tensor, **options: Any) -> Tensor:
    raise NotExact("use torch.matmul and an addition")


def multiplied(
    space: Space, tensors: List[Tensor], terms: Sequence[str], answer: str, product: Callable[..., Tensor]
) -> Tensor:
    """The product with padding kept out of its sums. Raises NotExact where that cannot be."""
    found: Dict[str, List[Any]] = {}
    plain = set()
    batches: Dict[str, Any] = {}
    inner = set()
    for tensor, term in zip(tensors, terms):
        region = region_of(tensor)
        for dim, (letter, size) in enumerate(zip(term, shape_of(tensor))):
            if region is not None and dim == region.batch:
                batches[letter] = None
                inner.add(inner_of(region.batch))
            elif region is not None and dim in region.axes:
                found.setdefault(letter, []).append(region.axes[dim])
            elif size != 1:
                plain.add(letter)
    if plain & set(found):
        raise NotExact("positions are combined with a tensor whose valid ones are not known")
    if len(batches) != 1 or len(inner) != 1 or not set(batches) <= set(answer) - set(found):
        raise NotExact("it mixes the rows of the batch")
    parts = inner.pop()
    if varies(parts) and set(batches) & plain:
        raise NotExact("windows of the picture are combined with a tensor that has a number for each")
    axes = {letter: space.merge(several) for letter, several in found.items()}
    for place, term in enumerate(terms):
        if any(letter in axes and letter not in answer for letter in term):
            tensors[place] = space.filled(tensors[place], 0.0)  # in both: 0 × NaN is no 0
    outcome = {answer.index(letter): axis for letter, axis in axes.items() if letter in answer}
    batch = rows(answer.index(batches.popitem()[0]), parts)
    found_region = Region(outcome, batch, own=True)
    if len(tensors) == 1:  # which may be a view
        found_region.view_of(tracked(tensors[0]))
    return space.attach(product(*tensors), found_region)
