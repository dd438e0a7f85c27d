"""Where a tensor of a padded batch is real: the valid region that travels with every activation.

A *table* says how far one side of an activation is valid for every side that the image may have:
``table[h]`` rows belong to an image ``h`` pixels high, the rest of the padded extent ``table[-1]`` is
padding. 0 stands for a size that the unpadded model does not take (a kernel larger than its input, two
branches that no longer fit together). Tables are plain whole numbers, computed once per layer with the
layer's own output-size formula; at run time one look-up per distinct table gives each row's extent.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor

from anyshape.building.exact.axis import FLATTENED as FLATTENED
from anyshape.building.exact.axis import Axis as Axis
from anyshape.building.exact.axis import Flat as Flat
from anyshape.building.exact.axis import Groups as Groups
from anyshape.building.exact.axis import Levels as Levels
from anyshape.building.exact.axis import NotExact as NotExact
from anyshape.building.exact.axis import Region as Region
from anyshape.building.exact.axis import Rows as Rows
from anyshape.building.exact.axis import Table as Table
from anyshape.building.exact.axis import carry, formula_of, inner_of
from anyshape.building.exact.axis import forget as forget
from anyshape.building.exact.axis import region_of as region_of
from anyshape.building.exact.both import Followed, area, mixed
from anyshape.building.exact.filling import number_like
from anyshape.building.exact.levels import merged
from anyshape.building.exact.side import Known, known
from anyshape.building.values import model_line

LONG = 4096  # tables beyond this are worked out where that is possible, and not looked up
_FRAME_SHARE = 0.1  # a position in a frame costs about ten times one in a pass over the whole


@contextmanager
def _untraced() -> Iterator[None]:
    """torch.jit.trace looks away: shapes are plain numbers, new tensors are constants."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def shape_of(tensor: Tensor) -> List[int]:
    """The shape as plain numbers, while tracing too. Under export the batch size may be symbolic."""
    with _untraced():
        return list(tensor.shape)


def plain(number: Any) -> int:
    """A size that the model computed; torch.jit.trace hands out tensors for them. It stays what it is in
    this bucket: pictures for which the model would compute another are not accepted from here on."""
    if isinstance(number, Followed):
        number = number.freeze()
    with _untraced():
        return int(number)


class Space:
    """What one forward pass knows of its batch: every row's valid size, and what follows from it."""

    def __init__(
        self, valid_size: Tensor, height: int, width: int, in_place: bool = True, step: int = 1
    ) -> None:
        self.sides = (height, width)
        self.batch = valid_size
        self.in_place = in_place
        self.rows = torch.arange(valid_size.shape[0], device=valid_size.device)[:, None]
        self.unknown: List[str] = []
        self.handed_over: List[str] = []  # the operations from which on the model's own mask is relied on
        self.noise = 0.0  # how large what lies outside is there; 0 where the model is compiled
        self.flattens = True  # a flattened picture is followed on
        self.runs = False  # the model just runs: it is neither traced nor exported
        self.final: Optional[Sequence[Sequence[bool]]] = None  # what was `asked` in the end when it just ran
        self.seen = 0  # above 0 while an operation runs that the mode has seen
        self.reading = False  # while one runs that was named as a read
        self.read: Dict[Tuple[int, int], Axis] = {}  # what int() made plain, by side and number
        self._places: Dict[Tuple[int, int], str] = {}  # the lines of the model's code that did
        self.used: Set[Tuple[int, int]] = set()  # those that an operation was then given
        self.decided: Dict[str, int] = {}  # lines of the model's code, and how many sizes were left for them
        self.accepted, self.asked = (  # the latter: left by the model's own comparisons alone
            ([not size % step for size in range(height + 1)], [not size % step for size in range(width + 1)])
            for _ in range(2)
        )
        self.narrowed = 0  # how often sizes left those
        self._noted: Dict[int, Table] = {}  # by id: the tables that `accepted` knows, kept alive here
        self._valid = (valid_size[:, 0], valid_size[:, 1])
        self._extents: Dict[Axis, Tensor] = {}
        self._inside: Dict[Any, Tensor] = {}

    def note(self, side: int, table: Table) -> None:
        """A number that the model made plain with int(); later ones that equal it are taken for it."""
        if len(set(table)) > 1:
            known = self.read.setdefault((side, table[-1]), Axis(side, table))
            self._places.setdefault((side, table[-1]), model_line())
            self.keep(side, table, known.table)  # where two give one number, later ones could be either

    def followed(self, side: int, number: Any) -> Optional[Axis]:
        """Where a number comes from, if it is a size of the picture, or was one before int() was called."""
        if isinstance(number, Known):
            return Axis(side, tuple(number.table)) if number.side == side else None  # type: ignore[arg-type]
        key = side, plain(number)
        if key in self.read:
            self.used.add(key)
        return self.read.get(key)

    def settle(self) -> None:
        """The model is done: numbers that int() made plain and nothing followed leave the pictures for which
        they are the same."""
        for key, axis in self.read.items():
            if key not in self.used:
                same = [number == axis.length for number in axis.table]
                self.leave(axis.side, same, self._places[key])

    def keep(self, side: int, table: Sequence[Any], numbers: Sequence[Any]) -> None:
        """Accept only the pictures for which a table has these numbers."""
        self.leave(side, [a == b for a, b in zip(table, numbers)])

    def leave(self, side: int, same: Sequence[bool], place: str = "") -> None:
        """Accept no picture of a size for which the model would have computed something else here, or at
        the line of its code that is given."""
        accepted = self.accepted[side]
        kept = [before and now for before, now in zip(accepted, same)]
        lost = sum(accepted) - sum(kept)
        if lost:
            place = place or model_line()
            self.decided[place] = self.decided.get(place, 0) + lost
            accepted[:] = kept

    def ask(self, side: int, same: Sequence[bool]) -> None:
        """The model compared a size: it may say of all but one that it takes none of them."""
        asked = self.asked[side]
        kept = [before and now for before, now in zip(asked, same)]
        self.narrowed += kept != asked
        asked[:] = kept

    def side(self, axis: Any) -> int:
        """How far an axis reaches, as the model sees it: a number that knows where it comes from."""
        if isinstance(axis, Flat):
            sides = sorted(axis.parts, key=lambda part: part.side)
            return area(self, [part.table for part in sides], axis.before + axis.after)
        if isinstance(axis, Groups):
            return mixed(axis.length, [self.side(axis.flat)])  # type: ignore[return-value]
        if isinstance(axis, Levels):
            return sum(map(self.side, axis.maps))
        return known(self, axis.side, axis.table)  # type: ignore[return-value]

    def whole(self, side: int) -> Axis:
        """The axis of the image itself."""
        return Axis(side, tuple(range(self.sides[side] + 1)))

    def extents(self, axis: Axis) -> Tensor:
        """[B] int64: how far the axis is valid in each row of the batch."""
        if axis == self.whole(axis.side):
            return self._valid[axis.side]
        if axis not in self._extents:
            formula = formula_of(axis.table) if len(axis.table) > LONG else None
            if formula is not None:
                ahead, step = formula
                extent = torch.div(self._valid[axis.side] + ahead, step, rounding_mode="floor")
                self._extents[axis] = extent.clamp(min=0)
                return self._extents[axis]
            with _untraced():
                table = torch.tensor(axis.table, device=self.batch.device)
            self._extents[axis] = table.index_select(0, self._valid[axis.side])
        return self._extents[axis]

    def positions(self, count: int) -> Tensor:
        """[count] int64: 0, 1, 2, ..."""
        with _untraced():
            return torch.arange(count, device=self.batch.device)

    def attach(self, tensor: Tensor, region: Region) -> Tensor:
        """Let `region` travel with `tensor`. Raises NotExact if its tables do not fit the shape."""
        shape = shape_of(tensor)
        for dim, axis in region.axes.items():
            if shape[dim] != axis.length:
                raise NotExact(f"its {shape[dim]} positions were expected to be {axis.length}")
        for axis in region.axes.values():
            for part in axis.parts:
                if self._noted.get(id(part.table)) is part.table:
                    continue
                self._noted[id(part.table)] = part.table
                accepted = self.accepted[part.side]
                for size, extent in enumerate(part.table):
                    accepted[size] = accepted[size] and extent > 0
        forget(tensor)
        region.space = self
        carry(tensor, region)
        region.seen_at = -1
        self.slim(tensor)
        return tensor

    def slim(self, tensor: Tensor) -> None:
        """A dimension that no accepted size leaves unfilled needs no tracking: pooled to 1×1, or of a
        model of one size."""
        region = region_of(tensor)
        if region is None or region.seen_at == self.narrowed:
            return
        region.axes = {d: a for d, a in region.axes.items() if not all(map(self._full, a.parts))}
        region.seen_at = self.narrowed
        if not region.axes and not isinstance(region.batch, Rows):
            forget(tensor)

    def _full(self, axis: Axis) -> bool:
        """Whether every size fills the axis that the model did not turn away. While tracing, numbers of the
        batch are tensors, and what Python makes of them says less: what it asked before that counts."""
        length, known = axis.length, self.asked if self.runs else self.final
        if known is None:
            return set(axis.table) - {0} == {length}
        return all(n == length for n, taken in zip(axis.table, known[axis.side]) if taken and n)

    def merge(self, axes: Sequence[Axis]) -> Axis:
        """The axis of tensors that are combined position by position; sizes that differ are refused."""
        first = axes[0]
        for other in axes[1:]:
            if first == other:
                continue
            if not isinstance(first, Axis) or not isinstance(other, Axis):
                first = merged(first, other, self.merge, self._full)
                continue
            if other.side != first.side or other.table[-1] != first.table[-1]:
                raise NotExact("heights and widths are combined with each other")
            table = tuple(a if a == b else 0 for a, b in zip(first.table, other.table))
            first = Axis(first.side, table)
        return first

    def per_row(self, values: Tensor, region: Region, dim: int, ndim: int) -> Tensor:
        """[B, n] values, shaped to be broadcast along the batch dimension and `dim`."""
        columns = shape_of(values)[1]
        if isinstance(region.batch, Rows):
            values = values[:, None].expand(-1, region.batch.each, -1).flatten(0, 1)
        shape = [1] * ndim
        shape[region.batch], shape[dim] = -1, columns
        if region.batch > dim:
            values = values.transpose(0, 1)
        return values.reshape(shape)

    def valid(self, axis: Any) -> Tensor:
        """[B, n] boolean: which positions of the axis belong to each row's picture."""
        if isinstance(axis, Levels):
            return torch.cat(list(map(self.valid, axis.maps)), 1)
        if isinstance(axis, Groups):
            return self.positions(axis.length) < self.counts(axis)[:, None]
        if not isinstance(axis, Flat):
            return self.positions(axis.length) < self.extents(axis)[:, None]
        both = (self.valid(axis.rows)[:, :, None] & self.valid(axis.columns)[:, None, :]).flatten(1)
        more = [torch.ones_like(both[:, :1]).expand(-1, count) for count in (axis.before, axis.after)]
        return torch.cat([more[0], both, more[1]], 1) if axis.before or axis.after else both

    def counts(self, axis: Any) -> Tensor:
        """[B] int64: how many they are."""
        if isinstance(axis, Levels):
            return torch.stack(list(map(self.counts, axis.maps))).sum(0)
        if isinstance(axis, Groups):
            return torch.div(self.counts(axis.flat), axis.each, rounding_mode="floor")
        if not isinstance(axis, Flat):
            return self.extents(axis)
        return self.extents(axis.rows) * self.extents(axis.columns) + (axis.before + axis.after)

    def inside(self, region: Region, ndim: int) -> Tensor:
        """Boolean, broadcastable to the tensor: True where a position is valid."""
        axes = tuple(sorted(region.axes.items(), key=lambda item: item[0]))
        key = (axes, region.batch, inner_of(region.batch), ndim)
        if not axes:  # windows, each of which is whole
            return torch.ones([1] * ndim, dtype=torch.bool, device=self.batch.device)
        if key not in self._inside:
            parts = []
            for dim, axis in axes:
                parts.append(self.per_row(self.valid(axis), region, dim, ndim))
            self._inside[key] = parts[0] if len(parts) == 1 else parts[0] & parts[1]
        return self._inside[key]

    def area(self, region: Region, dims: Sequence[int], ndim: int) -> Tensor:
        """Int64, broadcastable to the tensor: valid positions per row along the tracked `dims`.

        0 where the unpadded model has no answer: an average is then NaN, and no number that looks like one.
        """
        counts = [self.counts(region.axes[dim]) for dim in dims]
        total = counts[0] if len(counts) == 1 else counts[0] * counts[1]
        return self.per_row(total[:, None], region, (region.batch + 1) % ndim, ndim)

    def filled(self, tensor: Tensor, value: float) -> Tensor:
        """The tensor with all its padding set to `value`; the tensor itself where that is so already."""
        region = region_of(tensor)
        if region is None or region.fill == value or not region.axes:
            return tensor
        inside = self.inside(region, tensor.dim())
        if tensor.dtype == torch.bool:
            result = tensor & inside if value <= 0 else tensor | ~inside
        else:
            other = number_like(tensor, value)
            result = torch.where(inside, tensor, other)
        region = Region(region.axes, region.batch, own=True, mask=region.mask)
        region.fill, region.space = value, self
        carry(result, region)
        return result

    def framed(self, tensor: Tensor, value: float, widths: Mapping[int, int]) -> Tensor:
        """The tensor with the padding that lies right behind its valid positions set to `value`, as far
        as `widths` says: dimension → positions. A window looks no further, and a frame is a small part
        of the whole. Written in place, for padding means nothing and overwriting it hurts nobody; where
        the memory is not the tensor's own, all padding is set in a copy."""
        region = region_of(tensor)
        if region is None or region.fill == value or not any(widths.values()):
            return tensor
        shape = shape_of(tensor)
        share = sum(width / shape[dim] for dim, width in widths.items())
        spread = isinstance(region.batch, Rows)
        if not self.in_place or not region.own or spread or share > _FRAME_SHARE:
            return self.filled(tensor, value)
        other = number_like(tensor, value)
        for dim, width in widths.items():
            if not width:
                continue
            extent = self.extents(region.axes[dim])[:, None]
            at = (extent + self.positions(width)[None]).clamp(max=shape[dim] - 1)
            # Where a row has no padding the last position is met, and keeps its value.
            outside = (at >= extent).reshape([-1, width] + [1] * (len(shape) - 2))
            # AOTInductor does this in place; after scatter_ it would copy the whole.
            view = tensor.movedim((region.batch, dim), (0, 1))
            view.index_put_((self.rows, at), torch.where(outside, other, view[self.rows, at]))
        region.written()
        return tensor

    def take(self, tensor: Tensor, region: Region, dim: int, index: Tensor) -> Tensor:
        """Along `dim`, every row's own positions: `index` is [B, n] int64, or [1, n] for all rows."""
        shape = shape_of(tensor)
        index = index.expand(self.batch.shape[0], -1)
        placed = self.per_row(index, region, dim, tensor.dim())
        shape[region.batch] = shape[dim] = -1
        return torch.gather(tensor, dim, placed.expand(shape))
