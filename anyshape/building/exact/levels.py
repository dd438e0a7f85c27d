"""Sequences that several maps stand in: which of their positions belong together where two are combined.

A map that has one size for every picture is not followed, and may stand in a sequence as so many positions.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence

from anyshape.building.exact.axis import FLATTENED, Axis, Flat, Levels, NotExact, Region, Rows, constant


def positions(count: int, like: Flat) -> Flat:
    """As many positions, the same for every picture."""
    rows, columns = (
        constant(part.side, size, len(part.table) - 1) for part, size in zip(like.parts, (1, count))
    )
    return Flat(rows, columns)


def is_sequence(region: Region, dim: int = 1) -> bool:
    """Whether each picture has one row, first, and its positions stand in `dim` alone."""
    return region.batch == 0 and not isinstance(region.batch, Rows) and set(region.axes) == {dim}


def line(axis: Axis, sides: Sequence[int]) -> Flat:
    """One row or column as a map: the other side of it is 1 for every picture."""
    other = constant(1 - axis.side, 1, sides[1 - axis.side])
    return Flat(axis, other) if axis.side == 0 else Flat(other, axis)


def maps_of(axis: Any) -> List[Flat]:
    """The maps in a sequence, what stands before and behind one among them."""
    if isinstance(axis, Levels):
        return list(axis.maps)
    inner = [Flat(axis.rows, axis.columns)]
    before = [positions(axis.before, axis)] if axis.before else []
    return before + inner + ([positions(axis.after, axis)] if axis.after else [])


def whole(flat: Flat) -> bool:
    """Whether it is as long for every picture."""
    return all(len(set(part.table[1:])) == 1 for part in flat.parts)


def joined(maps: Sequence[Flat]) -> Any:
    """The sequence of these."""
    return maps[0] if len(maps) == 1 else Levels(tuple(maps))


def sequence(maps: Sequence[Flat]) -> Any:
    """The axis of these one after the other; None where none of them depends on the picture."""
    own = [n for n, each in enumerate(maps) if not whole(each)]
    if not own:
        return None
    if len(own) > 1:
        return joined(maps)
    before, after = maps[: own[0]], maps[own[0] + 1 :]
    one = maps[own[0]]
    return Flat(one.rows, one.columns, *(sum(each.length for each in beside) for beside in (before, after)))


def parted(axis: Any, counts: Sequence[int]) -> List[Any]:
    """A sequence's axis in pieces of so many positions. Raises NotExact where a map would be cut."""
    waiting, pieces = maps_of(axis), []
    for count in counts:
        found: List[Flat] = []
        while count and waiting:
            first = waiting.pop(0)
            if first.length > count and whole(first):
                waiting.insert(0, positions(first.length - count, first))
                first = positions(count, first)
            found.append(first)
            count -= first.length
        if count:
            raise NotExact("a sequence is cut elsewhere than between its maps")
        pieces.append(sequence(found))
    if waiting:
        raise NotExact("a sequence is cut elsewhere than between its maps")
    return pieces


def as_map(axis: Axis, like: Flat, full: Callable[[Axis], bool]) -> Flat:
    """The positions of one side, which the columns of a map were joined with: they are as many for every
    picture, and so no side that was followed. full: whether an axis is. Raises NotExact where it is not."""
    each = like.columns.length
    if axis.side != like.rows.side or not full(like.columns):
        raise NotExact(FLATTENED)
    return Flat(Axis(axis.side, tuple(0 if n % each else n // each for n in axis.table)), like.columns)


def merged(
    one: Any, other: Any, merge: Callable[[Sequence[Axis]], Axis], full: Callable[[Axis], bool]
) -> Any:
    """Two sequences that are combined position by position. Raises NotExact where they do not fit."""
    if isinstance(one, Axis) and isinstance(other, Flat):
        one = as_map(one, other, full)
    elif isinstance(other, Axis) and isinstance(one, Flat):
        other = as_map(other, one, full)
    if isinstance(one, Flat) and isinstance(other, Flat):
        if (one.before, one.after) != (other.before, other.after):
            raise NotExact("sequences of the picture are combined that begin at other positions")
        rows, columns = (merge(pair) for pair in zip(one.parts, other.parts))
        return Flat(rows, columns, one.before, one.after)
    if not isinstance(one, (Flat, Levels)) or not isinstance(other, (Flat, Levels)):
        raise NotExact(FLATTENED)
    waiting = [maps_of(one), maps_of(other)]
    found: List[Flat] = []
    while all(waiting):
        first, second = (each.pop(0) for each in waiting)
        if first.length == second.length and not (whole(first) or whole(second)):
            rows, columns = (merge(pair) for pair in zip(first.parts, second.parts))
            found.append(Flat(rows, columns))
            continue
        short, long, rest = (
            (first, second, waiting[1]) if first.length <= second.length else (second, first, waiting[0])
        )
        if short.length == long.length:
            found.append(second if whole(first) else first)
        elif whole(long):
            found.append(short)
            rest.insert(0, positions(long.length - short.length, long))
        else:
            break
    if any(waiting) or sum(each.length for each in found) != one.length:
        raise NotExact("sequences of maps are combined that begin at other positions")
    return joined(found)
