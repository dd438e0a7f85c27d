"""Numbers that a height and a width made together: their product, and whatever else Python makes of both."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple, Union

if TYPE_CHECKING:
    from anyshape.building.exact.region import Space

Number = Union[int, float]
Sides = Tuple[Tuple[Number, ...], Tuple[Number, ...]]


class Followed:
    """A number that knows which sizes of the picture it comes from."""

    space: Space

    def bare(self) -> Number:
        """The number in this bucket, and nothing else."""
        raise NotImplementedError

    def sources(self) -> Sequence[Tuple[int, Sequence[Number]]]:
        """Sides, and for each the number for every size that it is made of."""
        raise NotImplementedError

    def freeze(self) -> Number:
        """The number in this bucket; pictures for which it is another are not accepted from here on."""
        for side, table in self.sources():
            self.space.leave(side, [number == table[-1] for number in table])
        return self.bare()


class Area(Followed, int):
    """A height times a width, and `extra`: how many positions a picture has that was flattened."""

    sides: Sides  # the tables of height and width
    extra: int

    def bare(self) -> int:
        return int.__index__(self)

    def sources(self) -> Sequence[Tuple[int, Sequence[Number]]]:
        return list(enumerate(self.sides))

    def __int__(self) -> int:
        return int(self.freeze())  # what int() gives is a plain number

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

    def __mod__(self, other: int) -> Any:
        """What a division leaves is asked for to decide something: pictures with the same are accepted."""
        if type(other) is not int or not other:
            return _mixing(operator.mod)(self, other)
        left = self.bare() % other
        self.keep(lambda number: number % other == left)
        return left


class Mixed(Followed):
    """Another number made of a height and a width together. Where it decides something, or is an argument,
    it leaves the pictures of this bucket's own size."""

    made_of: Sequence[Followed]

    def sources(self) -> Sequence[Tuple[int, Sequence[Number]]]:
        return [source for part in self.made_of for source in part.sources()]

    def __int__(self) -> int:
        return int(self.freeze())

    def __float__(self) -> float:
        return float(self.freeze())

    def __bool__(self) -> bool:
        return bool(self.freeze())

    def __round__(self, digits: Optional[int] = None) -> Number:
        return mixed(round(self.bare(), digits) if digits is not None else round(self.bare()), (self,))

    def __trunc__(self) -> int:
        return mixed(math.trunc(self.bare()), (self,))  # type: ignore[return-value]

    def __floor__(self) -> Number:
        return mixed(math.floor(self.bare()), (self,))

    def __ceil__(self) -> Number:
        return mixed(math.ceil(self.bare()), (self,))

    def __neg__(self) -> Number:
        return mixed(-self.bare(), (self,))


class MixedWhole(Mixed, int):  # type: ignore[misc]
    """A whole number."""

    def bare(self) -> Number:
        return int.__index__(self)


class Areas(MixedWhole):
    """Several areas, each so many times, and `extra`: how many positions maps have that stand in a line."""

    terms: Dict[Sides, int]
    extra: int


class MixedPart(Mixed, float):  # type: ignore[misc]
    """A fraction, as a height divided by a width."""

    def bare(self) -> Number:
        return float.__pos__(self)


def mixed(number: Number, made_of: Sequence[Any]) -> Number:
    made: Any = (
        int.__new__(MixedWhole, number) if isinstance(number, int) else float.__new__(MixedPart, number)
    )
    made.made_of = [part for part in made_of if isinstance(part, Followed)]
    made.space = made.made_of[0].space
    return made  # type: ignore[no-any-return]


def counted(number: Any) -> Optional[Tuple[Dict[Sides, int], int]]:
    """A whole number as areas, each so many times, and a rest; None for one that is no such sum."""
    if isinstance(number, Area):
        return {number.sides: 1}, number.extra
    if isinstance(number, Areas):
        return number.terms, number.extra
    return ({}, number) if type(number) is int else None


def alike(one: Any, other: Any) -> bool:
    """Whether two numbers are the same sum of areas, and so the same for every size."""
    first = counted(one)
    return first is not None and first == counted(other)


def bare(number: Any) -> Any:
    """The number in this bucket, and nothing else."""
    return number.bare() if isinstance(number, Followed) else number


def _mixing(function: Callable[[Any, Any], Any], swapped: bool = False) -> Callable[[Any, Any], Any]:
    def mix(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        one, two = bare(self), bare(other)
        return mixed(function(two, one) if swapped else function(one, two), (self, other))

    return mix


def _summing(sign: int, swapped: bool) -> Callable[[Any, Any], Any]:
    mix = _mixing(operator.add if sign > 0 else operator.sub, swapped)

    def add(self: Any, other: Any) -> Any:
        first, second = counted(self), counted(other)
        if first is None or second is None:
            return mix(self, other)
        signs = (sign, 1) if swapped else (1, sign)
        terms = {
            sides: signs[0] * first[0].get(sides, 0) + signs[1] * second[0].get(sides, 0)
            for sides in (*first[0], *second[0])
        }
        return areas(self.space, terms, signs[0] * first[1] + signs[1] * second[1])

    return add


_KINDS: Sequence[Any] = (Area, MixedWhole, Areas, MixedPart)
for _kind in _KINDS:
    for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
        for _swapped in (False, True):
            _method = f"__{'r' if _swapped else ''}{_name}__"
            if _kind in (Area, Areas) and _name in ("add", "sub"):
                setattr(_kind, _method, _summing(1 if _name == "add" else -1, _swapped))
            elif _kind is not Area or _method != "__mod__":
                setattr(_kind, _method, _mixing(getattr(operator, _name), _swapped))


def together(one: Any, other: Any, function: Callable[[Any, Any], Any]) -> Any:
    """A height compared with a width: fewer heights or widths are left, those for which it is so with every
    other side; only this bucket's own numbers where not even its own are."""
    result = function(one.table[-1], other.table[-1])
    kept = []
    for number, against, swap in ((one, other, False), (other, one, True)):
        taken = number.space.accepted[against.side]
        others = {size for size, known in zip(against.table, taken) if known and size}
        alike = {
            size: all((function(each, size) if swap else function(size, each)) == result for each in others)
            for size in set(number.table)
        }
        kept.append([alike[size] for size in number.table])
    losses = [
        sum(before and not now for before, now in zip(number.space.accepted[number.side], left))
        for number, left in zip((one, other), kept)
    ]
    number, left = (one, kept[0]) if losses[0] <= losses[1] else (other, kept[1])
    if left[-1]:
        number.keep(left)
    else:
        one.freeze()
        other.freeze()
    return result


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compare(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        number = bare(other)
        result = function(bare(self), number)
        if isinstance(self, Mixed) or isinstance(other, Followed):
            if not alike(self, other):
                self.freeze()
                if isinstance(other, Followed):
                    other.freeze()
        else:
            self.keep(lambda found: function(found, number) == result)
        return result

    return compare


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    for _kind in _KINDS:
        setattr(_kind, f"__{_name}__", _compared(getattr(operator, _name)))
        _kind.__hash__ = float.__hash__ if _kind is MixedPart else int.__hash__


def area(space: Space, sides: Sequence[Sequence[Number]], extra: int = 0) -> int:
    """The number; a plain one if it is the same for every size."""
    found = int(sides[0][-1] * sides[1][-1]) + extra
    if all(len(set(table[1:])) == 1 for table in sides):
        return found
    number = int.__new__(Area, found)
    number.space, number.sides, number.extra = space, (tuple(sides[0]), tuple(sides[1])), extra
    return number


def areas(space: Space, terms: Dict[Sides, int], extra: int) -> int:
    """The number; a plain one, or one area, where the others have gone."""
    terms = {sides: count for sides, count in terms.items() if count}
    if not terms:
        return extra
    if list(terms.values()) == [1]:
        return area(space, next(iter(terms)), extra)
    found = sum(int(sides[0][-1] * sides[1][-1]) * count for sides, count in terms.items()) + extra
    number = int.__new__(Areas, found)
    number.space, number.terms, number.extra = space, terms, extra
    number.made_of = [each for sides in terms if isinstance(each := area(space, sides), Followed)]
    return number
