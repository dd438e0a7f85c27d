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
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence, Tuple

from anyshape.building.exact.both import Area, Followed, Mixed, Number, area, mixed, together

if TYPE_CHECKING:
    from anyshape.building.exact.region import Space


class Known(Followed):
    """What whole numbers and fractions share. `side`: 0 height, 1 width; `table`: for every size."""

    space: Space
    side: int
    table: Sequence[Number]

    def bare(self) -> Number:
        return self.table[-1]

    def sources(self) -> Sequence[Tuple[int, Sequence[Number]]]:
        return [(self.side, self.table)]

    def keep(self, same: Sequence[bool]) -> None:
        self.space.leave(self.side, same)
        self.space.ask(self.side, same)

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
        return hash(self.bare())


class Side(Known, int):  # type: ignore[misc]
    """A whole number."""


class Part(Known, float):  # type: ignore[misc]
    """A fraction: half a height, or what a width is of another."""


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
    if isinstance(value, Followed):
        return value.freeze()
    if type(value) is list:
        return [frozen(each) for each in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):  # a torch.Size as well
        return tuple(frozen(each) for each in value)
    return value


def _arithmetic(function: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Known, Any], Any]:
    def operate(self: Known, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        if isinstance(other, (Area, Mixed)):
            return mixed(
                function(*((other.bare(), self.bare()) if swapped else (self.bare(), other.bare()))),
                (self, other),
            )
        others = self.others(other)
        if others is None:
            one, two = self.bare(), other.bare()  # type: ignore[union-attr]
            if function is operator.mul and isinstance(self, Side) and isinstance(other, Side):
                tables = (self.table, other.table) if self.side == 0 else (other.table, self.table)
                return area(self.space, tables)
            return mixed(function(two, one) if swapped else function(one, two), (self, other))
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
        if isinstance(other, (Area, Mixed)):
            return NotImplemented
        others = self.others(other)
        if others is None:
            return together(self, other, function)
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
