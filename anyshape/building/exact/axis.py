"""Tracked dimensions of an activation, how far each is valid for every size of the picture, and the region
that they make up."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Dict, NamedTuple, Optional, Sequence, Tuple

from torch import Tensor

if TYPE_CHECKING:
    from anyshape.building.exact.region import Space

Table = Tuple[int, ...]
FLATTENED = "space is flattened"
JOINED = "maps of several resolutions were joined"
_ATTRIBUTE = "_valid_region"


class NotExact(Exception):
    """An operation, or the way it is used, whose padded result would not be the unpadded one."""


class Axis(NamedTuple):
    """One tracked dimension: which side of the image it comes from (0 height, 1 width), and its table."""

    side: int
    table: Table

    @property
    def length(self) -> int:
        """How many positions it has in this bucket."""
        return self.table[-1]

    @property
    def parts(self) -> Sequence[Axis]:
        return (self,)


def constant(side: int, count: int, most: int) -> Axis:
    """As many positions for every picture, of sizes up to `most`."""
    return Axis(side, (0,) + (count,) * most)


def axis_of(side: int, table: Sequence[float]) -> Axis:
    """As many positions as a number has, whose values for every size of the picture these are."""
    return Axis(side, tuple(map(int, table)))


class _NoSide:
    """A dimension that is no single side of the picture. What does not know it asks for its table, or its
    side, and is refused."""

    refusal: ClassVar[str]

    @property
    def table(self) -> Table:
        raise NotExact(self.refusal)

    @property
    def side(self) -> int:
        raise NotExact(self.refusal)


@dataclass(frozen=True)
class Flat(_NoSide):
    """One dimension that both sides were flattened into, row after row; `before` and `after` them stand
    positions of every picture (a class token)."""

    refusal = FLATTENED
    rows: Axis
    columns: Axis
    before: int = 0
    after: int = 0

    @property
    def length(self) -> int:
        return self.before + self.rows.length * self.columns.length + self.after

    @property
    def parts(self) -> Sequence[Axis]:
        return (self.rows, self.columns)


@dataclass(frozen=True)
class Levels(_NoSide):
    """One dimension that flattened maps of several resolutions stand in, one after the other."""

    refusal = JOINED
    maps: Tuple[Flat, ...]

    @property
    def length(self) -> int:
        return sum(each.length for each in self.maps)

    @property
    def parts(self) -> Sequence[Axis]:
        return [part for each in self.maps for part in each.parts]


@dataclass(frozen=True)
class Groups(_NoSide):
    """One dimension that groups of as many positions of a flattened picture stand in, row after row and
    across the rows' ends; the last ones that make no whole group are left out."""

    refusal = FLATTENED
    flat: Flat
    each: int

    @property
    def length(self) -> int:
        return self.flat.length // self.each

    @property
    def parts(self) -> Sequence[Axis]:
        return self.flat.parts


class Rows(int):
    """The dimension of the batch where every picture has several rows of it: its windows, or heads. `inner`
    says what they were made of, outermost first: whole numbers, and axes, of which a picture fills a part."""

    inner: Tuple[Any, ...]

    def at(self, dim: int) -> Rows:
        """The same at another dimension."""
        made = Rows(dim)
        made.inner = self.inner
        return made

    def __add__(self, more: int) -> Rows:
        return self.at(int(self) + more)

    def __sub__(self, less: int) -> Rows:
        return self.at(int(self) - less)

    @property
    def each(self) -> int:
        """How many a picture has in this bucket."""
        return prod(lengths(self.inner))


def rows(dim: int, inner: Sequence[Any]) -> Any:
    """The dimension of the batch; a plain number where every picture has one row."""
    if not inner:
        return int(dim)
    made = Rows(dim)
    made.inner = tuple(inner)
    return made


def inner_of(batch: int) -> Tuple[Any, ...]:
    return batch.inner if isinstance(batch, Rows) else ()


def varies(inner: Sequence[Any]) -> bool:
    """Whether a picture's size decides how many rows it has (windows, not heads)."""
    return any(not isinstance(part, int) for part in inner)


def lengths(inner: Sequence[Any]) -> Sequence[int]:
    return [part if isinstance(part, int) else part.length for part in inner]


def formula_of(table: Table) -> Optional[Tuple[int, int]]:
    """(a, s) for a table of ⌊(size + a) / s⌋ wherever it is not 0, as layers that follow one another make
    them; None for another one. A signal's table would be as long as the signal."""
    start = next((size for size, extent in enumerate(table) if extent), len(table))
    rises = [size for size in range(start + 1, len(table)) if table[size] != table[size - 1]][:2]
    if len(rises) < 2:
        return None
    step = rises[1] - rises[0]
    ahead = table[rises[0]] * step - rises[0]
    if all((size + ahead) // step == table[size] for size in range(start, len(table))):
        return ahead, step
    return None


class Region:
    """The valid region of one tensor.

    axes: tracked dimension → Axis; batch: the dimension whose rows have different valid sizes;
    own: the tensor's memory is its own (no view, no argument), so its padding may be overwritten;
    mask: the tensor derives from the pixel mask that the model takes itself.
    """

    def __init__(
        self, axes: Dict[int, Axis], batch: int = 0, *, own: bool = False, mask: bool = False
    ) -> None:
        self.axes = axes
        self.batch = batch
        self.own = own
        self.mask = mask
        self.space: Optional[Space] = None  # the forward pass that it belongs to
        self.seen_at = 0  # how often that had narrowed when the axes were looked at
        self._fill: Optional[float] = None
        self._filled_at = 0
        self._writes = [0]  # shared by all views of one memory: how often it was written in place

    @property
    def fill(self) -> Optional[float]:
        """The value that all padding holds, None if it is unknown. A write through a view forgets it."""
        return self._fill if self._filled_at == self._writes[0] else None

    @fill.setter
    def fill(self, value: Optional[float]) -> None:
        self._fill, self._filled_at = value, self._writes[0]

    def written(self) -> None:
        """The tensor's memory was written in place."""
        self._writes[0] += 1

    def view_of(self, other: Region) -> None:
        """This tensor may share the other's memory."""
        self._writes, self._filled_at, self.own = other._writes, other._filled_at, False


def region_of(value: Any) -> Optional[Region]:
    """The region that travels with a tensor, None for one that has no padding."""
    return value.__dict__.get(_ATTRIBUTE) if isinstance(value, Tensor) else None


def carry(tensor: Tensor, region: Region) -> None:
    setattr(tensor, _ATTRIBUTE, region)


def forget(tensor: Tensor) -> None:
    tensor.__dict__.pop(_ATTRIBUTE, None)
