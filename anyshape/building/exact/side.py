"""A height or width that a model asks for, and what Python makes of it.

A compiled model keeps the numbers of the run that it was made from. So ``x.shape[2]`` is a number here that
knows what it would be for every size of the picture: handed to an interpolation or a slice it is followed,
and where it decides something (a branch, a padding worked out in Python) only the pictures for which it
decides the same are accepted. Numbers that merely equal a size, a pooling to 4×4 in a map of 4 rows, are
told apart by that.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence, Union

if TYPE_CHECKING:
    from anyshape.building.exact.region import Space

Number = Union[int, float]


class Known:
    """What whole numbers and fractions share. `side`: 0 height, 1 width; `table`: for every size."""

    space: Space
    side: int
    table: Sequence[Number]

    def plain(self) -> Number:
        """The number in this bucket, and nothing else."""
        return self.table[-1]

    def freeze(self) -> Number:
        """The number in this bucket; pictures for which it is another are not accepted from here on."""
        self.keep([number == self.table[-1] for number in self.table])
        return self.plain()

    def keep(self, same: Sequence[bool]) -> None:
        self.space.leave(self.side, same)

    def others(self, other: Any) -> Optional[Sequence[Number]]:
        """The other operand for every size; None where it belongs to the other side of the picture."""
        if isinstance(other, Known):
            return other.table if other.side == self.side and other.space is self.space else None
        return [other] * len(self.table)

    def made(self, table: Sequence[Number]) -> Number:
        return known(self.space, self.side, table)

    def __bool__(self) -> bool:
        return bool(operator.ne(self, 0))

    def __int__(self) -> int:
        # What int() gives is a plain number: from now on one that equals it is taken for this one.
        numbers = tuple(int(number) for number in self.table)
        self.space.note(self.side, numbers)
        return numbers[-1]

    def __round__(self, digits: Optional[int] = None) -> Number:
        return self.made(
            [round(number, digits) if digits is not None else round(number) for number in self.table]
        )

    def __trunc__(self) -> int:
        return self.made([math.trunc(number) for number in self.table])  # type: ignore[return-value]

    def __abs__(self) -> Number:
        return self.made([abs(number) for number in self.table])

    def __pos__(self) -> Known:
        return self

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __neg__(self) -> Number:
        return self.made([-number for number in self.table])

    def __ceil__(self) -> Number:
        return self.made([math.ceil(number) for number in self.table])

    def __floor__(self) -> Number:
        return self.made([math.floor(number) for number in self.table])

    def __hash__(self) -> int:
        return hash(self.plain())


class Side(Known, int):  # type: ignore[misc]
    """A whole number."""


class Part(Known, float):  # type: ignore[misc]
    """A fraction: half a height, or what a width is of another."""


class Area(int):
    """A height times a width, and `extra`: how many positions a picture has that was flattened.

    Another number made of it is a plain one. Where it decides something, or is an argument where only this
    bucket's number can stand, it leaves the pictures of this bucket's own size.
    """

    space: Space
    sides: Sequence[Sequence[Number]]  # the tables of height and width
    extra: int

    def freeze(self) -> int:
        for side, table in enumerate(self.sides):
            self.space.leave(side, [number == table[-1] for number in table])
        return int(self)

    def keep(self, same: Callable[[Number], bool]) -> None:
        """Accept only pictures whose number is decided alike: fewer heights or widths, what loses less."""
        kept = []
        for one, other in ((0, 1), (1, 0)):
            taken = self.space.accepted[other]
            others = {size for size, known in zip(self.sides[other], taken) if known and size}
            alike = {
                size: all(same(size * each + self.extra) for each in others) for size in set(self.sides[one])
            }
            accepted = self.space.accepted[one]
            kept.append([before and alike[size] for before, size in zip(accepted, self.sides[one])])
        shares = [sum(kept[side]) / max(1, sum(self.space.accepted[side])) for side in (0, 1)]
        side = 0 if shares[0] >= shares[1] else 1
        if kept[side][-1]:
            self.space.leave(side, kept[side])
        else:  # not even the bucket's own height goes with every width, or its width with every height
            self.freeze()

    def __add__(self, other: int) -> int:
        return area(self.space, self.sides, self.extra + other) if type(other) is int else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: int) -> int:
        return self + -other if type(other) is int else NotImplemented


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Area, Any], Any]:
    def compare(self: Area, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        number = int(other) if isinstance(other, int) else other
        result = function(int(self), number)
        if isinstance(other, (Area, Known)):
            if not isinstance(other, Area) or (other.sides, other.extra) != (self.sides, self.extra):
                self.freeze()
                other.freeze()
        else:
            self.keep(lambda found: function(found, number) == result)
        return result

    return compare


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Area, f"__{_name}__", _compared(getattr(operator, _name)))
Area.__hash__ = int.__hash__  # type: ignore[method-assign]


def area(space: Space, sides: Sequence[Sequence[Number]], extra: int = 0) -> int:
    number = int.__new__(Area, int(sides[0][-1] * sides[1][-1]) + extra)
    number.space, number.sides, number.extra = space, [tuple(table) for table in sides], extra
    return number


def known(space: Space, side: int, table: Sequence[Number]) -> Number:
    """The number; a plain one if it is the same for every size."""
    if len(set(table)) == 1:
        return table[-1]
    number: Any
    if all(isinstance(each, int) for each in table):
        number = int.__new__(Side, table[-1])
    else:
        number = float.__new__(Part, table[-1])
    number.space, number.side, number.table = space, side, tuple(table)
    return number  # type: ignore[no-any-return]


def frozen(value: Any) -> Any:
    """Arguments of an operation with the numbers as they are in this bucket."""
    if isinstance(value, (Known, Area)):
        return value.freeze()
    if type(value) in (list, tuple):
        return type(value)(frozen(each) for each in value)
    return value


def _arithmetic(function: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Known, Any], Any]:
    def operate(self: Known, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        others = self.others(other)
        if others is None:
            one, two = self.plain(), other.plain()  # type: ignore[union-attr]
            if function is operator.mul and isinstance(self, Side) and isinstance(other, Side):
                tables = (self.table, other.table) if self.side == 0 else (other.table, self.table)
                return area(self.space, tables)
            return function(two, one) if swapped else function(one, two)
        table = []
        for one, two in zip(self.table, others):
            try:
                table.append(function(two, one) if swapped else function(one, two))
            except ZeroDivisionError:  # no picture is 0 high
                table.append(0)
        return self.made(table)

    return operate


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[[Known, Any], Any]:
    def compare(self: Known, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        others = self.others(other)
        if others is None:
            return function(self.plain(), other.plain())  # type: ignore[union-attr]
        result = function(self.table[-1], others[-1])
        self.keep([function(one, two) == result for one, two in zip(self.table, others)])
        return result

    return compare


for _kind in (Side, Part):
    for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
        setattr(_kind, f"__{_name}__", _arithmetic(getattr(operator, _name), False))
        setattr(_kind, f"__r{_name}__", _arithmetic(getattr(operator, _name), True))
    if _kind is Side:
        for _name in ("lshift", "rshift", "and_", "or_", "xor"):
            setattr(_kind, f"__{_name.strip('_')}__", _arithmetic(getattr(operator, _name), False))
            setattr(_kind, f"__r{_name.strip('_')}__", _arithmetic(getattr(operator, _name), True))
    for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(_kind, f"__{_name}__", _comparison(getattr(operator, _name)))
    _kind.__hash__ = Known.__hash__  # type: ignore[method-assign]
