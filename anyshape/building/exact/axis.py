"""One tracked dimension of an activation: how far it is valid for every size of the picture."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence, Tuple

Table = Tuple[int, ...]
FLATTENED = "space is flattened"


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


class Flat:
    """One dimension that both sides were flattened into, row after row; `before` and `after` them stand
    positions of every picture (a class token). What does not know it asks for its table, and is refused."""

    def __init__(self, rows: Axis, columns: Axis, before: int = 0, after: int = 0) -> None:
        self.rows, self.columns, self.before, self.after = rows, columns, before, after

    @property
    def key(self) -> Tuple[Any, ...]:
        return (self.rows, self.columns, self.before, self.after)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flat) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def length(self) -> int:
        return self.before + self.rows.length * self.columns.length + self.after

    @property
    def parts(self) -> Sequence[Axis]:
        return (self.rows, self.columns)

    @property
    def table(self) -> Table:
        raise NotExact(FLATTENED)

    @property
    def side(self) -> int:
        raise NotExact(FLATTENED)


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
