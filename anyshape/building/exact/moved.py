"""What operations share that move values without mixing them."""

from __future__ import annotations

from typing import Dict

from torch import Tensor

from anyshape.building.exact.axis import inner_of, rows
from anyshape.building.exact.region import NotExact, Region, Space, region_of, shape_of


def tracked(tensor: Tensor) -> Region:
    region = region_of(tensor)
    if region is None:
        raise NotExact("another operand than the first depends on the image")
    return region


def of_rows(space: Space, tensor: Tensor) -> Region:
    """The region of a tensor of the picture that has no positions of it: a row for each."""
    if shape_of(tensor)[0] != shape_of(space.batch)[0]:
        raise NotExact("another operand than the first depends on the image")
    return Region({})


def moved(space: Space, region: Region, result: Tensor, origin: Dict[int, int], view: bool = True) -> Tensor:
    """Attach `region` to a result whose dimension ``d`` was ``origin[d]``. Raises if one got lost."""
    if region.batch not in origin.values():
        raise NotExact("rows of the batch are separated or joined")
    axes = {new: region.axes[old] for new, old in origin.items() if old in region.axes}
    batch = rows(next(new for new, old in origin.items() if old == region.batch), inner_of(region.batch))
    outcome = Region(axes, batch, mask=region.mask)
    outcome.view_of(region)
    outcome.fill = region.fill
    if not view:
        outcome = Region(axes, batch, own=True, mask=region.mask)
    return space.attach(result, outcome)
